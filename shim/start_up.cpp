// The library is loaded, and the program ends.
#include <pthread.h>

#include <cstdlib>

#include "shim/bare.h"
#include "shim/catching.h"
#include "shim/process.h"

namespace ustack::shim {

namespace {

/// Costs a program that opens no internet socket nothing but this: one pass over the environment.
__attribute__((constructor)) void start() {
  Process::start();
  // Registered early, before fork the last to run and after it the first. They also see forks inside libc.
  pthread_atfork(Process::before_fork, Process::after_fork_in_parent, Process::after_fork_in_child);
  // quick_exit() runs handlers in the reverse order too.
  at_quick_exit(Process::linger);
  if (catching::is_wanted(Process::config()))
    catching::start(Process::config(), numbers_to_catch(), call_caught);
}

/// exit() and return from main: after the program's own atexit() handlers.
__attribute__((destructor)) void end() { Process::linger(); }

}  // namespace

}  // namespace ustack::shim
