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

PollOutcome poll_once(int link_fd, bool link_full, const WaitRequest& request, Duration spin) {
  PollOutcome outcome;
  // A negative descriptor is ignored by poll.
  pollfd fds[3] = {{link_fd, static_cast<short>(POLLIN | (link_full ? POLLOUT : 0)), 0},
                   {request.wake_fd, POLLIN, 0},
                   {request.kernel_fd, POLLIN, 0}};
  size_t count = request.kernel_fd >= 0 ? 3 : request.wake_fd >= 0 ? 2 : 1;

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
    if (!spinning || ready != 0) break;
    asked = outcome.at;
  }

  outcome.result.interrupted = ready == -EINTR;
  outcome.result.timed_out = outcome.at >= request.deadline;
  if (ready <= 0) return outcome;
  outcome.link_readable = (fds[0].revents & ~POLLOUT) != 0;
  outcome.result.kernel = fds[2].revents != 0;
  if (fds[1].revents != 0) {
    uint64_t value;
    sys::read(request.wake_fd, &value, sizeof value);
    outcome.result.woken = true;
  }
  return outcome;
}

}  // namespace ustack::io
