// The memory of a host: one shared mapping, at the same address in every process that inherits it.
#pragma once

#include <cstddef>
#include <optional>

#include "io/open_error.h"
#include "stack/mem/shared_arena.h"

namespace ustack::io {

/// A MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE reservation that survives fork and is left out of core dumps.
/// The object itself is placed at the region's start, so that any forked process may use it (its virtual
/// functions are at the same address after fork). Being a MemorySource it commits pages with
/// MADV_POPULATE_WRITE, so that exhaustion is an error and not a SIGBUS, and gives them back with
/// MADV_REMOVE.
class SharedRegion final : public MemorySource {
 public:
  static constexpr size_t kDefaultBytes = size_t{64} << 30;
  static constexpr size_t kSmallestBytes = size_t{256} << 20;

  /// Reserves `bytes`, halved down to kSmallestBytes while the machine refuses (RLIMIT_AS, overcommit
  /// policy). On failure *region is nullptr.
  static std::optional<OpenError> reserve(SharedRegion** region, size_t bytes = kDefaultBytes);
  /// Unmaps it in this process; other processes keep theirs.
  static void unmap(SharedRegion* region);

  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  /// What is left for the arena: SharedArena::create(region.base(), region.size(), region). Page-aligned.
  std::byte* base() const { return mapping_ + head_bytes_; }
  size_t size() const { return mapping_bytes_ - head_bytes_; }

  bool commit(void* memory, size_t bytes) override;
  void release(void* memory, size_t bytes) override;
  void guard(void* memory, size_t bytes) override;
  void unguard(void* memory, size_t bytes) override;

  /// `bytes` for a structure of the library's own that is made before the arena (the shared root with the
  /// lock), page-aligned, cleared, committed. Taken from the region's head: only before base() was asked for.
  /// nullptr when memory is out.
  void* take_head(size_t bytes);

 private:
  SharedRegion(std::byte* mapping, size_t bytes);
  ~SharedRegion() = default;

  std::byte* mapping_;
  size_t mapping_bytes_;
  size_t head_bytes_;
};

}  // namespace ustack::io
