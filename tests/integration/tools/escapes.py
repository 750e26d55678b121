#!/usr/bin/env python3
"""Descriptors that leave the library: to programs started by exec and its like, to strangers, into libc's stdio.

  escapes.py PEER HOST STATIC NAME...

Runs as a program under the library (or on the kernel) against tools/peer_services.py. STATIC is a static program that
copies its standard input to its standard output. Prints each check's name when it holds.
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys

PEER, HOST, STATIC = sys.argv[1:4]
PYTHON = "/usr/bin/python3"
ECHO, SOURCE, GOODBYE = 7001, 7003, 7007
libc = ctypes.CDLL(None, use_errno=True)
libc.fdopen.restype = ctypes.c_void_p
libc.fgets.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
libc.fputs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
libc.fflush.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
#: For a child without the library.
PLAIN = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def connect(port: int) -> socket.socket:
    return socket.create_connection((PEER, port), timeout=20)


def inheritable(port: int) -> socket.socket:
    connection = connect(port)
    connection.settimeout(None)
    connection.set_inheritable(True)
    return connection


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


def exactly(connection: socket.socket, size: int) -> bytes:
    return connection.recv(size, socket.MSG_WAITALL)


def source(size: int) -> socket.socket:
    connection = inheritable(SOURCE)
    connection.sendall(struct.pack("!Q", size))
    return connection


def child_reads_all() -> None:
    """A child reads to the end while the parent has the connection open too."""
    size = 700_000
    connection = source(size)
    got = subprocess.run(["cat"], stdin=connection, stdout=subprocess.PIPE, env=PLAIN, check=True, timeout=30).stdout
    assert got == pattern(size), (len(got), size)
    assert connection.recv(1) == b"", "the parent finds the end as well"


def child_takes_nothing() -> None:
    """Children that merely inherit the connection leave the bytes to the parent."""
    size = 300_000
    connection = source(size)
    got = b""
    for _ in range(3):
        subprocess.run(["true"], pass_fds=[connection.fileno()], env=PLAIN, check=True, timeout=30)
        got += exactly(connection, 1000)
    got += read_all(connection)
    assert got == pattern(size), (len(got), size)


def long_lived_child_takes_nothing() -> None:
    """Nor does one that goes on living with it."""
    size = 300_000
    connection = inheritable(ECHO)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[connection.fileno()], env=PLAIN)
    for _ in range(5):
        connection.sendall(pattern(size // 5))
        assert exactly(connection, size // 5) == pattern(size // 5)
    child.communicate(timeout=20)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""


def turns() -> None:
    """Parent and children read in turn, and nothing is lost or doubled."""
    connection = source(20_000)
    got = b""
    for number in range(6):
        if number % 2 == 0:
            got += exactly(connection, 777)
        else:
            got += subprocess.run([PYTHON, "-c", "import os\ndata = b''\nwhile len(data) < 777:\n"
                                   "  data += os.read(0, 777 - len(data))\nos.write(1, data)"], stdin=connection,
                                  stdout=subprocess.PIPE, env=PLAIN, check=True, timeout=30).stdout
    got += read_all(connection)
    assert got == pattern(20_000), len(got)



def static_child() -> None:
    """A static program echoes over the connection, of which the parent closes its own descriptor."""
    connection = inheritable(SOURCE)
    size = 400_000
    connection.sendall(struct.pack("!Q", size))
    reading, writing = os.pipe()
    child = subprocess.Popen([STATIC], stdin=connection, stdout=writing)
    connection.close()
    os.close(writing)
    with open(reading, "rb") as file:
        got = file.read()
    assert child.wait(20) == 0 and got == pattern(size), len(got)


def child_writes() -> None:
    """What a child writes arrives before what the parent writes after its end."""
    connection = inheritable(ECHO)
    subprocess.run(["echo", "from the child"], stdout=connection, env=PLAIN, check=True, timeout=20)
    connection.sendall(b"from the parent\n")
    connection.shutdown(socket.SHUT_WR)
    got = read_all(connection)
    assert got == b"from the child\nfrom the parent\n", got


def close_is_seen() -> None:
    """The last copy outside is closed: the peer sees the end."""
    connection = inheritable(7008)
    child = subprocess.Popen(["head", "-c", "100000", "/dev/zero"], stdout=connection, env=PLAIN)
    connection.close()
    assert child.wait(20) == 0
    with connect(7009) as asked:
        answer = asked.recv(100)
    assert answer == b"100000 end", answer


def half_close() -> None:
    """A child's shutdown(SHUT_WR) ends the direction, and the other goes on."""
    connection = inheritable(7002)
    child = subprocess.run([PYTHON, "-c", "import socket\nc = socket.socket(fileno=0)\nc.sendall(b'x' * 1000)\n"
                            "c.shutdown(socket.SHUT_WR)\nprint(len(c.recv(1000, socket.MSG_WAITALL)))"],
                           stdin=connection, stdout=subprocess.PIPE, env=PLAIN, check=True, timeout=20)
    assert child.stdout == b"64\n", child.stdout


