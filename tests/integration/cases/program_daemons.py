"""Still more servers and relays, each its own way of being a daemon: run where they are installed, all by scripts/compat."""

import subprocess

from cases.program_matrix import PYTHON, certificate, own_directory, program, same_file, with_file
from cases.program_services import _PORT, configuration, listening, through_proxy, through_relay
from harness import Context, Lab, Skipped, check, equal, need_root


def both_ways(lab: Lab):
    """Who starts the server, at which address, and who the client: the host and the peer, and the other way round."""
    yield lab.host, lab.host_address(), lab.peer
    yield lab.peer, lab.peer_address, lab.host


@program("danted", "danted")
def danted(context: Context, lab: Lab):
    """server: SOCKS; opens its first socket as another effective user, and hands connections between its processes"""
    need_root()
    through_proxy(context, lab, ["danted", "-f", configuration(context, f"""
logoutput: {context.directory}/log
internal: {lab.host_address()} port = {_PORT}
external: {lab.host_address()}
socksmethod: none
clientmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
""")], "--socks5")


@program("microsocks", "microsocks")
def microsocks(context: Context, lab: Lab):
    """server: SOCKS, a thread for each connection"""
    through_proxy(context, lab, ["microsocks", "-i", lab.host_address(), "-p", _PORT], "--socks5")


@program("privoxy", "privoxy")
def privoxy(context: Context, lab: Lab):
    """server: a proxy with poll"""
    through_proxy(context, lab, ["privoxy", "--no-daemon",
                                 configuration(context, f"listen-address {lab.host_address()}:{_PORT}\n")])


@program("redir", "redir")
def redir(context: Context, lab: Lab):
    """server: a process for each connection, with select"""
    through_relay(context, lab, lambda origin: ["redir", "-n", f"{lab.host_address()}:{_PORT}", origin])


@program("rinetd", "rinetd")
def rinetd(context: Context, lab: Lab):
    """server: a relay on libuv"""
    through_relay(context, lab, lambda origin: ["rinetd", "-f", "-c", configuration(
        context, f"{lab.host_address()} {_PORT} {origin.replace(':', ' ')}\n")])


@program("sslh", "sslh")
def sslh(context: Context, lab: Lab):
    """server: looks at what comes (MSG_PEEK) before it chooses where it goes"""
    through_relay(context, lab, lambda origin: ["sslh", "-f", "-n", "--user", "root", "-p",
                                                f"{lab.host_address()}:{_PORT}", "--http", origin])


@program("hitch", "hitch")
def hitch(context: Context, lab: Lab):
    """server: TLS on libev, two workers that have given up root"""
    need_root()
    context.open_to_all()
    key, cert = certificate(context.directory)
    both = context.directory / "both.pem"
    both.write_text(key.read_text() + cert.read_text())
    through_relay(context, lab, lambda origin: [
        "hitch", "--user=nobody", "--group=nogroup", "-f", f"[{lab.host_address()}]:{_PORT}", "-b",
        "[{}]:{}".format(*origin.split(":")), "--workers=2", both], "--insecure", scheme="https")


@program("nghttpd", "nghttpd", "h2load")
def nghttpd(context: Context, lab: Lab):
    """server and client: HTTP/2, a hundred requests at a time in ten connections"""
    directory, path = with_file(context, "nghttpd")
    key, cert = certificate(context.directory)
    server = listening(lab, "nghttpd", "-d", directory, "-a", lab.host_address(), _PORT, key, cert)
    load = ["h2load", "-n", 500, "-c", 10, "-m", 10, "--connection-active-timeout", 60]
    done = lab.peer(*load, f"https://{lab.host_address()}:{_PORT}/{path.name}", label="load").ok(60)
    check("500 succeeded, 0 failed" in done.stdout, done.stdout)
    server.end()
    lab.peer("nghttpd", "-d", directory, "-a", lab.peer_address, _PORT, key, cert, label="peer")
    lab.wait_until_listening(_PORT, lab.peer_address)
    done = lab.host(*load, f"https://{lab.peer_address}:{_PORT}/{path.name}", label="client").ok(60)
    check("500 succeeded, 0 failed" in done.stdout, done.stdout)


