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

enum class PrivateNetworkResult { passed, failed, not_permitted };

/// Runs `body` in a forked child in a network namespace of its own; the expectations that fail there are
/// printed there and fail the test here. As an ordinary user it takes a user namespace too.
template <typename Body>
PrivateNetworkResult run_in_private_network(Body body) {
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
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return PrivateNetworkResult::passed;
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNotPermitted) return PrivateNetworkResult::not_permitted;
  if (WIFSIGNALED(status)) ADD_FAILURE() << "the test's process died of signal " << WTERMSIG(status);
  return PrivateNetworkResult::failed;
}

// The whole of a TEST: USTACK_RUN_IN_PRIVATE_NETWORK([] { ... });
#define USTACK_RUN_IN_PRIVATE_NETWORK(body)                                            \
  switch (::ustack::test::run_in_private_network(body)) {                              \
    case ::ustack::test::PrivateNetworkResult::passed:                                 \
      break;                                                                           \
    case ::ustack::test::PrivateNetworkResult::failed:                                 \
      FAIL() << "see above";                                                           \
    case ::ustack::test::PrivateNetworkResult::not_permitted:                          \
      GTEST_SKIP() << "no right to make a network namespace here, or no /dev/net/tun"; \
  }

}  // namespace ustack::test
