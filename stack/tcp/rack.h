// RACK (RFC 8985): a segment is lost when one that was sent later has arrived and the time has passed for
// which the network may reorder.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/base/time.h"
#include "stack/tcp/delivery_rate.h"
#include "stack/tcp/flight.h"

namespace ustack::tcp {

/// Lock: the host's.
class Rack {
 public:
  /// Step 2: the most recently sent segment that has arrived, and its round trip.
  void on_delivered(const AckTally& tally) {
    if (!tally.newest) return;
    advanced_ = true;
    rtt_ = tally.newest_rtt;
    if (tally.newest->after(newest_)) newest_ = *tally.newest;
  }
  /// Step 3: the network was seen to reorder.
  void on_reordering() { ++reordering_seen_; }
  /// Step 4: D-SACKs say that segments were called lost too soon (`seen`; not those of loss probes): a
  /// quarter of a round trip more, once a round trip, for 16 recoveries. `prior_delivered` is the
  /// connection's count of delivered bytes when what is acknowledged now was sent; `delivered` that of now.
  void adapt_window(uint64_t prior_delivered, uint64_t delivered) {
    if (prior_delivered < adapted_at_) dsack_seen_ = false;
    if (dsack_seen_) {
      quarters_ = std::min(quarters_ + 1, kMostQuarters);
      dsack_seen_ = false;
      adapted_at_ = delivered;
      persist_ = kPersist;
    } else if (persist_ == 0) {
      quarters_ = 1;
    }
  }
  void on_dsack() {
    if (reordering_seen_ > 0) dsack_seen_ = true;
  }
  /// A recovery has ended, and was needed.
  void on_recovery_end() {
    if (persist_ > 0) --persist_;
  }
  /// A recovery has ended, and D-SACKs say that it was not.
  void on_needless_recovery() { persist_ = std::min(persist_ + 1, kPersist); }

  struct WindowInput {
    bool repairing = false;
    /// SACKed segments have reached the duplicate threshold, and that is to count.
    bool threshold_reached = false;
    Duration min_rtt{0}, srtt{0};
  };
  /// Step 4: how much longer than a round trip to wait. Nothing while the network was not seen to reorder
  /// and something else says that there is a loss.
  Duration window(const WindowInput& in) const {
    if (reordering_seen_ == 0 && (in.repairing || in.threshold_reached)) return Duration(0);
    return std::min(in.min_rtt / 4 * quarters_, in.srtt);
  }

  /// Something was delivered (or an undo asks for it) since the last time: the flight is worth looking at.
  bool take_advanced() { return std::exchange(advanced_, false); }
  void look_again() { advanced_ = true; }
  const TransmitMark& newest() const { return newest_; }
  Duration rtt() const { return rtt_; }
  uint32_t reordering_seen() const { return reordering_seen_; }
  uint32_t quarters() const { return quarters_; }

 private:
  /// TCP_RACK_RECOVERY_THRESH, and the largest multiple of a quarter.
  static constexpr uint32_t kPersist = 16, kMostQuarters = 255;
  TransmitMark newest_{};
  Duration rtt_{0};
  bool advanced_ = false;
  bool dsack_seen_ = false;
  uint32_t reordering_seen_ = 0;
  uint32_t quarters_ = 1;
  uint32_t persist_ = 0;
  uint64_t adapted_at_ = 0;
};

}  // namespace ustack::tcp
