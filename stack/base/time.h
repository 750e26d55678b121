// Time as the stack sees it: an argument. Nothing in stack/ reads a clock.
#pragma once

#include <chrono>
#include <cstdint>

namespace ustack {

using Duration = std::chrono::nanoseconds;

/// The host's clock: monotonic nanoseconds (CLOCK_MONOTONIC in the shim, virtual in tests). Never read here.
struct HostClock {
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<HostClock>;
  static constexpr bool is_steady = true;
};
using Instant = HostClock::time_point;

/// Later than anything that happens: "no deadline".
inline constexpr Instant kNever = Instant::max();

using namespace std::chrono_literals;  // NOLINT: 1s, 200ms, 50us read as in the RFCs

inline constexpr int64_t to_ms(Duration d) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}
inline constexpr int64_t to_us(Duration d) {
  return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
}

}  // namespace ustack
