// Proportional rate reduction (RFC 6937): in a window that has seen congestion, how much each ACK lets go, so
// that what is in flight goes down to ssthresh evenly.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ustack::tcp {

/// All in bytes.
class RateReduction {
 public:
  /// Congestion was found with `flight` bytes outstanding (RecoverFS).
  void start(uint32_t flight) {
    flight_ = std::max(flight, 1u);
    delivered_ = out_ = 0;
  }
  /// Something was sent, new or again.
  void on_sent(uint32_t bytes) { out_ += bytes; }

  struct Input {
    uint32_t delivered = 0;  // by this ACK
    uint32_t in_flight = 0;  // after it
    uint32_t ssthresh = 0;
    uint32_t mss = 0;
    /// SND.UNA moved, and nothing more was found lost: there is no need to be careful (safeACK).
    bool safe = false;
    /// A segment goes out in any case (a partial ACK without SACK: RFC 6582, 3.2, step 4).
    bool force = false;
  };
  /// cwnd after an ACK.
  uint32_t cwnd(const Input& in) {
    delivered_ += in.delivered;
    int64_t room;
    if (in.in_flight > in.ssthresh) {
      // Proportional rate reduction: ssthresh / RecoverFS of what is delivered.
      room = static_cast<int64_t>((delivered_ * in.ssthresh + flight_ - 1) / flight_) -
             static_cast<int64_t>(out_);
    } else {
      // Slow start reduction bound, or its conservative form.
      room = std::max(static_cast<int64_t>(delivered_) - static_cast<int64_t>(out_), int64_t{in.delivered});
      if (in.safe) room += in.mss;
      room = std::min(room, int64_t{in.ssthresh - in.in_flight});
    }
    // RFC 6675, 5, step 4.3: the first retransmission goes at once.
    room = std::max(room, out_ == 0 || in.force ? int64_t{in.mss} : 0);
    return in.in_flight + static_cast<uint32_t>(std::min<int64_t>(room, 0x3fffffff));
  }

 private:
  uint64_t delivered_ = 0;
  uint64_t out_ = 0;
  uint64_t flight_ = 1;
};

}  // namespace ustack::tcp
