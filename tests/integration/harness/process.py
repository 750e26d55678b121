"""A process of a case: started, watched and ended by its own pid."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time

from .case import Failed

#: A file of output longer than this is shown by its end only.
_SHOWN = 3000


class Process:
    """Its output goes to files, so that neither side ever waits for the other over a pipe."""

    def __init__(self, directory: pathlib.Path, number: int, argv: list[str], *, label: str, stdin=None,
                 stdout: pathlib.Path | None = None, env: dict[str, str] | None = None,
                 cwd: pathlib.Path | None = None):
        """`stdin`: None (nothing), bytes, a path, or subprocess.PIPE. `stdout`: a file instead of an own one."""
        self.argv = [str(argument) for argument in argv]
        self.label = label
        stem = directory / f"{number:02d}-{label}"
        self.stdout_path = stdout or stem.with_suffix(".out")
        self.stderr_path = stem.with_suffix(".err")
        stem.with_suffix(".cmd").write_text(" ".join(self.argv) + "\n")
        if isinstance(stdin, bytes):
            stem.with_suffix(".in").write_bytes(stdin)
            stdin = stem.with_suffix(".in")
        opened = []
        try:
            if stdin is None:
                source = subprocess.DEVNULL
            elif isinstance(stdin, int):
                source = stdin
            else:
                source = open(stdin, "rb")
                opened.append(source)
            out = open(self.stdout_path, "wb")
            err = open(self.stderr_path, "wb")
            opened += [out, err]
            self.started = time.monotonic()
            # A session of its own: a server's children are ended with it.
            self.popen = subprocess.Popen(self.argv, stdin=source, stdout=out, stderr=err, env=env, cwd=cwd,
                                          start_new_session=True)
        finally:
            for file in opened:
                file.close()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def stdin(self):
        return self.popen.stdin

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def stdout(self) -> str:
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    def wait(self, timeout: float = 30) -> int:
        """The exit status, or minus the signal's number. A process that doesn't end fails the case."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            # Where it hangs is what one wants to know.
            stuck = self._where()
            self.end()
            raise Failed(f"{self.label} still ran after {timeout:g} s{stuck}\n{self.describe()}") from None

    def ok(self, timeout: float = 30) -> "Process":
        """Waits, and fails the case unless the status is 0."""
        status = self.wait(timeout)
        if status != 0:
            raise Failed(f"{self.label} ended with status {status}\n{self.describe()}")
        return self

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    def end(self, grace: float = 3) -> int | None:
        """TERM to it and its children, then KILL. Without effect on one that has ended."""
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5)):
            if not self.running:
                break
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        return self.popen.poll()

    def wait_for_output(self, text: str, timeout: float = 10, stream: str = "stdout") -> None:
        deadline = time.monotonic() + timeout
        path = self.stdout_path if stream == "stdout" else self.stderr_path
        while text.encode() not in path.read_bytes():
            if not self.running or time.monotonic() > deadline:
                raise Failed(f"{self.label} never said {text!r}\n{self.describe()}")
            time.sleep(0.01)

    def _where(self) -> str:
        lines = []
        try:
            for task in sorted(os.listdir(f"/proc/{self.pid}/task")):
                base = f"/proc/{self.pid}/task/{task}"
                with open(f"{base}/stat") as file:
                    state = file.read().rsplit(")", 1)[1].split()[0]
                try:
                    with open(f"{base}/wchan") as file:
                        wchan = file.read()
                    with open(f"{base}/syscall") as file:
                        call = file.read().split()[0]
                except OSError:
                    wchan = call = "?"
                lines.append(f"  thread {task}: state {state}, in system call {call}, {wchan}")
        except OSError:
            return ""
        return "\n" + "\n".join(lines)

    def describe(self) -> str:
        text = [f"$ {' '.join(self.argv)}"]
        for name, path in (("stdout", self.stdout_path), ("stderr", self.stderr_path)):
            try:
                content = path.read_bytes()
            except OSError:
                continue
            shown = content[-_SHOWN:].decode(errors="replace").rstrip()
            if not shown:
                continue
            if b"\0" in content[:1000]:
                shown = "(binary)"
            text.append(f"{name} ({len(content)} bytes):\n{shown}")
        return "\n".join(text)
