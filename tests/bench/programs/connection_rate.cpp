// Connections per second: connect, one byte each way, close.
//
//   connection_rate server ADDRESS PORT
//   connection_rate client ADDRESS PORT [--seconds 2] [--parallel 8]
//
// Both ends are epoll loops over non-blocking sockets. The client closes first, so that TIME-WAIT is on its
// side. The server runs until it is ended.
#include <sys/epoll.h>

#include "plain_socket.h"

namespace {

void add(int set, int fd, uint32_t events, int operation = EPOLL_CTL_ADD) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(set, operation, fd, &event) < 0) plain::die("epoll_ctl");
}

[[noreturn]] void serve(const plain::Arguments& arguments) {
  int listener = plain::listen_on(arguments.at(1), arguments.at(2), 1024, SOCK_NONBLOCK);
  int set = epoll_create1(0);
  if (set < 0) plain::die("epoll_create1");
  add(set, listener, EPOLLIN);
  for (;;) {
    epoll_event events[256];
    int ready = epoll_wait(set, events, 256, -1);
    if (ready < 0) plain::die("epoll_wait");
    for (int i = 0; i < ready; ++i) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        while ((fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0) add(set, fd, EPOLLIN);
        if (errno != EAGAIN && errno != ECONNABORTED) plain::die("accept4");
        continue;
      }
      char byte;
      ssize_t count = read(fd, &byte, 1);
      if (count < 0 && errno == EAGAIN) continue;
      if (count <= 0 || write(fd, &byte, 1) != 1) close(fd);
    }
  }
}

class Client {
 public:
  explicit Client(const plain::Arguments& arguments)
      : server_(plain::address_of(arguments.at(1), arguments.at(2))),
        parallel_(static_cast<size_t>(arguments.number("parallel", 8))),
        limit_(static_cast<int64_t>(arguments.number("seconds", 2) * 1e9)) {}

  int run() {
    set_ = epoll_create1(0);
    if (set_ < 0) plain::die("epoll_create1");
    plain::CpuSeconds before = plain::cpu_seconds();
    started_ = plain::now_ns();
    for (size_t i = 0; i < parallel_; ++i) open();
    while (running_ > 0) {
      epoll_event events[256];
      int ready = epoll_wait(set_, events, 256, 5000);
      if (ready < 0) plain::die("epoll_wait");
      if (ready == 0) {
        errno = ETIMEDOUT;
        plain::die("no event for 5 s");
      }
      for (int i = 0; i < ready; ++i) handle(events[i]);
    }
    double seconds = static_cast<double>(plain::now_ns() - started_) / 1e9;
    plain::CpuSeconds after = plain::cpu_seconds();
    std::printf(
        "{\"connections\": %llu, \"seconds\": %.3f, \"per_second\": %.0f, \"user_s\": %.3f, "
        "\"system_s\": %.3f}\n",
        static_cast<unsigned long long>(done_), seconds, static_cast<double>(done_) / seconds,
        after.user - before.user, after.system - before.system);
    return 0;
  }

 private:
  void open() {
    if (plain::now_ns() - started_ > limit_) return;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) plain::die("socket");
    if (connect(fd, reinterpret_cast<const sockaddr*>(&server_), sizeof server_) < 0 &&
        errno != EINPROGRESS) {
      plain::die("connect");
    }
    add(set_, fd, EPOLLOUT);
    ++running_;
  }

  void handle(const epoll_event& event) {
    int fd = event.data.fd;
    char byte = 'x';
    if (event.events & (EPOLLERR | EPOLLHUP)) {
      socklen_t length = sizeof errno;
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &errno, &length);
      plain::die("connection");
    }
    if (event.events & EPOLLOUT) {
      if (write(fd, &byte, 1) != 1) plain::die("write");
      add(set_, fd, EPOLLIN, EPOLL_CTL_MOD);
    } else if (event.events & EPOLLIN) {
      if (read(fd, &byte, 1) != 1) plain::die("read");
      close(fd);
      --running_;
      ++done_;
      open();
    }
  }

  sockaddr_in server_;
  size_t parallel_;
  int64_t limit_;
  int64_t started_ = 0;
  int set_ = -1;
  size_t running_ = 0;
  uint64_t done_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  plain::Arguments arguments(argc, argv);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "server")) serve(arguments);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "client")) return Client(arguments).run();
  std::fprintf(stderr, "usage: connection_rate server|client ADDRESS PORT [options]; see the source\n");
  return 2;
}
