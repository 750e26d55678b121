// The receiving half of a connection: RCV.* of the TCB, the queues, when to acknowledge, how much window to
// offer. Pure: it says that an ACK is due, the endpoint sends it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "stack/base/log.h"
#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/tcp/reassembly.h"
#include "stack/tcp/receive_buffer.h"
#include "stack/tcp/segment.h"
#include "stack/tcp/window.h"

namespace ustack::tcp {

/// Linux's TCP_ATO_MIN and TCP_DELACK_MAX: bounds of the time for which an ACK is delayed.
inline constexpr Duration kMinAckDelay = 40ms, kMaxAckDelay = 200ms;

/// Lock: the host's.
class Receiver {
 public:
  explicit Receiver(PiecePool& pool) : buffer(pool), reassembly_(pool) {}

  // --- RFC 9293, 3.3.1: the receive sequence variables ---
  SeqNum irs;
  SeqNum rcv_nxt;
  /// The right edge that the peer was promised: RCV.NXT + RCV.WND. Never moves left.
  SeqNum rcv_adv;
  /// Shift count of our windows (Rcv.Wind.Shift).
  uint8_t rcv_wscale = 0;
  /// No window is larger (TCP_WINDOW_CLAMP and what the scale can express).
  uint32_t window_clamp = kMaxWindow;

  /// In order, not yet read.
  ReceiveBuffer buffer;
  /// Duplicates are reported (RFC 2883; net.ipv4.tcp_dsack).
  bool dsack = true;
  /// Packets that the network has marked are echoed to the peer (RFC 3168).
  bool ecn = false;
  /// net.ipv4.tcp_comp_sack_nr and tcp_comp_sack_delay_ns: so many duplicate ACKs become one, which comes so
  /// much later. 0, also without SACK: none.
  uint8_t compress_most = 0;
  Duration compress_delay{0};
  /// Memory is short (Linux's tcp_under_memory_pressure): the window closes to a few segments.
  bool pressed = false;
  /// What the sender has measured; zero: nothing yet.
  Duration srtt{0};

  // --- options of the socket ---
  /// SO_RCVBUF as Linux counts it: true size.
  uint32_t limit = 0;
  /// The program has set it: no tuning.
  bool limit_locked = false;
  /// SO_RCVLOWAT.
  uint32_t low_water = 1;

  /// Whoever runs the host sends what is owed before it waits (Host::send_owed_acks), so an ACK that an
  /// answer may carry can be left to that.
  bool acks_wait = false;

  /// TCP_DELACK_MAX_US.
  Duration max_ack_delay = kMaxAckDelay;

  // --- timers, kNever when off ---
  Instant ack_deadline = kNever;

  /// The connection is established: everything counts from RCV.NXT on. `mss` is what the peer was told.
  void start(uint32_t mss, Instant now);
  /// RCV.WND.
  uint32_t rcv_wnd() const { return rcv_adv > rcv_nxt ? rcv_adv - rcv_nxt : 0; }
  /// The peer's FIN has been received in order.
  bool fin_received() const { return fin_received_; }
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    buffer.show(census);
    reassembly_.show(census);
  }
  /// What the peer sends in a segment, estimated (icsk_ack.rcv_mss).
  uint32_t mss_estimate() const { return mss_estimate_; }

  struct Outcome {
    /// Bytes that came in order and can be read now.
    uint32_t readable = 0;
    /// The peer's FIN was reached.
    bool fin = false;
    bool out_of_order = false;
    /// It had arrived before, all of it.
    bool duplicate = false;
    /// No memory, or no room: it was not taken.
    bool dropped = false;
    /// Something behind it was given up to make room.
    bool pruned = false;
  };
  /// RFC 9293, 3.10.7.4, seventh and eighth: text and FIN of an acceptable segment, which is cut to the
  /// window here. Moves its payload away. Decides about the ACK: see ack_due().
  Outcome on_segment(Segment& segment, Instant now);
  /// Not acceptable, or nothing new in it: the peer has to hear where we are.
  void acknowledge_now() { ack_now_ = true; }
  /// The same, but what the program, which is about to hear of this, sends in answer may carry it.
  void acknowledge_soon(Instant now);
  /// The duplicate that D-SACK reports with the next ACK (RFC 2883).
  void report_duplicate(SeqNum start, SeqNum end) {
    if (dsack) duplicate_ = SackBlock{start, end};
  }

