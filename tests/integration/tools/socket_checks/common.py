"""What the checks share."""

import ctypes
import errno
import os
import socket
import time

#: The peer's address and our own.
PEER, OWN = os.environ.get("CHECK_PEER", ""), os.environ.get("CHECK_OWN", "")
(ECHO, DIGEST, SOURCE, RESET, SILENT, CLOSE, GOODBYE, REPORTER, LAST_REPORT, LATE_ECHO, SLOW_DIGEST,
 CALL_BACK) = range(7001, 7013)
#: The real calls, where Python would repeat or hide something.
libc = ctypes.CDLL(None, use_errno=True)


def open_to(port: int) -> socket.socket:
    connection = socket.socket()
    connection.connect((PEER, port))
    return connection


def receive_all(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, f"the end after {len(data)} of {size} bytes"
        data += piece
    return data


def fails_with(code: int, function, *arguments) -> None:
    try:
        result = function(*arguments)
    except OSError as error:
        assert error.errno == code, f"{errno.errorcode.get(error.errno)} instead of {errno.errorcode[code]}"
    else:
        raise AssertionError(f"no error ({result!r}), {errno.errorcode[code]} was expected")


def last_report() -> str:
    with open_to(LAST_REPORT) as connection:
        return receive_all(connection).decode()


def receive_peek(connection: socket.socket, size: int) -> bytes:
    """Peeks until that much has come."""
    deadline = time.monotonic() + 5
    while len(data := connection.recv(size, socket.MSG_PEEK)) < size and time.monotonic() < deadline:
        time.sleep(0.005)
    return data
