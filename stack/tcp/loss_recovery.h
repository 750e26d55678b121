// Finding losses and repairing them: what is lost (RACK of RFC 8985, RFC 6675, or RFC 6582 for peers without
// SACK), which of Linux's congestion states that means, how cwnd follows (RFC 6937), and how it is all taken
// back where it turns out to have been a mistake (RFC 3522, 3708, 4015, 5682).
//
//   open --SACK, duplicate ACK--> disorder --loss--> recovery --all acknowledged--> open
//     '--ECN echo--> cwr            '--time-out--> loss --all acknowledged, or spurious--> open
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/settings.h"
#include "stack/tcp/congestion.h"
#include "stack/tcp/flight.h"
#include "stack/tcp/prr.h"
#include "stack/tcp/rack.h"
#include "stack/tcp/rtt.h"

namespace ustack::tcp {

/// With the numbers of Linux's TCP_CA_*.
enum class CongestionState : uint8_t {
  open,      ///< nothing is amiss
  disorder,  ///< duplicate ACKs or SACKs: there may be a loss
  cwr,       ///< cwnd is being reduced, nothing is lost (ECN)
  recovery,  ///< fast recovery (RFC 6582, 6675)
  loss,      ///< after a retransmission time-out
};
std::string_view name_of(CongestionState state);

// X(event, counter): what is counted, under Linux's names.
#define USTACK_RECOVERY_EVENTS(X)                 \
  X(sack_recovery, TCPSackRecovery)               \
  X(reno_recovery, TCPRenoRecovery)               \
  X(sack_recovery_failed, TCPSackRecoveryFail)    \
  X(reno_recovery_failed, TCPRenoRecoveryFail)    \
  X(sack_failed, TCPSackFailures)                 \
  X(reno_failed, TCPRenoFailures)                 \
  X(loss_failed, TCPLossFailures)                 \
  X(full_undo, TCPFullUndo)                       \
  X(partial_undo, TCPPartialUndo)                 \
  X(dsack_undo, TCPDSACKUndo)                     \
  X(loss_undo, TCPLossUndo)                       \
  X(spurious_rto, TCPSpuriousRTOs)                \
  X(loss_probe_recovery, TCPLossProbeRecovery)    \
  X(sack_reneging, TCPSACKReneging)               \
  X(sack_reorder, TCPSACKReorder)                 \
  X(reno_reorder, TCPRenoReorder)                 \
  X(timestamp_reorder, TCPTSReorder)              \
  X(dsack_received, TCPDSACKRecv)                 \
  X(dsack_out_of_order_received, TCPDSACKOfoRecv) \
  X(dsack_dubious, TCPDSACKIgnoredDubious)        \
  X(dsack_ignored_old, TCPDSACKIgnoredOld)        \
  X(dsack_ignored_no_undo, TCPDSACKIgnoredNoUndo) \
  X(sack_discarded, TCPSACKDiscard)

enum class RecoveryEvent : uint32_t {
#define USTACK_RECOVERY_ENUMERATOR(event, counter) event,
  USTACK_RECOVERY_EVENTS(USTACK_RECOVERY_ENUMERATOR)
#undef USTACK_RECOVERY_ENUMERATOR
};

/// A set of RecoveryEvents, and two sums.
struct RecoveryEvents {
  uint32_t bits = 0;
  /// Retransmissions found lost, and duplicates that D-SACKs told of, in segments.
  uint32_t lost_retransmissions = 0;
  uint32_t duplicate_segments = 0;
  void add(RecoveryEvent event) { bits |= 1U << static_cast<uint32_t>(event); }
  bool has(RecoveryEvent event) const { return (bits & 1U << static_cast<uint32_t>(event)) != 0; }
  bool any() const { return bits != 0 || lost_retransmissions != 0 || duplicate_segments != 0; }
};

/// Lock: the host's.
class LossRecovery {
 public:
  /// From net.ipv4.tcp_recovery, tcp_early_retrans, tcp_frto, tcp_reordering and tcp_max_reordering.
  struct Rules {
    bool rack = true;
    /// The RACK window doesn't adapt; and three SACKed segments alone don't close it.
    bool static_window = false, no_threshold = false;
    bool loss_probes = true;
    bool frto = true;
    uint32_t reordering = 3, max_reordering = 300;
    static Rules from(const Settings& settings);
  };

