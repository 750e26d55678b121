#include "shim/signals.h"

#include <ucontext.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "io/syscalls.h"
#include "shim/async_owner.h"
#include "shim/catching.h"
#include "shim/driver.h"
#include "shim/real.h"

namespace ustack::shim::signals {

namespace {

namespace sys = io::sys;

constexpr int kLast = 64;

constexpr uint64_t bit(int number) { return uint64_t{1} << (number - 1); }

/// Caused by the very instruction that the thread executes; blocked, they would kill.
constexpr uint64_t kFaults =
    bit(SIGSEGV) | bit(SIGBUS) | bit(SIGFPE) | bit(SIGILL) | bit(SIGTRAP) | bit(SIGSYS);
/// libc's own (cancellation, setuid of all threads): every thread must answer them at any time.
constexpr uint64_t kLibcs = bit(32) | bit(33);
/// What is blocked while a handler is put off.
constexpr uint64_t kAll = ~(kFaults | kLibcs);

/// What the program has installed for a signal for which the kernel has the trampoline. Written under
/// `writer`, read by the trampoline in any thread at any time: `version` is odd while it changes.
struct Record {
  std::atomic<uint32_t> version{0};
  std::atomic<uintptr_t> handler{0};
  std::atomic<int> flags{0};
  /// SA_RESETHAND: it has run.
  std::atomic<bool> spent{false};
};
Record records[kLast + 1];

struct Action {
  uintptr_t handler;
  int flags;
};

/// Signals for which siginterrupt(3) has asked that signal(3) leaves SA_RESTART out.
std::atomic<uint64_t> interrupting{0};
std::atomic<bool> active{false};
std::atomic<bool> writer{false};

uint64_t set_mask(int how, uint64_t mask) {
  uint64_t before = 0;
  sys::call(SYS_rt_sigprocmask, how, sys::arg(&mask), sys::arg(&before), sys::kSignalSetBytes);
  return before;
}

/// Changing records: one thread at a time, without a handler in between that might want to change them too.
class Writing {
 public:
  Writing() : mask_(set_mask(SIG_SETMASK, kAll)) {
    while (writer.exchange(true, std::memory_order_acquire)) sys::call(SYS_sched_yield);
  }
  ~Writing() {
    writer.store(false, std::memory_order_release);
    set_mask(SIG_SETMASK, mask_);
  }
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;

