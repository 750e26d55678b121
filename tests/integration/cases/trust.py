"""USTACK_TRUST=credentials: who gives up root leaves the host's memory, and goes on through the keeper."""

from harness import Context, case, equal, need_root

PYTHON = "/usr/bin/python3"
TRUST = {"USTACK_TRUST": "credentials"}


def run_checks(context: Context, *names: str) -> None:
    need_root()
    lab = context.lab()
    lab.peer(PYTHON, context.tool("peer_services.py"), lab.peer_address, label="peer").wait_for_output("ready")
    program = lab.host(PYTHON, "-B", context.tool("parting.py"), lab.peer_address, lab.host_address(), *names,
                       label="parting", cwd=context.directory, env=TRUST)
    program.ok(60)
    equal(program.stdout.split(), list(names), "checks")


@case("trust.parting", limit=90)
def parting(context: Context):
    """Memory and device are gone, connections and epoll sets go on, those that keep root notice nothing."""
    run_checks(context, "shares_nothing", "connections_go_on", "epoll_goes_on", "keeping_root_changes_nothing",
               "all_calls", "several_threads")
