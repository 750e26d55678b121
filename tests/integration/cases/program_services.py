"""More servers, and apt: run where they are installed (scripts/install-deps doesn't bring them), all by scripts/compat."""

import pathlib
import subprocess
from collections.abc import Callable

from cases.program_matrix import PYTHON, certificate, own_directory, program, same_file, with_file
from harness import Context, Lab, Nginx, Process, Skipped, check, equal, need_root

_PORT = 7400
_SIDE_BY_SIDE = 8


def listening(lab: Lab, *server, timeout: float = 15, **more) -> Process:
    process = lab.host(*server, **more)
    lab.wait_until_listening(_PORT, lab.host_address(), timeout)
    return process


def serve_side_by_side(context: Context, lab: Lab, server: list, url: str, wanted: pathlib.Path, *options: str,
                       **more) -> None:
    """Starts the server, has the peer fetch the same several times at once, and ends it."""
    process = listening(lab, *server, **more)
    got = [context.directory / f"got-{number}" for number in range(_SIDE_BY_SIDE)]
    fetches = [lab.peer("curl", "-sS", "--fail", "--max-time", "40", "-o", path, *options, url, label=path.name)
               for path in got]
    for fetch, path in zip(fetches, got):
        fetch.ok(45)
        same_file(context, path, wanted)
    process.end()


def through_proxy(context: Context, lab: Lab, server: list, option: str = "--proxy") -> None:
    """The same by a proxy, from a kernel's nginx. `option`: by which curl is told of it."""
    path = context.file(2_000_000)
    serve_side_by_side(context, lab, server, Nginx(lab).serve(path), path, option, f"{lab.host_address()}:{_PORT}")


def configuration(context: Context, text: str) -> pathlib.Path:
    path = context.directory / "configuration"
    path.write_text(text)
    return path


def origin_of(lab: Lab, path: pathlib.Path) -> tuple[str, str]:
    """A kernel's nginx that serves it: address and port, and under which name."""
    host, _, name = Nginx(lab).serve(path).removeprefix("http://").partition("/")
    return host if ":" in host else f"{host}:80", name


def through_relay(context: Context, lab: Lab, server: Callable[[str], list], *options: str, scheme: str = "http") -> None:
    """The same through what leads to a kernel's nginx. `server`: the command, for the address and port of that."""
    path = context.file(2_000_000)
    origin, name = origin_of(lab, path)
    serve_side_by_side(context, lab, server(origin), f"{scheme}://{lab.host_address()}:{_PORT}/{name}", path, "--header",
                       f"Host: {origin}", *options)


# --- proxies: both a client and a server


@program("squid", "squid")
def squid(context: Context, lab: Lab):
    """server: a proxy, 8 fetches of 2 MB side by side from a kernel's nginx"""
    through_proxy(context, lab, ["squid", "-N", "-f", configuration(context, f"""
http_port {_PORT}
http_access allow all
cache deny all
pid_filename none
access_log none
cache_log {context.directory}/cache.log
coredump_dir {context.directory}
shutdown_lifetime 0 seconds
""")])


@program("tinyproxy", "tinyproxy")
def tinyproxy(context: Context, lab: Lab):
    """server: the same with a thread for each connection"""
    through_proxy(context, lab, ["tinyproxy", "-d", "-c",
                                 configuration(context, f"Port {_PORT}\nTimeout 60\nMaxClients 20\n")])


@program("varnish", "varnishd")
def varnish(context: Context, lab: Lab):
    """server: a cache of a hundred threads in a child that has given up root, 8 fetches of 2 MB side by side"""
    need_root()
    context.open_to_all()
    path = context.file(2_000_000)
    origin, name = origin_of(lab, path)
    server = ["varnishd", "-F", "-a", f":{_PORT}", "-b", origin, "-n", own_directory(context, "varnish"), "-T", "none"]
    serve_side_by_side(context, lab, server, f"http://{lab.host_address()}:{_PORT}/{name}", path)


@program("stunnel", "stunnel")
def stunnel(context: Context, lab: Lab):
    """server: TLS in front of a kernel's nginx, 8 fetches of 2 MB side by side"""
    key, cert = certificate(context.directory)
    through_relay(context, lab, lambda origin: ["stunnel", configuration(context, f"""
foreground = yes
pid =
[front]
accept = {_PORT}
connect = {origin}
cert = {cert}
key = {key}
""")], "--insecure", scheme="https")


# --- servers of the web


