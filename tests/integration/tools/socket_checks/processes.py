"""fork, exec, exit, and what programs do to descriptors they don't know."""

import ctypes
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

from .common import ECHO, REPORTER, last_report, libc, open_to, receive_all, receive_exactly


def _in_child(function) -> int:
    """Runs function in a forked child, which ends by _exit; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _echoes(connection: socket.socket, text: bytes) -> None:
    connection.sendall(text)
    assert receive_exactly(connection, len(text)) == text


def check_fork_shares_a_connection():
    """A child uses its parent's connection and a listener's backlog goes to whoever accepts; then the parent goes on."""
    with open_to(ECHO) as connection:
        _echoes(connection, b"before")
        assert _in_child(lambda: _echoes(connection, b"in the child")) == 0
        _echoes(connection, b"after")

        def own_connection():
            with open_to(ECHO) as another:
                _echoes(another, b"another")
            connection.close()

        assert _in_child(own_connection) == 0
        _echoes(connection, b"the child's close was only its own")


def check_fork_last_close_ends():
    """The connection ends when both parent and child have closed it, not before."""
    connection = open_to(REPORTER)
    connection.sendall(b"1234")
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(ready, 1)
        connection.sendall(b"5678")
        os._exit(0)
    connection.close()
    time.sleep(0.2)
    os.write(go, b"x")
    os.waitpid(pid, 0)
    assert last_report() == "8 end"


def check_fork_child_execs():
    """A child that execs drops its parent's connections: they end when the parent closes them."""
    for start in (lambda: subprocess.Popen(["/bin/sleep", "3"]),
                  lambda: subprocess.Popen(["/bin/sleep", "3"], preexec_fn=lambda: None),
                  lambda: subprocess.Popen("sleep 3", shell=True, close_fds=False)):
        connection = open_to(REPORTER)
        connection.sendall(b"x")
        sleeper = start()
        time.sleep(0.1)
        started = time.monotonic()
        connection.close()
        assert last_report() == "1 end"
        assert time.monotonic() - started < 2
        sleeper.kill()
        sleeper.wait()


def check_fork_child_is_killed():
    """A child that was killed holds nothing: its parent's close ends the connection."""
    connection = open_to(REPORTER)
    connection.sendall(b"x")
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    connection.close()
    assert last_report() == "1 end"


def check_spawned_programs():
    """Programs run by posix_spawn, system, popen and vfork do their work beside open connections."""
    with open_to(ECHO) as connection:
        _echoes(connection, b"1")
        assert subprocess.run(["/bin/echo", "hello"], capture_output=True).stdout == b"hello\n"
        pid = os.posix_spawn("/bin/true", ["true"], {})
        assert os.waitpid(pid, 0)[1] == 0
        assert os.system("exit 3") >> 8 == 3
        with os.popen("echo from popen") as output:
            assert output.read() == "from popen\n"
        try:
            subprocess.run(["/nonexistent/program"])
        except FileNotFoundError:
            pass
        else:
            raise AssertionError("a program that isn't there ran")
        _echoes(connection, b"2")


def check_fork_failed_exec():
    """A child whose exec fails still has its sockets."""
    with open_to(ECHO) as connection:

        def child():
            try:
                os.execv("/nonexistent/program", ["program"])
            except FileNotFoundError:
                pass
            _echoes(connection, b"still here")

        assert _in_child(child) == 0
        _echoes(connection, b"here too")


def check_forking_server():
    """One child for each connection; the parent closes its copy at once."""
    listener = socket.create_server((os.environ["CHECK_OWN"], 0))
    port = listener.getsockname()[1]
    with open_to(7012) as asking:  # CALL_BACK: connects to us and echoes
        asking.sendall(str(port).encode())
        connection, _ = listener.accept()
        pid = os.fork()
        if pid == 0:
            listener.close()
            connection.sendall(b"from the child")
            assert receive_exactly(connection, 14) == b"from the child"
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(connection) == b""
            os._exit(0)
        connection.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def check_prefork_accept():
    """Four children accept from one listener; each connection is served once."""
    listener = socket.create_server((os.environ["CHECK_OWN"], 0), backlog=64)
    port = listener.getsockname()[1]
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"%d" % os.getpid())
                    assert receive_exactly(connection, len(str(os.getpid()))) == b"%d" % os.getpid()
                    connection.sendall(b"!")
        children.append(pid)
    try:
        for _ in range(20):
            with open_to(7012) as asking:
                asking.sendall(str(port).encode())
                # The peer echoes what a child says, and ends when the child has closed.
                assert receive_all(asking) == b""
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def check_exec_closes():
    """exec in the process itself: close-on-exec sockets end in order."""
    pid = os.fork()
    if pid == 0:
        connection = open_to(REPORTER)
        connection.sendall(b"abc")
        os.execv("/bin/true", ["true"])
    os.waitpid(pid, 0)
    assert last_report() == "3 end"


