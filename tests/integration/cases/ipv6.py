"""IPv6: hosts that have such addresses beside those of IPv4, on every link, with programs that know both."""

import os
import pathlib
import re
import signal

from cases.http_clients import fetch
from harness import Context, Lab, Nginx, case, check, counters_in, equal, need_program, need_root, wait_until

PYTHON = "/usr/bin/python3"
MEGABYTE = 1_000_000


def serve(lab: Lab, path: pathlib.Path, *, n: int = 1, port: int = 8000, bind: str = "::", **more):
    """python3 -m http.server under the library, on all addresses."""
    server = lab.host(PYTHON, "-m", "http.server", port, "--bind", bind, "--directory", path.parent, n=n,
                      label=f"server-{n}", **more)
    lab.wait_until_listening(port, lab.host6_address(n))
    return server


def fetches(context: Context, start, address: str, path: pathlib.Path, port: int = 8000, **more) -> None:
    """curl from an address of either family; the content is checked."""
    target = context.directory / "got"
    host = f"[{address}]" if ":" in address else address
    start("curl", "-sS", "--fail", "--max-time", "40", "-o", target, f"http://{host}:{port}/{path.name}",
          label=f"fetch {address}", **more).ok(45)
    equal(context.sha256(target), context.sha256(path), f"sha256 of what came from {address}")
    target.unlink()


@case("ipv6.client")
def client(context: Context):
    """curl, wget and nc fetch over IPv6; the capture is clean, and nothing goes over IPv4."""
    lab = context.lab(wire=True, ipv6=True)
    path = context.file(5 * MEGABYTE)
    url = Nginx(lab, ipv6=True).serve(path)
    capture = lab.capture()
    fetch(context, lab, url, path)
    target = context.directory / "by-wget"
    lab.host("wget", "-q", "-6", "-O", target, url).ok(30)
    equal(context.sha256(target), context.sha256(path), "sha256 of what wget has got")
    request = f"GET /{path.name} HTTP/1.0\r\n\r\n"
    answer = context.directory / "by-nc"
    lab.host("sh", "-c", f"printf '{request}' | nc.openbsd -6 {lab.peer6_address} 80 > {answer}").ok(40)
    check(answer.read_bytes().endswith(path.read_bytes()), "nc's answer isn't the file")
    capture.judge(address=lab.host6_address())
    check(not capture.has_frame("ip and tcp"), "there was TCP over IPv4")


@case("ipv6.server")
def server(context: Context):
    """nginx with three workers on [::]: both families, 127.0.0.1 and ::1; one worker is killed under load."""
    need_root()
    lab = context.lab(ipv6=True)
    path = context.file(100_000)
    nginx = Nginx(lab, on_host=True, workers=3, ipv6=True, port=8000)
    nginx.serve(path)
    for start, address in ((lab.peer, lab.host6_address()), (lab.peer, lab.host_address()),
                           (lab.in_host_namespace, "127.0.0.1"), (lab.in_host_namespace, "::1")):
        fetches(context, start, address, path)
    addresses = {line.split()[0] for line in nginx.requests()}
    check(lab.peer6_address in addresses and "::ffff:" + lab.peer_address in addresses,
          f"nginx has seen {addresses}")
    load = lab.peer("ab", "-q", "-n", "4000", "-c", "16", "-r", f"http://[{lab.host6_address()}]:8000/{path.name}", label="ab")
    workers = [int(pid) for pid in lab.in_host_namespace("pgrep", "-P", nginx.process.pid, label="pgrep").ok().stdout.split()]
    os.kill(workers[0], signal.SIGKILL)
    load.ok(60)
    failed = int(re.search(r"Failed requests:\s+(\d+)", load.stdout).group(1))
    check(failed <= 16, f"{failed} requests have failed")
    fetches(context, lab.peer, lab.host6_address(), path)


