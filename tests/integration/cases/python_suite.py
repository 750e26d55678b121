"""CPython's own tests of what uses sockets: none may fail under the library that does not fail on the kernel."""

from harness import Context, case, check
from harness.python_suite import run_module

#: Short enough for every run; the others are scripts/compat's.
_QUICK = ("test_select", "test_epoll", "test_socketserver", "test_asyncore", "test_asynchat", "test_telnetlib",
          "test_smtplib", "test_urllib2_localnet", "test_wsgiref", "test_httplib", "test_httpservers",
          "test_asyncio.test_sock_lowlevel")
_LONG = ("test_socket", "test_selectors", "test_poll", "test_ssl", "test_ftplib", "test_poplib", "test_imaplib",
         "test_xmlrpc",
         # Of test_asyncio what touches sockets, pipes and processes.
         "test_asyncio.test_base_events", "test_asyncio.test_buffered_proto", "test_asyncio.test_events",
         "test_asyncio.test_selector_events", "test_asyncio.test_sendfile", "test_asyncio.test_server",
         "test_asyncio.test_ssl", "test_asyncio.test_sslproto", "test_asyncio.test_streams",
         "test_asyncio.test_subprocess", "test_asyncio.test_unix_events")


def _compare(context: Context, module: str) -> None:
    lab = context.lab()
    reference = run_module(lab, module, library=False)
    check(any(outcome == "passed" for outcome in reference.values()), f"the kernel passes nothing of {module}")
    if context.kernel_mode:
        return
    library = run_module(lab, module, library=True)
    worse = [name for name, outcome in reference.items() if outcome == "passed" and library.get(name) != "passed"]
    context.note(f"{sum(outcome == 'passed' for outcome in library.values())} passed, on the kernel "
                 f"{sum(outcome == 'passed' for outcome in reference.values())}")
    check(not worse, f"{len(worse)} pass on the kernel only: " + ", ".join(worse))


def _register(module: str, always: bool) -> None:
    def run(context: Context) -> None:
        _compare(context, module)

    run.__doc__ = f"CPython's {module} under the library, with the loopback in the stack, as on the kernel."
    case(f"python.{module}", limit=1300, always=always)(run)


for _module in _QUICK:
    _register(_module, True)
for _module in _LONG:
    _register(_module, False)
