"""UDP by the stack (USTACK_UDP=stack): real programs, both ways; processes that share a socket and die; what stays the kernel's."""

import json
import os
import random
import signal

from harness import Context, Lab, case, check, children_of, equal, wait_until

PYTHON = "/usr/bin/python3"
STACK = {"USTACK_UDP": "stack"}
PORT = 5300

#: Asks ADDRESS PORT COUNT times, one question after the other, and says how many answers were right.
_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
right = 0
for i in range(int(sys.argv[3])):
    question = b"%d " % i + bytes(range(250)) * (i % 20)
    s.sendto(question, (sys.argv[1], int(sys.argv[2])))
    try:
        while not (answer := s.recv(65536)).startswith(b"%d " % i): pass
        assert answer == question
        right += 1
    except TimeoutError:
        pass
print(right)
"""

#: Answers at ADDRESS PORT with what it was asked, in as many processes.
_ANSWER = """
import os, socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
print("bound", flush=True)
def serve():
    while True:
        data, sender = s.recvfrom(65536)
        s.sendto(data, sender)
def fork():
    if os.fork() == 0: serve()
workers = int(sys.argv[3])
if workers == 0: serve()
for _ in range(workers): fork()
while True:
    os.wait()
    fork()
"""


def answering(lab: Lab, *, on_host: bool, workers: int = 0, n: int = 1, address: str = ""):
    """A server, of the kernel's or under the library."""
    address = address or (lab.host_address(n) if on_host else lab.peer_address)
    command = [PYTHON, "-c", _ANSWER, address, PORT, workers]
    server = lab.host(*command, n=n, env=STACK, label=f"server{n}") if on_host else lab.peer(*command, label="server")
    server.wait_for_output("bound")
    return server


def wait_until_bound(lab: Lab) -> None:
    """Until a program on the kernel's side has the port."""
    wait_until(lambda: lab.peer("ss", "-Hlun", f"sport = :{PORT}", label="ss").ok().stdout.strip(), "the server")


def iperf3_both_ways(lab: Lab, address: str) -> None:
    """iperf3 -u sends and receives 20 Mbit/s; next to nothing is lost."""
    lab.peer("iperf3", "-s", "-B", address, label="iperf3 server")
    lab.wait_until_peer_listens(5201)
    for options in ([], ["-R"]):
        done = lab.host("iperf3", "-c", address, "-u", "-b", "20M", "-t", "1", "-J", *options, env=STACK).ok(30)
        total = json.loads(done.stdout)["end"]["sum"]
        check(total["packets"] > 1000 and total["lost_percent"] < 10, f"{options}: {total}")


def ask(lab: Lab, address: str, count: int = 200, **more):
    return lab.peer(PYTHON, "-c", _ASK, address, PORT, count, label="ask", **more)


@case("datagrams.server", kernel=False)
def server(context: Context) -> None:
    """A server under the library: 200 questions of up to 5 KB from the kernel."""
    lab = context.lab()
    answering(lab, on_host=True)
    equal(ask(lab, lab.host_address()).ok(60).stdout.strip(), "200", "right answers")


@case("datagrams.client", kernel=False)
def client(context: Context) -> None:
    """The same the other way round, over a cable without offloads, where the capture shows what was sent."""
    lab = context.lab(wire=True)
    capture = lab.capture()
    answering(lab, on_host=False)
    asked = lab.host(PYTHON, "-c", _ASK, lab.peer_address, PORT, 200, env=STACK, label="ask").ok(60)
    equal(asked.stdout.strip(), "200", "right answers")
    capture.stop()
    wrong = capture.tshark("udp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed")
    check(not wrong, f"wrong packets: {wrong}")
    check(len(capture.tshark("udp && ip.src == 192.0.2.2")) >= 200, "they didn't come from the host")


@case("datagrams.packet_link", kernel=False)
def packet_link(context: Context) -> None:
    """Both ways over AF_PACKET."""
    lab = context.lab("packet")
    answering(lab, on_host=True)
    equal(ask(lab, lab.host_address(), 50).ok(60).stdout.strip(), "50", "right answers")


@case("datagrams.two_hosts", kernel=False)
def two_hosts(context: Context) -> None:
    """Between two hosts of the library."""
    lab = context.lab("bridge", hosts=2)
    answering(lab, on_host=True, n=2)
    asked = lab.host(PYTHON, "-c", _ASK, lab.host_address(2), PORT, 100, env=STACK, label="ask").ok(60)
    equal(asked.stdout.strip(), "100", "right answers")


@case("datagrams.one_shot", kernel=False)
def one_shot(context: Context) -> None:
    """socat sends one line and ends, before it is known where the peer is: it arrives."""
    lab = context.lab()
    server = lab.peer("socat", "-u", f"UDP-RECV:{PORT},bind={lab.peer_address}", "STDOUT", label="server")
    wait_until_bound(lab)
    for number in range(3):
        text = context.directory / f"line{number}"
        text.write_text(f"line {number}\n")
        lab.host("socat", "-u", "STDIN", f"UDP-SENDTO:{lab.peer_address}:{PORT}", stdin=text, env=STACK).ok(20)
        server.wait_for_output(f"line {number}\n")


@case("datagrams.iperf", kernel=False)
def iperf(context: Context) -> None:
    """iperf3 -u sends and receives 20 Mbit/s; next to nothing is lost."""
    lab = context.lab()
    iperf3_both_ways(lab, lab.peer_address)


