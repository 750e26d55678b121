#include "tests/support/heap_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef USTACK_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace ustack::test {

namespace {

[[noreturn]] void fail(const char* what, size_t a, size_t b) {
  std::fprintf(stderr, "HeapArena: %s (%zu, %zu)\n", what, a, b);
  std::abort();
}

#ifdef USTACK_ASAN
void poison(void* memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
void unpoison(void* memory, size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
void poison(void*, size_t) {}
void unpoison(void*, size_t) {}
#endif

}  // namespace

HeapArena::~HeapArena() {
  if (!blocks_.empty() && !forgive_leaks_) fail("objects and bytes left behind", blocks_.size(), in_use_);
  for (auto& [memory, block] : blocks_) ::operator delete (memory, std::align_val_t{block.align});
  for (auto& [memory, block] : kept_) {
    unpoison(memory, block.bytes);
    ::operator delete (memory, std::align_val_t{block.align});
  }
}

void* HeapArena::take(size_t bytes, size_t align) {
  for (auto& kept : kept_) {
    if (kept.second.bytes != bytes || kept.second.align != align) continue;
    void* memory = kept.first;
    kept = kept_.back();
    kept_.pop_back();
    unpoison(memory, bytes);
    return memory;
  }
  return ::operator new (bytes, std::align_val_t{align});
}

void HeapArena::keep(void* memory, const Block& block) {
  constexpr size_t kLarge = 16 * 1024, kMost = 32;
  if (block.bytes < kLarge || kept_.size() >= kMost) {
    ::operator delete (memory, std::align_val_t{block.align});
    return;
  }
  poison(memory, block.bytes);
  kept_.emplace_back(memory, block);
}

void* HeapArena::allocate(size_t bytes, size_t align) {
  if (align == 0 || (align & (align - 1)) != 0 || align > 4096) fail("bad alignment of size", align, bytes);
  if (align > 16 && bytes % align != 0) fail("size is not a multiple of its alignment", bytes, align);
  if (allocations_left_ == 0 || bytes > limit_ || in_use_ > limit_ - bytes) {
    ++refused_;
    return nullptr;
  }
  --allocations_left_;
  align = std::max(align, alignof(std::max_align_t));
  void* memory = take(bytes, align);
  // Whoever counts on zeroes finds out.
  std::memset(memory, 0xa5, std::min<size_t>(bytes, 256));
  blocks_[memory] = {bytes, align};
  in_use_ += bytes;
  high_water_ = std::max(high_water_, in_use_);
  return memory;
}

void HeapArena::release(void* memory, size_t bytes) {
  if (memory == nullptr) return;
  auto it = blocks_.find(memory);
  if (it == blocks_.end()) fail("given back, but not alive: bytes", bytes, 0);
  if (it->second.bytes != bytes)
    fail("asked for and given back with different sizes", it->second.bytes, bytes);
  Block block = it->second;
  blocks_.erase(it);
  keep(memory, block);
  in_use_ -= bytes;
}

void HeapArena::guard(void* memory, size_t bytes) {
  if (mprotect(memory, bytes, PROT_NONE) != 0) fail("mprotect of a guard page failed", bytes, 0);
}

void HeapArena::unguard(void* memory, size_t bytes) {
  if (mprotect(memory, bytes, PROT_READ | PROT_WRITE) != 0) fail("mprotect of a guard page failed", bytes, 0);
}

}  // namespace ustack::test
