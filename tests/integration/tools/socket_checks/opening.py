"""Names, connecting, listening, binding, and calls at the wrong time."""

import ctypes
import errno
import fcntl
import os
import select
import socket

from .common import CALL_BACK, ECHO, OWN, PEER, fails_with, libc, open_to, receive_exactly


def check_names():
    """getsockname and getpeername of a connection."""
    with open_to(ECHO) as connection:
        assert connection.getpeername() == (PEER, ECHO)
        address, port = connection.getsockname()
        assert address == OWN and 1024 <= port <= 65535, (address, port)


def check_bound_client():
    """A client bound to a port of its own connects from there."""
    with socket.socket() as connection:
        connection.bind((OWN, 40404))
        connection.connect((PEER, ECHO))
        assert connection.getsockname() == (OWN, 40404)
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"


def check_nonblocking_connect():
    """EINPROGRESS, then writable, then SO_ERROR 0; then EISCONN."""
    with socket.socket() as connection:
        connection.setblocking(False)
        assert connection.connect_ex((PEER, ECHO)) == errno.EINPROGRESS
        poller = select.poll()
        poller.register(connection, select.POLLOUT)
        assert poller.poll(5000) == [(connection.fileno(), select.POLLOUT)]
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        # Linux lets the first repeated call succeed, the next says so.
        connection.connect_ex((PEER, ECHO))
        assert connection.connect_ex((PEER, ECHO)) == errno.EISCONN


def check_nonblocking_connect_refused():
    """POLLERR and POLLHUP, SO_ERROR once, and a second connect may try again."""
    with socket.socket() as connection:
        connection.setblocking(False)
        assert connection.connect_ex((PEER, 9)) == errno.EINPROGRESS
        poller = select.poll()
        poller.register(connection, select.POLLOUT)
        (_, events), = poller.poll(5000)
        assert events & select.POLLERR and events & select.POLLHUP, hex(events)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        connection.setblocking(True)
        # Linux ends the old attempt first.
        fails_with(errno.ECONNABORTED, connection.connect, (PEER, ECHO))
        connection.connect((PEER, ECHO))
        connection.sendall(b"again")
        assert receive_exactly(connection, 5) == b"again"


def check_refused():
    """A blocking connect to a closed port."""
    with socket.socket() as connection:
        fails_with(errno.ECONNREFUSED, connection.connect, (PEER, 9))


def check_accept():
    """Listen, be called, accept: both names, data both ways."""
    with socket.socket() as listener:
        listener.bind((OWN, 0))
        listener.listen(5)
        port = listener.getsockname()[1]
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        with open_to(CALL_BACK) as control:
            control.sendall(str(port).encode())
            poller = select.poll()
            poller.register(listener, select.POLLIN)
            assert poller.poll(5000) == [(listener.fileno(), select.POLLIN)]
            connection, address = listener.accept()
            with connection:
                assert address[0] == PEER and connection.getpeername() == address
                assert connection.getsockname() == (OWN, port)
                connection.sendall(b"called")
                assert receive_exactly(connection, 6) == b"called"


def check_nonblocking_accept():
    """EAGAIN of an empty listener; the accepted socket doesn't inherit O_NONBLOCK."""
    with socket.socket() as listener:
        listener.bind((OWN, 0))
        listener.listen(5)
        listener.setblocking(False)
        fails_with(errno.EAGAIN, listener.accept)
        with open_to(CALL_BACK) as control:
            control.sendall(str(listener.getsockname()[1]).encode())
            assert select.select([listener], [], [], 5)[0] == [listener]
            fd = libc.accept(listener.fileno(), None, None)
            assert fd >= 0, os.strerror(ctypes.get_errno())
            assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
            assert not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            os.close(fd)


def check_self_connection():
    """Two sockets of one host talk to each other over its own address."""
    with socket.socket() as listener:
        listener.bind((OWN, 0))
        listener.listen(5)
        with socket.socket() as client:
            client.connect(listener.getsockname())
            server, address = listener.accept()
            with server:
                assert address == client.getsockname()
                client.sendall(b"myself")
                assert receive_exactly(server, 6) == b"myself"
                server.sendall(b"too")
                assert receive_exactly(client, 3) == b"too"


def check_bind_errors():
    """EADDRINUSE, EADDRNOTAVAIL, EINVAL."""
    with socket.socket() as first, socket.socket() as second:
        first.bind((OWN, 0))
        taken = first.getsockname()
        assert taken[1] != 0
        fails_with(errno.EADDRINUSE, second.bind, taken)
        fails_with(errno.EADDRINUSE, second.bind, ("0.0.0.0", taken[1]))
        fails_with(errno.EADDRNOTAVAIL, second.bind, (PEER, 0))
        fails_with(errno.EINVAL, first.bind, (OWN, 0))
        second.bind((OWN, 0))
        assert second.getsockname()[1] != taken[1]
        # SO_REUSEADDR doesn't help against a listener.
        first.listen(1)
        with socket.socket() as third:
            third.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            fails_with(errno.EADDRINUSE, third.bind, taken)


def check_time_wait_reuse():
    """A server that closed first may bind its port again only with SO_REUSEADDR, then and now."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((OWN, 0))
    listener.listen(5)
    name = listener.getsockname()
    with open_to(CALL_BACK) as control:
        control.sendall(str(name[1]).encode())
        connection, _ = listener.accept()
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        connection.close()
        listener.close()
    with socket.socket() as again:
        fails_with(errno.EADDRINUSE, again.bind, name)
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(name)
        again.listen(1)


def check_wrong_state():
    """Calls at the wrong time: ENOTCONN, EINVAL, EPIPE, EISCONN, EBADF, ENOTSOCK."""
    with socket.socket() as idle:
        fails_with(errno.ENOTCONN, idle.recv, 1)
        fails_with(errno.EPIPE, idle.send, b"x", socket.MSG_NOSIGNAL)
        fails_with(errno.ENOTCONN, idle.getpeername)
        fails_with(errno.ENOTCONN, idle.shutdown, socket.SHUT_RDWR)
        fails_with(errno.EINVAL, idle.accept)
    with open_to(ECHO) as connection:
        fails_with(errno.EINVAL, connection.listen, 1)
        fails_with(errno.EISCONN, connection.connect, (PEER, ECHO))
        number = connection.fileno()
    assert libc.recv(number, ctypes.create_string_buffer(1), 1, 0) == -1 and ctypes.get_errno() == errno.EBADF
    read_end, write_end = os.pipe()
    assert libc.listen(read_end, 1) == -1 and ctypes.get_errno() == errno.ENOTSOCK
    os.close(read_end)
    os.close(write_end)
