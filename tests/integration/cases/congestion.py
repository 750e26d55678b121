"""Congestion controls over a link that loses."""

import time

from harness import Context, case, check, equal

PYTHON = "/usr/bin/python3"


@case("congestion.bbr")
def congestion_bbr(context: Context):
    """Paced by a timer, BBR gets more through 1 % of loss and 20 ms than CUBIC, to a kernel's receiver."""
    path = context.file(6_000_000)
    seconds = {}
    for name in ("cubic", "bbr"):
        lab = context.lab("emulated", emulation=["--loss=1%", "--delay=10ms", "--rate=100mbit", "--queue-bytes=400k",
                                                 "--seed=5"])
        if context.kernel_mode:
            return  # not every kernel has it
        sink = lab.peer(PYTHON, context.tool("transfer.py"), "listen", lab.peer_address, 5000, "--receive",
                        context.directory / name, label="sink")
        sink.wait_for_output("listening")
        begin = time.monotonic()
        lab.host(PYTHON, context.tool("transfer.py"), "connect", lab.peer_address, 5000, "--send", path,
                 env=lab.host_sysctl(net__ipv4__tcp_congestion_control=name), label=name).ok(90)
        sink.ok(20)
        seconds[name] = time.monotonic() - begin
        equal(context.sha256(context.directory / name), context.sha256(path), "sha256 of what was received")
    context.note(f"6 MB: CUBIC {seconds['cubic']:.2f} s, BBR {seconds['bbr']:.2f} s")
    check(seconds["bbr"] < seconds["cubic"], f"no faster: {seconds}")
