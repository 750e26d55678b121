// A network namespace for one test, gone with it: nothing of the machine's own network is touched.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

namespace ustack::test {

/// The whole of a TEST: runs `body` in a forked child in a network namespace of its own. Expectations that
/// fail there are printed there and fail the test here; without the right to make a namespace, or when the
/// body skips, the test is skipped. As an ordinary user it takes a user namespace too.
template <typename Body>
void in_private_network(Body body) {
  constexpr int kNotPermitted = 77;
  std::fflush(nullptr);
  pid_t child = fork();
  if (child == 0) {
    uid_t uid = getuid();
    gid_t gid = getgid();
    if (unshare(CLONE_NEWNET) != 0) {
      if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) _exit(kNotPermitted);
      auto write_file = [](const char* path, const std::string& text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        bool written = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
        if (fd >= 0) close(fd);
        return written;
      };
      write_file("/proc/self/setgroups", "deny");
      if (!write_file("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1") ||
          !write_file("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1"))
        _exit(kNotPermitted);
    }
    body();
    bool failed = testing::Test::HasFailure();
    bool skipped = testing::Test::IsSkipped();
    std::fflush(nullptr);
    _exit(failed ? 1 : skipped ? kNotPermitted : 0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNotPermitted)
    GTEST_SKIP() << "no right to make a network namespace, or what the test needs is not there";
  if (WIFSIGNALED(status)) FAIL() << "the test's process died of signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) != 0) FAIL() << "see above";
}

}  // namespace ustack::test
