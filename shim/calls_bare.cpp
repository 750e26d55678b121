// Hooks of prctl() and syscall(): a process that restricts itself (sandbox.h), one that forks without
// libc, as vsftpd does to get namespaces of its own, and calls for which there is a hook of libc's entry.
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/bare.h"
#include "shim/catching.h"
#include "shim/hooks.h"
#include "shim/process.h"
#include "shim/sandbox.h"
#include "shim/scope.h"
#include "shim/signals.h"
#include "shim/thread.h"
#include "shim/time_limit.h"
#include "shim/user_copy.h"

// Those whose hook takes the system call's own arguments.
// clang-format off
#define USTACK_BARE_CALLS(X) \
  X(socket) X(bind) X(listen) X(accept) X(accept4) X(connect) X(shutdown) X(getsockname) \
  X(getpeername) X(getsockopt) X(setsockopt) X(read) X(readv) X(write) X(writev) X(recvfrom) \
  X(recvmsg) X(recvmmsg) X(sendto) X(sendmsg) X(sendmmsg) X(sendfile) X(fcntl) X(ioctl) \
  X(epoll_create1) X(epoll_ctl) X(close) X(close_range) X(dup) X(dup3) X(splice)
// The same, which newer machines do without.
#ifdef SYS_poll
#define USTACK_OLD_BARE_CALLS(X) X(poll) X(select) X(epoll_create) X(epoll_wait) X(dup2)
#define USTACK_OLD_CAUGHT_CALLS(X) X(open) X(creat) X(pipe) X(inotify_init)
#else
#define USTACK_OLD_BARE_CALLS(X)
#define USTACK_OLD_CAUGHT_CALLS(X)
#endif
// Those that are led to their hooks only where they are caught (catching.h): other preloaded libraries make the
// entries that they put before libc's of syscall(), as tcmalloc does munmap, and would be called by our hook again.
#define USTACK_CAUGHT_CALLS(X) \
  X(statx) X(openat) X(timerfd_create) X(memfd_create) X(inotify_init1) X(pidfd_open) X(pipe2) \
  X(socketpair) X(munmap) X(execve) X(execveat) X(wait4) X(fstat) X(prctl)
// Those of them that have another name there.
#define USTACK_CAUGHT_NAMES(X) X(newfstatat, fstatat) X(eventfd2, eventfd) X(prlimit64, prlimit)
// clang-format on

namespace ustack::shim {

namespace {

namespace sys = io::sys;

bool concerns_us() { return Process::has_host() && !Scope::inside(); }

/// A clone(2) that is a fork: memory of its own, the caller's stack.
bool is_fork(long number, long flags, long stack) {
  return number == SYS_clone && (flags & (CLONE_VM | CLONE_THREAD)) == 0 && stack == 0;
}

/// SA_RESTORER, which libc's headers keep to themselves.
constexpr unsigned long kRestorer = 0x04000000;

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

template <typename T>
T* pointer(long word) {
  return reinterpret_cast<T*>(word);  // NOLINT(performance-no-int-to-ptr)
}

long failed(int error) {
  errno = error;
  return -1;
}

/// A system call's signal mask, which is smaller than libc's, as libc's entries take it.
class BareMask {
 public:
  /// EINVAL: a mask of another size than the kernel's; EFAULT.
  Status read(long address, long bytes) {
    if (address == 0) return {};
    if (bytes != sys::kSignalSetBytes) return Error{EINVAL};
    sigemptyset(&mask_);
    given_ = true;
    Status status = copy_from_user(&mask_, pointer<const void>(address), sys::kSignalSetBytes);
    if (catching::active()) catching::allow(mask_);
    return status;
  }
  const sigset_t* get() const { return given_ ? &mask_ : nullptr; }

