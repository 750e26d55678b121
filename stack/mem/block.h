// Bytes that are shared, not copied: a Block is a reference-counted chunk of the arena, a Slice a part of
// one.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "stack/base/bytes.h"
#include "stack/base/intrusive_list.h"
#include "stack/mem/arena.h"
#include "stack/mem/loan.h"

namespace ustack {

class BlockPool;

/// A chunk of bytes with a reference count (not atomic: the host's lock protects it). Lives in a BlockPool.
/// It may stand for bytes that a program has lent: then data() has them only once it is settled.
class Block : public ListHook<> {
 public:
  std::byte* data() { return reinterpret_cast<std::byte*>(this + 1); }
  const std::byte* data() const { return reinterpret_cast<const std::byte*>(this + 1); }
  uint32_t capacity() const { return capacity_; }
  /// What this block really takes of the machine's memory: what buffer accounting charges (skb->truesize).
  uint32_t true_size() const { return capacity_ + static_cast<uint32_t>(sizeof(Block)); }
  uint32_t references() const { return references_; }

  /// What a loan takes of the block's bytes, at their end.
  static constexpr uint32_t kLoanRoom = sizeof(Loan);
  /// The bytes [begin, end), end <= capacity() - kLoanRoom, are lent: they are at `from` in the memory of
  /// `lender`. Not of a block that somebody else refers to.
  void lend(uint64_t lender, const std::byte* from, uint32_t begin, uint32_t end);
  /// It isn't settled.
  bool lent() const { return lent_.load(std::memory_order_acquire) != Lent::no; }
  /// Fills in what is lent. Any thread that has a reference, with or without the lock.
  Settlement settle();
  /// Where this process reads its bytes from offset n on: here, or in its own memory where it is the lender.
  /// nullptr: they can't be had. Who reads the program's memory must know what to do about a fault.
  const std::byte* source(uint32_t n);
  /// The same for who only wants to know whether it can be done.
  Settlement readable();

 private:
  friend class BlockPool;
  friend class BlockRef;
  Block(BlockPool& pool, uint32_t capacity, uint8_t size_class)
      : pool_(&pool), capacity_(capacity), size_class_(size_class) {}
  union {
    BlockPool* pool_;
    Block* next_free_;
  };
  uint32_t references_ = 1;
  uint32_t capacity_;
  enum class Lent : uint8_t { no, yes, gone };
  bool lent_by_me();
  Loan& loan() { return *reinterpret_cast<Loan*>(data() + capacity_ - kLoanRoom); }

  uint32_t seen_ = 0;
  uint8_t size_class_;
  std::atomic<Lent> lent_{Lent::no};
};

/// An owning reference to a Block. Copying counts up; the last one to go gives the block back to its pool.
class BlockRef {
 public:
  BlockRef() = default;
  /// Takes over the reference that `block` was created with.
  static BlockRef adopt(Block* block) {
    BlockRef ref;
    ref.block_ = block;
    return ref;
  }
  BlockRef(const BlockRef& other) : block_(other.block_) {
    if (block_ != nullptr) ++block_->references_;
  }
  BlockRef(BlockRef&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  BlockRef& operator=(BlockRef other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~BlockRef() { reset(); }

  inline void reset();
  explicit operator bool() const { return block_ != nullptr; }
  Block* get() const { return block_; }
  Block* operator->() const { return block_; }
  /// Nobody else holds it, so that it may be written.
  bool unique() const { return block_ != nullptr && block_->references_ == 1; }

 private:
  Block* block_ = nullptr;
};

/// Part of a block: what segments, receive queues and frames are made of.
struct Slice {
  BlockRef block;
  uint32_t offset = 0;
  uint32_t length = 0;

  std::byte* data() const { return block->data() + offset; }
  /// Block::source().
  const std::byte* source() const { return block->lent() ? block->source(offset) : data(); }
  Bytes bytes() const { return block ? Bytes(data(), length) : Bytes(); }
  /// Drops the first n bytes, n <= length.
  void trim_front(uint32_t n) {
    offset += n;
    length -= n;
  }
  /// Keeps the first n bytes, n <= length.
  void truncate(uint32_t n) { length = n; }
  Slice sub(uint32_t from, uint32_t count) const { return Slice{block, offset + from, count}; }
};

/// Blocks in a few sizes, each with a last-in first-out free list over the arena. The largest holds a 64 KB
/// superframe with its headers. Lock: the host's.
class BlockPool {
 public:
  /// Sizes offered, in bytes of payload. 2 KB holds an Ethernet frame, 16 KB a bulk piece of a send buffer.
  static constexpr std::array<uint32_t, 6> kSizes{256 - sizeof(Block),       1024 - sizeof(Block),
                                                  2048 - sizeof(Block),      4096 - sizeof(Block),
                                                  16 * 1024 - sizeof(Block), 68 * 1024 - sizeof(Block)};
  static constexpr uint32_t kLargest = kSizes.back();

  explicit BlockPool(Arena& arena) : arena_(arena) {}
  /// By whom lent bytes are read; without one none may be lent. It must be there as long as the pool.
  void set_loan_reader(const LoanReader& reader) { loans_ = &reader; }
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool();

  /// A block of at least `bytes` (at most kLargest), or an empty reference when memory is out.
  BlockRef allocate(uint32_t bytes);
  /// Blocks that are referenced now; 0 is what leak tests look for.
  uint64_t live() const { return live_; }
  /// Their true size together, in bytes.
  uint64_t live_bytes() const { return live_bytes_; }

  /// What sockets keep in their queues counts here, by true size in bytes (Linux's sk_memory_allocated).
  void charge(uint32_t bytes) { charged_ += bytes; }
  void uncharge(uint32_t bytes) { charged_ -= bytes; }
  uint64_t charged() const { return charged_; }
  /// After a process was killed while it changed a queue.
  void recount(uint64_t charged) { charged_ = charged; }

  // --- a census (stack/census.h) ---
  void begin_census();
  /// Somebody has this reference.
  static void see(const BlockRef& block) { see(block.get()); }
  static void see(Block* block) {
    if (block != nullptr) ++block->seen_;
  }
  /// Blocks whose references are not as many as were seen.
  uint64_t miscounted();
  /// References are as many as were seen; blocks that nobody has are free. Returns how many of these were
  /// not.
  uint64_t end_census();

 private:
  friend class Block;
  friend class BlockRef;
  void give_back(Block* block);
  void keep_free(Block* block);
  void release(Block* block);

  Arena& arena_;
  const LoanReader* loans_ = nullptr;
  /// All that were had from the arena, free or not.
  IntrusiveList<Block> all_;
  std::array<Block*, kSizes.size()> free_{};
  /// Free blocks kept of a size; more go back to the arena.
  std::array<uint32_t, kSizes.size()> free_count_{};
  uint64_t live_ = 0;
  uint64_t live_bytes_ = 0;
  uint64_t charged_ = 0;
};

inline void BlockRef::reset() {
  Block* block = std::exchange(block_, nullptr);
  if (block != nullptr && --block->references_ == 0) block->pool_->give_back(block);
}

}  // namespace ustack
