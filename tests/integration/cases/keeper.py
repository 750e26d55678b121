"""The keeper: what goes on with the host when no process of the program does."""

import os
import signal
import time

from harness import Context, Lab, case, check, equal

PYTHON = "/usr/bin/python3"
ECHO, SOURCE, REPORTER, LAST_REPORT, GREETING_REPORTER = 7001, 7003, 7008, 7009, 7013
SNDBUFFORCE = 32


def keepers_in(lab: Lab, name: str = "ustack-keeper") -> list[int]:
    """Those of a laboratory: they are in its network namespace."""
    script = (f"import os\nmine = os.readlink('/proc/self/ns/net')\nfor pid in filter(str.isdigit, os.listdir('/proc')):\n"
              f"    try:\n        if open(f'/proc/{{pid}}/comm').read() == '{name}\\n' and "
              "os.readlink(f'/proc/{pid}/ns/net') == mine:\n            print(pid)\n    except OSError:\n        pass\n")
    listing = lab.peer(PYTHON, "-I", "-S", "-c", script, label="keepers").ok().stdout
    return [int(line) for line in listing.split()]


class Peer:
    """The kernel's side with its services, and what is seen of the keepers from there."""

    def __init__(self, context: Context, lab: Lab | None = None, **more):
        self.lab = lab or context.lab(**more)
        process = self.lab.peer(PYTHON, context.tool("peer_services.py"), self.lab.peer_address, label="peer")
        process.wait_for_output("ready")

    def program(self, text: str, label: str = "program", **more):
        head = ("import ctypes, os, signal, socket, sys, time\n"
                f"def connect(port): return socket.create_connection(({self.lab.peer_address!r}, port))\n")
        return self.lab.host(PYTHON, "-u", "-c", head + text, label=label, **more)

    def report(self) -> str:
        return self.lab.peer(PYTHON, "-c", "import socket\n"
                             f"c = socket.create_connection(({self.lab.peer_address!r}, {LAST_REPORT}))\n"
                             "print(c.recv(1000).decode(), end='')\n", label="asking").ok().stdout

    def keepers(self, name: str = "ustack-keeper") -> list[int]:
        return keepers_in(self.lab, name)

    def signal_keeper(self, number: int) -> None:
        (pid,) = self.keepers()
        self.lab.peer("kill", f"-{number}", pid, label="kill").ok()

    def wait_for_keepers(self, count: int, timeout: float = 20, name: str = "ustack-keeper") -> list[int]:
        deadline = time.monotonic() + timeout
        while len(found := self.keepers(name)) != count:
            check(time.monotonic() < deadline, f"{len(found)} of {name} after {timeout:g} s, not {count}")
            time.sleep(0.02)
        return found


@case("keeper.delivers")
def delivers(context: Context):
    """exit() with 2 MB unsent over a slow link ends the program at once, and the peer receives all of it."""
    peer = Peer(context, kind="emulated", emulation=["--rate=10mbit", "--delay=10ms", "--queue-bytes=256k"])
    program = peer.program(f"c = connect({REPORTER})\n"
                           f"c.setsockopt(socket.SOL_SOCKET, {SNDBUFFORCE}, 4000000)\n"
                           "c.sendall(bytes(2000000))\nos._exit(0)\n").ok()
    context.note(f"the program ended after {program.seconds():.2f} s; on the wire the bytes take 1.6 s")
    if not context.kernel_mode:
        check(peer.keepers(), "there is no keeper")
    equal(peer.report(), "2000000 end", "the peer's report")


@case("keeper.killed", kernel=False)
def killed(context: Context):
    """kill -9: the peer sees the end at once, a reset if something was left unread; and nothing stays."""
    peer = Peer(context)
    for port, expected in ((REPORTER, "1000 end"), (GREETING_REPORTER, "1000 ConnectionResetError")):
        program = peer.program(f"c = connect({port})\nc.sendall(bytes(1000))\n"
                               "if sys.argv[1:]: pass\nc.recv(100, socket.MSG_PEEK) if "
                               f"{port} == {GREETING_REPORTER} else None\nprint('there'); time.sleep(100)\n")
        program.wait_for_output("there")
        began = time.monotonic()
        program.signal(signal.SIGKILL)
        equal(peer.report(), expected, f"the peer's report on port {port}")
        context.note(f"{expected}: {time.monotonic() - began:.2f} s after the kill")
    # The second connection was reset: no TIME-WAIT holds the keeper.
    peer.wait_for_keepers(0)


