#include "shim/blocker.h"

#include "io/clock.h"
#include "shim/host_lock.h"
#include "shim/scope.h"
#include "shim/shared_host.h"

namespace ustack::shim {

Status Blocker::wait(WaitQueue& queue, uint32_t events, bool exclusive, int kernel_fd) {
  if (ends_with_ != 0) return Error{ends_with_};
  if (nonblocking_) {
    ends_with_ = EAGAIN;
    SharedHost& shared = *shared_host;
    const Waiter* waiter = this_thread().waiter;
    const Duration since_look = covered_host(shared).now() -
                                (waiter != nullptr ? shared.last_look(*waiter) : shared.shards[0].last_look);
    if ((events & ready::kIn) == 0 || !this_thread().habit.waits_next(&queue, since_look))
      look_at_link(lock_);
    return {};
  }
  if (Status s = wait_.on(queue, events, exclusive); !s.ok()) return s;
  if (limit_ > Duration(0) && deadline_ == kNever) deadline_ = io::now() + limit_;
  switch (wait_.sleep(lock_, {.deadline = deadline_, .kernel_fd = kernel_fd})) {
    case WaitOutcome::notified:
    case WaitOutcome::kernel:
      break;
    case WaitOutcome::timed_out:
      ends_with_ = EAGAIN;
      break;
    // A call with a time limit is never restarted: it would wait for longer than it was told (signal(7)).
    case WaitOutcome::interrupted:
      ends_with_ = limit_ > Duration(0) ? EINTR : kRestart;
      break;
  }
  return {};
}

Status Blocker::wait_turn(WaitQueue& queue) {
  if (Status s = wait_.on(queue, ready::kIn); !s.ok()) return s;
  if (wait_.sleep(lock_, {}) == WaitOutcome::interrupted)
    return Error{limit_ > Duration(0) ? EINTR : kRestart};
  return {};
}

}  // namespace ustack::shim
