// The sending half of a connection: SND.* of the TCB, what is in flight, loss recovery, timers as deadlines.
// Pure: it says what to send next (Transmission), the endpoint sends it.
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/log.h"
#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/mem/slab.h"
#include "stack/tcp/congestion.h"
#include "stack/tcp/flight.h"
#include "stack/tcp/loss_recovery.h"
#include "stack/tcp/rtt.h"
#include "stack/tcp/segment.h"
#include "stack/tcp/send_buffer.h"
#include "stack/tcp/traffic.h"

namespace ustack::tcp {

/// What the sender wants to be sent.
struct Transmission {
  SeqNum seq;
  /// Payload bytes; more than the MSS makes a superframe.
  uint32_t length = 0;
  bool fin = false;
  /// It empties the buffer, or the program asked for it (RFC 9293, 3.9.1.2).
  bool push = false;
  bool retransmission = false;
  /// A loss probe (RFC 8985, 7.3): new data, or the last segment again.
  bool probe = false;
};

/// What the link takes.
struct SendLimits {
  /// Largest IP packet that the link cuts itself; 0: it cuts none.
  uint32_t max_superframe = 0;
  /// IP and TCP with options, in bytes.
  uint32_t header_length = 40;
  /// The program has room for more, so that it may bring it at once.
  bool more_comes = false;
};

/// Lock: the host's.
class Sender {
 public:
  Sender(BlockPool& blocks, Slab<SentSegment>& pool)
      : buffer(blocks), flight_(pool), recovery_(flight_, congestion, rtt) {}

  // --- RFC 9293, 3.3.1: the send sequence variables ---
  SeqNum snd_una, snd_nxt;
  /// Scaled, in bytes.
  uint32_t snd_wnd = 0;
  /// Sequence number one past the urgent data, if `urgent`.
  SeqNum snd_up;
  bool urgent = false;
  SeqNum snd_wl1, snd_wl2;
  SeqNum iss;
  /// Max(SND.WND), 3.8.6.2.1.
  uint32_t max_snd_wnd = 0;
  /// Shift count of the peer's windows (Snd.Wind.Shift, RFC 7323, 2.3).
  uint8_t snd_wscale = 0;

  /// Bytes from SND.UNA on.
  SendBuffer buffer;
  CongestionSlot congestion;
  RttEstimator rtt;

  /// The peer takes SACK (RFC 2018).
  bool sack = false;
  /// An ECE of the peer means congestion (RFC 3168).
  bool ecn = false;

  // --- options of the socket ---
  /// TCP_THIN_LINEAR_TIMEOUTS.
  bool thin_linear = false;
  bool nodelay = false;
  bool cork = false;
  /// MSG_MORE of the last send.
  bool more = false;
  /// TCP_NOTSENT_LOWAT; 0: no limit.
  uint32_t notsent_lowat = 0;

  /// SO_MAX_PACING_RATE, bytes a second; kUnpaced: the program has set none.
  static constexpr uint64_t kUnpaced = ~uint64_t{0};
  uint64_t max_pacing_rate = kUnpaced;

  // --- timers, kNever when off ---
  /// Something may be sent then, which pacing holds back, or gathers() for a fuller superframe.
  Instant pacing_deadline = kNever;
  Instant rto_deadline = kNever;
  /// Loss probe (RFC 8985, 7.2).
  Instant probe_deadline = kNever;
  /// Window probes, and data that silly window avoidance holds back with nothing in flight.
  Instant persist_deadline = kNever;

  /// The next of the timers that find or repair losses.
  Instant recovery_deadline() const {
    return std::min({rto_deadline, probe_deadline, recovery_.reordering_deadline()});
  }

  /// A router has said that the peer's network or host can't be reached, of a segment of ours that begins
  /// with `seq`. If that is what the timer has sent again, the network is broken, not congested: one back-off
  /// is taken back (RFC 6069, section 4). Whether the timer has changed.
  bool on_unreachable(SeqNum seq, Instant now);

  /// The connection is established: data may be sent from SND.NXT = SND.UNA on. `mss` is Eff.snd.MSS in
  /// payload bytes with the options of every segment taken off. `syn_lost`: more than one SYN was.
  void start(uint32_t mss, bool syn_lost, std::optional<Duration> handshake_rtt, Instant now);
  uint32_t mss() const { return mss_; }

