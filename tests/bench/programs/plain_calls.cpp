// What a read and a write of a descriptor cost that is no socket of ours: one byte of /dev/zero and to
// /dev/null, in ns, the least of many batches. With an argument a socket is open meanwhile. One line of JSON.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace {

template <typename Call>
double least(Call call) {
  constexpr int kBatches = 400, kCalls = 2000;
  double best = 1e9;
  for (int batch = 0; batch < kBatches; ++batch) {
    auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kCalls; ++i) call();
    std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
    best = std::min(best, time.count() / kCalls);
  }
  return best;
}

}  // namespace

int main(int argc, char**) {
  int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY);
  if (zero < 0 || null < 0 || (argc > 1 && socket(AF_INET, SOCK_STREAM, 0) < 0)) {
    std::perror("plain_calls");
    return 1;
  }
  char byte = 0;
  double reads = least([&] { return read(zero, &byte, 1); });
  double writes = least([&] { return write(null, &byte, 1); });
  std::printf("{\"read_ns\": %.2f, \"write_ns\": %.2f}\n", reads, writes);
}
