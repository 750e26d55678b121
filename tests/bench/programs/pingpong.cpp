// Request and answer, one at a time, over blocking sockets.
//
//   pingpong serve ADDRESS PORT SIZE
//   pingpong ask ADDRESS PORT SIZE REQUESTS    prints p50, p99 and mean in nanoseconds
#include <algorithm>
#include <vector>

#include "tests/bench/programs/socket_program.h"

namespace {

bool receive_all(int fd, char* data, size_t size) {
  for (size_t got = 0; got < size;) {
    ssize_t n = recv(fd, data + got, size - got, 0);
    if (n == 0) return false;
    if (n < 0) fail("recv");
    got += static_cast<size_t>(n);
  }
  return true;
}

void send_all(int fd, const char* data, size_t size) {
  for (size_t sent = 0; sent < size;) {
    ssize_t n = send(fd, data + sent, size - sent, 0);
    if (n < 0) fail("send");
    sent += static_cast<size_t>(n);
  }
}

int serve(const char* address, const char* port, size_t size) {
  std::vector<char> buffer(size);
  int fd = accept_one(address, port);
  no_delay(fd);
  while (receive_all(fd, buffer.data(), size)) send_all(fd, buffer.data(), size);
  close(fd);
  return 0;
}

int ask(const char* address, const char* port, size_t size, size_t requests) {
  std::vector<char> question(size, 'q'), answer(size);
  int fd = connect_to(address, port);
  no_delay(fd);
  std::vector<int64_t> times;
  times.reserve(requests);
  // The first tenth warms up.
  for (size_t i = 0; i < requests + requests / 10; ++i) {
    auto started = Clock::now();
    send_all(fd, question.data(), size);
    if (!receive_all(fd, answer.data(), size)) {
      std::fputs("the server closed\n", stderr);
      return 1;
    }
    if (i >= requests / 10) times.push_back((Clock::now() - started).count());
  }
  close(fd);
  if (answer != question) {
    std::fputs("the answer is not the question\n", stderr);
    return 1;
  }
  int64_t sum = 0;
  for (int64_t time : times) sum += time;
  std::sort(times.begin(), times.end());
  std::printf("%ld %ld %ld\n", times[times.size() / 2], times[times.size() * 99 / 100],
              sum / static_cast<int64_t>(times.size()));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "serve") == 0)
    return serve(argv[2], argv[3], std::strtoul(argv[4], nullptr, 10));
  if (argc == 6 && std::strcmp(argv[1], "ask") == 0)
    return ask(argv[2], argv[3], std::strtoul(argv[4], nullptr, 10), std::strtoul(argv[5], nullptr, 10));
  std::fputs("usage: pingpong serve ADDRESS PORT SIZE | ask ADDRESS PORT SIZE REQUESTS\n", stderr);
  return 2;
}
