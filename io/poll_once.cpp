#include "io/poll_once.h"

#include <algorithm>
#include <cerrno>

#include "io/clock.h"

namespace ustack::io {

namespace {

__kernel_timespec to_timespec(Duration d) {
  return {static_cast<long long>(d.count() / 1'000'000'000),
          static_cast<long long>(d.count() % 1'000'000'000)};
}

}  // namespace

PollOutcome poll_once(const Link& link, uint32_t queues, bool link_full, const WaitRequest& request,
                      Duration spin) {
  PollOutcome outcome;
  constexpr size_t kOthers = 2;
  // A negative descriptor is ignored by poll, but counts (RLIMIT_NOFILE).
  pollfd fds[kOthers + Link::kMaxQueues]{};
  uint32_t queue_of[kOthers + Link::kMaxQueues];
  size_t count = 0;
  for (uint32_t queue = 0; queue < link.queues(); ++queue) {
    if ((queues & 1u << queue) == 0) continue;
    queue_of[count] = queue;
    fds[count++] = {link.fd(queue), static_cast<short>(POLLIN | (link_full ? POLLOUT : 0)), 0};
  }
  const size_t links = count;
  fds[count++] = {request.wake_fd, POLLIN, 0};
  fds[count++] = {request.kernel_fd, POLLIN, 0};
  if (request.kernel_fd < 0) count -= request.wake_fd < 0 ? 2 : 1;

  Instant begin = now();
  Instant spin_until = spin > Duration(0) ? std::min(request.deadline, begin + spin) : begin;
  long ready;
  for (Instant asked = begin;;) {
    bool spinning = asked < spin_until;
    __kernel_timespec timeout{};
    bool endless = !spinning && request.deadline == kNever;
    if (!spinning && request.deadline > asked && !endless) timeout = to_timespec(request.deadline - asked);
    ready = sys::ppoll(fds, count, endless ? nullptr : &timeout, request.signal_mask);
    outcome.at = now();
    outcome.slept = outcome.at - asked >= kSleptAtLeast;
    if (!spinning || ready != 0) {
      outcome.spin = spin_outcome(begin, spin_until, request.deadline, spinning);
      break;
    }
    asked = outcome.at;
  }

  outcome.result.interrupted = ready == -EINTR;
  outcome.result.timed_out = outcome.at >= request.deadline;
  if (ready <= 0) return outcome;
  for (size_t i = 0; i < links; ++i)
    if ((fds[i].revents & ~POLLOUT) != 0) outcome.readable |= 1u << queue_of[i];
  outcome.result.kernel = fds[links + 1].revents != 0;
  if (fds[links].revents != 0) {
    uint64_t value;
    sys::read(request.wake_fd, &value, sizeof value);
    outcome.result.woken = true;
  }
  return outcome;
}

}  // namespace ustack::io