@program("uwsgi", "uwsgi")
def uwsgi(context: Context, lab: Lab):
    """server: a router and two processes of two threads each, 8 answers of 2 MB side by side"""
    directory, path = with_file(context, "uwsgi")
    (directory / "app.py").write_text("def application(environ, start_response):\n"
                                      "    start_response('200 OK', [])\n"
                                      f"    return [open({str(path)!r}, 'rb').read()]\n")
    server = ["uwsgi", "--plugin", "http,python3", "--http", f":{_PORT}", "--wsgi-file", directory / "app.py",
              "--master", "--processes", 2, "--threads", 2, "--die-on-term"]
    serve_side_by_side(context, lab, server, f"http://{lab.host_address()}:{_PORT}/", path)


@program("php", "php")
def php(context: Context, lab: Lab):
    """server: its own web server with four processes, 8 fetches of 2 MB side by side"""
    directory, path = with_file(context, "php")
    (directory / "data.php").write_text(f"<?php readfile({str(path)!r});\n")
    server = ["php", "-S", f"0.0.0.0:{_PORT}", "-t", directory]
    serve_side_by_side(context, lab, server, f"http://{lab.host_address()}:{_PORT}/data.php", path,
                       env={"PHP_CLI_SERVER_WORKERS": "4"})


@program("puma", "puma")
def puma(context: Context, lab: Lab):
    """server: Ruby, two processes of two to four threads, 8 answers of 2 MB side by side"""
    directory, path = with_file(context, "puma")
    (directory / "config.ru").write_text(f"run ->(env) {{ [200, {{}}, [File.binread('{path}')]] }}\n")
    server = ["puma", "-b", f"tcp://0.0.0.0:{_PORT}", "-w", 2, "-t", "2:4", directory / "config.ru"]
    serve_side_by_side(context, lab, server, f"http://{lab.host_address()}:{_PORT}/", path)


@program("erlang", "erl")
def erlang(context: Context, lab: Lab):
    """server: inets' httpd, schedulers and poll threads of its own, 8 fetches of 2 MB side by side"""
    directory, path = with_file(context, "erlang")
    server = ["erl", "-noshell", "-eval", "inets:start(), {ok, _} = inets:start(httpd, ["
              f'{{port, {_PORT}}}, {{server_name, "x"}}, {{server_root, "{directory}"}}, '
              f'{{document_root, "{directory}"}}, {{bind_address, any}}]).']
    serve_side_by_side(context, lab, server, f"http://{lab.host_address()}:{_PORT}/data", path)


# --- databases and queues


@program("mariadb", "mariadbd", limit=120)
def mariadb(context: Context, lab: Lab):
    """server: gives up root before it listens; a table over the link and back, 2000 queries of 8 clients"""
    need_root()
    context.open_to_all()
    data = own_directory(context, "mariadb")
    lab.peer("mariadb-install-db", "--user=mysql", f"--datadir={data}", "--skip-test-db", label="install").ok(60)
    socket = data / "socket"
    server = listening(lab, "mariadbd", "--no-defaults", "--user=mysql", f"--datadir={data}", f"--socket={socket}",
                       f"--port={_PORT}", "--skip-grant-tables", "--bind-address=*", "--max-allowed-packet=16M", timeout=60)
    client = ["mariadb", "--no-defaults", "-h", lab.host_address(), "-P", _PORT, "--skip-ssl", "--max-allowed-packet=16M"]
    path = context.file(2_000_000)
    query = context.directory / "query"
    query.write_text("create database d; create table d.t (b longblob); "
                     f"insert into d.t values (x'{path.read_bytes().hex()}');")
    lab.peer("sh", "-c", '"$@" < ' + str(query), "sh", *client, label="insert").ok(30)
    got = lab.peer(*client, "-N", "-e", "select hex(b) from d.t", label="select").ok(30)
    equal(bytes.fromhex(got.stdout), path.read_bytes(), "what came back")
    slap = lab.peer("mariadb-slap", "--no-defaults", "-h", lab.host_address(), "-P", _PORT, "--skip-ssl", "-a", "-c", 8,
                    "-i", 1, "--number-of-queries=2000", label="slap").ok(60)
    check("Average number of seconds" in slap.stdout, slap.describe())
    server.end()


