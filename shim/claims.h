// What a thread's call under way holds of open files while it does not hold the lock: references, and turns
// at their streams. Written down in the arena beside the thread's waiter, so that a relative can give them
// back for a thread that was killed in the middle of its call; else a connection that it was reading from
// would never end.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "stack/census.h"

namespace ustack {
class Arena;
}

namespace ustack::shim {

class OpenFile;

/// Lock: the host's.
class Claims {
 public:
  Claims() = default;
  Claims(const Claims&) = delete;
  Claims& operator=(const Claims&) = delete;

  /// The call takes a reference to `file`, which is written down as long as there is room: calls hold one
  /// file, rarely two.
  void take(OpenFile& file);
  /// It gives it back.
  void give_back(OpenFile& file);

  /// The most files for which poll() needs no room of its own.
  static constexpr size_t kFew = 32;
  /// The same for the files of one poll(); nullptrs among them are nothing. More than kFew must be in memory
  /// of `arena`, of `bytes` bytes at `memory`, which is freed with them.
  void set_polled(std::span<OpenFile* const> files, void* memory = nullptr, size_t bytes = 0);
  void clear_polled() { set_polled({}); }

  /// The payload of a report that the call has taken off an error queue.
  Slice payload;

  /// Shows what it has of the host's memory.
  void show(Census& census) const { census.see(payload); }

  /// The thread is dead: gives all of it back. It can't hold the lock, and never comes back.
  void give_back(Arena& arena);

 private:
  std::array<std::atomic<OpenFile*>, 4> files_{};
  std::array<OpenFile*, kFew> few_{};
  OpenFile* const* polled_ = nullptr;
  size_t polled_count_ = 0;
  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

/// The calling thread's; nullptr: no memory, and nothing is written down. Lock: the host's.
Claims* this_claims();

}  // namespace ustack::shim
