"""What a program's answers save in ACKs."""

from harness import Context, case, check, counters_in

PYTHON = "/usr/bin/python3"
CONNECTIONS = 200
SERVER = """
import select, socket, sys
listener = socket.create_server((sys.argv[1], 5000))
print("listening", flush=True)
for _ in range(int(sys.argv[2])):
    connection, _ = listener.accept()
    poll = select.epoll()
    poll.register(connection, select.EPOLLIN)
    while True:
        poll.poll()
        data = connection.recv(1)
        if not data:
            break
        connection.send(data)
    poll.close()
    connection.close()
"""
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[2])):
    connection = socket.create_connection((sys.argv[1], 5000))
    connection.send(b"x")
    assert connection.recv(1) == b"x"
    connection.close()
"""


@case("acks.ride_on_answers")
def ride_on_answers(context: Context):
    """A connection with one request takes the server three segments: SYN-ACK, answer and FIN carry all ACKs."""
    lab = context.lab()
    counters = context.directory / "counters"
    server = lab.host(PYTHON, "-c", SERVER, lab.host_address(), CONNECTIONS, label="server",
                      env={"USTACK_COUNTERS": str(counters)})
    server.wait_for_output("listening")
    lab.peer(PYTHON, "-c", CLIENT, lab.host_address(), CONNECTIONS, label="client").ok(30)
    server.ok(30)
    if context.kernel_mode:
        return
    ours = counters_in(counters)
    context.note(f"{ours['TcpOutSegs'] / CONNECTIONS:.2f} segments a connection out, {ours['TcpInSegs'] / CONNECTIONS:.2f} in")
    # One more each would be 4; a program that the machine has kept waiting may have owed one.
    check(ours["TcpOutSegs"] < 3.8 * CONNECTIONS, "ACKs go on their own")
    check(ours["TcpRetransSegs"] <= 5, f"{ours['TcpRetransSegs']} segments had to be sent again")