@program("mosquitto", "mosquitto")
def mosquitto(context: Context, lab: Lab):
    """server: 20 messages of 100 KB, each to 8 subscribers side by side"""
    if not pathlib.Path("/usr/bin/mosquitto_sub").exists():
        raise Skipped("mosquitto-clients is not installed")
    server = listening(lab, "mosquitto", "-c", configuration(context, f"listener {_PORT}\nallow_anonymous true\n"))
    broker = ["-h", lab.host_address(), "-p", _PORT, "-q", 1]
    message = context.file(100_000)
    for number in range(20):
        lab.peer("mosquitto_pub", *broker, "-r", "-t", f"topic/{number}", "-f", message, label="publisher").ok(20)
    subscribers = [lab.peer("mosquitto_sub", *broker, "-t", "topic/+", "-N", "-C", 20, "-W", 30, label=f"subscriber{number}")
                   for number in range(_SIDE_BY_SIDE)]
    for subscriber in subscribers:
        subscriber.ok(40)
        check(subscriber.stdout_path.read_bytes() == 20 * message.read_bytes(), "the messages are others")
    server.end()


@program("beanstalkd", "beanstalkd")
def beanstalkd(context: Context, lab: Lab):
    """server: 500 jobs by one producer, reserved and deleted by four workers"""
    server = listening(lab, "beanstalkd", "-l", "0.0.0.0", "-p", _PORT)
    workers = [lab.peer(PYTHON, "-c", _WORKER, lab.host_address(), _PORT, label=f"worker{number}") for number in range(4)]
    lab.peer(PYTHON, "-c", _PRODUCER, lab.host_address(), _PORT, label="producer").ok(30)
    jobs = []
    for worker in workers:
        jobs += map(int, worker.ok(30).stdout.split())
    equal(sorted(jobs), list(range(500)), "jobs done")
    server.end()


_PRODUCER = """
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
answers = link.makefile()
for job in [*map(str, range(500)), *['end'] * 4]:
    link.sendall(f'put 0 0 60 {len(job)}\\r\\n{job}\\r\\n'.encode())
    assert answers.readline().startswith('INSERTED')
"""
_WORKER = """
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
answers = link.makefile()
while True:
    link.sendall(b'reserve\\r\\n')
    number = answers.readline().split()[1]
    job = answers.readline().strip()
    link.sendall(f'delete {number}\\r\\n'.encode())
    assert answers.readline().startswith('DELETED')
    if job == 'end': break
    print(job)
"""


# --- names and mail

_ASK = """
import socket, struct, sys
name = b''.join(bytes([len(part)]) + part.encode() for part in 'host.test'.split('.')) + b'\\0'
question = struct.pack('>6H', 7, 0x100, 1, 0, 0, 0) + name + struct.pack('>2H', 1, 1)
for _ in range(20):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as link:
        for _ in range(20):
            link.sendall(struct.pack('>H', len(question)) + question)
            answer = link.makefile('rb').read(2 + len(question) + 16)
            assert answer[-4:] == socket.inet_aton('192.0.2.77'), answer
"""


def ask_for_names(context: Context, lab: Lab, *server) -> None:
    process = listening(lab, *server)
    for asked in [lab.peer(PYTHON, "-c", _ASK, lab.host_address(), _PORT, label=f"ask{number}") for number in range(4)]:
        asked.ok(40)
    process.end()


def unbound_at(context: Context, *addresses: str) -> list:
    """The command of an unbound that knows host.test."""
    interfaces = "\n".join(f"  interface: {address}" for address in addresses)
    return ["unbound", "-d", "-c", configuration(context, f"""
server:
{interfaces}
  port: {_PORT}
  do-daemonize: no
  access-control: 192.0.2.0/24 allow
  access-control: 2001:db8::/32 allow
  chroot: ""
  username: "nobody"
  pidfile: ""
  directory: "{context.directory}"
  use-syslog: no
  num-threads: 2
  local-data: "host.test. IN A 192.0.2.77"
remote-control:
  control-enable: no
""")]


def zone_in(context: Context, name: str = "zones") -> pathlib.Path:
    """A directory with the same in a zone file."""
    directory = own_directory(context, name)
    directory.chmod(0o777)
    (directory / "zone").write_text("$TTL 60\n@ SOA a. b. 1 1 1 1 1\n@ NS host.test.\nhost A 192.0.2.77\n")
    return directory


@program("unbound", "unbound")
def unbound(context: Context, lab: Lab):
    """server: two threads, gives up root; 1600 questions over TCP on 80 connections"""
    need_root()
    context.open_to_all()
    ask_for_names(context, lab, *unbound_at(context, "0.0.0.0"))


