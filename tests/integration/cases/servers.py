"""Servers under the library, with clients on the kernel's side."""

import re

from harness import Context, Lab, Nginx, case, check, equal

PYTHON = "/usr/bin/python3"


def http_server(context: Context, lab: Lab, *, n: int = 1, bind: str | None = None, port: int = 8000):
    """python3 -m http.server under the library, serving the run's files."""
    server = lab.host(PYTHON, "-m", "http.server", port, "--bind", bind or lab.host_address(n),
                      "--directory", context.shared, n=n, label="http.server")
    lab.wait_until_listening(port, lab.host_address(n))
    return server


def kernel_fetch(context: Context, lab: Lab, path, *, port: int = 8000, name: str = "got", timeout: float = 60):
    target = context.directory / name
    lab.peer("curl", "-sS", "--fail", "--max-time", timeout, "-o", target,
             f"http://{lab.host_address()}:{port}/{path.name}").ok(timeout + 5)
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived")


@case("http_server.get")
def http_server_get(context: Context):
    """python3 -m http.server serves a kernel's curl, small and 20 MB; the capture is clean."""
    lab = context.lab(wire=True)
    files = [context.file(1000), context.file(20_000_000)]
    capture = lab.capture()
    server = http_server(context, lab)
    for path in files:
        kernel_fetch(context, lab, path)
    check(server.running, "the server has ended")
    capture.judge(refusals=True)


@case("http_server.parallel")
def http_server_parallel(context: Context):
    """Its threads serve ten kernel clients at once, 3 MB each."""
    lab = context.lab()
    path = context.file(3_000_000)
    http_server(context, lab)
    targets = [context.directory / f"got-{number}" for number in range(10)]
    clients = [lab.peer("curl", "-sS", "--fail", "--max-time", "60", "-o", target,
                        f"http://{lab.host_address()}:8000/{path.name}") for target in targets]
    for client in clients:
        client.ok(65)
    for target in targets:
        equal(context.sha256(target), context.sha256(path), f"sha256 of {target.name}")


@case("http_server.wildcard")
def http_server_wildcard(context: Context):
    """Bound to 0.0.0.0 it serves the link and the machine's loopback."""
    lab = context.lab()
    path = context.file(100_000)
    http_server(context, lab, bind="0.0.0.0")
    kernel_fetch(context, lab, path)
    target = context.directory / "over-loopback"
    lab.in_host_namespace("curl", "-sS", "--fail", "--max-time", "20", "-o", target,
                          f"http://127.0.0.1:8000/{path.name}").ok(25)
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived over loopback")


@case("http_server.terminated")
def http_server_terminated(context: Context):
    """SIGINT and SIGTERM end a server under the library as they do any other."""
    lab = context.lab()
    for number, (signal_number, expected) in enumerate(((2, 0), (15, -15))):
        server = http_server(context, lab, port=8000 + number)
        server.signal(signal_number)
        equal(server.wait(10), expected, f"status after signal {signal_number}")


@case("emulated.http_server", limit=120)
def emulated_http_server(context: Context):
    """python3 -m http.server over a link with 2 % loss, 2 MB; the capture is clean."""
    lab = context.lab("emulated", emulation=["--loss=0.02", "--delay=2ms", "--seed=21"])
    path = context.file(2_000_000)
    capture = lab.capture()
    http_server(context, lab)
    kernel_fetch(context, lab, path, timeout=80)
    capture.judge(refusals=True)


def redis_server(context: Context, lab: Lab):
    directory = context.directory / "redis"
    directory.mkdir()
    server = lab.host("redis-server", "--port", "6379", "--bind", "* -::*", "--save", "", "--appendonly",
                      "no", "--io-threads", "1", "--protected-mode", "no", "--daemonize", "no", "--dir", directory)
    lab.wait_until_listening(6379)
    return server


def redis_cli(lab: Lab, *arguments, **more):
    return lab.peer("redis-cli", "-h", lab.host_address(), *arguments, **more).ok(60)


def redis_exercise(context: Context, lab: Lab, size: int) -> None:
    """A value there and back, and a few commands."""
    path = context.file(size)
    redis_cli(lab, "-x", "SET", "value", stdin=path)
    back = context.directory / "back"
    redis_cli(lab, "--no-raw", "STRLEN", "value")
    redis_cli(lab, "GET", "value", stdout=back)
    # redis-cli adds a newline.
    back.write_bytes(back.read_bytes()[:-1])
    equal(context.sha256(back), context.sha256(path), "sha256 of the value")
    equal(redis_cli(lab, "INCRBY", "count", "41").stdout.strip(), "41", "INCRBY")
    equal(redis_cli(lab, "INCR", "count").stdout.strip(), "42", "INCR")


@case("redis.values")
def redis_values(context: Context):
    """redis-server keeps a 10 MB value of a kernel's redis-cli; the capture is clean."""
    lab = context.lab(wire=True)
    capture = lab.capture()
    server = redis_server(context, lab)
    redis_exercise(context, lab, 10_000_000)
    check(server.running, "the server has ended")
    capture.judge(refusals=True)


@case("redis.benchmark", limit=150)
def redis_benchmark(context: Context):
    """redis-benchmark with 50 connections, plain and pipelined, and then 1,000 connections."""
    lab = context.lab()
    server = redis_server(context, lab)
    rates = []
    for options in (["-n", "50000", "-c", "50"], ["-n", "200000", "-c", "50", "-P", "16"],
                    ["-n", "20000", "-c", "1000"]):
        done = lab.peer("redis-benchmark", "-h", lab.host_address(), "-t", "set,get", "--csv", *options,
                        label="benchmark").ok(60)
        found = dict(re.findall(r'^"(SET|GET)[^"]*","([0-9.]+)"', done.stdout, re.MULTILINE))
        check({"SET", "GET"} <= set(found), f"no result in\n{done.describe()}")
        rates.append(f"{' '.join(options[2:])}: SET {float(found['SET']):.0f}/s GET {float(found['GET']):.0f}/s")
        check("error" not in done.stderr.lower(), done.describe())
    context.note("; ".join(rates))
    check(server.running, "the server has ended")
    equal(redis_cli(lab, "PING").stdout.strip(), "PONG", "PING after it")


@case("emulated.redis", limit=120)
def emulated_redis(context: Context):
    """redis-server over a link with 2 % loss; the capture is clean."""
    lab = context.lab("emulated", emulation=["--loss=0.02", "--delay=2ms", "--seed=22"])
    capture = lab.capture()
    redis_server(context, lab)
    redis_exercise(context, lab, 1_000_000)
    done = lab.peer("redis-benchmark", "-h", lab.host_address(), "-t", "set,get", "-q", "-n", "500", "-c", "10")
    done.ok(60)
    capture.judge(refusals=True)


@case("nginx.one_process", limit=90)
def nginx_server(context: Context):
    """nginx itself (epoll, sendfile, one process) under the library serves 20 MB and takes a PUT."""
    lab = context.lab(wire=True)
    capture = lab.capture()
    nginx = Nginx(lab, on_host=True)
    path = context.file(20_000_000)
    url = nginx.serve(path)
    target = context.directory / "got"
    lab.peer("curl", "-sS", "--fail", "--max-time", "40", "-o", target, url).ok(45)
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived")
    lab.peer("curl", "-sS", "--fail", "--max-time", "40", "-T", path, f"{nginx.url}/stored").ok(45)
    equal(context.sha256(nginx.www / "stored"), context.sha256(path), "sha256 of what nginx stored")
    capture.judge(refusals=True)
