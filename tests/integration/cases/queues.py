"""Links with several queues (USTACK_QUEUES): each is driven by a process or thread of its own."""

import os
import re
import signal

from cases.http_clients import fetch
from cases.multiprocess import NGINX_SIZES, Load, all_right, nginx_with_workers, prefork_server
from harness import Context, Lab, Nginx, case, check, children_of, equal, wait_until

PYTHON = "/usr/bin/python3"
MEGABYTE = 1_000_000
SIZES = ",".join(map(str, NGINX_SIZES))


def drivers(log) -> dict[str, str]:
    """By the queue: the process that has driven it first."""
    return dict(re.findall(r"queue (\d+) is driven first by thread \d+ of process (\d+)", log.read_text()))


def workers_under_load(context: Context, lab: Lab) -> None:
    """Two workers of nginx: each drives a queue, and the answers are right; one is killed under load."""
    log = context.directory / "log"
    nginx, master = nginx_with_workers(lab, 2, env={"USTACK_LOG": f"debug:{log}"})
    all_right(Load(lab, "--requests", 1000, "--sizes", SIZES, clients=16).result(), 1000)
    all_right(Load(lab, "--requests", 1000, "--sizes", SIZES, "--keep-alive", clients=16).result(), 1000)
    first = drivers(log)
    equal(sorted(first), ["0", "1"], "queues that were driven")
    check(len(set(first.values())) == 2, f"one process has driven both: {first}")

    load = Load(lab, "--sizes", SIZES, clients=16)
    for _ in range(5):
        old = set(children_of(master))
        os.kill(min(old), signal.SIGKILL)
        wait_until(lambda: len(children_of(master)) == 2 and set(children_of(master)) != old, "a new worker")
    result = load.result()
    equal((result["wrong"], result["hung"]), (0, 0), f"wrong and hung requests, {result}")
    context.note(f"{result['right']} right, {sum(result['failed'].values())} failed with 5 killed workers")
    all_right(Load(lab, "--requests", 300, "--sizes", SIZES, clients=16).result(), 300)
    nginx.process.signal(signal.SIGQUIT)
    equal(nginx.process.wait(15), 0, "the master's status")


@case("queues.nginx", kernel=False)
def queues_nginx(context: Context):
    """Two workers of nginx under load, one of them killed now and then."""
    workers_under_load(context, context.lab(queues=2))


def transfers(context: Context, lab: Lab) -> None:
    """Each way, a program under the library at one of the ends."""
    path = context.file(60 * MEGABYTE)
    tool = [PYTHON, context.tool("transfer.py")]
    expected = context.sha256(path)
    for number in range(4):
        here, there = (lab.host, lab.peer) if number % 2 else (lab.peer, lab.host)
        address = lab.host_address() if number % 2 else lab.peer_address
        arrived = context.directory / f"arrived-{number}"
        receiver = here(*tool, "listen", address, 5000 + number, "--receive", arrived, label=f"receiver-{number}")
        receiver.wait_for_output("listening")
        there(*tool, "connect", address, 5000 + number, "--send", path, label=f"sender-{number}").ok(60)
        receiver.ok(30)
        equal(context.sha256(arrived), expected, "sha256 of what arrived")


def one_thread(context: Context, lab: Lab) -> None:
    """Fetches, and transfers each way, by programs that drive one queue of several."""
    nginx = Nginx(lab)
    path = context.file(2 * MEGABYTE)
    url = nginx.serve(path)
    for _ in range(5):
        fetch(context, lab, url, path)
    transfers(context, lab)


@case("queues.one_program", kernel=False)
def queues_one_program(context: Context):
    """A program with one thread looks at all queues, one after the other has them, and none answers twice."""
    one_thread(context, context.lab(queues=3))


def more_threads_than_queues(context: Context, lab: Lab) -> None:
    """And processes, with handlers: none sleeps through what it waits for."""
    lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer").wait_for_output("ready")
    for name in ("threads", "threads_one_connection", "threads_and_forks"):
        lab.host(PYTHON, "-B", context.tool("sockets.py"), name, lab.peer_address, lab.host_address(),
                 label=name).ok(45)


@case("queues.threads", kernel=False)
def queues_threads(context: Context):
    """More threads and processes than queues."""
    more_threads_than_queues(context, context.lab(queues=2))


def over_packet_link(context: Context, lab: Lab) -> None:
    """PACKET_FANOUT: bulk both ways, four processes that accept, and no frame that the kernel resets."""
    transfers(context, lab)
    log = context.directory / "log"
    server = lab.host(PYTHON, context.tool("prefork_server.py"), lab.host_address(), 80, "--workers", 4,
                      label="prefork", env={"USTACK_LOG": f"debug:{log}"})
    server.wait_for_output("listening")
    all_right(Load(lab, "--requests", 600, "--sizes", "10,3000,200000", clients=12).result(), 600)
    equal(sorted(drivers(log)), ["0", "1"], "queues that were driven")


@case("queues.packet", kernel=False)
def queues_packet(context: Context):
    """Over PACKET_FANOUT."""
    over_packet_link(context, context.lab("packet", queues=2))


#: Options of a network that loses and reorders.
BAD_NETWORK = ["--loss=1%", "--reorder=2%", "--reorder-by=3ms", "--delay=2ms", "--seed=5"]


def workers_over_bad_network(context: Context, lab: Lab) -> None:
    prefork_server(context, lab, "--workers", 3)
    all_right(Load(lab, "--requests", 100, "--sizes", "10,3000,200000", clients=6).result(), 100)


@case("queues.emulated", kernel=False)
def queues_emulated(context: Context):
    """Over a network that loses and reorders."""
    workers_over_bad_network(context, context.lab("emulated", queues=2, emulation=BAD_NETWORK))


@case("queues.device", kernel=False)
def queues_device(context: Context):
    """A multi-queue TAP has one host at a time; one queue of it will do; a plain TAP has only one."""
    lab = context.lab(queues=2)
    nginx = Nginx(lab)
    url = nginx.serve(context.file(1000))
    curl = ["curl", "-sS", "--fail", "--max-time", "10", "-o", "/dev/null", url]
    for queues in (1, 2, 1, 8, 2):
        lab.host(*curl, env={"USTACK_QUEUES": str(queues)}).ok()
    first = lab.host("nc.openbsd", "-l", lab.host_address(), "5000")
    lab.wait_for_carrier()
    second = lab.host(*curl, env={"USTACK_QUEUES": "1"})
    check(second.wait(20) != 0 and "tap0 is in use" in second.stderr, second.describe())
    lab.host(*curl).ok()  # configured as the first: joins it
    lab.peer("ping", "-n", "-c", "4", "-i", "0.1", lab.host_address()).ok()
    check(first.running, "the first program has ended")
    first.signal(signal.SIGTERM)
    first.wait()

    lab.peer("ip", "tuntap", "add", "dev", "plain0", "mode", "tap", "vnet_hdr").ok()
    third = lab.host(*curl, env={"USTACK_LINK": "tap:plain0"})
    check(third.wait(20) != 0 and "multi_queue" in third.stderr, third.describe())
    # One that the library makes, with a pool's address on the kernel's side.
    everywhere = lab.peer(PYTHON, "-m", "http.server", "8000", "--bind", "0.0.0.0", "--directory", context.directory)
    lab.wait_until_peer_listens(8000)
    lab.host("sh", "-ec", "curl -sS --fail --max-time 10 -o /dev/null http://198.18.0.1:8000/",
             env={"USTACK_LINK": "", "USTACK_ADDR": "", "USTACK_GATEWAY": ""}).ok()
    check(everywhere.running, "the server has ended")
