// Which of this process's descriptors are ours. Each is also a real kernel descriptor of the same number (a
// duplicate of one placeholder socket, or an epoll set of the kernel's), so that numbers never collide.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "shim/open_file.h"
#include "shim/process_lock.h"
#include "stack/base/result.h"
#include "stack/mem/arena.h"

namespace ustack::shim {

/// One per process, in the arena, so that it outlives its process. look() is free of locks and made for the
/// hooks' first line; everything else is under the host's lock, or a shard's with the common one, which
/// clear() and install() take. An entry is cleared before the kernel's close of the number, and every hook
/// that returns a fresh number clears that number's stale entry first (forget_stale).
class FdTable {
 public:
  /// Largest descriptor number that can be ours, exclusive.
  static constexpr int kLimit = 1 << 20;

  /// The entry as it is this instant: nullptr for a descriptor of the kernel's, a negative or a too large
  /// one. The pointer may be compared but not followed unless the host's lock is held, or the common one of
  /// its shards.
  static OpenFile* look(int fd) {
    auto number = static_cast<unsigned>(fd);
    if (number < kNear) [[likely]] {
      uint64_t ours = near_[number / 64].load(std::memory_order_acquire) >> number % 64 & 1;
      if (ours == 0) [[likely]]
        return nullptr;
    }
    FdTable* table = current_;
    if (table == nullptr || number >= static_cast<unsigned>(kLimit)) return nullptr;
    Chunk* chunk = table->chunks_[number / kChunk].load(std::memory_order_acquire);
    return chunk->entries[number % kChunk].load(std::memory_order_acquire);
  }
  /// This process's table, nullptr until it has a host.
  static FdTable* current() { return current_; }
  static void set_current(FdTable* table);
  /// The same in a child of fork, for a copy() of the table that was current, made under lock(). nullptr:
  /// none.
  static void inherit(FdTable* copy);
  /// The kernel gave out `fd` for something that isn't ours: what the table still says of the number is about
  /// a descriptor that was closed behind the library's back (by libc itself, by a bare system call). Takes
  /// the lock. Returns `fd`.
  static int forget_stale(int fd) {
    if (look(fd) != nullptr) [[unlikely]]
      forget(fd);
    return fd;
  }
  static void forget(int fd);

  /// An empty table; nullptr: no memory.
  static FdTable* create(Arena& arena);
  /// A table that refers to the same files, for a child. nullptr: no memory.
  FdTable* copy();
  /// Releases all that it refers to, and the table.
  static void destroy(FdTable* table);

  /// Makes `fd` refer to `file`, taking over one reference; what it referred to before is released. ENOMEM,
  /// and EMFILE for a number from kLimit on; the reference then stays the caller's.
  Status set(int fd, OpenFile* file);
  /// The same with a reference of its own, which is given back if that fails.
  Status share(int fd, OpenFile* file);
  /// The number no longer refers to anything of ours; its reference is released. False if it did not. The
  /// lock covers all, or the shard of the connection that the number refers to.
  bool clear(int fd);
  /// Another number for what `fd` refers to: F_DUPFD (lowest free number, at least `lowest`). EBADF if `fd`
  /// is not ours, EMFILE, EINVAL.
  Result<int> duplicate(int fd, bool cloexec, int lowest = 0);
  /// Reserves a number in the kernel's table (lowest free, at least `lowest`) by duplicating the placeholder,
  /// and makes it refer to `file`, taking over one reference if that succeeds. EMFILE, ENFILE, ENOMEM.
  /// `cloexec` is O_CLOEXEC of the kernel's descriptor.
  Result<int> install(OpenFile* file, bool cloexec, int lowest = 0);
  /// The same with lock() held.
  Result<int> install_locked(OpenFile* file, bool cloexec, int lowest = 0);
  /// The smallest number >= `fd` that refers to something of ours; -1: none.
  int next(int fd) const;
  /// Some number refers to `file`.
  bool refers_to(const OpenFile& file) const;
  /// Calls `visit(fd, file)` for each, ascending; `visit` may clear the entry.
  template <typename Visit>
  void each(Visit&& visit) {
    for (int fd = next(0); fd >= 0; fd = next(fd + 1)) visit(fd, look_in(fd));
  }

  /// Held across what changes both an entry and the kernel's table, so that a fork in another thread sees
  /// either both or none: the child inherits both tables. Of the process; taken under the host's lock, and
  /// the host's lock is never taken under it. (Where that covers a shard, before the common one.)
  static ProcessLock& lock() { return lock_; }
  /// Puts the kernel's `kernel` on the number in one step, so that it is never free in between; close-on-exec
  /// as before. The entry stays as it is. lock() held.
  static void put_below(int fd, int kernel);

 private:
  static constexpr unsigned kChunk = 1024;
  struct Chunk {
    std::array<std::atomic<OpenFile*>, kChunk> entries{};
  };
  friend class ustack::Arena;
  explicit FdTable(Arena& arena);
  ~FdTable() = default;
  OpenFile* look_in(int fd) const;
  /// A number has ceased to refer to `file`, whose twin may have to go.
  void let_go(OpenFile& file);
  /// nullptr: no memory.
  std::atomic<OpenFile*>* entry(int fd);

  /// Marks `fd` as the current table's or not, if that is what this is.
  void mark(int fd, bool ours) const;

  static inline FdTable* current_ = nullptr;
  static inline ProcessLock lock_;
  /// A bit for each of the lowest descriptors, set before the current table's entry is and cleared after it:
  /// a descriptor of the kernel's costs a look at memory that lies beside real::'s pointers, not at the
  /// table, whose pages are two more for the processor to find after each system call.
  static constexpr unsigned kNear = 4096;
  static inline std::array<std::atomic<uint64_t>, kNear / 64> near_{};
  /// What chunks point to that don't exist yet; the library's, at the same address in all relatives.
  static Chunk empty_;

  Arena& arena_;
  std::array<std::atomic<Chunk*>, kLimit / kChunk> chunks_;
};

}  // namespace ustack::shim
