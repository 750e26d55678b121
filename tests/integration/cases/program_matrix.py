"""Debian's programs, unmodified, each doing its real work under the library against the kernel, the content checked.

scripts/compat runs all of them and makes the README's table of the results; what is quick is part of every run.
"""

import json
import pathlib
import shutil
import subprocess

from harness import Context, Lab, Nginx, Skipped, case, check, equal

PYTHON = "/usr/bin/python3"
_PORT = 7100


def program(name: str, *executables: str, always: bool = False, limit: float = 90, ipv6: bool = False):
    """Registers program.NAME, which is skipped where one of the programs isn't installed. `ipv6`: its hosts have both families."""

    def register(function):
        def run(context: Context) -> None:
            for executable in executables:
                if shutil.which(executable, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
                    raise Skipped(f"{executable} is not installed")
            function(context, context.lab(ipv6=ipv6))

        run.__doc__ = function.__doc__
        case(f"program.{name}", limit=limit, always=always)(run)
        return function

    return register


def same_file(context: Context, got: pathlib.Path, wanted: pathlib.Path) -> None:
    equal(context.sha256(got), context.sha256(wanted), f"sha256 of {got.name}")


def peer_fetches(context: Context, lab: Lab, url: str, wanted: pathlib.Path, *options: str) -> None:
    got = context.directory / f"got-by-peer-{wanted.name}"
    lab.peer("curl", "-sS", "--fail", "--max-time", "40", "-o", got, *options, url).ok(45)
    same_file(context, got, wanted)


def own_directory(context: Context, name: str) -> pathlib.Path:
    directory = context.directory / name
    directory.mkdir()
    directory.chmod(0o755)
    return directory


def with_file(context: Context, name: str, size: int = 2_000_000) -> tuple[pathlib.Path, pathlib.Path]:
    """A directory and a file `data` in it."""
    directory = own_directory(context, name)
    shutil.copyfile(context.file(size), directory / "data")
    return directory, directory / "data"


def certificate(directory: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=peer"],
                   check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return key, cert


# --- clients of HTTP


@program("curl", "curl")
def curl(context: Context, lab: Lab):
    """client: 20 MB down and up again"""
    nginx = Nginx(lab)
    path = context.file(20_000_000)
    got = context.directory / "got"
    lab.host("curl", "-sS", "--fail", "-o", got, nginx.serve(path)).ok()
    same_file(context, got, path)
    lab.host("curl", "-sS", "--fail", "-T", got, f"{nginx.url}/up").ok()
    same_file(context, nginx.www / "up", path)


@program("wget", "wget")
def wget(context: Context, lab: Lab):
    """client: 20 MB"""
    path = context.file(20_000_000)
    got = context.directory / "got"
    lab.host("wget", "-q", "-O", got, Nginx(lab).serve(path)).ok()
    same_file(context, got, path)


@program("aria2", "aria2c", always=True)
def aria2(context: Context, lab: Lab):
    """client: 20 MB over four connections at once"""
    path = context.file(20_000_000)
    lab.host("aria2c", "-q", "-x4", "-s4", "-k1M", "--async-dns=false", "-d", context.directory, "-o", "got",
             Nginx(lab).serve(path)).ok()
    same_file(context, context.directory / "got", path)


@program("lftp", "lftp", always=True)
def lftp(context: Context, lab: Lab):
    """client: 5 MB over HTTP"""
    path = context.file(5_000_000)
    got = context.directory / "got"
    lab.host("lftp", "-c", f"set net:max-retries 1; get {Nginx(lab).serve(path)} -o {got}").ok()
    same_file(context, got, path)


@program("lwp", "lwp-request", always=True)
def lwp(context: Context, lab: Lab):
    """client: perl's LWP fetches 2 MB and posts"""
    path = context.file(2_000_000)
    nginx = Nginx(lab)
    got = context.directory / "got"
    script = ("use LWP::UserAgent; my $ua = LWP::UserAgent->new(timeout => 20, keep_alive => 2);"
              "for (1 .. 3) { my $r = $ua->get($ARGV[0], ':content_file' => $ARGV[1]);"
              "die $r->status_line unless $r->is_success; }")
    lab.host("perl", "-e", script, nginx.serve(path), got).ok()
    same_file(context, got, path)


@program("ab", "ab", always=True)
def ab(context: Context, lab: Lab):
    """client: 2000 requests, 20 at once"""
    url = Nginx(lab).serve(context.file(1000))
    text = lab.host("ab", "-q", "-n", 2000, "-c", 20, url).ok().stdout
    check("Complete requests:      2000" in text and "Failed requests:        0" in text, text)


@program("wrk", "wrk", always=True)
def wrk(context: Context, lab: Lab):
    """client: two threads with 32 connections for a second"""
    url = Nginx(lab).serve(context.file(1000))
    text = lab.host("wrk", "-t2", "-c32", "-d1s", url).ok().stdout
    check("Requests/sec" in text and "Socket errors" not in text and "Non-2xx" not in text, text)


# --- servers of HTTP


@program("nginx", "nginx")
def nginx_server(context: Context, lab: Lab):
    """server: 20 MB and a PUT"""
    server = Nginx(lab, on_host=True)
    path = context.file(20_000_000)
    peer_fetches(context, lab, server.serve(path), path)
    lab.peer("curl", "-sS", "--fail", "-T", path, f"{server.url}/up").ok()
    same_file(context, server.www / "up", path)


@program("lighttpd", "lighttpd", always=True)
def lighttpd(context: Context, lab: Lab):
    """server: 2 MB, ten clients at once"""
    directory, path = with_file(context, "www")
    config = context.directory / "lighttpd.conf"
    config.write_text(f'server.document-root = "{directory}"\nserver.port = {_PORT}\n'
                      f'server.bind = "{lab.host_address()}"\n')
    lab.host("lighttpd", "-D", "-f", config)
    lab.wait_until_listening(_PORT)
    url = f"http://{lab.host_address()}:{_PORT}/data"
    clients = [lab.peer("curl", "-sS", "--fail", "-o", context.directory / f"got{n}", url) for n in range(10)]
    for number, client in enumerate(clients):
        client.ok()
        same_file(context, context.directory / f"got{number}", path)


@program("haproxy", "haproxy", always=True)
def haproxy(context: Context, lab: Lab):
    """proxy: 5 MB through it, from the kernel to the kernel"""
    path = context.file(5_000_000)
    url = Nginx(lab).serve(path)
    config = context.directory / "haproxy.cfg"
    config.write_text(f"""
global
  maxconn 200
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend front
  bind :::{_PORT} v4v6
  default_backend back
backend back
  server one {lab.peer_address}:80
""")
    lab.host("haproxy", "-db", "-f", config)
    lab.wait_until_listening(_PORT)
    for _ in range(3):
        peer_fetches(context, lab, f"http://{lab.host_address()}:{_PORT}/{path.name}", path)
    check(url.endswith(path.name), url)


@program("http_server", "python3")
def http_server(context: Context, lab: Lab):
    """server: python3 -m http.server, 5 MB"""
    directory, path = with_file(context, "www", 5_000_000)
    lab.host(PYTHON, "-m", "http.server", _PORT, "--bind", lab.host_address(), "--directory", directory)
    lab.wait_until_listening(_PORT)
    peer_fetches(context, lab, f"http://{lab.host_address()}:{_PORT}/data", path)


_ASYNCIO = """
import asyncio, hashlib, sys
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def talk(address, n):
    reader, writer = await asyncio.open_connection(address, int(sys.argv[3]))
    sent = bytes([n]) * 200000
    async def send():
        writer.write(sent)
        await writer.drain()
        writer.write_eof()
    got, _ = await asyncio.gather(reader.read(), send())
    assert got == sent
    writer.close()
async def main():
    if sys.argv[1] == "serve":
        server = await asyncio.start_server(serve, sys.argv[2], int(sys.argv[3]))
        print("ready", flush=True)
        await server.serve_forever()
    await asyncio.gather(*(talk(sys.argv[2], n) for n in range(50)))
asyncio.run(main())
"""


@program("asyncio", "python3", always=True)
def asyncio_both(context: Context, lab: Lab):
    """client and server: python's asyncio, 50 connections that echo 200 KB each"""
    for server, client, address in ((lab.host, lab.peer, lab.host_address()), (lab.peer, lab.host, lab.peer_address)):
        process = server(PYTHON, "-c", _ASYNCIO, "serve", address, _PORT, label="serve")
        process.wait_for_output("ready")
        client(PYTHON, "-c", _ASYNCIO, "talk", address, _PORT, label="talk").ok()
        process.end()


_NODE_SERVER = """
const http = require('http'), fs = require('fs');
http.createServer((q, a) => fs.createReadStream(process.argv[1]).pipe(a))
    .listen(+process.argv[2], () => console.log('ready'));
"""
_NODE_CLIENT = """
const http = require('http'), fs = require('fs');
const agent = new http.Agent({keepAlive: true});
let left = 3;
const one = () => http.get(process.argv[1], {agent}, a => {
  if (a.statusCode != 200) throw new Error('status ' + a.statusCode);
  a.pipe(fs.createWriteStream(process.argv[2])).on('finish', () => --left ? one() : process.exit(0));
});
one();
"""


@program("node_server", "node")
def node_server(context: Context, lab: Lab):
    """server: node's http module, on :: as it does by default, 5 MB"""
    path = context.file(5_000_000)
    server = lab.host("node", "-e", _NODE_SERVER, path, _PORT)
    server.wait_for_output("ready", timeout=30)
    for _ in range(3):
        peer_fetches(context, lab, f"http://{lab.host_address()}:{_PORT}/", path)


@program("node_client", "node")
def node_client(context: Context, lab: Lab):
    """client: node's http module, 5 MB"""
    path = context.file(5_000_000)
    got = context.directory / "got"
    lab.host("node", "-e", _NODE_CLIENT, Nginx(lab).serve(path), got).ok(60)
    same_file(context, got, path)


_JAVA_SERVER = """
import com.sun.net.httpserver.*;
import java.net.*;
import java.nio.file.*;
import java.util.concurrent.*;
public class Main {
  public static void main(String[] args) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[1])), 50);
    server.createContext("/", exchange -> {
      byte[] data = Files.readAllBytes(Path.of(args[0]));
      exchange.sendResponseHeaders(200, data.length);
      try (var out = exchange.getResponseBody()) { out.write(data); }
    });
    server.setExecutor(Executors.newFixedThreadPool(4));
    server.start();
    System.out.println("ready");
  }
}
"""
_JAVA_CLIENT = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.*;
public class Main {
  public static void main(String[] args) throws Exception {
    HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    for (int i = 0; i < 3; i++) {
      var answer = client.send(HttpRequest.newBuilder(URI.create(args[0])).build(),
                               HttpResponse.BodyHandlers.ofFile(Path.of(args[1])));
      if (answer.statusCode() != 200) System.exit(2);
    }
  }
}
"""


def _java(context: Context, source: str) -> list:
    directory = own_directory(context, "java")
    (directory / "Main.java").write_text(source)
    return ["java", "-Xshare:auto", directory / "Main.java"]


@program("java_server", "javac", limit=180)
def java_server(context: Context, lab: Lab):
    """server: java's HttpServer, whose sockets are of AF_INET6, 5 MB"""
    path = context.file(5_000_000)
    server = lab.host(*_java(context, _JAVA_SERVER), path, _PORT)
    server.wait_for_output("ready", timeout=90)
    for _ in range(3):
        peer_fetches(context, lab, f"http://{lab.host_address()}:{_PORT}/", path)


@program("java_client", "javac", limit=180)
def java_client(context: Context, lab: Lab):
    """client: java's HttpClient, whose sockets are of AF_INET6, 5 MB"""
    path = context.file(5_000_000)
    got = context.directory / "got"
    lab.host(*_java(context, _JAVA_CLIENT), Nginx(lab).serve(path), got).ok(120)
    same_file(context, got, path)


# --- TLS and shells


@program("openssl_client", "openssl", always=True)
def openssl_client(context: Context, lab: Lab):
    """client: s_client fetches a file over TLS"""
    directory, path = with_file(context, "www", 300_000)
    key, cert = certificate(directory)
    lab.peer("openssl", "s_server", "-accept", f"{lab.peer_address}:{_PORT}", "-cert", cert, "-key", key, "-WWW",
             cwd=directory)
    lab.wait_until_peer_listens(_PORT)
    client = lab.host("openssl", "s_client", "-connect", f"{lab.peer_address}:{_PORT}", "-quiet", "-CAfile", cert,
                      "-verify_return_error", stdin=b"GET /data HTTP/1.0\r\n\r\n").ok()
    check(path.read_bytes() in client.stdout_path.read_bytes(), "the file's content is not in the answer")


@program("openssl_server", "openssl", always=True)
def openssl_server(context: Context, lab: Lab):
    """server: s_server, on :: as it does by default, sends a file over TLS"""
    directory, path = with_file(context, "www", 300_000)
    key, cert = certificate(directory)
    server = lab.host("openssl", "s_server", "-accept", _PORT, "-cert", cert, "-key", key,
                      "-WWW", cwd=directory)
    server.wait_for_output("ACCEPT")
    # s_server's answer has no length and needs no more than HTTP/1.0.
    peer_fetches(context, lab, f"https://{lab.host_address()}:{_PORT}/data", path, "--insecure", "--http1.0")


@program("ssh", "ssh")
def ssh(context: Context, lab: Lab):
    """client: a command's 5 MB of output, and 5 MB into one"""
    sshd = shutil.which("sshd", path="/usr/sbin")
    if sshd is None:
        raise Skipped("sshd, the other side, is not installed")
    directory = own_directory(context, "ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    (directory / "authorized").write_bytes((directory / "user.pub").read_bytes())
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    lab.peer(sshd, "-D", "-e", "-f", "/dev/null", "-h", directory / "host", "-p", _PORT, "-o", "UsePAM=no", "-o",
             "StrictModes=no", "-o", f"AuthorizedKeysFile={directory}/authorized", "-o", "PermitRootLogin=yes")
    lab.wait_until_peer_listens(_PORT)
    path = context.file(5_000_000)
    login = ["ssh", "-F", "/dev/null", "-p", _PORT, "-i", directory / "user", "-o", "StrictHostKeyChecking=no", "-o",
             "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", f"root@{lab.peer_address}"]
    same_file(context, lab.host(*login, f"cat {path}").ok().stdout_path, path)
    target = directory / "up"
    lab.host(*login, f"cat >{target}", stdin=path).ok()
    same_file(context, target, path)


# --- pipes


@program("socat", "socat", always=True)
def socat(context: Context, lab: Lab):
    """client and server: 2 MB each way"""
    path = context.file(2_000_000)
    got = context.directory / "got-by-peer"
    receiver = lab.peer("socat", "-u", f"TCP-LISTEN:{_PORT},reuseaddr", f"OPEN:{got},creat")
    lab.wait_until_peer_listens(_PORT)
    lab.host("socat", "-u", f"OPEN:{path}", f"TCP:{lab.peer_address}:{_PORT}").ok()
    receiver.ok()
    same_file(context, got, path)
    server = lab.host("socat", f"TCP-LISTEN:{_PORT},fork,reuseaddr", f"OPEN:{path},rdonly", label="socat-server")
    lab.wait_until_listening(_PORT)
    got = lab.peer("socat", "-u", f"TCP:{lab.host_address()}:{_PORT}", "-", label="socat-peer").ok().stdout_path
    same_file(context, got, path)
    check(server.running, "the server has ended")


@program("ncat", "ncat")
def ncat(context: Context, lab: Lab):
    """client and server: 2 MB each way"""
    path = context.file(2_000_000)
    receiver = lab.peer("ncat", "-l", "--recv-only", _PORT)
    lab.wait_until_peer_listens(_PORT)
    lab.host("ncat", "--send-only", lab.peer_address, _PORT, stdin=path).ok()
    same_file(context, receiver.ok().stdout_path, path)
    receiver = lab.host("ncat", "-l", "--recv-only", "-k", lab.host_address(), _PORT, label="ncat-server")
    lab.wait_until_listening(_PORT)
    lab.peer("ncat", "--send-only", lab.host_address(), _PORT, stdin=path, label="ncat-peer").ok()
    receiver.end()
    same_file(context, receiver.stdout_path, path)


def _iperf(process) -> None:
    report = json.loads(process.ok().stdout)
    check("error" not in report and report["end"]["sum_received"]["bytes"] > 100_000, process.stdout[-500:])


@program("iperf3_client", "iperf3")
def iperf3_client(context: Context, lab: Lab):
    """client: two streams for a second, both directions"""
    lab.peer("iperf3", "-s", "-p", _PORT)
    lab.wait_until_peer_listens(_PORT)
    for options in ((), ("-R",)):
        _iperf(lab.host("iperf3", "-J", "-c", lab.peer_address, "-p", _PORT, "-t1", "-P2", *options))


@program("iperf3_server", "iperf3")
def iperf3_server(context: Context, lab: Lab):
    """server: on :: as it does by default, two streams for a second"""
    server = lab.host("iperf3", "-s", "-1", "-p", _PORT, "--forceflush")
    server.wait_for_output("listening")
    _iperf(lab.peer("iperf3", "-J", "-c", lab.host_address(), "-p", _PORT, "-t1", "-P2"))


# --- data bases


@program("redis", "redis-server")
def redis(context: Context, lab: Lab):
    """server, cli and benchmark"""
    options = ["--save", "", "--protected-mode", "no", "--port", _PORT]
    server = lab.host("redis-server", *options, "--bind", lab.host_address())
    lab.wait_until_listening(_PORT)
    path = context.file(1_000_000)
    cli = ["redis-cli", "-h", lab.host_address(), "-p", _PORT]
    equal(lab.peer(*cli, "-x", "set", "key", stdin=path).ok().stdout.strip(), "OK", "the answer to SET")
    got = lab.peer(*cli, "--raw", "get", "key").ok().stdout_path.read_bytes()
    equal(got, path.read_bytes() + b"\n", "the value")
    server.end()
    lab.peer("redis-server", *options, "--bind", lab.peer_address, label="redis-peer")
    lab.wait_until_peer_listens(_PORT)
    cli[2] = lab.peer_address
    equal(lab.host(*cli, "-x", "set", "key", stdin=path).ok().stdout.strip(), "OK", "the answer to SET")
    equal(lab.host(*cli, "--raw", "get", "key").ok().stdout_path.read_bytes(), got, "the value")
    text = lab.host("redis-benchmark", "-h", lab.peer_address, "-p", _PORT, "-n", 5000, "-c", 20, "-t", "set,get",
                    "--csv").ok().stdout
    check('"SET"' in text and '"GET"' in text, text)


_MEMCACHE = """
import socket, sys, threading
def talk(n):
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    f = s.makefile('rwb')
    for i in range(100):
        value = bytes([n + 1]) * (100 * i + 1)
        f.write(b'set k%d.%d 0 0 %d\\r\\n%s\\r\\n' % (n, i, len(value), value)); f.flush()
        assert f.readline() == b'STORED\\r\\n'
        f.write(b'get k%d.%d\\r\\n' % (n, i)); f.flush()
        assert f.readline().startswith(b'VALUE')
        assert f.read(len(value) + 2) == value + b'\\r\\n' and f.readline() == b'END\\r\\n'
    good.append(n)
good = []
threads = [threading.Thread(target=talk, args=(n,)) for n in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert len(good) == 8
"""


@program("memcached", "memcached", always=True)
def memcached(context: Context, lab: Lab):
    """server: four threads, eight clients that set and get"""
    lab.host("memcached", "-u", "root", "-l", lab.host_address(), "-p", _PORT, "-U", 0, "-t", 4)
    lab.wait_until_listening(_PORT)
    lab.peer(PYTHON, "-c", _MEMCACHE, lab.host_address(), _PORT, label="clients").ok()


@program("psql", "psql")
def psql(context: Context, lab: Lab):
    """client: 100000 rows there and back"""
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise Skipped("no PostgreSQL server for the other side")
    directory = own_directory(context, "pg")
    shutil.chown(directory, "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    lab.peer(*as_postgres, programs[-1] / "initdb", "-A", "trust", "-D", directory / "data", label="initdb").ok(60)
    (directory / "data" / "pg_hba.conf").write_text("host all all all trust\nlocal all all trust\n")
    lab.peer(*as_postgres, programs[-1] / "postgres", "-D", directory / "data", "-h", lab.peer_address, "-p", _PORT,
             "-k", directory, label="postgres")
    lab.wait_until_peer_listens(_PORT)
    where = ["psql", "-h", lab.peer_address, "-p", _PORT, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-At"]
    rows = "".join(f"{n}\tvalue {n}\n" for n in range(100_000))
    lab.host(*where, "-c", "create table t (n int, v text)").ok()
    lab.host(*where, "-c", "copy t from stdin", stdin=rows.encode()).ok()
    equal(lab.host(*where, "-c", "copy (select * from t order by n) to stdout").ok().stdout, rows, "the rows")


# --- files


def _repository(context: Context) -> pathlib.Path:
    """A bare repository with a file of 1 MB in it."""
    work, bare = own_directory(context, "work"), own_directory(context, "repositories") / "r.git"
    shutil.copyfile(context.file(1_000_000), work / "data")

    def git(*argv):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *argv], cwd=work, check=True,
                       capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    git("clone", "-q", "--bare", ".", bare)
    subprocess.run(["git", "update-server-info"], cwd=bare, check=True)
    return bare


@program("git_http", "git", always=True)
def git_http(context: Context, lab: Lab):
    """client: clones over http"""
    bare = _repository(context)
    nginx = Nginx(lab)
    nginx.serve(bare)
    clone = context.directory / "clone"
    lab.host("git", "-c", "safe.directory=*", "clone", "-q", f"{nginx.url}/r.git", clone).ok()
    same_file(context, clone / "data", context.file(1_000_000))


@program("git_protocol", "git", always=True)
def git_protocol(context: Context, lab: Lab):
    """client: clones over git://"""
    bare = _repository(context)
    lab.peer("git", "-c", "safe.directory=*", "daemon", "--export-all", f"--base-path={bare.parent}",
             f"--port={_PORT}", f"--listen={lab.peer_address}", "--reuseaddr")
    lab.wait_until_peer_listens(_PORT)
    clone = context.directory / "clone"
    lab.host("git", "clone", "-q", f"git://{lab.peer_address}:{_PORT}/r.git", clone).ok()
    same_file(context, clone / "data", context.file(1_000_000))


def _rsync_daemon(context: Context, address: str, directory: pathlib.Path) -> list:
    config = context.directory / f"rsyncd-{address}.conf"
    config.write_text(f"use chroot = no\nuid = 0\ngid = 0\n[files]\npath = {directory}\nread only = no\n")
    return ["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={_PORT}", f"--address={address}"]


@program("rsync_client", "rsync", always=True)
def rsync_client(context: Context, lab: Lab):
    """client: a tree there and back"""
    directory, path = with_file(context, "tree")
    lab.peer(*_rsync_daemon(context, lab.peer_address, directory))
    lab.wait_until_peer_listens(_PORT)
    url = f"rsync://{lab.peer_address}:{_PORT}/files/"
    got = own_directory(context, "got")
    lab.host("rsync", "-a", url, f"{got}/").ok()
    same_file(context, got / "data", path)
    (got / "more").write_text("more")
    lab.host("rsync", "-a", f"{got}/", url).ok()
    equal((directory / "more").read_text(), "more", "what was sent")


@program("rsync_daemon", "rsync", always=True)
def rsync_daemon(context: Context, lab: Lab):
    """server: a child for each connection"""
    directory, path = with_file(context, "tree")
    lab.host(*_rsync_daemon(context, lab.host_address(), directory))
    lab.wait_until_listening(_PORT)
    got = own_directory(context, "got")
    lab.peer("rsync", "-a", f"rsync://{lab.host_address()}:{_PORT}/files/", f"{got}/").ok()
    same_file(context, got / "data", path)
