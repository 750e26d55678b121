"""Servers of many processes that change users: they need the real root."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import time

from .case import Failed, Skipped
from .lab import Lab


def need_root() -> None:
    """Skips the case in a user namespace, where there are no other users to change to."""
    if os.geteuid() != 0 or open("/proc/self/uid_map").read().split() != ["0", "0", "4294967295"]:
        raise Skipped("its processes change to other users: needs the real root")


def need_program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise Skipped(f"{name} is not installed (scripts/install-deps)")
    return found


def children_of(pid: int) -> list[int]:
    """Its children that live, but for the library's keeper, which isn't the program's."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                name, _, rest = file.read().rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == pid and state not in "ZX" and not name.endswith("(ustack-keeper"):
            found.append(int(entry))
    return found


def wait_until(condition, what: str, timeout: float = 15):
    """The first true value of condition(); a failure of the case if there is none in time."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"never: {what}")
        time.sleep(0.02)
    return value


_APACHE = """
ServerRoot {directory}
ServerName lab
DefaultRuntimeDir {directory}
PidFile {directory}/apache.pid
Mutex file:{directory} default
LoadModule mpm_{mpm}_module /usr/lib/apache2/modules/mod_mpm_{mpm}.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
User www-data
Group www-data
Listen 0.0.0.0:80
ErrorLog {directory}/error.log
DocumentRoot {directory}/www
StartServers 3
{more}
GracefulShutdownTimeout 5
EnableSendfile on
EnableMMAP off
"""


class Apache:
    """apache2 on the host, port 80: its parent root, its children www-data."""

    def __init__(self, lab: Lab, mpm: str, env: dict[str, str] | None = None):
        need_root()
        program = need_program("apache2")
        self.directory: pathlib.Path = lab.context.directory / f"apache-{lab.name}"
        self.www = self.directory / "www"
        self.www.mkdir(parents=True)
        configuration = self.directory / "apache.conf"
        more = "ThreadsPerChild 8\nMaxRequestWorkers 32\nMinSpareThreads 8\nMaxSpareThreads 24" if mpm == "event" else "MinSpareServers 2"
        configuration.write_text(_APACHE.format(directory=self.directory, mpm=mpm, more=more))
        self.process = lab.host(program, "-D", "FOREGROUND", "-f", configuration, label="apache2", env=env)
        lab.wait_until_listening(80)

    @property
    def pid(self) -> int:
        return int((self.directory / "apache.pid").read_text())


class Postgres:
    """A PostgreSQL server on the host, port 5432, as the user postgres, who may open the link all the same."""

    database = "postgres"

    def __init__(self, lab: Lab):
        need_root()
        programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not programs:
            raise Skipped("postgresql is not installed (scripts/install-deps)")
        self.lab = lab
        self.programs = programs[-1].parent
        user = pwd.getpwnam("postgres")
        self.directory = lab.context.directory / f"postgres-{lab.name}"
        self.directory.mkdir()
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.data = self.directory / "data"
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        lab.in_host_namespace(*become, "env", "-C", "/", self.programs / "initdb", "--no-sync", "-A", "trust", "-U",
                              "postgres", "-D", self.data, "--no-instructions", label="initdb").ok(60)
        with open(self.data / "pg_hba.conf", "a") as file:
            file.write("host all all 0.0.0.0/0 trust\n")
        capabilities = "+net_admin,+dac_override"
        self.process = lab.host(
            self.programs / "postgres", "-D", self.data, "-h", lab.host_address(), "-k", self.directory,
            "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_wal_size=64MB", "-c", "autovacuum=off",
            before=[*become, f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"], label="postgres")
        wait_until(lambda: self.psql("select 1", check=False) == "1", "postgres answers", 30)

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def psql(self, command: str, check: bool = True) -> str:
        """The answer to an SQL command of a kernel's psql, without decoration."""
        done = self.lab.peer(self.programs / "psql", "-X", "-q", "-A", "-t", "-h", self.lab.host_address(), "-U",
                             "postgres", "-c", command, self.database, label="psql")
        if done.wait(30) != 0 and check:
            raise Failed(done.describe())
        return done.stdout.strip()

    def pgbench(self, *arguments):
        return self.lab.peer(self.programs / "pgbench", "-h", self.lab.host_address(), "-U", "postgres", *arguments,
                             self.database, label="pgbench")


_SSHD = """
ListenAddress {address}
HostKey {directory}/host_key
PidFile {directory}/sshd.pid
AuthorizedKeysFile {directory}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
PrintMotd no
UseDNS no
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


class Sshd:
    """sshd on the host or the peer, port 22, with keys of its own; `ssh` and `scp` are arguments to call it with."""

    #: A /run of its own: sshd wants /run/sshd.
    _RUN = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec \"$@\"", "sh"]

    def __init__(self, lab: Lab, *, on_host: bool = True, options=(), env: dict[str, str] | None = None):
        need_root()
        program = need_program("sshd")
        directory = self.directory = lab.context.directory / f"sshd-{lab.name}"
        directory.mkdir()
        for name in ("host_key", "key"):
            lab.context.start(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name]).ok()
        self.address = lab.host_address() if on_host else lab.peer_address
        configuration = directory / "sshd_config"
        configuration.write_text(_SSHD.format(directory=directory, address=self.address))
        argv = [program, "-D", "-e", "-f", configuration, *options]
        if on_host:
            self.process = lab.host(*argv, before=self._RUN, label="sshd", env=env)
            lab.wait_until_listening(22)
        else:
            self.process = lab.peer(*self._RUN, *argv, label="sshd")
            lab.wait_until_peer_listens(22)
        common = ["-F", "none", "-i", directory / "key", "-o", "StrictHostKeyChecking=no", "-o",
                  "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        self.ssh = ["ssh", *common]
        self.scp = ["scp", *common]
        self.target = f"root@{self.address}"