def check_close_everything():
    """A program that closes all it doesn't know, in each of the usual ways, can open sockets afterwards."""
    with open_to(ECHO) as connection:
        _echoes(connection, b"x")

    def loop():
        for fd in range(3, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096)):
            libc.close(fd)

    for way in (loop, lambda: os.closerange(3, 5000), lambda: libc.close_range(3, 0xffffffff, 0),
                lambda: libc.closefrom(3) if hasattr(libc, "closefrom") else None):
        def child():
            open_to(ECHO)  # one that is closed too
            way()
            assert libc.fcntl(3, 1, 0) == -1, "descriptor 3 is still open"
            with open_to(ECHO) as another:
                assert another.fileno() == 3, another.fileno()
                _echoes(another, b"after")

        assert _in_child(child) == 0


def check_close_range_ends_connections():
    """close_range ends the connections in its range, and no others."""
    first, second = open_to(REPORTER), open_to(ECHO)
    first.sendall(b"12")
    assert libc.close_range(first.fileno(), first.fileno(), 0) == 0
    assert last_report() == "2 end"
    _echoes(second, b"alive")
    first.detach()


def check_dup2_over_high_numbers():
    """dup2 onto any number works, and sockets go on working."""
    with open_to(ECHO) as connection:
        read_end, _ = os.pipe()
        for number in range(900, 1024):
            assert os.dup2(read_end, number) == number
            _echoes(connection, b"%d" % number)
        for number in range(900, 1024):
            os.close(number)
        _echoes(connection, b"closed")
        with open_to(ECHO) as another:
            _echoes(another, b"another")


def check_number_closed_by_libc():
    """A number that libc closed itself (fclose) is the next open()'s, with nothing left of the socket."""
    libc.fdopen.restype = ctypes.c_void_p
    libc.fclose.argtypes = [ctypes.c_void_p]
    connection = open_to(ECHO)
    number = connection.fileno()
    stream = libc.fdopen(number, b"r")
    assert stream and libc.fclose(stream) == 0
    connection.detach()
    fd = os.open("/dev/zero", os.O_RDONLY)
    assert fd == number
    assert os.read(fd, 4) == bytes(4)
    os.close(fd)


def check_threads_and_forks():
    """Threads that talk while another forks again and again: no deadlock, no lost data."""
    stop, failures = threading.Event(), []

    def talk():
        try:
            with open_to(ECHO) as connection:
                while not stop.is_set():
                    _echoes(connection, b"0123456789" * 100)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not failures and not any(thread.is_alive() for thread in threads), failures


def check_signals_while_waiting_elsewhere():
    """A handler of Python's writes to a second connection while the first one waits; nothing is lost."""
    with open_to(ECHO) as first, open_to(ECHO) as second:
        sent = []

        def handler(*_):
            second.sendall(b"tick")
            sent.append(4)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        data = os.urandom(3_000_000)
        sender = threading.Thread(target=first.sendall, args=(data,))
        sender.start()
        received = receive_exactly_fast(first, len(data))
        sender.join()
        time.sleep(0.05)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert received == data
        total = sum(sent)
        assert total > 0
        assert receive_exactly_fast(second, total) == b"tick" * (total // 4)
        assert not select.select([second], [], [], 0.05)[0]


def receive_exactly_fast(connection: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view, done = memoryview(buffer), 0
    while done < size:
        count = connection.recv_into(view[done:])
        assert count, f"the end after {done} of {size} bytes"
        done += count
    return bytes(buffer)
