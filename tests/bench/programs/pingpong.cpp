// Requests and answers of one size over one connection; the client tells how long they take.
//
//   pingpong server ADDRESS PORT [--size 64] [--epoll]
//   pingpong client ADDRESS PORT [--size 64] [--epoll] [--count 20000] [--warm-up 1000] [--seconds 0]
//
// The server serves one connection and ends. --epoll: non-blocking sockets behind epoll_wait, as servers with
// many connections do. --seconds: the client stops then, however many of `count` it has done.
#include <sys/epoll.h>

#include <algorithm>

#include "plain_socket.h"

namespace {

/// Moves whole messages over one descriptor, blocking or behind an epoll set.
class Peer {
 public:
  Peer(int fd, bool with_epoll) : fd_(fd) {
    plain::no_delay(fd);
    if (!with_epoll) return;
    set_ = epoll_create1(0);
    epoll_event event{};
    event.events = EPOLLIN;
    if (set_ < 0 || epoll_ctl(set_, EPOLL_CTL_ADD, fd, &event) < 0) plain::die("epoll");
  }

  /// False at the end of the stream.
  bool receive(char* data, size_t size) {
    for (size_t have = 0; have < size;) {
      if (set_ >= 0) {
        epoll_event event{};
        if (epoll_wait(set_, &event, 1, -1) < 0) plain::die("epoll_wait");
      }
      ssize_t count = recv(fd_, data + have, size - have, set_ >= 0 ? MSG_DONTWAIT : 0);
      if (count == 0) return false;
      if (count < 0 && errno != EAGAIN) plain::die("recv");
      if (count > 0) have += static_cast<size_t>(count);
    }
    return true;
  }

  void send(const char* data, size_t size) { plain::write_all(fd_, data, size); }

 private:
  int fd_;
  int set_ = -1;
};

int serve(const plain::Arguments& arguments) {
  int listener = plain::listen_on(arguments.at(1), arguments.at(2), 1);
  int fd = accept(listener, nullptr, nullptr);
  if (fd < 0) plain::die("accept");
  Peer peer(fd, arguments.has("epoll"));
  std::vector<char> message(static_cast<size_t>(arguments.number("size", 64)));
  while (peer.receive(message.data(), message.size())) peer.send(message.data(), message.size());
  close(fd);
  close(listener);
  return 0;
}

int ask(const plain::Arguments& arguments) {
  const auto count = static_cast<size_t>(arguments.number("count", 20000));
  const auto warm_up = static_cast<size_t>(arguments.number("warm-up", 1000));
  const auto limit = static_cast<int64_t>(arguments.number("seconds", 0) * 1e9);
  std::vector<char> message(static_cast<size_t>(arguments.number("size", 64)), 'x');
  int fd = plain::connect_to(arguments.at(1), arguments.at(2));
  Peer peer(fd, arguments.has("epoll"));
  std::vector<int64_t> took;
  took.reserve(count);
  plain::CpuSeconds before = plain::cpu_seconds();
  int64_t started = plain::now_ns();
  for (size_t i = 0; i < warm_up + count; ++i) {
    if (i == warm_up) {
      before = plain::cpu_seconds();
      started = plain::now_ns();
    }
    int64_t sent = plain::now_ns();
    peer.send(message.data(), message.size());
    if (!peer.receive(message.data(), message.size())) {
      std::fprintf(stderr, "the server ended early\n");
      return 1;
    }
    int64_t now = plain::now_ns();
    if (i < warm_up) continue;
    took.push_back(now - sent);
    if (limit > 0 && now - started > limit) break;
  }
  double seconds = static_cast<double>(plain::now_ns() - started) / 1e9;
  plain::CpuSeconds after = plain::cpu_seconds();
  close(fd);
  if (took.empty()) return 1;
  std::sort(took.begin(), took.end());
  auto at = [&](double part) {
    return static_cast<double>(took[static_cast<size_t>(part * static_cast<double>(took.size() - 1))]) / 1e3;
  };
  double sum = 0;
  for (int64_t each : took) sum += static_cast<double>(each) / 1e3;
  std::printf(
      "{\"requests\": %zu, \"seconds\": %.3f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"mean_us\": %.2f, "
      "\"user_us\": %.2f, \"system_us\": %.2f, \"machine_us\": %.2f}\n",
      took.size(), seconds, at(0.5), at(0.99), sum / static_cast<double>(took.size()),
      (after.user - before.user) * 1e6 / static_cast<double>(took.size()),
      (after.system - before.system) * 1e6 / static_cast<double>(took.size()),
      (after.machine - before.machine) * 1e6 / static_cast<double>(took.size()));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  plain::Arguments arguments(argc, argv);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "server")) return serve(arguments);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "client")) return ask(arguments);
  std::fprintf(stderr, "usage: pingpong server|client ADDRESS PORT [options]; see the source\n");
  return 2;
}
