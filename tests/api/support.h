// What the API tests share. They are ordinary programs: nothing here knows of the library.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace api {

using std::chrono::milliseconds;

/// The call fails with this errno.
#define EXPECT_FAILS(code, ...)                                     \
  do {                                                              \
    errno = 0;                                                      \
    auto result_ = (__VA_ARGS__);                                   \
    int errno_ = errno;                                             \
    EXPECT_EQ(result_, -1) << #__VA_ARGS__;                         \
    EXPECT_STREQ(strerror(errno_), strerror(code)) << #__VA_ARGS__; \
  } while (false)
/// The call returns 0.
#define ASSERT_WORKS(...)                                             \
  do {                                                                \
    errno = 0;                                                        \
    auto result_ = (__VA_ARGS__);                                     \
    ASSERT_EQ(result_, 0) << #__VA_ARGS__ << ": " << strerror(errno); \
  } while (false)
#define EXPECT_WORKS(...)                                             \
  do {                                                                \
    errno = 0;                                                        \
    auto result_ = (__VA_ARGS__);                                     \
    EXPECT_EQ(result_, 0) << #__VA_ARGS__ << ": " << strerror(errno); \
  } while (false)

/// A descriptor that is closed at the end.
class Fd {
 public:
  Fd() = default;
  Fd(int fd) : fd_(fd) {}  // NOLINT: implicit
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { reset(); }
  operator int() const { return fd_; }  // NOLINT: implicit
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

/// The tests' family: IPv6 where API_TEST_LOCAL is such an address, else IPv4.
int family();

/// An internet address of the tests' family that converts to what the calls take.
struct Address {
  Address() { in.sin_family = static_cast<sa_family_t>(family()); }
  /// An address of IPv4 that tests name stands for its like: 0.0.0.0 for ::, 127.0.0.1 for ::1, and any other
  /// for 2001:db8:ffff::a.b.c.d, which is nobody's.
  Address(const char* ip, uint16_t port);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&in); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&in); }
  uint16_t port() const { return ntohs(in.sin_port); }
  std::string ip() const;
  static const socklen_t size;
  union {
    sockaddr_in in;
    sockaddr_in6 in6{};
  };
};

/// From API_TEST_LOCAL: this side's address.
Address local(uint16_t port = 0);
/// From API_TEST_PEER (IP:PORT): where api_peer listens.
Address peer();
/// The peer's address, with a port where nobody listens.
Address nobody();
/// On the same network, and there is no such host: a connect() waits for some seconds.
Address silent();
Address name_of(int fd);
Address peer_of(int fd);

Fd tcp(int flags = 0);
/// A connection to api_peer, which does what `script` says on it.
Fd connected(const std::string& script, int flags = 0);
/// Listens on this side's address with a port of its own.
Fd listening(int backlog = 16, int flags = 0);
/// A listener of this side and a connection that came in by it, on which api_peer executes `script`.
struct Incoming {
  Fd listener, control, fd;
};
Incoming incoming(const std::string& script, int accept_flags = 0);

bool set_nonblocking(int fd, bool on = true);
template <typename T>
int set_option(int fd, int level, int name, const T& value) {
  return setsockopt(fd, level, name, &value, sizeof value);
}
template <typename T = int>
T get_option(int fd, int level, int name) {
  T value{};
  socklen_t length = sizeof value;
  EXPECT_EQ(getsockopt(fd, level, name, &value, &length), 0) << strerror(errno);
  return value;
}
/// SO_RCVTIMEO or SO_SNDTIMEO.
void set_timeout(int fd, int name, milliseconds time);

/// poll() on one descriptor: its revents, 0 at the end of the time.
short poll_one(int fd, short events, int ms = 5000);
/// Reads exactly `count` bytes, or until the end.
std::string read_all(int fd, size_t count = SIZE_MAX);
/// Bytes of api_peer's pattern.
std::string pattern(size_t count, size_t from = 0);
/// Sends all; false if that fails.
bool send_all(int fd, std::string_view bytes);
/// Fills the connection until a non-blocking send would block; the number of bytes (of the pattern).
size_t fill(int fd);
/// The other side sends back what it gets.
inline bool echoes(int fd, std::string_view text) {
  return send_all(fd, text) && read_all(fd, text.size()) == text;
}
/// SO_ERROR.
int pending_error(int fd);

/// A child that runs `body` and ends with what it returns; 99: it threw, or the test gave up in it.
class Child {
 public:
  explicit Child(const std::function<int()>& body) : pid_(fork()) {
    if (pid_ == 0) _exit(body());
    EXPECT_GT(pid_, 0) << strerror(errno);
  }
  ~Child() {
    if (pid_ > 0) kill(SIGKILL);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// Its exit status, or minus the number of the signal that has killed it.
  int wait() {
    int status = 0;
    EXPECT_EQ(waitpid(std::exchange(pid_, -1), &status, 0) > 0, true) << strerror(errno);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  int kill(int signal) {
    ::kill(pid_, signal);
    return wait();
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

class Stopwatch {
 public:
  milliseconds elapsed() const {
    return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start_);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// A handler for a signal, for the length of a test; counts how often it ran.
class Handler {
 public:
  Handler(int signal, int flags);
  ~Handler();
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;
  int count() const;
  pthread_t last_thread() const;

 private:
  int signal_;
  struct sigaction before_ {};
};

/// Runs something on another thread after a while.
class Later {
 public:
  Later(milliseconds after, std::function<void()> what);
  ~Later();
  Later(const Later&) = delete;
  Later& operator=(const Later&) = delete;

 private:
  struct Impl;
  Impl* impl_;
};

/// A null pointer and -1, which the compiler does not see through.
void* nowhere();
int minus_one();

/// Whether a program that the test starts here would run under the library (for what is known to differ).
bool under_library();

}  // namespace api
