"""The AF_PACKET link: a host of its own on an interface that the kernel goes on using."""

import subprocess

from cases.http_clients import fetch
from cases.servers import http_server
from harness import Context, Nginx, case, check, equal, wait_until

PYTHON = "/usr/bin/python3"
MEGABYTE = 1_000_000


@case("packet.curl", kernel=False)
def packet_curl(context: Context):
    """curl fetches and puts over an AF_PACKET link; the capture is clean: no reset by the kernel that shares it."""
    lab = context.lab("packet", wire=True)
    nginx = Nginx(lab)
    path = context.file(5 * MEGABYTE)
    url = nginx.serve(path)
    capture = lab.capture()
    fetch(context, lab, url, path)
    capture.judge()


@case("packet.bulk", kernel=False)
def packet_bulk(context: Context):
    """100 MB each way, with superframes."""
    lab = context.lab("packet")
    path = context.file(100 * MEGABYTE)
    tool = [PYTHON, context.tool("transfer.py")]
    for number, (start_receiver, start_sender, address) in enumerate((
            (lab.peer, lab.host, lab.peer_address), (lab.host, lab.peer, lab.host_address()))):
        arrived = context.directory / "arrived"
        receiver = start_receiver(*tool, "listen", address, 5000 + number, "--receive", arrived, label="receiver")
        receiver.wait_for_output("listening")
        start_sender(*tool, "connect", address, 5000 + number, "--send", path, label="sender").ok(60)
        receiver.ok(30)
        equal(context.sha256(arrived), context.sha256(path), "sha256 of what arrived")


@case("packet.server", kernel=False)
def packet_server(context: Context):
    """A server under the library beside one of the kernel on the same port of the same interface."""
    lab = context.lab("packet")
    http_server(context, lab)
    path = context.file(100_000)
    lab.in_host_namespace(PYTHON, "-m", "http.server", "8000", "--bind", "192.0.2.101", "--directory",
                          context.directory, label="kernel-server").wait_for_output("Serving")
    (context.directory / "kernel.txt").write_text("the kernel's\n")
    curl = ["curl", "-sS", "--fail", "--max-time", "20"]
    target = context.directory / "got"
    lab.peer(*curl, "-o", target, f"http://{lab.host_address()}:8000/{path.name}").ok()
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived")
    equal(lab.peer(*curl, "http://192.0.2.101:8000/kernel.txt").ok().stdout, "the kernel's\n", "the kernel's answer")


@case("packet.shared_mac", kernel=False)
def packet_shared_mac(context: Context):
    """Under the interface's own MAC address, for networks that allow a port only one."""
    lab = context.lab("packet")
    link = lab.in_host_namespace("ip", "-o", "link", "show", "dev", "eth0", label="mac").ok().stdout
    mac = link.split("link/ether ")[1].split()[0]
    nginx = Nginx(lab)
    path = context.file(MEGABYTE)
    url = nginx.serve(path)
    target = context.directory / "got"
    lab.host("curl", "-sS", "--fail", "--max-time", "20", "-o", target, url, env={"USTACK_MAC": mac}).ok()
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived")
    neighbours = lab.peer("ip", "neighbour", "show", lab.host_address(), label="neighbours").ok().stdout
    check(mac in neighbours, f"the peer knows {neighbours!r}, not {mac}")


@case("packet.link_down", kernel=False)
def packet_link_down(context: Context):
    """The interface goes down and comes up again in the middle of a connection, which goes on."""
    lab = context.lab("packet")
    peer = lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer")
    peer.wait_for_output("ready")
    program = (f"import socket\nc = socket.create_connection(({lab.peer_address!r}, 7001))\n"
               "c.sendall(b'1'); print(c.recv(1), flush=True)\ninput()\n"
               "c.sendall(b'2'); print(c.recv(1), flush=True)\n")
    running = lab.host(PYTHON, "-u", "-c", program, stdin=subprocess.PIPE, label="client")
    running.wait_for_output("b'1'")
    lab.in_host_namespace("ip", "link", "set", "dev", "eth0", "down").ok()
    running.stdin.write(b"\n")
    running.stdin.flush()
    lab.in_host_namespace("ip", "link", "set", "dev", "eth0", "up").ok()
    running.ok(30)
    check("b'2'" in running.stdout, "the second answer is missing")


@case("packet.device_changes", kernel=False)
def packet_device_changes(context: Context):
    """The interface gets another MTU, and another MAC address that the host shares: the connection goes on."""
    lab = context.lab("packet")
    lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer").wait_for_output("ready")
    link = lab.in_host_namespace("ip", "-o", "link", "show", "dev", "eth0", label="mac").ok().stdout
    mac = link.split("link/ether ")[1].split()[0]
    log = context.directory / "log"
    program = f"""
import socket
c = socket.create_connection(({lab.peer_address!r}, 7001))
while True:
    c.sendall(b'x' * 100000)
    left = 100000
    while left:
        left -= len(c.recv(left))
    print(c.getsockopt(socket.IPPROTO_IP, 14), flush=True)  # IP_MTU
    if not input():
        break
"""
    running = lab.host(PYTHON, "-u", "-c", program, stdin=subprocess.PIPE, label="client",
                       env={"USTACK_MAC": mac, "USTACK_LOG": f"info:{log}"})
    running.wait_for_output("1500")
    changes = (("mtu", "1000", "MTU is 1000", "1000"), ("address", "02:00:5e:10:00:01", "another MAC address", "1000"),
               ("mtu", "1400", "MTU is 1400", "1400"))
    for what, value, told, expected in changes:
        lab.in_host_namespace("ip", "link", "set", "dev", "eth0", what, value).ok()
        if what == "mtu":  # of the cable: what the peer sends must fit, too
            lab.peer("ip", "link", "set", "dev", lab.wire_device, "mtu", value).ok()
        wait_until(lambda told=told: told in log.read_text(), f"the log says {told!r}")
        before = running.stdout.count(expected)
        running.stdin.write(b"more\n")
        running.stdin.flush()
        wait_until(lambda: running.stdout.count(expected) > before, f"an answer, and IP_MTU {expected}")
    neighbours = lab.peer("ip", "neighbour", "show", lab.host_address(), label="neighbours").ok().stdout
    check("02:00:5e:10:00:01" in neighbours, f"the peer knows {neighbours!r}")
    running.stdin.write(b"\n")
    running.stdin.flush()
    running.ok(10)


@case("packet.errors", kernel=False)
def packet_errors(context: Context):
    """No such interface, one that is no Ethernet, no right, an address that another program has: told on stderr."""
    lab = context.lab("packet")
    curl = ["curl", "-sS", "--max-time", "5", f"http://{lab.peer_address}/"]

    def fails(text: str, env=None, before=()):
        process = lab.host(*curl, env=env or {}, before=before)
        check(process.wait(20) != 0, "curl has succeeded")
        check(text in process.stderr, f"{text!r} is not in {process.stderr!r}")

    fails("there is no interface nosuch0", {"USTACK_LINK": "packet:nosuch0"})
    fails("not an Ethernet one", {"USTACK_LINK": "packet:lo"})
    fails("CAP_NET_RAW is missing", before=["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"])
    first = lab.host("nc.openbsd", "-l", lab.host_address(), "5000")
    lab.peer("ping", "-n", "-c", "1", "-W", "10", lab.host_address()).ok()
    fails("in use by another program under libustack; choose another one in USTACK_ADDR; it is configured otherwise",
          {"USTACK_SYSCTL": "net.ipv4.tcp_sack=0"})
    check(first.running, "the first program has ended")
