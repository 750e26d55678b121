"""A tcpdump capture on a laboratory's wire, judged by tshark."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

from .case import Failed, check

#: What is dissected: nothing above TCP, since a random payload often looks like a broken something.
_PROTOCOLS = {"frame", "eth", "ethertype", "arp", "ip", "icmp", "tcp", "udp", "ipv6", "icmpv6", "data"}
_lock = threading.Lock()


def _profile(directory: pathlib.Path) -> pathlib.Path:
    """A tshark configuration that knows only those protocols."""
    path = directory / "tshark-profile"
    with _lock:
        if not (path / "disabled_protos").exists():
            path.mkdir(exist_ok=True)
            listing = subprocess.run(["tshark", "-G", "protocols"], capture_output=True, text=True, check=True).stdout
            names = [line.split("\t")[2] for line in listing.splitlines() if line.count("\t") >= 2]
            disabled = [name for name in names if name not in _PROTOCOLS and not name.startswith("_ws.")]
            (path / "disabled_protos").write_text("\n".join(disabled) + "\n")
    return path


class Capture:
    _FIELDS = ("frame.number", "frame.len", "ip.src", "ip.dst", "tcp.srcport", "tcp.dstport", "tcp.flags.str",
               "ip.checksum.status", "tcp.checksum.status", "icmp.checksum.status", "_ws.malformed",
               "_ws.expert.message")
    #: A frame that no run should show. tcp.checksum.ffff: the kernel, when it completes a checksum for the wire,
    #: writes 0 as 0xffff (CSUM_MANGLED_0, right for UDP); tshark has an opinion on that, receivers don't.
    _SUSPICIOUS = ("((ip.checksum.status == 0 || tcp.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || "
                   "udp.checksum.status == 0 || _ws.expert.severity == error) && !tcp.checksum.ffff) || _ws.malformed")

    def __init__(self, lab):
        self.lab = lab
        for tool in ("tcpdump", "tshark"):
            if not shutil.which(tool):
                raise Failed(f"{tool} is not installed (scripts/install-deps)")
        self.path = lab.context.directory / f"{lab.name}.pcap"
        # -Z root: it would give up root, and with it the directory; -B: room for a burst while we are scheduled away.
        self.process = lab.peer("tcpdump", "-i", lab.wire_device, "-Z", "root", "-B", "32768", "--immediate-mode",
                                "-U", "-s", "0", "-w", self.path, label="tcpdump")
        self.process.wait_for_output("listening on", stream="stderr")

    def stop(self) -> None:
        if not self.process.running:
            return
        # What was sent may still be on its way to tcpdump's ring: wait until the file rests.
        size = -1
        deadline = time.monotonic() + 5
        while (now := os.path.getsize(self.path)) != size and time.monotonic() < deadline:
            size = now
            time.sleep(0.15)
        self.process.signal(signal.SIGINT)
        self.process.wait(10)

    def tshark(self, display_filter: str, fields: tuple[str, ...] = ("frame.number",)) -> list[list[str]]:
        """The fields of the frames that pass the filter."""
        self.stop()
        command = ["tshark", "-n", "-r", str(self.path), "-Y", display_filter, "-T", "fields", "-E", "separator=/t"]
        for preference in ("tcp.check_checksum", "ip.check_checksum", "udp.check_checksum"):
            command += ["-o", f"{preference}:TRUE"]
        for field in fields:
            command += ["-e", field]
        profile = _profile(self.lab.context.shared)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env=os.environ | {"WIRESHARK_CONFIG_DIR": str(profile), "HOME": str(profile)})
        if done.returncode != 0:
            raise Failed(f"tshark failed: {done.stderr}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def judge(self, *, resets: bool = False, refusals: bool = False, address: str | None = None, both_ways: bool = True) -> None:
        """Fails on a bad checksum, a malformed packet, an error in tshark's eyes, or (unless `resets`) a reset.

        `refusals`: the answer to a SYN for a port where nobody listens (yet) is no unexpected reset.

        Also when the capture doesn't show data of the host in question at all: an empty file proves nothing.
        """
        address = address or self.lab.host_address()
        suspicious = self._SUSPICIOUS
        if refusals:
            # RFC 9293, 3.10.7.1: sequence number 0, because the SYN had no acknowledgment.
            suspicious += " || (tcp.flags.reset == 1 && !(tcp.flags.ack == 1 && tcp.seq_raw == 0))"
        elif not resets:
            suspicious += " || tcp.flags.reset == 1"
        bad = [row for row in self.tshark(suspicious, self._FIELDS) if not self._answers_for_a_socket_that_is_gone(row)]
        what = "bad packets" if resets else "bad packets or unexpected resets"
        check(not bad, f"{self.path}: {len(bad)} {what}, the first:\n" + self._table(bad))
        if both_ways:
            for direction in ("src", "dst"):
                # Anything longer than the longest TCP header on Ethernet has data.
                check(self.has_frame(f"tcp and {direction} host {address} and greater 115"),
                      f"{self.path}: no data with {direction} {address} was captured")

    def _answers_for_a_socket_that_is_gone(self, row: list[str]) -> bool:
        """A reset that says only that its sender has forgotten the connection (RFC 9293, 3.10.7.1: a bare RST that
        answers a segment with an ACK): both ends had sent their FINs, so the segment was a late duplicate; or the
        sender had asked for a connection and has ended meanwhile. That one has sent first SYNs alone, and says no
        word more: one that resets its own half-open connection by mistake sends its SYN again, and one that resets
        a connection that it was asked for has sent a SYN-ACK."""
        values = dict(zip(self._FIELDS, row))
        if not values["tcp.flags.str"].strip("·") == "R":
            return False
        number, yes = int(values["frame.number"]), ("1", "True")
        # Its two ends are told apart by their ports, in either family.
        found = self.tshark(f"frame.number == {number}", ("tcp.stream",))
        stream = self.tshark(f"tcp.stream == {found[0][0]}",
                             ("frame.number", "tcp.srcport", "tcp.flags.fin", "tcp.flags.syn", "tcp.flags.ack",
                              "tcp.flags.reset"))
        closed = {source for at, source, fin, *_ in stream if int(at) < number and fin in yes}
        own = [flags for flags in stream if flags[1] == values["tcp.srcport"]]
        only_asked = all(syn in yes and ack not in yes for at, _, _, syn, ack, _ in own if int(at) < number)
        silent_since = all(reset in yes for at, *_, reset in own if int(at) > number)
        return len(closed) == 2 or (only_asked and silent_since)

    def has_frame(self, expression: str) -> bool:
        """Whether a frame matches the capture filter (much quicker than tshark)."""
        self.stop()
        done = subprocess.run(["tcpdump", "-n", "-r", str(self.path), "-c", "1", "-Z", "root", expression],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failed(f"tcpdump failed: {done.stderr}")
        return bool(done.stdout.strip())

    @classmethod
    def _table(cls, rows: list[list[str]]) -> str:
        return "\n".join("  " + ", ".join(f"{name}={value}" for name, value in zip(cls._FIELDS, row) if value)
                         for row in rows[:10])

    def connections(self) -> int:
        """How many connections were opened (first SYNs)."""
        seen = self.tshark("tcp.flags.syn == 1 && tcp.flags.ack == 0",
                           ("ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "tcp.seq_raw"))
        return len({tuple(row) for row in seen})

    def check_no_frame_above(self, size: int) -> None:
        check(not self.has_frame(f"greater {size + 1}"), f"{self.path}: a frame larger than {size} bytes was on the wire")
