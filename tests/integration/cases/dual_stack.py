"""Sockets of AF_INET6: IPv4 by mapped addresses over the link, IPv6 and the loopback over the kernel."""

import os
import signal

from harness import Context, Lab, case, check, equal, wait_until

PYTHON = "/usr/bin/python3"

_SERVER = """
import os, signal, socket, sys
listener = socket.create_server(('::', int(sys.argv[2])), family=socket.AF_INET6, dualstack_ipv6=True)
def serve():
    while True:
        connection, peer = listener.accept()
        with connection:
            data = connection.makefile('rb').readline()
            connection.sendall(f'{peer[0]} {connection.getsockname()[0]} {os.getpid()} '.encode() + data)
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        serve()
print('ready', flush=True)
while True:
    os.wait()
    if os.fork() == 0:
        serve()
"""

_CLIENT = """
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
for i in range(int(sys.argv[2])):
    with socket.socket(family) as s:
        s.settimeout(8)
        s.connect((sys.argv[1], int(sys.argv[3])))
        s.sendall(b'hello\\n')
        data = b''
        while piece := s.recv(100):
            data += piece
        print(data.decode(), end='')
"""


def ask(start, address: str, times: int, port: int = 80) -> list[list[str]]:
    """[peer, own address, process, text] of each answer."""
    client = start(PYTHON, "-c", _CLIENT, address, times, port, label=f"ask {address}").ok(30)
    return [line.split() for line in client.stdout.splitlines()]


def expect_answers(lab: Lab) -> set[str]:
    """Every way to a server on the host; the processes that have answered."""
    mapped = f"::ffff:{lab.host_address()}"
    servers = set()
    for start, address, own in ((lab.peer, lab.host_address(), mapped), (lab.peer, mapped, mapped),
                                (lab.in_host_namespace, "127.0.0.1", "::ffff:127.0.0.1"),
                                (lab.in_host_namespace, "::1", "::1")):
        answers = ask(start, address, 8)
        equal(len(answers), 8, f"answers from {address}")
        for peer, there, server, text in answers:
            equal((there, text), (own, "hello"), f"what came from {address}")
            check(":" in peer, f"peer {peer}")
            servers.add(server)
    return servers


@case("dual_stack.prefork")
def prefork(context: Context):
    """Three processes accept on ::, reached over the link, 127.0.0.1 and ::1; one is killed and replaced."""
    lab = context.lab()
    server = lab.host(PYTHON, "-c", _SERVER, 3, 80, label="server")
    server.wait_for_output("ready")
    servers = expect_answers(lab)
    check(len(servers) >= 2, f"only {servers} have answered")
    os.kill(int(min(servers)), signal.SIGKILL)
    wait_until(lambda: min(servers) not in expect_answers(lab), "another has taken its place")


_INHERITS = """
import os, socket, subprocess, sys
listener = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready', flush=True)
for _ in range(2):
    connection, peer = listener.accept()
    environment = dict(os.environ)
    if sys.argv[1] == 'without':
        environment.pop('LD_PRELOAD', None)
    subprocess.run([sys.executable, '-c', sys.argv[2]], stdin=connection, stdout=connection, env=environment)
    connection.close()
"""

_INHERITOR = """
import os, socket, sys
text = os.read(0, 100)
answer = b'ran '
if os.environ.get('LD_PRELOAD'):
    s = socket.socket(fileno=0)
    assert s.family == socket.AF_INET6, s.family
    answer = f'{s.getpeername()[0]} {s.getsockname()[0]} 0 '.encode()
os.write(1, answer + text)
"""


@case("dual_stack.inherited", kernel=False)
def inherited(context: Context):
    """A program that inherits such a connection still sees one of AF_INET6; one without the library its bytes."""
    lab = context.lab()
    mapped = f"::ffff:{lab.host_address()}"
    with_library = lab.host(PYTHON, "-c", _INHERITS, "with", _INHERITOR, label="server")
    with_library.wait_for_output("ready")
    for peer, own, _, text in ask(lab.peer, lab.host_address(), 2):
        equal((peer, own, text), (f"::ffff:{lab.peer_address}", mapped, "hello"), "the names")
    equal(with_library.wait(10), 0, "the server's status")
    without = lab.host(PYTHON, "-c", _INHERITS, "without", _INHERITOR, label="server")
    without.wait_for_output("ready")
    equal(ask(lab.peer, lab.host_address(), 2), [["ran", "hello"]] * 2, "what a program without the library answers")


@case("dual_stack.client")
def client(context: Context):
    """A socket of AF_INET6 on the host: a mapped address over the link, ::1 over the kernel."""
    lab = context.lab()
    server = lab.peer(PYTHON, "-c", _SERVER, 2, 80, label="server")
    server.wait_for_output("ready")
    mapped = f"::ffff:{lab.peer_address}"
    for _, own, _, text in ask(lab.host, mapped, 10):
        equal((own, text), (mapped, "hello"), "what came over the link")
    beside = lab.in_host_namespace(PYTHON, "-c", _SERVER, 1, 81, label="server")
    beside.wait_for_output("ready")
    for peer, own, _, text in ask(lab.host, "::1", 10, 81):
        equal((peer, own, text), ("::1", "::1", "hello"), "what came over the kernel")
