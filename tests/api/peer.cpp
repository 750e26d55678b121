// The other side of the API tests, a program of the kernel's side: each connection begins with a line that
// says what to do on it.
//
//   api_peer PORT        listens on PORT, says "ready"
//
// The line is commands separated by blanks:
//   send N       N bytes of the pattern (byte i of the connection is i % 251)
//   say WORD     these bytes
//   recv N       reads N bytes; a connection that ends before closes
//   drain        reads until the end
//   echo         sends back what comes until the end
//   sum          sends the number of bytes read so far and a newline
//   check        sends "good" or "bad": whether what was read follows the pattern, and a newline
//   oob C        one byte, urgent
//   sleep MS
//   fin          shuts down its sending side
//   reset        closes with a reset
//   call PORT    connects to the caller's PORT and goes on there; the first connection stays until the end
//   dial N PORT  makes N connections to the caller's PORT and holds them until the end
// At the end of the line all connections are closed.
//
// A datagram to the same port of UDP is a command too:
//   echo ...     the datagram comes back
//   size N       one of N bytes of the pattern
//   many N M     N datagrams of M bytes
//   to PORT WORD the word goes to that port of the sender's address
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

class Session {
 public:
  explicit Session(int fd) : fds_{fd} {}
  ~Session() {
    for (int fd : fds_) close(fd);
  }

  void run() {
    std::istringstream line(read_line());
    std::string command;
    while (line >> command)
      if (!execute(command, line)) return;
  }

 private:
  int fd() const { return fds_.back(); }

  std::string read_line() {
    std::string line;
    for (char c = 0; read(fd(), &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }

  bool execute(const std::string& command, std::istream& arguments) {
    size_t number = 0;
    std::string word;
    if (command == "send") return arguments >> number && send_pattern(number);
    if (command == "say") return arguments >> word && send_all(word);
    if (command == "recv") return arguments >> number && receive(number);
    if (command == "drain") return receive(SIZE_MAX), true;
    if (command == "echo") return echo();
    if (command == "sum") return send_all(std::to_string(received_) + "\n");
    if (command == "check") return send_all(follows_ ? "good\n" : "bad\n");
    if (command == "oob") return arguments >> word && send(fd(), word.data(), 1, MSG_OOB | MSG_NOSIGNAL) == 1;
    if (command == "sleep") {
      arguments >> number;
      std::this_thread::sleep_for(std::chrono::milliseconds(number));
      return true;
    }
    if (command == "fin") return shutdown(fd(), SHUT_WR) == 0;
    if (command == "reset") {
      linger now{1, 0};
      setsockopt(fd(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
      return false;
    }
    if (command == "call") return arguments >> number && call(number);
    if (command == "dial") {
      size_t port = 0;
      arguments >> number >> port;
      int first = fds_.front();
      for (size_t i = 0; i < number; ++i)
        if (!call(port)) return false;
      std::rotate(fds_.begin(), fds_.begin() + 1, fds_.end());  // go on on the first
      return fds_.back() == first;
    }
    std::fprintf(stderr, "api_peer: unknown command %s\n", command.c_str());
    return false;
  }

  bool send_all(const std::string& bytes) {
    for (size_t sent = 0; sent < bytes.size();) {
      ssize_t n = send(fd(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return true;
  }

  bool send_pattern(size_t count) {
    std::string bytes;
    while (count > 0) {
      bytes.resize(std::min<size_t>(count, 65536));
      for (char& c : bytes) c = static_cast<char>(sent_++ % 251);
      if (!send_all(bytes)) return false;
      count -= bytes.size();
    }
    return true;
  }

  bool receive(size_t count) {
    char buffer[65536];
    while (count > 0) {
      ssize_t n = read(fd(), buffer, std::min(count, sizeof buffer));
      if (n <= 0) return false;
      for (ssize_t i = 0; i < n; ++i) follows_ &= static_cast<unsigned char>(buffer[i]) == received_++ % 251;
      count -= static_cast<size_t>(n);
    }
    return true;
  }

  bool echo() {
    char buffer[65536];
    for (;;) {
      ssize_t n = read(fd(), buffer, sizeof buffer);
      if (n <= 0) return n == 0;
      if (!send_all(std::string(buffer, static_cast<size_t>(n)))) return false;
    }
  }

  bool call(size_t port) {
    sockaddr_in6 to{};
    socklen_t length = sizeof to;
    getpeername(fds_.front(), reinterpret_cast<sockaddr*>(&to), &length);
    to.sin6_port = htons(static_cast<uint16_t>(port));
    fds_.push_back(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return connect(fd(), reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }

  std::vector<int> fds_;
  size_t sent_ = 0, received_ = 0;
  bool follows_ = true;
};

void answer(int fd, const sockaddr_in6& from, const std::string& datagram) {
  sockaddr_in6 to = from;
  auto say = [&](const std::string& bytes) {
    sendto(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
  };
  auto bytes_of_pattern = [](size_t count) {
    std::string bytes(count, '\0');
    for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(i % 251);
    return bytes;
  };
  std::istringstream line(datagram);
  std::string command, word;
  size_t number = 0, size = 0;
  line >> command;
  if (command == "echo") say(datagram);
  if (command == "size" && line >> number) say(bytes_of_pattern(number));
  if (command == "many" && line >> number >> size)
    for (size_t i = 0; i < number; ++i) say(bytes_of_pattern(size));
  if (command == "to" && line >> number >> word) {
    to.sin6_port = htons(static_cast<uint16_t>(number));
    say(word);
  }
}

void serve_datagrams(int fd) {
  std::string datagram(65536, '\0');
  for (;;) {
    sockaddr_in6 from{};
    socklen_t length = sizeof from;
    ssize_t n =
        recvfrom(fd, datagram.data(), datagram.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (n >= 0) answer(fd, from, datagram.substr(0, static_cast<size_t>(n)));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  signal(SIGPIPE, SIG_IGN);
  // Over both families; its callers' addresses are then IPv6's or mapped.
  int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1, off = 0;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_port = htons(static_cast<uint16_t>(std::atoi(argv[1])));
  if (bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0 || listen(listener, 128) != 0) {
    std::perror("api_peer");
    return 1;
  }
  int datagrams = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  setsockopt(datagrams, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (bind(datagrams, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0) {
    std::perror("api_peer");
    return 1;
  }
  std::thread(serve_datagrams, datagrams).detach();
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) std::thread([fd] { Session(fd).run(); }).detach();
  }
}
