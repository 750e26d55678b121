#include "stack/tcp/send_buffer.h"

#include <algorithm>
#include <atomic>
#include <new>

namespace ustack::tcp {

SendBuffer::~SendBuffer() {
  while (Piece* piece = reserved_pieces_.front()) free_piece(piece);
  while (Piece* piece = pieces_.front()) free_piece(piece);
}

/// The smallest block for `goal` bytes, or the largest, but none that takes more than `room` where a smaller
/// one can be had.
uint32_t SendBuffer::block_size(size_t goal, uint32_t room) {
  size_t i = 0;
  while (i + 1 < BlockPool::kSizes.size() && BlockPool::kSizes[i] < goal) ++i;
  while (i > 0 && BlockPool::kSizes[i] + sizeof(Block) > room) --i;
  return BlockPool::kSizes[i];
}

uint32_t SendBuffer::next_block_size(size_t want, uint32_t limit) const {
  // At least as much as is queued, so that a queue of n bytes has O(log n) small pieces however small the
  // writes were; a lone small write takes a small block.
  size_t goal = std::min<size_t>(std::max<size_t>(want, size()) + sizeof(Piece), kBulkBlock);
  return block_size(goal, limit - true_size_);
}

SendBuffer::Piece* SendBuffer::new_piece(uint32_t block_size) {
  static_assert(sizeof(Block) % alignof(Piece) == 0 && alignof(Piece) <= alignof(Block));
  BlockRef block = blocks_.allocate(block_size);
  if (!block) return nullptr;
  auto* piece = new (block->data()) Piece;
  piece->begin = piece->end = sizeof(Piece);
  true_size_ += block->true_size();
  blocks_.charge(block->true_size());
  piece->block = std::move(block);
  return piece;
}

void SendBuffer::free_piece(Piece* piece) {
  if (piece == newest_) newest_ = nullptr;
  if (piece == recent_) recent_ = nullptr;
  // What is in a list has its block, also for who mends after a kill.
  piece->unlink();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  // The piece lies in the block that it holds.
  BlockRef block = std::move(piece->block);
  piece->~Piece();
  true_size_ -= block->true_size();
  blocks_.uncharge(block->true_size());
}

Extents SendBuffer::reserve(size_t want, uint32_t limit) {
  Extents room;
  if (reserved_ || want == 0) return room;
  if (Piece* tail = pieces_.back();
      tail != nullptr && tail->end < tail->block->capacity() && !tail->block->lent()) {
    tail_room_ = static_cast<uint32_t>(std::min<size_t>(want, tail->block->capacity() - tail->end));
    room.add({tail->block->data() + tail->end, tail_room_});
  }
  while (room.bytes < want && !room.full()) {
    if (true_size_ >= limit) break;
    Piece* piece = new_piece(next_block_size(want - room.bytes, limit));
    if (piece == nullptr) break;
    size_t n = std::min<size_t>(want - room.bytes, piece->block->capacity() - piece->begin);
    room.add({piece->block->data() + piece->begin, n});
    reserved_pieces_.push_back(*piece);
  }
  reserved_ = room.count > 0;
  return room;
}

uint32_t SendBuffer::commit(size_t n) {
  if (!reserved_) return 0;
  reserved_ = false;
  if (cleared_) n = 0;
  size_t left = n;
  if (tail_room_ > 0) {
    auto take = static_cast<uint32_t>(std::min<size_t>(left, tail_room_));
    pieces_.back()->end += take;
    left -= take;
    tail_room_ = 0;
  }
  while (Piece* piece = reserved_pieces_.front()) {
    if (left == 0) {
      free_piece(piece);
      continue;
    }
    auto take = static_cast<uint32_t>(std::min<size_t>(left, piece->block->capacity() - piece->begin));
    piece->start = tail_position_ + (n - left);
    piece->end = piece->begin + take;
    left -= take;
    piece->unlink();
    pieces_.push_back(*piece);
  }
  tail_position_ += n - left;
  cleared_ = false;
  drop_acknowledged();
  return static_cast<uint32_t>(n - left);
}

size_t SendBuffer::lend(Bytes from, uint32_t limit, uint64_t lender) {
  constexpr uint32_t kOverhead = sizeof(Piece) + Block::kLoanRoom;
  size_t done = 0;
  while (done < from.size() && true_size_ < limit) {
    const size_t left = from.size() - done;
    const uint32_t room = limit - true_size_;
    if (done > 0 && room < std::min<size_t>(left, kLeastLoan)) break;
    // The block's memory is touched at both ends only.
    Piece* piece = new_piece(block_size(left + kOverhead, std::max<uint32_t>(room, kLeastLoan)));
    if (piece == nullptr) break;
    const auto n = static_cast<uint32_t>(std::min<size_t>(left, piece->block->capacity() - kOverhead));
    piece->start = tail_position_;
    piece->end = piece->begin + n;
    piece->block->lend(lender, from.data() + done, piece->begin, piece->end);
    pieces_.push_back(*piece);
    tail_position_ += n;
    done += n;
  }
  return done;
}

/// False: the piece's bytes can't be had by this process.
bool SendBuffer::readable(Piece& piece) {
  if (!piece.block->lent()) [[likely]]
    return true;
  const Settlement result = piece.block->readable();
  lost_ |= result == Settlement::gone;
  copied_ |= !piece.block->lent();
  return result == Settlement::done;
}

void SendBuffer::settle() {
  // What can't be had isn't lost yet: the peer may have it.
  for (Piece& piece : pieces_)
    if (piece.block->lent()) copied_ |= piece.block->settle() == Settlement::done;
}

SendBuffer::Piece* SendBuffer::find(uint64_t position) {
  auto distance = [position](const Piece* piece) {
    return piece->start > position ? piece->start - position : position - piece->start;
  };
  Piece* best = pieces_.front();
  for (Piece* candidate : {pieces_.back(), newest_, recent_})
    if (candidate != nullptr && distance(candidate) < distance(best)) best = candidate;
  while (best->start > position) best = pieces_.previous(*best);
  while (position - best->start >= best->end - best->begin) best = pieces_.next(*best);
  return best;
}

uint32_t SendBuffer::slices(uint32_t offset, uint32_t length, TxFrame& frame) {
  if (length == 0) return 0;
  uint64_t position = head_position_ + offset;
  Piece* piece = find(position);
  uint32_t done = 0;
  for (;;) {
    if (!readable(*piece)) break;
    auto skip = static_cast<uint32_t>(position + done - piece->start);
    uint32_t n = std::min(length - done, piece->end - piece->begin - skip);
    if (!frame.append(Slice{piece->block, piece->begin + skip, n})) break;
    done += n;
    if (done == length) break;
    piece = pieces_.next(*piece);
  }
  Piece*& cursor = newest_ == nullptr || piece->start >= newest_->start ? newest_ : recent_;
  cursor = piece;
  return done;
}

void SendBuffer::acknowledge(uint32_t n) {
  head_position_ += n;
  drop_acknowledged();
}

void SendBuffer::drop_acknowledged() {
  while (Piece* piece = pieces_.front()) {
    if (piece->start + (piece->end - piece->begin) > head_position_) return;
    // Somebody is filling its room.
    if (tail_room_ > 0 && piece == pieces_.back()) return;
    free_piece(piece);
  }
}

void SendBuffer::clear() {
  cleared_ = reserved_;
  copied_ = lost_ = false;
  head_position_ = tail_position_;
  drop_acknowledged();
}

}  // namespace ustack::tcp
