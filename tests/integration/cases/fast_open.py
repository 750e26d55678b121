"""TCP Fast Open between the library and the kernel, in both roles."""

from harness import Context, case, equal

PYTHON = "/usr/bin/python3"
#: The first connection brings the cookie; the later ones have their data in the SYN.
EXPECTED = ["plain", "syn-data", "syn-data", "syn-data"]


def _run(context: Context, host_serves: bool) -> None:
    lab = context.lab()
    tool = [PYTHON, context.tool("fast_open.py")]
    lab.peer_settings(net__ipv4__tcp_fastopen=3)
    env = lab.host_sysctl(net__ipv4__tcp_fastopen=3)
    port = 5000
    if host_serves:
        server = lab.host(*tool, "serve", lab.host_address(), port, env=env, label="server")
        server.wait_for_output("listening")
        client = lab.peer(*tool, "ask", lab.host_address(), port, len(EXPECTED), label="client")
    else:
        server = lab.peer(*tool, "serve", lab.peer_address, port, label="server")
        server.wait_for_output("listening")
        client = lab.host(*tool, "ask", lab.peer_address, port, len(EXPECTED), env=env, label="client")
    client.ok(20)
    server.ok(20)
    equal(client.stdout.split(), EXPECTED, "what the client says")
    equal(server.stdout.split()[1:], EXPECTED, "what the server says")


@case("fast_open.client")
def fast_open_client(context: Context):
    """The kernel gives out a cookie, and takes the data of our SYNs by it."""
    _run(context, host_serves=False)


@case("fast_open.server")
def fast_open_server(context: Context):
    """We give out a cookie, take the data of the kernel's SYNs by it, and answer before the handshake is complete."""
    _run(context, host_serves=True)
