// An arena over the ordinary heap, so that sanitizers see every object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stack/base/sanitizers.h"
#include "stack/mem/arena.h"

namespace ustack::test {

/// Every object is a heap block of its own. Aborts with a message when one is given back with another size
/// than it was asked for, or twice, and when something is left at the end unless forgive_leaks() was called.
class HeapArena final : public Arena {
 public:
  /// `recycle`: whether pools over it may keep free objects; off under sanitizers, on for speed elsewhere.
  explicit HeapArena(bool recycle = !kAddressSanitizer && !kThreadSanitizer) : recycle_(recycle) {}
  HeapArena(const HeapArena&) = delete;
  HeapArena& operator=(const HeapArena&) = delete;
  ~HeapArena();

  void* allocate(size_t bytes, size_t align) override;
  void release(void* memory, size_t bytes) override;
  /// Real guard pages: a fiber that overflows its stack dies instead of writing elsewhere.
  void guard(void* memory, size_t bytes) override;
  void unguard(void* memory, size_t bytes) override;
  bool recycle() const override { return recycle_; }
  size_t in_use() const override { return in_use_; }

  /// Objects that are alive.
  size_t objects() const { return blocks_.size(); }
  size_t high_water() const { return high_water_; }
  /// From now on no more than this many bytes in use: what doesn't fit is refused.
  void set_limit(size_t bytes) { limit_ = bytes; }
  /// The next `n` allocations succeed, all later ones fail until this is called again.
  void fail_after(uint64_t n) { allocations_left_ = n; }
  void never_fail() {
    allocations_left_ = std::numeric_limits<uint64_t>::max();
    limit_ = std::numeric_limits<size_t>::max();
  }
  uint64_t refused() const { return refused_; }
  void forgive_leaks() { forgive_leaks_ = true; }

 private:
  struct Block {
    size_t bytes, align;
  };
  void* take(size_t bytes, size_t align);
  void keep(void* memory, const Block& block);

  std::unordered_map<void*, Block> blocks_;
  /// Large blocks (stacks) that were given back, poisoned: under a sanitizer new ones cost a hundred times
  /// what is done on them.
  std::vector<std::pair<void*, Block>> kept_;
  size_t in_use_ = 0, high_water_ = 0;
  size_t limit_ = std::numeric_limits<size_t>::max();
  uint64_t allocations_left_ = std::numeric_limits<uint64_t>::max();
  uint64_t refused_ = 0;
  bool recycle_;
  bool forgive_leaks_ = false;
};

}  // namespace ustack::test
