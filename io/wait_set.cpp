#include "io/wait_set.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "io/clock.h"
#include "io/syscalls.h"

namespace ustack::io {

namespace {

constexpr int kSignalBytes = 8;  // the kernel's sigset_t

long control(int set, int operation, int fd, epoll_event* event) {
  return sys::call(SYS_epoll_ctl, set, operation, fd, sys::arg(event));
}

}  // namespace

bool WaitSet::add(int fd, uint32_t events, Source source, uint32_t serial) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = uint64_t{serial} << 32 | source;
  return !sys::failed(control(set_.get(), EPOLL_CTL_ADD, fd, &event));
}

bool WaitSet::make() {
  if (unavailable_) return false;
  set_ = Descriptor(static_cast<int>(sys::call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  timer_ = Descriptor(
      static_cast<int>(sys::call(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)));
  // Edge-triggered: an expiry that was reported need not be read away.
  if (!set_ || !timer_ || !move_high(set_).ok() || !move_high(timer_).ok() ||
      !add(timer_.get(), EPOLLIN | EPOLLET, kTimer)) {
    close();
    unavailable_ = true;
    return false;
  }
  return true;
}

void WaitSet::close() {
  set_.reset();
  timer_.reset();
  wake_ = kernel_ = -1;
  queues_.fill({});
  armed_ = kNever;
}

void WaitSet::forget(int kernel_fd) {
  if (asked_ == kernel_fd || kernel_fd == -1) asked_ = -1;
  if (kernel_ == -1 || (kernel_ != kernel_fd && kernel_fd != -1)) return;
  // A file that is gone has left the set by itself. One that lives on under another number can't be taken out
  // by this one: its events will carry a serial number that is out of date.
  epoll_event none{};
  control(set_.get(), EPOLL_CTL_DEL, kernel_, &none);
  kernel_ = -1;
  ++serial_;
}

bool WaitSet::watch_kernel(int fd) {
  if (fd == kernel_ || fd == -1) return true;  // one that isn't asked for may stay until it is in the way
  if (std::exchange(asked_, fd) != fd) return false;
  forget(kernel_);
  asked_ = fd;
  if (!add(fd, EPOLLIN, kKernel, serial_)) return false;
  kernel_ = fd;
  return true;
}

/// Sees that a queue of the link is watched for `events`; 0: not at all. False: it can't be.
bool WaitSet::watch_queue(const Link& link, uint32_t queue, uint32_t events) {
  WatchedQueue& watched = queues_[queue];
  if (watched.events == events) return true;
  if (watched.events == 0) {
    if (!add(link.fd(queue), events, kLink, queue)) return false;
    watched.fd = link.fd(queue);
  } else {
    epoll_event event{};
    event.events = events;
    event.data.u64 = uint64_t{queue} << 32 | kLink;
    if (sys::failed(control(set_.get(), events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD, watched.fd, &event)))
      return false;
  }
  watched.events = events;
  return true;
}

/// Brings the set in line with what is to be waited for. False: it can't be.
bool WaitSet::watch(const Link& link, uint32_t queues, bool link_full, const WaitRequest& request) {
  bool moved = wake_ != request.wake_fd && wake_ != -1;
  for (uint32_t queue = 0; queue < link.queues(); ++queue)
    moved |= queues_[queue].events != 0 && queues_[queue].fd != link.fd(queue);
  if (set_ && moved) close();
  if (!set_ && !make()) return false;
  const uint32_t events = EPOLLIN | (link_full ? EPOLLOUT : 0u);
  for (uint32_t queue = 0; queue < link.queues(); ++queue)
    if (!watch_queue(link, queue, (queues & 1u << queue) != 0 ? events : 0)) return false;
  if (wake_ != request.wake_fd) {
    if (!add(request.wake_fd, EPOLLIN, kWake)) return false;
    wake_ = request.wake_fd;
  }
  return watch_kernel(request.kernel_fd);
}

bool WaitSet::set_timer(Instant deadline) {
  if (deadline == kNever || armed_ <= deadline) return true;
  int64_t at = std::max<int64_t>(deadline.time_since_epoch().count(), 1);
  itimerspec time{};
  time.it_value = {at / 1'000'000'000, at % 1'000'000'000};
  if (sys::failed(sys::call(SYS_timerfd_settime, timer_.get(), TFD_TIMER_ABSTIME, sys::arg(&time), 0)))
    return false;
  armed_ = deadline;
  return true;
}

PollOutcome WaitSet::wait(const Link& link, uint32_t queues, bool link_full, const WaitRequest& request,
                          Duration spin) {
  Instant begin = now();
  bool sleeps = request.deadline > begin;
  if (!watch(link, queues, link_full, request) || (sleeps && !set_timer(request.deadline)))
    return poll_once(link, queues, link_full, request, spin);

  PollOutcome outcome;
  Instant spin_until = spin > Duration(0) ? std::min(request.deadline, begin + spin) : begin;
  for (Instant asked = begin;; asked = outcome.at) {
    bool spinning = asked < spin_until;
    // Spinning may have taken all of the time there was.
    const bool sleep = sleeps && !spinning && asked < request.deadline;
    constexpr int kRoom = 3 + Link::kMaxQueues;
    epoll_event events[kRoom];
    long ready = sys::call(SYS_epoll_pwait, set_.get(), sys::arg(events), kRoom, sleep ? -1 : 0,
                           sys::arg(request.signal_mask), kSignalBytes);
    outcome.at = now();
    outcome.slept = outcome.at - asked >= kSleptAtLeast;
    outcome.result.interrupted = ready == -EINTR;
    bool stray = false;
    for (long i = 0; i < ready; ++i) {
      switch (static_cast<Source>(events[i].data.u64 & 0xffffffff)) {
        case kLink:
          if ((events[i].events & ~uint32_t{EPOLLOUT}) != 0)
            outcome.readable |= 1u << (events[i].data.u64 >> 32);
          break;
        case kWake: {
          uint64_t value;
          sys::read(request.wake_fd, &value, sizeof value);
          outcome.result.woken = true;
          break;
        }
        case kTimer:
          armed_ = kNever;
          break;
        case kKernel:
          if (events[i].data.u64 >> 32 != serial_)
            stray = true;
          else if (request.kernel_fd == -1)
            forget(kernel_);
          else
            outcome.result.kernel = true;
          break;
      }
    }
    if (stray) close();
    if (!spinning || ready != 0) {
      outcome.spin = spin_outcome(begin, spin_until, request.deadline, spinning);
      break;
    }
  }
  outcome.result.timed_out = outcome.at >= request.deadline;
  // It has gone off, or is about to: the next one is set anew, which takes that back.
  if (outcome.at >= armed_) armed_ = kNever;
  return outcome;
}

}  // namespace ustack::io
