#include "stack/tcp/reno.h"

#include <algorithm>

namespace ustack::tcp {

void Reno::on_connected(uint32_t mss, bool syn_lost, Instant) {
  start(mss, syn_lost);
  acked_ = 0;
}

void Reno::on_ack(const AckSample& sample) {
  if (sample.in_recovery || !sample.cwnd_limited) return;
  uint32_t acked = in_slow_start() ? slow_start(sample.acked) : sample.acked;
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
  lose_all();
  acked_ = 0;
}

}  // namespace ustack::tcp
