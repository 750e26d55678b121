// Hooks of prctl() and syscall(): a process that restricts itself (sandbox.h), one that forks without
// libc, as vsftpd does to get namespaces of its own, and calls for which there is a hook of libc's entry.
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cerrno>
#include <optional>
#include <type_traits>
#include <utility>

#include "io/syscalls.h"
#include "shim/hooks.h"
#include "shim/process.h"
#include "shim/sandbox.h"
#include "shim/scope.h"
#include "shim/thread.h"

// Those whose hook takes the system call's own arguments.
// clang-format off
#define USTACK_BARE_CALLS(X) \
  X(socket) X(bind) X(listen) X(accept) X(accept4) X(connect) X(shutdown) X(getsockname) \
  X(getpeername) X(getsockopt) X(setsockopt) X(read) X(readv) X(write) X(writev) X(recvfrom) \
  X(recvmsg) X(recvmmsg) X(sendto) X(sendmsg) X(sendmmsg) X(sendfile) X(fcntl) X(ioctl) \
  X(epoll_create1) X(epoll_ctl) X(close) X(close_range) X(dup) X(dup3) X(splice)
// clang-format on

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

/// A hook called with the words of a system call.
template <typename Return, typename... Parameters>
long call_hook(Return (*hook)(Parameters...), const long (&words)[6]) {
  auto as = []<typename T>(T*, long word) -> T {
    if constexpr (std::is_pointer_v<T>)
      return reinterpret_cast<T>(word);  // NOLINT(performance-no-int-to-ptr)
    else
      return static_cast<T>(word);
  };
  return [&]<size_t... I>(std::index_sequence<I...>) {
    return static_cast<long>(hook(as(static_cast<Parameters*>(nullptr), words[I])...));
  }
  (std::index_sequence_for<Parameters...>());
}

/// Sockets' calls that take the same arguments as libc's entries of that name; and of those that libc's
/// entries give another face, what is asked for most.
std::optional<long> call_socket_hook(long number, const long (&words)[6]) {
  switch (number) {
#define USTACK_CALL(name) \
  case SYS_##name:        \
    return call_hook(&hook::name, words);
    USTACK_BARE_CALLS(USTACK_CALL)
#undef USTACK_CALL
#ifdef SYS_poll
    case SYS_poll:
      return call_hook(&hook::poll, words);
    case SYS_select:
      return call_hook(&hook::select, words);
    case SYS_epoll_create:
      return call_hook(&hook::epoll_create, words);
    case SYS_epoll_wait:
      return call_hook(&hook::epoll_wait, words);
    case SYS_dup2:
      return call_hook(&hook::dup2, words);
#endif
    case SYS_epoll_pwait:
      // Without a mask; the kernel's has another size than libc's.
      if (words[4] != 0) return std::nullopt;
      return hook::epoll_pwait(static_cast<int>(words[0]), reinterpret_cast<epoll_event*>(words[1]),
                               static_cast<int>(words[2]), static_cast<int>(words[3]), nullptr);
    case SYS_ppoll:
      if (words[3] != 0) return std::nullopt;
      return hook::ppoll(reinterpret_cast<pollfd*>(words[0]), static_cast<nfds_t>(words[1]),
                         reinterpret_cast<const timespec*>(words[2]), nullptr);
    default:
      return std::nullopt;
  }
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
  if (is_fork(number, a, b)) {
    real::resolve();
    if (concerns_us()) {
      long arguments[] = {a, b, c, d, e};
      return fork_bare(arguments);
    }
  }
  if (number == SYS_seccomp && a == SECCOMP_SET_MODE_FILTER && concerns_us()) {
    auto install = [](const sock_fprog* program, unsigned long flags) -> long {
      return real::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, static_cast<long>(flags), sys::arg(program),
                           0, 0, 0);
    };
    return sandbox::put_on(reinterpret_cast<const sock_fprog*>(c), static_cast<unsigned long>(b), install);
  }
  if (!Scope::inside())
    if (std::optional<long> result = call_socket_hook(number, {a, b, c, d, e, f})) return *result;
  return real::syscall(number, a, b, c, d, e, f);
}

}  // namespace hook
}  // namespace ustack::shim