 private:
  uint64_t mask_;
};

Action load(int number) {
  Record& record = records[number];
  for (;;) {
    uint32_t version = record.version.load(std::memory_order_acquire);
    Action action{record.handler.load(std::memory_order_relaxed),
                  record.flags.load(std::memory_order_relaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((version & 1) == 0 && record.version.load(std::memory_order_relaxed) == version) return action;
  }
}

void store(int number, const Action& action) {
  Record& record = records[number];
  record.version.fetch_add(1, std::memory_order_acquire);
  std::atomic_thread_fence(std::memory_order_release);
  record.handler.store(action.handler, std::memory_order_relaxed);
  record.flags.store(action.flags, std::memory_order_relaxed);
  record.spent.store(false, std::memory_order_relaxed);
  record.version.fetch_add(1, std::memory_order_release);
}

bool requeue(int number, siginfo_t* info) {
  // The kernel takes any siginfo from a thread that sends it to itself.
  return !sys::failed(
      sys::call(SYS_rt_tgsigqueueinfo, sys::call(SYS_getpid), sys::call(SYS_gettid), number, sys::arg(info)));
}

/// Inside the library: leaves the signal to the kernel until the Scope closes. False if the kernel won't have
/// it (a real-time signal beyond RLIMIT_SIGPENDING).
bool put_off(ThreadState& thread, int number, siginfo_t* info, ucontext_t* context) {
  // First, so that the signal doesn't come back at once (SA_NODEFER) and no other gets between.
  set_mask(SIG_BLOCK, kAll | bit(number));
  if (!requeue(number, info)) return false;
  // The kernel's frame has room for its own eight bytes of mask only; behind them lies the siginfo.
  uint64_t mask;
  std::memcpy(&mask, &context->uc_sigmask, sizeof mask);
  bool first = !thread.signal_deferred.load(std::memory_order_relaxed);
  // A handler put off while another's trampoline was just beginning was interrupted there, not in the
  // library: the outer one, which ends later, has the mask to go back to. What is put off when all is blocked
  // already (a fault's number sent by kill) has nothing to tell.
  if (first || (mask & kAll) != kAll) {
    thread.mask_before = mask;
    thread.deferred_in_wait = thread.has_wait_mask;
  }
  if (first) thread.deferred_restarts = (load(number).flags & SA_RESTART) != 0;
  mask |= kAll | bit(number);
  std::memcpy(&context->uc_sigmask, &mask, sizeof mask);
  thread.signal_deferred.store(true, std::memory_order_seq_cst);

  // Whatever the thread is about to sleep on, or sleeps on, ends now.
  if (thread.waiter != nullptr) thread.waiter->word.store(1, std::memory_order_seq_cst);
  int fd = thread.wake_fd.load(std::memory_order_relaxed);
  if (fd >= 0) {
    uint64_t one = 1;
    sys::write(fd, &one, sizeof one);
  }
  return true;
}

/// As the kernel does: a one-argument handler is called with all three, and ignores two of them.
#ifdef __clang__
[[clang::no_sanitize("function")]]
#endif
void call(uintptr_t handler, int number, siginfo_t* info, void* context) {
  reinterpret_cast<void (*)(int, siginfo_t*, void*)>(handler)(number, info, context);
}

void trampoline(int number, siginfo_t* info, void* context) {
  ThreadState& thread = this_thread();
  AsyncOwner::reveal(*info);
  if (thread.depth != 0 && ((kFaults & bit(number)) == 0 || info->si_code <= 0) &&
      put_off(thread, number, info, static_cast<ucontext_t*>(context)))
    return;

  Action action = load(number);
  if ((action.flags & SA_RESETHAND) != 0) {
    // The kernel was not told of SA_RESETHAND, for a handler that is put off comes through here twice.
    if (records[number].spent.exchange(true)) {
      requeue(number, info);  // a second one: SIG_DFL's
      return;
    }
    struct sigaction fallback {};
    fallback.sa_handler = SIG_DFL;
    real::sigaction(number, &fallback, nullptr);
  }
  if (action.handler == 0) {  // SIG_DFL was set in this moment
    requeue(number, info);
    return;
  }
  call(action.handler, number, info, context);
}

bool is_handler(const struct sigaction& action) {
  return action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN;
}

bool is_trampoline(const struct sigaction& action) {
  return is_handler(action) && action.sa_sigaction == trampoline;
}

bool can_be_handled(int number) {
  return number >= 1 && number <= kLast && number != SIGKILL && number != SIGSTOP &&
         (bit(number) & kLibcs) == 0 && !(number == SIGSYS && catching::active());
}

/// What the program may see of what the kernel has.
void translate(struct sigaction& action, const Action& record) {
  if (!is_trampoline(action)) return;
  action.sa_sigaction = reinterpret_cast<void (*)(int, siginfo_t*, void*)>(record.handler);
  action.sa_flags = record.flags;
}

/// What the kernel gets for what the program wants.
struct sigaction with_trampoline(const struct sigaction& wanted) {
  struct sigaction installed = wanted;
  installed.sa_sigaction = trampoline;
  installed.sa_flags = (wanted.sa_flags & ~static_cast<int>(SA_RESETHAND)) | SA_SIGINFO;
  return installed;
}

int install(int number, const struct sigaction& wanted, struct sigaction* old) {
  Writing writing;
  Action before = load(number);
  struct sigaction installed = wanted;
  if (!is_trampoline(wanted)) {
    installed = with_trampoline(wanted);
    // Before the kernel knows: a signal of the old handler that is on its way gets the new one, as it might
    // have a moment later.
    store(number, {reinterpret_cast<uintptr_t>(wanted.sa_sigaction), wanted.sa_flags});
  }
  int result = real::sigaction(number, &installed, old);
  if (result == 0 && old != nullptr) translate(*old, before);
  return result;
}

/// Puts the trampoline in front of a handler that was installed without our seeing it.
void adopt(int number) {
  Writing writing;
  struct sigaction now {};
  if (real::sigaction(number, nullptr, &now) != 0 || !is_handler(now) || is_trampoline(now)) return;
  struct sigaction installed = with_trampoline(now);
  store(number, {reinterpret_cast<uintptr_t>(now.sa_sigaction), now.sa_flags});
  real::sigaction(number, &installed, nullptr);
}

sighandler_t set_handler(int number, sighandler_t handler, int flags) {
  if (handler == SIG_ERR || number < 1 || number > kLast) {
    errno = EINVAL;
    return SIG_ERR;
  }
  struct sigaction wanted {
  }, old{};
  wanted.sa_handler = handler;
  wanted.sa_flags = flags;
  // BSD's signal() blocks the signal itself by sa_mask, as glibc's does; it is blocked anyway.
  if ((flags & SA_NODEFER) == 0) sigaddset(&wanted.sa_mask, number);
  return action(number, &wanted, &old) == 0 ? old.sa_handler : SIG_ERR;
}

}  // namespace

void take_over() {
  // Set before the walk: who installs a handler meanwhile either sees it, or is seen by the walk.
  active.store(true, std::memory_order_seq_cst);
  for (int number = 1; number <= kLast; ++number)
    if (can_be_handled(number)) adopt(number);
}

bool taken_over() { return active.load(std::memory_order_relaxed); }

void after_fork_in_child() { writer.store(false, std::memory_order_relaxed); }

int action(int number, const struct sigaction* wanted, struct sigaction* old) {
  struct sigaction allowed;
  if (catching::active()) {
    if (number == SIGSYS) return catching::program_action(wanted, old);
    if (wanted != nullptr) {
      allowed = *wanted;
      catching::allow(allowed.sa_mask);
      wanted = &allowed;
    }
  }
  if (wanted != nullptr && is_handler(*wanted)) real::resolve();
  if (!can_be_handled(number)) return real::sigaction(number, wanted, old);
  if (!active.load(std::memory_order_seq_cst)) {
    int result = real::sigaction(number, wanted, old);
    if (active.load(std::memory_order_seq_cst)) adopt(number);
    return result;
  }
  if (wanted != nullptr && is_handler(*wanted)) {
    struct sigaction copy = *wanted;  // `old` may be the same object
    return install(number, copy, old);
  }
  Action before = load(number);
  int result = real::sigaction(number, wanted, old);
  if (result == 0 && old != nullptr) translate(*old, before);
  return result;
}

sighandler_t bsd_signal(int number, sighandler_t handler) {
  bool interrupts = number >= 1 && number <= kLast && (interrupting.load() & bit(number)) != 0;
  return set_handler(number, handler, interrupts ? 0 : SA_RESTART);
}

sighandler_t sysv_signal(int number, sighandler_t handler) {
  return set_handler(number, handler, static_cast<int>(SA_RESETHAND) | SA_NODEFER);
}

int interrupt(int number, bool interrupts) {
  struct sigaction now {};
  if (action(number, nullptr, &now) != 0) return -1;
  if (interrupts) {
    interrupting.fetch_or(bit(number));
    now.sa_flags &= ~SA_RESTART;
  } else {
    interrupting.fetch_and(~bit(number));
    now.sa_flags |= SA_RESTART;
  }
  return action(number, &now, nullptr);
}

void run_deferred(ThreadState& thread) {
  // Handlers run inside these calls, use the library themselves and may leave by longjmp: nothing is read
  // from `thread` afterwards.
  uint64_t before = thread.mask_before, during = thread.wait_mask;
  bool in_wait = thread.deferred_in_wait;
  thread.deferred_in_wait = false;
  thread.signal_deferred.store(false, std::memory_order_relaxed);
  if (in_wait) set_mask(SIG_SETMASK, during);
  set_mask(SIG_SETMASK, before);
}

}  // namespace ustack::shim::signals
