"""Programs that Go has made, whose system calls go round libc: run where they are installed, all by scripts/compat."""

import subprocess

from cases.program_matrix import own_directory, program, with_file
from cases.program_services import _PORT, configuration, listening, serve_side_by_side
from harness import Context, Lab, check, equal, wait_until


def build(context: Context, name: str, source: str):
    """The program, which needs libc since the network package asks it for names."""
    directory = own_directory(context, name)
    (directory / "main.go").write_text(source)
    subprocess.run(["go", "build", "-o", name, "main.go"], cwd=directory, check=True, capture_output=True,
                   stdin=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin", "HOME": str(directory), "CGO_ENABLED": "1",
                                                  "GOFLAGS": "-p=2"})
    return directory / name


def at_home(context: Context, *argv) -> list:
    return ["env", f"HOME={context.directory}", *argv]


@program("caddy", "caddy")
def caddy(context: Context, lab: Lab):
    """server: files by Go's net/http, ended by SIGTERM in order"""
    directory, data = with_file(context, "files")
    settings = configuration(context, "{\n admin off\n auto_https off\n}\n" f"http://:{_PORT} {{\n bind {lab.host_address()}\n"
                                      f" root * {directory}\n file_server\n}}\n")
    serve_side_by_side(context, lab, at_home(context, "caddy", "run", "--adapter", "caddyfile", "--config", settings),
                       f"http://{lab.host_address()}:{_PORT}/data", data)


@program("rclone", "rclone")
def rclone(context: Context, lab: Lab):
    """server: rclone serve http"""
    directory, data = with_file(context, "files")
    serve_side_by_side(context, lab, at_home(context, "rclone", "serve", "http", directory, "--addr",
                                             f"{lab.host_address()}:{_PORT}"),
                       f"http://{lab.host_address()}:{_PORT}/data", data)


@program("etcd", "etcd")
def etcd(context: Context, lab: Lab):
    """server: gRPC behind its own gateway, which it reaches at its own address"""
    clients, peers = (f"http://{lab.host_address()}:{_PORT + more}" for more in (0, 1))
    listening(lab, *at_home(context, "etcd", "--data-dir", context.directory / "data", "--listen-client-urls", clients,
                            "--advertise-client-urls", clients, "--listen-peer-urls", peers,
                            "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"))

    def ask(what: str, body: str) -> str:
        return lab.peer("curl", "-sS", "--max-time", "20", "-d", body, f"{clients}/v3/kv/{what}").ok(25).stdout

    wait_until(lambda: '"header"' in ask("put", '{"key":"Zm9v","value":"YmFy"}'), "etcd takes a value", 20)
    check('"value":"YmFy"' in ask("range", '{"key":"Zm9v"}'), "the value")


@program("prometheus", "prometheus")
def prometheus(context: Context, lab: Lab):
    """server and client: it asks itself for its metrics"""
    own = f"{lab.host_address()}:{_PORT}"
    settings = configuration(context, "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: self\n"
                                      f"  static_configs: [{{targets: ['{own}']}}]\n")
    listening(lab, *at_home(context, "prometheus", f"--config.file={settings}", f"--web.listen-address={own}",
                            f"--storage.tsdb.path={context.directory / 'data'}"))

    def is_up() -> bool:
        answer = lab.peer("curl", "-sS", "--max-time", "20", f"http://{own}/api/v1/query?query=up").ok(25).stdout
        return f'"instance":"{own}"' in answer and '"1"]' in answer

    wait_until(is_up, "its own metrics", 40)


@program("hugo", "hugo")
def hugo(context: Context, lab: Lab):
    """server: a site that it makes, from memory"""
    site = own_directory(context, "site")
    (site / "config.toml").write_text("title = 'x'\n")
    (site / "layouts").mkdir()
    (site / "layouts" / "index.html").write_text("<h1>made by hugo</h1>")
    listening(lab, *at_home(context, "hugo", "server", "--source", site, "--bind", lab.host_address(), "-p", _PORT,
                            "--watch=false"))
    page = lab.peer("curl", "-sS", f"http://{lab.host_address()}:{_PORT}/").ok(25).stdout
    check("<h1>made by hugo</h1>" in page, page)


