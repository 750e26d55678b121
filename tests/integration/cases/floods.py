"""A server under attack."""

from harness import Context, case, check, equal

PYTHON = "/usr/bin/python3"


@case("floods.syn_cookies")
def floods_syn_cookies(context: Context):
    """All connections of a kernel are made by SYN cookies: 50 files arrive whole, with all options in place."""
    lab = context.lab()
    path = context.file(300_000)
    env = lab.host_sysctl(net__ipv4__tcp_syncookies=2)
    server = lab.host(PYTHON, "-m", "http.server", "--directory", path.parent, "--bind", lab.host_address(), 8000,
                      env=env, label="server")
    lab.wait_until_listening(8000)
    target = context.directory / "got"
    url = f"http://{lab.host_address()}:8000/{path.name}"
    lab.peer("curl", "-sS", "--fail", "--max-time", "60", "--parallel", "--parallel-max", "10",
             *(word for n in range(50) for word in ("-o", f"{target}.{n}", url))).ok(65)
    for n in range(50):
        equal(context.sha256(f"{target}.{n}"), context.sha256(path), "sha256 of what arrived")
    check(server.running, "the server has ended")
