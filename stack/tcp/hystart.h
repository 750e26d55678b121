// HyStart++: leaves the initial slow start when round trips grow, before packets are lost (RFC 9406).
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/base/time.h"
#include "stack/tcp/congestion.h"

namespace ustack::tcp {

/// The state of one initial slow start. Rounds are told by the count of delivered bytes: one has passed when
/// what is newly acknowledged was sent after its beginning. Lock: the host's.
class HyStart {
 public:
  enum class Phase : uint8_t {
    slow_start,
    conservative,  ///< CSS: grows by a quarter, until it is known whether the round trips stay long
    done,          ///< congestion avoidance is to begin
  };

  /// RFC 9406, 4.3.
  static constexpr Duration kLeastThreshold = 4ms;
  static constexpr Duration kLargestThreshold = 16ms;
  static constexpr int kRttDivisor = 8;
  static constexpr uint32_t kSamples = 8;
  static constexpr uint32_t kGrowthDivisor = 4;
  static constexpr uint32_t kConservativeRounds = 5;

  Phase phase() const { return phase_; }
  /// By how much an ACK of `acked` bytes opens the window now.
  uint32_t growth(uint32_t acked) const {
    return phase_ == Phase::conservative ? acked / kGrowthDivisor : acked;
  }

  /// For each ACK of the initial slow start, after cwnd has grown by it.
  void on_ack(const AckSample& sample) {
    if (sample.rtt > Duration(0)) {
      current_ = std::min(current_, sample.rtt);
      ++samples_;
    }
    if (samples_ >= kSamples && current_ != kNone) {
      if (phase_ == Phase::slow_start && last_ != kNone) {
        // "if (currentRoundMinRTT >= (lastRoundMinRTT + RttThresh)) cssBaselineMinRtt = currentRoundMinRTT;
        // exit slow start and enter CSS" (4.2).
        Duration threshold = std::clamp(last_ / kRttDivisor, kLeastThreshold, kLargestThreshold);
        if (current_ >= last_ + threshold) {
          baseline_ = current_;
          rounds_ = 0;
          phase_ = Phase::conservative;
        }
      } else if (phase_ == Phase::conservative && current_ < baseline_) {
        // "the earlier exit was spurious": jitter, not a queue.
        baseline_ = kNone;
        phase_ = Phase::slow_start;
      }
    }
    if (sample.rate.prior_delivered < round_end_ || sample.acked == 0) return;
    round_end_ = sample.total_delivered;
    last_ = current_;
    current_ = kNone;
    samples_ = 0;
    // "CSS lasts at most CSS_ROUNDS rounds"; the round in which it began counts.
    if (phase_ == Phase::conservative && ++rounds_ >= kConservativeRounds) phase_ = Phase::done;
  }

 private:
  static constexpr Duration kNone = Duration::max();
  Phase phase_ = Phase::slow_start;
  uint32_t samples_ = 0;
  uint32_t rounds_ = 0;
  /// The smallest round trip of the last round, of this one, and of the one that ended slow start.
  Duration last_ = kNone, current_ = kNone, baseline_ = kNone;
  uint64_t round_end_ = 0;
};

}  // namespace ustack::tcp