@program("bind9", "named")
def bind9(context: Context, lab: Lab):
    """server: gives up root before it listens; the same"""
    need_root()
    context.open_to_all()
    directory = zone_in(context, "bind9")
    ask_for_names(context, lab, "named", "-g", "-u", "bind", "-c", configuration(context, f"""
options {{
  directory "{directory}"; listen-on port {_PORT} {{ any; }}; listen-on-v6 {{ none; }}; recursion no; pid-file none;
  session-keyfile none; allow-query {{ any; }}; managed-keys-directory "{directory}"; dnssec-validation no;
}};
zone "test" {{ type master; file "{directory}/zone"; }};
"""))


@program("dovecot", "dovecot")
def dovecot(context: Context, lab: Lab):
    """server: 8 IMAP sessions side by side, each passed on from a login process in its sandbox to one of the user's"""
    need_root()
    context.open_to_all()
    mail = own_directory(context, "mail")
    mail.chmod(0o777)
    server = listening(lab, "dovecot", "-F", "-c", configuration(context, f"""
base_dir = {context.directory}/dovecot
log_path = {context.directory}/log
protocols = imap
listen = *
ssl = no
disable_plaintext_auth = no
service imap-login {{
  inet_listener imap {{
    port = {_PORT}
  }}
}}
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={mail}/%u
}}
mail_location = maildir:{mail}/%u
first_valid_uid = 1
"""))
    message = context.directory / "message"
    text = context.file(100_000).read_bytes().hex()
    lines = "\r\n".join(text[at:at + 70] for at in range(0, len(text), 70))
    message.write_bytes(f"Subject: text\r\n\r\n{lines}\r\n".encode())
    sessions = [lab.peer(PYTHON, "-c", "import imaplib, sys\n"
                         "server = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]), 20)\n"
                         "server.login(sys.argv[3], 'secret')\n"
                         "text = open(sys.argv[4], 'rb').read()\n"
                         "server.append('INBOX', None, None, text)\n"
                         "server.select()\n"
                         "assert server.fetch('1', '(RFC822)')[1][0][1] == text\n"
                         "print(server.logout()[0])", lab.host_address(), _PORT, f"user{number}", message,
                         label=f"session{number}")
                for number in range(_SIDE_BY_SIDE)]
    for session in sessions:
        equal(session.ok(40).stdout.strip(), "BYE", "the end")
    server.end()


@program("exim", "exim4")
def exim(context: Context, lab: Lab):
    """server: a process for each connection; 8 dialogues side by side"""
    need_root()
    server = listening(lab, "exim4", "-bdf", "-oX", f"0.0.0.0.{_PORT}", "-oP", context.directory / "pid")
    dialogues = [lab.peer(PYTHON, "-c", "import smtplib, sys\n"
                          "with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=20) as server:\n"
                          "    print(server.ehlo('peer.test')[0], server.noop()[0])", lab.host_address(), _PORT,
                          label=f"dialogue{number}") for number in range(_SIDE_BY_SIDE)]
    for dialogue in dialogues:
        equal(dialogue.ok(40).stdout.split(), ["250", "250"], "answers")
    server.end()


# --- clients


@program("apt", "/usr/lib/apt/apt-helper", always=True)
def apt(context: Context, lab: Lab):
    """client: its method gives up root before it connects; 20 MB, the hash checked"""
    path, got = context.file(20_000_000), own_directory(context, "apt") / "got"
    context.open_to_all()
    got.parent.chmod(0o777)
    lab.host("/usr/lib/apt/apt-helper", "download-file", Nginx(lab).serve(path), got,
             f"SHA256:{context.sha256(path)}").ok()
    same_file(context, got, path)


@program("php_curl", "php")
def php_curl(context: Context, lab: Lab):
    """client: its curl extension, which PHP opens with RTLD_DEEPBIND; 2 MB"""
    if "curl" not in subprocess.run(["php", "-m"], capture_output=True, text=True).stdout:
        raise Skipped("php-curl is not installed")
    path, got = context.file(2_000_000), context.directory / "got"
    lab.host("php", "-r", f"$c = curl_init('{Nginx(lab).serve(path)}'); $to = fopen('{got}', 'w'); "
             "curl_setopt($c, CURLOPT_FILE, $to); if (!curl_exec($c)) exit(1); fclose($to); "
             f"if (curl_getinfo($c, CURLINFO_LOCAL_IP) != '{lab.host_address()}') exit(2);").ok()
    same_file(context, got, path)
