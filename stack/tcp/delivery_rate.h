// How fast the network delivers (draft-cheng-iccrg-delivery-rate-estimation, Linux's tcp_rate.c): each
// transmission remembers how much had been delivered when it left; its ACK tells how much has come since, and
// in what time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/tcp/congestion.h"

namespace ustack::tcp {

/// One transmission, in the order of transmissions. The clock alone doesn't tell: what is sent in one turn of
/// the host has the same time. Of the segments of one superframe the one further on in the stream came later
/// (RFC 8985, 6.2, RACK_sent_after).
struct TransmitMark {
  /// Counts transmissions, from 1.
  uint64_t number = 0;
  SeqNum end{};
  Instant at{};
  bool after(const TransmitMark& other) const {
    return number > other.number || (number == other.number && end > other.end);
  }
};

/// What a transmission remembers (P.delivered and its like).
struct RateStamp {
  uint64_t delivered = 0;
  uint64_t lost = 0;
  Instant delivered_at{};
  Instant first_sent_at{};
  uint32_t in_flight = 0;
  bool app_limited = false;
};

/// The newest of the transmissions that an ACK is about.
struct RateCandidate {
  bool valid = false;
  TransmitMark mark{};
  RateStamp stamp{};
  bool retransmitted = false;
};

/// The connection's counts (C.delivered and its like). Lock: the host's.
class DeliveryRate {
 public:
  /// A transmission leaves now. `idle`: nothing was in flight. `in_flight` is in bytes, this one's included.
  RateStamp on_sent(bool idle, uint32_t in_flight, Instant now) {
    // A pause is not the network's.
    if (idle) first_sent_at_ = delivered_at_ = now;
    return {delivered_, lost_, delivered_at_, first_sent_at_, in_flight, app_limited_until_ != 0};
  }
  void on_delivered(uint32_t bytes) { delivered_ += bytes; }
  void on_lost(uint32_t bytes) { lost_ += bytes; }
  /// An ACK has brought the news about this transmission.
  static void offer(RateCandidate& best, const TransmitMark& mark, const RateStamp& stamp,
                    bool retransmitted) {
    if (best.valid && !mark.after(best.mark)) return;
    best = {true, mark, stamp, retransmitted};
  }
  /// The sample of an ACK that has delivered `bytes`; counts are up to date. Not valid when the interval is
  /// shorter than any round trip: then ACKs were compressed, or a retransmission was taken for the original.
  RateSample sample(const RateCandidate& newest, uint32_t bytes, Duration min_rtt, Instant now) {
    if (app_limited_until_ != 0 && delivered_ > app_limited_until_) app_limited_until_ = 0;
    if (bytes > 0) delivered_at_ = now;
    RateSample sample;
    if (!newest.valid) return sample;
    const RateStamp& stamp = newest.stamp;
    first_sent_at_ = newest.mark.at;
    sample.delivered = delivered_ - stamp.delivered;
    sample.prior_delivered = stamp.delivered;
    sample.tx_in_flight = stamp.in_flight;
    sample.prior_lost = stamp.lost;
    sample.app_limited = stamp.app_limited;
    sample.retransmitted = newest.retransmitted;
    Duration interval = std::max(newest.mark.at - stamp.first_sent_at, now - stamp.delivered_at);
    if (interval >= min_rtt) sample.interval = interval;
    return sample;
  }
  /// The program has nothing more to send, though there is room: until what is in flight has been delivered,
  /// rates are lower bounds.
  void set_app_limited(uint32_t in_flight) {
    app_limited_until_ = std::max<uint64_t>(delivered_ + in_flight, 1);
  }
  bool app_limited() const { return app_limited_until_ != 0; }

  uint64_t delivered() const { return delivered_; }
  uint64_t lost() const { return lost_; }

 private:
  uint64_t delivered_ = 0;
  uint64_t lost_ = 0;
  uint64_t app_limited_until_ = 0;
  Instant delivered_at_{};
  Instant first_sent_at_{};
};

}  // namespace ustack::tcp
