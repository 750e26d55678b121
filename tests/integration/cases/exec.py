"""Descriptors that leave the library: for other programs by exec and its like and by SCM_RIGHTS, for libc's stdio."""

from harness import Context, Lab, case, equal

PYTHON = "/usr/bin/python3"
SIZE = 600_000


def static_program(context: Context) -> str:
    """Copies its standard input to its standard output."""
    return str(context.compile("copy", """
#include <unistd.h>
int main(void) {
  char bytes[4096];
  for (;;) {
    ssize_t n = read(0, bytes, sizeof bytes);
    if (n <= 0) return n != 0;
    for (ssize_t done = 0, m; done < n; done += m)
      if ((m = write(1, bytes + done, n - done)) < 0) return 2;
  }
}
""", "-static"))


def run_checks(context: Context, *names: str) -> None:
    lab = context.lab()
    lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer").wait_for_output("ready")
    program = lab.host(PYTHON, "-B", context.tool("escapes.py"), lab.peer_address, lab.host_address(),
                       static_program(context), *names, label="escapes", cwd=context.directory)
    program.ok(60)
    equal(program.stdout.split(), list(names), "checks")


@case("exec.children_read", limit=90)
def children_read(context: Context):
    """Children by exec read what is for them and nothing else: all, nothing, in turns with the parent; a static one."""
    run_checks(context, "child_reads_all", "child_takes_nothing", "long_lived_child_takes_nothing", "turns",
               "static_child")


@case("exec.children_write", limit=90)
def children_write(context: Context):
    """Children write, close and half-close; an exec that fails leaves all as it was; system, popen, posix_spawn."""
    run_checks(context, "child_writes", "close_is_seen", "half_close", "failing_exec", "system_and_popen")


@case("exec.libc", limit=90)
def libc_io(context: Context):
    """fdopen, dprintf, stdout on a socket; bash with /dev/tcp, whose builtins write and whose children read."""
    run_checks(context, "libc_streams")
    lab = context.lab()
    lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer").wait_for_output("ready")
    script = (f"exec 3<>/dev/tcp/{lab.peer_address}/7001; echo built in >&3; read -r a <&3; /bin/echo child >&3; "
              'read -r b <&3; date >/dev/null; printf "%s\\n" last >&3; c=$(head -n 1 <&3); echo "$a/$b/$c"')
    equal(lab.host("bash", "-c", script).ok().stdout, "built in/child/last\n", "what bash has read")


@case("exec.rights", limit=90)
def rights(context: Context):
    """SCM_RIGHTS to a stranger and to a relative; a child under the library knows what it has inherited."""
    run_checks(context, "told_about", "rights", "rights_to_relative")


def echo_through(context: Context, lab: Lab, port: int, name: str) -> None:
    """Sends a file to a server on the host that echoes, ends the direction and compares what comes back."""
    path, back = context.file(SIZE), context.directory / f"back-{name}"
    client = ("import socket, sys, threading, time\n"
              "for attempt in range(150):\n"
              "  try:\n"
              "    c = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)\n"
              "    break\n"
              "  except OSError:\n"
              "    time.sleep(0.1)\n"
              "data = open(sys.argv[3], 'rb').read()\n"
              "def send():\n  c.sendall(data)\n  c.shutdown(socket.SHUT_WR)\n"
              "threading.Thread(target=send).start()\n"
              "got = b''\n"
              "while piece := c.recv(65536):\n  got += piece\n"
              "open(sys.argv[4], 'wb').write(got)\n")
    lab.peer(PYTHON, "-c", client, lab.host_address(), port, path, back, label=name).ok(30)
    equal(context.sha256(back), context.sha256(path), f"sha256 of what came back ({name})")


@case("exec.super_servers", limit=90)
def super_servers(context: Context):
    """inetd, socat EXEC (with and without nofork), nc -e: the connection becomes a program's stdin and stdout."""
    copy = static_program(context)
    configuration = context.directory / "inetd.conf"
    host = Lab.host_address()
    configuration.write_text(f"{host}:5001 stream tcp nowait root /bin/cat cat\n"
                             f"{host}:5002 stream tcp nowait root {copy} copy\n")
    servers = {
        "inetd": ["/usr/sbin/inetutils-inetd", "-d", configuration],
        "socat-nofork": ["socat", f"TCP-LISTEN:5001,bind={host},reuseaddr,fork", "EXEC:/bin/cat,nofork"],
        "socat": ["socat", f"TCP-LISTEN:5001,bind={host},reuseaddr,fork", "EXEC:/bin/cat"],
        "nc-e": ["nc.traditional", "-l", "-s", host, "-p", "5001", "-e", "/bin/cat"],
    }
    for name, command in servers.items():
        lab = context.lab()
        server = lab.host(*command, label=name)
        echo_through(context, lab, 5001, name)
        if name == "inetd":
            echo_through(context, lab, 5002, "inetd-static")
        if name == "nc-e":  # it serves one connection
            server.ok(10)


@case("exec.activation", limit=90)
def activation(context: Context):
    """A listener inherited over exec, as by socket activation: by a program without the library and with it."""
    lab = context.lab()
    for number, kind in enumerate(("plain", "library")):
        port = 5003 + number
        server = lab.host(PYTHON, "-B", context.tool("activation.py"), kind, lab.host_address(), port,
                          lab.peer_address, label=f"activated-{kind}")
        server.wait_for_output("listening")
        for _ in range(3):
            echo_through(context, lab, port, kind)
        server.ok(20)
