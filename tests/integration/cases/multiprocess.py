"""Servers of several processes that share one host: prefork, a process per connection, masters and workers."""

import json
import os
import signal

from harness import (Apache, Context, Failed, Lab, Nginx, Process, case, check, children_of, equal, need_program, wait_until)

PYTHON = "/usr/bin/python3"


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class Load:
    """tools/http_load.py on the kernel's side."""

    def __init__(self, lab: Lab, *options, port: int = 80, clients: int = 8):
        context = lab.context
        self._end = context.directory / f"end-of-load-{len(os.listdir(context.directory))}"
        if "--requests" not in options:
            options += ("--until", self._end, "--at-least", 100)
        self.clients = clients
        self.process: Process = lab.peer(PYTHON, context.tool("http_load.py"), lab.host_address(), port, "--clients",
                                         clients, *options, label="load")
        self.process.wait_for_output("running")

    def result(self, timeout: float = 60) -> dict:
        """Lets the running requests end; what came of all."""
        self._end.touch()
        self.process.ok(timeout)
        return json.loads(self.process.stdout.splitlines()[-1])


def all_right(result: dict, at_least: int = 1) -> None:
    check(not result["failed"] and result["wrong"] == 0 and result["hung"] == 0, f"requests went wrong: {result}")
    check(result["right"] >= at_least, f"too few requests: {result}")


def serve_patterns(www, sizes) -> None:
    """Files that tools/http_load.py asks for."""
    (www / "pattern").mkdir()
    for size in sizes:
        (www / "pattern" / str(size)).write_bytes(pattern(size))


def served_over_loopback(lab: Lab, times: int = 10) -> None:
    """A kernel's program on the host's machine reaches a server of several processes by 127.0.0.1."""
    for _ in range(times):
        curl = lab.in_host_namespace("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_download}",
                                     "http://127.0.0.1/pattern/100", label="curl").ok(10)
        equal(curl.stdout, "200 100", "what comes over the loopback")


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# ---- servers of the tools' own --------------------------------------------------------------------------------


def prefork_server(context: Context, lab: Lab, *options):
    server = lab.host(PYTHON, context.tool("prefork_server.py"), lab.host_address(), 80, *options, label="prefork")
    server.wait_for_output("listening")
    return server


@case("prefork.accept")
def prefork_accept(context: Context):
    """Four processes block in accept() on one listener: each gets connections, all answers are right."""
    lab = context.lab()
    prefork_server(context, lab, "--workers", 4)
    result = Load(lab, "--requests", 600, "--sizes", "10,3000,200000", clients=12).result()
    all_right(result, 600)
    equal(len(result["servers"]), 4, "processes that have answered")


@case("prefork.readiness")
def prefork_readiness(context: Context):
    """The same where each looks at the non-blocking listener by poll, epoll, and epoll with EPOLLEXCLUSIVE."""
    lab = context.lab()
    for how in ("poll", "epoll", "exclusive"):
        server = prefork_server(context, lab, "--workers", 4, "--how", how)
        result = Load(lab, "--requests", 300, "--sizes", "10,100000", clients=12).result()
        all_right(result, 300)
        check(len(result["servers"]) >= 2, f"{how}: one process did it all: {result}")
        server.signal(signal.SIGTERM)
        equal(server.wait(), 0, f"{how}: the server's status")


@case("prefork.exclusive_wakes")
def prefork_exclusive_wakes(context: Context):
    """Eight idle processes with EPOLLEXCLUSIVE: a connection wakes one of them, or few, not all."""
    lab = context.lab()
    prefork_server(context, lab, "--workers", 8, "--how", "exclusive")
    # One at a time, so that each connection finds all eight asleep.
    load = lab.peer(PYTHON, "-c", f"""
import re, socket
wakes, empty = {{}}, {{}}
for number in range(200):
    c = socket.create_connection(("{lab.host_address()}", 80), timeout=20)
    c.sendall(b"GET /pattern/1 HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
    head = b""
    while piece := c.recv(1000):
        head += piece
    process, woken, nothing = (int(re.search(name + rb": (\\d+)", head)[1]) for name in
                               (b"X-Process", b"X-Wakes", b"X-Empty"))
    wakes[process], empty[process] = woken, nothing
print(sum(wakes.values()), sum(empty.values()))
""", label="one-by-one").ok(60)
    wakes, empty = map(int, load.stdout.split())
    context.note(f"200 connections, 8 waiting processes: {wakes} wake-ups, {empty} of them for nothing")
    check(wakes >= 200 and empty <= 200, f"{wakes} wake-ups, {empty} for nothing: a thundering herd")


