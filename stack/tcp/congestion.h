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

/// How fast the network delivers, measured from the newest segment that an ACK is about (as in
/// draft-ietf-ccwg-bbr, 4.1; Linux's tcp_rate.c).
struct RateSample {
  /// Bytes delivered between the sending of that segment and now, over `interval`; zero: no valid sample.
  uint64_t delivered = 0;
  Duration interval{0};
  /// The connection's count of delivered bytes when that segment was sent: a round trip has passed when it
  /// reaches what the count was at the round's beginning.
  uint64_t prior_delivered = 0;
  /// What was in flight, and the count of lost bytes, when it was sent.
  uint32_t tx_in_flight = 0;
  uint64_t prior_lost = 0;
  /// The program had nothing to send at the time: the rate is a lower bound.
  bool app_limited = false;
  bool retransmitted = false;

  bool valid() const { return interval > Duration(0); }
  /// Bytes a second.
  uint64_t bytes_per_second() const {
    return valid() ? delivered * 1'000'000'000 / static_cast<uint64_t>(interval.count()) : 0;
  }
};

/// An ACK that tells of something delivered or lost, as the sender knows it.
struct AckSample {
  Instant now{};
  /// Bytes newly acknowledged, cumulatively or by SACK.
  uint32_t acked = 0;
  /// Bytes newly believed lost.
  uint32_t lost = 0;
  /// Bytes in flight before this ACK, and after it.
  uint32_t prior_in_flight = 0;
  uint32_t in_flight = 0;
  /// Zero if this ACK gave no sample.
  Duration rtt{0};
  Duration srtt{0};
  /// The smallest of the last net.ipv4.tcp_min_rtt_wlen seconds; zero before the first sample.
  Duration min_rtt{0};
  /// The sender holds cwnd (fast recovery, or the round trip after an ECN echo), so cwnd doesn't grow; an
  /// algorithm that controls_cwnd() sees it for its information. After a time-out it is false: slow start.
  bool in_recovery = false;
  /// A time-out is being repaired.
  bool in_loss = false;
  /// This ACK has echoed congestion (RFC 3168).
  bool ece = false;
  /// The window was the limit on sending, not the program (is_cwnd_limited). Else cwnd must not grow on it
  /// (RFC 7661; RFC 9293 leaves it to 5681).
  bool cwnd_limited = true;
  /// SND.UNA moved; and the connection's counts of bytes delivered and lost, this ACK's included.
  bool advanced = false;
  uint64_t total_delivered = 0;
  uint64_t total_lost = 0;
  RateSample rate{};
};

/// Why on_congestion_event() is called.
enum class CongestionCause : uint8_t {
  loss,  ///< segments were found lost; also a lost tail that a loss probe has repaired
  ecn,   ///< the peer has echoed congestion (RFC 3168)
};

/// State and interface of an algorithm. Everything is in bytes. Lives in a CongestionSlot, so an algorithm is
/// trivially destructible and holds no reference. Lock: the host's.
///
/// Who sets cwnd: the algorithm, except from on_congestion_event() to on_recovery_exit(), when proportional
/// rate reduction (RFC 6937) in the sender does, towards the algorithm's ssthresh; and the loss window after
/// a time-out. An algorithm that controls_cwnd() (BBR) sets it on every ACK, in recovery too.
class CongestionControl {
 public:
  virtual std::string_view name() const = 0;

  /// The handshake is done: the initial window (RFC 6928), one segment if the SYN was lost (`syn_lost`).
  virtual void on_connected(uint32_t mss, bool syn_lost, Instant now) = 0;
  /// For each ACK that has brought something (`acked` or `lost` is not zero).
  virtual void on_ack(const AckSample& sample) = 0;
  /// Congestion was found, the first time in this window: remember() and set ssthresh. cwnd is left alone.
  /// `in_flight` is RFC 5681's FlightSize; as in Linux that is cwnd.
  virtual void on_congestion_event(CongestionCause cause, uint32_t in_flight, Instant now) = 0;
  /// The retransmission timer has expired. `repeated`: in a window whose congestion was counted already, then
  /// ssthresh is kept (RFC 5681, 3.1). The sender sets cwnd to the loss window afterwards.
  virtual void on_rto(uint32_t in_flight, bool repeated, Instant now) = 0;
  /// Ends what on_congestion_event() or on_rto() began: all that was sent before it has been acknowledged.
  /// Not called after on_undo().
  virtual void on_recovery_exit(uint32_t in_flight, Instant now) = 0;
  /// The last on_congestion_event() or on_rto() was spurious (RFC 4015, 5682, 3708): as before it.
  virtual void on_undo(Instant now);
  /// Nothing was sent for `idle` >= rto and something is about to be (RFC 5681, 4.1): one halving per rto, as
  /// Linux, down to the restart window.
  virtual void on_idle_restart(Duration idle, Duration rto, Instant now);
  /// Something is about to be sent with nothing in flight (Linux's CA_EVENT_TX_START); `idle` since the last.
  virtual void on_transmit_start(Duration idle, Instant now);
  /// Bytes a second at which segments should be spaced; 0: not paced.
  virtual uint64_t pacing_rate() const { return 0; }
  /// It sets cwnd itself on every ACK, recovery included (Linux's cong_control): no rate reduction.
  virtual bool controls_cwnd() const { return false; }

  /// The effective MSS has changed (PMTUD).
  void set_mss(uint32_t mss);
  uint32_t mss() const { return mss_; }
  uint32_t cwnd() const { return cwnd_; }
  uint32_t ssthresh() const { return ssthresh_; }
  bool in_slow_start() const { return cwnd_ < ssthresh_; }
  uint32_t initial_window() const;
  /// For the algorithm, and for the sender while it repairs.
  void set_cwnd(uint32_t cwnd) { cwnd_ = std::min(cwnd, kUnlimited); }

 protected:
  CongestionControl() = default;
  ~CongestionControl() = default;
  /// What undo goes back to.
  void remember() { prior_cwnd_ = cwnd_, prior_ssthresh_ = ssthresh_; }

  static constexpr uint32_t kUnlimited = 0x7fffffff;
  uint32_t mss_ = 536;
  uint32_t cwnd_ = 10 * 536;
  uint32_t ssthresh_ = kUnlimited;
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
  /// Starts with the default, cubic.
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
/// nullptr: no algorithm of that name.
const CongestionAlgorithm* find_congestion_algorithm(std::string_view name);

/// reno cwnd 14480 ssthresh 7240.
LogLine& operator<<(LogLine& line, const CongestionControl& control);

}  // namespace ustack::tcp
