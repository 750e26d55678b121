"""Programs with other libraries preloaded, and programs that are several: run where they are installed, all by scripts/compat."""

import json
import pathlib
import subprocess

from cases.program_matrix import PYTHON, own_directory, program, same_file, with_file
from cases.program_services import _PORT, configuration, listening
from harness import Context, Lab, Nginx, check, equal, need_root, wait_until


def fetch_by(context: Context, lab: Lab, *wrapped) -> None:
    """Runs curl behind `wrapped` against a kernel's nginx."""
    path = context.file(2_000_000)
    got = context.directory / "got"
    lab.host(*wrapped, "curl", "-sS", "--fail", "-o", got, Nginx(lab).serve(path), label="client").ok(30)
    same_file(context, got, path)


def socks_server(lab: Lab) -> None:
    lab.peer("microsocks", "-i", lab.peer_address, "-p", _PORT, label="proxy")
    lab.wait_until_listening(_PORT, lab.peer_address)


# --- other libraries that are preloaded


@program("proxychains", "proxychains4", "microsocks")
def proxychains(context: Context, lab: Lab):
    """client: curl by a SOCKS proxy, with a library that stands before connect() too"""
    socks_server(lab)
    settings = configuration(context, f"strict_chain\n[ProxyList]\nsocks5 {lab.peer_address} {_PORT}\n")
    fetch_by(context, lab, "proxychains4", "-q", "-f", settings)


@program("torsocks", "torsocks", "microsocks")
def torsocks(context: Context, lab: Lab):
    """client: the same with a library that stands before most socket calls, and refuses some"""
    socks_server(lab)
    fetch_by(context, lab, "torsocks", "-a", lab.peer_address, "-P", _PORT)


@program("faketime", "faketime")
def faketime(context: Context, lab: Lab):
    """client: curl in another year, with a library that stands before clocks and waits"""
    fetch_by(context, lab, "faketime", "2001-02-03 04:05:06")


@program("fakeroot", "fakeroot")
def fakeroot(context: Context, lab: Lab):
    """client: curl with a library that stands before the calls on files"""
    fetch_by(context, lab, "fakeroot")


# --- many connections, many processes


@program("nmap", "nmap")
def nmap(context: Context, lab: Lab):
    """client: a thousand ports asked at the same time, one of them open"""
    Nginx(lab).serve(context.file(1000))
    done = lab.host("nmap", "-sT", "-Pn", "-n", "-p", "1-1000", lab.peer_address, label="client").ok(60)
    check("Not shown: 999 closed tcp ports (conn-refused)" in done.stdout and "80/tcp open" in done.stdout, done.stdout)


@program("siege", "siege")
def siege(context: Context, lab: Lab):
    """client: twenty threads, fifty connections each"""
    url = Nginx(lab).serve(context.file(1000))
    done = lab.host("siege", "-b", "-c", 20, "-r", 50, url, label="client", env={"HOME": str(context.directory)}).ok(60)
    told = json.loads(done.stdout[done.stdout.index("{"):])
    equal((told["successful_transactions"], told["failed_transactions"]), (1000, 0), "right and failed")


_RING = r"""
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
  int rank, size, n = 1 << 18;
  long wrong = 0, all;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  int *data = malloc(n * sizeof *data), *got = malloc(n * sizeof *got), before = (rank + size - 1) % size;
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < n; ++i) data[i] = rank + round + i;
    MPI_Sendrecv(data, n, MPI_INT, (rank + 1) % size, 0, got, n, MPI_INT, before, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (int i = 0; i < n; ++i) wrong += got[i] != before + round + i;
    MPI_Allreduce(&wrong, &all, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
  }
  if (rank == 0) printf("wrong: %ld of %d ranks\n", all, size);
  MPI_Finalize();
}
"""


@program("mpi", "mpirun", "mpicc")
def mpi(context: Context, lab: Lab):
    """both: mpirun and three ranks, which it execs while it has sockets open itself"""
    source: pathlib.Path = context.directory / "ring.c"
    source.write_text(_RING)
    ring = context.directory / "ring"
    subprocess.run(["mpicc", source, "-o", ring], check=True)
    done = lab.host("mpirun", "--allow-run-as-root", "--oversubscribe", "-n", 3, ring, label="mpirun").ok(60)
    equal(done.stdout, "wrong: 0 of 3 ranks\n", "what rank 0 says")


