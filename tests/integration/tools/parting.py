#!/usr/bin/env python3
"""Processes that give up root under USTACK_TRUST=credentials, against tools/peer_services.py.

  parting.py PEER HOST NAME...

Runs as a program under the library (or on the kernel). Prints each check's name when it holds.
"""

import ctypes
import errno
import os
import select
import socket
import struct
import sys
import traceback

PEER, HOST = sys.argv[1:3]
ECHO, NEVER = 7001, 7099
NOBODY = 65534
libc = ctypes.CDLL(None, use_errno=True)


def connect(port: int) -> socket.socket:
    connection = socket.create_connection((PEER, port), timeout=20)
    connection.settimeout(None)
    return connection


def asks(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(len(text), socket.MSG_WAITALL)


def give_up_root() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    PR_SET_DUMPABLE = 4
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # or its /proc/self is root's


class Child:
    """Runs `body` in a child of fork; its result is whether it came to its end."""

    def __init__(self, body):
        self.pid = os.fork()
        if self.pid == 0:
            try:
                body()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)

    def ok(self) -> None:
        assert os.waitpid(self.pid, 0)[1] == 0, "the child failed"


def shares_nothing() -> None:
    """It has no shared mapping of the host's size and none of its device."""
    def body():
        give_up_root()
        with open("/proc/self/maps") as maps:
            for line in maps:
                ends = [int(end, 16) for end in line.split()[0].split("-")]
                assert "s" not in line.split()[1] or ends[1] - ends[0] < 1 << 20, line
        names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                 if os.path.islink(f"/proc/self/fd/{fd}")]
        assert not any("tun" in name or "eventfd" in name or "io_uring" in name for name in names), names
    with connect(ECHO) as connection:
        Child(body).ok()
        assert asks(connection, b"still") == b"still"


def connections_go_on() -> None:
    """One that the child has taken along: bytes both ways, its names and options, its end; and the parent's own."""
    with connect(ECHO) as kept, connect(ECHO) as given:
        names = given.getsockname(), given.getpeername()
        given.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def body():
            kept.close()
            assert asks(given, b"before") == b"before"
            give_up_root()
            for size in (1, 1000, 300000):
                text = os.urandom(size)
                sent = Child(lambda: given.sendall(text))
                assert given.recv(size, socket.MSG_WAITALL) == text
                sent.ok()
            assert (given.getsockname(), given.getpeername()) == names
            assert given.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert given.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0] == 1  # TCP_ESTABLISHED
            assert given.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
            given.shutdown(socket.SHUT_WR)
            assert given.recv(1) == b""
        child = Child(body)
        given.close()
        for _ in range(100):
            assert asks(kept, b"parent") == b"parent"
        child.ok()
        assert asks(kept, b"after") == b"after"


def epoll_goes_on() -> None:
    """A set that the child made before it gave up root still reports its connection and its listener."""
    with socket.create_server((HOST, 7100)) as listener:
        def body():
            given = connect(ECHO)
            with select.epoll() as poller:
                poller.register(given, select.EPOLLIN)
                poller.register(listener, select.EPOLLIN)
                assert poller.poll(0) == []
                give_up_root()
                assert poller.poll(0) == []
                given.sendall(b"x")
                assert poller.poll(10) == [(given.fileno(), select.EPOLLIN)]
                assert given.recv(10) == b"x" and poller.poll(0) == []
        Child(body).ok()


def keeping_root_changes_nothing() -> None:
    """Root that can come back is not given up."""
    def body():
        given = connect(ECHO)
        os.setresuid(NOBODY, NOBODY, 0)
        assert asks(given, b"as nobody") == b"as nobody"
        os.setresuid(0, 0, 0)
        os.seteuid(NOBODY)
        os.seteuid(0)
        assert asks(connect(ECHO), b"as root") == b"as root"
    Child(body).ok()


