"""Half-closes, resets, SIGPIPE and EINTR."""

import ctypes
import errno
import hashlib
import os
import select
import signal
import socket
import struct
import time

from .common import (
    CLOSE, DIGEST, ECHO, GOODBYE, LATE_ECHO, REPORTER, RESET, SILENT, fails_with, last_report, libc, open_to,
    receive_all, receive_peek,
)


def check_half_close():
    """shutdown(SHUT_WR): the answer still comes; sending is EPIPE."""
    with open_to(DIGEST) as connection:
        connection.sendall(b"half")
        connection.shutdown(socket.SHUT_WR)
        fails_with(errno.EPIPE, connection.send, b"x", socket.MSG_NOSIGNAL)
        assert receive_all(connection).decode() == hashlib.sha256(b"half").hexdigest()
        assert connection.recv(1) == b""


def check_peer_half_close():
    """The peer closes its direction: data, then the end, for ever; ours still works."""
    with open_to(GOODBYE) as connection:
        assert receive_all(connection) == b"goodbye"
        assert connection.recv(1) == b"" and connection.recv(1) == b""
        poller = select.poll()
        poller.register(connection, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
        (_, events), = poller.poll(1000)
        assert events == select.POLLIN | select.POLLOUT | select.POLLRDHUP, hex(events)
        connection.sendall(b"still here")


def check_shutdown_read():
    """shutdown(SHUT_RD): recv ends at once; both: POLLHUP."""
    with open_to(ECHO) as connection:
        connection.shutdown(socket.SHUT_RD)
        assert connection.recv(1) == b""
        connection.shutdown(socket.SHUT_WR)
        poller = select.poll()
        poller.register(connection, 0)
        (_, events), = poller.poll(3000)
        assert events & select.POLLHUP, hex(events)


def check_reset_by_peer():
    """ECONNRESET once, then the end; sending is EPIPE."""
    with open_to(RESET) as connection:
        connection.sendall(b"x")
        fails_with(errno.ECONNRESET, connection.recv, 1)
        assert connection.recv(1) == b""
        fails_with(errno.EPIPE, connection.send, b"x", socket.MSG_NOSIGNAL)


def check_close_delivers():
    """close() right after send(): the peer gets all of it and an orderly end."""
    connection = open_to(REPORTER)
    connection.sendall(bytes(2_000_000))
    connection.close()
    assert last_report() == "2000000 end"


def check_close_with_unread_data():
    """close() with data unread resets: the peer is told."""
    connection = open_to(ECHO)
    connection.sendall(b"x" * 1000)
    receive_peek(connection, 1000)
    connection.close()
    # And with SO_LINGER of 0 always.
    connection = open_to(REPORTER)
    connection.sendall(b"x" * 10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.1)
    connection.close()
    assert last_report() == "10 ConnectionResetError"


def check_close_at_once():
    """A peer that closes right after accepting: the end."""
    with open_to(CLOSE) as connection:
        assert connection.recv(1) == b""


def check_sigpipe():
    """SIGPIPE comes with EPIPE, except with MSG_NOSIGNAL."""
    caught = []
    signal.signal(signal.SIGPIPE, lambda *_: caught.append(1))
    with open_to(DIGEST) as connection:
        connection.shutdown(socket.SHUT_WR)
        fails_with(errno.EPIPE, connection.send, b"x", socket.MSG_NOSIGNAL)
        assert not caught
        fails_with(errno.EPIPE, connection.send, b"x")
        time.sleep(0.01)  # Python runs handlers between its instructions
        assert caught == [1], caught
        fails_with(errno.EPIPE, os.write, connection.fileno(), b"x")
        time.sleep(0.01)
        assert caught == [1, 1], caught


def check_sigpipe_kills():
    """Nobody handles SIGPIPE: it ends the program (the case expects that)."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with open_to(DIGEST) as connection:
        connection.shutdown(socket.SHUT_WR)
        connection.send(b"x")


def _recv_with_alarm(restart: bool, connection: socket.socket):
    """recv() of libc itself, since Python repeats what a signal ended."""
    caught = []
    signal.signal(signal.SIGALRM, lambda *_: caught.append(1))
    signal.siginterrupt(signal.SIGALRM, not restart)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    buffer = ctypes.create_string_buffer(100)
    ctypes.set_errno(0)
    count = libc.recv(connection.fileno(), buffer, 100, 0)
    return count, ctypes.get_errno(), buffer.raw[:max(count, 0)], caught


def check_eintr():
    """A handler without SA_RESTART ends recv with EINTR."""
    with open_to(SILENT) as connection:
        count, code, _, caught = _recv_with_alarm(False, connection)
        assert (count, code) == (-1, errno.EINTR) and caught == [1], (count, code, caught)


def check_sa_restart():
    """A handler with SA_RESTART runs, and recv goes on."""
    with open_to(LATE_ECHO) as connection:
        connection.sendall(b"late")
        count, code, data, caught = _recv_with_alarm(True, connection)
        assert count == 4 and data == b"late" and caught == [1], (count, code, data, caught)


def check_eintr_of_waits():
    """poll, select and epoll_wait end with EINTR even with SA_RESTART; with SO_RCVTIMEO recv does too."""
    with open_to(SILENT) as connection:
        caught = []
        signal.signal(signal.SIGALRM, lambda *_: caught.append(1))
        signal.siginterrupt(signal.SIGALRM, False)
        epoll = select.epoll()
        epoll.register(connection, select.EPOLLIN)
        pollfd = struct.pack("ihh", connection.fileno(), select.POLLIN, 0)
        events = ctypes.create_string_buffer(120)
        for call in (lambda: libc.poll(ctypes.create_string_buffer(pollfd), 1, 5000),
                     lambda: libc.epoll_wait(epoll.fileno(), events, 10, 5000)):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            started = time.monotonic()
            assert call() == -1 and ctypes.get_errno() == errno.EINTR
            assert time.monotonic() - started < 2
        assert caught == [1, 1]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
        count, code, _, _ = _recv_with_alarm(True, connection)
        assert (count, code) == (-1, errno.EINTR)
