// The waiting of one blocking call: once for non-blocking ones (a look at the link), with the time limit of
// SO_RCVTIMEO or SO_SNDTIMEO, until a signal.
#pragma once

#include "shim/driver.h"
#include "stack/base/result.h"

namespace ustack::shim {

/// What a call ends with that a signal has interrupted before it moved anything: to be given to
/// Scope::interrupted(true). EINTR itself is a call that is not restarted. Linux's ERESTARTSYS.
inline constexpr int kRestart = 512;

/// Used as in
///
///   Blocker blocker(lock, nonblocking, socket.receive_timeout());
///   while ((result = look()).code() == EAGAIN)
///     if (Status s = blocker.wait(socket.waiters, ready::kIn); !s.ok()) return s.error();
///
/// After whatever ended a wait the caller looks once more, so that nothing that has come is left unreported.
/// Lock: held, dropped while waiting.
class Blocker {
 public:
  /// `limit` 0: none. It counts from the first wait on.
  Blocker(HostLock& lock, bool nonblocking, Duration limit)
      : lock_(lock), nonblocking_(nonblocking), limit_(limit) {}

  /// Success: look again. EAGAIN (would block, or the time is over), EINTR, kRestart, ENOMEM. The wait also
  /// ends when kernel_fd (unless -1) becomes readable.
  Status wait(WaitQueue& queue, uint32_t events, bool exclusive = false, int kernel_fd = -1);
  /// Waits until `queue` is notified, also in a non-blocking call and without a time limit: for what another
  /// thread is about to finish. EINTR, kRestart, ENOMEM.
  Status wait_turn(WaitQueue& queue);

 private:
  HostLock& lock_;
  Wait wait_;
  bool nonblocking_;
  Duration limit_;
  Instant deadline_ = kNever;
  int ends_with_ = 0;
};

}  // namespace ustack::shim