@case("datagrams.killed", kernel=False)
def killed(context: Context) -> None:
    """Four processes answer on one socket; one after the other is killed with -9: only questions on their way are lost."""
    lab = context.lab()
    master = answering(lab, on_host=True, workers=4)
    asked = [ask(lab, lab.host_address(), 12000) for _ in range(2)]
    chance = random.Random(1)
    kills = 0
    while any(process.running for process in asked) and kills < 150:
        workers = children_of(master.pid)
        if len(workers) < 4:
            continue
        os.kill(chance.choice(workers), signal.SIGKILL)
        kills += 1
        wait_until(lambda: len(children_of(master.pid)) == 4, "the next worker", 10)
    right = sum(int(process.ok(80).stdout) for process in asked)
    context.note(f"{kills} killed, {right} of 24000 questions answered")
    check(kills >= 20 and right >= 24000 - 2 * kills, f"{kills} killed, {right} of 24000 questions answered")
    equal(ask(lab, lab.host_address(), 50).ok(60).stdout.strip(), "50", "right answers afterwards")


_KERNELS = """
import socket, struct
def udp(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here, there = udp(), udp()
here.bind(("127.0.0.1", 0))
there.sendto(b"over the loopback", here.getsockname())
assert here.recvfrom(100) == (b"over the loopback", ("127.0.0.1", there.getsockname()[1]))
group = udp()
group.bind(("", 0))
group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1"))
many = udp()
many.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
many.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
own = udp()
own.bind(("192.0.2.2", 0))
try:
    own.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, bytes(8))
    raise AssertionError("a socket of the stack's joined a group")
except OSError:
    pass
"""


@case("datagrams.of_the_kernel", kernel=False)
def of_the_kernel(context: Context) -> None:
    """What is for the loopback or a group becomes a socket of the kernel's, unless it is bound to the host's address."""
    context.lab().host(PYTHON, "-c", _KERNELS, env=STACK).ok(20)


@case("datagrams.exec", kernel=False)
def exec_(context: Context) -> None:
    """A program outside can't have one: its calls fail, and the log says why."""
    lab = context.lab()
    log = context.directory / "log"
    program = """
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.0.2.2", 0))
os.set_inheritable(s.fileno(), True)
os.execv(sys.executable, [sys.executable, "-c", '''
import os, sys
try: os.write(int(sys.argv[1]), b"x"); print("written")
except OSError: print("refused")
''', str(s.fileno())])
"""
    done = lab.host(PYTHON, "-c", program, env=STACK | {"USTACK_LOG": f"warning:{log}"}).ok(20)
    equal(done.stdout.strip(), "refused", "a write to the inherited number")
    check("UDP" in log.read_text(), "the log doesn't tell")


@case("datagrams.ipv6", kernel=False)
def ipv6(context: Context) -> None:
    """A server on :: has both families, and IPv6 the other way round; up to 5 KB, by a cable whose capture is clean."""
    lab = context.lab(wire=True, ipv6=True)
    capture = lab.capture()
    server_ = answering(lab, on_host=True, workers=2, address="::")
    for address in (lab.host6_address(), lab.host_address()):
        equal(ask(lab, address, 100).ok(60).stdout.strip(), "100", f"right answers of {address}")
    server_.end()
    answering(lab, on_host=False, address=lab.peer6_address)
    asked = lab.host(PYTHON, "-c", _ASK, lab.peer6_address, PORT, 100, env=STACK, label="ask").ok(60)
    equal(asked.stdout.strip(), "100", "right answers of the peer")
    capture.stop()
    wrong = capture.tshark("udp.checksum.status == 0 || ip.checksum.status == 0 || icmpv6.checksum.status == 0 || _ws.malformed")
    check(not wrong, f"wrong packets: {wrong}")
    # Of all twenty sizes six need no fragments.
    equal(len(capture.tshark(f"udp.length < 1460 && ipv6.src == {lab.host6_address()}")), 60, "small ones from the host")


@case("datagrams.ipv6_packet_link", kernel=False)
def ipv6_packet_link(context: Context) -> None:
    """Over AF_PACKET both ways, and refused where nobody listens."""
    lab = context.lab("packet", ipv6=True)
    answering(lab, on_host=True, address=lab.host6_address())
    equal(ask(lab, lab.host6_address(), 50).ok(60).stdout.strip(), "50", "right answers")
    refused = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect((sys.argv[1], 9))
s.send(b"x")
try: s.recv(1); print("received")
except ConnectionRefusedError: print("refused")
"""
    for start, address in ((lab.host, lab.peer6_address), (lab.peer, lab.host6_address())):
        env = {"env": STACK} if start == lab.host else {}
        equal(start(PYTHON, "-c", refused, address, label="refused", **env).ok(20).stdout.strip(), "refused", f"what {address} says")


@case("datagrams.ipv6_programs", kernel=False)
def ipv6_programs(context: Context) -> None:
    """socat sends a line; iperf3 -u sends and receives 20 Mbit/s."""
    lab = context.lab(ipv6=True)
    server_ = lab.peer("socat", "-u", f"UDP6-RECV:{PORT}", "STDOUT", label="server")
    wait_until_bound(lab)
    text = context.directory / "line"
    text.write_text("a line\n")
    lab.host("socat", "-u", "STDIN", f"UDP6-SENDTO:[{lab.peer6_address}]:{PORT}", stdin=text, env=STACK).ok(20)
    server_.wait_for_output("a line\n")
    iperf3_both_ways(lab, lab.peer6_address)
