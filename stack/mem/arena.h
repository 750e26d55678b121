// Where all that the stack owns lives. The stack calls no malloc: it asks an Arena.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

namespace ustack {

/// Memory by size. Two implementations: SharedArena (over one MAP_SHARED region that survives fork, in use)
/// and tests/support's HeapArena (every object a heap block of its own, so that sanitizers see it).
/// Not thread-safe: the caller holds the host's lock.
class Arena {
 public:
  /// `bytes` of memory aligned to `align` (a power of two, at most 4096; past 16, `bytes` is a multiple of
  /// it, as sizeof always is), not cleared; nullptr when the arena or the machine's memory is exhausted,
  /// which callers turn into ENOBUFS/ENOMEM or back-pressure.
  virtual void* allocate(size_t bytes, size_t align) = 0;
  /// Gives back what allocate(bytes, ...) returned. nullptr is ignored. Freed memory is reused last-in
  /// first-out (it is hot, and a fresh shared page costs 2.8 us).
  virtual void release(void* memory, size_t bytes) = 0;
  /// Makes the page-aligned range fault on access, where the arena can (fiber stacks' guard pages). Per
  /// process: what is guarded before the first fork is guarded everywhere.
  virtual void guard(void* /*memory*/, size_t /*bytes*/) {}
  /// Ends guard() in this process.
  virtual void unguard(void* /*memory*/, size_t /*bytes*/) {}
  /// Whether pools over this arena may keep what they get back for their next customer. False where
  /// sanitizers watch: then each object is a block of its own from birth to death, and use after free is
  /// seen.
  virtual bool recycle() const { return true; }
  /// After a process was killed while it changed the arena: puts right what the arena counts.
  virtual void mend() {}
  /// Bytes handed out now, by size asked for.
  virtual size_t in_use() const = 0;

  /// A T in the arena, nullptr when there is no memory. T's constructor must not throw.
  template <typename T, typename... Args>
  T* create(Args&&... args) {
    void* memory = allocate(sizeof(T), alignof(T));
    return memory == nullptr ? nullptr : new (memory) T(std::forward<Args>(args)...);
  }
  template <typename T>
  void destroy(T* object) {
    if (object == nullptr) return;
    object->~T();
    release(object, sizeof(T));
  }

 protected:
  ~Arena() = default;
};

}  // namespace ustack
