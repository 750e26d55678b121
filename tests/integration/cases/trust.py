"""USTACK_TRUST=credentials: who gives up root leaves the host's memory, and goes on through the keeper."""

import os
import pathlib
import signal

from cases.keeper import Peer
from cases.multiprocess import NGINX_SIZES, Load, all_right, exercise_apache, gone, nginx_with_workers
from cases.sessions import exercise_vsftpd
from harness import Context, Lab, Sshd, case, check, children_of, equal, need_root, wait_until

PYTHON = "/usr/bin/python3"
TRUST = {"USTACK_TRUST": "credentials"}
NOBODY = 65534


def run_checks(context: Context, *names: str) -> None:
    need_root()
    lab = context.lab()
    lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer").wait_for_output("ready")
    # A port that never answers.
    lab.peer("nft", "add table ip trust; add chain ip trust in { type filter hook input priority 0; }; "
             "add rule ip trust in tcp dport 7099 drop", label="nft").ok()
    program = lab.host(PYTHON, "-B", context.tool("parting.py"), lab.peer_address, lab.host_address(), *names,
                       label="parting", cwd=context.directory, env=TRUST)
    program.ok(60)
    equal(program.stdout.split(), list(names), "checks")


def check_parted(context: Context, pids: list[int]) -> None:
    """They have given up root and have no memory in common with anybody."""
    for pid in pids:
        process = pathlib.Path(f"/proc/{pid}")
        users = next(line for line in (process / "status").read_text().splitlines() if line.startswith("Uid:"))
        check("0" not in users.split()[1:], f"process {pid} is still root: {users}")
        if not context.kernel_mode:
            large = [line for line in (process / "maps").read_text().splitlines()
                     if " rw-s " in line and int(line.split("-")[1].split()[0], 16) - int(line.split("-")[0], 16) > 1 << 28]
            check(not large, f"process {pid} still has the host's memory: {large}")


@case("trust.parting", limit=90)
def parting(context: Context):
    """Memory and device are gone, connections and epoll sets go on, those that keep root notice nothing."""
    run_checks(context, "shares_nothing", "connections_go_on", "epoll_goes_on", "keeping_root_changes_nothing",
               "all_calls", "several_threads")


@case("trust.new_sockets", limit=90)
def new_sockets(context: Context):
    """What is opened after root is given up, through the keeper: connections, blocking and not, and listeners."""
    run_checks(context, "new_connections", "new_connections_without_waiting", "new_listeners",
               "new_dual_stack", "loopback_ends")


@case("trust.prefork", limit=90)
def prefork(context: Context):
    """Four workers that have given up root, by accept, poll and epoll; one killed, and the next takes over."""
    need_root()
    lab = context.lab()
    for how in ("accept", "poll", "epoll"):
        server = lab.host(PYTHON, context.tool("prefork_server.py"), lab.host_address(), 80, "--how", how, "--user",
                          NOBODY, label="prefork", env=TRUST)
        server.wait_for_output("listening")
        wait_until(lambda: len(children_of(server.pid)) == 4, "four workers")
        all_right(Load(lab, "--requests", 300, "--sizes", "10,3000,200000", clients=8).result(), 300)
        check_parted(context, children_of(server.pid))
        victim = children_of(server.pid)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: gone(victim) and len(children_of(server.pid)) == 4, "four workers again")
        all_right(Load(lab, "--requests", 100, "--sizes", "3000", clients=8).result(), 100)
        server.signal(signal.SIGTERM)
        server.wait(10)


@case("trust.keeper_killed", limit=90)
def keeper_killed(context: Context):
    """The keeper of four such workers is killed under load, eight times: only what it was just moving breaks, visibly."""
    need_root()
    lab = context.lab()
    peer = Peer(context, lab)
    server = lab.host(PYTHON, context.tool("prefork_server.py"), lab.host_address(), 80, "--how", "epoll", "--user",
                      NOBODY, label="prefork", env=TRUST)
    server.wait_for_output("listening")
    load = Load(lab, "--sizes", "3000,200000", clients=8)
    kills = 0
    for _ in range(8):
        if context.kernel_mode:
            break
        (keeper,) = peer.wait_for_keepers(1)
        peer.wait_for_keepers(1, name="ustack-standin")
        os.kill(keeper, signal.SIGKILL)
        kills += 1
        wait_until(lambda: peer.keepers() not in ([], [keeper]), "its stand-in goes on")
    result = load.result()
    check(result["wrong"] == 0 and result["hung"] == 0, f"wrong or hung: {result}")
    check(sum(result["failed"].values()) <= 2 * kills, f"too many have failed: {result}")
    check(result["right"] > 50, f"too few: {result}")
    context.note(f"{result['right']} right, {sum(result['failed'].values())} failed")
    all_right(Load(lab, "--requests", 60, "--sizes", "3000", clients=8).result(), 60)


@case("trust.nginx", limit=90)
def nginx(context: Context):
    """nginx with a master as root and workers as nobody: requests, a reload under load that loses none, QUIT."""
    need_root()
    lab: Lab = context.lab()
    context.open_to_all()
    server, master = nginx_with_workers(lab, 2, user="nobody nogroup", env=TRUST)
    sizes = ",".join(map(str, NGINX_SIZES))
    all_right(Load(lab, "--requests", 300, "--sizes", sizes, clients=8).result(), 300)
    all_right(Load(lab, "--requests", 300, "--sizes", sizes, "--keep-alive", clients=8).result(), 300)
    check_parted(context, children_of(master))
    load = Load(lab, "--sizes", "100,30000", clients=8)
    old = set(children_of(master))
    server.process.signal(signal.SIGHUP)
    wait_until(lambda: len(set(children_of(master)) - old) == 2, "two new workers")
    wait_until(lambda: not old & set(children_of(master)), "the first workers have ended")
    all_right(load.result(), 100)
    check_parted(context, children_of(master))
    server.process.signal(signal.SIGQUIT)
    equal(server.process.wait(15), 0, "the master's status")


@case("trust.apache", limit=90)
def apache(context: Context):
    """apache2, a process per connection as www-data: requests, a graceful restart under load that loses none."""
    exercise_apache(context, "prefork", TRUST)


@case("trust.apache_event", limit=90)
def apache_event(context: Context):
    """The same with processes of threads, which they start after they have given up root."""
    exercise_apache(context, "event", TRUST)


@case("trust.sshd", limit=90)
def sshd(context: Context):
    """sshd: logins, output and status, 5 MB by scp both ways, while the processes before the login have given up root."""
    lab: Lab = context.lab()
    server = Sshd(lab, env=TRUST)
    done = lab.peer(*server.ssh, server.target, "echo from $SSH_CONNECTION; exit 7", label="ssh")
    equal(done.wait(20), 7, "the command's status")
    check(f"from {lab.peer_address}" in done.stdout and f"{server.address} 22" in done.stdout, done.describe())
    path, there, back = context.file(5_000_000), context.directory / "there", context.directory / "back"
    lab.peer(*server.scp, path, f"{server.target}:{there}", label="scp").ok(40)
    lab.peer(*server.scp, f"{server.target}:{there}", back, label="scp").ok(40)
    equal(context.sha256(back), context.sha256(path), "sha256 after both ways")
    wait_until(lambda: not children_of(server.process.pid), "all sessions have ended")


@case("trust.vsftpd", limit=90)
def vsftpd(context: Context):
    """vsftpd with two processes a session: the one that has given up root gets data connections from the other."""
    exercise_vsftpd(context, "NO", TRUST)