  /// The program has queued all that it will send: a FIN follows.
  void close() { fin_queued_ = true; }
  bool fin_queued() const { return fin_queued_; }
  bool fin_sent() const { return fin_sent_; }
  /// Our FIN has been acknowledged.
  bool fin_acknowledged() const { return fin_acknowledged_; }
  /// Bytes queued and not yet sent once.
  uint32_t unsent() const { return fin_sent_ ? 0 : buffer.size() - (snd_nxt - snd_una); }
  /// One past the last byte queued.
  SeqNum data_end() const { return fin_sent_ ? snd_nxt - 1 : snd_una + buffer.size(); }
  /// Something is queued or in flight.
  bool busy() const { return !buffer.empty() || (fin_queued_ && !fin_acknowledged_); }
  bool idle_flight() const { return flight_.empty(); }
  /// The right edge of the peer's window.
  SeqNum window_end() const { return snd_una + snd_wnd; }
  bool writable(uint32_t limit) const {
    return buffer.writable(limit) && (notsent_lowat == 0 || unsent() < notsent_lowat);
  }

  /// What to send now; nothing when all is sent or windows, Nagle or cork hold it back. Call sent() for it,
  /// then again.
  std::optional<Transmission> next(const SendLimits& limits, Instant now);
  /// What the persist timer sends in spite of Nagle and cork: as much of a segment as the peer's window
  /// takes; nothing when that is closed (then a window probe is due).
  std::optional<Transmission> forced();
  /// It was handed to the network. False when memory for the record is out: then it counts as not sent.
  bool sent(const Transmission& transmission, Instant now);

  struct AckOutcome {
    /// SND.UNA has moved by this.
    uint32_t advanced = 0;
    /// It was a duplicate ACK (RFC 5681, section 2).
    bool duplicate = false;
    /// The window opened: what was held back may go out.
    bool window_opened = false;
    /// Fast recovery has begun.
    bool entered_recovery = false;
    /// Bytes newly delivered, if the ACK has echoed congestion.
    uint32_t delivered_marked = 0;
    /// What is to be counted.
    RecoveryEvents recovery{};
  };
  /// An acceptable ACK: SND.UNA <= SEG.ACK <= SND.NXT. `echoed` is when the timestamp that it echoes was
  /// sent (the start of that tick), if timestamps are on and it is valid.
  AckOutcome on_ack(const Segment& segment, std::optional<Instant> echoed, Instant now);
  /// The peer has sent data: what follows may be an answer that somebody waits for.
  void on_data_received() { sent_before_answer_ = bytes_sent_; }
  /// The retransmission timer has expired (RFC 6298, 5.4 to 5.6).
  RecoveryEvents on_rto(Instant now);
  /// The loss probe's timer has expired: what to send in spite of cwnd; nothing if there is no use in it.
  std::optional<Transmission> on_probe_timer();
  /// The reordering timer has expired (RFC 8985, 6.3).
  RecoveryEvents on_reordering_timer(Instant now);
  /// Packets were too big for the path: smaller segments from now on, and those in flight again.
  void on_mss_change(uint32_t mss, bool retransmit);
  /// Turns the persist timer on or off as the state demands; after next() has said that there is nothing.
  void update_persist(Instant now);
  /// A probe was sent: doubles the time to the next.
  void on_probe_sent(Instant now);
  /// Drops all that is queued (reset).
  void clear();
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    buffer.show(census);
    flight_.show();
  }

