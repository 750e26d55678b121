// CUBIC (RFC 9438) with HyStart++ (RFC 9406), the default as in Linux.
#pragma once

#include "stack/tcp/hystart.h"
#include "stack/tcp/loss_based.h"

namespace ustack::tcp {

/// Windows are bytes, time is whole milliseconds: no floating point.
class Cubic final : public LossBased {
 public:
  std::string_view name() const override { return "cubic"; }
  void on_connected(uint32_t mss, bool syn_lost, Instant now) override;
  void on_ack(const AckSample& sample) override;
  void on_congestion_event(CongestionCause cause, uint32_t in_flight, Instant now) override;
  void on_rto(uint32_t in_flight, bool repeated, Instant now) override;
  void on_undo(Instant now) override;
  void on_transmit_start(Duration idle, Instant now) override;

  /// For tests: RFC 9438's W_max in bytes and K in milliseconds.
  uint32_t w_max() const { return curve_.w_max; }
  int64_t k() const { return curve_.k; }

 private:
  /// What a spurious reduction is undone to, beside cwnd and ssthresh (RFC 9438, 4.9).
  struct Curve {
    /// Just before the last reduction (4.1), in bytes; 0: none yet, or a time-out.
    uint32_t w_max = 0;
    /// cwnd just before the last reduction (4.3).
    uint32_t cwnd_prior = 0;
    /// Since when congestion avoidance goes on (t_epoch); kNever: it has not begun.
    Instant epoch = kNever;
    /// Where the curve is flat: bytes, and milliseconds after the epoch.
    uint32_t origin = 0;
    int64_t k = 0;
    /// Reno's window (W_est), in bytes.
    uint64_t w_est = 0;
  };

  void begin_epoch(Instant now);
  /// W_cubic(t) in bytes.
  uint64_t window_at(Duration since_epoch) const;
  void avoid_congestion(uint32_t acked, const AckSample& sample);
  void reduce(uint32_t in_flight);

  Curve curve_{}, before_{};
  HyStart hystart_{};
  /// Fractions of a byte that cwnd and W_est are still owed.
  uint64_t owed_ = 0, reno_owed_ = 0;
};

}  // namespace ustack::tcp
