"""Programs that find their device taken join the host that has it (shim/joining.h)."""

import os
import pathlib
import signal
import subprocess

from cases.http_clients import fetch
from harness import Context, Lab, Nginx, Process, case, check, children_of, equal, need_root, wait_until

PYTHON = "/usr/bin/python3"


def owner(lab: Lab, log: pathlib.Path, port: int = 5000) -> Process:
    """A program that has the device, and waits."""
    process = lab.host("nc.openbsd", "-lk", lab.host_address(), port, label="owner", env={"USTACK_LOG": f"debug:{log}"})
    lab.wait_until_listening(port, lab.host_address())
    return process


def keepers(log: pathlib.Path) -> list[int]:
    """The process numbers of those that there were, the last one last."""
    return [int(line.split("keeper process ")[1].split(",")[0]) for line in log.read_text().splitlines()
            if "keeper process " in line]


def has_joined(log: pathlib.Path, process: Process) -> bool:
    return f"process {process.pid} joins" in log.read_text()


def http_server(lab: Lab, path: pathlib.Path, port: int, **more) -> Process:
    server = lab.host(PYTHON, "-m", "http.server", port, "--bind", lab.host_address(), "--directory", path.parent,
                      label=f"server-{port}", **more)
    lab.wait_until_listening(port, lab.host_address())
    return server


def peer_fetches(context: Context, lab: Lab, path: pathlib.Path, *ports: int) -> None:
    """From each, all at the same time."""
    got = {port: context.directory / f"peer-got-{port}" for port in ports}
    fetches = [lab.peer("curl", "-sS", "--fail", "--max-time", "20", "-o", got[port],
                        f"http://{lab.host_address()}:{port}/{path.name}", label=f"fetch-{port}") for port in ports]
    for process in fetches:
        process.ok(30)
    for arrived in got.values():
        equal(context.sha256(arrived), context.sha256(path), f"sha256 of {arrived.name}")
        arrived.unlink()


def side_by_side(context: Context, lab: Lab) -> None:
    path = context.file(5_000_000)
    url = Nginx(lab).serve(path)
    log = context.directory / "log"
    first = owner(lab, log)
    script = f"for i in 1 2 3 4 5 6; do curl -sS --fail --max-time 20 -o {context.directory}/got-$i {url} & done; wait"
    lab.host("sh", "-ec", script, label="script").ok(40)
    for number in range(1, 7):
        equal(context.sha256(context.directory / f"got-{number}"), context.sha256(path), f"sha256 of got-{number}")
    equal(log.read_text().count("joins, served by the keeper"), 6, "programs that have joined")
    check(first.running, "the first program has ended")


@case("joining.side_by_side", kernel=False)
def joining_side_by_side(context: Context):
    """A script's six curls at the same time, while a seventh program listens: one host, and every byte right."""
    side_by_side(context, context.lab())


@case("joining.packet", kernel=False)
def joining_packet(context: Context):
    """The same on an interface that is shared with the kernel, where the address is what a host has for itself."""
    side_by_side(context, context.lab("packet"))


@case("joining.outlives", kernel=False)
def joining_outlives(context: Context):
    """Servers that have joined serve beside the first one, after its death too; the device is free after the last."""
    lab = context.lab()
    log = context.directory / "log"
    path = context.file(3_000_000)
    first = http_server(lab, path, 5000, env={"USTACK_LOG": f"debug:{log}"})
    second, third = http_server(lab, path, 5001), http_server(lab, path, 5002)
    check(has_joined(log, second) and has_joined(log, third), log.read_text())
    peer_fetches(context, lab, path, 5000, 5001, 5002)
    first.signal(signal.SIGKILL)
    first.wait()
    peer_fetches(context, lab, path, 5001, 5002)
    fourth = http_server(lab, path, 5003)
    check(has_joined(log, fourth), log.read_text())
    peer_fetches(context, lab, path, 5001, 5002, 5003)
    for server in (second, third, fourth):
        server.signal(signal.SIGKILL)
        server.wait()
    # Another configuration: a host of its own.
    fetch(context, lab, Nginx(lab).serve(path), path)
    last = lab.host("curl", "-sS", "--max-time", "10", "-o", "/dev/null", f"http://{lab.peer_address}/",
                    env={"USTACK_SYSCTL": "net.ipv4.tcp_sack=0", "USTACK_LOG": f"debug:{log}"})
    last.ok()
    check(f"ustack[{last.pid}] info: tap0" in log.read_text(), log.read_text())