@case("keeper.sibling_killed")
def sibling_killed(context: Context):
    """A process is killed while it drives: its relatives' connections go on, its own ends."""
    peer = Peer(context)
    peer.program(f"""
c = connect(7001)
for turn in range(5):
    ready, there = os.pipe()
    child = os.fork()
    if child == 0:
        own = connect({REPORTER})
        own.sendall(b'x' * 10)
        os.write(there, b'x')
        own.recv(1)
    os.read(ready, 1)
    time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    c.sendall(b'ping')
    assert c.recv(100) == b'ping'
    os.waitpid(child, 0)
""").ok()
    for _ in range(5):
        equal(peer.report(), "10 end", "the killed process's own connection")


@case("keeper.unseen")
def unseen(context: Context):
    """No wait*() reports the keeper, whatever its flags; it holds no descriptor and no directory of the program's."""
    peer = Peer(context)
    peer.program("""
WALL, WCLONE = 0x40000000, 0x80000000 - (1 << 32)
c = connect(7001)
def nobody(*arguments):
    try:
        result = os.waitpid(*arguments)
    except ChildProcessError:
        return
    raise AssertionError(result)
nobody(-1, 0); nobody(-1, WALL); nobody(-1, WALL | os.WNOHANG); nobody(-1, WCLONE)
child = os.fork()
if child == 0:
    time.sleep(0.1); os._exit(3)
assert os.waitpid(-1, WALL | os.WNOHANG) == (0, 0)
assert os.waitpid(-1, WALL) == (child, 3 << 8)
nobody(-1, WALL)
print('there'); sys.stdin.read() if False else time.sleep(100)
""", label="waiter").wait_for_output("there", timeout=20)
    if context.kernel_mode:
        return
    (keeper,) = peer.keepers()
    listing = peer.lab.peer("bash", "-c", f"readlink /proc/{keeper}/cwd /proc/{keeper}/fd/*", label="readlink").ok()
    equal(listing.stdout.splitlines()[0], "/", "its directory")
    kinds = {line.split(":[")[0] for line in listing.stdout.splitlines()[1:]}
    allowed = {"/dev/net/tun", "socket", "anon_inode"}
    check(kinds <= allowed | {kind for kind in kinds if kind.startswith("anon_inode:")}, f"it has {sorted(kinds)}")
    rollup = peer.lab.peer("cat", f"/proc/{keeper}/smaps_rollup", label="smaps").ok().stdout
    memory = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    context.note(f"the keeper of a python: {memory['Rss']} kB resident, {memory['Pss_Anon']} kB of it private")
    check(memory["Rss"] < 8000, f"the keeper has {memory['Rss']} kB")


@case("keeper.program_computes")
def program_computes(context: Context):
    """A program that computes and makes no call still answers: pings, and a peer that sends."""
    peer = Peer(context)
    program = peer.program("c = connect(7010)\nc.sendall(b'later')\nprint('there')\n"
                           "end = time.monotonic() + 100\nwhile time.monotonic() < end: pass\n")
    program.wait_for_output("there")
    peer.lab.peer("ping", "-c", "3", "-i", "0.2", "-W", "10", peer.lab.host_address()).ok()
    # The answer that comes after 300 ms is acknowledged, so that nothing of the peer's is under way any more.
    deadline = time.monotonic() + 20
    while True:
        shown = peer.lab.peer("ss", "-Htin", "sport = :7010", label="ss").ok().stdout
        if "bytes_acked:5" in shown and "unacked" not in shown:
            break
        check(time.monotonic() < deadline, f"never acknowledged: {shown}")
        time.sleep(0.05)


@case("keeper.is_killed", kernel=False)
def is_killed(context: Context):
    """The keeper itself is killed, in the middle of a transfer: nothing is lost, and there is another one."""
    peer = Peer(context)
    program = peer.program(f"""
import struct
def fetch():
    c = connect({SOURCE})
    c.sendall(struct.pack('!Q', 20000000))
    got = b''.join(iter(lambda: c.recv(1 << 16), b''))
    assert got == (bytes(range(251)) * (20000000 // 251 + 1))[:20000000], len(got)
fetch()
print('fetched')
sys.stdin.readline()
fetch()
c = connect({REPORTER})
c.sendall(bytes(300000))
""", stdin=-1)
    program.wait_for_output("fetched", timeout=30)
    peer.signal_keeper(signal.SIGKILL)
    program.stdin.write(b"go on\n")
    program.stdin.flush()
    program.ok()
    equal(peer.report(), "300000 end", "what was sent last")