@case("process_per_connection.server")
def process_per_connection(context: Context):
    """A child for each connection, whose parent closes its own descriptor of it: 300 connections."""
    lab = context.lab()
    server = prefork_server(context, lab, "--per-connection")
    result = Load(lab, "--requests", 300, "--sizes", "10,50000", clients=6).result()
    all_right(result, 300)
    equal(len(result["servers"]), 300, "processes that have answered")
    wait_until(lambda: not children_of(server.pid), "all children have ended")


@case("prefork.worker_killed")
def prefork_worker_killed(context: Context):
    """Workers killed with -9 under load: their own requests fail, nobody else's, and others take their place."""
    lab = context.lab()
    server = prefork_server(context, lab, "--workers", 4)
    load = Load(lab, "--sizes", "10,100000", clients=8)
    kills = 10
    for _ in range(kills):
        before = wait_until(lambda: len(children_of(server.pid)) == 4 and children_of(server.pid), "four workers")
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: gone(before[0]), "the worker is gone")
    wait_until(lambda: len(children_of(server.pid)) == 4, "four workers at the end")
    result = load.result()
    check(result["wrong"] == 0 and result["hung"] == 0, f"wrong or hung: {result}")
    # A worker has one connection at a time.
    check(sum(result["failed"].values()) <= kills, f"more failures than workers killed: {result}")
    check(result["right"] > 50, f"too few: {result}")
    all_right(Load(lab, "--requests", 40, clients=8).result(), 40)


@case("prefork.memory", kernel=False)
def prefork_memory(context: Context):
    """A process per connection, hundreds of them: what each had of the host's memory comes back when it has ended."""
    lab = context.lab()
    server = prefork_server(context, lab, "--per-connection")

    def resident() -> int:
        """KiB of the host's memory that its keeper, which drives while nobody else does, has touched."""
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                same = os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{server.pid}/ns/net")
                with open(f"/proc/{pid}/status") as file:
                    fields = dict(line.split(":", 1) for line in file)
            except OSError:
                continue
            if same and fields["Name"].strip() == "ustack-keeper":
                return int(fields["RssShmem"].split()[0])
        raise Failed("there is no keeper")
    all_right(Load(lab, "--requests", 100, "--sizes", "10", clients=4).result(), 100)
    before = resident()
    all_right(Load(lab, "--requests", 300, "--sizes", "10", clients=4).result(), 300)
    grown = resident() - before
    context.note(f"{grown} KiB more after 300 processes")
    check(grown < 300 * 8, f"{grown} KiB have not come back from 300 processes")


# ---- nginx ----------------------------------------------------------------------------------------------------

NGINX_SIZES = (100, 30_000, 500_000)


def nginx_with_workers(lab: Lab, workers: int, **more) -> tuple[Nginx, int]:
    nginx = Nginx(lab, on_host=True, workers=workers, **more)
    serve_patterns(nginx.www, NGINX_SIZES)
    master = int((nginx.directory / "nginx.pid").read_text())
    wait_until(lambda: len(children_of(master)) == workers, f"{workers} workers")
    return nginx, master


@case("nginx.workers")
def nginx_workers(context: Context):
    """A master and four workers: new connections and kept ones; QUIT ends all of them with status 0."""
    lab = context.lab()
    nginx, master = nginx_with_workers(lab, 4)
    sizes = ",".join(map(str, NGINX_SIZES))
    all_right(Load(lab, "--requests", 1000, "--sizes", sizes, clients=16).result(), 1000)
    all_right(Load(lab, "--requests", 1000, "--sizes", sizes, "--keep-alive", clients=16).result(), 1000)
    served_over_loopback(lab)
    workers = children_of(master)
    nginx.process.signal(signal.SIGQUIT)
    equal(nginx.process.wait(15), 0, "the master's status")
    check(all(gone(worker) for worker in workers), "a worker has outlived the master")
    check("[alert]" not in nginx.process.stderr, f"nginx alerts: {nginx.process.stderr}")


