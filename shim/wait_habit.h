// Whether a thread that finds nothing to receive waits next.
//
// A call that must not wait looks at the link before it says EAGAIN: a program that polls would never get
// anything else. Most programs don't poll. Their event loops read until there is nothing more, or read first
// and wait if there is nothing, and the wait itself looks at the link: looking twice is a system call and a
// round of the stack for each request (PostgreSQL, memcached, MariaDB, OpenSSL's clients).
#pragma once

#include <cstdint>

#include "stack/base/time.h"

namespace ustack::shim {

/// Of one thread, learned from what it did of late. No lock: the thread's own.
class WaitHabit {
 public:
  /// So many waits in a row that came after a vain call are believed.
  static constexpr uint32_t kBelieved = 8;
  /// What has come on the link within that time may be found later. A program can't know of it: on a link it
  /// might as well still be under way.
  static constexpr Duration kRecent = 200us;

  /// A call found nothing in `queue`, and the link was looked at `since_look` ago. True: it need not be now.
  bool waits_next(const void* queue, Duration since_look) {
    if (vain_ == queue) waits_ = 0;  // again, without a wait: it polls
    vain_ = queue;
    return waits_ >= kBelieved && since_look < kRecent;
  }
  /// It waits (poll, select, epoll_wait).
  void waits() {
    if (vain_ == nullptr) return;
    vain_ = nullptr;
    if (waits_ < kBelieved) ++waits_;
  }

 private:
  /// The queue of the last vain call since the last wait; compared only.
  const void* vain_ = nullptr;
  uint32_t waits_ = 0;
};

}  // namespace ustack::shim
