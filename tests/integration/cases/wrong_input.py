"""What a user gets wrong: variables, links, rights. Each must be named in words, and nothing starts half-configured."""

import os
import re

from harness import Context, Nginx, Skipped, case, check, counters_in, equal

PYTHON = "/usr/bin/python3"

#: Values that no variable may take.
_MALFORMED = {
    "USTACK_LINK": ["tap", "tap:", "tap:a/b", "tap:sixteen-letters-", "ethernet:eth0", "fd:", "fd:x", "fd:-1",
                    "fd:3:ipx", "nonsense"],
    "USTACK_ADDR": ["192.0.2.2", "192.0.2.300/24", "192.0.2.2/33", "192.0.2.2/24,", "224.0.0.1/24", "127.0.0.1/8",
                    "192.0.2.0/24", "192.0.2.255/24", "0.0.0.0/0", "host/24", "192.0.2.2/24,192.0.2.2/24",
                    "192.0.2.2/24 192.0.2.3/24", "192.0.2.2/-1"],
    "USTACK_GATEWAY": ["x", "192.0.2.1/24", "203.0.113.1", "192.0.2.2", "0.0.0.0", "192.0.2.1,,"],
    "USTACK_MAC": ["02:00", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00:00:00:00:zz", "01:00:00:00:00:01"],
    "USTACK_MTU": ["0", "67", "65536", "-1", "1500x", "1e3"],
    "USTACK_LOOPBACK": ["yes", "none"],
    "USTACK_KERNEL": ["192.0.2.0/33", ":0", ":10-5", "x", "192.0.2.1:99999", ",:80"],
    "USTACK_SYSCTL": ["net.ipv4.tcp_nosuch=1", "net.ipv4.tcp_sack", "net.ipv4.tcp_sack=2",
                      "net.ipv4.tcp_rmem=4096 131072", "net.ipv4.ip_default_ttl=0", "net.ipv4.ip_default_ttl=x"],
    "USTACK_CONFIG": ["/nonexistent/file", "/"],
    "USTACK_IO": ["epoll", "URING"],
    "USTACK_QUEUES": ["0", "9", "two"],
    "USTACK_SPIN": ["-1", "x", "1.5", "99999999999"],
    "USTACK_EFAULT": ["yes"],
    "USTACK_TRUST": ["nobody"],
    "USTACK_SYSCALLS": ["all"],
    "USTACK_UDP": ["yes"],
    "USTACK_LOG": ["loud", "debug:", "3"],
}


def _refused(process, *words: str) -> None:
    """The program didn't run, and stderr has the words."""
    status = process.wait(10)
    check(status != 0, f"it started\n{process.describe()}")
    equal(process.stdout, "", "output of a program that may not start")
    for word in words:
        check(word in process.stderr, f"stderr doesn't say {word!r}\n{process.describe()}")


def _register(variable: str, values: list[str]) -> None:
    def run(context: Context) -> None:
        lab = context.lab()
        for value in values:
            program = lab.host("/bin/echo", "started", env={variable: value})
            _refused(program, "ustack", variable, value if variable != "USTACK_CONFIG" else "can't read")

    run.__doc__ = f"{variable}: {len(values)} wrong values are refused by name before the program starts."
    case(f"wrong.{variable.removeprefix('USTACK_').lower()}", kernel=False)(run)


for _variable, _values in _MALFORMED.items():
    _register(_variable, _values)


@case("wrong.unknown", kernel=False)
def wrong_unknown(context: Context):
    """A variable that doesn't exist, with a hint when one is like it."""
    lab = context.lab()
    _refused(lab.host("/bin/echo", "started", env={"USTACK_LINKK": "tap:tap0"}), "USTACK_LINKK", "USTACK_LINK?")
    _refused(lab.host("/bin/echo", "started", env={"USTACK_SOMETHING": "1"}), "USTACK_SOMETHING", "USTACK_ADDR")


@case("wrong.config_file", kernel=False)
def wrong_config_file(context: Context):
    """A configuration file's mistakes are told with its name and line; a right one works."""
    lab = context.lab()
    nginx = Nginx(lab)
    path = context.directory / "ustack.conf"
    path.write_text("# a comment\nnet.ipv4.tcp_sack = 1\nnet.ipv4.tcp_nosuch = 1\nUSTACK_MTU = 5\nno assignment\n")
    broken = lab.host("/bin/echo", "started", env={"USTACK_CONFIG": str(path)})
    _refused(broken, f"{path}:3", "tcp_nosuch", f"{path}:4", "USTACK_MTU", f"{path}:5")
    path.write_text("net.ipv4.ip_default_ttl = 63\nUSTACK_MTU = 1400\n\n; done\n")
    page = context.file(1000)
    got = context.directory / "got"
    lab.host("curl", "-sS", "--fail", "--max-time", "20", "-o", got, nginx.serve(page),
             env={"USTACK_CONFIG": str(path)}).ok()
    equal(context.sha256(got), context.sha256(page), "sha256 of what arrived")


@case("wrong.several_at_once", kernel=False)
def wrong_several(context: Context):
    """Two mistakes are both told."""
    lab = context.lab()
    _refused(lab.host("/bin/echo", "started", env={"USTACK_MTU": "x", "USTACK_IO": "y"}), "USTACK_MTU", "USTACK_IO")


def _fails_to_connect(process, *words: str) -> None:
    status = process.wait(20)
    check(status != 0, f"it worked\n{process.describe()}")
    for word in words:
        check(re.search(word, process.stderr), f"stderr doesn't say {word!r}\n{process.describe()}")


def _curl(lab, *, env=None, before=()):
    return lab.host("curl", "-sS", "--max-time", "10", f"http://{lab.peer_address}/", env=env, before=before)


@case("link.closed_descriptor", kernel=False)
def link_closed_descriptor(context: Context):
    """USTACK_LINK=fd:N with nothing, or the wrong thing, on that number."""
    lab = context.lab()
    _fails_to_connect(_curl(lab, env={"USTACK_LINK": "fd:77"}), "77", "not open")
    _fails_to_connect(_curl(lab, env={"USTACK_LINK": "fd:0"}), "not a socket")


@case("link.of_another_kind", kernel=False)
def link_of_another_kind(context: Context):
    """A device that exists but is no TAP."""
    lab = context.lab()
    _fails_to_connect(_curl(lab, env={"USTACK_LINK": "tap:lo"}), r"\blo\b", "another kind|can't")


HOLD = """
import fcntl, struct, time
device = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"tap0", 0x5002))  # TUNSETIFF: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
print("ready", flush=True)
time.sleep(60)
"""


@case("link.in_use", kernel=False)
def link_in_use(context: Context):
    """A TAP that a program without the library holds, whose host can't be joined: an error that says so."""
    lab = context.lab()
    first = lab.in_host_namespace("/usr/bin/python3", "-c", HOLD, label="holder")
    first.wait_for_output("ready")
    _fails_to_connect(_curl(lab), "tap0", "in use")
    check(first.running, "the first program has ended")


@case("link.address_of_another_host", kernel=False)
def address_of_another_host(context: Context):
    """Two hosts on one bridge are given the same address: both are told (log, counter), the first goes on."""
    lab = context.lab("bridge", hosts=2)
    logs = [context.directory / f"host-{n}.log" for n in (1, 2)]
    first = lab.host("nc.openbsd", "-l", lab.host_address(1), "5000", n=1, env={"USTACK_LOG": f"warning:{logs[0]}"})
    lab.wait_for_carrier(1)
    counters = context.directory / "counters"
    # Nobody has this address: the connection takes as long as it may, and the other host's defence comes meanwhile.
    lab.host("curl", "-sS", "--connect-timeout", "2", "http://192.0.2.77:9/", n=2,
             env={"USTACK_ADDR": f"{lab.host_address(1)}/24", "USTACK_LOG": f"warning:{logs[1]}",
                  "USTACK_COUNTERS": str(counters)}).wait(20)
    for log in logs:
        check(f"address {lab.host_address(1)} is also used by" in log.read_text(), f"{log}: {log.read_text()!r}")
    shown = counters_in(counters)
    check(shown["UstackArpConflicts"] > 0, "UstackArpConflicts is 0")
    # The kernel may still have the other's MAC address in its cache.
    lab.peer("ip", "neighbour", "flush", "dev", "br0").ok()
    lab.peer("ping", "-n", "-c", "3", "-i", "0.1", lab.host_address(1)).ok()
    check(first.running, "the first program has ended")


@case("link.free_again", kernel=False)
def link_free_again(context: Context):
    """A program right after another on the same TAP finds it free (a ring's file closes late)."""
    lab = context.lab()
    nginx = Nginx(lab)
    url = nginx.serve(context.file(1000))
    for _ in range(20):
        lab.host("curl", "-sS", "--fail", "--max-time", "10", "-o", "/dev/null", url).ok()


_PRIVATE_TUN = ["unshare", "-m", "sh", "-ec", 'mount -t tmpfs tmpfs /dev/net; {make}; exec "$@"', "sh"]
_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
           "--ambient-caps=-all"]


