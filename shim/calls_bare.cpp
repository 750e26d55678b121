// Hooks of prctl() and syscall(): a process that restricts itself (sandbox.h), and one that forks without
// libc, as vsftpd does to get namespaces of its own.
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cerrno>

#include "io/syscalls.h"
#include "shim/hooks.h"
#include "shim/process.h"
#include "shim/sandbox.h"
#include "shim/scope.h"
#include "shim/thread.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

bool concerns_us() { return Process::has_host() && !Scope::inside(); }

/// A clone(2) that is a fork: memory of its own, the caller's stack.
bool is_fork(long number, long flags, long stack) {
  return number == SYS_clone && (flags & (CLONE_VM | CLONE_THREAD)) == 0 && stack == 0;
}

/// Where the argument for the child's number is, which differs between architectures.
#if defined(__x86_64__)
constexpr int kChildId = 3;
#else
constexpr int kChildId = 4;
#endif

/// With what libc's fork() would do for the mutexes that are shared with the child: it has to know the number
/// of its thread, and the kernel its list of robust mutexes.
long fork_bare(long (&arguments)[5]) {
  const long number = sys::arg(thread_id_address());
  if ((arguments[0] & CLONE_CHILD_SETTID) == 0 && number != 0) {
    arguments[0] |= CLONE_CHILD_SETTID;
    arguments[kChildId] = number;
  }
  void* robust_list = nullptr;
  size_t robust_bytes = 0;
  sys::call(SYS_get_robust_list, 0, sys::arg(&robust_list), sys::arg(&robust_bytes));
  Process::before_fork();
  long result = sys::call(SYS_clone, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]);
  if (result == 0) {
    if (robust_list != nullptr)
      sys::call(SYS_set_robust_list, sys::arg(robust_list), static_cast<long>(robust_bytes));
    Process::after_fork_in_child();
    return 0;
  }
  Process::after_fork_in_parent();
  Process::fork_returned(result < 0 ? -1 : static_cast<pid_t>(result));
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // namespace

namespace hook {

int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
  if (option != PR_SET_SECCOMP || a != SECCOMP_MODE_FILTER || !concerns_us())
    return real::prctl(option, a, b, c, d);
  auto install = [](const sock_fprog* program, unsigned long) -> long {
    return real::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, reinterpret_cast<unsigned long>(program), 0, 0);
  };
  return static_cast<int>(sandbox::put_on(reinterpret_cast<const sock_fprog*>(b), 0, install));
}

long syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (is_fork(number, a, b)) real::resolve();
  if (is_fork(number, a, b) && concerns_us()) {
    long arguments[] = {a, b, c, d, e};
    return fork_bare(arguments);
  }
  if (number == SYS_seccomp && a == SECCOMP_SET_MODE_FILTER && concerns_us()) {
    auto install = [](const sock_fprog* program, unsigned long flags) -> long {
      return real::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, static_cast<long>(flags), sys::arg(program),
                           0, 0, 0);
    };
    return sandbox::put_on(reinterpret_cast<const sock_fprog*>(c), static_cast<unsigned long>(b), install);
  }
  return real::syscall(number, a, b, c, d, e, f);
}

}  // namespace hook
}  // namespace ustack::shim
