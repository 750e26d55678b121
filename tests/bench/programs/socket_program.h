// What the small measuring programs share: plain blocking sockets, as any program uses them.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

using Clock = std::chrono::steady_clock;

[[noreturn]] inline void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

inline int check(int result, const char* what) {
  if (result < 0) fail(what);
  return result;
}

inline sockaddr_in address_of(const char* address, const char* port) {
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_port = htons(static_cast<uint16_t>(std::atoi(port)));
  if (inet_pton(AF_INET, address, &result.sin_addr) != 1) {
    std::fprintf(stderr, "%s is no address\n", address);
    std::exit(2);
  }
  return result;
}

inline void no_delay(int fd) {
  int on = 1;
  check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "setsockopt");
}

/// Listens, says so on stdout, and accepts one connection.
inline int accept_one(const char* address, const char* port) {
  int listener = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
  int on = 1;
  check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "setsockopt");
  sockaddr_in name = address_of(address, port);
  check(bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name), "bind");
  check(listen(listener, 8), "listen");
  std::puts("listening");
  std::fflush(stdout);
  int fd = check(accept(listener, nullptr, nullptr), "accept");
  close(listener);
  return fd;
}

/// Connects; for ten seconds again while nobody is there yet.
inline int connect_to(const char* address, const char* port) {
  sockaddr_in name = address_of(address, port);
  auto deadline = Clock::now() + std::chrono::seconds(10);
  for (;;) {
    int fd = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
    if (connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0) return fd;
    if ((errno != ECONNREFUSED && errno != EHOSTUNREACH) || Clock::now() > deadline) fail("connect");
    close(fd);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}