def all_calls() -> None:
    """setuid, setreuid, setresuid: each parts."""
    for call in (lambda: os.setuid(NOBODY), lambda: os.setreuid(NOBODY, NOBODY),
                 lambda: os.setresuid(NOBODY, NOBODY, NOBODY)):
        with connect(ECHO) as given:
            def body():
                call()
                assert os.getresuid() == (NOBODY, NOBODY, NOBODY)
                assert asks(given, b"on") == b"on"
                libc.prctl(4, 1, 0, 0, 0)
                with open("/proc/self/maps") as maps:
                    assert not any(" rw-s " in line for line in maps)
            Child(body).ok()


def several_threads() -> None:
    """With a second thread it can't part, so it must not give up root either; alone again it can."""
    import threading
    under_library = "LD_PRELOAD" in os.environ

    def body():
        given = connect(ECHO)
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            os.setuid(NOBODY)
            assert not under_library
        except OSError as error:
            assert under_library and error.errno == errno.EAGAIN and os.getuid() == 0
        stop.set()
        thread.join()
        os.setuid(NOBODY)
        assert asks(given, b"on") == b"on"
    Child(body).ok()


def new_connections() -> None:
    """Sockets opened afterwards: blocking and not, refused, with options, by a child of the child too."""
    def body():
        give_up_root()
        with connect(ECHO) as made:
            assert made.getsockname()[0] == HOST and made.getpeername() == (PEER, ECHO)
            for size in (1, 300000):
                text = os.urandom(size)
                sent = Child(lambda: made.sendall(text))
                assert made.recv(size, socket.MSG_WAITALL) == text
                sent.ok()
            made.shutdown(socket.SHUT_WR)
            assert made.recv(1) == b""
        with socket.socket() as refused:
            try:
                refused.connect((PEER, 9))
                raise AssertionError("connected")
            except ConnectionRefusedError:
                pass
            refused.connect((PEER, ECHO))  # the same socket again
            assert asks(refused, b"again") == b"again"
        with socket.socket() as optioned:
            optioned.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            optioned.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            optioned.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
            optioned.bind((HOST, 7777))
            assert optioned.getsockname() == (HOST, 7777)
            optioned.connect((PEER, ECHO))
            assert optioned.getsockname() == (HOST, 7777)
            assert optioned.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert optioned.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert optioned.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
            assert asks(optioned, b"options") == b"options"
        Child(lambda: asks(connect(ECHO), b"grandchild") == b"grandchild" or os._exit(2)).ok()
        with socket.create_server(("127.0.0.1", 0)) as local, socket.create_connection(local.getsockname()) as one:
            with local.accept()[0] as other:
                one.sendall(b"machine")
                assert other.recv(10) == b"machine"
    with connect(ECHO):
        Child(body).ok()


def new_connections_without_waiting() -> None:
    """EINPROGRESS, then writable with the outcome in SO_ERROR; sets that knew the socket before it connected."""
    def body():
        give_up_root()
        for port, outcome in ((ECHO, 0), (9, errno.ECONNREFUSED)):
            for early in (False, True):
                with socket.socket() as made, select.epoll() as poller:
                    made.setblocking(False)
                    if early:
                        poller.register(made, select.EPOLLOUT)
                    assert made.connect_ex((PEER, port)) == errno.EINPROGRESS
                    if not early:
                        poller.register(made, select.EPOLLOUT)
                    (fd, events), = poller.poll(10)
                    assert fd == made.fileno() and events & select.EPOLLOUT, events
                    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == outcome
                    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                    if outcome == 0:
                        made.setblocking(True)
                        assert asks(made, b"without waiting") == b"without waiting"
        with socket.socket() as slow, select.epoll() as poller:
            slow.setblocking(False)
            assert slow.connect_ex((PEER, NEVER)) == errno.EINPROGRESS
            poller.register(slow, select.EPOLLOUT)
            assert poller.poll(0.3) == [], "writable before it is connected"
    with connect(ECHO):
        Child(body).ok()


