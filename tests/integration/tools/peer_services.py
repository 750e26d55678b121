#!/usr/bin/env python3
"""The kernel's side of tools/sockets.py: small TCP services at fixed ports.

  peer_services.py ADDRESS

Prints "ready" once all of them listen. The ports and what each does are in SERVICES.
"""

import hashlib
import socket
import struct
import sys
import threading
import time

_reports: list = []
_report_came = threading.Condition()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def late_echo(connection: socket.socket) -> None:
    """Answers each piece after 300 ms."""
    while data := connection.recv(65536):
        time.sleep(0.3)
        connection.sendall(data)


def digest(connection: socket.socket) -> None:
    """Reads to the end, then says the sha256."""
    total = hashlib.sha256()
    while data := connection.recv(65536):
        total.update(data)
    connection.sendall(total.hexdigest().encode())


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def source(connection: socket.socket) -> None:
    """Reads a size (8 bytes, big-endian), sends that much of the pattern and closes."""
    size = struct.unpack("!Q", connection.recv(8, socket.MSG_WAITALL))[0]
    connection.sendall(pattern(size))


def reset(connection: socket.socket) -> None:
    """Resets after the first byte."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(connection: socket.socket) -> None:
    """Never reads, never writes, for long."""
    time.sleep(60)


def goodbye(connection: socket.socket) -> None:
    """Says so and closes its direction; reads on to the end."""
    connection.sendall(b"goodbye")
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass


def reporter(connection: socket.socket) -> None:
    """Reads to the end or an error, which the service `last_report` tells."""
    count = 0
    try:
        while data := connection.recv(65536):
            count += len(data)
        how = "end"
    except OSError as error:
        how = type(error).__name__
    with _report_came:
        _reports.append(f"{count} {how}")
        _report_came.notify_all()


def greeting_reporter(connection: socket.socket) -> None:
    """As reporter, but says something first, which the caller may leave unread."""
    connection.sendall(b"greeting")
    reporter(connection)


def last_report(connection: socket.socket) -> None:
    with _report_came:
        _report_came.wait_for(lambda: _reports, timeout=10)
        connection.sendall((_reports.pop(0) if _reports else "none").encode())


def slow_digest(connection: socket.socket) -> None:
    """As digest, but nothing is read in the first half second: the window closes."""
    time.sleep(0.5)
    digest(connection)


def call_back(connection: socket.socket) -> None:
    """Reads a port number and connects to it at the caller's address; echoes there."""
    port = int(connection.recv(100))
    back = socket.create_connection((connection.getpeername()[0], port), timeout=10)
    back.settimeout(None)
    with back:
        echo(back)


SERVICES = {
    7001: echo,
    7002: digest,
    7003: source,
    7004: reset,
    7005: silent,
    7006: lambda connection: None,
    7007: goodbye,
    7008: reporter,
    7009: last_report,
    7010: late_echo,
    7011: slow_digest,
    7012: call_back,
    7013: greeting_reporter,
}


def serve(listener: socket.socket, service) -> None:
    while True:
        connection, _ = listener.accept()

        def run(connection=connection) -> None:
            with connection:
                try:
                    service(connection)
                except OSError:
                    pass

        threading.Thread(target=run, daemon=True).start()


def main() -> None:
    for port, service in SERVICES.items():
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((sys.argv[1], port))
        listener.listen(1024)
        threading.Thread(target=serve, args=(listener, service), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
