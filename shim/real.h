// libc's own functions behind the hooks: real::read(fd, to, bytes). Each is found when it is called first,
// since looking all of them up is a third of what the library costs a program that opens no socket; and all
// of them before a host is made, a signal handler is installed or the process forks, so that nothing is
// looked up in a signal handler or after a fork. Code of ours that holds a Scope prefers io/syscalls.h: no
// cancellation point.
#pragma once

#include <ifaddrs.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

// While a look-up is under way (it may allocate, and a preloaded allocator may read and map files), these
// stand for libc's functions with bare system calls; entries that are no system call fail with ENOSYS then.
namespace detail {
struct Entries {
#define USTACK_REAL(result, name, parameters, arguments, number) result(*name) parameters;
  USTACK_SYMBOLS(USTACK_REAL)
#undef USTACK_REAL
};
extern Entries entries;
}  // namespace detail

#define USTACK_REAL(result, name, parameters, arguments, number) \
  inline constexpr auto& name = detail::entries.name;
USTACK_SYMBOLS(USTACK_REAL)
#undef USTACK_REAL

/// libc's dlopen(3), found now if it was not yet: for who must not call but jump to it.
using Dlopen = void* (*)(const char* file, int flags);
Dlopen find_dlopen();
/// Finds all that are not found yet; costs some 30 us once.
void resolve();

}  // namespace ustack::shim::real
