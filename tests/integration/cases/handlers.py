"""Signal handlers that use sockets while threads are inside the library."""

import pathlib

from harness import Context, case

PYTHON = "/usr/bin/python3"
ECHO = 7001


@case("handlers.stress", limit=150)
def stress(context: Context):
    """Handlers write, dup, close and longjmp every millisecond in four threads that echo 4 MB each."""
    lab = context.lab()
    peer = lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer")
    peer.wait_for_output("ready")
    program = pathlib.Path(context.emulator).parent / "handler_stress"
    for variables in ({"USTACK_IO": "uring"}, {"USTACK_IO": "plain"}, {"USTACK_SPIN": "50"}):
        ran = lab.host(program, lab.peer_address, ECHO, 4, 4, env={} if context.kernel_mode else variables,
                       label="handler_stress").ok(60)
        context.note(f"{' '.join('='.join(each) for each in variables.items())}: {ran.stdout.strip()}")
        if context.kernel_mode:
            break
