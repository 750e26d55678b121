"""Laboratories of scripts/lab, with the library's side and the kernel's side as places to run programs in."""

from __future__ import annotations

import pathlib
import subprocess
import time

from .capture import Capture
from .case import Failed
from .process import Process

_KERNEL_KINDS = {"peer": "veth", "bridge": "veth", "emulated": "veth-emulated", "packet": "veth"}


class Lab:
    """Made by Context.lab(). `host` runs a program under the library, `peer` one on the kernel's side."""

    def __init__(self, context, kind: str, *, wire: bool, hosts: int, emulation: list[str], mtu: int | None,
                 queues: int | None, shards: int | None, ipv6: bool):
        self.context = context
        self.emulated = kind == "emulated"
        self.wire = wire or self.emulated
        real_kind = _KERNEL_KINDS[kind] if context.kernel_mode else kind
        self.kind = real_kind
        self.name = context.new_lab_name()
        command = [str(context.script("lab")), "up", real_kind, "--name", self.name]
        if wire and not self.emulated:
            command.append("--wire")
        if hosts > 1:
            command += ["--hosts", str(hosts)]
        if mtu:
            command += ["--mtu", str(mtu)]
        if queues:
            command += ["--queues", str(queues)]
        if shards:
            command += ["--shards", str(shards)]
        if ipv6:
            command.append("--ipv6")
        if self.emulated:
            command += ["--emulator", str(context.emulator), "--", *emulation]
        made = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if made.returncode != 0:
            raise Failed(f"could not make the laboratory: {' '.join(command)}\n{made.stderr}")

    peer_address = "192.0.2.1"
    #: Of the kernel's side too, but behind the gateway.
    far_address = "198.51.100.1"

    @staticmethod
    def host_address(n: int = 1) -> str:
        return f"192.0.2.{n + 1}"

    #: Of a laboratory with IPv6.
    peer6_address = "2001:db8::1"
    far6_address = "2001:db8:1::1"

    @staticmethod
    def host6_address(n: int = 1) -> str:
        return f"2001:db8::{n + 1}"

    @property
    def wire_device(self) -> str:
        if self.emulated:
            return "far0"
        return "veth0" if self.kind in ("veth", "packet") else "wire0"

    def down(self) -> None:
        subprocess.run([str(self.context.script("lab")), "down", self.name], capture_output=True,
                       stdin=subprocess.DEVNULL)

    def _start(self, options: list[str], assignments: dict[str, str], argv, before=(), **more) -> Process:
        prefix = [str(self.context.script("lab")), "exec", self.name, *options, "--", *before]
        if assignments:
            prefix += ["env", *(f"{name}={value}" for name, value in assignments.items())]
        argv = [str(argument) for argument in argv]
        return self.context.start(prefix + argv, label=more.pop("label", pathlib.Path(argv[0]).name), **more)

    def peer(self, *argv, env: dict[str, str] | None = None, **more) -> Process:
        """Starts a program on the kernel's side, with the kernel's sockets."""
        return self._start([], env or {}, argv, **more)

    def host(self, *argv, n: int = 1, env: dict[str, str] | None = None, before=(), **more) -> Process:
        """Starts a program as host n: under the library, or in --kernel mode on a kernel of its own.

        `env` may hold USTACK_ variables, which override the laboratory's, and an LD_PRELOAD of further libraries: they
        come behind ours, or where LIBRARY stands for it. `before`: a command that runs the program
        and is itself not under the library (setpriv, prlimit, strace).
        """
        assignments = dict(env or {})
        if not self.context.kernel_mode:
            others = assignments.get("LD_PRELOAD", "")
            assignments["LD_PRELOAD"] = others.replace("LIBRARY", str(self.context.library)) \
                if "LIBRARY" in others else f"{self.context.library} {others}".strip()
            more.setdefault("label", "host-" + pathlib.Path(str(argv[0])).name)
            for name, value in self.context.host_variables(more["label"]).items():
                assignments.setdefault(name, value)
        else:
            assignments = {name: value.replace("LIBRARY", "").strip() for name, value in assignments.items()
                           if not name.startswith("USTACK_")}
        return self._start(["--host", str(n)], assignments, argv, before=before, **more)

    def in_host_namespace(self, *argv, n: int = 1, **more) -> Process:
        """A helper beside a host that must not be under the library (sysctl, ip)."""
        return self._start(["--host", str(n)], {}, argv, **more)

    def peer_settings(self, **settings: object) -> None:
        """Sets sysctls of the kernel's side; dots are written as double underscores."""
        for name, value in settings.items():
            path = "/proc/sys/" + name.replace("__", "/")
            self.peer("sh", "-c", f"echo {value} > {path}", label="sysctl").ok()

    def host_sysctl(self, **settings: object) -> dict[str, str]:
        """The same settings for the host's side: env for host(), or set at once in --kernel mode."""
        if self.context.kernel_mode:
            for name, value in settings.items():
                path = "/proc/sys/" + name.replace("__", "/")
                self.in_host_namespace("sh", "-c", f"echo {value} > {path}", label="sysctl").ok()
            return {}
        text = "; ".join(f"{name.replace('__', '.')}={value}" for name, value in settings.items())
        return {"USTACK_SYSCTL": text}

    def capture(self) -> Capture:
        """Starts tcpdump on the wire; judge() it at the end."""
        if not self.wire:
            raise ValueError("only a laboratory with a wire shows true packets")
        return Capture(self)

    def wait_until_listening(self, port: int, address: str | None = None, timeout: float = 15) -> None:
        """Until a connection of the peer is accepted, for servers that don't mind one that says nothing."""
        address = address or self.host_address()
        deadline = time.monotonic() + timeout
        script = f"exec 3<>/dev/tcp/{address}/{port}"
        while True:
            if self.peer("timeout", "2", "bash", "-c", script, label="knock").wait(10) == 0:
                return
            if time.monotonic() > deadline:
                raise Failed(f"nobody listens on {address}:{port} after {timeout:g} s")
            time.sleep(0.03)

    def wait_until_peer_listens(self, port: int, timeout: float = 15) -> None:
        """Until a program on the kernel's side listens."""
        deadline = time.monotonic() + timeout
        while not self.peer("ss", "-Hltn", f"sport = :{port}", label="ss").ok().stdout.strip():
            if time.monotonic() > deadline:
                raise Failed(f"nobody on the kernel's side listens on port {port} after {timeout:g} s")
            time.sleep(0.02)

    def wait_for_carrier(self, n: int = 1, timeout: float = 10) -> None:
        """Until host n has opened its link."""
        if self.context.kernel_mode:
            return
        deadline = time.monotonic() + timeout
        while "LOWER_UP" not in self.peer("ip", "-o", "link", "show", "dev", f"tap{n - 1}", label="ip").ok().stdout:
            if time.monotonic() > deadline:
                raise Failed(f"host {n} has not opened its link after {timeout:g} s")
            time.sleep(0.02)
