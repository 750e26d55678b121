// What is on its way: each transmission from SND.UNA to SND.NXT with what became of it (Linux's
// retransmission queue; RFC 6675's scoreboard; RFC 8985's transmit times).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "stack/base/intrusive_list.h"
#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/mem/slab.h"
#include "stack/tcp/delivery_rate.h"
#include "stack/tcp/options.h"

namespace ustack::tcp {

struct TransmissionOrder;  // tag

/// One run of sequence numbers that was sent at once: a segment, or the segments of a superframe.
struct SentSegment : ListHook<SentSegment>, ListHook<TransmissionOrder> {
  SeqNum seq;
  /// Sequence numbers, with the FIN's.
  uint32_t length = 0;
  /// Payload bytes of each segment that it was cut into, at least 1.
  uint32_t mss = 1;
  /// 1: never retransmitted. Stops counting at 255.
  uint8_t transmissions = 1;
  bool fin = false;
  /// The peer has it (SACK).
  bool sacked = false;
  /// It is believed to have left the network without arriving. Never true with `sacked`.
  bool lost = false;
  /// It was sent again and that is in flight: besides the original, unless that is `lost`.
  bool retransmitted = false;
  /// Of the last transmission.
  Instant sent_at{};
  uint64_t number = 0;
  RateStamp rate;

  void retire() {
    static_cast<ListHook<SentSegment>&>(*this).unlink();
    static_cast<ListHook<TransmissionOrder>&>(*this).unlink();
  }
  SeqNum end() const { return seq + length; }
  TransmitMark mark() const { return {number, end(), sent_at}; }
  /// To be sent again.
  bool awaiting() const { return lost && !retransmitted; }
  uint32_t segments() const {
    uint32_t bytes = length - (fin ? 1 : 0);
    return bytes <= mss ? 1 : (bytes + mss - 1) / mss;
  }
};

/// An ACK as the scoreboard is told of it, and what it finds.
struct AckTally {
  // --- given ---
  /// When the ACK came from the link.
  Instant arrived{};
  /// No round trip was shorter: an ACK of a retransmission that comes sooner is the original's.
  Duration least_rtt{0};
  /// When the timestamp that the ACK echoes was sent (start of its tick).
  std::optional<Instant> echoed{};
  /// RFC 6582's recover: SND.NXT when the loss was found.
  SeqNum recover{};
  /// The end of what was SACKed before this ACK, SND.UNA if nothing was (Linux's prior_fack).
  SeqNum highest{};

  // --- found ---
  /// Newly known to have arrived, cumulatively or by SACK.
  uint32_t bytes = 0;
  /// Some of it by SACK.
  bool sacked = false;
  /// When the first and the last of the segments were sent that arrived now and never were retransmitted.
  std::optional<Instant> first_sent{}, last_sent{};
  /// One of them was retransmitted, so that an RTT taken from its ACK would be ambiguous (Karn).
  bool retransmitted = false;
  /// One of them, sent before `recover`, never was.
  bool original = false;
  /// The first of them that was overtaken: never retransmitted, and below `highest`.
  std::optional<SeqNum> overtaken{};
  /// The latest transmission that surely arrived (RFC 8985, 6.2, step 2), and its round trip.
  std::optional<TransmitMark> newest{};
  Duration newest_rtt{0};
  RateCandidate rate{};
};

/// The list of SentSegments in sequence order with sums over it. Lock: the host's.
///
///     outstanding = SND.NXT - SND.UNA
///     in_flight   = outstanding - sacked - lost + retransmitted      (RFC 6675's pipe)
class Flight {
 public:
  explicit Flight(Slab<SentSegment>& pool) : pool_(pool) {}
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;
  ~Flight() { clear(); }

  /// New sequence numbers were sent, in segments of `mss`. False when memory is out; then nothing has
  /// changed.
  bool append(SeqNum seq, uint32_t length, bool fin, uint32_t mss, Instant now);
  /// `segment` (awaiting) was sent again.
  void mark_retransmitted(SentSegment& segment, uint32_t mss, Instant now);
  /// `segment` was sent again as a loss probe: it counts once, as before.
  void mark_probed(SentSegment& segment, Instant now);
  /// Cuts `segment` so that it keeps `length` sequence numbers, 0 < length < its own. False when memory is
  /// out.
  bool split(SentSegment& segment, uint32_t length);

  /// Everything before `una` has arrived.
  void acknowledge(SeqNum una, AckTally& tally);
  /// Blocks of a SACK option; what is not within una..nxt is ignored, and what covers a segment in part.
  /// Costs as many steps as there are segments between the blocks and what was looked at last.
  void sack(std::span<const SackBlock> blocks, AckTally& tally);
  /// Segments within a range that were sent more than once (for a D-SACK of what is not yet acknowledged).
  uint32_t repeated_segments(SeqNum start, SeqNum end);