@case("nginx.reload")
def nginx_reload(context: Context):
    """Five reloads under load: not one request is lost, and the old workers end."""
    lab = context.lab()
    nginx, master = nginx_with_workers(lab, 3)
    load = Load(lab, "--sizes", "100,30000", clients=8)
    first = set(children_of(master))
    for _ in range(5):
        old = set(children_of(master))
        nginx.process.signal(signal.SIGHUP)
        wait_until(lambda: len(set(children_of(master)) - old) == 3, "three new workers")
    wait_until(lambda: not first & set(children_of(master)), "the first workers have ended")
    wait_until(lambda: len(children_of(master)) == 3, "only the last workers are left")
    result = load.result()
    all_right(result, 100)
    context.note(f"{result['right']} requests, the slowest {result['longest']} s")


@case("nginx.worker_killed")
def nginx_worker_killed(context: Context):
    """A worker killed with -9 under load: a new one comes, only the requests that it had fail."""
    lab = context.lab()
    nginx, master = nginx_with_workers(lab, 3)
    load = Load(lab, "--sizes", "100,500000", clients=8)
    for _ in range(5):
        victim = children_of(master)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: gone(victim) and len(children_of(master)) == 3, "three workers again")
    result = load.result()
    check(result["wrong"] == 0 and result["hung"] == 0, f"wrong or hung: {result}")
    check(sum(result["failed"].values()) <= 5 * load.clients, f"too many have failed: {result}")
    check(result["right"] > 50, f"too few: {result}")
    all_right(Load(lab, "--requests", 60, clients=8).result(), 60)
    nginx.process.signal(signal.SIGQUIT)
    equal(nginx.process.wait(15), 0, "the master's status")


@case("nginx.upgrade")
def nginx_upgrade(context: Context):
    """A new binary takes over the listener by exec under load (USR2, then QUIT to the old master): nothing is lost."""
    lab = context.lab()
    nginx, master = nginx_with_workers(lab, 2, daemon=True)
    load = Load(lab, "--sizes", "100,30000", clients=4)
    os.kill(master, signal.SIGUSR2)
    pid_file = nginx.directory / "nginx.pid"

    def new_master() -> str:
        try:
            text = pid_file.read_text().strip()
        except FileNotFoundError:  # nginx has just renamed it, and the new master has written none yet
            return ""
        return text if text != str(master) else ""
    new = int(wait_until(new_master, "there is a new master", 20))
    wait_until(lambda: len(children_of(new)) == 2, "it has workers")
    os.kill(master, signal.SIGQUIT)
    wait_until(lambda: gone(master), "the old master has ended")
    all_right(load.result(), 100)
    all_right(Load(lab, "--requests", 100, clients=4).result(), 100)
    os.kill(new, signal.SIGQUIT)
    wait_until(lambda: gone(new), "the new master has ended")


# ---- apache ---------------------------------------------------------------------------------------------------


def exercise_apache(context: Context, mpm: str, env: dict[str, str] | None = None) -> None:
    lab = context.lab()
    apache = Apache(lab, mpm, env)
    serve_patterns(apache.www, NGINX_SIZES)
    sizes = ",".join(map(str, NGINX_SIZES))
    all_right(Load(lab, "--requests", 400, "--sizes", sizes, clients=12).result(), 400)
    all_right(Load(lab, "--requests", 400, "--sizes", sizes, "--keep-alive", clients=12).result(), 400)
    if env is None:  # what leaves the host leaves its loopback
        served_over_loopback(lab)
    users = {os.stat(f"/proc/{child}").st_uid for child in children_of(apache.pid)}
    check(users and 0 not in users, f"children that are root: {users}")
    # Graceful: the children finish what they have.
    load = Load(lab, "--sizes", "100,30000", clients=6)
    old = set(children_of(apache.pid))
    os.kill(apache.pid, signal.SIGUSR1)
    wait_until(lambda: not old & set(children_of(apache.pid)), "the old children have ended", 30)
    wait_until(lambda: children_of(apache.pid), "there are new children")
    all_right(load.result(), 20)
    apache.process.signal(signal.SIGTERM)
    equal(apache.process.wait(15), 0, "apache's status")
    log = (apache.directory / "error.log").read_text()
    check(":error]" not in log, f"apache's log has errors: {log}")


@case("apache.prefork")
def apache_prefork(context: Context):
    """apache2, a process per connection, as www-data: a graceful restart under load loses nothing."""
    exercise_apache(context, "prefork")


@case("apache.event")
def apache_event(context: Context):
    """apache2, processes with threads: the same."""
    exercise_apache(context, "event")


# ---- python ---------------------------------------------------------------------------------------------------


