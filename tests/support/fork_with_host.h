// For tests that link the shim without its hooks: fork() as the library's hook does it, and links over
// sockets.
#pragma once

#include <unistd.h>

#include <string>

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

/// USTACK_LINK for a socket as a link of so many queues, all of them the same socket: whoever reads first has
/// the frame.
inline std::string link_over(int socket, unsigned queues = 1) {
  std::string link = "fd:" + std::to_string(socket);
  for (unsigned i = 1; i < queues; ++i) link += "," + std::to_string(socket);
  return link;
}

}  // namespace ustack::test