  /// RFC 8985, 6.2, step 5: lost is what was sent before `newest` and longer than `patience` ago. Returns how
  /// long until the next such falls due, zero if there is none. O(1) for each segment found lost.
  Duration mark_lost_by_time(const TransmitMark& newest, Duration patience, Instant now);
  /// RFC 6675, section 4, IsLost: `threshold` segments above it were SACKed.
  void mark_lost_by_sack(uint32_t threshold);
  /// A retransmission is lost again if something sent later than `before` after it has arrived.
  void mark_lost_retransmissions(Instant before);
  /// The first segment of at most `mss` is lost (three duplicate ACKs, partial ACK: RFC 6582).
  void mark_head_lost(uint32_t mss);
  /// The retransmission timer expired: the head is lost and all that was not SACKed, retransmissions too; but
  /// for what was sent less than `patience` ago.
  void mark_timed_out(Duration patience, Instant now);
  /// Runs longer than `mss` are lost (the path MTU has shrunk: they were dropped on the way).
  void mark_longer_lost(uint32_t mss);
  /// Nothing is lost: the loss was spurious.
  void unmark_lost();
  /// The peer has taken its SACKs back (RFC 2018, section 8).
  void forget_sacks();

  /// The first that awaits its retransmission, nullptr if there is none.
  SentSegment* next_lost();
  SentSegment* front() { return segments_.front(); }
  /// The last segment, of at most `mss`, cut off a superframe; nullptr when empty or memory is out.
  SentSegment* last(uint32_t mss);
  bool empty() const { return segments_.empty(); }
  void clear();
  /// What it has of the pool (Slab::see).
  void show() {
    segments_.for_each([](SentSegment& segment) { Slab<SentSegment>::see(segment); });
  }

  uint32_t outstanding() const { return outstanding_.bytes; }
  uint32_t sacked() const { return sacked_.bytes; }
  uint32_t lost() const { return lost_.bytes; }
  uint32_t retransmitted() const { return retransmitted_.bytes; }
  uint32_t in_flight() const {
    return outstanding_.bytes - sacked_.bytes - lost_.bytes + retransmitted_.bytes;
  }
  /// The same in segments, as Linux counts (packets_out, sacked_out, lost_out, retrans_out).
  uint32_t outstanding_segments() const { return outstanding_.segments; }
  uint32_t sacked_segments() const { return sacked_.segments; }
  uint32_t lost_segments() const { return lost_.segments; }
  uint32_t retransmitted_segments() const { return retransmitted_.segments; }
  /// One past the last that was SACKed; `una` if none was.
  SeqNum highest_sacked(SeqNum una) const {
    return highest_sacked_ != nullptr ? highest_sacked_->end() : una;
  }
  /// Retransmissions found lost so far, in segments.
  uint64_t lost_retransmissions() const { return lost_retransmissions_; }
  /// How many runs there are.
  uint32_t count() const { return count_; }
  DeliveryRate& rate() { return rate_; }
  const DeliveryRate& rate() const { return rate_; }

 private:
  struct Volume {
    uint32_t bytes = 0, segments = 0;
  };
  /// While it lives a segment may be changed; the sums follow.
  class Change;
  void count(const SentSegment& segment, int sign);
  void mark_lost(SentSegment& segment);
  void mark_sacked(SentSegment& segment, AckTally& tally);
  void note(const SentSegment& segment, uint32_t bytes, bool cumulative, AckTally& tally);
  void drop(SentSegment& segment);
  SeqNum sack_range(SeqNum start, SeqNum end, AckTally& tally);
  void send_again(SentSegment& segment, Instant now);
  /// The first that ends after `seq`, searched from where the last search ended or from the nearer end.
  SentSegment* find(SeqNum seq);

  Slab<SentSegment>& pool_;
  IntrusiveList<SentSegment, SentSegment> segments_;
  /// What RACK waits for: neither SACKed nor awaiting, in the order of the last transmissions.
  IntrusiveList<SentSegment, TransmissionOrder> in_order_;
  SentSegment* hint_ = nullptr;                                   // where find() ended
  SentSegment* highest_sacked_ = nullptr;                         // no SACKed one comes after it
  SentSegment* lost_hint_ = nullptr;                              // none before it awaits a retransmission
  std::array<SackBlock, SegmentOptions::kMaxSackBlocks> seen_{};  // of the last SACK, as far as it was taken
  uint8_t seen_count_ = 0;
  Volume outstanding_, sacked_, lost_, retransmitted_;
  uint32_t awaiting_ = 0, count_ = 0;
  uint64_t lost_retransmissions_ = 0;
  uint64_t transmissions_ = 0;
  DeliveryRate rate_;
};

}  // namespace ustack::tcp
