#include "stack/mem/block.h"

namespace ustack {

namespace {
/// Free blocks of one size that stay out of the arena: enough for a window's worth of churn.
constexpr uint32_t kKeepFree = 64;
}  // namespace

BlockPool::~BlockPool() {
  for (size_t i = 0; i < kSizes.size(); ++i) {
    while (Block* block = free_[i]) {
      free_[i] = block->next_free_;
      arena_.release(block, block->true_size());
    }
  }
}

BlockRef BlockPool::allocate(uint32_t bytes) {
  uint8_t size_class = 0;
  while (size_class < kSizes.size() && kSizes[size_class] < bytes) ++size_class;
  if (size_class == kSizes.size()) return {};

  void* memory = free_[size_class];
  if (memory != nullptr) {
    free_[size_class] = free_[size_class]->next_free_;
    --free_count_[size_class];
  } else {
    memory = arena_.allocate(kSizes[size_class] + sizeof(Block), alignof(Block));
    if (memory == nullptr) return {};
  }
  auto* block = new (memory) Block(*this, kSizes[size_class], size_class);
  ++live_;
  live_bytes_ += block->true_size();
  return BlockRef::adopt(block);
}

void BlockPool::give_back(Block* block) {
  --live_;
  live_bytes_ -= block->true_size();
  uint8_t size_class = block->size_class_;
  if (free_count_[size_class] >= kKeepFree || !arena_.recycle()) {
    arena_.release(block, block->true_size());
    return;
  }
  block->next_free_ = free_[size_class];
  free_[size_class] = block;
  ++free_count_[size_class];
}

}  // namespace ustack
