// What is on its way: each transmission from SND.UNA to SND.NXT with what became of it (Linux's
// retransmission queue; RFC 6675's scoreboard).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "stack/base/intrusive_list.h"
#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/mem/slab.h"
#include "stack/tcp/options.h"

namespace ustack::tcp {

struct RetransmissionOrder;  // tag

/// One run of sequence numbers that was sent at once: a segment, or the segments of a superframe.
struct SentSegment : ListHook<SentSegment>, ListHook<RetransmissionOrder> {
  SeqNum seq;
  /// Sequence numbers, with the FIN's.
  uint32_t length = 0;
  /// Of the last transmission.
  Instant sent_at{};
  /// 1: never retransmitted. Stops counting at 255.
  uint8_t transmissions = 1;
  bool fin = false;
  /// The peer has it (SACK).
  bool sacked = false;
  /// It is believed to have left the network without arriving. Never true with `sacked`.
  bool lost = false;
  /// It is lost, and was sent again.
  bool retransmitted = false;

  SeqNum end() const { return seq + length; }
};

/// The list of SentSegments in sequence order with sums over it, all in sequence numbers. Lock: the host's.
///
///     outstanding = SND.NXT - SND.UNA
///     in_flight   = outstanding - sacked - lost + retransmitted      (RFC 6675's pipe)
class Flight {
 public:
  explicit Flight(Slab<SentSegment>& pool) : pool_(pool) {}
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;
  ~Flight() { clear(); }

  /// New sequence numbers were sent. False when memory is out; then nothing has changed.
  bool append(SeqNum seq, uint32_t length, bool fin, Instant now);
  /// `segment` (lost, not retransmitted) was sent again.
  void mark_retransmitted(SentSegment& segment, Instant now);
  /// Cuts `segment` so that it keeps `length` sequence numbers, 0 < length < its own. False when memory is
  /// out.
  bool split(SentSegment& segment, uint32_t length);

  /// What an ACK has brought.
  struct Delivered {
    /// Newly known to have arrived, cumulatively or by SACK.
    uint32_t bytes = 0;
    /// When the first and the last of the segments were sent that arrived now and never were retransmitted.
    std::optional<Instant> first_sent, last_sent;
    /// One of them was retransmitted, so that an RTT taken from its ACK would be ambiguous (Karn).
    bool retransmitted = false;
    /// The latest transmission among them, retransmissions too.
    Instant newest{};
  };
  /// Everything before `una` has arrived.
  void acknowledge(SeqNum una, Delivered& delivered);
  /// Blocks of a SACK option; what is not within una..nxt is ignored.
  void sack(std::span<const SackBlock> blocks, Delivered& delivered);

  /// RFC 6675, section 4, IsLost: three segments (of `mss`), or three runs, above it were SACKed. Returns how
  /// much is newly lost.
  uint32_t mark_lost_by_sack(uint32_t mss);
  /// A retransmission is lost again if something sent later than `before` after it has arrived. Returns how
  /// much is newly lost.
  uint32_t mark_lost_retransmissions(Instant before);
  /// The first segment of at most `mss` is lost (three duplicate ACKs, partial ACK: RFC 6582).
  void mark_head_lost(uint32_t mss);
  /// All that was not SACKed is lost, retransmissions too (the retransmission timer expired).
  void mark_all_lost();
  /// Runs longer than `mss` are lost (the path MTU has shrunk: they were dropped on the way).
  void mark_longer_lost(uint32_t mss);
  /// The peer has taken its SACKs back (RFC 2018, section 8).
  void forget_sacks();

  /// The first that is lost and not retransmitted, nullptr if there is none.
  SentSegment* next_lost();
  SentSegment* front() { return segments_.front(); }
  bool empty() const { return segments_.empty(); }
  void clear();

  uint32_t outstanding() const { return outstanding_; }
  uint32_t sacked() const { return sacked_; }
  uint32_t lost() const { return lost_; }
  uint32_t retransmitted() const { return retransmitted_; }
  uint32_t in_flight() const { return outstanding_ - sacked_ - lost_ + retransmitted_; }
  /// How many runs there are (Linux's unacked, roughly).
  uint32_t count() const { return count_; }

 private:
  void mark_lost(SentSegment& segment);
  void mark_sacked(SentSegment& segment, Delivered& delivered);
  void forget_retransmission(SentSegment& segment);
  void note(const SentSegment& segment, Delivered& delivered);
  void drop(SentSegment& segment);
  void sack_range(SeqNum start, SeqNum end, Delivered& delivered);
  /// The first that ends after `seq`, searched from where the last search ended.
  SentSegment* find(SeqNum seq);

  Slab<SentSegment>& pool_;
  IntrusiveList<SentSegment, SentSegment> segments_;
  IntrusiveList<SentSegment, RetransmissionOrder> retransmissions_;  // in flight, oldest first
  SentSegment* hint_ = nullptr;                                      // where find() ended
  SentSegment* highest_sacked_ = nullptr;                            // no SACKed one comes after it
  SentSegment* lost_hint_ = nullptr;  // none before it is lost and not retransmitted
  std::array<SackBlock, SegmentOptions::kMaxSackBlocks> seen_{};  // blocks of the last SACK
  uint8_t seen_count_ = 0;
  uint32_t outstanding_ = 0, sacked_ = 0, lost_ = 0, retransmitted_ = 0, count_ = 0;
};

}  // namespace ustack::tcp