  /// What is in flight, in bytes: RFC 6675's pipe, or without SACK what duplicate ACKs leave of it.
  uint32_t in_flight() const { return recovery_.in_flight(); }
  uint32_t cwnd() const { return congestion->cwnd(); }
  /// Bytes a second at which segments are spaced, if they are: the algorithm's own rate, or cwnd in a round
  /// trip and some more, as Linux's tcp_update_pacing_rate; at most max_pacing_rate. kUnpaced: not known yet.
  uint64_t pacing_rate() const;
  bool paced() const { return max_pacing_rate != kUnpaced || congestion->pacing_rate() != 0; }
  LossRecovery& recovery() { return recovery_; }
  const LossRecovery& recovery() const { return recovery_; }
  CongestionState congestion_state() const { return recovery_.state(); }
  const Flight& flight() const { return flight_; }
  /// The last delivery rate measured, and whether the program had limited it (tcpi_delivery_rate).
  const RateSample& rate() const { return rate_; }
  /// Time-outs since SND.UNA last moved (icsk_retransmits).
  uint32_t timeouts() const { return timeouts_; }
  const TimeoutTotals& timeout_totals() const { return timeout_totals_; }
  /// The peer's window is all that holds data back.
  bool window_limited() const {
    return unsent() > 0 && window_room() < std::min(unsent(), mss_) && cwnd_room() >= mss_;
  }
  /// Probes since the peer last sent an ACK (icsk_probes_out).
  uint32_t probes() const { return probes_; }
  void count_probe() { ++probes_; }
  /// When the data that is not acknowledged now was first retransmitted; kNever if it was not.
  Instant first_retransmit() const { return first_retransmit_; }
  /// When probing began; kNever when nothing is being probed.
  Instant probing_since() const { return probing_since_; }
  uint32_t probe_back_off() const { return probe_back_off_; }
  Instant last_sent() const { return last_sent_; }
  uint32_t retransmitted_segments() const { return retransmitted_segments_; }
  /// Bytes whose ACKs have echoed congestion.
  uint64_t delivered_marked() const { return delivered_marked_; }
  uint64_t bytes_acknowledged() const { return bytes_acknowledged_; }
  uint64_t bytes_sent() const { return bytes_sent_; }
  uint64_t bytes_retransmitted() const { return bytes_retransmitted_; }

 private:
  std::optional<Transmission> next_unpaced(const SendLimits& limits, Instant now);
  std::optional<Transmission> next_retransmission(const SendLimits& limits);
  std::optional<Transmission> next_new(const SendLimits& limits, Instant now);
  bool deferred(uint32_t usable, const SendLimits& limits, Instant now);
  bool gathers(uint32_t pending, const SendLimits& limits, Instant now);
  bool small_in_flight() const { return small_sent_ && small_end_ > snd_una; }
  bool take_window(const Segment& segment);
  void take_cumulative(SeqNum ack, uint32_t advanced, AckTally& tally);
  Duration take_rtt(const AckTally& tally, std::optional<Instant> echoed, bool advanced, Instant now);
  void tell_congestion(const LossRecovery::Arrival& arrival, bool was_reducing, uint32_t delivered,
                       uint32_t lost, Duration sample, Instant now);
  void restart_timers(const LossRecovery::Arrival& arrival, Instant now);
  void schedule_probe(Instant now);
  bool record(const Transmission& transmission, Instant now);
  bool record_retransmission(const Transmission& transmission, Instant now);
  void note_usage();
  uint32_t cwnd_room() const;
  uint32_t window_room() const { return window_end() > snd_nxt ? window_end() - snd_nxt : 0; }
  Duration probe_interval() const;
  LossRecovery::Position position(Instant now) const { return {snd_una, snd_nxt, mss_, sack, now}; }

  Flight flight_;
  LossRecovery recovery_;
  uint32_t mss_ = 536;
  bool fin_queued_ = false, fin_sent_ = false, fin_acknowledged_ = false;

  /// End of the last segment sent that was shorter than the MSS (Minshall).
  SeqNum small_end_;
  bool small_sent_ = false;
  Instant last_sent_{};
  Instant first_retransmit_ = kNever;
  Instant probing_since_ = kNever;
  uint32_t probe_back_off_ = 0;
  uint32_t timeouts_ = 0;
  TimeoutTotals timeout_totals_;
  uint32_t probes_ = 0;

  // Whether cwnd is what limits us (tcp_cwnd_validate).
  uint32_t max_in_flight_ = 0;
  SeqNum usage_end_;

  RateSample rate_;
  uint32_t retransmitted_segments_ = 0;
  /// When what was sent last has left at the pacing rate (Linux's tcp_wstamp_ns).
  Instant paced_until_{};
  uint64_t delivered_marked_ = 0;
  uint64_t bytes_acknowledged_ = 0, bytes_sent_ = 0, bytes_retransmitted_ = 0;
  /// bytes_sent_ when the peer last sent data.
  uint64_t sent_before_answer_ = 0;
};

/// una 1 nxt 2921 wnd 64240 cwnd 14480 in flight 2920.
LogLine& operator<<(LogLine& line, const Sender& sender);

}  // namespace ustack::tcp
