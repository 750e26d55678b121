"""Every check of tools/socket_checks, a case each: what it asserts holds on the kernel too (run --kernel)."""

import pathlib
import sys

from harness import Context, case, equal

PYTHON = "/usr/bin/python3"
_TOOLS = pathlib.Path(__file__).resolve().parent.parent / "tools"


sys.path.insert(0, str(_TOOLS))
import socket_checks  # noqa: E402


def _register(name: str, summary: str) -> None:
    def run(context: Context) -> None:
        lab = context.lab()
        peer = lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer")
        peer.wait_for_output("ready")
        program = lab.host(PYTHON, "-B", context.tool("sockets.py"), name, lab.peer_address, lab.host_address(),
                           label=name)
        if name == "sigpipe_kills":
            equal(program.wait(45), -13, "status")
        else:
            program.ok(45)

    run.__doc__ = summary
    case(f"socket.{name}")(run)


for _name, _check in socket_checks.checks().items():
    _register(_name, _check.__doc__)
