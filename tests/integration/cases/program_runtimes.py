"""Programs of other runtimes, and with another allocator preloaded: they bring threads, signals and stacks of their own.

What isn't installed is skipped; scripts/compat runs all of them.
"""

import pathlib
import subprocess

from cases.program_matrix import own_directory, peer_fetches, program, same_file
from harness import Context, Lab, Nginx, Skipped, case, check

_PORT = 7300
_ALLOCATORS = {"jemalloc": "libjemalloc.so.2", "tcmalloc": "libtcmalloc_minimal.so.4"}


def _library(name: str) -> pathlib.Path:
    found = sorted(pathlib.Path("/usr/lib").glob(f"*/{name}"))
    if not found:
        raise Skipped(f"{name} is not installed")
    return found[0]


def _with_allocator(context: Context, allocator: pathlib.Path) -> None:
    lab = context.lab()
    path = context.file(5_000_000)
    url = Nginx(lab).serve(path)
    for number, order in enumerate((f"LIBRARY {allocator}", f"{allocator} LIBRARY")):
        env = {"LD_PRELOAD": order}
        got = context.directory / f"got{number}"
        lab.host("curl", "-sS", "--fail", "-o", got, url, env=env).ok()
        same_file(context, got, path)
        port = _PORT + number
        server = lab.host("/usr/bin/python3", "-m", "http.server", port, "--bind", lab.host_address(), "--directory",
                          path.parent, env=env)
        lab.wait_until_listening(port, lab.host_address())
        for _ in range(3):
            peer_fetches(context, lab, f"http://{lab.host_address()}:{port}/{path.name}", path)
        maps = pathlib.Path(f"/proc/{server.pid}/maps").read_text()
        check(allocator.name in maps or not pathlib.Path(f"/proc/{server.pid}").exists(), f"{allocator} was not there")
        server.end()


@case("program.jemalloc", always=True)
def jemalloc(context: Context):
    """client and server: curl and http.server with jemalloc preloaded, before ours and behind it"""
    _with_allocator(context, _library(_ALLOCATORS["jemalloc"]))


@case("program.tcmalloc", always=True)
def tcmalloc(context: Context):
    """client and server: curl and http.server with tcmalloc preloaded, before ours and behind it"""
    _with_allocator(context, _library(_ALLOCATORS["tcmalloc"]))


# Go's own network package makes system calls without libc, which no preloaded library sees; this is C in Go.
_GO = """
package main

/*
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(const char* ip, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, ip, &to.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr*)&to, sizeof to) == 0) return fd;
  return -errno;
}
static long get(int fd, void* to, long n) {
  long got;
  do got = read(fd, to, n); while (got < 0 && errno == EINTR);
  return got < 0 ? -errno : got;
}
static long put(int fd, const void* from, long n) { return write(fd, from, n); }
*/
import "C"

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"
)

func fetch(ip string, port int, path string) string {
	fd := C.dial(C.CString(ip), C.int(port))
	if fd < 0 {
		return fmt.Sprintf("connect: errno %d", -fd)
	}
	defer C.close(fd)
	request := []byte("GET " + path + " HTTP/1.0\\r\\n\\r\\n")
	C.put(fd, unsafe.Pointer(&request[0]), C.long(len(request)))
	var all bytes.Buffer
	part := make([]byte, 20000)
	for {
		n := C.get(fd, unsafe.Pointer(&part[0]), C.long(len(part)))
		if n < 0 {
			return fmt.Sprintf("read: errno %d", -n)
		}
		if n == 0 {
			break
		}
		all.Write(part[:n])
		_ = make([]byte, 100000) // something for the collector, which stops threads by signals
	}
	body := bytes.SplitN(all.Bytes(), []byte("\\r\\n\\r\\n"), 2)
	if len(body) != 2 {
		return "no answer"
	}
	return fmt.Sprintf("%x", sha256.Sum256(body[1]))
}

func main() {
	runtime.GOMAXPROCS(4)
	var port int
	fmt.Sscan(os.Args[2], &port)
	var all sync.WaitGroup
	for i := 0; i < 16; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			fmt.Println(fetch(os.Args[1], port, os.Args[3]))
		}()
	}
	all.Wait()
}
"""


@program("go_cgo", "go", limit=240)
def go_cgo(context: Context, lab: Lab):
    """client: 16 goroutines that fetch 2 MB each by C's sockets"""
    directory = own_directory(context, "go")
    (directory / "main.go").write_text(_GO)
    subprocess.run(["go", "build", "-o", "fetch", "main.go"], cwd=directory, check=True, capture_output=True,
                   stdin=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin", "HOME": str(directory), "CGO_ENABLED": "1",
                                                  "GOFLAGS": "-p=2"})
    path = context.file(2_000_000)
    nginx = Nginx(lab)
    url = nginx.serve(path)
    host, _, port = url.split("/")[2].partition(":")
    output = lab.host(directory / "fetch", host, port or "80", "/" + url.split("/", 3)[3]).ok(60).stdout.split()
    check(output == [context.sha256(path)] * 16, f"{output}")


_RUST = """
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{env, fs, thread};

fn answer(mut peer: TcpStream, data: &[u8]) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = peer.read(&mut request)?;
    write!(peer, "HTTP/1.1 200 OK\\r\\nContent-Length: {}\\r\\nConnection: close\\r\\n\\r\\n", data.len())?;
    peer.write_all(data)
}

fn main() {
    let all: Vec<String> = env::args().collect();
    if all[1] == "serve" {
        let listener = TcpListener::bind(&all[2]).unwrap();
        println!("ready");
        let data: &'static [u8] = Box::leak(fs::read(&all[3]).unwrap().into_boxed_slice());
        for peer in listener.incoming() {
            thread::spawn(move || answer(peer.unwrap(), data));
        }
    }
    let mut server = TcpStream::connect(&all[2]).unwrap();
    write!(server, "GET {} HTTP/1.0\\r\\n\\r\\n", all[3]).unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|four| four == b"\\r\\n\\r\\n").unwrap();
    fs::write(&all[4], &answer[head + 4..]).unwrap();
}
"""


@program("rust", "rustc", limit=180)
def rust(context: Context, lab: Lab):
    """client and server: Rust's std::net, 5 MB, a thread for each connection"""
    directory = own_directory(context, "rust")
    (directory / "main.rs").write_text(_RUST)
    subprocess.run(["rustc", "-O", "-o", "program", "main.rs"], cwd=directory, check=True, capture_output=True,
                   stdin=subprocess.DEVNULL)
    path = context.file(5_000_000)
    url = Nginx(lab).serve(path)
    address = url.split("/")[2]
    got = context.directory / "got"
    lab.host(directory / "program", "fetch", address if ":" in address else f"{address}:80",
             "/" + url.split("/", 3)[3], got).ok()
    same_file(context, got, path)
    server = lab.host(directory / "program", "serve", f"{lab.host_address()}:{_PORT}", path)
    server.wait_for_output("ready")
    for _ in range(4):
        peer_fetches(context, lab, f"http://{lab.host_address()}:{_PORT}/", path)