@case("ipv6.behind_gateway")
def behind_gateway(context: Context):
    """A far server through the gateway, also by the gateway's link-local address; one that isn't there is told."""
    lab = context.lab(ipv6=True)
    path = context.file(MEGABYTE)
    lab.peer(PYTHON, "-m", "http.server", "8000", "--bind", lab.far6_address, "--directory", path.parent,
             label="server").wait_for_output("Serving")
    fetches(context, lab.host, lab.far6_address, path)
    if not context.kernel_mode:
        shown = lab.peer("ip", "-6", "-o", "address", "show", "scope", "link", label="ip").ok().stdout
        router = shown.split("inet6 ")[1].split("/")[0]
        fetches(context, lab.host, lab.far6_address, path,
                env={"USTACK_GATEWAY": f"{lab.peer_address},{router}"})
    script = "import errno, socket, sys\ntry: socket.create_connection((sys.argv[1], 9), 20)\nexcept OSError as e: print(errno.errorcode[e.errno])"
    for address, told in (("2001:db8:77::1", "ENETUNREACH"), (lab.peer6_address, "ECONNREFUSED"),
                          ("2001:db8::77", "EHOSTUNREACH")):
        equal(lab.host(PYTHON, "-c", script, address).ok(30).stdout.strip(), told, f"what {address} comes to")


@case("ipv6.link_local", kernel=False)
def link_local(context: Context):
    """Addresses of the link only, with the device's name as their scope; without one they are refused."""
    lab = context.lab("packet", ipv6=True)
    path = context.file(100_000)
    lab.peer(PYTHON, "-m", "http.server", "8000", "--bind", "::", "--directory", path.parent,
             label="server").wait_for_output("Serving")
    shown = lab.peer("ip", "-6", "-o", "address", "show", "dev", "veth0", "scope", "link", label="ip").ok().stdout
    router = shown.split("inet6 ")[1].split("/")[0]
    fetches(context, lab.host, f"{router}%25eth0", path)
    curl = lab.host("curl", "-sS", "--max-time", "10", f"http://[{router}]:8000/{path.name}")
    check(curl.wait(15) != 0, "an address of a link, nobody knows of which, was reached")
    script = ("import socket, sys\ns = socket.create_server(('::', 9000), family=socket.AF_INET6)\n"
              "print('ready', flush=True)\nc, peer = s.accept()\nprint(peer[0], peer[3] == socket.if_nametoindex('eth0'),"
              "c.getsockname()[0], flush=True)\nc.close()")
    server = lab.host(PYTHON, "-c", script, label="listener", env={"USTACK_LOG": "info"})
    server.wait_for_output("ready")
    own = re.search(r"fe80::[0-9a-f:]+", server.stderr).group(0)
    lab.peer("nc.openbsd", "-6", "-z", f"{own}%veth0", "9000").ok(15)
    server.ok(15)
    equal(server.stdout.split()[1:], [router, "True", own], "what the server has seen")


@case("ipv6.packet", kernel=False)
def packet(context: Context):
    """On an interface that the kernel goes on using with an address of its own, under the host's and its MAC address."""
    lab = context.lab("packet", wire=True, ipv6=True)
    path = context.file(5 * MEGABYTE)
    url = Nginx(lab, ipv6=True).serve(path)
    capture = lab.capture()
    fetch(context, lab, url, path)
    serve(lab, path, bind=lab.host6_address())
    fetches(context, lab.peer, lab.host6_address(), path)
    lab.in_host_namespace(PYTHON, "-m", "http.server", "8000", "--bind", "2001:db8::101", "--directory", path.parent,
                          label="kernels").wait_for_output("Serving")
    fetches(context, lab.peer, "2001:db8::101", path)
    capture.judge(address=lab.host6_address(), refusals=True)


