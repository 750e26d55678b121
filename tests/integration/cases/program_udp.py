"""Name servers that answer over UDP by the stack, and dig that asks: run where they are installed, all by scripts/compat."""

import functools

from cases.program_matrix import program
from cases.program_services import _PORT, configuration, unbound_at, zone_in
from harness import Context, Lab, Skipped, equal, need_root, wait_until

_STACK = {"USTACK_UDP": "stack"}
_NAME, _ADDRESS = "host.test", "192.0.2.77"


def by_udp(name: str, executable: str):
    """Registers program.NAME, which a program that has joined another one's host doesn't take part in."""

    def register(function):
        @functools.wraps(function)
        def run(context: Context, lab: Lab) -> None:
            if context.joined:
                raise Skipped("UDP is the kernel's in programs that have joined a host")
            need_root()
            context.open_to_all()
            function(context, lab)

        return program(name, executable, "dig", ipv6=True)(run)

    return register


def dig(start, address: str, label: str, **more):
    return start("dig", "+short", "+time=2", "+tries=3", "-p", _PORT, f"@{address}", _NAME, "A", label=label, **more)


def answered(lab: Lab, address: str) -> bool:
    """The kernel's dig gets an answer; before there is a server it fails."""
    asked = dig(lab.peer, address, "first")
    return asked.wait(20) == 0 and asked.stdout.strip() == _ADDRESS


def answers(lab: Lab, *server, questions: int = 40, ipv6: bool = False) -> None:
    """A server under the library is asked by the kernel's dig, some questions at a time, `ipv6`: by both families."""
    process = lab.host(*server, env=_STACK, label="server")
    wait_until(lambda: answered(lab, lab.host_address()), "the first answer", 20)
    for address in [lab.host_address()] + [lab.host6_address()] * ipv6:
        for _ in range(questions // 8):
            for asked in [dig(lab.peer, address, f"dig{number}") for number in range(8)]:
                equal(asked.ok(20).stdout.strip(), _ADDRESS, f"the answer of {address}")
    process.end()


@by_udp("unbound_udp", "unbound")
def unbound_udp(context: Context, lab: Lab):
    """server: over UDP, two threads, bound to every address, of IPv6 too"""
    answers(lab, *unbound_at(context, "0.0.0.0", "::0"), ipv6=True)


@by_udp("bind9_udp", "named")
def bind9_udp(context: Context, lab: Lab):
    """server: over UDP"""
    zones = zone_in(context)
    answers(lab, "named", "-g", "-u", "nobody", "-c", configuration(context, f"""
options {{
  directory "{zones}"; listen-on port {_PORT} {{ {lab.host_address()}; }}; listen-on-v6 {{ none; }}; recursion no;
  pid-file none; session-keyfile none; dnssec-validation no;
}};
controls {{ }};
zone "test" {{ type primary; file "{zones}/zone"; }};
"""))


@by_udp("dnsmasq", "dnsmasq")
def dnsmasq(_context: Context, lab: Lab):
    """server: over UDP, tells its interfaces apart by IP_PKTINFO and IPV6_PKTINFO"""
    answers(lab, "dnsmasq", "-k", "-p", _PORT, "-R", "-h", "-u", "root", f"--address=/{_NAME}/{_ADDRESS}", "--conf-file=/dev/null",
            "--pid-file=", ipv6=True)


@by_udp("nsd", "nsd")
def nsd(context: Context, lab: Lab):
    """server: over UDP, in processes of its own"""
    zones = zone_in(context)
    answers(lab, "nsd", "-d", "-c", configuration(context, f"""
server:
  ip-address: {lab.host_address()}
  port: {_PORT}
  username: nobody
  server-count: 2
  database: ""
  zonesdir: "{zones}"
  pidfile: ""
  xfrdir: "{zones}"
  xfrdfile: "{zones}/transfers"
  zonelistfile: "{zones}/list"
remote-control:
  control-enable: no
zone:
  name: "test"
  zonefile: "zone"
"""))


@by_udp("knot_udp", "knotd")
def knot_udp(context: Context, lab: Lab):
    """server: over UDP, receives several at a time"""
    zones = zone_in(context)
    answers(lab, "knotd", "-c", configuration(context, f"""
server:
  rundir: "{zones}"
  listen: {lab.host_address()}@{_PORT}
database:
  storage: "{zones}"
zone:
  - domain: test
    file: "{zones}/zone"
"""))


@by_udp("dig", "unbound")
def dig_(context: Context, lab: Lab):
    """client: asks a kernel's server over UDP, by both families"""
    server = lab.peer(*unbound_at(context, lab.peer_address, lab.peer6_address), label="server")
    wait_until(lambda: answered(lab, lab.peer_address), "the first answer", 20)
    for address in (lab.peer_address, lab.peer6_address) * 3:
        equal(dig(lab.host, address, "dig", env=_STACK).ok(20).stdout.strip(), _ADDRESS, f"the answer of {address}")
    server.end()
