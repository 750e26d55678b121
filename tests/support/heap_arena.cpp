#include "tests/support/heap_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ustack::test {

namespace {

[[noreturn]] void fail(const char* what, size_t a, size_t b) {
  std::fprintf(stderr, "HeapArena: %s (%zu, %zu)\n", what, a, b);
  std::abort();
}

}  // namespace

HeapArena::~HeapArena() {
  if (!blocks_.empty() && !forgive_leaks_) fail("objects and bytes left behind", blocks_.size(), in_use_);
  for (auto& [memory, block] : blocks_) ::operator delete (memory, std::align_val_t{block.align});
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
  void* memory = ::operator new (bytes, std::align_val_t{align});
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
  ::operator delete (memory, std::align_val_t{it->second.align});
  blocks_.erase(it);
  in_use_ -= bytes;
}

void HeapArena::guard(void* memory, size_t bytes) {
  if (mprotect(memory, bytes, PROT_NONE) != 0) fail("mprotect of a guard page failed", bytes, 0);
}

void HeapArena::unguard(void* memory, size_t bytes) {
  if (mprotect(memory, bytes, PROT_READ | PROT_WRITE) != 0) fail("mprotect of a guard page failed", bytes, 0);
}

}  // namespace ustack::test