@case("ipv6.packet_shared_mac", kernel=False)
def packet_shared_mac(context: Context):
    """Under the interface's own MAC address the addresses decide what is the host's."""
    lab = context.lab("packet", ipv6=True)
    path = context.file(MEGABYTE)
    link = lab.in_host_namespace("ip", "-o", "link", "show", "dev", "eth0", label="mac").ok().stdout
    mac = link.split("link/ether ")[1].split()[0]
    serve(lab, path, env={"USTACK_MAC": mac})
    for address in (lab.host6_address(), lab.host_address()):
        fetches(context, lab.peer, address, path)
    neighbours = lab.peer("ip", "neighbour", "show", lab.host6_address(), label="neighbours").ok().stdout
    check(mac in neighbours, f"the peer knows {neighbours!r}, not {mac}")


@case("ipv6.two_hosts", kernel=False)
def two_hosts(context: Context):
    """Two hosts under the library, 50 MB between them."""
    lab = context.lab("bridge", ipv6=True)
    path = context.file(50 * MEGABYTE)
    serve(lab, path)
    fetches(context, lambda *argv, **more: lab.host(*argv, n=2, **more), lab.host6_address(1), path)


@case("ipv6.emulated", limit=120)
def emulated(context: Context):
    """Over a link with 2 % loss and reordering, both ways; the capture is clean."""
    lab = context.lab("emulated", emulation=["--loss=0.02", "--reorder=0.01", "--delay=2ms", "--seed=7"], ipv6=True)
    path = context.file(2 * MEGABYTE)
    capture = lab.capture()
    serve(lab, path)
    fetches(context, lab.peer, lab.host6_address(), path)
    capture.judge(refusals=True, address=lab.host6_address())


@case("ipv6.tun", kernel=False)
def tun(context: Context):
    """On a TUN there is no neighbour to ask for."""
    lab = context.lab(ipv6=True)
    lab.peer("sh", "-ec", "ip tuntap add dev tun0 mode tun vnet_hdr; ip link set tun0 up; "
             "ip address add 2001:db8:2::1/64 dev tun0 nodad", label="tun").ok()
    path = context.file(MEGABYTE)
    env = {"USTACK_LINK": "tun:tun0", "USTACK_ADDR": "2001:db8:2::2/64", "USTACK_GATEWAY": ""}
    lab.peer(PYTHON, "-m", "http.server", "8000", "--bind", "2001:db8:2::1", "--directory", path.parent,
             label="server").wait_for_output("Serving")
    fetches(context, lab.host, "2001:db8:2::1", path, env=env)


_PASSES = """
import socket, subprocess, sys
listener = socket.create_server(('::', 80), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready', flush=True)
for _ in range(2):
    connection, peer = listener.accept()
    with connection:
        subprocess.run(['/bin/cat'], stdin=connection, stdout=connection)
        child = 'import os, socket; s = socket.socket(fileno=0); print(s.getpeername()[0], s.getsockname()[0])'
        named = subprocess.run([sys.executable, '-c', child], stdin=connection, capture_output=True, text=True)
        print(peer[0], connection.getsockname()[0], named.stdout.strip(), flush=True)
"""


@case("ipv6.exec")
def passed_on(context: Context):
    """Children by exec serve connections of either family, and see the addresses."""
    lab = context.lab(ipv6=True)
    server = lab.host(PYTHON, "-c", _PASSES, label="server")
    server.wait_for_output("ready")
    for address in (lab.host6_address(), lab.host_address()):
        echoed = lab.peer("sh", "-c", f"echo 'round trip' | nc.openbsd -N {address} 80").ok(15).stdout
        equal(echoed, "round trip\n", f"what cat at {address} has sent")
    server.ok(15)
    lines = server.stdout.splitlines()[1:]
    for line, own, peer in zip(lines, (lab.host6_address(), "::ffff:" + lab.host_address()),
                               (lab.peer6_address, "::ffff:" + lab.peer_address)):
        equal(line.split(), [peer, own, peer, own], "peer and own address, as the parent and the child see them")


@case("ipv6.joined", kernel=False)
def joined(context: Context):
    """Programs that join another one's host: servers and clients of either family."""
    lab = context.lab(ipv6=True)
    path = context.file(5 * MEGABYTE)
    serve(lab, path)
    serve(lab, path, port=8001)
    for port in (8000, 8001):
        for address in (lab.host6_address(), lab.host_address()):
            fetches(context, lab.peer, address, path, port)
    url = Nginx(lab, ipv6=True).serve(path)
    fetch(context, lab, url, path)
    fetches(context, lab.in_host_namespace, "::1", path, 8001)


