// fork() as the library's hook does it, for tests that link the shim without its hooks.
#pragma once

#include <unistd.h>

#include "shim/process.h"

namespace ustack::test {

/// Both sides of the host are told, as pthread_atfork() and the hook of fork() would.
inline pid_t fork_with_host() {
  shim::Process::before_fork();
  pid_t child = fork();
  if (child == 0) {
    shim::Process::after_fork_in_child();
  } else {
    shim::Process::after_fork_in_parent();
    shim::Process::fork_returned(child);
  }
  return child;
}

}  // namespace ustack::test
