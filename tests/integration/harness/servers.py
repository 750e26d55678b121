"""Servers that several cases need."""

from __future__ import annotations

import pathlib
import shutil

from .lab import Lab

_CONFIGURATION = """
user {user};
{processes}
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log {directory}/access.log;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 1g;
  keepalive_requests 100000;
  default_type application/octet-stream;
  sendfile on;
  server {{
    listen {listen}:{port} backlog=1024{both};
    root {directory}/www;
    dav_methods PUT DELETE;
    create_full_put_path on;
  }}
}}
"""


class Nginx:
    """One nginx process (no master: it needs no user to change to, so it runs in any user namespace), or a master
    and so many workers."""

    def __init__(self, lab: Lab, *, on_host: bool = False, port: int = 80, workers: int = 0,
                 daemon: bool = False, user: str = "root root", env: dict[str, str] | None = None, ipv6: bool = False):
        context = lab.context
        self.directory: pathlib.Path = context.directory / f"nginx-{lab.name}"
        self.www = self.directory / "www"
        self.www.mkdir(parents=True)
        if ipv6:
            self.address = f"[{lab.host6_address() if on_host else lab.peer6_address}]"
        else:
            self.address = lab.host_address() if on_host else lab.peer_address
        self.port = port
        self.url = f"http://{self.address}" + (f":{port}" if port != 80 else "")
        # Under the library on all addresses, of both families if need be.
        listen = self.address if not on_host else "[::]" if ipv6 else "0.0.0.0"
        both = " ipv6only=off" if listen == "[::]" else ""
        configuration = self.directory / "nginx.conf"
        processes = f"worker_processes {workers};" if workers else "master_process off;"
        if daemon:
            # A master that is replaced hands these on, and no others.
            processes += "".join(f" env {name};" for name in ("LD_PRELOAD", "USTACK_LINK", "USTACK_ADDR", "USTACK_GATEWAY"))
        else:
            processes += " daemon off;"
        configuration.write_text(_CONFIGURATION.format(directory=self.directory, listen=listen, port=port, both=both,
                                                       processes=processes, user=user))
        start = lab.host if on_host else lab.peer
        # The whole path: a master that is replaced executes what it was called by.
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin") or "nginx"
        self.process = start(program, "-e", "stderr", "-p", self.directory, "-c", configuration, label="nginx",
                             **({"env": env} if env else {}))
        if on_host:
            lab.wait_until_listening(port, self.address.strip("[]"))
        else:
            lab.wait_until_peer_listens(port)

    def serve(self, path: pathlib.Path, name: str | None = None) -> str:
        """Makes a file available; returns its URL."""
        name = name or path.name
        target = self.www / name
        target.symlink_to(path)
        return f"{self.url}/{name}"

    def requests(self) -> list[str]:
        return (self.directory / "access.log").read_text().splitlines()
