// libc's own functions behind the hooks: real::read(fd, to, bytes). All are found at once when the library is
// loaded (or at the first call, if another library's start-up comes first), so that nothing is looked up
// after a fork or in a signal handler. Code of ours that holds a Scope prefers io/syscalls.h: no cancellation
// point.
#pragma once

#include <poll.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <ctime>

#include "shim/symbols.h"

namespace ustack::shim::real {

// Until the look-up is done, and while it is under way (it may allocate, and a preloaded allocator may read
// and map files), these stand for libc's functions with bare system calls; entries that are no system call
// fail with ENOSYS then.
#define USTACK_REAL(result, name, parameters, arguments, number) extern result(*name) parameters;
USTACK_SYMBOLS(USTACK_REAL)
#undef USTACK_REAL

/// Finds all of them, once; called by the library's constructor.
void resolve();

}  // namespace ustack::shim::real
