// What the measuring programs that are epoll loops have in common.
#pragma once

#include <sys/epoll.h>

#include <algorithm>
#include <span>

#include "plain_socket.h"

namespace plain {

inline void add(int set, int fd, uint32_t events, int operation = EPOLL_CTL_ADD) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(set, operation, fd, &event) < 0) die("epoll_ctl");
}

inline int make_set() {
  int set = epoll_create1(0);
  if (set < 0) die("epoll_create1");
  return set;
}

/// Answers byte by byte whoever connects to one of these non-blocking listeners, until the program is ended.
[[noreturn]] inline void echo_bytes(std::span<const int> listeners) {
  int set = make_set();
  for (int listener : listeners) add(set, listener, EPOLLIN);
  for (;;) {
    epoll_event events[256];
    int ready = epoll_wait(set, events, 256, -1);
    if (ready < 0) die("epoll_wait");
    for (int i = 0; i < ready; ++i) {
      int fd = events[i].data.fd;
      if (std::find(listeners.begin(), listeners.end(), fd) != listeners.end()) {
        const int listener = fd;
        while ((fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0) add(set, fd, EPOLLIN);
        if (errno != EAGAIN && errno != ECONNABORTED) die("accept4");
        continue;
      }
      char byte;
      ssize_t count = read(fd, &byte, 1);
      if (count < 0 && errno == EAGAIN) continue;
      if (count <= 0 || write(fd, &byte, 1) != 1) close(fd);
    }
  }
}

/// A non-blocking connection that is being made.
inline int begin_connection(const sockaddr_in& server) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0) die("socket");
  if (connect(fd, reinterpret_cast<const sockaddr*>(&server), sizeof server) < 0 && errno != EINPROGRESS)
    die("connect");
  return fd;
}

/// Events of connections, none of which is broken; how many. Nothing for ten seconds is the end.
inline int wait_for_events(int set, epoll_event (&events)[256]) {
  int ready = epoll_wait(set, events, 256, 10000);
  if (ready < 0) die("epoll_wait");
  if (ready == 0) {
    errno = ETIMEDOUT;
    die("no event for 10 s");
  }
  for (int i = 0; i < ready; ++i) {
    if ((events[i].events & (EPOLLERR | EPOLLHUP)) == 0) continue;
    socklen_t length = sizeof errno;
    getsockopt(events[i].data.fd, SOL_SOCKET, SO_ERROR, &errno, &length);
    die("connection");
  }
  return ready;
}

struct Ended {
  uint64_t connections = 0;
  double seconds = 0;
  double per_second() const { return static_cast<double>(connections) / seconds; }
};

/// Connect, a byte each way, close: so many at a time, begun for so long.
inline Ended short_connections(const sockaddr_in& server, size_t parallel, double seconds) {
  const int set = make_set();
  const int64_t started = now_ns(), end = started + static_cast<int64_t>(seconds * 1e9);
  size_t running = 0;
  Ended ended;
  auto begin_one = [&] {
    if (now_ns() > end) return;
    add(set, begin_connection(server), EPOLLOUT);
    ++running;
  };
  for (size_t i = 0; i < parallel; ++i) begin_one();
  while (running > 0) {
    epoll_event events[256];
    int ready = wait_for_events(set, events);
    for (int i = 0; i < ready; ++i) {
      int fd = events[i].data.fd;
      char byte = 'x';
      if ((events[i].events & EPOLLOUT) != 0) {
        if (write(fd, &byte, 1) != 1) die("write");
        add(set, fd, EPOLLIN, EPOLL_CTL_MOD);
        continue;
      }
      if (read(fd, &byte, 1) != 1) die("read");
      close(fd);
      --running;
      ++ended.connections;
      begin_one();
    }
  }
  close(set);
  ended.seconds = static_cast<double>(now_ns() - started) / 1e9;
  return ended;
}

}  // namespace plain