  LossRecovery(Flight& flight, CongestionSlot& congestion, RttEstimator& rtt)
      : flight_(flight), congestion_(congestion), rtt_(rtt) {}
  LossRecovery(const LossRecovery&) = delete;
  LossRecovery& operator=(const LossRecovery&) = delete;

  /// Before anything is sent.
  void set_rules(const Rules& rules);
  const Rules& rules() const { return rules_; }

  /// What every entry point needs to know of the sender.
  struct Position {
    SeqNum una, nxt;
    uint32_t mss = 0;
    /// The peer takes SACK.
    bool sack = false;
    Instant now{};
  };
  /// An ACK, after the flight was brought up to date by it.
  struct Arrival {
    Position at;
    const AckTally& tally;
    SeqNum prior_una;
    uint32_t prior_in_flight = 0;
    /// SND.UNA moved.
    bool advanced = false;
    /// It has the form of a duplicate ACK (RFC 5681, section 2).
    bool duplicate = false;
    /// It echoes congestion (RFC 3168).
    bool ece = false;
    /// There is something new to send, and the peer's window takes it.
    bool more = false;
    /// From check_dsack().
    uint32_t duplicate_segments = 0;
    bool dsack = false, dsack_of_probe = false;
  };
  /// RFC 2883: takes the D-SACK off the front of `blocks` and draws its conclusions, before the rest goes to
  /// the flight. Fills in what Arrival says of it.
  std::span<const SackBlock> check_dsack(std::span<const SackBlock> blocks, SeqNum ack, uint32_t max_window,
                                         Arrival& arrival, RecoveryEvents& events);
  /// Returns the bytes delivered, as far as they are known without SACK too.
  uint32_t on_ack(const Arrival& arrival, RecoveryEvents& events);
  /// The retransmission timer has expired.
  void on_timeout(const Position& at, bool again, RecoveryEvents& events);
  /// The reordering timer has expired (RFC 8985, 6.3).
  void on_reordering_timer(const Position& at, RecoveryEvents& events);
  /// The path MTU has shrunk, and runs longer than `mss` are lost on the way: they are sent again, cwnd
  /// stays.
  void repair_too_long(const Position& at);
  /// The peer has echoed congestion: reduces cwnd once a window (RFC 3168, 6.1.2).
  void on_congestion_echo(const Position& at);

  /// cwnd has been or is being reduced since the peer was last told: whether CWR has to go with the next new
  /// data (RFC 3168, 6.1.2). Asked is told.
  bool take_reduced() { return std::exchange(untold_, false); }

  /// Something was sent.
  void on_sent(uint32_t bytes) {
    if (reducing()) reduction_.on_sent(bytes);
  }
  void on_retransmitted(uint32_t segments, Instant now);
  /// A loss probe was sent, which left SND.NXT at `nxt`; as a retransmission, or it was new data.
  void on_probe_sent(SeqNum nxt, bool retransmission);

  CongestionState state() const { return state_; }
  /// cwnd is being reduced.
  bool reducing() const { return state_ == CongestionState::cwr || state_ == CongestionState::recovery; }
  /// New data goes before what is lost: it is being found out whether that is lost at all (RFC 5682, 2.1,
  /// step 2b).
  bool holds_retransmissions() const { return hold_; }
  /// A loss probe may be scheduled: RFC 8985, 7.2.
  bool wants_probe(bool sack) const;
  bool probe_outstanding() const { return probe_end_.has_value(); }
  /// When to look at the flight again; kNever: no need.
  Instant reordering_deadline() const { return reordering_deadline_; }
  /// The head was SACKed and then not acknowledged: the time-out comes sooner (RFC 2018, section 8).
  bool reneged() const { return reneged_; }

