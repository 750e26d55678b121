"""Programs that open no internet socket must not notice that the library is there."""

import collections
import os
import re
import statistics
import time

from harness import Context, case, check, equal

_PROGRAMS = {"ls": ["/bin/ls", "/"], "bash": ["/bin/bash", "-c", "true"]}


def _system_calls(context: Context, argv: list[str], preload: bool) -> collections.Counter:
    """The system calls of the program and its children, without those of loading libraries."""
    output = context.directory / f"strace-{preload}"
    command = ["strace", "-f", "-qq", "-o", str(output), "-E", f"LD_PRELOAD={context.library if preload else ''}"]
    context.start([*command, *argv], label="strace").ok()
    names = re.findall(r"^\d+ +(\w+)\(", output.read_text(), re.MULTILINE)
    return collections.Counter(names)


@case("inert.system_calls", kernel=False)
def system_calls(context: Context):
    """ls and bash under the library: no thread, process, socket, ring, device, memory file or open descriptor more."""
    loading = {"openat", "read", "pread64", "fstat", "newfstatat", "mmap", "mprotect", "close", "munmap", "brk"}
    for name, argv in _PROGRAMS.items():
        without, under = _system_calls(context, argv, False), _system_calls(context, argv, True)
        more = under - without
        strange = {call: count for call, count in more.items() if call not in loading}
        context.note(f"{name}: {sum(without.values())} system calls without, {sum(under.values())} with the library")
        # Start-up may look at a few things of its process, once.
        check(sum(strange.values()) <= 8, f"{name}: system calls beyond loading: {strange}")
        for call in ("clone", "clone3", "fork", "vfork", "socket", "socketpair", "io_uring_setup", "memfd_create",
                     "eventfd2", "epoll_create1", "timerfd_create", "ioctl", "unshare", "setns", "dup", "dup2", "fcntl"):
            equal(under[call], without[call], f"{name}: calls of {call}")
        trace = (context.directory / "strace-True").read_text()
        check("/dev/net/tun" not in trace, f"{name} opened the tun device")


@case("inert.process", kernel=False)
def process(context: Context):
    """A sleeping program under the library has one thread, the same descriptors, and no shared mapping of an arena."""
    seen = {}
    for preload in (False, True):
        env = {"LD_PRELOAD": str(context.library)} if preload else {}
        sleeper = context.start(["/bin/sleep", "30"], env=env)
        deadline = time.monotonic() + 5
        while "sleep" not in open(f"/proc/{sleeper.pid}/comm").read() or \
                "nanosleep" not in open(f"/proc/{sleeper.pid}/wchan").read():
            check(time.monotonic() < deadline, "it never slept")
            time.sleep(0.01)
        base = f"/proc/{sleeper.pid}"
        size = int(re.search(r"VmSize:\s+(\d+)", open(f"{base}/status").read()).group(1))
        maps = open(f"{base}/maps").read()
        seen[preload] = (len(os.listdir(f"{base}/task")), sorted(os.listdir(f"{base}/fd")), size,
                         len(re.findall(r" rw-s ", maps)), "libustack" in maps)
        children = open(f"{base}/task/{sleeper.pid}/children").read()
        equal(children, "", "children")
        sleeper.end()
    equal(seen[True][0], 1, "threads")
    equal(seen[True][1], seen[False][1], "descriptors")
    equal(seen[True][3], seen[False][3], "shared writable mappings")
    check(seen[True][4] and not seen[False][4], "the library was not loaded where it should have been")
    grown = seen[True][2] - seen[False][2]
    context.note(f"address space: {grown} KiB more")
    # The library and what it is linked with, not an arena.
    check(grown < 32 * 1024, f"the address space is {grown} KiB larger")


def _empty_library(context: Context) -> str:
    """A library with nothing in it: what preloading costs whatever is preloaded."""
    source, library = context.directory / "empty.c", context.directory / "empty.so"
    source.write_text("static int nothing __attribute__((unused));\n")
    context.start(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], label="cc").ok()
    return str(library)


def _start(argv: list[str], preload: str | None) -> tuple[float, int]:
    """Seconds from before the spawn until after the wait, and page faults."""
    env = {"PATH": "/usr/bin:/bin"} | ({"LD_PRELOAD": preload} if preload else {})
    started = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, env, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    _, status, usage = os.wait4(pid, 0)
    equal(status, 0, f"status of {argv[0]}")
    return time.perf_counter() - started, usage.ru_minflt


def _look_ups(context: Context, argv: list[str], preload: str) -> int:
    """Symbols that the dynamic linker has looked up by the program's end."""
    started = context.start(["env", f"LD_PRELOAD={preload}", "LD_DEBUG=statistics", *argv], label="statistics").ok()
    return max(int(count) for count in re.findall(r"number of relocations: (\d+)", started.stderr))


@case("inert.start_cost", kernel=False)
def start_cost(context: Context):
    """Starting costs what preloading an empty library does, and few page faults and symbol look-ups more.

    Counted, not timed: other cases run beside this one. The times are noted."""
    empty, ours = _empty_library(context), str(context.library)
    for name, argv in _PROGRAMS.items():
        runs = {library: [] for library in (None, empty, ours)}
        for _ in range(200):
            for library, results in runs.items():
                results.append(_start(argv, library))
        times = {library: sorted(seconds for seconds, _ in results) for library, results in runs.items()}
        faults = {library: statistics.median(count for _, count in results) for library, results in runs.items()}
        quartile = {library: seconds[len(seconds) // 4] * 1e6 for library, seconds in times.items()}
        more_look_ups = _look_ups(context, argv, ours) - _look_ups(context, argv, empty)
        more_faults = faults[ours] - faults[empty]
        context.note(f"{name}: lower quartile of 200 starts {quartile[None]:.0f} us without, {quartile[empty]:.0f} us "
                     f"with an empty library, {quartile[ours]:.0f} us with ours; {more_faults:.0f} page faults and "
                     f"{more_look_ups} look-ups more than the empty one")
        # bash installs signal handlers, before which everything is looked up.
        check(more_look_ups <= {"ls": 100, "bash": 260}[name], f"{name}: {more_look_ups} symbols looked up")
        check(more_faults <= 2, f"{name}: {more_faults} page faults more than an empty library")
