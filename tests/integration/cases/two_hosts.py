"""Two hosts of the library talking to each other."""

from cases.servers import http_server
from harness import Context, case, equal

PYTHON = "/usr/bin/python3"


@case("two_hosts.curl")
def two_hosts_curl(context: Context):
    """curl under the library fetches 20 MB from python's http.server under the library; the capture is clean."""
    lab = context.lab("bridge", wire=not context.kernel_mode, hosts=2)
    path = context.file(20_000_000)
    capture = None if context.kernel_mode else lab.capture()
    http_server(context, lab, n=2)
    target = context.directory / "got"
    lab.host("curl", "-sS", "--fail", "--max-time", "60", "-o", target,
             f"http://{lab.host_address(2)}:8000/{path.name}", n=1).ok(65)
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived")
    if capture:
        capture.judge(refusals=True)


@case("two_hosts.offloads")
def two_hosts_offloads(context: Context):
    """100 MB between two hosts whose TAPs share a bridge, superframes all the way."""
    lab = context.lab("bridge", hosts=2)
    path = context.file(100_000_000)
    arrived = context.directory / "arrived"
    tool = [PYTHON, context.tool("transfer.py")]
    receiver = lab.host(*tool, "listen", lab.host_address(2), 5000, "--receive", arrived, n=2, label="receiver")
    receiver.wait_for_output("listening")
    sender = lab.host(*tool, "connect", lab.host_address(2), 5000, "--send", path, n=1, label="sender").ok(60)
    receiver.ok(30)
    context.note(f"{0.8 / sender.seconds():.2f} Gbit/s with start and end")
    equal(context.sha256(arrived), context.sha256(path), "sha256 of what arrived")


@case("two_hosts.netcat")
def two_hosts_netcat(context: Context):
    """nc to nc, each under the library, 5 MB each way; the kernel on the same bridge takes part with neither."""
    lab = context.lab("bridge", hosts=2)
    path = context.file(5_000_000)
    for number, (listener, caller) in enumerate(((1, 2), (2, 1))):
        port = 5001 + number
        arrived = context.directory / f"arrived-{port}"
        address = lab.host_address(listener)
        server = lab.host("nc.openbsd", "-d", "-l", address, port, n=listener, stdout=arrived, label="server")
        lab.wait_for_carrier(listener)
        for _ in range(100):
            client = lab.host("nc.openbsd", "-N", address, port, n=caller, stdin=path, label="client")
            if client.wait(30) == 0:
                break
        client.ok()
        server.ok()
        equal(context.sha256(arrived), context.sha256(path), f"sha256 of what arrived at host {listener}")
