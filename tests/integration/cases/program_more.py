"""Programs with other libraries preloaded, and programs that are several: run where they are installed, all by scripts/compat."""

import json
import pathlib
import subprocess

from cases.program_matrix import program, same_file
from cases.program_services import _PORT, configuration
from harness import Context, Lab, Nginx, check, equal


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
