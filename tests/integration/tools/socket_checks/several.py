"""Threads and many connections."""

import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

from .common import ECHO, LATE_ECHO, open_to, receive_all, receive_exactly


def check_threads():
    """Eight threads with a connection each, 500 kB there and back."""
    failures = []

    def work(seed: int) -> None:
        try:
            data = bytes((seed * 31 + i) % 256 for i in range(1000)) * 500
            with open_to(ECHO) as connection:
                sender = threading.Thread(target=connection.sendall, args=(data,))
                sender.start()
                assert receive_exactly(connection, len(data)) == data, "wrong data"
                sender.join()
        except Exception as error:  # a thread's failure is to be seen
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def check_first_sockets_at_once():
    """Programs whose threads all open their first socket while the first of them makes the host."""
    program = """
import socket, threading, time
failures, start = [], time.monotonic() + 0.02
def open_one(number):
    while time.monotonic() < start + number * 0.0002: pass
    try: socket.socket()
    except OSError as error: failures.append(error)
threads = [threading.Thread(target=open_one, args=(number,)) for number in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
"""
    for _ in range(20):
        subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)


def check_threads_one_connection():
    """One thread blocks in recv while another sends; shutdown by a third wakes the receiver."""
    with open_to(LATE_ECHO) as connection:
        got = []
        receiver = threading.Thread(target=lambda: got.append(receive_all(connection)))
        receiver.start()
        time.sleep(0.1)
        connection.sendall(b"across")
        time.sleep(0.6)
        connection.shutdown(socket.SHUT_RDWR)
        receiver.join(5)
        assert not receiver.is_alive() and got == [b"across"], got


def check_many_connections():
    """Five hundred connections open at once, each echoes."""
    connections = [open_to(ECHO) for _ in range(500)]
    for number, connection in enumerate(connections):
        connection.sendall(f"number {number}".encode())
    epoll = select.epoll()
    by_fd = {}
    for number, connection in enumerate(connections):
        epoll.register(connection, select.EPOLLIN)
        by_fd[connection.fileno()] = number
    seen = set()
    deadline = time.monotonic() + 10
    while len(seen) < len(connections) and time.monotonic() < deadline:
        for fd, _ in epoll.poll(1):
            number = by_fd[fd]
            assert connections[number].recv(100).decode() == f"number {number}"
            seen.add(number)
    assert len(seen) == len(connections), len(seen)
    for connection in connections:
        connection.close()


def check_churn():
    """Two thousand connections one after the other; no descriptor and no port is lost."""
    before = len(os.listdir("/proc/self/fd"))
    for number in range(2000):
        with open_to(ECHO) as connection:
            if number % 4 == 0:
                connection.sendall(b"x")
                assert connection.recv(1) == b"x"
            if number % 4 == 1:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    after = len(os.listdir("/proc/self/fd"))
    # The library's own descriptors came with the first socket.
    assert after - before < 20, (before, after)
