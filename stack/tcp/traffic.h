// What a connection has sent and received and what held it up: for TCP_INFO.
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/time.h"

namespace ustack::tcp {

/// Segments, those of a superframe one by one; they wrap around (RFC 4898: tcpEStatsPerfSegsOut and others).
struct Traffic {
  uint32_t segments_in = 0, segments_out = 0;
  uint32_t data_segments_in = 0, data_segments_out = 0;
  uint32_t out_of_order = 0;

  void receive(uint32_t segments, bool data) {
    segments_in += segments;
    if (data) data_segments_in += segments;
  }
  void send(uint32_t segments, bool data) {
    segments_out += segments;
    if (data) data_segments_out += segments;
  }
};

/// How long there was something to send, and of that how long the peer's window or the send buffer held it up
/// (Linux's tcp_chrono). Lock: the host's.
class SendTimes {
 public:
  enum class What : uint8_t { idle, busy, window_limited, buffer_limited };

  /// From now on it is this.
  void set(What what, Instant now) {
    if (what == what_) return;
    settle(now);
    what_ = what;
  }
  Duration busy(Instant now) const {
    return total(What::busy, now) + total(What::window_limited, now) + total(What::buffer_limited, now);
  }
  Duration window_limited(Instant now) const { return total(What::window_limited, now); }
  Duration buffer_limited(Instant now) const { return total(What::buffer_limited, now); }

 private:
  void settle(Instant now) {
    if (what_ != What::idle) times_[index(what_)] += now - since_;
    since_ = now;
  }
  Duration total(What what, Instant now) const {
    return times_[index(what)] + (what == what_ ? now - since_ : Duration(0));
  }
  static size_t index(What what) { return static_cast<size_t>(what) - 1; }

  std::array<Duration, 3> times_{};
  Instant since_{};
  What what_ = What::idle;
};

/// Retransmission time-outs, how many times they began (recoveries) and the time until each was over.
struct TimeoutTotals {
  uint16_t count = 0, recoveries = 0;
  Duration time{0};
  /// When the one that is not over yet began; kNever: none.
  Instant since = kNever;

  void begin(Instant now) {
    ++recoveries;
    since = now;
  }
  void end(Instant now) {
    if (since != kNever) time += now - since;
    since = kNever;
  }
};

}  // namespace ustack::tcp
