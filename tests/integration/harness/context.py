"""What one case works with: its directory, its laboratories, its processes. All of it ends with the case."""

from __future__ import annotations

import hashlib
import os
import pathlib
import random
import subprocess
import threading

from .lab import Lab
from .process import Process

_files_lock = threading.Lock()


def counters_in(path: pathlib.Path) -> dict[str, int]:
    """What USTACK_COUNTERS has left there."""
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


class Context:
    def __init__(self, *, root: pathlib.Path, name: str, directory: pathlib.Path, shared: pathlib.Path,
                 kernel_mode: bool, joined: bool, library: pathlib.Path, emulator: pathlib.Path, lab_prefix: str,
                 variables: dict[str, str]):
        self.root = root
        self.name = name
        self.directory = directory
        #: Of the whole run: files that several cases use.
        self.shared = shared
        self.kernel_mode = kernel_mode
        #: Another program has the host before the case's own come.
        self.joined = joined
        self.library = library
        self.emulator = emulator
        self._lab_prefix = lab_prefix
        self._variables = variables
        self._labs: list[Lab] = []
        self._processes: list[Process] = []
        self.notes: list[str] = []

    # -- places --

    def script(self, name: str) -> pathlib.Path:
        return self.root / "scripts" / name

    def tool(self, name: str) -> pathlib.Path:
        return self.root / "tests" / "integration" / "tools" / name

    def new_lab_name(self) -> str:
        return f"{self._lab_prefix}-{len(self._labs)}"

    def lab(self, kind: str = "peer", *, wire: bool = False, hosts: int = 1, mtu: int | None = None,
            queues: int | None = None, shards: int | None = None, emulation: list[str] | None = None,
            ipv6: bool = False) -> Lab:
        """`kind`: peer, bridge, emulated (with options of the link emulator)."""
        lab = Lab(self, kind, wire=wire, hosts=hosts, emulation=emulation or [], mtu=mtu, queues=queues,
                  shards=shards, ipv6=ipv6)
        self._labs.append(lab)
        if self.joined:
            for n in range(1, hosts + 1):
                address = lab.host_address(n)
                lab.host("nc.openbsd", "-lk", address, 9999, n=n, label=f"owner-{n}")
                lab.wait_until_listening(9999, address)
        return lab

    # -- processes --

    def open_to_all(self) -> None:
        """Lets programs that take another user into this case's directory."""
        for directory in (self.directory, *self.directory.parents):
            if str(directory).startswith("/tmp/"):
                directory.chmod(directory.stat().st_mode | 0o055)

    def compile(self, name: str, source: str, *flags: str) -> pathlib.Path:
        """A program in C, or with -shared a library."""
        path, program = self.directory / f"{name}.c", self.directory / name
        path.write_text(source)
        self.start(["gcc", "-O2", *flags, "-o", str(program), str(path)], label="gcc").ok(30)
        return program

    def start(self, argv, *, label: str | None = None, env: dict[str, str] | None = None, **more) -> Process:
        """Starts a program in the machine's own namespace (Lab.peer and Lab.host: in a laboratory)."""
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("USTACK_") and name != "LD_PRELOAD"}
        # No case depends on names; a server that looks its own up shall not wait for it.
        environment["RES_OPTIONS"] = "timeout:1 attempts:1"
        environment.update(env or {})
        process = Process(self.directory, len(self._processes), argv, label=label or pathlib.Path(argv[0]).name,
                          env=environment, **more)
        self._processes.append(process)
        return process

    def host_variables(self, label: str) -> dict[str, str]:
        """USTACK_ variables that the person at the runner asked for; {file} is replaced by a file of the process."""
        stem = str(self.directory / f"{len(self._processes):02d}-{label}")
        return {name: value.replace("{file}", stem) for name, value in self._variables.items()}

    def note(self, text: str) -> None:
        """A line for the report, also when the case passes."""
        self.notes.append(text)

    # -- files --

    def file(self, size: int, seed: int = 0) -> pathlib.Path:
        """A file of random bytes, always the same for a size and a seed."""
        path = self.shared / f"random-{size}-{seed}"
        with _files_lock:
            if not path.exists():
                temporary = path.with_suffix(f".{os.getpid()}")
                generator = random.Random(f"{size} {seed}")
                with open(temporary, "wb") as file:
                    left = size
                    while left > 0:
                        piece = min(left, 1 << 20)
                        file.write(generator.randbytes(piece))
                        left -= piece
                temporary.chmod(0o644)
                temporary.rename(path)
        return path

    @staticmethod
    def sha256(path: pathlib.Path | str) -> str:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()

    # -- the end --

    def close(self) -> None:
        for process in reversed(self._processes):
            process.end(grace=1)
        for lab in self._labs:
            lab.down()

    @staticmethod
    def remove_labs(script: pathlib.Path, prefix: str) -> None:
        """Those of a case that was ended from outside."""
        listing = subprocess.run([str(script), "list"], capture_output=True, text=True).stdout
        names = [line.split("\t")[0] for line in listing.splitlines()]
        mine = [name for name in names if name.startswith(prefix + "-")]
        if mine:
            subprocess.run([str(script), "down", *mine], capture_output=True)