@program("samba", "smbd", "smbclient")
def samba(context: Context, lab: Lab):
    """server and client: a file there and back; a process for each connection, users changed by bare system calls"""
    need_root()
    directory, path = with_file(context, "samba")
    own = own_directory(context, "samba-own")
    settings = configuration(context, "[global]\nserver role = standalone server\nmap to guest = Bad User\n"
                             f"smb ports = {_PORT}\nlog file = {own}/log\ndisable spoolss = yes\n"
                             + "".join(f"{name} = {own}\n" for name in ("private dir", "lock directory", "state directory",
                                                                        "cache directory", "pid directory"))
                             + f"ncalrpc dir = {own}/rpc\n[share]\npath = {directory}\nguest ok = yes\nread only = no\n"
                             "force user = root\n")
    for start, address, client in both_ways(lab):
        server = start("smbd", "-F", "--no-process-group", "-s", settings, label="server")
        lab.wait_until_listening(_PORT, address)
        got, back = context.directory / "got", directory / "back"
        client("smbclient", "-p", _PORT, f"//{address}/share", "-N", "-c", f"get {path.name} {got}; put {got} back",
               label="client").ok(40)
        same_file(context, got, path)
        same_file(context, back, path)
        for each in (got, back):
            each.unlink()
        server.end()


@program("svn", "svnserve", "svn", "svnadmin")
def svn(context: Context, lab: Lab):
    """server and client: a file committed and checked out again"""
    directory, path = with_file(context, "svn")
    subprocess.run(["svnadmin", "create", directory / "repository"], check=True)
    settings = directory / "repository/conf/svnserve.conf"
    settings.write_text("[general]\nanon-access = write\n")
    for start, address, client in both_ways(lab):
        server = start("svnserve", "-d", "--foreground", "-r", directory, "--listen-port", _PORT, label="server")
        lab.wait_until_listening(_PORT, address)
        copy, again, url = (context.directory / "copy", context.directory / "again", f"svn://{address}:{_PORT}/repository")
        client("sh", "-ec", f"svn -q co {url} {copy}; cp {path} {copy}/{address}; cd {copy}; svn -q add {address}; "
               f"svn -q ci -m x; svn -q co {url} {again}; rm -rf {copy}", label="client").ok(40)
        same_file(context, again / address, path)
        subprocess.run(["rm", "-rf", again], check=True)
        server.end()


@program("nbd", "nbdkit", "nbdcopy")
def nbd(context: Context, lab: Lab):
    """server and client: a disk of 2 MB, read in several connections"""
    _, path = with_file(context, "nbd")
    for start, address, client in both_ways(lab):
        server = start("nbdkit", "-f", "-p", _PORT, "-i", address, "file", path, label="server")
        lab.wait_until_listening(_PORT, address)
        got = context.directory / "got"
        client("nbdcopy", f"nbd://{address}:{_PORT}", got, label="client").ok(40)
        equal(got.read_bytes()[:path.stat().st_size] == path.read_bytes(), True, "the same")
        got.unlink()
        server.end()


@program("gdbserver", "gdbserver", "gdb")
def gdbserver(context: Context, lab: Lab):
    """server and client: a program is stopped, looked at and run to its end"""
    target = context.compile("target", "int main(void) { volatile int i = 0; while (i < 9) ++i; return 7; }\n", "-g")
    for start, address, client in both_ways(lab):
        server = start("gdbserver", "--once", f"{address}:{_PORT}", target, label="server")
        server.wait_for_output("Listening on", stream="stderr")
        done = client("gdb", "-batch", "-nx", "-ex", f"target remote {address}:{_PORT}", "-ex", "break main", "-ex", "continue",
                      "-ex", "continue", target, label="client").ok(40)
        check("exited with code 07" in done.stdout, done.stdout)
        server.end()


