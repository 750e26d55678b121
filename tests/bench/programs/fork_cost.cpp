// What fork() costs a process with many open connections.
//
//   fork_cost server ADDRESS PORT [--connections 10000] [--forks 40]
//   fork_cost client ADDRESS PORT [--connections 10000]
//
// The server takes so many connections and then forks children that end at once. Its figures: the time until
// fork() is back in the parent, and until the child was waited for. The client keeps its end open until the
// server closes.
#include <sys/wait.h>

#include <algorithm>

#include "plain_socket.h"

namespace {

size_t prepare(const plain::Arguments& arguments) {
  auto count = static_cast<size_t>(arguments.number("connections", 10000));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) plain::die("getrlimit");
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, count + 512);
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) plain::die("setrlimit");
  return count;
}

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

int serve(const plain::Arguments& arguments) {
  size_t count = prepare(arguments);
  int listener = plain::listen_on(arguments.at(1), arguments.at(2), 1024);
  std::vector<int> connections;
  while (connections.size() < count) {
    int fd = accept(listener, nullptr, nullptr);
    if (fd < 0) plain::die("accept");
    connections.push_back(fd);
  }
  std::vector<double> forked, waited;
  for (auto forks = static_cast<int>(arguments.number("forks", 40)); forks > 0; --forks) {
    int64_t start = plain::now_ns();
    pid_t child = fork();
    if (child < 0) plain::die("fork");
    if (child == 0) _exit(0);
    int64_t back = plain::now_ns();
    if (waitpid(child, nullptr, 0) != child) plain::die("waitpid");
    forked.push_back(static_cast<double>(back - start) / 1e3);
    waited.push_back(static_cast<double>(plain::now_ns() - start) / 1e3);
  }
  std::printf("{\"connections\": %zu, \"fork_us\": %.1f, \"fork_exit_wait_us\": %.1f}\n", connections.size(),
              median(forked), median(waited));
  std::fflush(stdout);
  return 0;
}

int hold(const plain::Arguments& arguments) {
  size_t count = prepare(arguments);
  std::vector<int> connections;
  while (connections.size() < count)
    connections.push_back(plain::connect_to(arguments.at(1), arguments.at(2)));
  char byte;
  (void)!read(connections.back(), &byte, 1);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  plain::Arguments arguments(argc, argv);
  if (arguments.count() == 3 && std::strcmp(arguments.at(0), "server") == 0) return serve(arguments);
  if (arguments.count() == 3 && std::strcmp(arguments.at(0), "client") == 0) return hold(arguments);
  std::fprintf(stderr, "fork_cost server|client ADDRESS PORT [--connections N] [--forks N]\n");
  return 2;
}