@case("python.forking_tcp_server")
def forking_tcp_server(context: Context):
    """socketserver.ForkingTCPServer: a process for each of 60 connections, 100 kB echoed."""
    lab = context.lab()
    server = lab.host(PYTHON, "-u", "-c", f"""
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
with Server(("{lab.host_address()}", 7001), Echo) as server:
    print("listening")
    server.serve_forever()
""", label="forking")
    server.wait_for_output("listening")
    lab.peer(PYTHON, "-c", f"""
import concurrent.futures, random, socket
def client(number):
    sent = random.Random(number).randbytes(100_000)
    with socket.create_connection(("{lab.host_address()}", 7001), timeout=30) as c:
        c.sendall(sent)
        c.shutdown(socket.SHUT_WR)
        got = b""
        while piece := c.recv(65536):
            got += piece
    assert got == sent, (number, len(got))
with concurrent.futures.ThreadPoolExecutor(6) as pool:
    list(pool.map(client, range(60)))
""", label="clients").ok(60)


@case("python.multiprocessing")
def multiprocessing_pool(context: Context):
    """multiprocessing: a pool of processes, each with connections of its own beside one that was inherited."""
    lab = context.lab()
    peer = lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer")
    peer.wait_for_output("ready")
    done = lab.host(PYTHON, "-c", f"""
import hashlib, multiprocessing, socket
inherited = socket.create_connection(("{lab.peer_address}", 7002))
def work(number):
    sent = bytes([number]) * 200_000
    with socket.create_connection(("{lab.peer_address}", 7002)) as c:
        c.sendall(sent)
        c.shutdown(socket.SHUT_WR)
        assert c.recv(100, socket.MSG_WAITALL).decode() == hashlib.sha256(sent).hexdigest(), number
    with turn:
        inherited.sendall(b"x" * 1000)
    return number
turn = multiprocessing.Lock()
with multiprocessing.Pool(4) as pool:
    assert sorted(pool.imap_unordered(work, range(40))) == list(range(40))
inherited.shutdown(socket.SHUT_WR)
assert inherited.recv(100, socket.MSG_WAITALL).decode() == hashlib.sha256(b"x" * 40_000).hexdigest()
print("done")
""", label="multiprocessing").ok(60)
    equal(done.stdout, "done\n", "output")


@case("daemonised.server")
def daemonised(context: Context):
    """A server that daemonises (two forks, setsid) after it has begun to listen serves on when its parent has gone."""
    lab = context.lab()
    pid_file = context.directory / "daemon.pid"
    lab.host(PYTHON, "-c", f"""
import os, socketserver, sys
sys.argv = ["prefork_server.py", "{lab.host_address()}", "80", "--workers", "2"]
import importlib.util
specification = importlib.util.spec_from_file_location("server", "{context.tool('prefork_server.py')}")
server = importlib.util.module_from_spec(specification)
specification.loader.exec_module(server)
import socket
# The host is there, and something listens, before the forks.
other = socket.create_server(("{lab.host_address()}", 81))
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open("{pid_file}.new", "w") as file:
    file.write(str(os.getpid()))
null = os.open("/dev/null", os.O_RDWR)
for number in range(3):
    os.dup2(null, number)
os.rename("{pid_file}.new", "{pid_file}")
server.main()
""", label="daemon").ok(20)
    pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the daemon's pid"))
    lab.wait_until_listening(80)
    all_right(Load(lab, "--requests", 100, clients=4).result(), 100)
    lab.wait_until_listening(81)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: gone(pid), "the daemon has ended")


@case("gunicorn.workers")
def gunicorn_workers(context: Context):
    """gunicorn with three worker processes; HUP under load loses nothing; TERM ends it."""
    program = need_program("gunicorn")
    lab = context.lab()
    (context.directory / "application.py").write_text("""
import os
def app(environ, start):
    size = int(environ["PATH_INFO"].rpartition("/")[2])
    start("200 OK", [("Content-Length", str(size)), ("X-Process", str(os.getpid()))])
    return [(bytes(range(251)) * (size // 251 + 1))[:size]]
""")
    server = lab.host(program, "--chdir", context.directory, "-w", "3", "-b", f"{lab.host_address()}:80",
                      "--worker-tmp-dir", context.directory, "--graceful-timeout", "10", "application:app", label="gunicorn")
    lab.wait_until_listening(80)
    result = Load(lab, "--requests", 300, "--sizes", "10,100000", clients=8).result()
    all_right(result, 300)
    check(len(result["servers"]) > 1, f"one process did it all: {result}")
    load = Load(lab, "--sizes", "10,100000", clients=6)
    old = set(children_of(server.pid))
    server.signal(signal.SIGHUP)
    wait_until(lambda: children_of(server.pid) and not old & set(children_of(server.pid)), "new workers", 30)
    all_right(load.result(), 20)
    server.signal(signal.SIGTERM)
    equal(server.wait(20), 0, "gunicorn's status")


