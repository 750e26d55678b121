"""All of it without root: scripts/lab and scripts/ustack in a user namespace of the user's own."""

import subprocess

from cases.wrong_input import _NOBODY, _TUN_0666, _with_tun
from harness import Context, Skipped, case, check, counters_in, equal

PYTHON = "/usr/bin/python3"


def _as_user(context: Context, *argv) -> list[str]:
    if subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Urn", "true"],
                      capture_output=True).returncode != 0:
        raise Skipped("this kernel allows no user namespaces to ordinary users")
    prefix = _with_tun(_TUN_0666 if not context.kernel_mode else ":")
    # A working directory that such a user can read.
    return [*prefix, "env", "-C", "/", "XDG_RUNTIME_DIR=", *_NOBODY, *(str(argument) for argument in argv)]


def _serve_and_fetch(context: Context, fetch: str, port: int) -> str:
    """A shell text: the kernel's side serves, `fetch` fetches to stdout."""
    page = context.file(1_000_000)
    return (f"{PYTHON} -m http.server {port} --bind 192.0.2.1 --directory {page.parent} >/dev/null 2>&1 & server=$!; "
            f"for i in $(seq 100); do ss -Hltn 'sport = :{port}' | grep -q . && break; sleep 0.05; done; "
            f"{fetch} http://192.0.2.1:{port}/{page.name}; status=$?; kill $server; exit $status")


@case("user.lab", kernel=False)
def user_lab(context: Context):
    """scripts/lab run and curl under the library as an ordinary user."""
    library = context.library
    text = _serve_and_fetch(context, f"env LD_PRELOAD={library} curl -sS --fail --max-time 20", 8000)
    done = context.start(_as_user(context, context.script("lab"), "run", "peer", "--", "bash", "-c", text),
                         label="lab").ok(40)
    equal(context.sha256(done.stdout_path), context.sha256(context.file(1_000_000)), "sha256 of what arrived")


@case("user.launcher", kernel=False)
def user_launcher(context: Context):
    """scripts/ustack --netns as an ordinary user: a namespace, a TAP and its kernel side, and the exit status."""
    launcher = [context.script("ustack"), "--library", context.library, "--netns"]
    done = context.start(_as_user(context, *launcher, "--", "curl", "-sS", "--max-time", "10", "http://192.0.2.1:9/"),
                         label="ustack")
    # The kernel's side is there and refuses; a missing TAP would be another message.
    equal(done.wait(30), 7, "curl's status")
    check("ustack" not in done.stderr, done.describe())


@case("user.launcher_needs", kernel=False)
def user_launcher_needs(context: Context):
    """scripts/ustack without rights says which one is missing before anything starts."""
    launcher = [context.script("ustack"), "--library", context.library, "--"]
    done = context.start(_as_user(context, *launcher, "/bin/echo", "started"), label="ustack")
    equal(done.wait(30), 1, "status")
    equal(done.stdout, "", "output")
    check("CAP_NET_ADMIN" in done.stderr and "--netns" in done.stderr, done.describe())


@case("launcher.options", kernel=False)
def launcher_options(context: Context):
    """scripts/ustack: options in place of variables, a TAP made, log, capture and counters written."""
    lab = context.lab()
    page = context.file(200_000)
    lab.peer(PYTHON, "-m", "http.server", "8000", "--bind", "0.0.0.0", "--directory", page.parent)
    lab.wait_until_peer_listens(8000)
    stem = context.directory / "shown"
    got = lab.peer(context.script("ustack"), "--library", context.library, "--make-tap=203.0.113.1/24",
                   "--link", "tap:made0", "--mac=02:00:00:00:00:07", "--sysctl", "net.ipv4.ip_default_ttl=61",
                   "--log", f"debug:{stem}.log", "--capture", f"{stem}.pcapng", "--counters", f"{stem}.counters",
                   "--io", "plain", "curl", "-sS", "--fail", "--max-time", "20",
                   f"http://203.0.113.1:8000/{page.name}").ok()
    equal(context.sha256(got.stdout_path), context.sha256(page), "sha256 of what arrived")
    frames = context.start(["tshark", "-n", "-r", f"{stem}.pcapng", "-T", "fields", "-e", "eth.src", "-e", "ip.src",
                            "-e", "ip.ttl", "-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0"], label="tshark").ok()
    equal(frames.stdout.split(), ["02:00:00:00:00:07", "203.0.113.2", "61"], "the SYN in the capture")
    check((context.directory / "shown.log").stat().st_size > 0, "the log is empty")
    counters = counters_in(context.directory / "shown.counters")
    equal(counters["TcpActiveOpens"], 1, "TcpActiveOpens")
    check(counters["TcpInSegs"] > 3, "TcpInSegs is too low")


@case("launcher.wrong_options", kernel=False)
def launcher_wrong_options(context: Context):
    """scripts/ustack: unknown options, missing values, a missing program or library."""
    script = context.script("ustack")
    for arguments, words in ((["--nonsense", "ls"], "unknown option"), (["--addr"], "needs a value"),
                             (["--library", "/nonexistent", "ls"], "/nonexistent"),
                             (["--library", context.library, "no-such-program"], "no-such-program"), ([], "scripts/ustack")):
        done = context.start([script, *arguments], label="ustack")
        check(done.wait(10) != 0, f"it started\n{done.describe()}")
        check(words in done.stderr, done.describe())