def _with_tun(make: str) -> list[str]:
    """A prefix that runs a program with a /dev/net of its own."""
    if os.geteuid() != 0 or open("/proc/self/uid_map").read().split() != ["0", "0", "4294967295"]:
        raise Skipped("only root can make device nodes")
    return [part.replace("{make}", make) for part in _PRIVATE_TUN]


_TUN_0666 = "mknod -m 666 /dev/net/tun c 10 200"


@case("link.no_driver", kernel=False)
def link_no_driver(context: Context):
    """No /dev/net/tun: the message names it and says what to do."""
    lab = context.lab()
    _fails_to_connect(_curl(lab, before=_with_tun(":")), "/dev/net/tun", "modprobe tun")


@case("link.no_right_to_device_node", kernel=False)
def link_no_right_to_node(context: Context):
    """A /dev/net/tun that an ordinary user can't open."""
    lab = context.lab()
    before = _with_tun("mknod -m 600 /dev/net/tun c 10 200") + _NOBODY
    _fails_to_connect(_curl(lab, before=before), "/dev/net/tun", "0666")


@case("link.no_capability", kernel=False)
def link_no_capability(context: Context):
    """Without CAP_NET_ADMIN: the message names it and the ways to get it."""
    lab = context.lab()
    _fails_to_connect(_curl(lab, env={"USTACK_LINK": "tap:fresh0"}, before=_with_tun(_TUN_0666) + _NOBODY),
                      "CAP_NET_ADMIN", "unshare -Urn", "ip tuntap add")


