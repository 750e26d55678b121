#include "stack/mem/shared_arena.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace ustack {

namespace {

/// What is cut at once for objects that are smaller.
constexpr size_t kRun = 16 * 1024;

/// Pages are committed this much at a time at least, and at most this much ahead of what is wanted.
constexpr size_t kCommitStep = 64 * 1024, kCommitAhead = 2 * 1024 * 1024;

/// Classes of this size and more are trimmed, when they have this much free.
constexpr size_t kTrimSize = 16 * 1024, kKeepHot = 2 * 1024 * 1024;

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

SharedArena* SharedArena::create(void* region, size_t bytes, MemorySource& source) {
  size_t first = round_up(sizeof(SharedArena), kPage);
  if (bytes < first || !source.commit(region, first)) return nullptr;
  return new (region) SharedArena(region, bytes, source);
}

SharedArena::SharedArena(void* region, size_t bytes, MemorySource& source)
    : source_(source),
      begin_(static_cast<std::byte*>(region)),
      end_(begin_ + bytes / kPage * kPage),
      new_begin_(begin_ + round_up(sizeof(SharedArena), kPage)),
      committed_(new_begin_),
      committed_bytes_(static_cast<size_t>(new_begin_ - begin_)) {}

// Class 0 is 16 bytes; then the sizes between 2^n and 2^(n+1) in sixteen steps (small ones use only the steps
// that 16 divides). A class is a multiple of every power of two that divides a size rounded up to it: this
// keeps the alignment that goes with a size.
int SharedArena::class_of(size_t bytes) {
  if (bytes <= 16) return 0;
  size_t last = (bytes + 15) / 16 * 16 - 1;
  int shift = 63 - std::countl_zero(last);
  size_t step = (last >> (shift - kStepBits)) & (kClassesPerDoubling - 1);
  return (shift - kSmallestShift) * kClassesPerDoubling + static_cast<int>(step) + 1;
}

size_t SharedArena::class_bytes(int index) {
  if (index == 0) return 16;
  int shift = (index - 1) / kClassesPerDoubling + kSmallestShift;
  auto step = static_cast<size_t>((index - 1) % kClassesPerDoubling);
  return (size_t{1} << shift) + ((step + 1) << (shift - kStepBits));
}

bool SharedArena::commit(void* memory, size_t bytes) {
  if (!source_.commit(memory, bytes)) return false;
  committed_bytes_ += bytes;
  return true;
}

std::byte* SharedArena::cut(size_t bytes) {
  auto left = static_cast<size_t>(end_ - new_begin_);
  if (bytes > left) return nullptr;
  auto ready = static_cast<size_t>(committed_ - new_begin_);
  if (bytes > ready) {
    size_t need = bytes - ready;
    // An eighth of what is in use ahead: few calls when it grows, little waste when it is small.
    size_t ahead = std::clamp(in_use_ / 8 / kPage * kPage, kCommitStep, kCommitAhead);
    size_t wanted = std::min(std::max(need, ahead), left - ready);
    if (commit(committed_, wanted))
      committed_ += wanted;
    else if (wanted > need && commit(committed_, need))
      committed_ += need;
    else
      return nullptr;
  }
  std::byte* memory = new_begin_;
  new_begin_ += bytes;
  return memory;
}

void* SharedArena::allocate(size_t bytes, size_t align) {
  if (align > 16 && bytes % align != 0) __builtin_trap();
  if (bytes > static_cast<size_t>(end_ - begin_)) return nullptr;
  int index = class_of(bytes);
  if (index >= kClasses) return nullptr;
  Class& size_class = classes_[index];
  size_t size = class_bytes(index);

  void* memory = nullptr;
  if (size_class.hot != nullptr) {
    memory = std::exchange(size_class.hot, size_class.hot->next);
    --size_class.hot_count;
  } else if (size_class.cold != nullptr) {
    memory = take_cold(size_class, round_up(size, kPage));
    if (memory == nullptr) return nullptr;
  } else {
    if (size_class.cut_begin == size_class.cut_end) {
      size_t run = std::max(kRun / size, size_t{1}) * size;
      std::byte* fresh = cut(round_up(run, kPage));
      if (fresh == nullptr) return nullptr;
      size_class.cut_begin = fresh;
      size_class.cut_end = fresh + run;
    }
    memory = size_class.cut_begin;
    size_class.cut_begin += size;
  }
  in_use_ += bytes;
  high_water_ = std::max(high_water_, in_use_);
  return memory;
}

void SharedArena::release(void* memory, size_t bytes) {
  if (memory == nullptr) return;
  in_use_ -= bytes;
  int index = class_of(bytes);
  size_t size = class_bytes(index);
  Class& size_class = classes_[index];
  size_class.hot = new (memory) FreeBlock{size_class.hot};
  ++size_class.hot_count;
  if (size >= kTrimSize && size_class.hot_count >= 2 && size_class.hot_count * size > kKeepHot)
    trim(size_class, size);
}

void SharedArena::mend() {
  for (Class& size_class : classes_) {
    size_class.hot_count = 0;
    for (FreeBlock* block = size_class.hot; block != nullptr; block = block->next) ++size_class.hot_count;
  }
}

void SharedArena::trim(Class& size_class, size_t size) {
  uint64_t keep = size_class.hot_count / 2;
  FreeBlock* last = size_class.hot;
  for (uint64_t i = 1; i < keep; ++i) last = last->next;
  size_class.hot_count = keep;
  // One by one, so that who is killed loses one.
  while (FreeBlock* old = last->next) {
    last->next = old->next;
    make_cold(size_class, reinterpret_cast<std::byte*>(old), round_up(size, kPage));
  }
}

void SharedArena::make_cold(Class& size_class, std::byte* block, size_t bytes) {
  ColdBlocks* list = size_class.cold;
  const bool listed = list != nullptr && list->count < list->others.size();
  const size_t kept = listed ? 0 : kPage;
  source_.release(block + kept, bytes - kept);
  committed_bytes_ -= bytes - kept;
  if (listed)
    list->others[list->count++] = block;
  else
    size_class.cold = new (block) ColdBlocks{.next = list, .count = 0, .others = {}};
}

std::byte* SharedArena::take_cold(Class& size_class, size_t bytes) {
  ColdBlocks* list = size_class.cold;
  if (list->count > 0) {
    std::byte* block = list->others[list->count - 1];
    if (!commit(block, bytes)) return nullptr;
    --list->count;
    return block;
  }
  auto* block = reinterpret_cast<std::byte*>(list);
  if (!commit(block + kPage, bytes - kPage)) return nullptr;
  size_class.cold = list->next;
  return block;
}

}  // namespace ustack
