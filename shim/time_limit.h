// Time-outs as calls are given them, as deadlines. Instant::min(): look, don't wait; kNever: no limit.
#pragma once

#include <cerrno>
#include <ctime>

#include "io/clock.h"
#include "shim/user_copy.h"
#include "stack/base/result.h"
#include "stack/base/time.h"

namespace ustack::shim {

/// Longer than any program runs, and still added to now without overflow.
inline constexpr time_t kEndlessSeconds = 1'000'000'000;

inline Instant deadline_after(time_t seconds, Duration more) {
  if (seconds == 0 && more <= Duration(0)) return Instant::min();
  if (seconds >= kEndlessSeconds || more >= std::chrono::seconds(kEndlessSeconds)) return kNever;
  return io::now() + std::chrono::seconds(seconds) + more;
}

/// poll's and epoll_wait's milliseconds; negative: none.
inline Instant deadline_in_ms(int timeout) {
  return timeout < 0 ? kNever : deadline_after(0, std::chrono::milliseconds(timeout));
}

/// ppoll's, pselect's and epoll_pwait2's; nullptr: none. EINVAL, EFAULT.
inline Result<Instant> deadline_in(const timespec* timeout) {
  if (timeout == nullptr) return kNever;
  Result<timespec> limit = get_user(timeout);
  if (!limit.ok()) return limit.error();
  if (limit->tv_sec < 0 || limit->tv_nsec < 0 || limit->tv_nsec >= 1'000'000'000) return Error{EINVAL};
  return deadline_after(limit->tv_sec, Duration(limit->tv_nsec));
}

}  // namespace ustack::shim
