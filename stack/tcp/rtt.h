// Round-trip time and the retransmission time-out (RFC 6298).
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/base/log.h"
#include "stack/base/time.h"
#include "stack/tcp/windowed_minimum.h"

namespace ustack::tcp {

/// Bounds as in Linux: TCP_RTO_MIN, TCP_RTO_MAX, TCP_TIMEOUT_INIT, TCP_TIMEOUT_FALLBACK.
inline constexpr Duration kMinRto = 200ms, kMaxRto = 120s, kInitialRto = 1s, kFallbackRto = 3s;

/// SRTT, RTTVAR and RTO. Which segments give a sample (Karn's rule) is the caller's; with timestamps all do.
class RttEstimator {
 public:
  /// A measurement, > 0 (less counts as 1 ns). `expected_samples` is how many of them come in a round trip,
  /// at least 1; each weighs that much less (RFC 7323, appendix G). Ends a back-off. `now` ages minimum().
  void sample(Duration rtt, uint32_t expected_samples = 1, Instant now = {});
  bool has_sample() const { return srtt_ > Duration(0); }
  /// Zero before the first sample.
  Duration srtt() const { return srtt_; }
  Duration rttvar() const { return rttvar_; }
  Duration latest() const { return latest_; }
  /// The smallest sample of the last minimum window (net.ipv4.tcp_min_rtt_wlen); zero before the first.
  Duration minimum() const { return minimum_.value(); }
  void set_minimum_window(Duration window) { minimum_window_ = window; }

  /// TCP_RTO_MIN_US and TCP_RTO_MAX_MS.
  struct Bounds {
    Duration least = kMinRto, most = kMaxRto;
  };
  Bounds bounds;

  /// RTO with the back-off, at most bounds.most. As in Linux it is SRTT + max(bounds.least, 4 * RTTVAR), so
  /// that a peer's delayed ACK doesn't fire it.
  Duration rto() const;
  /// RTO without the back-off.
  Duration base_rto() const { return std::min(rto_, bounds.most); }
  /// The timer has expired: doubles rto() (RFC 6298, 5.5).
  void back_off() { ++back_off_; }
  /// One expiry of back_off_count(), which is not 0, was a router's (RFC 6069): half of rto().
  void revert_back_off() { --back_off_; }
  /// The expiry was spurious or new data was acknowledged: rto() is base_rto() again.
  void undo_back_off() { back_off_ = 0; }
  /// How many times in a row the timer has expired.
  uint32_t back_off_count() const { return back_off_; }
  /// The handshake has given no sample, mostly since its timer expired: 3 s until there is one (RFC 6298,
  /// 5.7).
  void fall_back();

 private:
  Duration srtt_{0};
  Duration rttvar_{0};
  Duration latest_{0};
  WindowedMinimum minimum_;
  Duration minimum_window_ = 300s;
  Duration rto_ = kInitialRto;
  uint32_t back_off_ = 0;
};

/// srtt 12.3ms rttvar 0.5ms rto 212ms.
LogLine& operator<<(LogLine& line, const RttEstimator& rtt);

/// Time-outs that double: SYNs, window probes. `Backoff b(1s, 60s)`: 1, 2, 4, ..., 60, 60.
class Backoff {
 public:
  constexpr Backoff(Duration first, Duration limit) : current_(first), limit_(limit) {}
  constexpr Duration current() const { return current_; }
  /// The next time-out, now current().
  constexpr Duration next() {
    current_ = current_ > limit_ / 2 ? limit_ : current_ * 2;
    return current_;
  }

 private:
  Duration current_;
  Duration limit_;
};

}  // namespace ustack::tcp
