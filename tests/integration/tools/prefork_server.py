#!/usr/bin/env python3
"""A prefork HTTP server that answers /pattern/SIZE: one listener, N processes that accept from it.

  prefork_server.py ADDRESS PORT [--workers N] [--how accept|poll|epoll|exclusive] [--per-connection]
                    [--user UID]

`how`: each worker blocks in accept(), or looks at the non-blocking listener by poll(), epoll, or epoll with
EPOLLEXCLUSIVE. --per-connection: one process accepts and forks a child for each connection, closing its own
descriptor of it. Workers that die are replaced. --user: each worker
gives up root and serves as this one. SIGTERM ends all. Each answer says which process it is from
(X-Process). Each worker counts how often it was woken and how often there was nothing to accept (X-Wakes, X-Empty).
"""

import argparse
import os
import select
import signal
import socket
import sys


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def answer(connection: socket.socket, wakes: int, empty: int) -> None:
    """All requests of one connection."""
    buffer = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in buffer:
                piece = connection.recv(1 << 16)
                if not piece:
                    return
                buffer += piece
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            body = pattern(int(head.split()[1].rpartition(b"/")[2]))
            close = b"connection: close" in head.lower()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\nX-Process: %d\r\n"
                               b"X-Wakes: %d\r\nX-Empty: %d\r\n\r\n" % (len(body), b"close" if close else b"keep-alive",
                                                                         os.getpid(), wakes, empty) + body)
            if close:
                return


def wait_for(how: str, listener: socket.socket):
    """A function that returns when there may be something to accept."""
    if how == "accept":
        return lambda: None
    listener.setblocking(False)
    if how == "poll":
        poller = select.poll()
        poller.register(listener, select.POLLIN)
    else:
        poller = select.epoll()
        poller.register(listener, select.EPOLLIN | (select.EPOLLEXCLUSIVE if how == "exclusive" else 0))
    return poller.poll


def worker(how: str, listener: socket.socket) -> None:
    wait = wait_for(how, listener)
    wakes = empty = 0
    while True:
        wait()
        wakes += 1
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            empty += 1
            continue
        connection.setblocking(True)
        try:
            answer(connection, wakes, empty)
        except OSError:
            pass


def per_connection(listener: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            try:
                answer(connection, 0, 0)
            except OSError:
                pass
            os._exit(0)
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--how", choices=["accept", "poll", "epoll", "exclusive"], default="accept")
    parser.add_argument("--per-connection", action="store_true")
    parser.add_argument("--user", type=int)
    arguments = parser.parse_args()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((arguments.address, arguments.port))
    listener.listen(1024)
    if arguments.per_connection:
        print("listening", flush=True)
        per_connection(listener)
    workers = set()

    def end(*_) -> None:
        for pid in workers:
            try:
                os.kill(pid, signal.SIGTERM)
                os.waitpid(pid, 0)
            except OSError:
                pass  # waited for already
        os._exit(0)

    def start() -> None:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            if arguments.user is not None:
                os.setresuid(arguments.user, arguments.user, arguments.user)
            worker(arguments.how, listener)
        workers.add(pid)

    # Not in the middle of a fork: the set would lack its child.
    signal.signal(signal.SIGTERM, end)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    for _ in range(arguments.workers):
        start()
    print("listening", flush=True)
    while True:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        pid, _ = os.wait()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        workers.discard(pid)
        start()


if __name__ == "__main__":
    sys.exit(main())
