"""The three netcats as client and as server under the library, each direction, against a kernel peer."""

from harness import Context, Lab, case, equal

PYTHON = "/usr/bin/python3"
SIZE = 5_000_000

#: Arguments (after the program's name) for a role and a direction; {} is the address and the port.
_USAGE = {
    "nc.openbsd": {
        ("client", "send"): ["-N", "{address}", "{port}"],
        ("client", "receive"): ["-d", "{address}", "{port}"],
        ("server", "send"): ["-N", "-l", "{address}", "{port}"],
        ("server", "receive"): ["-d", "-l", "{address}", "{port}"],
    },
    "nc.traditional": {
        ("client", "send"): ["-q", "10", "{address}", "{port}"],
        ("client", "receive"): ["{address}", "{port}"],
        ("server", "send"): ["-q", "10", "-l", "-s", "{address}", "-p", "{port}"],
        ("server", "receive"): ["-l", "-s", "{address}", "-p", "{port}"],
    },
    "ncat": {
        ("client", "send"): ["--send-only", "{address}", "{port}"],
        ("client", "receive"): ["--recv-only", "{address}", "{port}"],
        ("server", "send"): ["--send-only", "-l", "{address}", "{port}"],
        ("server", "receive"): ["--recv-only", "-l", "{address}", "{port}"],
    },
}


def transfer(context: Context, lab: Lab, program: str, role: str, direction: str, port: int, size: int = SIZE,
             timeout: float = 40) -> None:
    """One file from or to the program; what arrived must be what was sent."""
    path = context.file(size, seed=port)
    arrived = context.directory / f"arrived-{port}"
    address = lab.peer_address if role == "client" else lab.host_address()
    arguments = [text.format(address=address, port=port) for text in _USAGE[program][role, direction]]
    tool = [PYTHON, context.tool("transfer.py"), "listen" if role == "client" else "connect", address, port]
    tool += ["--receive", arrived] if direction == "send" else ["--send", path]
    streams = {"stdin": path} if direction == "send" else {"stdout": arrived}
    if role == "client":
        peer = lab.peer(*tool, label="peer")
        peer.wait_for_output("listening")
        netcat = lab.host(program, *arguments, **streams)
    else:
        netcat = lab.host(program, *arguments, **streams)
        lab.wait_for_carrier()
        peer = lab.peer(*tool, "--retry", 10, label="peer")
    peer.ok(timeout)
    netcat.ok(timeout)
    equal(context.sha256(arrived), context.sha256(path), f"sha256 of what arrived ({program}, {role}, {direction})")


def _register(program: str, role: str) -> None:
    name = program.removeprefix("nc.") + "_" + role

    def both_directions(context: Context) -> None:
        lab = context.lab(wire=True)
        capture = lab.capture()
        transfer(context, lab, program, role, "send", 5001)
        transfer(context, lab, program, role, "receive", 5002)
        capture.judge(refusals=role == "server")

    both_directions.__doc__ = f"{program} as a {role}: a file each way; the capture is clean."
    case(f"nc.{name}")(both_directions)

    def emulated(context: Context) -> None:
        lab = context.lab("emulated", emulation=["--loss=0.02", "--delay=2ms", "--seed=11"])
        capture = lab.capture()
        transfer(context, lab, program, role, "send", 5001, size=1_000_000)
        transfer(context, lab, program, role, "receive", 5002, size=1_000_000)
        capture.judge(refusals=role == "server")

    emulated.__doc__ = f"{program} as a {role} over a link with 2 % loss: a file each way; the capture is clean."
    case(f"emulated.{name}")(emulated)


for _program in _USAGE:
    for _role in ("client", "server"):
        _register(_program, _role)


@case("nc.loopback_and_link")
def loopback_and_link(context: Context):
    """A listener on the wildcard address accepts from the machine's loopback as well as from the link."""
    lab = context.lab()
    for number, via_loopback in enumerate((False, True)):
        port = 5001 + number
        path = context.file(200_000, seed=port)
        arrived = context.directory / f"arrived-{port}"
        netcat = lab.host("nc.openbsd", "-4", "-d", "-l", port, stdout=arrived)
        tool = [PYTHON, context.tool("transfer.py"), "connect", "127.0.0.1" if via_loopback else lab.host_address(),
                port, "--send", path, "--retry", "10"]
        if via_loopback:
            lab.in_host_namespace(*tool, label="peer").ok()
        else:
            lab.wait_for_carrier()
            lab.peer(*tool, label="peer").ok()
        netcat.ok()
        equal(context.sha256(arrived), context.sha256(path), f"sha256 of what arrived on port {port}")


@case("transfer.both_at_once")
def both_at_once(context: Context):
    """20 MB each way at once over one connection, opened by either side; the capture is clean."""
    lab = context.lab(wire=True)
    capture = lab.capture()
    up, down = context.file(20_000_000, seed=1), context.file(20_000_000, seed=2)
    tool = [PYTHON, context.tool("transfer.py")]
    for port, host_role in ((6001, "connect"), (6002, "listen")):
        address = lab.peer_address if host_role == "connect" else lab.host_address()
        to_peer, to_host = context.directory / f"to-peer-{port}", context.directory / f"to-host-{port}"
        peer_role = "listen" if host_role == "connect" else "connect"
        peer_tool = [*tool, peer_role, address, port, "--send", down, "--receive", to_peer]
        host_tool = [*tool, host_role, address, port, "--send", up, "--receive", to_host]
        if host_role == "connect":
            peer = lab.peer(*peer_tool, label="peer")
            peer.wait_for_output("listening")
            host = lab.host(*host_tool)
        else:
            host = lab.host(*host_tool)
            host.wait_for_output("listening")
            peer = lab.peer(*peer_tool, label="peer")
        peer.ok(60)
        host.ok(60)
        equal(context.sha256(to_peer), context.sha256(up), "sha256 of what the peer got")
        equal(context.sha256(to_host), context.sha256(down), "sha256 of what the host got")
    capture.judge()
