"""Servers with a process per session, which changes its user, goes to chroot, into a sandbox: sshd, PostgreSQL, vsftpd."""

import concurrent.futures
import hashlib
import os
import signal

from harness import (Context, Lab, Postgres, Sshd, case, check, children_of, equal, need_program, need_root,
                     wait_until)

PYTHON = "/usr/bin/python3"


# ---- ssh ------------------------------------------------------------------------------------------------------


@case("sshd.sessions")
def sshd_sessions(context: Context):
    """sshd, which executes itself for each connection: logins by key, output and status, 10 MB by scp both ways."""
    lab = context.lab()
    sshd = Sshd(lab)
    done = lab.peer(*sshd.ssh, sshd.target, "echo from $SSH_CONNECTION; exit 7", label="ssh")
    equal(done.wait(20), 7, "the command's status")
    check(f"from {lab.peer_address}" in done.stdout and f"{sshd.address} 22" in done.stdout, done.describe())
    path = context.file(10_000_000)
    there, back = context.directory / "there", context.directory / "back"
    lab.peer(*sshd.scp, path, f"{sshd.target}:{there}", label="scp").ok(40)
    equal(context.sha256(there), context.sha256(path), "sha256 of what was copied there")
    lab.peer(*sshd.scp, f"{sshd.target}:{there}", back, label="scp").ok(40)
    equal(context.sha256(back), context.sha256(path), "sha256 of what was copied back")
    # Several at once.
    clients = [lab.peer(*sshd.ssh, sshd.target, f"head -c 300000 {path} | cat", label="ssh") for _ in range(4)]
    for client in clients:
        client.ok(30)
        equal(client.stdout_path.read_bytes(), path.read_bytes()[:300000], "what a session has shown")
    wait_until(lambda: not children_of(sshd.process.pid), "all sessions have ended")
    sshd.process.signal(signal.SIGTERM)
    sshd.process.wait(10)


@case("sshd.forwarding")
def sshd_forwarding(context: Context):
    """sshd -r, whose children stay on the host: a connection for each one of -L, a listener on the host for -R."""
    lab = context.lab()
    peer = lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer")
    peer.wait_for_output("ready")
    sshd = Sshd(lab, options=["-r", "-o", "GatewayPorts=yes"])
    lab.peer(*sshd.ssh, "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{lab.peer_address}:5001:{lab.peer_address}:7001",
             "-R", f"{sshd.address}:5002:{lab.peer_address}:7001", sshd.target, label="tunnel")
    lab.wait_until_peer_listens(5001)
    lab.wait_until_listening(5002)
    path = context.file(2_000_000)
    for address, port in ((lab.peer_address, 5001), (sshd.address, 5002)):
        target = context.directory / f"echoed-{port}"
        lab.peer(PYTHON, context.tool("transfer.py"), "connect", address, port, "--send", path, "--receive", target,
                 label="client").ok(30)
        equal(context.sha256(target), context.sha256(path), f"sha256 of what came back through port {port}")


@case("ssh.client")
def ssh_client(context: Context):
    """ssh under the library to a kernel's sshd: a login, 5 MB each way through it."""
    lab = context.lab()
    sshd = Sshd(lab, on_host=False)
    path = context.file(5_000_000)
    done = lab.host(*sshd.ssh, sshd.target, "cat", stdin=path, label="ssh").ok(40)
    equal(context.sha256(done.stdout_path), context.sha256(path), "sha256 of what came back")
    status = lab.host(*sshd.ssh, sshd.target, "exit 3", label="ssh").wait(20)
    equal(status, 3, "the command's status")


# ---- PostgreSQL -----------------------------------------------------------------------------------------------


def balanced(postgres: Postgres) -> None:
    """What pgbench's transactions leave unchanged."""
    sums = postgres.psql("select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from "
                         "pgbench_tellers), (select sum(bbalance) from pgbench_branches), (select sum(delta) from "
                         "pgbench_history)").split("|")
    check(len(set(sums)) == 1, f"the books don't balance: {sums}")


