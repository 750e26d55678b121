// One stream, as fast as it goes.
//
//   stream sink ADDRESS PORT [WRITE]           accepts, receives to the end, prints Gbit/s
//   stream send ADDRESS PORT SECONDS [WRITE]   connects and sends for that long
//
// WRITE: bytes of a send() or recv() (131072). The rate is the receiver's, from its first byte to its last.
#include <vector>

#include "tests/bench/programs/socket_program.h"

namespace {

int sink(const char* address, const char* port, size_t size) {
  std::vector<char> buffer(size);
  int fd = accept_one(address, port);
  int64_t total = 0;
  Clock::time_point started{}, ended{};
  while (ssize_t n = recv(fd, buffer.data(), buffer.size(), 0)) {
    if (n < 0) fail("recv");
    ended = Clock::now();
    if (total == 0) started = ended;
    total += n;
  }
  close(fd);
  double seconds = std::chrono::duration<double>(ended - started).count();
  std::printf("%.4f\n", seconds > 0 ? static_cast<double>(total) * 8e-9 / seconds : 0.0);
  return 0;
}

int send_for(const char* address, const char* port, double seconds, size_t size) {
  std::vector<char> buffer(size, 's');
  int fd = connect_to(address, port);
  auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  while (Clock::now() < deadline)
    if (send(fd, buffer.data(), buffer.size(), 0) < 0) fail("send");
  close(fd);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr size_t kWrite = 131072;
  if ((argc == 4 || argc == 5) && std::strcmp(argv[1], "sink") == 0)
    return sink(argv[2], argv[3], argc == 5 ? std::strtoul(argv[4], nullptr, 10) : kWrite);
  if ((argc == 5 || argc == 6) && std::strcmp(argv[1], "send") == 0)
    return send_for(argv[2], argv[3], std::atof(argv[4]),
                    argc == 6 ? std::strtoul(argv[5], nullptr, 10) : kWrite);
  std::fputs("usage: stream sink ADDRESS PORT [WRITE] | send ADDRESS PORT SECONDS [WRITE]\n", stderr);
  return 2;
}