@program("zeromq", PYTHON)
def zeromq(context: Context, lab: Lab):
    """server and client: four threads of requests of every size"""
    server = ("import sys, zmq\ncontext = zmq.Context(4)\nsocket = context.socket(zmq.REP)\n"
              f"socket.bind(f'tcp://{{sys.argv[1]}}:{_PORT}')\nprint('bound', flush=True)\n"
              "while True: socket.send(socket.recv())\n")
    client = ("import os, sys, threading, zmq\ndef ask():\n"
              f"    socket = zmq.Context().socket(zmq.REQ); socket.connect(f'tcp://{{sys.argv[1]}}:{_PORT}')\n"
              "    for size in range(1000):\n        text = os.urandom(10 * size); socket.send(text)\n"
              "        assert socket.recv() == text\n    print('right')\n"
              "threads = [threading.Thread(target=ask) for _ in range(4)]\n"
              "for each in threads: each.start()\nfor each in threads: each.join()\n")
    if subprocess.run([PYTHON, "-c", "import zmq"], capture_output=True).returncode != 0:
        raise Skipped("python3-zmq is not installed")
    for start, address, other in both_ways(lab):
        process = start(PYTHON, "-c", server, address, label="server")
        process.wait_for_output("bound")
        equal(other(PYTHON, "-c", client, address, label="client").ok(40).stdout, "right\n" * 4, "answers")
        process.end()


@program("slapd", "slapd", "ldapadd", "ldapsearch")
def slapd(context: Context, lab: Lab):
    """server and client: 300 entries put in, and found by eight at once"""
    own = own_directory(context, "slapd")
    settings = configuration(context, "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n"
                             f"pidfile {own}/pid\ndatabase mdb\nsuffix dc=x\nrootdn cn=a,dc=x\nrootpw s\ndirectory {own}\n")
    entries = context.directory / "entries"
    entries.write_text("dn: dc=x\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: x\n" + "".join(
        f"\ndn: cn=p{i},dc=x\nobjectClass: person\ncn: p{i}\nsn: s{i}\n" for i in range(300)))
    for start, address, client in both_ways(lab):
        server = start("slapd", "-d", 0, "-f", settings, "-h", f"ldap://{address}:{_PORT}", label="server")
        lab.wait_until_listening(_PORT, address)
        url = f"ldap://{address}:{_PORT}"
        if start == lab.host:
            client("ldapadd", "-x", "-H", url, "-D", "cn=a,dc=x", "-w", "s", "-f", entries, label="add").ok(40)
        search = client("sh", "-c", f"for i in 1 2 3 4 5 6 7 8; do ldapsearch -x -H {url} -b dc=x | grep -c '^cn:' & done; wait",
                        label="search").ok(40)
        equal(search.stdout.split(), ["300"] * 8, "found")
        server.end()


@program("knot", "knotd", "dig")
def knot(context: Context, lab: Lab):
    """server: answers and a zone of 3000 names over TCP"""
    own = own_directory(context, "knot")
    (own / "x.zone").write_text("$ORIGIN x.\n@ 60 IN SOA a b 1 1 1 1 1\n@ NS a\na A 192.0.2.9\n" + "".join(
        f"h{i} A 192.0.2.7\n" for i in range(3000)))
    server = listening(lab, "knotd", "-c", configuration(context, f"""
server:
  listen: {lab.host_address()}@{_PORT}
  rundir: {own}
database:
  storage: {own}
template:
  - id: default
    storage: {own}
    file: x.zone
acl:
  - id: all
    action: transfer
zone:
  - domain: x
    acl: all
"""))
    ask = ["dig", f"@{lab.host_address()}", "-p", _PORT]
    for number in range(4):
        equal(lab.peer(*ask, "+tcp", "+short", "a.x", label=f"ask-{number}").ok(20).stdout, "192.0.2.9\n", "address")
    zone = lab.peer(*ask, "x.", "axfr", label="zone").ok(20).stdout
    equal(zone.count("192.0.2.7"), 3000, "names in the zone")
    server.end()
