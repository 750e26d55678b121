"""ping and unreachables."""

import re

from harness import Context, case, check, equal

PYTHON = "/usr/bin/python3"


@case("ping.kernel_to_host")
def ping(context: Context):
    """A host answers the kernel's ping while its program waits in accept: small, a full frame, and fragmented."""
    lab = context.lab(wire=True)
    listener = lab.host("nc.openbsd", "-l", lab.host_address(), 5000)
    lab.wait_for_carrier()
    capture = lab.capture()
    for size in (0, 56, 1472, 1473, 8000, 40000):
        done = lab.peer("ping", "-n", "-c", "5", "-i", "0.02", "-W", "2", "-s", size, lab.host_address()).ok(20)
        check(re.search(r"5 packets transmitted, 5 received, 0% packet loss", done.stdout), done.describe())
        check("wrong data" not in done.stdout, done.describe())
    check(listener.running, "the listener has ended")
    capture.judge(both_ways=False)
    replies = capture.tshark("icmp.type == 0")
    check(len(replies) >= 30, f"only {len(replies)} replies were captured")


@case("ping.flood")
def ping_flood(context: Context):
    """2,000 pings as fast as they are answered."""
    lab = context.lab()
    lab.host("nc.openbsd", "-l", lab.host_address(), 5000)
    lab.wait_for_carrier()
    done = lab.peer("ping", "-n", "-q", "-f", "-c", "2000", lab.host_address()).ok(30)
    check("2000 received" in done.stdout, done.describe())
    round_trip = re.search(r"= [0-9.]+/([0-9.]+)/", done.stdout)
    context.note(f"round trip {round_trip.group(1) if round_trip else '?'} ms on average")


def connect_error(lab, address: str, port: int, env=None, timeout: float = 30):
    """The errno's name of a connect(), and how long it took."""
    script = (
        "import errno, socket, sys, time\n"
        "started = time.monotonic()\n"
        "try:\n"
        f"    socket.create_connection(({address!r}, {port}))\n"
        "    name = 'connected'\n"
        "except OSError as error:\n"
        "    name = errno.errorcode.get(error.errno, repr(error))\n"
        "print(name, time.monotonic() - started)\n")
    done = lab.host(PYTHON, "-c", script, env=env, label="connect").ok(timeout)
    name, seconds = done.stdout.split()
    return name, float(seconds)


@case("unreachable.closed_port")
def closed_port(context: Context):
    """A closed port: ECONNREFUSED at once, curl ends with 7, and nc says so."""
    lab = context.lab()
    name, seconds = connect_error(lab, lab.peer_address, 9)
    equal(name, "ECONNREFUSED", "errno")
    check(seconds < 1, f"it took {seconds:.1f} s")
    curl = lab.host("curl", "-sS", "--max-time", "10", f"http://{lab.peer_address}:9/")
    equal(curl.wait(15), 7, "curl's status")
    netcat = lab.host("nc.openbsd", "-v", "-w", "5", lab.peer_address, "9")
    equal(netcat.wait(15), 1, "nc's status")
    check("refused" in netcat.stderr, netcat.describe())


@case("unreachable.closed_port_of_host")
def closed_port_of_host(context: Context):
    """A kernel client that knocks at a host's closed port is refused."""
    lab = context.lab()
    lab.host("nc.openbsd", "-l", lab.host_address(), 5000)
    lab.wait_for_carrier()
    curl = lab.peer("curl", "-sS", "--max-time", "10", f"http://{lab.host_address()}:81/")
    equal(curl.wait(15), 7, "curl's status")
    check(curl.seconds() < 3, "it took too long")


@case("unreachable.nobody_answers_arp")
def nobody_answers_arp(context: Context):
    """An address on the link that nobody has: EHOSTUNREACH within seconds, as curl says it."""
    lab = context.lab()
    name, seconds = connect_error(lab, "192.0.2.77", 80)
    equal(name, "EHOSTUNREACH", "errno")
    check(1 < seconds < 6, f"it took {seconds:.1f} s, not about three")
    curl = lab.host("curl", "-sS", "--max-time", "15", "http://192.0.2.77/")
    equal(curl.wait(20), 7, "curl's status")
    check("No route to host" in curl.stderr or "Couldn't connect" in curl.stderr, curl.describe())


@case("unreachable.router_says_so")
def router_says_so(context: Context):
    """ICMP host, network and port unreachable from the gateway fail the connect with the kernel's errnos."""
    lab = context.lab()
    lab.peer_settings(net__ipv4__icmp_ratelimit=0)
    for prefix in ("203.0.113.0/28", "203.0.113.16/28"):
        kind = "unreachable" if prefix.startswith("203.0.113.0") else "prohibit"
        lab.peer("ip", "route", "add", kind, prefix).ok()
    for address in ("203.0.113.1", "203.0.113.17"):
        name, seconds = connect_error(lab, address, 80)
        equal(name, "EHOSTUNREACH", f"errno of {address}")
        check(seconds < 2, f"it took {seconds:.1f} s")
    script = (
        "import socket\n"
        "s = socket.socket()\n"
        "try:\n"
        "    s.connect(('203.0.113.1', 80))\n"
        "except OSError:\n"
        "    print(s.recvfrom(64, socket.MSG_ERRQUEUE)[1])\n")
    equal(lab.host(PYTHON, "-c", script).ok(20).stdout.strip(), "('203.0.113.1', 80)", "the report is about")
    lab.peer("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }; "
             "add rule inet t c tcp dport 7000 reject with icmp port-unreachable; "
             "add rule inet t c tcp dport 7001 reject with tcp reset").ok()
    for port in (7000, 7001):
        name, _ = connect_error(lab, lab.peer_address, port)
        equal(name, "ECONNREFUSED", f"errno of port {port}")


@case("unreachable.no_route")
def no_route(context: Context):
    """Without a gateway, a destination beyond the link: ENETUNREACH at once."""
    lab = context.lab()
    if context.kernel_mode:
        lab.in_host_namespace("ip", "route", "del", "default").ok()
    name, seconds = connect_error(lab, "203.0.113.1", 80, env={"USTACK_GATEWAY": ""})
    equal(name, "ENETUNREACH", "errno")
    check(seconds < 1, f"it took {seconds:.1f} s")


@case("unreachable.black_hole")
def black_hole(context: Context):
    """A destination that never answers: ETIMEDOUT after the retransmissions of the SYN; curl's own limit works."""
    lab = context.lab()
    lab.peer("ip", "route", "add", "blackhole", "203.0.113.0/24").ok()
    env = lab.host_sysctl(net__ipv4__tcp_syn_retries=1)
    name, seconds = connect_error(lab, "203.0.113.1", 80, env=env)
    equal(name, "ETIMEDOUT", "errno")
    check(2.5 < seconds < 5, f"it took {seconds:.1f} s, not 1 + 2")
    curl = lab.host("curl", "-sS", "--connect-timeout", "1", "http://203.0.113.1/")
    equal(curl.wait(10), 28, "curl's status")
    check(curl.seconds() < 4, f"curl took {curl.seconds():.1f} s")
