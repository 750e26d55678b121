#include "stack/tcp/reno.h"

#include <algorithm>

namespace ustack::tcp {

void Reno::on_connected(uint32_t mss, bool syn_lost, Instant) {
  mss_ = mss;
  ssthresh_ = kUnlimited;
  acked_ = 0;
  after_rto_ = false;
  // RFC 6928, 2: "If the SYN or SYN/ACK is lost, the initial window used by a sender after a correctly
  // transmitted SYN MUST be one segment consisting of MSS bytes."
  set_cwnd(syn_lost ? mss : initial_window());
}

void Reno::on_ack(const AckSample& sample) {
  if (sample.in_recovery || !sample.cwnd_limited) return;
  uint32_t acked = sample.acked;
  if (in_slow_start()) {
    // RFC 3465, 2.2, counts bytes. Its limit L of 2 MSS for one ACK is left out, as in Linux: a peer that
    // receives superframes acknowledges some 40 segments at once. Only after a time-out, when an ACK may be
    // for bytes that left the network long ago, L is 1 MSS (RFC 3465, 2.3).
    uint32_t counted = after_rto_ ? std::min(acked, mss_) : acked;
    uint32_t growth = std::min(counted, ssthresh_ - cwnd_);
    set_cwnd(cwnd_ + growth);
    acked = counted - growth;
  }
  if (acked == 0) return;
  // RFC 5681, 3.1: one MSS for each cwnd of acknowledged bytes.
  acked_ += acked;
  while (acked_ >= cwnd_) {
    acked_ -= cwnd_;
    set_cwnd(cwnd_ + mss_);
  }
}

void Reno::on_congestion_event(CongestionCause, uint32_t in_flight, Instant) {
  remember();
  // RFC 5681, equation 4.
  ssthresh_ = std::max(in_flight / 2, 2 * mss_);
  acked_ = 0;
}

void Reno::on_rto(uint32_t in_flight, bool repeated, Instant) {
  // RFC 5681, 3.1: "the value of ssthresh is held constant" when the segment was retransmitted before.
  if (!repeated) {
    remember();
    ssthresh_ = std::max(in_flight / 2, 2 * mss_);
  }
  // The loss window.
  cwnd_ = mss_;
  acked_ = 0;
  after_rto_ = true;
}

void Reno::on_recovery_exit(uint32_t, Instant) {
  // RFC 6582, 3.2, full acknowledgment, choice 2, as Linux. After a time-out slow start has set cwnd.
  if (!after_rto_) cwnd_ = ssthresh_;
  after_rto_ = false;
}

void Reno::on_undo(Instant now) {
  CongestionControl::on_undo(now);
  after_rto_ = false;
}

}  // namespace ustack::tcp
