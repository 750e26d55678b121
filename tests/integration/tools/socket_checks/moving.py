"""Data: windows, flags, vectors, time-outs."""

import errno
import fcntl
import hashlib
import os
import select
import socket
import struct
import tempfile
import termios
import threading
import time

import peer_services

from .common import (
    DIGEST, ECHO, PEER, SILENT, SLOW_DIGEST, SOURCE, fails_with, open_to, receive_all, receive_exactly,
    receive_peek,
)


def check_echo():
    """1 MB there and back while both directions are busy."""
    data = os.urandom(1 << 20)
    with open_to(ECHO) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert receive_exactly(connection, len(data)) == data
        sender.join()


def check_closed_window():
    """A peer that doesn't read for a while: the window closes and opens again, nothing is lost."""
    data = os.urandom(20_000_000)
    with open_to(SLOW_DIGEST) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection).decode() == hashlib.sha256(data).hexdigest()


def check_own_window():
    """We don't read for a while, with a small receive buffer: the peer waits, nothing is lost."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connection.connect((PEER, SOURCE))
        size = 3_000_000
        connection.sendall(struct.pack("!Q", size))
        time.sleep(0.7)
        assert receive_all(connection) == peer_services.pattern(size)


def check_small_writes():
    """Ten thousand writes of one byte, with Nagle's algorithm and without."""
    for nodelay in (0, 1):
        data = bytes(i % 256 for i in range(10_000))
        with open_to(DIGEST) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
            for i in range(len(data)):
                connection.send(data[i:i + 1])
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(connection).decode() == hashlib.sha256(data).hexdigest()


def check_nonblocking_send():
    """send() to a peer that doesn't read takes what fits, then EAGAIN, and poll doesn't say writable."""
    with open_to(SILENT) as connection:
        connection.setblocking(False)
        total = 0
        try:
            while True:
                total += connection.send(bytes(65536))
        except BlockingIOError:
            pass
        assert total > 65536, total
        poller = select.poll()
        poller.register(connection, select.POLLOUT | select.POLLIN)
        # The last segments may still be acknowledged: wait for the quiet.
        deadline = time.monotonic() + 10
        while poller.poll(300):
            assert time.monotonic() < deadline, "writable for ever"
            try:
                connection.send(bytes(65536))
            except BlockingIOError:
                pass


def check_flags():
    """MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL and FIONREAD."""
    with open_to(ECHO) as connection:
        fails_with(errno.EAGAIN, connection.recv, 10, socket.MSG_DONTWAIT)
        connection.sendall(b"0123456789")
        assert receive_peek(connection, 10) == b"0123456789"
        assert connection.recv(4, socket.MSG_PEEK) == b"0123"
        waiting = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))[0]
        assert waiting == 10, waiting
        assert connection.recv(4) == b"0123"
        timer = threading.Timer(0.2, connection.sendall, (b"abcd",))
        timer.start()
        assert connection.recv(10, socket.MSG_WAITALL) == b"456789abcd"
        timer.join()


def check_vectors():
    """sendmsg, recvmsg, writev, readv, read, write."""
    with open_to(ECHO) as connection:
        assert connection.sendmsg([b"ab", b"", b"cde"]) == 5
        buffers = [bytearray(2), bytearray(3)]
        receive_peek(connection, 5)
        count, ancillary, flags, _ = connection.recvmsg_into(buffers)
        assert (count, bytes(buffers[0]), bytes(buffers[1]), ancillary, flags) == (5, b"ab", b"cde", [], 0)
        assert os.writev(connection.fileno(), [b"fg", b"hij"]) == 5
        receive_peek(connection, 5)
        assert os.readv(connection.fileno(), buffers) == 5 and bytes(buffers[1]) == b"hij"
        assert os.write(connection.fileno(), b"klm") == 3
        receive_peek(connection, 3)
        assert os.read(connection.fileno(), 10) == b"klm"


def check_sendfile():
    """sendfile(2) from a file to a connection, from an offset."""
    data = os.urandom(3_000_000)
    with tempfile.TemporaryFile() as file, open_to(DIGEST) as connection:
        file.write(data)
        file.flush()
        offset = 1000
        while sent := os.sendfile(connection.fileno(), file.fileno(), offset, len(data)):
            offset += sent
        assert offset == len(data), offset
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection).decode() == hashlib.sha256(data[1000:]).hexdigest()


def check_empty():
    """Reads and writes of nothing."""
    with open_to(ECHO) as connection:
        assert connection.send(b"") == 0
        assert connection.recv(0) == b""
        connection.sendall(b"x")
        assert receive_exactly(connection, 1) == b"x"


def check_timeouts():
    """SO_RCVTIMEO and SO_SNDTIMEO end a wait with EAGAIN."""
    with open_to(SILENT) as connection:
        value = struct.pack("ll", 0, 300_000)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, value)
            assert connection.getsockopt(socket.SOL_SOCKET, option, 16) == value
        started = time.monotonic()
        fails_with(errno.EAGAIN, connection.recv, 1)
        assert 0.25 < time.monotonic() - started < 2
        started = time.monotonic()
        try:
            while True:
                started = time.monotonic()
                connection.send(bytes(1 << 20))
        except BlockingIOError:
            assert 0.25 < time.monotonic() - started < 5
