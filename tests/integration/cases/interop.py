"""Transfers with the kernel over a bad link with and without each option of TCP; the captures are judged by tshark."""

import dataclasses

from harness import Context, case, check, equal

PYTHON = "/usr/bin/python3"
LOSS = ("--loss=1%", "--delay=2ms", "--seed=3")
REORDERING = ("--reorder=5%", "--reorder-by=3ms", "--delay=5ms", "--duplicate=1%", "--seed=4")
#: Every frame that shows the option, of one sender.
SACK_PERMITTED, SACK, TIMESTAMPS, SCALE = ("tcp.options.sack_perm", "tcp.options.sack_le", "tcp.options.timestamp.tsval",
                                           "tcp.options.wscale.shift")


@dataclasses.dataclass
class Interop:
    """One case: settings of both sides, and what the capture must or must not show of either."""
    name: str
    title: str
    link: tuple[str, ...] = LOSS
    host: dict[str, object] = dataclasses.field(default_factory=dict)
    peer: dict[str, object] = dataclasses.field(default_factory=dict)
    shown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    size: int = 1_000_000

    def run(self, context: Context) -> None:
        lab = context.lab("emulated", emulation=list(self.link))
        lab.peer_settings(**self.peer)
        path = context.file(self.size)
        capture = lab.capture()
        listener = lab.peer(PYTHON, context.tool("transfer.py"), "listen", lab.peer_address, 5000, "--send", path,
                            "--receive", context.directory / "at_peer", label="listen")
        listener.wait_for_output("listening")
        lab.host(PYTHON, context.tool("transfer.py"), "connect", lab.peer_address, 5000, "--send", path, "--receive",
                 context.directory / "at_host", env=lab.host_sysctl(**self.host), label="connect").ok(90)
        listener.ok(20)
        for side in ("at_peer", "at_host"):
            equal(context.sha256(context.directory / side), context.sha256(path), f"sha256 of what arrived {side}")
        capture.judge()
        for sender in (lab.host_address(), lab.peer_address):
            for what, wanted in ((self.shown, True), (self.missing, False)):
                for expression in what:
                    found = capture.tshark(f"ip.src == {sender} && {expression}")
                    check(bool(found) == wanted, f"{len(found)} frames of {sender} have {expression}")


ALL = (
    Interop("interop.all_options", "SACK, timestamps and window scaling, over loss.",
            shown=(SACK_PERMITTED, SACK, TIMESTAMPS, SCALE)),
    Interop("interop.reordering", "The same over reordering and duplication: D-SACK among it.", link=REORDERING,
            shown=(SACK,)),
    Interop("interop.peer_has_none", "The peer knows no options: NewReno, a window of 64 KB.",
            peer={"net__ipv4__tcp_sack": 0, "net__ipv4__tcp_timestamps": 0, "net__ipv4__tcp_window_scaling": 0},
            missing=(SACK, f"tcp.flags.syn == 0 && {TIMESTAMPS}")),
    Interop("interop.host_has_none", "We know no options.",
            host={"net__ipv4__tcp_sack": 0, "net__ipv4__tcp_timestamps": 0, "net__ipv4__tcp_window_scaling": 0},
            missing=(SACK, f"tcp.flags.syn == 0 && {TIMESTAMPS}")),
    Interop("interop.no_timestamps", "SACK without timestamps.", host={"net__ipv4__tcp_timestamps": 0},
            shown=(SACK_PERMITTED, SACK), missing=(TIMESTAMPS,)),
    Interop("interop.ecn_bbr", "ECN and BBR, over loss.",
            host={"net__ipv4__tcp_ecn": 1, "net__ipv4__tcp_congestion_control": "bbr"},
            shown=("ip.dsfield.ecn == 2", SACK)),
)


def _register(interop: Interop) -> None:
    def run(context: Context) -> None:
        interop.run(context)

    run.__doc__ = interop.title
    case(interop.name, limit=150, kernel=False)(run)


for _interop in ALL:
    _register(_interop)