_WITHIN = """
import os, socket
listener = socket.create_server(('::', 7001), family=socket.AF_INET6, dualstack_ipv6=True)
for address in ('::1', '127.0.0.1', '192.0.2.2', '2001:db8::2', '::'):
    with socket.create_connection((address, 7001)) as near:
        far, peer = listener.accept()
        with far:
            print(peer[0], near.getpeername()[0], peer[1] == near.getsockname()[1])
if os.fork() == 0:
    socket.create_connection(('::1', 7001)).sendall(b'a child')
    os._exit(0)
print(listener.accept()[0].recv(10).decode())
"""


@case("ipv6.loopback_in_stack", kernel=False)
def loopback_in_stack(context: Context):
    """With USTACK_LOOPBACK=stack ::1 is inside the host, shared with a child."""
    lab = context.lab(ipv6=True)
    told = lab.host(PYTHON, "-c", _WITHIN, env={"USTACK_LOOPBACK": "stack"}).ok(20).stdout.splitlines()
    equal(told, ["::1 ::1 True", "::ffff:127.0.0.1 127.0.0.1 True", "::ffff:192.0.2.2 192.0.2.2 True",
                 "2001:db8::2 2001:db8::2 True", "::1 ::1 True", "a child"], "what the program has seen")


@case("ipv6.off", kernel=False)
def off(context: Context):
    """A host without an address of IPv6 leaves it to the kernel, as before."""
    lab = context.lab(ipv6=True)
    path = context.file(100_000)
    lab.peer(PYTHON, "-m", "http.server", "8000", "--bind", lab.peer6_address, "--directory", path.parent,
             label="server").wait_for_output("Serving")
    counters = context.directory / "counters"
    env = {"USTACK_ADDR": f"{lab.host_address()}/24", "USTACK_GATEWAY": lab.peer_address,
           "USTACK_COUNTERS": str(counters)}
    fetches(context, lab.host, lab.peer6_address, path, env=env)
    equal(counters_in(counters).get("TcpActiveOpens", 0), 0, "connections by the stack")


@case("ipv6.services", limit=120)
def services(context: Context):
    """redis under the library, asked over IPv6."""
    need_root()
    lab = context.lab(ipv6=True)
    directory = context.directory / "redis"
    directory.mkdir()
    lab.host(need_program("redis-server"), "--port", "6379", "--bind", "* -::*", "--save", "", "--protected-mode", "no",
             "--daemonize", "no", "--dir", directory, label="redis-server")
    lab.wait_until_listening(6379, lab.host6_address())
    answer = lab.peer("redis-cli", "-h", lab.host6_address(), "ping").ok(15).stdout
    equal(answer.strip(), "PONG", "redis's answer")
    lab.peer("redis-benchmark", "-h", lab.host6_address(), "-q", "-n", "5000", "-c", "20", "-t", "set,get").ok(60)


@case("ipv6.killed", kernel=False)
def killed(context: Context):
    """A client that is killed: its peer hears of it at once, and what it had sent arrives."""
    lab = context.lab(ipv6=True)
    path = context.file(MEGABYTE)
    listener = lab.peer("nc.openbsd", "-6", "-l", lab.peer6_address, "9000", label="nc-listens")
    lab.wait_until_peer_listens(9000)
    script = (f"import os, socket, signal\ns = socket.create_connection(('{lab.peer6_address}', 9000))\n"
              f"s.sendall(open('{path}', 'rb').read())\nos.kill(os.getpid(), signal.SIGKILL)")
    equal(lab.host(PYTHON, "-c", script, label="client").wait(20), -signal.SIGKILL, "how the client has ended")
    listener.wait(20)
    wait_until(lambda: not listener.running, "nc has heard of the end")