_STRESS = """package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(c, c) // by splice(2)
			c.Close()
		}()
	}
}

func transfer(address string, bytes_ int) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	check(err)
	check(c.SetDeadline(time.Now().Add(60 * time.Second)))
	data := make([]byte, bytes_)
	rand.Read(data)
	go func() {
		_, err := c.Write(data)
		check(err)
		check(c.(*net.TCPConn).CloseWrite())
	}()
	got := sha256.New()
	_, err = io.Copy(got, c)
	check(err)
	if wanted := sha256.Sum256(data); !bytes.Equal(got.Sum(nil), wanted[:]) {
		panic("other bytes")
	}
	check(c.Close())
}

func main() {
	if len(os.Args) == 2 { // a child that was given the listener
		l, err := net.FileListener(os.NewFile(3, "listener"))
		check(err)
		echo(l)
	}
	host, peer := os.Args[1], os.Args[2]
	var profile bytes.Buffer
	check(pprof.StartCPUProfile(&profile))
	signals := make(chan os.Signal, 100)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGCHLD)
	var handled, execs int64
	go func() {
		for range signals {
			atomic.AddInt64(&handled, 1)
		}
	}()
	var over int32
	beside := func(body func()) {
		go func() {
			for atomic.LoadInt32(&over) == 0 {
				body()
			}
		}()
	}
	beside(func() {
		runtime.GC()
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		time.Sleep(time.Millisecond)
	})
	beside(func() { // preempted by signals
		x := 0
		for i := 0; i < 10000000; i++ {
			x += i
		}
		_ = x
	})
	beside(func() {
		output, err := exec.Command("echo", "hi").Output()
		check(err)
		if string(output) != "hi\\n" {
			panic(string(output))
		}
		atomic.AddInt64(&execs, 1)
	})
	l, err := net.Listen("tcp", host+":7000")
	check(err)
	go echo(l)
	relay, err := net.Listen("tcp", host+":7001")
	check(err)
	go func() {
		for {
			c, err := relay.Accept()
			check(err)
			go func() {
				to, err := net.Dial("tcp", host+":7000")
				check(err)
				go func() {
					io.Copy(to, c)
					to.(*net.TCPConn).CloseWrite()
				}()
				io.Copy(c, to)
				c.Close()
				to.Close()
			}()
		}
	}()
	var all sync.WaitGroup
	for round := 0; round < 4; round++ {
		for i := 0; i < 10; i++ {
			for _, address := range []string{host + ":7000", host + ":7001", peer} {
				all.Add(1)
				go func(address string, bytes int) {
					defer all.Done()
					transfer(address, bytes)
				}(address, 1+i*100000)
			}
		}
		all.Wait()
	}
	_, err = net.Listen("tcp", host+":7000")
	fmt.Println(err)
	idle, err := net.Dial("tcp", host+":7000")
	check(err)
	idle.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = idle.Read(make([]byte, 1))
	fmt.Println(err.(net.Error).Timeout())
	file, err := l.(*net.TCPListener).File()
	check(err)
	child := exec.Command(os.Args[0], "child")
	child.ExtraFiles = []*os.File{file}
	child.Stderr = os.Stderr
	l.Close()
	check(child.Start())
	transfer(host+":7000", 100000)
	check(child.Process.Kill())
	child.Wait()
	atomic.StoreInt32(&over, 1)
	pprof.StopCPUProfile()
	fmt.Println(execs > 0, handled > 0, profile.Len() > 500)
}
"""


@program("go_net", "go", limit=240)
def go_net(context: Context, lab: Lab):
    """server, relay and client: net's connections beside collections, preemptions, a profile, fork and exec"""
    stress = build(context, "stress", _STRESS)
    lab.peer("socat", f"TCP-LISTEN:{_PORT},bind={lab.peer_address},reuseaddr,fork", "EXEC:cat", label="echo")
    lab.wait_until_listening(_PORT, lab.peer_address)
    output = lab.host(stress, lab.host_address(), f"{lab.peer_address}:{_PORT}").ok(120).stdout.splitlines()
    equal(output, [f"listen tcp {lab.host_address()}:7000: bind: address already in use", "true", "true true true"],
          "what it says")