  /// An ACK must go out at once.
  bool ack_due() const { return ack_now_; }
  /// One must go out before the host waits. Only with acks_wait.
  bool ack_owed() const { return ack_soon_; }
  /// One is owed, now or later.
  bool ack_pending() const { return ack_now_ || ack_deadline != kNever; }
  /// The timer of the delayed or compressed ACK has expired. Whether it was a delayed one.
  bool on_ack_timer();
  /// The window to advertise in a segment that is about to be sent, in bytes; RCV.ADV moves accordingly, so
  /// call it only for a segment that is sent. `syn`: unscaled.
  uint32_t window_to_send();
  /// The window that the last segment offered, in bytes.
  uint32_t last_window() const { return last_window_; }
  /// A segment with an ACK has left: nothing is owed any more. Returns how many duplicate ACKs it stands for
  /// beside itself.
  uint8_t on_ack_sent(Instant now);
  /// Data has left: the conversation is interactive if it answers what came just before.
  void on_data_sent(Instant now);
  /// Whether a segment that is about to be sent has ECE: from a marked packet until the peer's CWR.
  bool echoes_congestion() const { return echoing_; }
  /// ECN-capable packets have come.
  bool ecn_seen() const { return ecn_seen_; }
  /// The next SACK option begins with a D-SACK block.
  const std::optional<SackBlock>& reported_duplicate() const { return duplicate_; }
  /// SACK blocks for the next ACK, D-SACK first; returns how many.
  uint8_t sack_blocks(std::span<SackBlock> out);

  /// The program has taken n bytes: whether a window update or an ACK should go out now (tcp_cleanup_rbuf).
  bool on_read(uint32_t n, Instant now);
  /// Receive buffer tuning by what the program takes in a round trip (Linux's tcp_rcv_space_adjust).
  /// `largest` is tcp_rmem[2].
  void tune(uint32_t largest, Instant now);

  /// TCP_QUICKACK: ACKs at once, for a while (1), or no more (0).
  void set_quick_ack(bool on);
  bool quick_ack() const { return quick_ > 0 && !interactive_; }
  /// Data and answers alternate, so that ACKs may wait for an answer (Linux's pingpong mode).
  bool interactive() const { return interactive_; }
  /// RCV.NXT as the peer has last heard it (Last.ACK.sent, RFC 7323, 4.3).
  SeqNum last_acknowledged() const { return last_acked_; }
  uint32_t advertised_mss() const { return advertised_mss_; }
  Duration ack_timeout() const { return ack_timeout_; }
  /// The time that a window's worth took to arrive; zero: unknown.
  Duration window_rtt() const { return window_rtt_; }
  Instant last_arrival() const { return last_data_; }
  /// When something came out of order, so that segments and probably ACKs get lost or overtaken.
  Instant last_disorder() const { return last_disorder_; }
  uint64_t bytes_received() const { return bytes_received_; }
  Reassembly& reassembly() { return reassembly_; }
  const Reassembly& reassembly() const { return reassembly_; }
  /// Gives up what came out of order: the peer has to send it again (RFC 2018, section 8; Linux's
  /// tcp_prune_ofo_queue). False if there is nothing.
  bool prune() {
    bool any = !reassembly_.empty();
    reassembly_.clear();
    return any;
  }
  uint32_t true_size() const { return buffer.true_size() + reassembly_.true_size(); }
  void clear();

 private:
  static constexpr uint32_t kMaxQuickAcks = 16;
  void note_arrival(const Segment& segment, Instant now);
  void note_ecn(const Segment& segment);
  uint32_t quick_acks(uint32_t most) const;
  void enter_quick_ack(uint32_t most);
  void schedule_ack(Instant now);
  bool compress_ack(Instant now);
  Duration round_trip() const;
  void measure_rtt(Instant now);
  uint32_t offer() const;

  Reassembly reassembly_;
  bool fin_received_ = false;
  bool ack_now_ = false;
  bool ack_soon_ = false;
  bool interactive_ = false;
  bool pushed_ = false;
  bool echoing_ = false;
  bool ecn_seen_ = false;
  /// Duplicate ACKs sent for `duplicated_`, the RCV.NXT they had, and those held back since the last ACK.
  uint8_t duplicate_acks_ = 0;
  uint8_t compressed_ = 0;
  SeqNum duplicated_;
  uint32_t quick_ = 0;
  Duration ack_timeout_{0};
  /// RCV.NXT of the last ACK sent.
  SeqNum last_acked_;
  uint32_t last_window_ = 0;
  uint32_t advertised_mss_ = 536;
  uint32_t mss_estimate_ = 536;
  Instant last_data_{};
  Instant last_disorder_{};
  std::optional<SackBlock> duplicate_;
  uint64_t bytes_received_ = 0;

  // Tuning (rcvq_space): bytes read since `tune_since_`, and the most in a round trip so far.
  uint32_t tune_read_ = 0;
  uint32_t tune_space_ = 0;
  Instant tune_since_{};
  // The receiver's own estimate of the round trip: the time that a window's worth takes.
  Duration window_rtt_{0};
  SeqNum window_rtt_end_;
  Instant window_rtt_since_{};
};

/// nxt 1 wnd 64240 buffered 0 out of order 0.
LogLine& operator<<(LogLine& line, const Receiver& receiver);

}  // namespace ustack::tcp
