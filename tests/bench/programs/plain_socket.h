// What the programs for measurements have in common. They know nothing of the library: plain sockets, so that
// the same binary runs on the kernel and under LD_PRELOAD.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace plain {

[[noreturn]] inline void die(const char* what) {
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

inline int64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// Processor time of this process so far, and of all that the machine did, both ends and interrupts among it.
struct CpuSeconds {
  double user = 0, system = 0, machine = 0;
};

/// proc_stat(5): but for idle, waiting for a disk, and what a hypervisor took.
inline double machine_seconds() {
  unsigned long long user = 0, nice = 0, system = 0, irq = 0, softirq = 0;
  FILE* file = std::fopen("/proc/stat", "re");
  if (file == nullptr ||
      std::fscanf(file, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &system, &irq, &softirq) != 5)
    die("/proc/stat");
  std::fclose(file);
  return static_cast<double>(user + nice + system + irq + softirq) /
         static_cast<double>(sysconf(_SC_CLK_TCK));
}

inline CpuSeconds cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& value) {
    return static_cast<double>(value.tv_sec) + static_cast<double>(value.tv_usec) / 1e6;
  };
  return {seconds(usage.ru_utime), seconds(usage.ru_stime), machine_seconds()};
}

/// Positional arguments in order, and `--name value` or `--name` (a flag: "1") options.
class Arguments {
 public:
  Arguments(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      if (std::strncmp(argv[i], "--", 2) != 0) {
        positional_.emplace_back(argv[i]);
      } else if (i + 1 < argc && std::strncmp(argv[i + 1], "--", 2) != 0) {
        options_.emplace_back(argv[i] + 2, argv[i + 1]);
        ++i;
      } else {
        options_.emplace_back(argv[i] + 2, "1");
      }
    }
  }

  const char* at(size_t index) const { return index < positional_.size() ? positional_[index].c_str() : ""; }
  size_t count() const { return positional_.size(); }
  double number(const char* name, double otherwise) const {
    for (const auto& [key, value] : options_) {
      if (key == name) return std::strtod(value.c_str(), nullptr);
    }
    return otherwise;
  }
  /// nullptr: not given.
  const char* text(const char* name) const {
    for (const auto& [key, value] : options_) {
      if (key == name) return value.c_str();
    }
    return nullptr;
  }
  bool has(const char* name) const { return number(name, 0) != 0; }

 private:
  std::vector<std::string> positional_;
  std::vector<std::pair<std::string, std::string>> options_;
};

inline sockaddr_in address_of(const char* host, const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::strtoul(port, nullptr, 10)));
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
    std::fprintf(stderr, "'%s' is not an address\n", host);
    std::exit(2);
  }
  return address;
}

/// A listening socket; says "listening" on stdout, so that whoever started the program need not guess.
inline int listen_on(const char* host, const char* port, int backlog, int type = 0) {
  sockaddr_in address = address_of(host, port);
  int listener = socket(AF_INET, SOCK_STREAM | type, 0);
  if (listener < 0) die("socket");
  int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) die("bind");
  if (listen(listener, backlog) < 0) die("listen");
  std::printf("listening\n");
  std::fflush(stdout);
  return listener;
}

inline void no_delay(int fd) {
  int one = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0) die("TCP_NODELAY");
}

inline int connect_to(const char* host, const char* port) {
  sockaddr_in address = address_of(host, port);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) die("socket");
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) die("connect");
  return fd;
}

inline void write_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    ssize_t done = write(fd, data, size);
    if (done < 0) die("write");
    data += done;
    size -= static_cast<size_t>(done);
  }
}

}  // namespace plain