@case("link.somebody_elses", kernel=False)
def link_somebody_elses(context: Context):
    """A persistent TAP that was made for another user."""
    lab = context.lab()
    lab.peer("ip", "tuntap", "add", "dev", "other0", "mode", "tap", "user", "1234").ok()
    _fails_to_connect(_curl(lab, env={"USTACK_LINK": "tap:other0"}, before=_with_tun(_TUN_0666) + _NOBODY),
                      "other0", "belongs to another user")


@case("link.persistent_for_user", kernel=False)
def link_persistent_for_user(context: Context):
    """A persistent TAP that root made for a user works without any capability."""
    lab = context.lab()
    nginx = Nginx(lab)
    page = context.file(100_000)
    lab.peer("sh", "-ec", "ip tuntap add dev mine0 mode tap user 65534 vnet_hdr; ip link set mine0 up; "
             "ip address add 192.0.2.65/26 dev mine0").ok()
    got = lab.host("curl", "-sS", "--fail", "--max-time", "20", nginx.serve(page),
                   env={"USTACK_LINK": "tap:mine0", "USTACK_ADDR": "192.0.2.66/26", "USTACK_GATEWAY": "192.0.2.65"},
                   before=_with_tun(_TUN_0666) + _NOBODY).ok()
    equal(context.sha256(got.stdout_path), context.sha256(page), "sha256 of what arrived")


@case("link.nothing_set", kernel=False)
def link_nothing_set(context: Context):
    """LD_PRELOAD alone: the host makes a TAP, takes an address of its pool and the kernel's side is set up."""
    lab = context.lab()
    page = context.file(100_000)
    server = lab.peer(PYTHON, "-m", "http.server", "8000", "--bind", "0.0.0.0", "--directory", page.parent)
    lab.wait_until_peer_listens(8000)
    nothing = ["env", "-u", "USTACK_LINK", "-u", "USTACK_ADDR", "-u", "USTACK_GATEWAY"]
    for _ in range(2):
        got = lab.host("curl", "-sS", "--fail", "--max-time", "20", f"http://{lab.far_address}:8000/{page.name}",
                       before=nothing).ok()
        equal(context.sha256(got.stdout_path), context.sha256(page), "sha256 of what arrived")
    check(server.running, "the server has ended")
    links = lab.peer("ip", "-o", "link").ok().stdout
    check("ustack" not in links, f"a device was left behind:\n{links}")


@case("io.uring_forbidden", kernel=False)
def uring_forbidden(context: Context):
    """io_uring_setup refused (as a container's seccomp profile does), or no locked memory: it works all the same."""
    lab = context.lab()
    nginx = Nginx(lab)
    page = context.file(3_000_000)
    url = nginx.serve(page)
    for before in (["strace", "-f", "-qq", "-o", context.directory / "strace", "-e", "trace=io_uring_setup", "-e",
                    "inject=io_uring_setup:error=EPERM"], ["prlimit", "--memlock=0:0"]):
        got = lab.host("curl", "-sS", "--fail", "--max-time", "30", url, before=[str(part) for part in before]).ok(40)
        equal(context.sha256(got.stdout_path), context.sha256(page), "sha256 of what arrived")


@case("io.address_limits", kernel=False)
def address_limits(context: Context):
    """A small RLIMIT_AS and RLIMIT_FSIZE of 0: it works, or says what is missing."""
    lab = context.lab()
    nginx = Nginx(lab)
    page = context.file(100_000)
    url = nginx.serve(page)
    got = lab.host("curl", "-sS", "--fail", "--max-time", "30", url, before=["prlimit", "--as=1000000000"]).ok()
    equal(context.sha256(got.stdout_path), context.sha256(page), "sha256 of what arrived")
    got = lab.host(PYTHON, "-c", "import sys, urllib.request, hashlib; "
                   f"data = urllib.request.urlopen({url!r}).read(); sys.stdout.write(str(len(data))); sys.stdout.flush()",
                   before=["sh", "-c", "ulimit -f 1; exec \"$@\"", "sh"]).ok()
    equal(got.stdout, str(page.stat().st_size), "size")
