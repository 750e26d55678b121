"""curl and wget under the library, fetching from and storing to nginx on the kernel's side."""

from harness import Context, Nginx, case, check, equal

MEGABYTE = 1_000_000


def fetch(context: Context, lab, url: str, path, *options: str, timeout: float = 60):
    """curl to a file whose sha256 must be that of `path`."""
    target = context.directory / f"fetched-{path.name}"
    curl = lab.host("curl", "-sS", "--fail", "--max-time", str(timeout), *options, "-o", target, url).ok(timeout + 5)
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived")
    return curl


@case("curl.get")
def curl_get(context: Context):
    """curl fetches a small page; the capture is clean."""
    lab = context.lab(wire=True)
    nginx = Nginx(lab)
    path = context.file(1000)
    url = nginx.serve(path)
    capture = lab.capture()
    fetch(context, lab, url, path)
    capture.judge()
    equal(capture.connections(), 1, "connections")


@case("curl.behind_gateway")
def curl_behind_gateway(context: Context):
    """A server that is not on the link is reached through the gateway."""
    lab = context.lab()
    server = lab.peer("/usr/bin/python3", "-m", "http.server", "8000", "--bind", lab.far_address,
                      "--directory", context.file(50_000).parent, label="http.server")
    lab.wait_until_peer_listens(8000)
    path = context.file(50_000)
    fetch(context, lab, f"http://{lab.far_address}:8000/{path.name}", path)
    check(server.running, "the server has ended")


@case("curl.keepalive")
def curl_keepalive(context: Context):
    """Several URLs over one connection."""
    lab = context.lab(wire=True)
    nginx = Nginx(lab)
    files = [context.file(20_000 + 7_919 * i, seed=i) for i in range(8)]
    capture = lab.capture()
    arguments = []
    for number, path in enumerate(files):
        arguments += ["-o", context.directory / f"got-{number}", nginx.serve(path)]
    lab.host("curl", "-sS", "--fail", "--max-time", "30", *arguments).ok(35)
    for number, path in enumerate(files):
        equal(context.sha256(context.directory / f"got-{number}"), context.sha256(path), f"sha256 of file {number}")
    equal(len(nginx.requests()), len(files), "requests that nginx saw")
    capture.judge()
    equal(capture.connections(), 1, "connections")


@case("curl.connection_each")
def curl_connection_each(context: Context):
    """A hundred requests with a connection each."""
    lab = context.lab()
    nginx = Nginx(lab)
    path = context.file(3_000)
    url = nginx.serve(path)
    out = context.directory / "all"
    lab.host("curl", "-sS", "--fail", "--max-time", "60", "-H", "Connection: close", *([url] * 100), stdout=out).ok(65)
    equal(out.stat().st_size, 100 * 3_000, "bytes in all")
    equal(out.read_bytes(), path.read_bytes() * 100, "content")


@case("curl.parallel")
def curl_parallel(context: Context):
    """Twenty downloads at once in one process (curl's event loop)."""
    lab = context.lab()
    nginx = Nginx(lab)
    files = [context.file(300_000 + i, seed=i) for i in range(20)]
    arguments = []
    for number, path in enumerate(files):
        arguments += ["-o", context.directory / f"got-{number}", nginx.serve(path)]
    lab.host("curl", "-sS", "--fail", "--max-time", "60", "--parallel", "--parallel-immediate", "--parallel-max", "20",
             *arguments).ok(65)
    for number, path in enumerate(files):
        equal(context.sha256(context.directory / f"got-{number}"), context.sha256(path), f"sha256 of file {number}")


@case("curl.download_100MB", limit=150)
def curl_download(context: Context):
    """100 MB from nginx over the TAP with all its offloads."""
    lab = context.lab()
    nginx = Nginx(lab)
    path = context.file(100 * MEGABYTE)
    curl = fetch(context, lab, nginx.serve(path), path, "-w", "%{speed_download}", timeout=100)
    context.note(f"{float(curl.stdout) * 8 / 1e9:.2f} Gbit/s")


@case("curl.download_wire", limit=120)
def curl_download_wire(context: Context):
    """30 MB from nginx through a cable without offloads; the capture is clean."""
    lab = context.lab(wire=True)
    nginx = Nginx(lab)
    path = context.file(30 * MEGABYTE)
    url = nginx.serve(path)
    capture = lab.capture()
    fetch(context, lab, url, path, timeout=90)
    capture.judge()
    capture.check_no_frame_above(1514)


