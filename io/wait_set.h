// What an engine sleeps on when it has nothing for the ring. Internal to io/.
#pragma once

#include <array>
#include <cstdint>

#include "io/descriptor.h"
#include "io/engine.h"
#include "io/poll_once.h"

namespace ustack::io {

/// The same as poll_once(), cheaper when one wait follows another: a kernel epoll set keeps what is waited
/// for from wait to wait, and a timerfd its deadlines, so that a wait neither starts nor stops a timer of the
/// kernel (0.6 us of 12 for a request and its answer) and a program's epoll set among them costs nothing
/// more. Deadlines mostly move away (a retransmission time-out, with every request), so the timer stays set
/// for the earliest and once in a while ends a wait for nothing.
///
/// Falls back to poll_once() where descriptors are exhausted and for what epoll can't watch. One per thread.
class WaitSet {
 public:
  WaitSet() = default;
  WaitSet(const WaitSet&) = delete;
  WaitSet& operator=(const WaitSet&) = delete;

  /// As poll_once().
  PollOutcome wait(const Link& link, uint32_t queues, bool link_full, const WaitRequest& request,
                   Duration spin);
  /// Engine::forget(). The number may be closed already, or have become another file's.
  void forget(int kernel_fd);
  /// Closes its descriptors; the next wait() makes new ones.
  void close();

 private:
  /// What an event is about: the lower half of its user data; the upper is the serial number of kernel_, or
  /// the link's queue.
  enum Source : uint32_t { kLink, kWake, kTimer, kKernel };

  bool make();
  bool add(int fd, uint32_t events, Source source, uint32_t serial = 0);
  bool watch(const Link& link, uint32_t queues, bool link_full, const WaitRequest& request);
  bool watch_queue(const Link& link, uint32_t queue, uint32_t events);
  bool watch_kernel(int fd);
  bool set_timer(Instant deadline);

  Descriptor set_, timer_;
  int wake_ = -1, kernel_ = -1;
  /// What is in the set of a queue of the link, and for which events; 0: nothing.
  struct WatchedQueue {
    int fd = -1;
    uint32_t events = 0;
  };
  std::array<WatchedQueue, Link::kMaxQueues> queues_;
  uint32_t serial_ = 0;
  /// The kernel_fd of the last wait. Who is asked for once only is not worth its place in the set.
  int asked_ = -1;
  /// When the timer will expire; kNever: it isn't set.
  Instant armed_ = kNever;
  /// Descriptors ran out: not tried again.
  bool unavailable_ = false;
};

}  // namespace ustack::io