  /// Bytes in flight: RFC 6675's pipe, or without SACK what duplicate ACKs leave of it.
  uint32_t in_flight() const {
    uint32_t pipe = flight_.in_flight();
    return pipe > reno_sacked_ ? pipe - reno_sacked_ : 0;
  }
  uint32_t duplicate_acks() const { return duplicate_acks_; }
  SeqNum recover() const { return recover_; }
  /// How far segments were seen to be displaced (Linux's tp->reordering), in segments; and how often.
  uint32_t reordering() const { return reordering_; }
  uint32_t reordering_seen() const { return rack_.reordering_seen(); }
  uint32_t dsack_duplicates() const { return dsack_duplicates_; }
  uint64_t retransmissions() const { return total_retransmitted_; }
  const Rack& rack() const { return rack_; }

 private:
  void enter(CongestionState state, SeqNum nxt);
  void reduce(CongestionCause cause, const Position& at);
  void enter_recovery(bool ece, const Position& at, RecoveryEvents& events);
  void end_reduction(const Position& at);
  void apply_reduction(uint32_t delivered, bool safe, bool force, uint32_t mss);
  void keep_open(const Position& at);
  void begin_undo(SeqNum una);
  bool original_arrived(const AckTally& tally) const;
  bool may_undo(const AckTally& tally) const;
  void undo(bool unmark, const Position& at);
  bool undo_by_dsack(const Position& at, RecoveryEvents& events);
  bool undo_partial(const Arrival& arrival, RecoveryEvents& events);
  bool undo_loss(const Arrival& arrival, bool by_frto, RecoveryEvents& events);
  void end_recovery(const Arrival& arrival, RecoveryEvents& events);
  void repair_timeout(const Arrival& arrival, RecoveryEvents& events);
  void find_losses(const Arrival& arrival);
  void find_by_time(const Position& at);
  void process(const Arrival& arrival, RecoveryEvents& events);
  void process_probe(const Arrival& arrival, RecoveryEvents& events);
  void note_reordering(SeqNum low, bool by_timestamp, const Position& at, RecoveryEvents& events);
  uint32_t count_without_sack(const Arrival& arrival, RecoveryEvents& events);
  bool anything_retransmitted() const;

  Flight& flight_;
  CongestionSlot& congestion_;
  RttEstimator& rtt_;
  Rules rules_;
  CongestionState state_ = CongestionState::open;
  /// RFC 6582's recover: SND.NXT when the state was entered (high_seq).
  SeqNum recover_;
  /// Without SACK: no recovery before SND.UNA is past this (RFC 6582, 3.2, step 2).
  std::optional<SeqNum> no_recovery_before_;
  RateReduction reduction_;
  /// The algorithm was told of congestion, and not yet of its end.
  bool reduced_ = false;
  bool untold_ = false;
  Rack rack_;
  Instant reordering_deadline_ = kNever;
  uint32_t reordering_ = 3;

  // What an undo needs: Linux's undo_marker, undo_retrans, retrans_stamp, prior_ssthresh.
  std::optional<SeqNum> undo_from_;
  /// Retransmissions that no D-SACK has told of yet; -1: nothing was retransmitted yet.
  int32_t undo_left_ = 0;
  std::optional<Instant> first_retransmitted_;
  bool undo_restores_ = false;

  bool frto_ = false;
  bool hold_ = false;
  bool reneged_ = false;
  /// SND.NXT when the loss probe was sent (TLP.end_seq), until it is known what became of it.
  std::optional<SeqNum> probe_end_;
  bool probe_retransmission_ = false;

  uint32_t duplicate_acks_ = 0;
  /// Without SACK: bytes that duplicate ACKs say have left the network.
  uint32_t reno_sacked_ = 0;
  uint32_t dsack_duplicates_ = 0;
  uint64_t total_retransmitted_ = 0;
};

}  // namespace ustack::tcp