@case("keeper.stand_in", kernel=False)
def stand_in(context: Context):
    """The keeper is killed again and again while a program outside has a connection, and nobody else is awake: nothing is
    lost. So is its stand-in, which the keeper replaces."""
    peer = Peer(context)
    child = """
import socket, sys
c = socket.socket(fileno=int(sys.argv[1]))
while True:
    for number in range(100):
        text = b"%06d" % number * 50
        c.sendall(text)
        assert c.recv(len(text), socket.MSG_WAITALL) == text, number
    print("round", flush=True)
    if sys.stdin.readline().strip() != "again": break
"""
    program = peer.program(f"""
c = connect({ECHO})
c.set_inheritable(True)
environment = {{name: value for name, value in os.environ.items() if name != 'LD_PRELOAD'}}
pid = os.posix_spawn({PYTHON!r}, [{PYTHON!r}, '-c', {child!r}, str(c.fileno())], environment)
assert os.waitpid(pid, 0)[1] == 0
print('done')
c.sendall(b'x')
assert c.recv(1) == b'x'
""", stdin=-1)
    seen: set[int] = set()
    for number in range(3):
        program.wait_for_output("round\n" * (number + 1), timeout=30)
        (keeper,) = peer.wait_for_keepers(1)
        check(keeper not in seen, "the keeper has not changed")
        seen.add(keeper)
        if number % 2 == 0:
            (waiting,) = peer.wait_for_keepers(1, name="ustack-standin")
            peer.lab.peer("kill", "-9", waiting, label="kill").ok()
            deadline = time.monotonic() + 10
            while peer.keepers("ustack-standin") in ([], [waiting]):
                check(time.monotonic() < deadline, "no other stand-in")
                time.sleep(0.02)
        peer.wait_for_keepers(1, name="ustack-standin")
        peer.lab.peer("kill", "-9", keeper, label="kill").ok()
        program.stdin.write(b"again\n")
        program.stdin.flush()
    program.wait_for_output("round\n" * 4, timeout=30)
    program.stdin.write(b"end\n")
    program.stdin.flush()
    program.ok(60)
    check("done" in program.stdout, program.describe())
    peer.signal_keeper(signal.SIGTERM)  # or it stays for TIME-WAIT
    peer.wait_for_keepers(0)
    peer.wait_for_keepers(0, name="ustack-standin")


@case("keeper.refused", kernel=False)
def refused(context: Context):
    """Where the keeper's clone is refused the program delivers itself before it ends, whoever forbids it."""
    peer = Peer(context)
    text = f"c = connect({REPORTER})\nc.sendall(bytes(500000))\nprint('sent')\n"
    peer.program(text, label="without-clone", before=[PYTHON, context.tool("without_clone")]).ok()
    equal(peer.report(), "500000 end", "clone refused from the start")
    equal(peer.keepers(), [], "keepers")


@case("keeper.told_to_end", kernel=False)
def told_to_end(context: Context):
    """It holds TIME-WAIT; SIGTERM, and a program that wants the device, end that."""
    peer = Peer(context)
    text = f"c = connect({REPORTER})\nc.sendall(bytes(1000))\n"
    peer.program(text, label="first").ok()
    equal(peer.report(), "1000 end", "report")
    peer.wait_for_keepers(1)
    peer.program(text, label="second").ok()
    equal(peer.report(), "1000 end", "report")
    peer.wait_for_keepers(1)
    peer.signal_keeper(signal.SIGTERM)
    peer.wait_for_keepers(0)


def _cpu_seconds(pid: int) -> float:
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@case("keeper.rests", kernel=False)
def rests(context: Context):
    """It costs nothing while it holds a TIME-WAIT, nor beside a program that only sends."""
    peer = Peer(context)
    program = peer.program(f"""
c = connect({REPORTER})
end = time.monotonic() + 2
sent = 0
while time.monotonic() < end:
    sent += c.send(bytes(65536))
print('sent', flush=True)
time.sleep(0.5)
c.shutdown(socket.SHUT_WR)
c.recv(1)
""", label="sender")
    (keeper,) = peer.wait_for_keepers(1)
    time.sleep(0.5)
    before = _cpu_seconds(keeper)
    program.wait_for_output("sent", timeout=20)
    beside = _cpu_seconds(keeper) - before
    program.ok()
    (keeper,) = peer.keepers()
    time.sleep(0.5)
    before = _cpu_seconds(keeper)
    time.sleep(2)
    holding = _cpu_seconds(keeper) - before
    context.note(f"processor time: {beside:.2f} s beside a sender, {holding:.2f} s with a TIME-WAIT alone")
    check(beside < 0.5, f"{beside} s of processor time while the program sent for 2 s")
    check(holding < 0.1, f"{holding} s of processor time in 2 s, for nothing")
