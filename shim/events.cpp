#include "shim/events.h"

#include <sys/eventfd.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <utility>

#include "io/descriptor.h"
#include "io/own_descriptors.h"
#include "io/syscalls.h"
#include "shim/keeper.h"
#include "shim/process_state.h"
#include "shim/sandbox.h"
#include "shim/shared_host.h"

namespace ustack::shim::events {

namespace {

/// One more than the descriptor, so that the array begins as zeros. Never closed: a waker may be about to
/// write to what it has just looked up.
std::atomic<int> descriptors[kMost];
/// So many shared ones are made where the program's descriptors are few.
constexpr rlim_t kFewShared = 16;
/// make_shared_events() has been called: those that could not be made then are not missed.
bool all_shared_made = false;
/// A bit for each event of this process's own that is in use.
uint64_t own_in_use[kMost / 64];

bool make(int event) {
  if (descriptors[event].load(std::memory_order_relaxed) != 0) return true;
  if (sandbox::active()) return false;
  long made = io::sys::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (made < 0) return false;
  io::Descriptor fd(static_cast<int>(made));
  if (!io::move_high(fd).ok()) return false;
  descriptors[event].store(fd.release() + 1, std::memory_order_release);
  return true;
}

/// Closes one that nobody sleeps on.
void unmake(int event) {
  const int fd = descriptors[event].exchange(0) - 1;
  if (fd < 0) return;
  io::remove_own_descriptor(fd);
  io::sys::close(fd);
}

/// One past the last shared event that may be made: most of the descriptors are the program's.
int shared_end() {
  static int end = 0;
  if (end == 0) {
    rlimit limit{};
    io::sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, io::sys::arg(&limit));
    end = static_cast<int>(std::clamp<rlim_t>(limit.rlim_cur / 8, kFewShared, kShared));
  }
  return end;
}

/// A shared event that is made now, by the only process, and that the keeper is told of.
bool make_for_keeper(int event) {
  if (event >= shared_end() || !keeper::alive(*shared_host) || !make(event)) return false;
  if (keeper::share_event(event)) return true;
  unmake(event);
  return false;
}

/// Those that the keeper can set, too; `alone`: more may be made. -1: none is left.
int take_shared(SharedHost& shared, bool alone) {
  for (int event = kFirstShared; event < kShared; ++event) {
    uint64_t mine = uint64_t{1} << event;
    if ((shared.shared_events & mine) != 0) continue;
    if (descriptor(event) < 0 && !(alone && make_for_keeper(event))) {
      if (alone) return -1;
      continue;
    }
    shared.shared_events |= mine;
    if (Attachment* own = process_state().attachment) own->shared_events |= mine;
    return event;
  }
  return -1;
}

}  // namespace

bool make_first_events(uint32_t queues) {
  for (uint32_t queue = 0; queue < queues; ++queue)
    if (!make(driver(queue))) return false;
  return make(kKeeper);
}

bool make_shared_events() {
  if (std::exchange(all_shared_made, true)) return false;
  int event = kFirstShared;
  while (event < shared_end() && make(event)) ++event;
  return event > kFirstShared;
}

int take() {
  SharedHost& shared = *shared_host;
  const bool alone = shared.attached_count <= 1 && !sandbox::active();
  if (int event = take_shared(shared, alone); event >= 0 || !alone) return event;
  for (int event = kShared; event < kMost; ++event) {
    uint64_t& word = own_in_use[event / 64];
    uint64_t mine = uint64_t{1} << (event % 64);
    if ((word & mine) != 0) continue;
    if (!make(event)) return -1;
    word |= mine;
    return event;
  }
  return -1;
}

void give_back(int event) {
  if (event < kFirstShared) return;
  if (event < kShared) {
    shared_host->shared_events &= ~(uint64_t{1} << event);
    if (Attachment* own = process_state().attachment) own->shared_events &= ~(uint64_t{1} << event);
  } else {
    own_in_use[event / 64] &= ~(uint64_t{1} << (event % 64));
  }
}

void after_fork_in_child() {
  for (int event = kShared; event < kMost; ++event)
    if (descriptor(event) >= 0) own_in_use[event / 64] |= uint64_t{1} << (event % 64);
}

void forget_own() {
  for (int event = kShared; event < kMost; ++event) descriptors[event].store(0, std::memory_order_relaxed);
}

void close_all() {
  for (int event = 0; event < kMost; ++event) unmake(event);
  for (uint64_t& word : own_in_use) word = 0;
}

void adopt(int event, io::Descriptor fd) {
  if (event < kFirstShared || event >= kShared || descriptor(event) >= 0 || !io::move_high(fd).ok()) return;
  descriptors[event].store(fd.release() + 1, std::memory_order_release);
}

int descriptor(int event) {
  if (event < 0) return -1;
  return descriptors[event].load(std::memory_order_acquire) - 1;
}

bool is_event(int fd) {
  for (auto& place : descriptors)
    if (place.load(std::memory_order_relaxed) == fd + 1) return true;
  return false;
}

bool move(int fd, int to) {
  for (auto& place : descriptors) {
    if (place.load(std::memory_order_relaxed) != fd + 1) continue;
    io::add_own_descriptor(to);
    place.store(to + 1, std::memory_order_release);
    io::remove_own_descriptor(fd);
    return true;
  }
  return false;
}

void set(int event) {
  int fd = descriptor(event);
  uint64_t one = 1;
  if (fd >= 0) io::sys::write(fd, &one, sizeof one);
}

void clear(int event) {
  int fd = descriptor(event);
  uint64_t value;
  if (fd >= 0) io::sys::read(fd, &value, sizeof value);
}

}  // namespace ustack::shim::events