# --- browsers

_PAGE = """<!doctype html><title>page</title><script>
async function all() {
  const answers = await Promise.all([...Array(%(files)d).keys()].map(
      n => fetch("/data?" + n).then(answer => answer.arrayBuffer())));
  let sum = 0;
  for (const answer of answers) for (const byte of new Uint8Array(answer)) sum = (sum * 31 + byte) %% 1000003;
  await fetch("/sum-" + sum);
  document.title = "done";
}
all();
</script>"""
_FILES = 40


def browse(context: Context, lab: Lab, *browser) -> None:
    """A page whose script fetches forty files at the same time, and asks for a name made of all their bytes."""
    directory, data = with_file(context, "www", 300_000)
    (directory / "index.html").write_text(_PAGE % {"files": _FILES})
    expected = 0
    for byte in data.read_bytes() * _FILES:
        expected = (expected * 31 + byte) % 1000003
    server = lab.peer(PYTHON, "-m", "http.server", 8000, "--bind", lab.peer_address, "--directory", directory, label="server")
    lab.wait_until_peer_listens(8000)
    client = lab.host(*browser, f"http://{lab.peer_address}:8000/", label="browser", env={"HOME": str(own_directory(context, "home"))})
    try:
        wait_until(lambda: "GET /sum-" in server.stderr, "a sum", 60)
        check(f"GET /sum-{expected} " in server.stderr, server.stderr[-500:])
        # By our address: not by the machine's own TCP.
        check(all(line.startswith(lab.host_address()) for line in server.stderr.splitlines() if "GET /data" in line),
              server.stderr)
    finally:
        client.end()


@program("chromium", "chromium")
def chromium(context: Context, lab: Lab):
    """client: its network service is a process of its own, with libevent"""
    need_root()
    browse(context, lab, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
           "--remote-debugging-port=0", f"--user-data-dir={context.directory}/profile")


@program("firefox", "firefox-esr")
def firefox(context: Context, lab: Lab):
    """client: a socket thread that polls, processes in sandboxes"""
    browse(context, lab, "firefox-esr", "--headless", "--no-remote", "--profile", own_directory(context, "profile"))


# --- a stream


_ICECAST = """<icecast><limits><clients>20</clients><sources>2</sources></limits>
<authentication><source-password>word</source-password></authentication><hostname>{address}</hostname>
<listen-socket><port>{port}</port><bind-address>{address}</bind-address></listen-socket>
<paths><basedir>/usr/share/icecast2</basedir><logdir>{directory}</logdir><webroot>/usr/share/icecast2/web</webroot>
<adminroot>/usr/share/icecast2/admin</adminroot></paths><security><chroot>0</chroot>{user}</security></icecast>"""


@program("icecast", "icecast2", "ffmpeg", "ffprobe")
def icecast(context: Context, lab: Lab):
    """server and client: ffmpeg gives a stream that curl takes; all three are programs of one host"""
    need_root()
    context.open_to_all()
    settings = configuration(context, _ICECAST.format(
        address=lab.host_address(), port=_PORT, directory=own_directory(context, "logs"),
        user="<changeowner><user>nobody</user><group>nogroup</group></changeowner>"))
    (context.directory / "logs").chmod(0o777)
    listening(lab, "icecast2", "-c", settings, label="server")
    url, got = f"{lab.host_address()}:{_PORT}/stream.ogg", context.directory / "got.ogg"
    source = lab.host("ffmpeg", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "sine=frequency=440:duration=5", "-c:a",
                      "libvorbis", "-content_type", "application/ogg", "-f", "ogg", f"icecast://source:word@{url}",
                      label="source")
    taker = lab.host("curl", "-sS", "--fail", "--retry", 20, "--retry-delay", 1, "--retry-all-errors", "-o", got,
                     f"http://{url}", label="taker")
    source.ok(30)
    taker.ok(10)
    told = subprocess.run(["ffprobe", "-loglevel", "error", "-show_entries", "format=duration", "-of", "csv=p=0", got],
                          check=True, capture_output=True, text=True).stdout
    check(float(told) >= 3, f"{told} s")
