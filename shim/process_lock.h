// A lock between the threads of one process that a child of fork can simply begin anew.
#pragma once

#include <linux/futex.h>

#include <atomic>
#include <cstdint>

#include "io/syscalls.h"

namespace ustack::shim {

/// Constant-initialised, no libc, no owner. Meets BasicLockable for std::lock_guard and std::unique_lock.
class ProcessLock {
 public:
  void lock() {
    uint32_t free = 0;
    if (word_.compare_exchange_strong(free, 1, std::memory_order_acquire)) return;
    // 2: somebody may sleep (Drepper, "Futexes are tricky", mutex 2).
    while (word_.exchange(2, std::memory_order_acquire) != 0)
      io::sys::call(SYS_futex, io::sys::arg(&word_), FUTEX_WAIT_PRIVATE, 2, 0);
  }
  void unlock() {
    if (word_.exchange(0, std::memory_order_release) == 2)
      io::sys::call(SYS_futex, io::sys::arg(&word_), FUTEX_WAKE_PRIVATE, 1);
  }
  /// In a child: whoever held it or waited for it is not here.
  void reset() { word_.store(0, std::memory_order_relaxed); }

 private:
  std::atomic<uint32_t> word_{0};
};

}  // namespace ustack::shim
