"""poll, select and epoll."""

import errno
import os
import select
import socket
import threading
import time

from .common import ECHO, GOODBYE, RESET, SILENT, fails_with, open_to, receive_exactly, receive_peek


def check_poll_timeout():
    """poll, select and epoll return nothing after their time."""
    with open_to(SILENT) as connection:
        poller, epoll = select.poll(), select.epoll()
        poller.register(connection, select.POLLIN)
        epoll.register(connection, select.EPOLLIN)
        for wait in (lambda: poller.poll(200), lambda: epoll.poll(0.2),
                     lambda: select.select([connection], [], [], 0.2)[0]):
            started = time.monotonic()
            assert not wait()
            assert 0.19 < time.monotonic() - started < 2
        assert not poller.poll(0) and not epoll.poll(0)


def check_mixed_poll():
    """Sockets of ours and a pipe of the kernel's in one poll, select and epoll: whichever comes wakes."""
    read_end, write_end = os.pipe()
    with open_to(ECHO) as connection:
        poller, epoll = select.poll(), select.epoll()
        for each in (connection.fileno(), read_end):
            poller.register(each, select.POLLIN)
            epoll.register(each, select.EPOLLIN)
        waits = (lambda: [fd for fd, _ in poller.poll(5000)], lambda: [fd for fd, _ in epoll.poll(5)],
                 lambda: [x if isinstance(x, int) else x.fileno()
                          for x in select.select([connection, read_end], [], [], 5)[0]])
        for wait in waits:
            timer = threading.Timer(0.1, os.write, (write_end, b"x"))
            timer.start()
            assert wait() == [read_end]
            timer.join()
            os.read(read_end, 1)
            timer = threading.Timer(0.1, connection.sendall, (b"y",))
            timer.start()
            assert wait() == [connection.fileno()]
            timer.join()
            os.write(write_end, b"x")
            assert sorted(wait()) == sorted([connection.fileno(), read_end])
            os.read(read_end, 1)
            connection.recv(1)
            assert not poller.poll(0)


def check_epoll_triggers():
    """Level, edge and one-shot triggering."""
    with open_to(ECHO) as connection:
        fd = connection.fileno()
        level, edge, once = select.epoll(), select.epoll(), select.epoll()
        level.register(fd, select.EPOLLIN)
        edge.register(fd, select.EPOLLIN | select.EPOLLET)
        once.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
        connection.sendall(b"ab")
        receive_peek(connection, 2)
        for epoll in (level, edge, once):
            assert epoll.poll(5) == [(fd, select.EPOLLIN)]
        assert level.poll(0) == [(fd, select.EPOLLIN)]
        assert not edge.poll(0) and not once.poll(0)
        assert connection.recv(1) == b"a"
        assert level.poll(0) and not edge.poll(0)
        connection.sendall(b"c")
        assert edge.poll(5) == [(fd, select.EPOLLIN)] and not once.poll(0)
        once.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
        assert once.poll(5) == [(fd, select.EPOLLIN)]
        receive_exactly(connection, 2)
        assert not level.poll(0)


def check_epoll_errors():
    """EEXIST, ENOENT, EBADF; a closed socket leaves the set; the set itself can be polled."""
    epoll = select.epoll()
    connection = open_to(ECHO)
    epoll.register(connection, select.EPOLLIN)
    fails_with(errno.EEXIST, epoll.register, connection, select.EPOLLIN)
    with socket.socket() as other:
        fails_with(errno.ENOENT, epoll.modify, other, select.EPOLLIN)
        fails_with(errno.ENOENT, epoll.unregister, other)
    fails_with(errno.EBADF, epoll.register, 999, select.EPOLLIN)
    connection.sendall(b"x")
    poller = select.poll()
    poller.register(epoll.fileno(), select.POLLIN)
    assert poller.poll(5000) == [(epoll.fileno(), select.POLLIN)]
    connection.close()
    assert not epoll.poll(0.1)


def check_epoll_hangup():
    """EPOLLRDHUP at the peer's end, EPOLLHUP after both, EPOLLERR of a reset."""
    epoll = select.epoll()
    with open_to(GOODBYE) as connection:
        epoll.register(connection, select.EPOLLRDHUP)
        assert epoll.poll(5) == [(connection.fileno(), select.EPOLLRDHUP)]
        epoll.unregister(connection)
    with open_to(RESET) as connection:
        epoll.register(connection, select.EPOLLIN)
        connection.sendall(b"x")
        (_, events), = epoll.poll(5)
        assert events & select.EPOLLERR and events & select.EPOLLHUP and events & select.EPOLLIN, hex(events)