@case("joining.helper", kernel=False)
def joining_helper(context: Context):
    """A program runs another that it execs while it has a connection itself, and both go on."""
    lab = context.lab()
    path = context.file(2_000_000)
    url = Nginx(lab).serve(path)
    program = (
        "import http.client, subprocess, sys\n"
        "address, url, name, got = sys.argv[1:]\n"
        "one = http.client.HTTPConnection(address, timeout=10)\n"
        "one.request('GET', '/' + name)\n"
        "first = one.getresponse().read()\n"
        "subprocess.run(['curl', '-sS', '--fail', '--max-time', '10', '-o', got, url], check=True)\n"
        "one.request('GET', '/' + name)\n"
        "assert one.getresponse().read() == first == open(got, 'rb').read()\n"
    )
    lab.host(PYTHON, "-c", program, lab.peer_address, url, path.name, context.directory / "got", label="program").ok(30)


PORTS = """
import errno, os, socket, sys
host = sys.argv[1]

def fails(expected, address, reuse=False):
    with socket.socket() as s:
        if reuse: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try: s.bind(address)
        except OSError as error: assert error.errno == expected, error
        else: raise AssertionError(f"bound to {address}")

fails(errno.EADDRINUSE, (host, 5000))
fails(errno.EADDRINUSE, ("0.0.0.0", 5000), reuse=True)
fails(errno.EADDRNOTAVAIL, ("203.0.113.77", 0))
listening = socket.create_server((host, 5001))
fails(errno.EADDRINUSE, (host, 5001))
with socket.socket() as free:
    free.bind((host, 0))
    port = free.getsockname()[1]
    assert port != 0
    fails(errno.EADDRINUSE, (host, port))
    free.listen()
    assert free.getsockname() == (host, port)
# To the program that has the device, from a port of its own.
with socket.socket() as s:
    s.bind((host, 5002))
    s.settimeout(10)
    s.connect((host, 5000))
    assert s.getsockname() == (host, 5002) and s.getpeername() == (host, 5000), s
# To one that has joined too: this one, after a fork.
if os.fork() == 0:
    with socket.create_connection((host, 5001), timeout=10) as s: s.sendall(b"child")
    os._exit(0)
listening.settimeout(10)
connection, _ = listening.accept()
connection.settimeout(10)
assert connection.recv(100, socket.MSG_WAITALL) == b"child"
assert os.wait()[1] == 0
print("right")
"""


@case("joining.ports", kernel=False)
def joining_ports(context: Context):
    """A port is one program's, whichever of them it is; bind(2) says so; and they reach each other."""
    lab = context.lab()
    owner(lab, context.directory / "log")
    done = lab.host(PYTHON, "-c", PORTS, lab.host_address(), label="ports").ok(30)
    equal(done.stdout, "right\n", "what it says")


QUESTIONS = """
import os, socket, sys
with socket.create_connection((sys.argv[1], 80), timeout=10) as s:
    start, go = os.pipe()
    children = []
    for _ in range(150):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(start, 1)
            wrong = sum(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\\x01" for _ in range(20))
            os._exit(wrong)
        children.append(child)
    os.close(go)
    assert not [child for child in children if os.waitpid(child, 0)[1] != 0]
"""


