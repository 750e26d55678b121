#include "stack/mem/block.h"

#include <new>

namespace ustack {

namespace {
/// Free blocks of one size that stay out of the arena: enough for a window's worth of churn.
constexpr uint32_t kKeepFree = 64;
}  // namespace

void Block::lend(uint64_t lender, const std::byte* from, uint32_t begin, uint32_t end) {
  new (&loan()) Loan{reinterpret_cast<uintptr_t>(from) - begin, lender, begin, end};
  lent_.store(Lent::yes, std::memory_order_release);
}

Settlement Block::settle() {
  switch (lent_.load(std::memory_order_acquire)) {
    case Lent::no:
      return Settlement::done;
    case Lent::gone:
      return Settlement::gone;
    case Lent::yes:
      break;
  }
  // Who settles it at the same time writes the same bytes.
  const Loan loan = this->loan();
  const Settlement result = pool_->loans_->fetch(loan, loan.origin + loan.begin,
                                                 MutableBytes(data() + loan.begin, loan.end - loan.begin));
  if (result == Settlement::done) lent_.store(Lent::no, std::memory_order_release);
  if (result == Settlement::gone) lent_.store(Lent::gone, std::memory_order_release);
  return result;
}

bool Block::lent_by_me() {
  return lent_.load(std::memory_order_acquire) == Lent::yes && pool_->loans_->is_mine(loan());
}

const std::byte* Block::source(uint32_t n) {
  if (lent_by_me()) return reinterpret_cast<const std::byte*>(loan().origin + n);
  return settle() == Settlement::done ? data() + n : nullptr;
}

Settlement Block::readable() { return lent_by_me() ? Settlement::done : settle(); }

BlockPool::~BlockPool() {
  for (size_t i = 0; i < kSizes.size(); ++i) {
    while (Block* block = free_[i]) {
      free_[i] = block->next_free_;
      release(block);
    }
  }
}

BlockRef BlockPool::allocate(uint32_t bytes) {
  uint8_t size_class = 0;
  while (size_class < kSizes.size() && kSizes[size_class] < bytes) ++size_class;
  if (size_class == kSizes.size()) return {};

  Block* block = free_[size_class];
  if (block != nullptr) {
    free_[size_class] = block->next_free_;
    --free_count_[size_class];
    block->pool_ = this;
    block->references_ = 1;
    block->lent_.store(Block::Lent::no, std::memory_order_relaxed);
  } else {
    void* memory = arena_.allocate(kSizes[size_class] + sizeof(Block), alignof(Block));
    if (memory == nullptr) return {};
    block = new (memory) Block(*this, kSizes[size_class], size_class);
    all_.push_back(*block);
  }
  ++live_;
  live_bytes_ += block->true_size();
  return BlockRef::adopt(block);
}

void BlockPool::release(Block* block) {
  all_.remove(*block);
  arena_.release(block, block->true_size());
}

void BlockPool::keep_free(Block* block) {
  uint8_t size_class = block->size_class_;
  if (free_count_[size_class] >= kKeepFree || !arena_.recycle()) return release(block);
  block->next_free_ = free_[size_class];
  free_[size_class] = block;
  ++free_count_[size_class];
}

void BlockPool::give_back(Block* block) {
  --live_;
  live_bytes_ -= block->true_size();
  keep_free(block);
}

void BlockPool::begin_census() {
  for (Block& block : all_) block.seen_ = 0;
}

uint64_t BlockPool::miscounted() {
  // Those that are free have a next one instead of a pool.
  uint64_t wrong = 0;
  for (Block& block : all_) wrong += (block.pool_ == this ? block.references_ : 0) != block.seen_ ? 1 : 0;
  return wrong;
}

uint64_t BlockPool::end_census() {
  uint64_t was_free = 0, is_free = 0;
  for (uint32_t count : free_count_) was_free += count;
  free_.fill(nullptr);
  free_count_.fill(0);
  live_ = live_bytes_ = 0;
  Block* next;
  for (Block* block = all_.front(); block != nullptr; block = next) {
    next = all_.next(*block);
    if (block->seen_ == 0) {
      ++is_free;
      keep_free(block);
      continue;
    }
    block->pool_ = this;
    block->references_ = block->seen_;
    ++live_;
    live_bytes_ += block->true_size();
  }
  return is_free > was_free ? is_free - was_free : 0;
}

}  // namespace ustack
