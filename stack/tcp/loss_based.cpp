#include "stack/tcp/loss_based.h"

#include <algorithm>

namespace ustack::tcp {

void LossBased::on_recovery_exit(uint32_t, Instant) {
  // RFC 6582, 3.2, full acknowledgment, choice 2, as Linux. After a time-out slow start has set cwnd.
  if (!after_rto_) cwnd_ = ssthresh_;
  after_rto_ = false;
}

void LossBased::on_undo(Instant now) {
  CongestionControl::on_undo(now);
  after_rto_ = false;
}

void LossBased::start(uint32_t mss, bool syn_lost) {
  mss_ = mss;
  ssthresh_ = kUnlimited;
  after_rto_ = false;
  // RFC 6928, 2: "If the SYN or SYN/ACK is lost, the initial window used by a sender after a correctly
  // transmitted SYN MUST be one segment consisting of MSS bytes."
  set_cwnd(syn_lost ? mss : initial_window());
}

uint32_t LossBased::slow_start(uint32_t acked) {
  // RFC 3465, 2.2, counts bytes. Its limit L of 2 MSS for one ACK is left out, as in Linux: a peer that
  // receives superframes acknowledges some 40 segments at once. Only after a time-out, when an ACK may be
  // for bytes that left the network long ago, L is 1 MSS (RFC 3465, 2.3).
  uint32_t counted = after_rto_ ? std::min(acked, mss_) : acked;
  uint32_t growth = std::min(counted, ssthresh_ - cwnd_);
  set_cwnd(cwnd_ + growth);
  return counted - growth;
}

void LossBased::lose_all() {
  cwnd_ = mss_;
  after_rto_ = true;
}

}  // namespace ustack::tcp