 private:
  sigset_t mask_;
  bool given_ = false;
};

/// Waits as `wait(limit)` does, and says what is left of the time, as ppoll's and pselect's system calls do
/// and libc's entries don't (select(2), "C library/kernel differences").
template <typename Wait>
long wait_and_tell(timespec* timeout, Wait&& wait) {
  if (timeout == nullptr) return wait(nullptr);
  Result<timespec> limit = get_user<timespec>(timeout);
  if (!limit.ok()) return failed(limit.code());
  const Instant begin = io::now();
  const long result = wait(&*limit);
  const int error = errno;
  const Duration whole =
      std::chrono::seconds(std::min(limit->tv_sec, kEndlessSeconds)) + Duration(limit->tv_nsec);
  const Duration left = std::max(Duration(0), whole - (io::now() - begin));
  if (result >= 0 || error == EINTR)
    (void)put_user(timeout, timespec{.tv_sec = left / 1s, .tv_nsec = (left % 1s).count()});
  errno = error;
  return result;
}

long bare_ppoll(const long (&words)[6]) {
  BareMask mask;
  if (Status s = mask.read(words[3], words[4]); !s.ok()) return failed(s.code());
  return wait_and_tell(pointer<timespec>(words[2]), [&](const timespec* limit) {
    return hook::ppoll(pointer<pollfd>(words[0]), static_cast<nfds_t>(words[1]), limit, mask.get());
  });
}

long bare_pselect(const long (&words)[6]) {
  BareMask mask;
  if (words[5] != 0) {
    struct Argument {
      long mask, bytes;
    };
    Result<Argument> argument = get_user(pointer<const Argument>(words[5]));
    Status s = argument.ok() ? mask.read(argument->mask, argument->bytes) : argument.error();
    if (!s.ok()) return failed(s.code());
  }
  return wait_and_tell(pointer<timespec>(words[4]), [&](const timespec* limit) {
    return hook::pselect(static_cast<int>(words[0]), pointer<fd_set>(words[1]), pointer<fd_set>(words[2]),
                         pointer<fd_set>(words[3]), limit, mask.get());
  });
}

long bare_epoll_pwait(const long (&words)[6], bool with_timespec) {
  BareMask mask;
  if (Status s = mask.read(words[4], words[5]); !s.ok()) return failed(s.code());
  const auto set = static_cast<int>(words[0]), room = static_cast<int>(words[2]);
  auto* events = pointer<epoll_event>(words[1]);
  if (with_timespec)
    return hook::epoll_pwait2(set, events, room, pointer<const timespec>(words[3]), mask.get());
  return hook::epoll_pwait(set, events, room, static_cast<int>(words[3]), mask.get());
}

/// Sockets' calls that take the same arguments as libc's entries of that name; and those to which libc's
/// entries give another face.
std::optional<long> call_socket_hook(long number, const long (&words)[6]) {
  switch (number) {
#define USTACK_CALL(name) \
  case SYS_##name:        \
    return call_hook(&hook::name, words);
    USTACK_BARE_CALLS(USTACK_CALL)
    USTACK_OLD_BARE_CALLS(USTACK_CALL)
#undef USTACK_CALL
    case SYS_epoll_pwait:
      return bare_epoll_pwait(words, false);
    case SYS_epoll_pwait2:
      return bare_epoll_pwait(words, true);
    case SYS_ppoll:
      return bare_ppoll(words);
    case SYS_pselect6:
      return bare_pselect(words);
    default:
      return std::nullopt;
  }
}

std::optional<long> call_caught_hook(long number, const long (&words)[6]) {
  switch (number) {
#define USTACK_CALL(name) \
  case SYS_##name:        \
    return call_hook(&hook::name, words);
#define USTACK_NAMED_CALL(number, name) \
  case SYS_##number:                    \
    return call_hook(&hook::name, words);
    USTACK_CAUGHT_CALLS(USTACK_CALL)
    USTACK_OLD_CAUGHT_CALLS(USTACK_CALL)
    USTACK_CAUGHT_NAMES(USTACK_NAMED_CALL)
#undef USTACK_NAMED_CALL
#undef USTACK_CALL
    case SYS_waitid:
      // libc's has no place for the fifth.
      if (words[4] != 0) return std::nullopt;
      return call_hook(&hook::waitid, words);
    case SYS_exit_group:
      hook::_exit(static_cast<int>(words[0]));
      return 0;
    default:
      return std::nullopt;
  }
}

/// fork(2), vfork(2), clone(2) and clone3(2) in a program whose calls are caught: the child goes on in memory
/// of its own, where its calls can be caught too and a hook harms nobody, also where the program had asked
/// for the parent's (Go's fork and exec: it tells errors by a pipe).
long fork_caught(long number, const long (&words)[6]) {
  long arguments[] = {words[0], words[1], words[2], words[3], words[4]};
  if (number != SYS_clone) std::ranges::fill(arguments, 0);
  if (number == SYS_clone3) {
    Result<clone_args> given = get_user(pointer<const clone_args>(words[0]));
    if (!given.ok()) return -given.code();
    if (words[1] < static_cast<long>(sizeof given->flags * 8) || given->set_tid_size != 0 ||
        (given->flags & CLONE_INTO_CGROUP) != 0 || given->stack != 0)
      return -ENOSYS;
    arguments[0] = static_cast<long>(given->flags | given->exit_signal);
    arguments[2] = static_cast<long>((given->flags & CLONE_PIDFD) != 0 ? given->pidfd : given->parent_tid);
    arguments[kChildId] = static_cast<long>(given->child_tid);
  } else if (number != SYS_clone) {
    arguments[0] = SIGCHLD;
  }
  // Its stack pointer would be one that we have left behind.
  if (arguments[1] != 0 || (arguments[0] & CLONE_THREAD) != 0) return -ENOSYS;
  arguments[0] &= ~static_cast<long>(CLONE_VM | CLONE_VFORK);
  if (Scope::inside())  // a handler of a fault within the library
    return sys::call(SYS_clone, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]);
  const long result = fork_bare(arguments);
  return result < 0 ? -errno : result;
}

/// The system call's struct sigaction.
struct BareAction {
  void (*handler)(int, siginfo_t*, void*);
  unsigned long flags;
  void (*restorer)();
  uint64_t mask;
};

long set_action_caught(const long (&words)[6]) {
  if (words[3] != sys::kSignalSetBytes) return -EINVAL;
  struct sigaction wanted {
  }, old{};
  if (words[1] != 0) {
    Result<BareAction> given = get_user(pointer<const BareAction>(words[1]));
    if (!given.ok()) return -given.code();
    wanted.sa_sigaction = given->handler;
    // What returns from the handler is libc's.
    wanted.sa_flags = static_cast<int>(given->flags & ~kRestorer);
    std::memcpy(&wanted.sa_mask, &given->mask, sizeof given->mask);
  }
  if (signals::action(static_cast<int>(words[0]), words[1] != 0 ? &wanted : nullptr, &old) != 0)
    return -errno;
  if (words[2] == 0) return 0;
  BareAction before{old.sa_sigaction, static_cast<unsigned long>(static_cast<unsigned>(old.sa_flags)),
                    old.sa_restorer, 0};
  std::memcpy(&before.mask, &old.sa_mask, sizeof before.mask);
  return put_user(pointer<BareAction>(words[2]), before).ok() ? 0 : -EFAULT;
}

long set_mask_caught(const long (&words)[6]) {
  const long how = words[0];
  if (words[1] == 0 || words[3] != sys::kSignalSetBytes || how == SIG_UNBLOCK)
    return sys::call(SYS_rt_sigprocmask, how, words[1], words[2], words[3]);
  Result<uint64_t> mask = get_user(pointer<const uint64_t>(words[1]));
  if (!mask.ok()) return -mask.code();
  *mask = catching::allowed(*mask);
  return sys::call(SYS_rt_sigprocmask, how, sys::arg(&*mask), words[2], words[3]);
}

}  // namespace

