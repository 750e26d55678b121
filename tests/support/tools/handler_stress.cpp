// A program that uses sockets in signal handlers while its threads use others: what a library between it and
// the kernel must not make deadlock or lose.
//
//   handler_stress ADDRESS ECHO_PORT [MEGABYTES [THREADS]]
//
// Each thread sends so many megabytes through an echo connection of its own and checks what comes back; a
// timer interrupts all of them every millisecond, by turns with and without SA_RESTART, and its handler
// writes to a further connection, duplicates and closes a descriptor, and sometimes leaves by siglongjmp
// where that was prepared. In the end everything that handlers have written must have come back too. Prints
// "ok" and figures.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

sockaddr_in server{};
int handlers_connection = -1;
std::atomic<uint64_t> written{0}, handled{0}, interrupted{0}, jumps{0};
thread_local sigjmp_buf jump;
thread_local volatile sig_atomic_t may_jump = 0;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "handler_stress: %s: %s\n", what, std::strerror(errno));
  _exit(1);
}

int connect_to_server() {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) fail("socket");
  // A signal doesn't end a connect() that goes on by itself.
  if (connect(fd, reinterpret_cast<sockaddr*>(&server), sizeof server) != 0) {
    if (errno != EINTR) fail("connect");
    pollfd wait{fd, POLLOUT, 0};
    while (poll(&wait, 1, -1) < 0 && errno == EINTR) {
    }
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) fail("connect, later");
  }
  return fd;
}

void handler(int) {
  int saved = errno;
  uint64_t number = handled.fetch_add(1);
  // Never blocks: what doesn't go out now is not counted.
  ssize_t bytes = send(handlers_connection, "tick", 4, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (bytes > 0) written += static_cast<uint64_t>(bytes);
  int copy = dup(handlers_connection);
  if (copy >= 0) close(copy);
  errno = saved;
  if (may_jump != 0 && number % 8 == 0) {
    may_jump = 0;
    siglongjmp(jump, 1);
  }
}

void install(bool restart) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = restart ? SA_RESTART : 0;
  if (sigaction(SIGALRM, &action, nullptr) != 0) fail("sigaction");
}

/// Sends and receives at the same time by poll(), so that no side waits for the other for ever.
void talk(uint64_t bytes, uint32_t seed) {
  int fd = connect_to_server();
  uint64_t sent = 0, received = 0;
  auto byte_at = [&](uint64_t i) { return static_cast<unsigned char>((i * 31 + seed + (i >> 12)) & 255); };
  std::vector<unsigned char> out(64 * 1024), in(64 * 1024);
  while (received < bytes) {
    pollfd wait{fd, static_cast<short>(POLLIN | (sent < bytes ? POLLOUT : 0)), 0};
    if (poll(&wait, 1, 20000) <= 0) {
      if (errno != EINTR) fail("poll");
      ++interrupted;
      continue;
    }
    if ((wait.revents & POLLOUT) != 0 && sent < bytes) {
      size_t want = static_cast<size_t>(std::min<uint64_t>(out.size(), bytes - sent));
      for (size_t i = 0; i < want; ++i) out[i] = byte_at(sent + i);
      ssize_t n = send(fd, out.data(), want, MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN && errno != EINTR) fail("send");
      if (n > 0) sent += static_cast<uint64_t>(n);
    }
    if ((wait.revents & POLLIN) != 0) {
      ssize_t n = recv(fd, in.data(), in.size(), 0);
      if (n == 0) fail("recv: the end");
      if (n < 0 && errno != EINTR) fail("recv");
      for (ssize_t i = 0; i < n; ++i)
        if (in[static_cast<size_t>(i)] != byte_at(received + static_cast<uint64_t>(i))) fail("wrong data");
      if (n > 0) received += static_cast<uint64_t>(n);
    }
  }
  close(fd);
}

/// Blocks in recv() on a connection where nothing comes, to be taken out of it by siglongjmp.
void jump_out(int silent, int times) {
  for (static thread_local int i = 0; i < times; ++i) {  // outlives the jumps
    if (sigsetjmp(jump, 1) != 0) {
      ++jumps;
      continue;
    }
    may_jump = 1;
    char byte;
    while (recv(silent, &byte, 1, 0) < 0 && errno == EINTR) {
    }
    std::fprintf(stderr, "handler_stress: something came where nothing should\n");
    _exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: handler_stress ADDRESS ECHO_PORT [MEGABYTES [THREADS]]\n");
    return 2;
  }
  server.sin_family = AF_INET;
  server.sin_port = htons(static_cast<uint16_t>(std::atoi(argv[2])));
  if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) return 2;
  uint64_t bytes = static_cast<uint64_t>(argc > 3 ? std::atoi(argv[3]) : 4) << 20;
  uint32_t threads = static_cast<uint32_t>(argc > 4 ? std::atoi(argv[4]) : 4);

  handlers_connection = connect_to_server();
  int silent = connect_to_server();
  install(true);
  itimerval every{{0, 1000}, {0, 1000}};
  if (setitimer(ITIMER_REAL, &every, nullptr) != 0) fail("setitimer");

  std::vector<std::thread> workers;
  for (uint32_t i = 0; i < threads; ++i) workers.emplace_back(talk, bytes, i * 7);
  std::thread jumper(jump_out, silent, 20);
  std::atomic<bool> stop{false};
  // Signals go to whichever thread; hand them round. What handlers have written has to be read meanwhile.
  uint64_t back = 0;
  std::thread reader([&] {
    char buffer[4096];
    for (;;) {
      pollfd wait{handlers_connection, POLLIN, 0};
      int ready = poll(&wait, 1, 50);
      if (ready > 0) {
        ssize_t n = recv(handlers_connection, buffer, sizeof buffer, MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; ++i)
          if (buffer[i] != "tick"[(back + static_cast<uint64_t>(i)) % 4]) fail("wrong data of a handler");
        if (n > 0) back += static_cast<uint64_t>(n);
      } else if (ready == 0 && stop && back == written) {
        return;
      }
    }
  });
  bool restart = false;
  for (uint32_t i = 0; i < threads; ++i) {
    // A worker that is busy gets signals of its own too.
    for (int n = 0; n < 50; ++n) {
      pthread_kill(workers[i].native_handle(), SIGALRM);
      pthread_kill(jumper.native_handle(), SIGALRM);
      usleep(500);
      install(restart = !restart);
    }
    workers[i].join();
  }
  while (jumps < 20) {
    pthread_kill(jumper.native_handle(), SIGALRM);
    usleep(500);
  }
  jumper.join();
  itimerval never{};
  setitimer(ITIMER_REAL, &never, nullptr);
  stop = true;
  reader.join();
  std::printf("ok: %llu handlers, %llu bytes of theirs back, %llu polls interrupted, %llu jumps\n",
              static_cast<unsigned long long>(handled), static_cast<unsigned long long>(back),
              static_cast<unsigned long long>(interrupted), static_cast<unsigned long long>(jumps));
  return 0;
}
