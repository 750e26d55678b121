// The bytes that a program has sent and the peer has not acknowledged: from SND.UNA to the end.
#pragma once

#include <cstdint>
#include <utility>

#include "stack/base/intrusive_list.h"
#include "stack/census.h"
#include "stack/mem/block.h"
#include "stack/net/frame.h"
#include "stack/socket/socket.h"

namespace ustack::tcp {

/// A queue of bytes in blocks. Written at the tail in two steps (reserve, commit), read anywhere as slices
/// that frames share, dropped at the head. Small writes fill up the tail block, so that memory and the number
/// of pieces stay in proportion to the bytes. Lock: the host's; room that is reserved may be filled without
/// it.
///
///      head                                      tail
///       |<------------- size() ---------------->|<-- reserved -->|
///       [..piece..][......piece......][..piece..     ][ new block ]
class SendBuffer {
 public:
  explicit SendBuffer(BlockPool& blocks) : blocks_(blocks) {}
  SendBuffer(const SendBuffer&) = delete;
  SendBuffer& operator=(const SendBuffer&) = delete;
  /// Also ends a reservation.
  ~SendBuffer();

  /// Room for up to `want` bytes at the tail, in the order in which it will be sent. `limit` is SO_SNDBUF in
  /// bytes of true size: room that the tail block still has is given in any case, new blocks only while
  /// true_size() < limit. No room (bytes == 0, no reservation) when the limit is reached or memory is out.
  /// There is one reservation at a time; its memory is valid until commit(), also after clear().
  Extents reserve(size_t want, uint32_t limit);
  bool reserved() const { return reserved_; }
  /// Queues the first n bytes of the room, n <= reserve()'s bytes, and ends the reservation; n may be 0.
  /// Returns how many were queued: 0 when the buffer was cleared meanwhile.
  uint32_t commit(size_t n);

  /// Queues bytes of the program's, in the memory of `lender`, without copying them (stack/mem/loan.h): they
  /// must stay as they are until they are acknowledged or settled. Returns how many, from the first on: 0
  /// when the limit is reached or memory is out. Not while there is a reservation.
  size_t lend(Bytes from, uint32_t limit, uint64_t lender);
  /// Copies what was lent and is queued still: the lender is about to end, or the program has closed.
  void settle();
  /// Some of what was lent had to be copied since the last call.
  bool take_copied() { return std::exchange(copied_, false); }
  /// Bytes that slices() was asked for can't be had any more (Settlement::gone): the connection has lost
  /// them.
  bool lost() const { return lost_; }

  /// Appends [offset, offset + length) to `frame` as slices, offset counted from the head and both within
  /// size(). Returns how many bytes went in, less than length if the frame's slices ran out or lent bytes
  /// can't be had. O(1) for reading
  /// on where the last call ended and near both ends.
  uint32_t slices(uint32_t offset, uint32_t length, TxFrame& frame);
  /// Drops n bytes at the head, n <= size(). Slices taken before stay valid.
  void acknowledge(uint32_t n);
  /// Drops all bytes (reset). A reservation stays valid, but what is committed is lost.
  void clear();

  /// Bytes queued.
  uint32_t size() const { return static_cast<uint32_t>(tail_position_ - head_position_); }
  bool empty() const { return tail_position_ == head_position_; }
  /// What the queued bytes and a reservation take of memory (Linux's sk_wmem_queued).
  uint32_t true_size() const { return true_size_; }
  /// Linux's rule for EPOLLOUT (sk_stream_is_writeable): at least a third of the limit is free.
  bool writable(uint32_t limit) const { return true_size_ + true_size_ / 2 <= limit; }
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    auto see = [&](Piece& piece) { census.see(piece.block); };
    pieces_.for_each(see);
    reserved_pieces_.for_each(see);
  }

 private:
  /// Lies at the start of its block; the block's bytes after it are the queue's.
  struct Piece : ListHook<> {
    BlockRef block;
    uint64_t start = 0;  // stream position of its first byte
    uint32_t begin = 0;  // its bytes in the block: [begin, end)
    uint32_t end = 0;
  };
  static constexpr uint32_t kBulkBlock = BlockPool::kSizes[4];
  /// Fewer bytes than that aren't lent behind others: a later call has room for more.
  static constexpr uint32_t kLeastLoan = 4096;

  Piece* new_piece(uint32_t block_size);
  void free_piece(Piece* piece);
  void drop_acknowledged();
  bool readable(Piece& piece);
  Piece* find(uint64_t position);
  static uint32_t block_size(size_t goal, uint32_t room);
  uint32_t next_block_size(size_t want, uint32_t limit) const;

  BlockPool& blocks_;
  IntrusiveList<Piece> pieces_;
  IntrusiveList<Piece> reserved_pieces_;  // room not committed yet, beyond that in the tail piece
  uint64_t head_position_ = 0;            // stream position of SND.UNA
  uint64_t tail_position_ = 0;
  uint32_t true_size_ = 0;
  uint32_t tail_room_ = 0;  // bytes reserved in the tail piece
  bool reserved_ = false;
  bool copied_ = false, lost_ = false;
  bool cleared_ = false;     // by clear() since reserve()
  Piece* newest_ = nullptr;  // holds the highest position that slices() has read: SND.NXT
  Piece* recent_ = nullptr;  // where slices() was last: retransmissions
};

}  // namespace ustack::tcp
