"""The register of cases, and what a case says when it fails."""

from __future__ import annotations

import dataclasses
from typing import Callable


class Failed(Exception):
    """What was to be shown is not so."""


class Skipped(Exception):
    """The machine lacks something that the case needs; the text says what."""


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    function: Callable
    #: Seconds after which the runner ends it and calls it failed.
    limit: float
    #: Also run in --kernel mode, where the kernel stands in for the library. False: it is about the library.
    kernel: bool
    #: Part of every run. False: too long for that; scripts/compat runs it (run --all).
    always: bool

    @property
    def summary(self) -> str:
        return (self.function.__doc__ or "").strip().splitlines()[0]


_cases: dict[str, Case] = {}


def case(name: str, *, limit: float = 90, kernel: bool = True, always: bool = True):
    """Registers a function that takes a Context. `name` is GROUP.WHAT."""

    def register(function: Callable) -> Callable:
        if name in _cases:
            raise ValueError(f"two cases are named {name}")
        if not function.__doc__:
            raise ValueError(f"{name} doesn't say what it shows")
        _cases[name] = Case(name, function, limit, kernel, always)
        return function

    return register


def all_cases() -> list[Case]:
    return list(_cases.values())


def check(condition: object, message: str) -> None:
    if not condition:
        raise Failed(message)


def equal(actual: object, expected: object, what: str) -> None:
    if actual != expected:
        raise Failed(f"{what}: expected {expected!r}, got {actual!r}")
