// The arena in use: over one region that processes share.
//
//     region: | SharedArena | committed, handed out or on a free list ... | committed, new | not committed
//     ... |
//             ^ begin        ^ first page                       new_begin_ ^               ^ committed_ end_
//             ^
//
// Sizes are rounded up to a class (sixteen per power of two). Memory is cut off the region's unused end,
// several small objects at a time, and never leaves its class afterwards: what a class gets back goes on its
// free list, last-in first-out. Of large classes, what has been free longest gives its pages back to the
// machine, but for one page of one of 511, which lists the others.
#pragma once

#include <array>
#include <cstdint>

#include "stack/mem/arena.h"

namespace ustack {

/// What a region's pages can be told; io/ implements it by madvise(2) and mprotect(2). Ranges are
/// page-aligned.
class MemorySource {
 public:
  /// Makes the range usable: after true, touching it can't fail.
  virtual bool commit(void* memory, size_t bytes) = 0;
  /// Gives the pages back to the machine; their content is lost, and they must be committed again before use.
  virtual void release(void* memory, size_t bytes) = 0;
  /// Makes the range fault on access, and ends that; in the calling process only.
  virtual void guard(void* memory, size_t bytes) = 0;
  virtual void unguard(void* memory, size_t bytes) = 0;

 protected:
  ~MemorySource() = default;
};

/// Lives at the start of its own region. Lock: the host's.
class SharedArena final : public Arena {
 public:
  static constexpr size_t kPage = 4096;

  /// Makes an arena in the page-aligned region of `bytes`. nullptr when the region is too small or its first
  /// pages can't be committed. `source` must stay valid, at the same address in every process that shares the
  /// region. The arena is never destroyed: the region is unmapped as a whole.
  static SharedArena* create(void* region, size_t bytes, MemorySource& source);
  using Arena::create;

  void* allocate(size_t bytes, size_t align) override;
  void release(void* memory, size_t bytes) override;
  void guard(void* memory, size_t bytes) override { source_.guard(memory, bytes); }
  void unguard(void* memory, size_t bytes) override { source_.unguard(memory, bytes); }
  size_t in_use() const override { return in_use_; }
  void mend() override;

  /// The most that in_use() ever was.
  size_t high_water() const { return high_water_; }
  /// Bytes of the machine's memory that the arena holds, handed out or free.
  size_t committed_bytes() const { return committed_bytes_; }

 private:
  static constexpr int kSmallestShift = 4, kStepBits = 4, kClassesPerDoubling = 1 << kStepBits;
  /// Up to 2^40 bytes.
  static constexpr int kClasses = (40 - kSmallestShift) * kClassesPerDoubling + 1;
  struct FreeBlock {
    FreeBlock* next;
  };
  /// The first page of a free block, the only one of it that is committed, and others without any.
  struct ColdBlocks {
    ColdBlocks* next;
    uint64_t count;
    std::array<std::byte*, kPage / sizeof(void*) - 2> others;
  };
  static_assert(sizeof(ColdBlocks) == kPage);
  struct Class {
    FreeBlock* hot = nullptr;
    ColdBlocks* cold = nullptr;
    uint64_t hot_count = 0;
    /// The rest of what was cut for several objects.
    std::byte* cut_begin = nullptr;
    std::byte* cut_end = nullptr;
  };

  SharedArena(void* region, size_t bytes, MemorySource& source);
  static int class_of(size_t bytes);
  static size_t class_bytes(int index);
  /// Fresh committed memory, page-aligned, a whole number of pages.
  std::byte* cut(size_t bytes);
  bool commit(void* memory, size_t bytes);
  /// Makes the older half of a large class's free blocks cold.
  void trim(Class& size_class, size_t size);
  void make_cold(Class& size_class, std::byte* block, size_t bytes);
  /// nullptr: the machine has no memory for it; it stays cold.
  std::byte* take_cold(Class& size_class, size_t bytes);

  MemorySource& source_;
  std::byte* const begin_;
  std::byte* const end_;
  std::byte* new_begin_;
  std::byte* committed_;
  size_t in_use_ = 0;
  size_t high_water_ = 0;
  size_t committed_bytes_ = 0;
  std::array<Class, kClasses> classes_{};
};

}  // namespace ustack
