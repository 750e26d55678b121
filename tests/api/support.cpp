#include "tests/api/support.h"

#include <fcntl.h>
#include <sys/time.h>

#include <atomic>
#include <cstdlib>
#include <thread>

namespace api {

namespace {

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) {
    std::fprintf(stderr, "%s is not set: start the tests by tests/api/run\n", name);
    std::exit(2);
  }
  return value;
}

std::atomic<int> handled{0};
std::atomic<pthread_t> handled_by{};

extern "C" void count_signal(int) {
  ++handled;
  handled_by = pthread_self();
}

}  // namespace

int family() {
  // Asked before main(), where it need not be set: tests can be listed without a laboratory.
  const char* local = std::getenv("API_TEST_LOCAL");
  return local != nullptr && std::strchr(local, ':') != nullptr ? AF_INET6 : AF_INET;
}

const socklen_t Address::size = family() == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);

Address::Address(const char* ip, uint16_t port) : Address() {
  in.sin_port = htons(port);  // at the same place in both
  if (family() == AF_INET) {
    inet_pton(AF_INET, ip, &in.sin_addr);
    return;
  }
  const std::string_view text(ip);
  std::string like(text);
  if (text == "0.0.0.0")
    like = "::";
  else if (text == "127.0.0.1")
    like = "::1";
  else if (text.find(':') == std::string_view::npos)
    like = "2001:db8:ffff::" + like;
  inet_pton(AF_INET6, like.c_str(), &in6.sin6_addr);
}

std::string Address::ip() const {
  char text[INET6_ADDRSTRLEN];
  const void* bytes = family() == AF_INET6 ? static_cast<const void*>(&in6.sin6_addr) : &in.sin_addr;
  return inet_ntop(family(), bytes, text, sizeof text);
}

Address local(uint16_t port) { return {environment("API_TEST_LOCAL"), port}; }

Address peer() {
  std::string text = environment("API_TEST_PEER");
  size_t colon = text.rfind(':');
  return {text.substr(0, colon).c_str(), static_cast<uint16_t>(std::stoi(text.substr(colon + 1)))};
}

Address nobody() { return {peer().ip().c_str(), 9}; }
Address silent() { return {environment("API_TEST_SILENT"), 80}; }

Address name_of(int fd) {
  Address address;
  socklen_t length = Address::size;
  EXPECT_EQ(getsockname(fd, address.get(), &length), 0) << strerror(errno);
  EXPECT_EQ(length, Address::size);
  return address;
}

Address peer_of(int fd) {
  Address address;
  socklen_t length = Address::size;
  EXPECT_EQ(getpeername(fd, address.get(), &length), 0) << strerror(errno);
  EXPECT_EQ(length, Address::size);
  return address;
}

Fd tcp(int flags) {
  Fd fd(socket(family(), SOCK_STREAM | flags, 0));
  EXPECT_GE(fd, 0) << strerror(errno);
  return fd;
}

Fd connected(const std::string& script, int flags) {
  Fd fd = tcp(flags & ~SOCK_NONBLOCK);
  EXPECT_EQ(connect(fd, peer().get(), Address::size), 0) << strerror(errno);
  EXPECT_TRUE(send_all(fd, script + "\n"));
  if ((flags & SOCK_NONBLOCK) != 0) set_nonblocking(fd);
  return fd;
}

Fd listening(int backlog, int flags) {
  Fd fd = tcp(flags);
  EXPECT_EQ(bind(fd, local().get(), Address::size), 0) << strerror(errno);
  EXPECT_EQ(listen(fd, backlog), 0) << strerror(errno);
  return fd;
}

Incoming incoming(const std::string& script, int accept_flags) {
  Incoming result;
  result.listener = listening();
  result.control = connected("call " + std::to_string(name_of(result.listener).port()) + " " + script);
  result.fd = accept4(result.listener, nullptr, nullptr, accept_flags);
  EXPECT_GE(result.fd, 0) << strerror(errno);
  return result;
}

bool set_nonblocking(int fd, bool on) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) == 0;
}

void set_timeout(int fd, int name, milliseconds time) {
  timeval value{.tv_sec = time.count() / 1000, .tv_usec = time.count() % 1000 * 1000};
  EXPECT_EQ(set_option(fd, SOL_SOCKET, name, value), 0) << strerror(errno);
}

short poll_one(int fd, short events, int ms) {
  pollfd one{fd, events, 0};
  int n = poll(&one, 1, ms);
  EXPECT_GE(n, 0) << strerror(errno);
  EXPECT_EQ(n > 0, one.revents != 0);
  return one.revents;
}

std::string read_all(int fd, size_t count) {
  std::string bytes;
  char buffer[65536];
  while (bytes.size() < count) {
    ssize_t n = read(fd, buffer, std::min(sizeof buffer, count - bytes.size()));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
      if (poll_one(fd, POLLIN) != 0) continue;
      ADD_FAILURE() << "nothing more came after " << bytes.size() << " bytes";
    }
    if (n <= 0) break;
    bytes.append(buffer, static_cast<size_t>(n));
  }
  return bytes;
}

std::string pattern(size_t count, size_t from) {
  std::string bytes(count, 0);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>((from + i) % 251);
  return bytes;
}

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN && poll_one(fd, POLLOUT) != 0) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

size_t fill(int fd) {
  size_t sent = 0;
  auto top_up = [&] {
    size_t before = sent;
    for (;;) {
      std::string bytes = pattern(100'000, sent);
      ssize_t n = send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) break;
      sent += static_cast<size_t>(n);
    }
    EXPECT_EQ(errno, EAGAIN);
    return sent > before;
  };
  top_up();
  // What is on its way makes room for more: full is what stays full for a while.
  while (!::testing::Test::HasFailure() && (poll_one(fd, POLLOUT, 300) != 0 || top_up())) {
    if (sent > (size_t{1} << 30)) {
      ADD_FAILURE() << "the peer reads: it can't be filled";
      break;
    }
    top_up();
  }
  return sent;
}

int pending_error(int fd) { return get_option(fd, SOL_SOCKET, SO_ERROR); }

Handler::Handler(int signal, int flags) : signal_(signal) {
  handled = 0;
  struct sigaction action {};
  action.sa_handler = count_signal;
  action.sa_flags = flags;
  EXPECT_EQ(sigaction(signal, &action, &before_), 0);
}
Handler::~Handler() { sigaction(signal_, &before_, nullptr); }
int Handler::count() const { return handled; }
pthread_t Handler::last_thread() const { return handled_by; }

struct Later::Impl {
  std::thread thread;
};
Later::Later(milliseconds after, std::function<void()> what)
    : impl_(new Impl{std::thread([after, what = std::move(what)] {
        std::this_thread::sleep_for(after);
        what();
      })}) {}
Later::~Later() {
  impl_->thread.join();
  delete impl_;
}

void* nowhere() {
  void* volatile pointer = nullptr;
  return pointer;
}
int minus_one() {
  volatile int value = -1;
  return value;
}

bool under_library() {
  const char* preload = std::getenv("LD_PRELOAD");
  return preload != nullptr && std::strstr(preload, "libustack") != nullptr;
}

}  // namespace api
