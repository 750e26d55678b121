// Reno: slow start, congestion avoidance, halving (RFC 5681).
#pragma once

#include "stack/tcp/loss_based.h"

namespace ustack::tcp {

/// Counts acknowledged bytes (RFC 3465), not ACKs.
class Reno final : public LossBased {
 public:
  std::string_view name() const override { return "reno"; }
  void on_connected(uint32_t mss, bool syn_lost, Instant now) override;
  void on_ack(const AckSample& sample) override;
  void on_congestion_event(CongestionCause cause, uint32_t in_flight, Instant now) override;
  void on_rto(uint32_t in_flight, bool repeated, Instant now) override;

 private:
  uint32_t acked_ = 0;  // bytes acknowledged towards the next MSS of congestion avoidance
};

}  // namespace ustack::tcp
