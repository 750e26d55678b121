"""dup, flags, options, and the sockets that are the kernel's."""

import errno
import fcntl
import os
import select
import socket
import stat
import struct

from .common import ECHO, PEER, REPORTER, fails_with, last_report, open_to, receive_exactly


def check_dup():
    """A duplicate keeps the connection after the original is closed; flags are shared, CLOEXEC isn't."""
    connection = open_to(ECHO)
    copy = os.dup(connection.fileno())
    target = os.dup2(copy, 200, inheritable=True)
    connection.setblocking(False)
    assert fcntl.fcntl(copy, fcntl.F_GETFL) & os.O_NONBLOCK
    connection.setblocking(True)
    fcntl.fcntl(copy, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    assert not fcntl.fcntl(target, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    connection.close()
    os.write(copy, b"dup")
    os.close(copy)
    third = fcntl.fcntl(target, fcntl.F_DUPFD_CLOEXEC, 300)
    assert third >= 300
    os.close(target)
    with socket.socket(fileno=third) as last:
        assert receive_exactly(last, 3) == b"dup"
        assert last.getpeername() == (PEER, ECHO)


def check_dup_over():
    """dup2 of a pipe over a socket closes the connection, and the number is the pipe's."""
    connection = open_to(REPORTER)
    connection.sendall(b"12345")
    read_end, write_end = os.pipe()
    os.dup2(write_end, connection.fileno())
    assert last_report() == "5 end"
    os.write(connection.fileno(), b"pipe")
    assert os.read(read_end, 10) == b"pipe"


def check_descriptor():
    """fstat says socket; flags of socket() and fcntl; the lowest number is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as one:
        assert stat.S_ISSOCK(os.fstat(one.fileno()).st_mode)
        assert fcntl.fcntl(one, fcntl.F_GETFL) & os.O_NONBLOCK
        assert fcntl.fcntl(one, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        assert fcntl.fcntl(one, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        number = one.fileno()
    read_end, write_end = os.pipe()
    assert read_end == number, (read_end, number)
    os.close(read_end)
    os.close(write_end)


def check_ioctl_nonblocking():
    """FIONBIO."""
    with open_to(ECHO) as connection:
        fcntl.ioctl(connection, 0x5421, struct.pack("i", 1))
        assert fcntl.fcntl(connection, fcntl.F_GETFL) & os.O_NONBLOCK
        fails_with(errno.EAGAIN, connection.recv, 1)
        fcntl.ioctl(connection, 0x5421, struct.pack("i", 0))
        assert not fcntl.fcntl(connection, fcntl.F_GETFL) & os.O_NONBLOCK


def check_options():
    """What getsockopt says before and after setsockopt."""
    with socket.socket() as one:
        get = one.getsockopt
        assert get(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        assert get(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET
        assert get(socket.SOL_SOCKET, socket.SO_PROTOCOL) == socket.IPPROTO_TCP
        assert get(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
        for level, option in ((socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                              (socket.IPPROTO_TCP, socket.TCP_NODELAY)):
            assert get(level, option) == 0
            one.setsockopt(level, option, 1)
            assert get(level, option) == 1
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
        assert get(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100_000
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 60_000)
        assert get(socket.SOL_SOCKET, socket.SO_SNDBUF) == 120_000
        fails_with(errno.ENOPROTOOPT, one.setsockopt, socket.SOL_SOCKET, 9999, 1)
        fails_with(errno.ENOPROTOOPT, one.getsockopt, socket.IPPROTO_TCP, 9999)
        fails_with(errno.EINVAL, one.setsockopt, socket.SOL_SOCKET, socket.SO_REUSEADDR, b"x")
        linger = struct.pack("ii", 1, 5)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert get(socket.SOL_SOCKET, socket.SO_LINGER, 8) == linger
    with open_to(ECHO) as connection:
        mss = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        assert 1400 <= mss <= 1460, mss
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert info[0] == 1, f"state {info[0]} is not ESTABLISHED"


def check_kernel_sockets():
    """What isn't ours works as ever: socket pairs, loopback TCP and UDP, other families."""
    left, right = socket.socketpair()
    left.sendall(b"pair")
    assert right.recv(10) == b"pair"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(b"loop")
                assert server.recv(10) == b"loop"
                assert client.getpeername()[0] == "127.0.0.1"
                with select.epoll() as epoll:
                    epoll.register(client, select.EPOLLIN)
                    server.sendall(b"back")
                    assert epoll.poll(5) == [(client.fileno(), select.EPOLLIN)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        datagram.sendto(b"udp", datagram.getsockname())
        assert datagram.recv(10) == b"udp"
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        assert netlink.fileno() >= 0
