// A pool of one type whose live objects can be enumerated.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "stack/base/intrusive_list.h"
#include "stack/mem/arena.h"

namespace ustack {

/// Makes Ts in chunks of the arena, last-in first-out, and knows which are alive: what everything else (hash
/// tables, queues, wheels) can be rebuilt from. Lock: the host's.
///
/// A T that others reach other than by this slab has retire(), which takes it out of everything through which
/// it is reached; destroy() calls it while the T still counts as alive. So a process that is killed in the
/// middle leaves either an object that can be destroyed again, or one that nobody sees.
template <typename T>
class Slab {
  struct Chunk;
  struct Slot {
    Chunk* chunk;
    alignas(T) std::byte object[sizeof(T)];
    T* get() { return std::launder(reinterpret_cast<T*>(object)); }
  };
  struct PartialTag;
  struct Chunk : ListHook<>, ListHook<PartialTag> {
    uint64_t live = 0;
    /// Live and seen by the census.
    uint64_t seen = 0;
    /// Objects whose destructors run.
    uint32_t ending = 0;
    /// Free slots, the last one freed on top.
    uint8_t free_count = 0;
    uint8_t capacity = 0;
    std::array<uint8_t, 64> free;
    Slot* slots() { return reinterpret_cast<Slot*>(reinterpret_cast<std::byte*>(this) + kHeader); }
  };
  static constexpr size_t kAlign = alignof(Slot) > alignof(Chunk) ? alignof(Slot) : alignof(Chunk);
  static constexpr size_t kHeader = (sizeof(Chunk) + alignof(Slot) - 1) / alignof(Slot) * alignof(Slot);

  static constexpr size_t kChunk = 16 * 1024;

 public:
  /// Objects in a chunk: as many as fit it, 1 to 64.
  static constexpr uint8_t kCapacity = [] {
    size_t fit = (kChunk - kHeader) / sizeof(Slot);
    return static_cast<uint8_t>(fit < 1 || sizeof(Slot) > kChunk ? 1 : fit > 64 ? 64 : fit);
  }();

  explicit Slab(Arena& arena) : arena_(arena), capacity_(arena.recycle() ? kCapacity : 1) {}
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  /// Destroys what is still alive.
  ~Slab() {
    for_each([this](T& object) { destroy(&object); });
    while (Chunk* chunk = chunks_.front()) release(chunk);
  }

  /// A new T, nullptr when there is no memory.
  template <typename... Args>
  T* create(Args&&... args) {
    Chunk* chunk = partial_.front();
    // One without room is what a process that was killed has left here.
    for (; chunk != nullptr && chunk->free_count == 0; chunk = partial_.front()) partial_.remove(*chunk);
    if (chunk == nullptr) {
      chunk = make_chunk();
      if (chunk == nullptr) return nullptr;
    }
    uint8_t index = chunk->free[--chunk->free_count];
    if (chunk->free_count == 0) partial_.remove(*chunk);
    T* made = new (chunk->slots()[index].object) T(std::forward<Args>(args)...);
    // Alive when it is whole: who is killed in between loses a slot, and leaves nothing half made behind.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    chunk->live |= uint64_t{1} << index;
    ++live_;
    return made;
  }

  /// Ends an object that this slab has made. nullptr is ignored.
  void destroy(T* object) {
    if (object == nullptr) return;
    if constexpr (requires { object->retire(); }) object->retire();
    std::atomic_signal_fence(std::memory_order_seq_cst);
    Slot* slot = slot_of(object);
    Chunk* chunk = slot->chunk;
    auto index = static_cast<uint8_t>(slot - chunk->slots());
    chunk->live &= ~(uint64_t{1} << index);
    --live_;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    ++chunk->ending;
    object->~T();
    --chunk->ending;
    // The chunk freed into last is the hot one, so it comes first.
    chunk->free[chunk->free_count++] = index;
    partial_.push_front(*chunk);
    if (chunk->live != 0 || chunk->ending != 0) return;
    // One empty chunk stays, so that an object made and destroyed again and again costs nothing.
    if (capacity_ == 1 || (empty_ != nullptr && empty_ != chunk && empty_->live == 0))
      release(chunk);
    else
      empty_ = chunk;
  }

