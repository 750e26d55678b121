// Congestion control: how much may be in flight. One small interface; an endpoint chooses by name.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "stack/base/log.h"
#include "stack/base/result.h"
#include "stack/base/time.h"

namespace ustack::tcp {

/// An ACK that acknowledges something new, as the sender knows it.
struct AckSample {
  Instant now{};
  /// Bytes newly acknowledged, cumulatively or by SACK.
  uint32_t acked = 0;
  /// Bytes in flight before this ACK, and after it.
  uint32_t prior_in_flight = 0;
  uint32_t in_flight = 0;
  /// Zero if this ACK gave no sample.
  Duration rtt{0};
  Duration srtt{0};
  /// Fast recovery is under way: cwnd doesn't grow. After a time-out it does, by slow start.
  bool in_recovery = false;
  /// The window was the limit on sending, not the program (is_cwnd_limited). Else cwnd must not grow on it
  /// (RFC 7661; RFC 9293 leaves it to 5681).
  bool cwnd_limited = true;
  /// Bytes a second delivered over the last round trip; 0: not measured.
  uint64_t delivery_rate = 0;
};

/// State and interface of an algorithm. Everything is in bytes. Lives in a CongestionSlot, so an algorithm is
/// trivially destructible and holds no reference. Lock: the host's.
class CongestionControl {
 public:
  virtual std::string_view name() const = 0;

  /// The handshake is done: the initial window (RFC 6928), one segment if the SYN was lost (`syn_lost`).
  virtual void on_connected(uint32_t mss, bool syn_lost, Instant now) = 0;
  virtual void on_ack(const AckSample& sample) = 0;
  /// A loss was found by duplicate ACKs, SACK or ECN: sets ssthresh, and cwnd for the recovery. Once per
  /// window.
  virtual void on_loss_event(uint32_t in_flight, Instant now) = 0;
  /// The retransmission timer has expired. `repeated`: for the same segment again, then ssthresh is kept
  /// (RFC 5681, 3.1).
  virtual void on_rto(uint32_t in_flight, bool repeated, Instant now) = 0;
  /// Ends what on_loss_event() or on_rto() began: all that was sent before it has been acknowledged.
  virtual void on_recovery_exit(uint32_t in_flight, Instant now) = 0;
  /// The last on_loss_event() or on_rto() was spurious (RFC 4015, 5682): as before it.
  virtual void on_undo(Instant now);
  /// Nothing was sent for `idle` >= rto and something is about to be (RFC 5681, 4.1): one halving per rto, as
  /// Linux, down to the restart window.
  virtual void on_idle_restart(Duration idle, Duration rto, Instant now);
  /// Bytes a second at which segments should be spaced; 0: not paced.
  virtual uint64_t pacing_rate() const { return 0; }

  /// The effective MSS has changed (PMTUD).
  void set_mss(uint32_t mss);
  uint32_t mss() const { return mss_; }
  uint32_t cwnd() const { return cwnd_; }
  uint32_t ssthresh() const { return ssthresh_; }
  bool in_slow_start() const { return cwnd_ < ssthresh_; }
  uint32_t initial_window() const;
  /// Upper bound of cwnd: TCP_WINDOW_CLAMP or the largest send buffer; not less than 2 MSS.
  void set_clamp(uint32_t bytes) { clamp_ = bytes; }

 protected:
  CongestionControl() = default;
  ~CongestionControl() = default;
  /// What undo goes back to.
  void remember() { prior_cwnd_ = cwnd_, prior_ssthresh_ = ssthresh_; }

  static constexpr uint32_t kUnlimited = 0x7fffffff;
  uint32_t mss_ = 536;
  uint32_t cwnd_ = 10 * 536;
  uint32_t ssthresh_ = kUnlimited;
  uint32_t clamp_ = kUnlimited;
  uint32_t prior_cwnd_ = 0;
  uint32_t prior_ssthresh_ = 0;

 private:
  friend class CongestionSlot;
};

/// IW of RFC 6928: min(10 * MSS, max(2 * MSS, 14600)).
constexpr uint32_t initial_window(uint32_t mss) {
  uint32_t floor = 2 * mss > 14600 ? 2 * mss : 14600;
  return 10 * mss < floor ? 10 * mss : floor;
}

/// Whether the window limits the sender (Linux's tcp_is_cwnd_limited): in slow start as long as half of it
/// was used, later when all of it was. `max_in_flight` is the most that was in flight during the last round
/// trip.
inline bool is_cwnd_limited(const CongestionControl& control, uint32_t max_in_flight) {
  if (control.in_slow_start()) return control.cwnd() < 2 * uint64_t{max_in_flight};
  return uint64_t{max_in_flight} + control.mss() > control.cwnd();
}

/// Holds one algorithm, in place. `slot->on_ack(...)`.
class CongestionSlot {
 public:
  static constexpr size_t kBytes = 256;
  /// Starts with the default, reno.
  CongestionSlot();
  CongestionSlot(const CongestionSlot&) = delete;
  CongestionSlot& operator=(const CongestionSlot&) = delete;

  /// TCP_CONGESTION: changes the algorithm, keeping windows and MSS. ENOENT: no such algorithm.
  Status select(std::string_view name);
  CongestionControl* operator->() { return control_; }
  const CongestionControl* operator->() const { return control_; }
  CongestionControl& operator*() { return *control_; }
  const CongestionControl& operator*() const { return *control_; }

 private:
  alignas(16) std::array<std::byte, kBytes> storage_;
  CongestionControl* control_ = nullptr;
};

/// A row of the table of algorithms.
struct CongestionAlgorithm {
  std::string_view name;
  CongestionControl* (*construct)(void* storage);
};
std::span<const CongestionAlgorithm> congestion_algorithms();

/// reno cwnd 14480 ssthresh 7240.
LogLine& operator<<(LogLine& line, const CongestionControl& control);

}  // namespace ustack::tcp