@case("joining.many_questions", kernel=False)
def joining_many_questions(context: Context):
    """A hundred and fifty processes ask for options of one connection at the same time; each has its answers."""
    lab = context.lab()
    Nginx(lab).serve(context.file(1000))
    owner(lab, context.directory / "log")
    lab.host(PYTHON, "-c", QUESTIONS, lab.peer_address, label="questions").ok(60)


@case("joining.gives_up_root", kernel=False)
def joining_gives_up_root(context: Context):
    """A program that gives up root before its first socket has joined root's host before it does."""
    need_root()
    lab = context.lab()
    log = context.directory / "log"
    owner(lab, log)
    Nginx(lab).serve(context.file(1000))
    program = ("import os, socket, sys\n"
               "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
               "with socket.create_connection((sys.argv[1], 80), timeout=10) as s:\n"
               "    s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n"
               "    assert s.recv(4) == b'HTTP'\n")
    process = lab.host(PYTHON, "-c", program, lab.peer_address, label="program")
    process.ok(30)
    check(has_joined(log, process), log.read_text())


@case("joining.refused", kernel=False)
def joining_refused(context: Context):
    """Who is configured otherwise is told so, and opens no socket."""
    lab = context.lab()
    log = context.directory / "log"
    owner(lab, log)
    for env in ({"USTACK_ADDR": "192.0.2.77/24"}, {"USTACK_SYSCTL": "net.ipv4.tcp_sack=0"},
                {"USTACK_KERNEL": "203.0.113.0/24"}, {"USTACK_MTU": "1400"}):
        refused = lab.host("curl", "-sS", "--max-time", "5", f"http://{lab.peer_address}/", env=env)
        check(refused.wait(20) != 0, refused.describe())
        check("the tap device tap0 is in use by another program; it is configured otherwise" in refused.stderr,
              refused.describe())
        check(f"process {refused.pid} may not join" in log.read_text(), log.read_text())
    check("joins" not in log.read_text(), log.read_text())


@case("joining.keeper_killed", kernel=False)
def joining_keeper_killed(context: Context):
    """The keeper is killed: who has joined goes on by its stand-in, and others can join that."""
    lab = context.lab()
    log = context.directory / "log"
    path = context.file(2_000_000)
    first = http_server(lab, path, 5000, env={"USTACK_LOG": f"debug:{log}"})
    http_server(lab, path, 5001)

    for round in range(1, 4):
        peer_fetches(context, lab, path, 5000, 5001)
        equal(len(keepers(log)), round, "keepers so far")
        os.kill(keepers(log)[-1], signal.SIGKILL)
        wait_until(lambda round=round: len(keepers(log)) == round + 1, "another keeper")
        later = http_server(lab, path, 5001 + round)
        check(has_joined(log, later), log.read_text())
        peer_fetches(context, lab, path, 5000, *range(5001, 5002 + round))
    check(first.running, "the first program has ended")


AGAIN = """
import socket, sys
for line in sys.stdin:
    with socket.create_connection((sys.argv[1], 80), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        print(s.recv(4).decode(), flush=True)
"""


@case("joining.knocks_again", kernel=False)
def joining_knocks_again(context: Context):
    """Keeper and stand-in are killed: who has joined opens more sockets by the next keeper."""
    lab = context.lab()
    log = context.directory / "log"
    Nginx(lab).serve(context.file(1000))
    first = owner(lab, log)
    running = lab.host(PYTHON, "-u", "-c", AGAIN, lab.peer_address, stdin=subprocess.PIPE, label="program")

    def ask() -> None:
        before = running.stdout.count("HTTP")
        running.stdin.write(b"more\n")
        running.stdin.flush()
        wait_until(lambda: running.stdout.count("HTTP") > before, "an answer")

    ask()
    keeper = keepers(log)[-1]
    for pid in (*children_of(keeper), keeper):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: keepers(log)[-1] != keeper, "another keeper")
    ask()
    running.stdin.close()
    running.ok(10)
    check(first.running, "the first program has ended")
