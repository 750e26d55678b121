"""Explicit congestion notification between the library and the kernel, in both roles and both directions."""

from harness import Context, case, check, counters_in, equal

PYTHON = "/usr/bin/python3"
#: One ECN-capable packet in twenty is marked, on its way in and on its way out; superframes count as one.
MARKING = "; ".join(f"add chain inet t {hook} {{ type filter hook {hook} priority 0; }}; "
                    f"add rule inet t {hook} ip ecn ect0 numgen inc mod 20 == 0 counter ip ecn set ce"
                    for hook in ("input", "output"))


def _kernel_counters(lab, label: str) -> dict[str, int]:
    lines = lab.peer("cat", "/proc/net/netstat", label=label).ok().stdout.splitlines()
    found = {}
    for names, values in zip(lines[::2], lines[1::2]):
        found.update(zip(names.split()[1:], map(int, values.split()[1:])))
    return found


def _run(context: Context, host_serves: bool) -> None:
    lab = context.lab()
    # Who asks; the one that answers needs only its default.
    lab.peer_settings(net__ipv4__tcp_ecn=1 if host_serves else 2)
    env = lab.host_sysctl(net__ipv4__tcp_ecn=2 if host_serves else 1)
    lab.peer("nft", f"add table inet t; {MARKING}", label="nft").ok()
    counters = context.directory / "counters"
    env["USTACK_COUNTERS"] = str(counters)
    path = context.file(3_000_000)
    ends = {}
    for role, on_host in (("listen", host_serves), ("connect", not host_serves)):
        address = lab.host_address() if host_serves else lab.peer_address
        start = lab.host if on_host else lab.peer
        arguments = [PYTHON, context.tool("transfer.py"), role, address, 5000, "--send", path, "--receive",
                     context.directory / role]
        ends[role] = start(*arguments, label=role, **({"env": env} if on_host else {}))
        if role == "listen":
            ends[role].wait_for_output("listening")
    for role, end in ends.items():
        end.ok(40)
        equal(context.sha256(context.directory / role), context.sha256(path), f"sha256 of what {role} received")
    kernel = _kernel_counters(lab, "netstat")
    check(kernel["TCPDeliveredCE"] > 0, "we have not echoed the kernel's marks")
    if context.kernel_mode:
        return
    ours = counters_in(counters)
    check(ours["TcpExtTCPDeliveredCE"] > 0, "nothing of ours was ECN-capable, or the kernel's echoes were not taken")
    check(ours["IpExtInCEPkts"] > 0, "nothing of the kernel's was ECN-capable")
    context.note(f"{ours['IpExtInCEPkts']} marked packets came; "
                 f"segments echoed as marked: to us {ours['TcpExtTCPDeliveredCE']}, to the kernel {kernel['TCPDeliveredCE']}")


@case("ecn.client")
def ecn_client(context: Context):
    """We ask for it (tcp_ecn=1), the kernel grants it; both echo marks and slow down."""
    _run(context, host_serves=False)


@case("ecn.server")
def ecn_server(context: Context):
    """The kernel asks for it, we grant it by default."""
    _run(context, host_serves=True)
