// Bytes in order that the program has not read yet.
#pragma once

#include <cstdint>

#include "stack/socket/socket.h"
#include "stack/tcp/piece_queue.h"

namespace ustack::tcp {

/// Lock: the host's; bytes that are viewed may be read without it.
class ReceiveBuffer {
 public:
  explicit ReceiveBuffer(PiecePool& pool) : queue_(pool), held_(pool) {}

  /// Appends what came in order. False when memory is out: drop the segment, it comes again.
  bool append(Slice&& payload) { return queue_.append(std::move(payload)); }
  /// Moves all of `other` to the end; cannot fail (what Reassembly::extract uses).
  void append(PieceQueue& other) { queue_.splice_back(other); }

  /// The next bytes, at most `want`, skipping `offset` of them; up to Extents::kMax runs. bytes == 0 and no
  /// view if there are none. One view at a time; what it shows is valid until consume(), also after clear().
  Extents view(size_t want, size_t offset);
  bool viewed() const { return viewed_; }
  /// Takes n bytes off the front (0 after a peek) and ends the view; without a view it just takes them.
  /// Returns how many were taken: 0 when the buffer was cleared meanwhile.
  uint32_t consume(size_t n);
  /// Drops all (reset, or SO_RCVBUF given up at close).
  void clear();

  uint32_t size() const { return queue_.size(); }
  bool empty() const { return queue_.empty(); }
  /// What it takes of memory (Linux's sk_rmem_alloc). Bytes held for a view after clear() no longer count.
  uint32_t true_size() const { return queue_.true_size(); }
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    queue_.show(census);
    held_.show(census);
  }

 private:
  PieceQueue queue_;
  PieceQueue held_;  // what clear() dropped during a view
  bool viewed_ = false;
  bool cleared_ = false;
};

}  // namespace ustack::tcp
