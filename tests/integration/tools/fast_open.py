"""Requests and answers by TCP Fast Open.

serve ADDRESS PORT: answers every request, one a connection, and says of each whether its data came in the SYN.
ask ADDRESS PORT N: N requests one after the other; says of each whether the server took its data from the SYN.
"""

import socket
import struct
import sys

TCPI_OPTIONS_OFFSET, TCPI_OPT_SYN_DATA = 5, 32


def data_in_syn(connection: socket.socket) -> str:
    options = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[TCPI_OPTIONS_OFFSET]
    return "syn-data" if options & TCPI_OPT_SYN_DATA else "plain"


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def serve(address: str, port: int) -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    listener.bind((address, port))
    listener.listen(16)
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            (length,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))
            request = connection.recv(length, socket.MSG_WAITALL)
            connection.sendall(request[::-1])
            print(data_in_syn(connection), flush=True)
            if request == b"end":
                return


def ask(address: str, port: int, count: int) -> None:
    for number in range(count):
        request = b"end" if number == count - 1 else bytes(range(256)) * (1 + 20 * number)
        with socket.socket() as connection:
            message = struct.pack("!I", len(request)) + request
            sent = connection.sendto(message, socket.MSG_FASTOPEN, (address, port))
            connection.sendall(message[sent:])
            answer = read_all(connection)
            assert answer == request[::-1], (len(answer), len(request))
            print(data_in_syn(connection), flush=True)


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]))
else:
    ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
