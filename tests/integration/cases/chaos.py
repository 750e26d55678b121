"""Processes that share a host die at random, of kill -9, in the middle of whatever they do."""

import os
import random
import signal
import time

from cases.multiprocess import PYTHON, Load, all_right, gone, prefork_server
from harness import Context, case, check, children_of, wait_until

#: How long; tests/integration/chaos sets it for longer runs.
SECONDS = float(os.environ.get("CHAOS_SECONDS", "8"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))


def in_laboratory(pid: int) -> list[int]:
    """The processes in `pid`'s network namespace that have the library loaded or are its keeper."""
    here = os.readlink(f"/proc/{pid}/ns/net")
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/net") == here:
                with open(f"/proc/{entry}/maps") as file:
                    maps = file.read()
                if "libustack" in maps:
                    found.append(int(entry))
        except OSError:
            pass
    return found


def keepers(pid: int) -> list[int]:
    found = []
    for each in in_laboratory(pid):
        try:
            with open(f"/proc/{each}/comm") as file:
                if file.read().strip() == "ustack-keeper":
                    found.append(each)
        except OSError:
            pass
    return found


def shared_memory(pid: int) -> int:
    """Kilobytes of shared memory in use by all processes of the host."""
    total = 0
    for each in in_laboratory(pid):
        try:
            with open(f"/proc/{each}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss_Shmem:"))
        except OSError:
            pass
    return total


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def chaos(context: Context, workers: int, *how) -> None:
    """`workers`: how many there are at any time; 0: as many as there are connections."""
    lab = context.lab()
    server = prefork_server(context, lab, *how)
    # Warmed up: what it uses from here on is what it needs.
    all_right(Load(lab, "--requests", 200, "--sizes", "10,3000,300000", clients=8).result(), 200)
    before = shared_memory(server.pid)
    chance = random.Random(SEED)
    loads = [Load(lab, "--sizes", "10,3000,300000", clients=6), Load(lab, "--sizes", "10,100000", "--keep-alive", clients=3)]
    workers_killed = keepers_killed = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.01, 0.2))
        if chance.random() < 0.1:
            keepers_killed += sum(kill(pid) for pid in keepers(server.pid))
        elif children := children_of(server.pid):
            workers_killed += kill(chance.choice(children))
    if workers:
        wait_until(lambda: len(children_of(server.pid)) == workers, "all workers are there at the end")
    if not context.kernel_mode:
        # The last one may have been killed a moment ago; the next is made within half a second.
        wait_until(lambda: len(keepers(server.pid)) == 1, "a keeper is there at the end", 5)
    results = [load.result(60) for load in loads]
    right = sum(result["right"] for result in results)
    failed = sum(sum(result["failed"].values()) for result in results)
    context.note(f"{workers_killed} workers and {keepers_killed} keepers killed; {right} requests right, {failed} failed, "
                 f"the slowest {max(result['longest'] for result in results)} s")
    for result in results:
        check(result["wrong"] == 0 and result["hung"] == 0, f"wrong or hung: {result}")
    check(failed <= 2 * workers_killed, f"more requests failed than workers were killed: {results}")
    check(workers_killed > SECONDS and right > 10 * SECONDS, f"too little has happened: {results}")
    # Nothing is in its way afterwards, and nothing is left of the dead.
    all_right(Load(lab, "--requests", 200, "--sizes", "10,3000,300000", clients=8).result(), 200)
    if context.kernel_mode:
        return
    after = wait_until(lambda: (now := shared_memory(server.pid)) < 2 * before + 16384 and now,
                       f"shared memory is given back: {before} kB before, {shared_memory(server.pid)} kB now")
    context.note(f"shared memory {before} kB before, {after} kB after")
    host = in_laboratory(server.pid)
    keeper = keepers(server.pid)
    check(len(keeper) == 1, f"keepers: {keeper}")
    server.signal(signal.SIGTERM)
    server.wait(15)
    wait_until(lambda: all(gone(pid) for pid in host if pid not in keeper), f"{host} but {keeper} are gone")
    # The keeper holds what is in TIME-WAIT; the next program that wants the device and the address gets them at once.
    lab.host(PYTHON, "-c", f"import socket; socket.create_server(('{lab.host_address()}', 80))", label="next").ok(20)
    wait_until(lambda: all(gone(pid) for pid in keeper), "the keeper is gone")


@case("chaos.prefork", limit=60 + 2 * SECONDS)
def chaos_prefork(context: Context):
    """Workers, and now and then the keeper, killed under load: each answer is right or visibly fails, nothing leaks."""
    chaos(context, 4, "--workers", 4, "--how", "exclusive")


@case("chaos.per_connection", limit=60 + 2 * SECONDS)
def chaos_per_connection(context: Context):
    """The same of a server that forks a child for each connection: processes come and go all the time."""
    chaos(context, 0, "--per-connection")
