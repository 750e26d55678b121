#include "stack/tcp/piece_queue.h"

#include <algorithm>
#include <cstring>

namespace ustack::tcp {

namespace {

/// The largest block that copies are collected in.
constexpr uint32_t kBulkBlock = BlockPool::kSizes[4];

/// Capacity of the next block for copying `need` bytes where `goal` >= need would be welcome: the least that
/// holds `need` if it is half filled by it, else the largest within `goal`.
uint32_t copy_block_size(uint32_t need, uint32_t goal) {
  goal = std::clamp(goal, BlockPool::kSizes.front(), kBulkBlock);
  uint32_t best = BlockPool::kSizes.front();
  for (uint32_t size : BlockPool::kSizes) {
    if (size > kBulkBlock) break;
    if (size <= goal) best = size;
    if (size >= need && size / 2 <= need) best = std::max(best, size);
    if (size >= need && size >= goal) break;
  }
  return best;
}

}  // namespace

uint32_t Piece::true_size() const { return slice.block->true_size() + static_cast<uint32_t>(sizeof(Piece)); }

bool PieceQueue::append(Slice&& slice) {
  if (slice.length == 0) return true;
  if (slice.length < slice.block->true_size() / 2 && append_copy(slice)) {
    slice = Slice();
    return true;
  }
  Piece* piece = pool_.allocate();
  if (piece == nullptr) return false;
  size_ += slice.length;
  piece->slice = std::move(slice);
  charge(*piece);
  pieces_.push_back(*piece);
  return true;
}

bool PieceQueue::append_copy(const Slice& slice) {
  uint32_t room = 0;
  uint32_t goal = 0;
  Piece* last = pieces_.back();
  if (last != nullptr && last->compacted) {
    uint32_t capacity = last->slice.block->capacity();
    room = std::min(capacity - last->slice.offset - last->slice.length, slice.length);
    // Small frames one after the other go into larger and larger blocks (each size is some four times the one
    // before), in proportion to what is queued.
    goal = std::min(5 * capacity, size_);
  }

  // Memory first: all or nothing.
  IntrusiveList<Piece> added;
  for (uint32_t need = slice.length - room; need > 0;) {
    Piece* piece = pool_.allocate();
    BlockRef block =
        piece == nullptr ? BlockRef() : pool_.blocks().allocate(copy_block_size(need, std::max(need, goal)));
    if (!block) {
      if (piece != nullptr) pool_.release(piece);
      while (Piece* unused = added.pop_front()) pool_.release(unused);
      return false;
    }
    uint32_t n = std::min(need, block->capacity());
    piece->slice = Slice{std::move(block), 0, n};
    piece->compacted = true;
    added.push_back(*piece);
    need -= n;
  }

  const std::byte* from = slice.data();
  if (room > 0) {
    std::memcpy(last->slice.data() + last->slice.length, from, room);
    last->slice.length += room;
    from += room;
  }
  for (Piece& piece : added) {
    std::memcpy(piece.slice.data(), from, piece.slice.length);
    from += piece.slice.length;
    charge(piece);
  }
  pieces_.splice_back(added);
  size_ += slice.length;
  return true;
}

void PieceQueue::splice_back(PieceQueue& other) {
  pieces_.splice_back(other.pieces_);
  size_ += std::exchange(other.size_, 0);
  true_size_ += std::exchange(other.true_size_, 0);
}

void PieceQueue::trim_front(uint32_t n) {
  size_ -= n;
  while (n > 0) {
    Piece* piece = pieces_.front();
    if (piece->slice.length > n) {
      piece->slice.trim_front(n);
      return;
    }
    n -= piece->slice.length;
    drop(piece);
  }
}

uint32_t PieceQueue::drop_last() {
  Piece* piece = pieces_.back();
  if (piece == nullptr) return 0;
  uint32_t n = piece->slice.length;
  size_ -= n;
  drop(piece);
  return n;
}

void PieceQueue::clear() {
  while (Piece* piece = pieces_.front()) drop(piece);
  size_ = 0;
}

void PieceQueue::drop(Piece* piece) {
  true_size_ -= piece->true_size();
  pool_.blocks().uncharge(piece->true_size());
  pool_.release(piece);
}

}  // namespace ustack::tcp
