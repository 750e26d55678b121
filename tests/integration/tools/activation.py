#!/usr/bin/env python3
"""Makes a listener, starts a program that inherits it as descriptor 3, and closes it, as socket activation does.

  activation.py plain|library ADDRESS PORT PEER

The program, without the library or with it, accepts three connections and echoes each to its end.
"""

import os
import socket
import subprocess
import sys

ACTIVATED = """
import os, socket, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=3)
library = sys.argv[1] == 'library'
if library:
    assert listener.getsockname() == (sys.argv[2], int(sys.argv[3])), listener.getsockname()
print('listening', flush=True)
for _ in range(3):
    fd, address = listener._accept()
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fd)
    if library:
        assert address[0] == sys.argv[4] and connection.getsockname()[0] == sys.argv[2], address
    while piece := connection.recv(65536):
        connection.sendall(piece)
    connection.close()
"""


def main() -> None:
    kind, address, port, peer = sys.argv[1:5]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, int(port)))
    listener.listen(20)
    if listener.fileno() != 3:
        os.dup2(listener.fileno(), 3)
        listener.close()
    else:
        listener.set_inheritable(True)
        listener.detach()
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    child = subprocess.Popen(["/usr/bin/python3", "-c", ACTIVATED, kind, address, port, peer], pass_fds=[3],
                             env=None if kind == "library" else plain)
    os.close(3)
    sys.exit(child.wait(30))


main()
