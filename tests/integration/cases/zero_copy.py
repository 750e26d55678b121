"""MSG_ZEROCOPY: what is sent stays in the program's memory, and arrives whatever the program does next."""

from harness import Context, Lab, case, check, equal

PYTHON = "/usr/bin/python3"
PORT = 8083
BYTES = 3_000_000

# PEER BYTES WAY: sends a pattern with MSG_ZEROCOPY, more than the peer takes at once, and goes a way of its own.
PROGRAM = """
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fill(char* at, size_t from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) at[i] = (from + i) % 251;
}
static unsigned returned, copied;
static void take_back(int fd) {
  char room[200];
  struct msghdr message = {.msg_control = room, .msg_controllen = sizeof room};
  while (recvmsg(fd, &message, MSG_ERRQUEUE) >= 0) {
    struct sock_extended_err* what = (void*)CMSG_DATA(CMSG_FIRSTHDR(&message));
    if (what->ee_origin != SO_EE_ORIGIN_ZEROCOPY || what->ee_info != returned) exit(3);
    returned = what->ee_data + 1;
    if (what->ee_code & SO_EE_CODE_ZEROCOPY_COPIED) ++copied;
    message.msg_controllen = sizeof room;
  }
}
static void wait_for(int fd, unsigned sends) {
  for (take_back(fd); returned < sends; take_back(fd)) {
    struct pollfd item = {.fd = fd};
    if (poll(&item, 1, 20000) == 0) exit(4);
  }
}
static void rounds(int fd, char* bytes) {
  /* Eight buffers in turn, written over as soon as each is the program's again. */
  enum { kBuffer = 100000, kBuffers = 8, kRounds = 400 };
  size_t sent = 0;
  for (unsigned round = 0; round < kRounds; ++round) {
    char* buffer = bytes + round % kBuffers * kBuffer;
    if (round >= kBuffers) wait_for(fd, round - kBuffers + 1);
    memset(buffer, '#', kBuffer);
    fill(buffer, sent, kBuffer);
    if (send(fd, buffer, kBuffer, MSG_ZEROCOPY) != kBuffer) exit(5);
    sent += kBuffer;
  }
  wait_for(fd, kRounds);
  memset(bytes, '#', kBuffers * kBuffer);
  printf("%u of %u reports say that it was copied\\n", copied, kRounds);
}
int main(int count, char** words) {
  size_t bytes = atol(words[2]);
  const char* way = words[3];
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  inet_pton(AF_INET, words[1], &to.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1, room = 8 << 20;
  if (connect(fd, (struct sockaddr*)&to, sizeof to) != 0) return perror("connect"), 1;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) != 0) return perror("SO_ZEROCOPY"), 1;
  char* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (strcmp(way, "rounds") == 0) return rounds(fd, memory), 0;
  fill(memory, 0, bytes);
  ssize_t sent = send(fd, memory, bytes, MSG_ZEROCOPY | MSG_DONTWAIT);
  if (sent != (ssize_t)bytes) return fprintf(stderr, "%zd\\n", sent), 1;
  take_back(fd);
  printf("%s\\n", returned == 0 ? "lent" : "back"), fflush(stdout);
  if (strcmp(way, "_exit") == 0) _exit(0);
  if (strcmp(way, "exec") == 0) return execl("/bin/true", "true", (char*)NULL);
  if (strcmp(way, "abort") == 0) return kill(getpid(), SIGKILL);
  if (strcmp(way, "close") == 0) return close(fd), munmap(memory, bytes), sleep(3), 0;
  if (strcmp(way, "sleep") == 0) return sleep(4), 0;
  if (strcmp(way, "compute") == 0) {
    for (time_t end = time(NULL) + 4; time(NULL) < end;) {
    }
    return 0;
  }
  if (strcmp(way, "fork") == 0) {
    if (fork() == 0) _exit(0);
    return wait(NULL), shutdown(fd, SHUT_WR), wait_for(fd, 1), 0;
  }
  if (strcmp(way, "munmap") == 0) {
    munmap(memory, bytes);
    memset(mmap(memory, bytes, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), '?', bytes);
    shutdown(fd, SHUT_WR), wait_for(fd, 1);
  }
  if (strcmp(way, "unseen") == 0) {
    syscall(SYS_munmap, memory, bytes);
    struct pollfd item = {.fd = fd, .events = POLLRDHUP};
    while (poll(&item, 1, 20000) == 1 && !(item.revents & POLLHUP)) take_back(fd);
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    printf("%s\\n", strerrorname_np(error));
  }
  return 0;
}
"""

