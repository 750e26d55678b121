"""Programs that give up root before their first socket, when nobody could open the link any more."""

from cases.wrong_input import _TUN_0666, _with_tun
from harness import Context, case, check, equal, need_root

PYTHON = "/usr/bin/python3"
NOBODY = 65534

# ADDRESS PEER: takes another user, listens, and says what it was sent; then connects to the peer and says the same.
PROGRAM = f"""
import os, socket, sys
os.setgid({NOBODY}); os.setuid({NOBODY})
with socket.create_server((sys.argv[1], 8080)) as listener:
    print('listening', flush=True)
    with listener.accept()[0] as taken:
        print('got', taken.makefile().readline().strip(), flush=True)
with socket.create_connection((sys.argv[2], 8081), 10) as made:
    print('got', made.makefile().readline().strip(), flush=True)
"""
# ADDRESS OWN: asks it, and answers once itself.
PEER = """
import socket, sys
with socket.create_server((sys.argv[2], 8081)) as listener:
    with socket.create_connection((sys.argv[1], 8080), 10) as made:
        made.sendall(b'question\\n')
    with listener.accept()[0] as taken:
        taken.sendall(b'answer\\n')
"""


def listens_and_connects(context: Context, **environment) -> None:
    need_root()
    lab = context.lab()
    program = lab.host(PYTHON, "-c", PROGRAM, lab.host_address(), lab.peer_address, label="program", env=environment)
    program.wait_for_output("listening")
    lab.peer(PYTHON, "-c", PEER, lab.host_address(), lab.peer_address, label="peer").ok(20)
    program.ok(20)
    equal(program.stdout.split("\n")[1:3], ["got question", "got answer"], "what it was sent")
    equal(program.stderr, "", "messages")


@case("root.first_socket_after")
def first_socket_after(context: Context):
    """The first socket of a program that has given up root: a listener and a connection, as mariadbd --user=mysql."""
    listens_and_connects(context)


@case("root.first_socket_after_parting")
def first_socket_after_parting(context: Context):
    """The same with USTACK_TRUST=credentials, through the keeper."""
    listens_and_connects(context, USTACK_TRUST="credentials")


@case("root.effective_user")
def effective_user(context: Context):
    """Who is another user for a while (seteuid) and opens the first socket meanwhile can, and still is that user then."""
    need_root()
    lab = context.lab()
    lab.peer(PYTHON, "-c", "import socket, sys\nlistener = socket.create_server((sys.argv[1], 8081))\n"
             "print('listening', flush=True)\nwhile True: listener.accept()[0].sendall(b'answer')", lab.peer_address, label="peer"
             ).wait_for_output("listening")
    program = lab.host(PYTHON, "-c", f"""
import os, socket, sys, tempfile
os.seteuid({NOBODY})
print(socket.create_connection((sys.argv[1], 8081), 10).recv(100).decode(), *os.getresuid())
with tempfile.TemporaryFile(dir='/tmp') as file: print(os.fstat(file.fileno()).st_uid)
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except PermissionError:
    print('no rights')
os.seteuid(0)
print(socket.create_connection((sys.argv[1], 8081), 10).recv(100).decode(), *os.getresuid())
""", lab.peer_address, label="program").ok(20)
    equal(program.stdout.splitlines(), [f"answer 0 {NOBODY} 0", str(NOBODY), "no rights", "answer 0 0 0"], "what it was told")
    equal(program.stderr, "", "messages")


@case("root.device_of_a_user", kernel=False)
def device_of_a_user(context: Context):
    """A TAP that was made for a user can be opened later: a helper that gives up root doesn't take it from its parent."""
    lab = context.lab()
    lab.peer("sh", "-ec", f"ip tuntap add dev mine0 mode tap user {NOBODY} vnet_hdr; ip link set mine0 up; "
             "ip address add 192.0.2.65/26 dev mine0").ok()
    lab.peer(PYTHON, "-c", "import socket\n"
             "listener = socket.create_server(('192.0.2.65', 8081))\n"
             "print('listening', flush=True); listener.accept()[0].sendall(b'answer')", label="peer"
             ).wait_for_output("listening")
    program = lab.host(PYTHON, "-c", f"""
import os, signal, socket
changed = os.pipe()
helper = os.fork()
if helper == 0:
    os.setuid({NOBODY})
    os.write(changed[1], b'.')
    signal.pause()
os.read(changed[0], 1)
print(socket.create_connection(('192.0.2.65', 8081), 10).recv(100).decode())
os.kill(helper, signal.SIGTERM)
""", label="program", before=_with_tun(_TUN_0666), env={"USTACK_LINK": "tap:mine0", "USTACK_ADDR": "192.0.2.66/26", "USTACK_GATEWAY": ""})
    program.ok(20)
    equal(program.stdout.strip(), "answer", "what the parent got")


@case("root.device_in_use", kernel=False)
def device_in_use(context: Context):
    """Who gives up root and opens no socket isn't held up by a program that has the device, and takes nothing from it."""
    need_root()
    lab = context.lab()
    server = lab.host(PYTHON, "-m", "http.server", 8080, "--bind", lab.host_address(), label="server")
    lab.wait_until_listening(8080, lab.host_address())
    other = lab.host(PYTHON, "-c", "import os, time\nbegin = time.monotonic()\n"
                     f"os.setuid({NOBODY})\nprint(time.monotonic() - begin)", label="other")
    check(float(other.ok(20).stdout) < 0.5, f"it took {other.stdout.strip()} s")
    equal(other.stderr, "", "messages")
    lab.wait_until_listening(8080, lab.host_address())
    server.end()


@case("root.vfork")
def vfork(context: Context):
    """A child of vfork that takes another user and becomes another program does nothing to its parent."""
    need_root()
    lab = context.lab()
    program = context.compile("vfork", """
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char** words) {
  int status;
  pid_t child = vfork();
  if (child == 0) {
    if (setuid(65534) == 0) execl("/bin/true", "true", (char*)NULL);
    _exit(9);
  }
  waitpid(child, &status, 0);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(8081)};
  inet_pton(AF_INET, words[1], &to.sin_addr);
  char text[100];
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr*)&to, sizeof to) != 0) return perror("connect"), 1;
  printf("%d %zd\\n", status, read(fd, text, sizeof text));
}
""")
    lab.peer(PYTHON, "-c", "import socket, sys\nlistener = socket.create_server((sys.argv[1], 8081))\n"
             "print('listening', flush=True); listener.accept()[0].sendall(b'answer')", lab.peer_address, label="peer"
             ).wait_for_output("listening")
    equal(lab.host(program, lab.peer_address, label="program").ok(20).stdout.strip(), "0 6", "the child, what it got")
