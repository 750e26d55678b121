"""Hosts of several shards (USTACK_SHARDS): each has a queue, a lock and a part of the connections."""

import re
import signal

from cases.multiprocess import NGINX_SIZES, Load, all_right, nginx_with_workers
from cases.queues import (BAD_NETWORK, more_threads_than_queues, one_thread, over_packet_link, workers_over_bad_network,
                          workers_under_load)
from harness import Context, Nginx, case, check, counters_in, equal

SIZES = ",".join(map(str, NGINX_SIZES))


@case("shards.nginx", kernel=False)
def shards_nginx(context: Context):
    """Two workers of nginx under load, one of them killed now and then."""
    workers_under_load(context, context.lab(shards=2))


@case("shards.threads", kernel=False)
def shards_threads(context: Context):
    """More threads and processes than shards."""
    more_threads_than_queues(context, context.lab(shards=2))


@case("shards.packet", kernel=False)
def shards_packet(context: Context):
    """Over PACKET_FANOUT."""
    over_packet_link(context, context.lab("packet", shards=2))


@case("shards.one_program", kernel=False)
def shards_one_program(context: Context):
    """A program with one thread has one shard; the keeper sees to what comes to the others."""
    one_thread(context, context.lab(shards=3))


@case("shards.emulated", kernel=False)
def shards_emulated(context: Context):
    """Over a network that loses and reorders."""
    workers_over_bad_network(context, context.lab("emulated", shards=2, emulation=BAD_NETWORK))


@case("shards.steered", kernel=False)
def shards_steered(context: Context):
    """TAP and AF_PACKET bring a connection's frames to its shard; ARP and ICMP are everybody's."""
    for kind in ("peer", "packet"):
        lab = context.lab(kind, shards=2)
        counters, log = context.directory / f"counters-{kind}", context.directory / f"log-{kind}"
        nginx, _ = nginx_with_workers(lab, 2, env={"USTACK_COUNTERS": str(counters), "USTACK_LOG": f"info:{log}"})
        all_right(Load(lab, "--requests", 1000, "--sizes", SIZES, clients=16).result(), 1000)
        lab.peer("ping", "-n", "-c", "3", "-i", "0.1", lab.host_address()).ok()
        nginx.process.signal(signal.SIGQUIT)
        equal(nginx.process.wait(15), 0, "the master's status")
        ours = counters_in(counters)
        strays, frames = ours["UstackShardStrays"], ours["UstackRxFrames"]
        context.note(f"{kind}: {strays} of {frames} frames came to another shard than theirs")
        told = re.search(r"can't be told which shard.*", log.read_text())
        if kind == "peer" and told:  # bpf(2) needs a right
            context.note(told[0])
            continue
        # Untold, the link brings half of them to another one; told, those that the keeper reads on a busy machine.
        check(frames > 3000 and strays < frames / 4, f"{strays} of {frames} frames are strays")


@case("shards.device", kernel=False)
def shards_device(context: Context):
    """The same device with shards, without, with queues: it is steered, and isn't any more."""
    lab = context.lab(shards=2)
    nginx = Nginx(lab)
    url = nginx.serve(context.file(1000))
    curl = ["curl", "-sS", "--fail", "--max-time", "10", "-o", "/dev/null", url]
    for shards, queues in ((2, 2), (1, 2), (8, 8), (1, 1), (2, 2)):
        lab.host(*curl, env={"USTACK_QUEUES": str(queues), "USTACK_SHARDS": str(shards)}).ok()
    wrong = lab.host(*curl, env={"USTACK_QUEUES": "3", "USTACK_SHARDS": "2"})
    check(wrong.wait(20) == 125 and "each of the USTACK_SHARDS=2 has one queue" in wrong.stderr, wrong.describe())