# ADDRESS BYTES CONNECTIONS: reads late and little at a time, and says what it got, how it ended, and after how long.
PEER = f"""
import socket, sys, time
with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    listener.bind((sys.argv[1], {PORT}))
    listener.listen()
    print('listening', flush=True)
    while True:
        link = listener.accept()[0]
        begin = time.monotonic()
        time.sleep(0.5)
        got, intact, end = 0, True, 'end'
        pattern = bytes(i % 251 for i in range(251 + 65536))
        while got < int(sys.argv[2]):
            try:
                part = link.recv(65536)
            except ConnectionResetError:
                end = 'reset'
                break
            if not part:
                break
            intact = intact and part == pattern[got % 251:][:len(part)]
            got += len(part)
        print(got, 'intact' if intact else 'broken', end, 'soon' if time.monotonic() - begin < 2.5 else 'late', flush=True)
        link.close()
"""


def begin(context: Context, lab: Lab, bytes_expected: int = BYTES):
    program = context.compile("program", PROGRAM.replace("PORT", str(PORT)))
    peer = lab.peer(PYTHON, "-c", PEER, lab.peer_address, bytes_expected, label="peer")
    peer.wait_for_output("listening")
    return program, peer


@case("zero_copy.buffers_in_turn")
def buffers_in_turn(context: Context):
    """40 MB from buffers that are written over as soon as they are the program's again, over a link that loses frames."""
    lab = context.lab("emulated", emulation=["--loss=0.01", "--delay=1ms"])
    program, peer = begin(context, lab, 40_000_000)
    told = lab.host(program, lab.peer_address, 4_000_000, "rounds", label="program").ok(60).stdout
    # By the keeper, while the program fills a buffer. The kernel's veth copies all.
    check(context.kernel_mode or int(told.split()[0]) < 100, told)
    peer.wait_for_output("40000000 intact end")


@case("zero_copy.ways_on")
def ways_on(context: Context):
    """What was lent arrives when the program exits, execs, closes, unmaps, forks, sleeps or computes."""
    lab = context.lab()
    program, peer = begin(context, lab)
    for number, way in enumerate(("return", "_exit", "exec", "close", "munmap", "sleep", "compute", "fork"), 1):
        done = lab.host(program, lab.peer_address, BYTES, way, label=way).ok(30)
        equal(done.stdout.split(), ["lent"], f"{way}: right after the send")
        peer.wait_for_output("\n".join([f"{BYTES} intact end soon"] * number))


@case("zero_copy.killed", kernel=False)
def killed(context: Context):
    """What a killed program had lent dies with it: the peer is told by a reset, never by an end that looks orderly."""
    lab = context.lab()
    program, peer = begin(context, lab)
    lab.host(program, lab.peer_address, BYTES, "abort", label="program").wait(20)
    peer.wait_for_output("intact reset")
    check(int(peer.stdout.split()[1]) < BYTES, "all had arrived before")


@case("zero_copy.unmapped", kernel=False)
def unmapped(context: Context):
    """Who unmaps what it has lent and isn't seen (as by free) loses the connection, and is told EFAULT; nothing else is sent in its place."""
    lab = context.lab()
    program, peer = begin(context, lab)
    equal(lab.host(program, lab.peer_address, BYTES, "unseen", label="program").ok(30).stdout.split(), ["lent", "EFAULT"], "told")
    peer.wait_for_output("intact reset")
