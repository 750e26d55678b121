// Which of this process's descriptors are ours. Each is also a real kernel descriptor of the same number (a
// duplicate of one placeholder socket), so that numbers never collide.
#pragma once

#include <atomic>
#include <cstdint>

#include "shim/open_file.h"
#include "stack/base/result.h"

namespace ustack::shim {

/// One per process, in the arena. look() is free of locks and made for the hooks' first line; everything else
/// is under the host's lock. An entry is cleared before the kernel's close of the number, and every hook that
/// returns a fresh number clears that number's stale entry first.
class FdTable {
 public:
  /// Largest descriptor number that can be ours, exclusive.
  static constexpr int kLimit = 1 << 20;

  /// The entry as it is this instant: nullptr for a descriptor of the kernel's, a negative or a too large
  /// one. The pointer may be compared but not followed unless the host's lock is held.
  static OpenFile* look(int fd) {
    FdTable* table = current_;
    if (table == nullptr || static_cast<unsigned>(fd) >= static_cast<unsigned>(kLimit)) return nullptr;
    return table->entries_[fd].load(std::memory_order_acquire);
  }
  /// This process's table, nullptr until it has a host.
  static FdTable* current() { return current_; }

  /// Makes `fd` refer to `file`, taking over one reference; what it referred to before is released.
  void set(int fd, OpenFile* file);
  /// The number no longer refers to anything of ours; its reference is released. False if it did not.
  bool clear(int fd);
  /// Another number for what `fd` refers to: F_DUPFD (lowest free number, at least `lowest`). EBADF if `fd`
  /// is not ours, EMFILE, EINVAL.
  Result<int> duplicate(int fd, bool cloexec, int lowest = 0);
  /// Reserves a number in the kernel's table (lowest free, at least `lowest`) by duplicating the placeholder,
  /// and makes it refer to `file`. EMFILE, ENFILE. `cloexec` is O_CLOEXEC of the kernel's descriptor.
  Result<int> install(OpenFile* file, bool cloexec, int lowest = 0);

 private:
  friend class Process;
  static inline FdTable* current_ = nullptr;
  std::atomic<OpenFile*>* entries_ = nullptr;  // kLimit of them, sparse
};

}  // namespace ustack::shim
