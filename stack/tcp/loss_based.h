// What the algorithms that take loss for congestion have in common, whatever their windows do in between: the
// first window, slow start, and how a repair ends.
#pragma once

#include "stack/tcp/congestion.h"

namespace ustack::tcp {

class LossBased : public CongestionControl {
 public:
  void on_recovery_exit(uint32_t bytes_in_flight, Instant now) override;
  void on_undo(Instant now) override;

 protected:
  LossBased() = default;
  ~LossBased() = default;

  /// The first window. `syn_lost`: the SYN or the SYN-ACK had to be sent again.
  void start(uint32_t mss, bool syn_lost);
  /// Opens the window by what was acknowledged, up to ssthresh; the bytes that are left over.
  uint32_t slow_start(uint32_t acked);
  /// The loss window, after ssthresh was set.
  void lose_all();
  bool after_rto() const { return after_rto_; }

 private:
  bool after_rto_ = false;  // until on_recovery_exit()
};

}  // namespace ustack::tcp
