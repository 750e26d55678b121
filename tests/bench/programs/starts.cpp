// What starting a program costs: spawns it ROUNDS times with each of the libraries preloaded in turn ("-":
// none) and prints the times in microseconds, a line a start: LIBRARY'S NUMBER, TIME.
//   starts ROUNDS LIBRARY... -- PROGRAM [ARGUMENT...]
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 0;
  std::vector<std::string> preload;
  int next = 2;
  for (; next < argc && std::strcmp(argv[next], "--") != 0; ++next)
    preload.push_back(std::strcmp(argv[next], "-") == 0 ? std::string("NOTHING=")
                                                        : std::string("LD_PRELOAD=") + argv[next]);
  if (rounds <= 0 || preload.empty() || next + 1 >= argc) {
    std::fprintf(stderr, "usage: starts ROUNDS LIBRARY... -- PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  char** program = argv + next + 1;
  posix_spawn_file_actions_t silent;
  posix_spawn_file_actions_init(&silent);
  posix_spawn_file_actions_addopen(&silent, 1, "/dev/null", O_WRONLY, 0);
  char path[] = "PATH=/usr/bin:/bin", language[] = "LANG=C";
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < preload.size(); ++i) {
      // The order turns, so that none is always behind the same other.
      const size_t which = (i + static_cast<size_t>(round)) % preload.size();
      char* environment[] = {preload[which].data(), path, language, nullptr};
      const Clock::time_point started = Clock::now();
      pid_t pid = 0;
      int status = 0;
      if (posix_spawn(&pid, program[0], &silent, nullptr, program, environment) != 0 ||
          waitpid(pid, &status, 0) != pid || status != 0) {
        std::fprintf(stderr, "starts: %s failed\n", program[0]);
        return 1;
      }
      const std::chrono::duration<double, std::micro> taken = Clock::now() - started;
      std::printf("%zu %.1f\n", which, taken.count());
    }
  }
}
