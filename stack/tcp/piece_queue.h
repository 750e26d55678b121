// Received bytes in a row: slices of frames, or copies of them where a frame was small for its block.
#pragma once

#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/census.h"
#include "stack/mem/arena.h"
#include "stack/mem/block.h"
#include "stack/mem/slab.h"

namespace ustack::tcp {

/// A run of received bytes in one block.
struct Piece : ListHook<> {
  Slice slice;
  /// The block is a copy made by a PieceQueue: its room behind the slice may be filled.
  bool compacted = false;
  uint32_t true_size() const;
  void retire() { unlink(); }
};

/// Makes and takes back Pieces; one for all connections. Lock: the host's.
class PiecePool {
 public:
  PiecePool(Arena& arena, BlockPool& blocks) : arena_(arena), blocks_(blocks), pieces_(arena) {}
  Arena& arena() { return arena_; }
  BlockPool& blocks() { return blocks_; }
  /// An empty piece; nullptr when memory is out.
  Piece* allocate() { return pieces_.create(); }
  /// Unlinks it and drops its reference.
  void release(Piece* piece) { pieces_.destroy(piece); }
  uint64_t live() const { return pieces_.live(); }
  Slab<Piece>& slab() { return pieces_; }

 private:
  Arena& arena_;
  BlockPool& blocks_;
  Slab<Piece> pieces_;
};

/// Bytes in a row, appended at the end and taken from the front. Keeps a slice as it is when it fills at
/// least half of its block; copies a smaller one behind the last, so that at most about half of true_size()
/// is air. Bytes never move once they are in.
class PieceQueue {
 public:
  explicit PieceQueue(PiecePool& pool) : pool_(pool) {}
  PieceQueue(const PieceQueue&) = delete;
  PieceQueue& operator=(const PieceQueue&) = delete;
  ~PieceQueue() { clear(); }

  /// False when memory is out: then nothing has changed, and `slice` is untouched. An empty slice is ignored.
  bool append(Slice&& slice);
  /// Moves all of `other` (of the same pool) to the end.
  void splice_back(PieceQueue& other);
  /// Drops n bytes at the front, n <= size().
  void trim_front(uint32_t n);
  /// Drops the last piece and returns how many bytes it had, 0 if there is none.
  uint32_t drop_last();
  void clear();

  bool empty() const { return size_ == 0; }
  uint32_t size() const { return size_; }
  /// What it takes of memory: the blocks whole, and the pieces themselves.
  uint32_t true_size() const { return true_size_; }
  IntrusiveList<Piece>& pieces() { return pieces_; }
  PiecePool& pool() { return pool_; }
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    pieces_.for_each([&](Piece& piece) {
      Slab<Piece>::see(piece);
      census.see(piece.slice);
    });
  }

 private:
  bool append_copy(const Slice& slice);
  void charge(const Piece& piece) {
    true_size_ += piece.true_size();
    pool_.blocks().charge(piece.true_size());
  }
  void drop(Piece* piece);

  PiecePool& pool_;
  IntrusiveList<Piece> pieces_;
  uint32_t size_ = 0;
  uint32_t true_size_ = 0;
};

}  // namespace ustack::tcp
