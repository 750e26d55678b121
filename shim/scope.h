// Being inside the library: one object that keeps errno, detects re-entry and defers signals.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "io/adaptive_spin.h"
#include "shim/wait_habit.h"

namespace ustack::io {
class Engine;
}

namespace ustack::shim {

struct Attachment;
struct Waiter;

/// What the library knows of a thread. Initial-exec TLS: reading it never allocates. Never touched on a
/// fiber.
struct ThreadState {
  /// How many Scopes are open. While it is not zero every hook goes straight to libc, and signal handlers are
  /// put off until it is zero again.
  uint32_t depth = 0;
  /// A handler was put off and waits for the outermost Scope to close; all signals are blocked until then.
  std::atomic<bool> signal_deferred{false};
  /// pthread_cancel(3) has named this thread. Written under the host's lock.
  std::atomic<bool> cancelled{false};
  /// The first handler put off was installed with SA_RESTART.
  bool deferred_restarts = false;
  /// Where this thread sleeps, in the arena; made at its first blocking call, freed when the thread ends.
  Waiter* waiter = nullptr;
  /// This thread's engine: made when it first drives, freed when it ends, abandoned after fork.
  io::Engine* engine = nullptr;
  /// The eventfd that ends this thread's sleep, -1 when it sleeps on its waiter's word or not at all. Written
  /// by the trampoline when it puts a handler off.
  std::atomic<int> wake_fd{-1};
  /// kernel_fd_closes() as of this thread's last wait.
  uint32_t kernel_epoch = 0;
  /// What of the host its lock covers (host_lock.h): all of it, but where it asked for one shard.
  uint8_t covers = 0xff;
  /// CommonLocks that it has within each other.
  uint8_t common_depth = 0;
  /// Whether it looks at the link for nothing.
  WaitHabit habit;
  /// And whether it is worth looking at the waiter's word before it sleeps.
  io::AdaptiveSpin spin;
  /// gettid(2), 0 until asked for.
  int32_t id = 0;
  /// The mask to go back to when the Scope closes (signal_deferred), in the kernel's form.
  uint64_t mask_before = 0;
  /// ppoll's and its like's mask, in force while this thread waits; handlers put off run under it.
  uint64_t wait_mask = 0;
  bool has_wait_mask = false;
  /// A handler was put off while wait_mask was in force.
  bool deferred_in_wait = false;
  /// library_gate when this thread came in.
  uint32_t gate = 0;
  /// What this thread has made for the child that it is forking.
  Attachment* forked = nullptr;
  uint64_t forked_serial = 0;
};

/// Raised when the process ends or becomes another program: a thread that came in before it never takes the
/// host's lock again, so that none dies inside it. Process-private; raised under the lock.
extern std::atomic<uint32_t> library_gate;

/// The calling thread's state.
ThreadState& this_thread();
/// gettid(2), remembered.
int32_t this_thread_id();

/// A Scope's two ends, for what can't be one object. leave() may not come back.
void enter_library();
void leave_library();

/// Opened by every hook that turns out to concern us, before it touches the host. Saves errno and puts it
/// back when it closes (a failing hook sets errno after that: `return scope.fail(EAGAIN)`), and runs the
/// handlers of signals that came meanwhile. Not re-entrant: open one only where !inside(). A handler that
/// runs when a Scope closes may leave by longjmp, so nothing of the library's may be held then: declare the
/// Scope first.
class Scope {
 public:
  Scope();
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  static bool inside();
  /// The error return of a hook: remembers `code` to be errno when the scope has closed, returns -1.
  int fail(int code) {
    errno_ = code;
    return -1;
  }
  /// The return of a call whose wait was interrupted before it has moved anything: EINTR; or, if the call is
  /// one that SA_RESTART restarts (signal(7): recv, send, accept, connect without a time-out of SO_RCVTIMEO
  /// or SO_SNDTIMEO; never poll, select, epoll_wait) and the handler was installed with SA_RESTART,
  /// blocking_call() runs the call again after the handler.
  int interrupted(bool restartable);
  bool restart() const { return restart_; }

 private:
  int errno_;
  bool restart_ = false;
};

/// The frame of every hook that may block: runs `body(scope)` in a Scope, and again as long as it ends with
/// scope.interrupted(true) by a signal that restarts it. Between two runs the handlers have run, with the
/// library left: the body looks its descriptor up again.
template <typename Body>
auto blocking_call(Body&& body) {
  for (;;) {
    bool again;
    decltype(body(std::declval<Scope&>())) result;
    {
      Scope scope;
      result = body(scope);
      again = scope.restart();
    }
    if (!again) return result;
  }
}

}  // namespace ustack::shim
