#!/usr/bin/env python3
"""One TCP connection, both directions at once: sends a file, half-closes, receives to a file until the end.

Without --send it closes only after the other side has.

  transfer.py listen ADDRESS PORT [--send FILE] [--receive FILE]
  transfer.py connect ADDRESS PORT [--send FILE] [--receive FILE] [--retry SECONDS]

Ends with status 0 when both directions ended in order.
"""

import argparse
import errno
import socket
import sys
import threading
import time

PIECE = 1 << 16


def connect(address: str, port: int, patience: float) -> socket.socket:
    deadline = time.monotonic() + patience
    while True:
        connection = socket.socket()
        try:
            connection.connect((address, port))
            return connection
        except OSError as error:
            connection.close()
            # Nobody there yet.
            if error.errno not in (errno.ECONNREFUSED, errno.EHOSTUNREACH) or time.monotonic() > deadline:
                raise
            time.sleep(0.03)


def listen(address: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(8)
    print("listening", flush=True)
    connection, _ = listener.accept()
    listener.close()
    return connection


def send(connection: socket.socket, path, failures: list) -> None:
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        failures.append(f"sending: {error}")


def receive(connection: socket.socket, path, failures: list) -> None:
    try:
        with open(path or "/dev/null", "wb") as file:
            while piece := connection.recv(PIECE):
                file.write(piece)
    except OSError as error:
        failures.append(f"receiving: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["listen", "connect"])
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--send")
    parser.add_argument("--receive")
    parser.add_argument("--retry", type=float, default=0)
    arguments = parser.parse_args()
    if arguments.role == "listen":
        connection = listen(arguments.address, arguments.port)
    else:
        connection = connect(arguments.address, arguments.port, arguments.retry)
    failures: list = []
    if arguments.send:
        sender = threading.Thread(target=send, args=(connection, arguments.send, failures))
        sender.start()
    receive(connection, arguments.receive, failures)
    if arguments.send:
        sender.join()
    connection.close()
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
