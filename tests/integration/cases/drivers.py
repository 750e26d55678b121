"""Which thread or process of a program drives its host: the one for which the frames come, without a hop by another."""

import subprocess
from collections import Counter

from cases.keeper import keepers_in
from harness import Context, case, check, equal

PYTHON = "/usr/bin/python3"
# Threads or processes, each with a connection of its own that it answers at; "sleep" is answered after a while.
SERVER = """
import os, socket, sys, threading, time
def serve(connection):
    while data := connection.recv(100):
        if data == b"sleep":
            time.sleep(2)
        connection.sendall(data)
listener = socket.create_server((sys.argv[1], 5000))
print("listening", flush=True)
pids = [os.getpid()]
for _ in range(int(sys.argv[3])):
    connection = listener.accept()[0]
    if sys.argv[2] == "threads":
        threading.Thread(target=serve, args=(connection,)).start()
    elif pid := os.fork():
        pids.append(pid)
        connection.close()
    else:
        listener.close()
        serve(connection)
        os._exit(0)
print("pids", *pids, "all", flush=True)
listener.close()
"""
# Asks one after the other, and says how often the server's threads have gone to sleep in the meantime for each request.
CLIENT = """
import glob, os, select, signal, socket, sys, time
address, count, kill = sys.argv[1:]
def sleeps():
    total = 0
    for pid in pids:
        for name in glob.glob(f"/proc/{pid}/task/*/status"):
            with open(name) as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))
    return total
def ask(connection, times):
    for _ in range(times):
        connection.sendall(b"x")
        assert connection.recv(100) == b"x"
connections = [socket.create_connection((address, 5000)) for _ in range(int(count))]
print("connected", flush=True)
pids = sys.stdin.readline().split()
keepers = [int(pid) for pid in sys.stdin.readline().split()]
for connection in connections + connections:
    ask(connection, 100)
    before = sleeps()
    ask(connection, 500)
    print("sleeps", (sleeps() - before) / 500, flush=True)
# The one that is relied on is late: the others are answered meanwhile.
slow = connections[-1]
for connection in connections[:-1]:
    ask(slow, 300)
    slow.sendall(b"sleep")
    ask(connection, 20)
    assert not select.select([slow], [], [], 0)[0], "an answer came only after the late one's"
    assert slow.recv(100) == b"sleep"
# Also while the keeper, which sees to that, doesn't get to it.
for pid in keepers:
    os.kill(pid, signal.SIGSTOP)
ask(slow, 300)
slow.sendall(b"sleep")
time.sleep(0.05)
for connection in connections[:-1]:
    ask(connection, 1)
assert not select.select([slow], [], [], 0)[0], "an answer came only after the late one's"
for pid in keepers:
    os.kill(pid, signal.SIGKILL)
assert slow.recv(100) == b"sleep"
if kill == "kill":
    ask(slow, 300)
    slow.sendall(b"sleep")
    time.sleep(0.1)
    os.kill(int(pids[-1]), signal.SIGKILL)
    for connection in connections[:-1]:
        ask(connection, 20)
    try:
        assert slow.recv(100) == b""
    except ConnectionResetError:
        pass
for connection in connections:
    connection.close()
"""
COUNT = 3
# A request; two where another thread passes it on.
MOST_SLEEPS = 1.5


def each_drives_for_itself(context: Context, kind: str, more: str) -> None:
    lab = context.lab()
    server = lab.host(PYTHON, "-c", SERVER, lab.host_address(), kind, COUNT, label="server")
    server.wait_for_output("listening")
    client = lab.peer(PYTHON, "-c", CLIENT, lab.host_address(), COUNT, more, label="client", stdin=subprocess.PIPE)
    server.wait_for_output("all\n")
    pids = server.stdout.split("pids ")[1].split(" all")[0]
    keepers = keepers_in(lab)
    equal(len(keepers), 0 if context.kernel_mode else 1, "keepers")
    client.stdin.write(f"{pids}\n{' '.join(map(str, keepers))}\n".encode())
    client.stdin.flush()
    client.ok(60)
    sleeps = [float(line.split()[1]) for line in client.stdout.splitlines() if line.startswith("sleeps")]
    equal(len(sleeps), 2 * COUNT, "measurements")
    context.note(f"the server's threads slept {min(sleeps):.2f} to {max(sleeps):.2f} times a request")
    check(max(sleeps) <= MOST_SLEEPS, f"requests are passed on from one thread to another: {sleeps}")


@case("drivers.threads")
def threads(context: Context):
    """Of three threads that wait the one that is asked drives, and one that is late holds up nobody."""
    each_drives_for_itself(context, "threads", "")


@case("drivers.processes")
def processes(context: Context):
    """The same of processes; one is killed while the others rely on it."""
    each_drives_for_itself(context, "processes", "kill")


_ECHO = """
import os, select, socket
listener = socket.create_server(('0.0.0.0', 80))
woken, _ = os.pipe()
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
epoll.register(woken, select.EPOLLIN)
print('listening', flush=True)
epoll.poll()
taken, _ = listener.accept()
epoll.register(taken, select.EPOLLIN)
while True:
    epoll.poll()
    text = taken.recv(100)
    if not text: break
    taken.sendall(text)
"""
_PING = """
import socket, sys
made = socket.create_connection((sys.argv[1], 80), 10)
for i in range(int(sys.argv[2])):
    made.sendall(b'x')
    assert made.recv(100) == b'x'
"""


@case("drivers.calls_of_a_request", kernel=False)
def calls_of_a_request(context: Context):
    """A request and its answer: one wait, one frame read, one written, also where the set has the kernel's members."""
    lab = context.lab()
    trace, count = context.directory / "strace", 300
    server = lab.host(PYTHON, "-c", _ECHO, label="server",
                      before=["strace", "-f", "-qq", "-o", trace, "-e", "trace=epoll_wait,epoll_pwait,epoll_pwait2,poll,ppoll,"
                              "read,write,writev"])
    server.wait_for_output("listening")
    lab.peer(PYTHON, "-c", _PING, lab.host_address(), count, label="client").ok(60)
    server.ok(20)
    # Of the program, not of the keeper; and not what starts it.
    text = trace.read_text()
    program, text = text.split()[0], text[text.index("listening"):]
    calls = Counter(line.split("(")[0].split()[1] for line in text.splitlines()[1:] if line.startswith(f"{program} ")
                    and "(" in line)
    context.note(", ".join(f"{name} {number}" for name, number in calls.most_common()))
    # Besides: the connection's begin and end, and waits that a timer has ended.
    for kind, names in (("waits", ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll")), ("reads", ("read", )),
                        ("writes", ("write", "writev"))):
        number = sum(calls[name] for name in names)
        check(count <= number <= 1.2 * count + 20, f"{number} {kind} of {count} requests: {calls}")
