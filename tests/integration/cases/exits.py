"""Every way out of a program delivers what it has sent and ends its connections in order."""

from harness import Context, case, equal

PYTHON = "/usr/bin/python3"
REPORTER, LAST_REPORT = 7008, 7009

_WAYS = {
    "return": "pass",
    "exit": "sys.exit(0)",
    "_exit": "os._exit(0)",
    "_Exit": "libc._Exit(0)",
    "C's exit": "libc.exit(0)",
    "quick_exit": "libc.quick_exit(0)",
    "_exit of a thread": "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(10)",
    "exec": "os.execv('/bin/true', ['true'])",
    "execlp": "libc.execlp(b'true', b'true', b'argument', None)",
    "child that goes on": "os.fork() and os._exit(0); time.sleep(0.3)",
    "daemon": "libc.daemon(0, 0); time.sleep(0.3)",
}


@case("exits.deliver")
def deliver(context: Context):
    """exit, _exit, quick_exit, return from main, exec, daemon: 500 kB sent right before arrive, then the end."""
    lab = context.lab()
    peer = lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer")
    peer.wait_for_output("ready")
    for name, way in _WAYS.items():
        program = ("import ctypes, os, socket, sys, threading, time\n"
                   "libc = ctypes.CDLL(None)\n"
                   f"c = socket.create_connection(({lab.peer_address!r}, {REPORTER}))\n"
                   f"c.sendall(bytes(500000))\n{way}\n")
        lab.host(PYTHON, "-c", program, label=name.replace(" ", "-")).ok()
        asked = lab.peer(PYTHON, "-c", "import socket\n"
                         f"c = socket.create_connection(({lab.peer_address!r}, {LAST_REPORT}))\n"
                         "print(c.recv(1000).decode(), end='')\n", label="asking").ok()
        equal(asked.stdout, "500000 end", name)


@case("exits.killed", kernel=False)
def killed(context: Context):
    """A program that is killed leaves nothing behind: the next one takes the same device and address at once."""
    lab = context.lab()
    peer = lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer")
    peer.wait_for_output("ready")
    program = (f"import socket\nc = socket.create_connection(({lab.peer_address!r}, 7001))\n"
               "c.sendall(b'x'); print(c.recv(1), flush=True); c.recv(1)\n")
    for number in (9, 15, 2):
        running = lab.host(PYTHON, "-u", "-c", program, label=f"killed-{number}")
        running.wait_for_output("b'x'")
        running.signal(number)
        running.wait(10)