@case("postgres.pgbench", limit=120)
def postgres_pgbench(context: Context):
    """PostgreSQL, a process per session: pgbench of the kernel's side, with the books checked; 2 MB in one value."""
    lab = context.lab()
    postgres = Postgres(lab)
    postgres.pgbench("-i", "-q", "-s", "1").ok(60)
    done = postgres.pgbench("-c", "8", "-j", "2", "-t", "100").ok(60)
    check("number of transactions actually processed: 800/800" in done.stdout, done.describe())
    equal(postgres.psql("select count(*) from pgbench_history"), "800", "rows of history")
    balanced(postgres)
    # A connection for each transaction.
    postgres.pgbench("-n", "-c", "4", "-t", "15", "-C").ok(60)
    balanced(postgres)
    digits = postgres.psql("select string_agg(md5(n::text), '') from generate_series(1, 65536) n")
    equal(len(digits), 2 << 20, "length of the value")
    equal(postgres.psql("select md5(string_agg(md5(n::text), '')) from generate_series(1, 65536) n"),
          hashlib.md5(digits.encode()).hexdigest(), "its md5")
    os.kill(postgres.pid, signal.SIGINT)
    equal(postgres.process.wait(20), 0, "the server's status")


@case("postgres.backend_killed", limit=120)
def postgres_backend_killed(context: Context):
    """A backend killed with -9: its client sees the end; the server recovers by itself and serves on."""
    lab = context.lab()
    postgres = Postgres(lab)
    postgres.psql("create table kept (n int); insert into kept select generate_series(1, 1000)")
    sleeper = lab.peer(postgres.programs / "psql", "-X", "-h", lab.host_address(), "-U", "postgres", "-c",
                       "select pg_sleep(60)", postgres.database, label="sleeper")
    backend = int(wait_until(lambda: postgres.psql("select pid from pg_stat_activity where query = "
                                                   "'select pg_sleep(60)'"), "the sleeper's backend"))
    os.kill(backend, signal.SIGKILL)
    check(sleeper.wait(20) != 0, f"the client has seen nothing\n{sleeper.describe()}")
    check("server closed the connection unexpectedly" in sleeper.stderr, sleeper.describe())
    wait_until(lambda: postgres.psql("select sum(n) from kept", check=False) == "500500", "it serves again", 30)
    os.kill(postgres.pid, signal.SIGTERM)
    equal(postgres.process.wait(20), 0, "the server's status")


# ---- FTP ------------------------------------------------------------------------------------------------------

_VSFTPD = """
listen=YES
listen_ipv6=NO
background=NO
listen_address={address}
anonymous_enable=YES
no_anon_password=YES
anon_root={root}
write_enable=YES
anon_upload_enable=YES
anon_umask=022
chown_uploads=NO
ftp_username=daemon
nopriv_user=nobody
secure_chroot_dir={empty}
pasv_enable=YES
port_enable=YES
connect_from_port_20=YES
xferlog_enable=NO
seccomp_sandbox=NO
one_process_model={one_process}
"""


def exercise_vsftpd(context: Context, one_process: str, env: dict[str, str] | None = None) -> None:
    need_root()
    program = need_program("vsftpd")
    lab: Lab = context.lab()
    root, empty = context.directory / "ftp", context.directory / "empty"
    (root / "upload").mkdir(parents=True)
    (root / "upload").chmod(0o777)
    empty.mkdir()
    path = context.file(3_000_000)
    (root / "file").write_bytes(path.read_bytes())
    configuration = context.directory / "vsftpd.conf"
    configuration.write_text(_VSFTPD.format(address=lab.host_address(), root=root, empty=empty,
                                              one_process=one_process))
    server = lab.host(program, configuration, label="vsftpd", env=env)
    lab.wait_until_listening(21)
    url = f"ftp://{lab.host_address()}"
    for mode in ([], ["--ftp-port", "-"]):
        target = context.directory / f"got{len(mode)}"
        lab.peer("curl", "-sS", "--max-time", "20", *mode, "-o", target, f"{url}/file").ok(25)
        equal(context.sha256(target), context.sha256(path), "sha256 of what was fetched")
    lab.peer("curl", "-sS", "--max-time", "20", "-T", path, f"{url}/upload/put").ok(25)
    equal(context.sha256(root / "upload" / "put"), context.sha256(path), "sha256 of what was stored")
    def listing():
        return lab.peer("curl", "-sS", "--max-time", "20", f"{url}/", label="listing").ok(25).stdout
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for text in pool.map(lambda _: listing(), range(8)):
            check("upload" in text and " file" in text, f"not a listing: {text}")
    server.signal(signal.SIGTERM)
    try:
        server.wait(10)
    except Failed:
        raise Failed("vsftpd didn't end")


@case("vsftpd.one_process")
def vsftpd_one_process(context: Context):
    """vsftpd, a process per session that goes to chroot and gives up root; active and passive transfers, an upload."""
    exercise_vsftpd(context, "YES")


@case("vsftpd.two_processes")
def vsftpd_two_processes(context: Context):
    """The same with two processes a session: the privileged one makes the data connections and hands them over."""
    exercise_vsftpd(context, "NO")
