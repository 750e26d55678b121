// Being inside the library: one object that keeps errno, detects re-entry and defers signals.
#pragma once

#include <cerrno>
#include <cstdint>

namespace ustack::shim {

struct Waiter;

/// What the library knows of a thread. Initial-exec TLS: reading it never allocates. Never touched on a fiber.
struct ThreadState {
  /// How many Scopes are open. While it is not zero every hook goes straight to libc, and signal handlers are
  /// put off until it is zero again.
  uint32_t depth = 0;
  /// A handler was put off and waits for the outermost Scope to close.
  bool signal_deferred = false;
  /// Where this thread sleeps, in the arena; made at its first blocking call, freed when the thread ends.
  Waiter* waiter = nullptr;
};

/// The calling thread's state.
ThreadState& this_thread();

/// Opened by every hook that turns out to concern us, before it touches the host. Saves errno and puts it back
/// when it closes (a failing hook sets errno after that: `return scope.fail(EAGAIN)`), and runs the handlers of
/// signals that came meanwhile. Not re-entrant: open one only where !inside().
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

 private:
  int errno_;
};

}  // namespace ustack::shim
