#!/usr/bin/env python3
"""Clients that ask an HTTP server for /pattern/SIZE and check each byte of the answer.

  http_load.py ADDRESS PORT [--clients N] [--sizes N,N] [--requests N | --until FILE [--at-least N]] [--keep-alive] [--patience S]

Until FILE exists and N requests came out right or half a minute more has passed, or N requests are through, or SIGTERM. At the end a line of JSON: `right` answers; `wrong` ones
(complete, but not what was asked for); `failed`: a count for each way in which a request visibly failed; `hung`:
requests without a byte for PATIENCE seconds. `longest`: seconds of the slowest right request. `servers`: right
answers by the process that gave them, as its header X-Process says, where there is one.
"""

import argparse
import collections
import json
import os
import random
import signal
import socket
import threading
import time

ERRORS = (OSError, EOFError, ValueError)


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class Client:
    """One connection at a time."""

    def __init__(self, arguments, seed: int):
        self.arguments = arguments
        self.random = random.Random(seed)
        self.connection = None
        self.right = self.wrong = self.hung = 0
        self.failed = collections.Counter()
        self.servers = collections.Counter()
        self.longest = 0.0

    def connect(self) -> None:
        self.connection = socket.create_connection((self.arguments.address, self.arguments.port),
                                                   timeout=self.arguments.patience)
        self.rest = b""

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def more(self) -> None:
        piece = self.connection.recv(1 << 16)
        if not piece:
            raise EOFError("end")
        self.rest += piece

    def ask(self, size: int) -> tuple[bytes, dict[str, str]]:
        how = "keep-alive" if self.arguments.keep_alive else "close"
        self.connection.sendall(f"GET /pattern/{size} HTTP/1.1\r\nHost: x\r\nConnection: {how}\r\n\r\n".encode())
        while b"\r\n\r\n" not in self.rest:
            self.more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if " 200 " not in lines[0] + " ":
            raise ValueError(lines[0])
        length = int(headers["content-length"])
        while len(self.rest) < length:
            self.more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return body, headers

    def request(self) -> None:
        size = self.random.choice(self.arguments.sizes)
        started = time.monotonic()
        headers = {}
        try:
            reused = self.connection is not None
            if not reused:
                self.connect()
            try:
                body, headers = self.ask(size)
            except (EOFError, ConnectionError):
                # A server may close an idle connection at any time; such a request is asked again (RFC 9112, 9.3.1).
                if not reused or self.rest:
                    raise
                self.drop()
                self.connect()
                body, headers = self.ask(size)
            if body == pattern(size):
                self.right += 1
                self.longest = max(self.longest, time.monotonic() - started)
                self.servers[headers.get("x-process", "")] += 1
            else:
                self.wrong += 1
        except TimeoutError:
            self.hung += 1
            self.drop()
        except ERRORS as error:
            self.failed[str(error) if isinstance(error, ValueError) else type(error).__name__] += 1
            self.drop()
            time.sleep(0.005)
        if not self.arguments.keep_alive or headers.get("connection", "").lower() == "close":
            self.drop()

    def run(self, done, share) -> None:
        while not done() and share():
            self.request()
        self.drop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[100])
    parser.add_argument("--requests", type=int)
    parser.add_argument("--until")
    parser.add_argument("--at-least", type=int, default=0)
    parser.add_argument("--keep-alive", action="store_true")
    parser.add_argument("--patience", type=float, default=20)
    arguments = parser.parse_args()
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    lock = threading.Lock()
    left = arguments.requests

    def share() -> bool:
        nonlocal left
        if left is None:
            return True
        with lock:
            left -= 1
            return left >= 0

    def done() -> bool:
        if terminated.is_set():
            return True
        if arguments.until is None or not os.path.exists(arguments.until):
            return False
        return (sum(client.right for client in clients) >= arguments.at_least or
                time.time() > os.stat(arguments.until).st_mtime + 30)

    clients = [Client(arguments, seed) for seed in range(arguments.clients)]
    threads = [threading.Thread(target=client.run, args=(done, share)) for client in clients]
    print("running", flush=True)
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = {"right": 0, "wrong": 0, "hung": 0, "failed": collections.Counter(), "servers": collections.Counter()}
    for client in clients:
        for name in total:
            total[name] += getattr(client, name)
    total["longest"] = round(max(client.longest for client in clients), 3)
    total["seconds"] = round(time.monotonic() - started, 3)
    print(json.dumps(total))


if __name__ == "__main__":
    main()