@case("socat.fork")
def socat_fork(context: Context):
    """socat TCP-LISTEN,fork: a child for each connection, each with a connection of its own to the peer."""
    lab = context.lab()
    peer = lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer")
    peer.wait_for_output("ready")
    lab.host("socat", f"TCP-LISTEN:5000,bind={lab.host_address()},fork,reuseaddr", f"TCP:{lab.peer_address}:7001",
             label="socat")
    lab.wait_until_listening(5000)
    path = context.file(1_000_000)
    clients = []
    for number in range(6):
        target = context.directory / f"echoed-{number}"
        clients.append((target, lab.peer(PYTHON, context.tool("transfer.py"), "connect", lab.host_address(), 5000,
                                         "--send", path, "--receive", target, label="client")))
    for target, client in clients:
        client.ok(30)
        equal(context.sha256(target), context.sha256(path), "sha256 of what came back")


# ---- redis ----------------------------------------------------------------------------------------------------


def redis(context: Context, lab: Lab, *options, n: int = 1) -> Process:
    directory = context.directory / f"redis-{n}"
    directory.mkdir()
    server = lab.host("redis-server", "--port", "6379", "--bind", lab.host_address(n), "--save", "", "--appendonly", "no",
                      "--protected-mode", "no", "--daemonize", "no", "--dir", directory, *options, n=n)
    lab.wait_until_listening(6379, lab.host_address(n))
    return server


def redis_cli(lab: Lab, *arguments, n: int = 1, **more) -> str:
    return lab.peer("redis-cli", "-h", lab.host_address(n), *arguments, **more).ok(30).stdout.strip()


@case("redis.bgsave")
def redis_bgsave(context: Context):
    """BGSAVE: a forked child writes the data while the parent serves on; a new server reads it."""
    lab = context.lab()
    server = redis(context, lab)
    load = lab.peer("redis-benchmark", "-h", lab.host_address(), "-t", "set", "-r", "50000", "-n", "60000", "-c", "20",
                    "-q", label="benchmark")
    for _ in range(3):
        wait_until(lambda: "Background" in redis_cli(lab, "BGSAVE"), "BGSAVE begins")
        wait_until(lambda: "rdb_bgsave_in_progress:0" in redis_cli(lab, "INFO", "persistence"), "BGSAVE ends", 30)
    load.ok(60)
    check("rdb_last_bgsave_status:ok" in redis_cli(lab, "INFO", "persistence"), "BGSAVE has failed")
    redis_cli(lab, "BGSAVE")
    wait_until(lambda: "rdb_bgsave_in_progress:0" in redis_cli(lab, "INFO", "persistence"), "the last BGSAVE ends", 30)
    keys = redis_cli(lab, "DBSIZE")
    check(int(keys) > 1000, f"only {keys} keys")
    redis_cli(lab, "SHUTDOWN", "NOSAVE")
    server.wait(10)
    directory = context.directory / "redis-1"
    directory.rename(context.directory / "redis-saved")
    redis(context, lab, "--dir", context.directory / "redis-saved")
    equal(redis_cli(lab, "DBSIZE"), keys, "keys after the restart")


@case("redis.replication")
def redis_replication(context: Context):
    """A replica on another host of the library: the first synchronisation by a forked child, then writes that follow."""
    lab = context.lab("bridge", hosts=2)
    redis(context, lab, "--repl-diskless-sync-delay", "0")
    for number in range(20):
        redis_cli(lab, "-x", "SET", f"large-{number}", stdin=context.file(200_000, number))
    redis(context, lab, "--replicaof", lab.host_address(1), "6379", n=2)
    wait_until(lambda: "master_link_status:up" in redis_cli(lab, "INFO", "replication", n=2), "the replica is in step", 30)
    lab.peer("redis-benchmark", "-h", lab.host_address(), "-t", "set,incr", "-r", "5000", "-n", "20000", "-c", "20", "-q",
             label="benchmark").ok(60)
    equal(redis_cli(lab, "WAIT", "1", "10000"), "1", "replicas that have all of it")
    equal(redis_cli(lab, "DEBUG", "DIGEST", n=2), redis_cli(lab, "DEBUG", "DIGEST"), "the digest of all data")