long call_caught(long number, const long (&words)[6]) {
  switch (number) {
    case SYS_clone:
    case SYS_clone3:
#ifdef SYS_fork
    case SYS_fork:
    case SYS_vfork:
#endif
      return fork_caught(number, words);
    case SYS_rt_sigaction:
      return set_action_caught(words);
    case SYS_rt_sigprocmask:
      return set_mask_caught(words);
    case SYS_sigaltstack:
      // Here, since no stack can be changed while a handler runs on it.
      return sys::call(number, words[0], words[1]);
    default:
      break;
  }
  // Only libc's entries are cancellation points, and nothing could be unwound from here.
  int cancellable;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancellable);
  std::optional<long> result;
  if (!Scope::inside()) result = call_caught_hook(number, words);
  if (!result) result = hook::syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
  const int error = errno;
  pthread_setcancelstate(cancellable, nullptr);
  return *result == -1 ? -error : *result;
}

std::span<const long> numbers_to_catch() {
#define USTACK_CALL(name) SYS_##name,
#define USTACK_NAMED_CALL(number, name) SYS_##number,
  static constexpr long kNumbers[] = {
      USTACK_BARE_CALLS(USTACK_CALL) USTACK_OLD_BARE_CALLS(USTACK_CALL) USTACK_CAUGHT_CALLS(USTACK_CALL)
          USTACK_OLD_CAUGHT_CALLS(USTACK_CALL) USTACK_CAUGHT_NAMES(USTACK_NAMED_CALL) SYS_epoll_pwait,
      SYS_epoll_pwait2,
      SYS_ppoll,
      SYS_pselect6,
      SYS_waitid,
      SYS_exit_group,
      SYS_clone,
      SYS_clone3,
#ifdef SYS_fork
      SYS_fork,
      SYS_vfork,
#endif
      SYS_rt_sigaction,
      SYS_rt_sigprocmask,
      SYS_sigaltstack,
      SYS_seccomp};
#undef USTACK_NAMED_CALL
#undef USTACK_CALL
  return kNumbers;
}

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