def failing_exec() -> None:
    """An exec that fails leaves the process its sockets."""
    connection = inheritable(ECHO)
    no_program = os.path.join(os.getcwd(), "no-program")
    with open(no_program, "w") as file:
        file.write("\x01\x02\x03")
    os.chmod(no_program, 0o755)
    for path in ("/nonexistent/program", no_program, "/etc/passwd"):
        for call in (lambda: os.execv(path, [path]), lambda: os.execvp(path, [path])):
            try:
                call()
            except OSError:
                pass
        connection.sendall(b"still here")
        assert exactly(connection, 10) == b"still here", path
    connection.shutdown(socket.SHUT_WR)
    assert read_all(connection) == b""


def system_and_popen() -> None:
    """system(3), popen(3) and posix_spawn(3) with a redirection from the connection."""
    size = 100_000
    for way in ("system", "popen", "spawn", "spawn of CLOEXEC"):
        connection = source(size)
        fd = connection.fileno()
        if way == "system":
            status = libc.system(f"cat <&{fd} >got-{way}".encode())
        elif way == "popen":
            libc.popen.restype = ctypes.c_void_p
            libc.pclose.argtypes = [ctypes.c_void_p]
            status = libc.pclose(libc.popen(f"cat <&{fd} >got-{way}".encode(), b"w"))
        else:
            connection.set_inheritable(way == "spawn")
            out = os.open(f"got-{way}", os.O_WRONLY | os.O_CREAT, 0o644)
            pid = os.posix_spawn("/bin/cat", ["cat"], PLAIN, file_actions=[
                (os.POSIX_SPAWN_DUP2, fd, 0), (os.POSIX_SPAWN_DUP2, out, 1)])
            status = os.waitpid(pid, 0)[1]
            os.close(out)
        assert status == 0, (way, status)
        with open(f"got-{way}", "rb") as file:
            assert file.read() == pattern(size), way
        assert connection.recv(1) == b"", way


def libc_streams() -> None:
    """fdopen(3), dprintf(3), and libc's stdout after dup2(2)."""
    connection = inheritable(ECHO)
    fd = os.dup(connection.fileno())
    libc.dprintf(fd, b"%s %d\n", b"printed", 7)
    stream = libc.fdopen(fd, b"r+")
    assert stream
    line = ctypes.create_string_buffer(100)
    libc.fgets(line, 100, stream)
    assert line.value == b"printed 7\n", line.value
    libc.fputs(b"through a stream\n", stream)
    libc.fflush(stream)
    libc.fgets(line, 100, stream)
    assert line.value == b"through a stream\n", line.value
    saved = os.dup(1)
    os.dup2(connection.fileno(), 1)
    libc.puts(b"through stdout")
    libc.fflush(None)
    os.dup2(saved, 1)
    libc.fgets(line, 100, stream)
    assert line.value == b"through stdout\n", line.value
    libc.fclose(stream)


_TELLER = """
import socket, sys
c = socket.socket(fileno=int(sys.argv[1]))
assert c.family == socket.AF_INET, c.family
print(c.getpeername()[0], c.getpeername()[1], c.getsockname()[0])
print(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0])
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
print(c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), c.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
c.sendall(b'told')
"""


def told_about() -> None:
    """A child under the library knows the addresses and options of what it inherits."""
    connection = inheritable(ECHO)
    fd = connection.fileno()
    got = subprocess.run([PYTHON, "-c", _TELLER, str(fd)], pass_fds=[fd], stdout=subprocess.PIPE, check=True,
                         timeout=20).stdout.decode()
    assert got == f"{PEER} {ECHO} {HOST}\n1\n1 1\n", got
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert exactly(connection, 4) == b"told"


_STRANGER = """
import socket, sys
unix = socket.socket(socket.AF_UNIX)
unix.connect(sys.argv[1])
_, fds, _, _ = socket.recv_fds(unix, 10, 2)
assert len(fds) == 2
a, b = (socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd) for fd in fds)
a.sendall(b'passed on')
assert a.recv(9, socket.MSG_WAITALL) == b'passed on'
print(b.recv(7, socket.MSG_WAITALL).decode())
"""


def rights() -> None:
    """SCM_RIGHTS to a stranger: two connections in one message, with a kernel's descriptor in another."""
    path = os.path.join(os.getcwd(), "rights.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    stranger = subprocess.Popen([PYTHON, "-c", _STRANGER, path], env=PLAIN, stdout=subprocess.PIPE)
    unix, _ = listener.accept()
    first, second = connect(ECHO), connect(GOODBYE)
    for connection in (first, second):
        connection.settimeout(None)
    socket.send_fds(unix, [b"two"], [first.fileno(), second.fileno()])
    first.close()
    second.close()
    out, _ = stranger.communicate(timeout=20)
    assert out == b"goodbye\n" and stranger.returncode == 0, out


def rights_to_relative() -> None:
    """SCM_RIGHTS to a child of fork."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _, fds, _, _ = socket.recv_fds(theirs, 10, 1)
        connection = socket.socket(fileno=fds[0])
        name = connection.getpeername()
        connection.sendall(b"relative")
        os._exit(0 if exactly(connection, 8) == b"relative" and name == (PEER, ECHO) else 1)
    connection = connect(ECHO)
    connection.settimeout(None)
    socket.send_fds(ours, [b"x"], [connection.fileno()])
    connection.close()
    assert os.waitpid(pid, 0)[1] == 0


def main() -> None:
    for name in sys.argv[4:]:
        globals()[name]()
        print(name, flush=True)


if __name__ == "__main__":
    main()