  /// Calls visit(T&) for each live object; it may destroy that object, and no other.
  template <typename Visit>
  void for_each(Visit&& visit) {
    Chunk* next;
    for (Chunk* chunk = chunks_.front(); chunk != nullptr; chunk = next) {
      next = chunks_.next(*chunk);
      // Destroying the last one may take the chunk away, so it is not looked at again after that.
      for (uint64_t left = chunk->live; left != 0; left &= left - 1)
        visit(*chunk->slots()[std::countr_zero(left)].get());
    }
  }

  uint64_t live() const { return live_; }
  /// After a process was killed while it made or ended an object: counts anew, and what nobody has of a chunk
  /// is free.
  void mend() {
    live_ = 0;
    empty_ = nullptr;
    partial_.forsake();
    Chunk* next;
    for (Chunk* chunk = chunks_.front(); chunk != nullptr; chunk = next) {
      next = chunks_.next(*chunk);
      static_cast<ListHook<PartialTag>&>(*chunk).forsake();
      if (chunk->live == 0 && empty_ != nullptr) {
        release(chunk);
        continue;
      }
      live_ += count(chunk->live);
      chunk->ending = 0;
      chunk->free_count = 0;
      for (uint8_t i = 0; i < chunk->capacity; ++i)
        if ((chunk->live >> i & 1) == 0) chunk->free[chunk->free_count++] = i;
      if (chunk->free_count > 0) partial_.push_back(*chunk);
      if (chunk->live == 0) empty_ = chunk;
    }
  }

  // --- a census (stack/census.h) ---
  void begin_census() {
    for (Chunk& chunk : chunks_) chunk.seen = 0;
  }
  static void see(T& object) {
    Slot* slot = slot_of(&object);
    slot->chunk->seen |= uint64_t{1} << (slot - slot->chunk->slots());
  }
  /// Live objects that nobody has.
  uint64_t unseen() {
    uint64_t found = 0;
    for (Chunk& chunk : chunks_) found += count(chunk.live & ~chunk.seen);
    return found;
  }
  /// Those are free, and mend(). They are not destroyed: lists that they are in, and what they refer to, went
  /// with the process that was killed, or is counted anew.
  void end_census() {
    for (Chunk& chunk : chunks_) chunk.live &= chunk.seen;
    mend();
  }

 private:
  /// std::popcount is a call into libgcc_s where the processor isn't known to have it, which the keeper has
  /// not.
  static uint64_t count(uint64_t set) {
    uint64_t bits = 0;
    for (; set != 0; set &= set - 1) ++bits;
    return bits;
  }
  static Slot* slot_of(T* object) {
    return reinterpret_cast<Slot*>(reinterpret_cast<std::byte*>(object) - offsetof(Slot, object));
  }
  size_t chunk_bytes() const {
    size_t bytes = kHeader + capacity_ * sizeof(Slot);
    // Most chunks are of one size, so that one kind of object can use what another has given back.
    if (capacity_ > 1 && bytes > kChunk / 2) return kChunk;
    return (bytes + kAlign - 1) / kAlign * kAlign;
  }

  Chunk* make_chunk() {
    void* memory = arena_.allocate(chunk_bytes(), kAlign);
    if (memory == nullptr) return nullptr;
    auto* chunk = new (memory) Chunk;
    chunk->capacity = chunk->free_count = capacity_;
    for (uint8_t i = 0; i < capacity_; ++i) {
      chunk->free[i] = static_cast<uint8_t>(capacity_ - 1 - i);
      chunk->slots()[i].chunk = chunk;
    }
    chunks_.push_back(*chunk);
    partial_.push_front(*chunk);
    return chunk;
  }

  void release(Chunk* chunk) {
    if (empty_ == chunk) empty_ = nullptr;
    chunk->~Chunk();  // leaves both lists
    arena_.release(chunk, chunk_bytes());
  }

  Arena& arena_;
  IntrusiveList<Chunk> chunks_;
  IntrusiveList<Chunk, PartialTag> partial_;
  /// A chunk that was empty when last looked at.
  Chunk* empty_ = nullptr;
  uint64_t live_ = 0;
  uint8_t capacity_;
};

}  // namespace ustack
