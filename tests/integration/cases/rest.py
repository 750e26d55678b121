"""Connections on which nothing happens, put to rest and woken again, under programs that don't know of it."""

from harness import Context, case, check, counters_in

PYTHON = "/usr/bin/python3"
# Echoes bytes of many connections by one epoll set; a forked worker takes over half of them, and is killed in the end.
SERVER = """
import os, select, signal, socket, sys
count = int(sys.argv[2])
listener = socket.create_server((sys.argv[1], 5000), backlog=count)
print("listening", flush=True)
connections = [listener.accept()[0] for _ in range(count)]
child = os.fork()
mine = {c.fileno(): c for i, c in enumerate(connections) if (i % 2 == 0) == (child == 0)}
for c in connections:
    if c.fileno() not in mine:
        c.close()
connections.clear()
poll = select.epoll()
for c in mine.values():
    c.setblocking(False)
    try:
        c.recv(1)
        sys.exit("data from nowhere")
    except BlockingIOError:
        pass
    poll.register(c, select.EPOLLIN)
while mine:
    for number, _ in poll.poll():
        data = mine[number].recv(100)
        if data:
            mine[number].send(data)
        else:
            poll.unregister(number)
            mine.pop(number).close()
if child != 0:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""
# Asks all of them, some time later again; those of the worker that is killed are not ended by the client.
CLIENT = """
import socket, sys, time
count = int(sys.argv[2])
connections = [socket.create_connection((sys.argv[1], 5000)) for _ in range(count)]
for turn in range(4):
    time.sleep(1.2)
    for i, c in enumerate(connections):
        c.send(b"%d/%d" % (turn, i))
    for i, c in enumerate(connections):
        wanted = b"%d/%d" % (turn, i)
        got = c.recv(100)
        assert got == wanted, (got, wanted)
time.sleep(1.2)
for c in connections[1::2]:
    c.close()
for c in connections[0::2]:
    assert c.recv(1) == b"", "the end of the worker ends its connections"
    c.close()
"""
CONNECTIONS = 400


@case("rest.and_back")
def and_back(context: Context):
    """400 connections of two processes rest between requests, wake for each, and end by close and by kill -9."""
    lab = context.lab()
    counters = context.directory / "counters"
    server = lab.host(PYTHON, "-c", SERVER, lab.host_address(), CONNECTIONS, label="server",
                      env={"USTACK_COUNTERS": str(counters),
                           "USTACK_SYSCTL": "net.ustack.tcp_awake=10; net.ustack.tcp_rest_ms=100"})
    server.wait_for_output("listening")
    lab.peer(PYTHON, "-c", CLIENT, lab.host_address(), CONNECTIONS, label="client").ok(60)
    server.ok(30)
    if context.kernel_mode:
        return
    ours = counters_in(counters)
    rests, awakenings = ours["UstackTcpRests"], ours["UstackTcpAwakenings"]
    context.note(f"{rests} rests, {awakenings} awakenings")
    check(rests >= 4 * (CONNECTIONS - 20), "connections stay awake")
    check(awakenings >= 4 * (CONNECTIONS - 20), "nothing has woken them")
    check(ours["TcpRetransSegs"] <= CONNECTIONS / 10, f"{ours['TcpRetransSegs']} segments had to be sent again")