def store(context: Context, lab, nginx: Nginx, path, timeout: float = 60):
    """curl PUTs a file; nginx must end with the same."""
    curl = lab.host("curl", "-sS", "--fail", "--max-time", str(timeout), "-w", "%{speed_upload}", "-o", "/dev/null",
                    "-T", path, f"{nginx.url}/stored").ok(timeout + 5)
    equal(context.sha256(nginx.www / "stored"), context.sha256(path), "sha256 of what nginx stored")
    return float(curl.stdout.strip().splitlines()[-1])


@case("curl.upload_100MB", limit=150)
def curl_upload(context: Context):
    """100 MB to nginx over the TAP with all its offloads."""
    lab = context.lab()
    nginx = Nginx(lab)
    speed = store(context, lab, nginx, context.file(100 * MEGABYTE), timeout=100)
    context.note(f"{speed * 8 / 1e9:.2f} Gbit/s")


@case("curl.upload_wire", limit=120)
def curl_upload_wire(context: Context):
    """30 MB to nginx through a cable without offloads: what the stack sends is whole on the wire."""
    lab = context.lab(wire=True)
    nginx = Nginx(lab)
    capture = lab.capture()
    store(context, lab, nginx, context.file(30 * MEGABYTE), timeout=90)
    capture.judge()
    capture.check_no_frame_above(1514)


@case("curl.small_mtu")
def curl_small_mtu(context: Context):
    """Devices with an MTU of 600: the MSS follows it, both ways."""
    lab = context.lab(wire=True, mtu=600)
    nginx = Nginx(lab)
    path = context.file(300_000)
    url = nginx.serve(path)
    capture = lab.capture()
    fetch(context, lab, url, path)
    store(context, lab, nginx, path)
    capture.judge()
    capture.check_no_frame_above(614)


@case("curl.plain_io", kernel=False)
def curl_plain_io(context: Context):
    """The same without io_uring (USTACK_IO=plain), 10 MB both ways."""
    lab = context.lab()
    nginx = Nginx(lab)
    path = context.file(10 * MEGABYTE)
    target = context.directory / "got"
    plain = {"USTACK_IO": "plain"}
    lab.host("curl", "-sS", "--fail", "--max-time", "60", "-o", target, nginx.serve(path), env=plain).ok(65)
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived")
    lab.host("curl", "-sS", "--fail", "--max-time", "60", "-T", path, f"{nginx.url}/stored", env=plain).ok(65)
    equal(context.sha256(nginx.www / "stored"), context.sha256(path), "sha256 of what nginx stored")


@case("wget.get")
def wget_get(context: Context):
    """wget fetches 10 MB and a second file over the same connection; the capture is clean."""
    lab = context.lab(wire=True)
    nginx = Nginx(lab)
    files = [context.file(10 * MEGABYTE), context.file(1234)]
    urls = [nginx.serve(path) for path in files]
    capture = lab.capture()
    directory = context.directory / "got"
    directory.mkdir()
    lab.host("wget", "-nv", "--tries=1", "--timeout=20", "-P", directory, *urls).ok(60)
    for path in files:
        equal(context.sha256(directory / path.name), context.sha256(path), f"sha256 of {path.name}")
    capture.judge()
    equal(capture.connections(), 1, "connections")


@case("emulated.curl", limit=180)
def emulated_curl(context: Context):
    """curl, 3 MB both ways over a link with 2 % loss and 2 ms delay; the capture is clean."""
    lab = context.lab("emulated", emulation=["--loss=0.02", "--delay=2ms", "--seed=7"])
    nginx = Nginx(lab)
    path = context.file(3 * MEGABYTE)
    url = nginx.serve(path)
    capture = lab.capture()
    fetch(context, lab, url, path, timeout=80)
    store(context, lab, nginx, path, timeout=80)
    capture.judge()


@case("emulated.wget", limit=120)
def emulated_wget(context: Context):
    """wget, 2 MB over a link with 2 % loss."""
    lab = context.lab("emulated", emulation=["--loss=0.02", "--delay=2ms", "--seed=8"])
    nginx = Nginx(lab)
    path = context.file(2 * MEGABYTE)
    url = nginx.serve(path)
    capture = lab.capture()
    target = context.directory / "got"
    lab.host("wget", "-nv", "--tries=1", "--timeout=60", "-O", target, url).ok(90)
    equal(context.sha256(target), context.sha256(path), "sha256 of what arrived")
    capture.judge()
