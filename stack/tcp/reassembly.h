// Segments that came before their turn (RFC 9293, 3.10.7.4: they are held), and what SACK says about them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "stack/base/intrusive_list.h"
#include "stack/base/seqnum.h"
#include "stack/mem/block.h"
#include "stack/tcp/options.h"
#include "stack/tcp/piece_queue.h"
#include "stack/tcp/receive_buffer.h"

namespace ustack::tcp {

/// Ranges of sequence numbers beyond RCV.NXT with their bytes. Where two segments overlap the first to arrive
/// counts. A FIN takes a sequence number like a byte. Finding a range starts at the last insertion and both
/// ends, so the usual patterns are O(1). Lock: the host's.
class Reassembly {
 public:
  explicit Reassembly(PiecePool& pool) : pool_(pool) {}
  Reassembly(const Reassembly&) = delete;
  Reassembly& operator=(const Reassembly&) = delete;
  ~Reassembly() { clear(); }

  /// Bounds of what is held: bytes of true size, and ranges (holes).
  struct Limits {
    uint32_t true_size;
    uint32_t ranges = 1024;
  };

  struct Inserted {
    /// Sequence numbers that were new.
    uint32_t added = 0;
    /// Was refused in part or whole for want of memory or room.
    bool dropped = false;
    /// Ranges behind this segment were given up to make room for it (Linux's tcp_prune_ofo_queue).
    bool pruned = false;
    /// The first part that had arrived before, for D-SACK (RFC 2883).
    std::optional<SackBlock> duplicate;
  };
  /// Holds `data` at `seq`, then a FIN if `fin`. All of it is in the receive window and seq > RCV.NXT (or
  /// equal, when it could not be taken in order).
  Inserted insert(SeqNum seq, Slice&& data, bool fin, const Limits& limits);

  struct Extracted {
    uint32_t bytes = 0;
    /// The FIN's turn has come: RCV.NXT advances by bytes + 1.
    bool fin = false;
  };
  /// Moves what is next from rcv_nxt on to `buffer`, and forgets what rcv_nxt has passed. After a FIN nothing
  /// is left. Cannot fail.
  Extracted extract(SeqNum rcv_nxt, ReceiveBuffer& buffer);

  /// The ranges held, the one that has last grown first (RFC 2018, section 4). Returns how many were written.
  uint8_t sack_blocks(std::span<SackBlock> out) const;

  void clear();
  bool empty() const { return range_count_ == 0; }
  uint32_t range_count() const { return range_count_; }
  /// Where the last range ends, if there is one.
  std::optional<SeqNum> end() const { return empty() ? std::nullopt : std::optional(ranges_.back()->end); }
  /// Bytes held.
  uint32_t size() const { return size_; }
  uint32_t true_size() const { return true_size_; }
  /// The sequence number of a FIN that is held.
  std::optional<SeqNum> fin_seq() const { return fin_; }
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    ranges_.for_each([&](Range& range) { range.data.show(census); });
  }

 private:
  struct Recency;
  struct Range : ListHook<Range>, ListHook<Recency> {
    explicit Range(PiecePool& pool) : data(pool) {}
    SeqNum start, end;
    PieceQueue data;
  };

  Range* find_last_starting_at_or_before(SeqNum seq);
  Range* new_range(Range* after, SeqNum seq, const Limits& limits, Inserted& result);
  bool holds_fin(const Range& range) const;
  /// Frees a range and what it holds.
  void drop(Range* range);
  bool make_room(SeqNum seq, uint32_t wanted, const Limits& limits, Inserted& result);
  bool add(Range& range, Slice&& data, bool fin, const Limits& limits, Inserted& result);

  PiecePool& pool_;
  IntrusiveList<Range, Range> ranges_;            // by sequence number, neither overlapping nor touching
  mutable IntrusiveList<Range, Recency> recent_;  // the last to grow first
  Range* hint_ = nullptr;
  std::optional<SeqNum> fin_;
  uint32_t range_count_ = 0;
  uint32_t size_ = 0;
  uint32_t true_size_ = 0;
};

}  // namespace ustack::tcp
