"""CPython's own tests (Debian's libpython3.11-testsuite), a module at a time, with an outcome for each test."""

from __future__ import annotations

import json

from .case import Failed
from .lab import Lab

PYTHON = "/usr/bin/python3.11"

#: AF_VSOCK needs a virtual machine.
_LEFT_OUT = ("*VSOCK*", "*Vsock*")
#: Modules that ask for leave to use the network although the loopback is enough for them.
_RESOURCES = {"test_socketserver": ["network"]}


def run_module(lab: Lab, module: str, *, library: bool, timeout: float = 600) -> dict[str, str]:
    """Runs test.MODULE under the library with the loopback in the stack, or on the kernel. "passed", "failed" or
    "skipped" by each test's name."""
    context = lab.context
    label = f"{module}-{'library' if library else 'kernel'}"
    work = context.directory / label
    work.mkdir()
    outcomes = work / "outcomes"
    patterns = [option for pattern in _LEFT_OUT for option in ("--ignore", pattern)]
    patterns += [option for resource in _RESOURCES.get(module, ()) for option in ("--resource", resource)]
    argv = (PYTHON, "-B", context.tool("python_outcomes.py"), module, outcomes, *patterns)
    if library:
        process = lab.host(*argv, env={"USTACK_LOOPBACK": "stack"}, label=label, cwd=work)
    else:
        process = lab.in_host_namespace(*argv, label=label, cwd=work)
    status = process.wait(timeout)
    if status not in (0, 1) or not outcomes.exists():
        raise Failed(f"{module} didn't come to its end, status {status}\n{process.describe()}")
    lines = [json.loads(line) for line in outcomes.read_text().splitlines()]
    return {line["name"]: line["outcome"] for line in lines}
