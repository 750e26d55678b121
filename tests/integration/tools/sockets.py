#!/usr/bin/env python3
"""Runs one check of socket_checks, on the kernel and under the library alike.

  sockets.py CHECK PEER_ADDRESS OWN_ADDRESS

against tools/peer_services.py at PEER_ADDRESS.
"""

import faulthandler
import os
import sys


def main() -> None:
    name, os.environ["CHECK_PEER"], os.environ["CHECK_OWN"] = sys.argv[1:4]
    # A hang tells where.
    faulthandler.dump_traceback_later(40, exit=True)
    import socket_checks
    socket_checks.checks()[name]()


if __name__ == "__main__":
    main()
