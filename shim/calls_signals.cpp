// Hooks that install signal handlers and set masks.
#include <cerrno>
#include <cstring>

#include "io/syscalls.h"
#include "shim/catching.h"
#include "shim/hooks.h"
#include "shim/signals.h"

namespace ustack::shim::hook {

int sigaction(int number, const struct sigaction* action, struct sigaction* old) {
  return signals::action(number, action, old);
}

sighandler_t signal(int number, sighandler_t handler) { return signals::bsd_signal(number, handler); }

sighandler_t sysv_signal(int number, sighandler_t handler) { return signals::sysv_signal(number, handler); }

int siginterrupt(int number, int interrupt) { return signals::interrupt(number, interrupt != 0); }

sighandler_t sigset(int number, sighandler_t handler) {
  // SIG_HOLD only blocks; with SIG_DFL and SIG_IGN too libc knows what to do, but for what it returns.
  struct sigaction before {};
  if (signals::action(number, nullptr, &before) != 0) return SIG_ERR;
  if (handler == SIG_HOLD) {
    sighandler_t result = real::sigset(number, handler);
    return result == SIG_ERR || result == SIG_HOLD ? result : before.sa_handler;
  }
  struct sigaction wanted {};
  wanted.sa_handler = handler;
  if (signals::action(number, &wanted, nullptr) != 0) return SIG_ERR;
  sigset_t only, old;
  sigemptyset(&only);
  sigaddset(&only, number);
  if (hook::sigprocmask(SIG_UNBLOCK, &only, &old) != 0) return SIG_ERR;
  return sigismember(&old, number) == 1 ? SIG_HOLD : before.sa_handler;
}

namespace {

/// Without libc, which a preloaded allocator may call here before it can be asked for its own. Its own
/// signals are left out as it does. 0, or an error's number.
int set_mask(int how, const sigset_t* mask, sigset_t* old) {
  constexpr uint64_t kLibcs = uint64_t{3} << 31;
  uint64_t wanted = 0;
  if (mask != nullptr) {
    std::memcpy(&wanted, mask, sizeof wanted);
    wanted &= ~kLibcs;
    if (how != SIG_UNBLOCK && catching::active()) wanted = catching::allowed(wanted);
  }
#ifdef __SANITIZE_THREAD__
  // Its own entry delivers what it has put off.
  sigset_t allowed;
  sigemptyset(&allowed);
  std::memcpy(&allowed, &wanted, sizeof wanted);
  return real::pthread_sigmask(how, mask != nullptr ? &allowed : nullptr, old);
#endif
  return static_cast<int>(-io::sys::call(SYS_rt_sigprocmask, how, mask != nullptr ? io::sys::arg(&wanted) : 0,
                                         io::sys::arg(old), io::sys::kSignalSetBytes));
}

}  // namespace

int sigprocmask(int how, const sigset_t* mask, sigset_t* old) {
  const int error = set_mask(how, mask, old);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

int pthread_sigmask(int how, const sigset_t* mask, sigset_t* old) { return set_mask(how, mask, old); }

#define USTACK_ALIAS(result, other, name, parameters, arguments) \
  result other parameters { return hook::name arguments; }
USTACK_ALIASES(USTACK_ALIAS)
#undef USTACK_ALIAS

}  // namespace ustack::shim::hook