def new_dual_stack() -> None:
    """Sockets of AF_INET6 opened afterwards: IPv4 by mapped addresses goes over the host, ::1 over the kernel."""
    ready, there = os.pipe()
    mapped = "::ffff:" + HOST

    def body():
        give_up_root()
        with socket.socket(socket.AF_INET6) as made:
            made.connect(("::ffff:" + PEER, ECHO))
            assert made.getpeername()[:2] == ("::ffff:" + PEER, ECHO) and made.getsockname()[0] == mapped
            assert made.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET6
            assert asks(made, b"mapped") == b"mapped"
        with socket.socket(socket.AF_INET6) as bound:
            bound.bind((mapped, 7778))
            bound.connect(("::ffff:" + PEER, ECHO))
            assert bound.getsockname()[:2] == (mapped, 7778)
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as kernels, \
                socket.socket(socket.AF_INET6) as made:
            made.connect(kernels.getsockname())
            assert made.getpeername()[0] == "::1"
        with socket.create_server(("::", 7102), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
            assert listener.getsockname()[:2] == ("::", 7102)
            os.write(there, b"x")
            for _ in range(3):
                accepted, peer = listener.accept()
                with accepted:
                    assert peer[0] == mapped and accepted.getpeername() == peer, peer
                    assert accepted.getsockname()[:2] == (mapped, 7102)
                    accepted.sendall(accepted.recv(100))
    with connect(ECHO):
        child = Child(body)
        os.read(ready, 1)
        for _ in range(3):
            with socket.create_connection((HOST, 7102), timeout=10) as connection:
                connection.settimeout(None)
                assert asks(connection, b"to both") == b"to both"
        child.ok()


def loopback_ends() -> None:
    """A listener that went to the keeper is not reached over the machine's loopback: refused, not left waiting."""
    def body():
        with socket.create_server(("0.0.0.0", 7103)) as listener:
            give_up_root()
            if "LD_PRELOAD" in os.environ:
                try:
                    socket.create_connection(("127.0.0.1", 7103), timeout=5).close()
                    raise AssertionError("connected")
                except ConnectionRefusedError:
                    pass
            with socket.create_connection((HOST, 7103), timeout=10) as connection:
                accepted, _ = listener.accept()
                accepted.sendall(b"over the link")
                assert connection.recv(100) == b"over the link"
                accepted.close()
    with connect(ECHO):
        Child(body).ok()


def new_listeners() -> None:
    """A listener opened afterwards, whose port the others see as taken; connections come in, epoll reports them."""
    ready, there = os.pipe()

    def body():
        give_up_root()
        with socket.create_server((HOST, 7101)) as listener, select.epoll() as poller:
            assert listener.getsockname() == (HOST, 7101)
            poller.register(listener, select.EPOLLIN)
            os.write(there, b"x")
            for _ in range(3):
                assert poller.poll(10) == [(listener.fileno(), select.EPOLLIN)]
                accepted, peer = listener.accept()
                with accepted:
                    assert peer[0] == HOST and accepted.getpeername() == peer
                    assert accepted.getsockname() == (HOST, 7101)
                    accepted.sendall(accepted.recv(100))
    with connect(ECHO):
        child = Child(body)
        os.read(ready, 1)
        with socket.socket() as second:
            try:
                second.bind((HOST, 7101))
                raise AssertionError("bound")
            except OSError as error:
                assert error.errno == errno.EADDRINUSE
        for number in range(3):
            with socket.create_connection((HOST, 7101), timeout=10) as connection:
                connection.settimeout(None)
                assert asks(connection, b"to the child %d" % number) == b"to the child %d" % number
        child.ok()


def main() -> None:
    for name in sys.argv[3:]:
        globals()[name]()
        print(name, flush=True)


if __name__ == "__main__":
    main()
