// One-way streams, as fast as they go; the receiver counts.
//
//   bulk receive ADDRESS PORT [--streams 1] [--read 262144]
//   bulk send ADDRESS PORT [--streams 1] [--seconds 2] [--write 131072] [--congestion NAME] [--buffers 1]
//             [--zero-copy]
//
// The receiver takes that many connections, reads until all have ended and tells the rate from the first byte
// to the last. Both tell the processor time that their process took, and the whole machine meanwhile. One
// stream: blocking calls; several: epoll. --buffers: what is sent lies in that many, in turn. --zero-copy:
// one stream, sent with MSG_ZEROCOPY; a buffer is used again when the kernel has said that it may be.
#include <fcntl.h>
#include <linux/errqueue.h>
#include <poll.h>
#include <sys/epoll.h>

#include <cstring>
#include <optional>

#include "plain_socket.h"

namespace {

void report(uint64_t bytes, double seconds, const plain::CpuSeconds& before) {
  const plain::CpuSeconds after = plain::cpu_seconds();
  std::printf(
      "{\"bytes\": %llu, \"seconds\": %.3f, \"gbits\": %.3f, \"user_s\": %.3f, \"system_s\": %.3f, "
      "\"machine_s\": %.3f}\n",
      static_cast<unsigned long long>(bytes), seconds,
      seconds > 0 ? static_cast<double>(bytes) * 8 / seconds / 1e9 : 0.0, after.user - before.user,
      after.system - before.system, after.machine - before.machine);
}

/// An epoll set with all of `fds`, which become non-blocking.
int watch(const std::vector<int>& fds, uint32_t events) {
  int set = epoll_create1(0);
  if (set < 0) plain::die("epoll_create1");
  for (int fd : fds) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0) plain::die("epoll_ctl");
  }
  return set;
}

int receive(const plain::Arguments& arguments) {
  const auto streams = static_cast<size_t>(arguments.number("streams", 1));
  std::vector<char> buffer(static_cast<size_t>(arguments.number("read", 262144)));
  int listener = plain::listen_on(arguments.at(1), arguments.at(2), 128);
  std::vector<int> fds;
  while (fds.size() < streams) {
    int fd = accept(listener, nullptr, nullptr);
    if (fd < 0) plain::die("accept");
    fds.push_back(fd);
  }
  plain::CpuSeconds before = plain::cpu_seconds();
  int64_t first = 0;
  uint64_t bytes = 0;
  int set = streams > 1 ? watch(fds, EPOLLIN) : -1;
  for (size_t open = streams; open > 0;) {
    epoll_event events[64];
    int ready = 1;
    events[0].data.fd = fds[0];
    if (set >= 0 && (ready = epoll_wait(set, events, 64, -1)) < 0) plain::die("epoll_wait");
    for (int i = 0; i < ready; ++i) {
      ssize_t count = read(events[i].data.fd, buffer.data(), buffer.size());
      if (count < 0 && errno != EAGAIN) plain::die("read");
      if (count == 0) {
        close(events[i].data.fd);
        --open;
      }
      if (count > 0) {
        if (first == 0) first = plain::now_ns();
        bytes += static_cast<uint64_t>(count);
      }
    }
  }
  report(bytes, static_cast<double>(plain::now_ns() - first) / 1e9, before);
  return 0;
}

/// Which sends of MSG_ZEROCOPY still have their buffers.
class LentBuffers {
 public:
  explicit LentBuffers(int fd) : fd_(fd) {
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) < 0) plain::die("SO_ZEROCOPY");
  }
  void sent() { ++sent_; }
  /// Until at most `most` have one.
  void wait(size_t most) {
    take_back();
    for (; sent_ - returned_ > most; take_back()) {
      pollfd item{fd_, 0, 0};
      poll(&item, 1, 1000);
    }
  }

 private:
  void take_back() {
    alignas(cmsghdr) char room[256];
    for (;;) {
      msghdr message{};
      message.msg_control = room;
      message.msg_controllen = sizeof room;
      if (recvmsg(fd_, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return;
      sock_extended_err told;
      std::memcpy(&told, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof told);
      returned_ += told.ee_data - told.ee_info + 1;
    }
  }
  int fd_;
  size_t sent_ = 0, returned_ = 0;
};

int send(const plain::Arguments& arguments) {
  const auto streams = static_cast<size_t>(arguments.number("streams", 1));
  const auto limit = static_cast<int64_t>(arguments.number("seconds", 2) * 1e9);
  const auto bytes_at_once = static_cast<size_t>(arguments.number("write", 131072));
  const auto buffers = static_cast<size_t>(arguments.number("buffers", 1));
  std::vector<char> memory(bytes_at_once * buffers, 'x');
  std::vector<int> fds;
  while (fds.size() < streams) fds.push_back(plain::connect_to(arguments.at(1), arguments.at(2)));
  // By the socket, since not every kernel lets a namespace have its own default.
  if (const char* name = arguments.text("congestion"); name != nullptr)
    for (int fd : fds)
      if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, static_cast<socklen_t>(std::strlen(name))) < 0)
        plain::die("TCP_CONGESTION");
  std::optional<LentBuffers> lent;
  if (arguments.has("zero-copy")) lent.emplace(fds[0]);
  int set = streams > 1 ? watch(fds, EPOLLOUT) : -1;
  plain::CpuSeconds before = plain::cpu_seconds();
  uint64_t bytes = 0;
  size_t sends = 0;
  int64_t started = plain::now_ns();
  while (plain::now_ns() - started < limit) {
    epoll_event events[64];
    int ready = 1;
    events[0].data.fd = fds[0];
    if (set >= 0 && (ready = epoll_wait(set, events, 64, 1000)) < 0) plain::die("epoll_wait");
    for (int i = 0; i < ready; ++i) {
      if (lent) lent->wait(buffers - 1);
      const char* buffer = memory.data() + sends++ % buffers * bytes_at_once;
      ssize_t count = ::send(events[i].data.fd, buffer, bytes_at_once, lent ? MSG_ZEROCOPY : 0);
      if (count < 0 && errno != EAGAIN) plain::die("send");
      if (lent) lent->sent();
      if (count > 0) bytes += static_cast<uint64_t>(count);
    }
  }
  report(bytes, static_cast<double>(plain::now_ns() - started) / 1e9, before);
  for (int fd : fds) close(fd);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  plain::Arguments arguments(argc, argv);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "receive")) return receive(arguments);
  if (arguments.count() == 3 && !std::strcmp(arguments.at(0), "send")) return send(arguments);
  std::fprintf(stderr, "usage: bulk receive|send ADDRESS PORT [options]; see the source\n");
  return 2;
}
