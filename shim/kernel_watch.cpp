#include "shim/kernel_watch.h"

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>

#include "io/descriptor.h"
#include "io/fork_mark.h"
#include "io/syscalls.h"
#include "shim/driver.h"

namespace ustack::shim {

namespace {

/// Epoll sets that nobody uses now. After a fork they are still the parent's sets too: the child makes its
/// own.
struct Pool {
  static constexpr int kNone = -1;
  std::array<std::atomic<int>, 16> sets{kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone,
                                        kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone};
  std::atomic<uint64_t> generation{0};
};
constinit Pool pool;

void close_set(int set) {
  kernel_fd_closes();
  io::Descriptor(set).reset();
}

int take_set() {
  uint64_t now = io::fork_generation();
  if (pool.generation.exchange(now) != now) {
    for (auto& place : pool.sets)
      if (int inherited = place.exchange(Pool::kNone); inherited >= 0) close_set(inherited);
  }
  for (auto& place : pool.sets)
    if (int set = place.exchange(Pool::kNone); set >= 0) return set;
  io::Descriptor made(static_cast<int>(io::sys::call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  if (!made || !io::move_high(made).ok()) return -1;
  return made.release();
}

void give_back_set(int set) {
  for (auto& place : pool.sets) {
    int none = Pool::kNone;
    if (place.compare_exchange_strong(none, set)) return;
  }
  close_set(set);
}

long control(int set, int operation, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  return io::sys::call(SYS_epoll_ctl, set, operation, fd, io::sys::arg(&event));
}

uint32_t events_of(const pollfd& fd) { return static_cast<uint16_t>(fd.events); }

}  // namespace

bool KernelWatch::add(std::span<const pollfd> fds, size_t index) {
  const pollfd& fd = fds[index];
  long result = control(set_, EPOLL_CTL_ADD, fd.fd, events_of(fd));
  if (result == -EEXIST) {  // listed twice: what either asks for
    uint32_t events = 0;
    for (size_t i = 0; i <= index; ++i)
      if (fds[i].fd == fd.fd) events |= events_of(fds[i]);
    result = control(set_, EPOLL_CTL_MOD, fd.fd, events);
  }
  // EPERM: a file that is always ready for what it can do; it has been looked at and asked for nothing of
  // that.
  return result == 0 || result == -EPERM;
}

int KernelWatch::start(std::span<const pollfd> fds) {
  fds_ = fds;
  complete_ = true;
  set_ = take_set();
  if (set_ < 0) {
    complete_ = false;
    return -1;
  }
  for (size_t i = 0; i < fds.size(); ++i)
    if (fds[i].fd >= 0 && !add(fds, i)) complete_ = false;
  return set_;
}

KernelWatch::~KernelWatch() {
  if (set_ < 0) return;
  // For many it is cheaper to make another. One that can't be removed was closed meanwhile; if it lives on
  // under another number its registration would stay in the set for ever.
  bool reuse = fds_.size() <= 16;
  for (size_t i = 0; i < fds_.size() && reuse; ++i) {
    if (fds_[i].fd < 0) continue;
    long result = control(set_, EPOLL_CTL_DEL, fds_[i].fd, 0);
    bool seen = false;
    for (size_t j = 0; j < i; ++j) seen |= fds_[j].fd == fds_[i].fd;
    reuse = result == 0 || result == -EPERM || (result == -ENOENT && seen);
  }
  if (reuse)
    give_back_set(set_);
  else
    close_set(set_);
}

}  // namespace ustack::shim
