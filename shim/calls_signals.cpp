// Hooks that install signal handlers and set masks.
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
  if (real::sigprocmask(SIG_UNBLOCK, &only, &old) != 0) return SIG_ERR;
  return sigismember(&old, number) == 1 ? SIG_HOLD : before.sa_handler;
}

namespace {

/// The mask that the kernel gets for the program's.
template <typename Set>
int set_mask(Set& set_it, int how, const sigset_t* mask, sigset_t* old) {
  if (mask == nullptr || how == SIG_UNBLOCK || !catching::active()) return set_it(how, mask, old);
  sigset_t allowed = *mask;
  catching::allow(allowed);
  return set_it(how, &allowed, old);
}

}  // namespace

int sigprocmask(int how, const sigset_t* mask, sigset_t* old) {
  return set_mask(real::sigprocmask, how, mask, old);
}

int pthread_sigmask(int how, const sigset_t* mask, sigset_t* old) {
  return set_mask(real::pthread_sigmask, how, mask, old);
}

#define USTACK_ALIAS(result, other, name, parameters, arguments) \
  result other parameters { return hook::name arguments; }
USTACK_ALIASES(USTACK_ALIAS)
#undef USTACK_ALIAS

}  // namespace ustack::shim::hook
