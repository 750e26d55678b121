// The steps that HostLock and the driver are made of.
//
// Where the host has several shards, what a thread holds covers one of them, or all (kWhole: the locks of all
// shards in their order, and the common one). Much is done under kWhole; what a program does all the time
// needs the shard that its socket is in (transfers, epoll_ctl, close, options, names), or the one whose queue
// its thread drives (accept, epoll_wait). What of the shim's own is changed then is under CommonLock besides,
// and so are look-ups: what a number refers to may be another shard's, and closed there.
#pragma once

#include "shim/scope.h"
#include "shim/shared_host.h"

namespace ustack::shim {

/// Takes the lock of what this_thread().covers says; an owner that has died is noted.
void acquire(SharedHost& shared);
/// Drops it and ends the sleep of those that were woken under it.
void drop(SharedHost& shared);
/// Runs what is ready, hands frames to the link, and sees to it that the driver knows of an earlier deadline
/// or of frames that found the link full. Lock held; dropped meanwhile where several threads use the host.
void settle(SharedHost& shared);
/// From here on the lock covers a shard or kWhole. Settles what it has covered; dropped meanwhile.
void cover(SharedHost& shared, uint8_t what);
/// The same for its lifetime.
class Covering {
 public:
  Covering(SharedHost& shared, uint8_t what) : shared_(shared), before_(this_thread().covers) {
    cover(shared_, what);
  }
  ~Covering() { cover(shared_, before_); }
  Covering(const Covering&) = delete;
  Covering& operator=(const Covering&) = delete;

 private:
  SharedHost& shared_;
  uint8_t before_;
};
/// Runs what is ready of what is covered.
void run_ready(SharedHost& shared);
/// Some locks cover one shard. Not where frames are recorded, by one thread after the other.
bool locks_by_shard();
/// The host of the shard that is covered; of those, the calling thread's own.
Host& covered_host(SharedHost& shared);
/// Whether it covers all there is.
inline bool covers_all() { return !has_shards || this_thread().covers == kWhole; }
/// Whether the lock covers that shard.
inline bool is_covered(const SharedHost& shared, uint32_t shard) {
  return !shared.sharded() || this_thread().covers == kWhole || this_thread().covers == shard;
}
/// Calls visit(Host&) for each that is covered.
template <typename Visit>
void each_covered(SharedHost& shared, Visit&& visit) {
  for (uint32_t i = 0; i < shared.shard_count; ++i)
    if (is_covered(shared, i)) visit(*shared.shards[i].host);
}
/// Ends a sleep when the lock is dropped, without a notification: its thread looks at its conditions again.
void rouse(SharedHost& shared, Waiter& waiter);
/// The same for the driver that a queue has.
void wake_driver(SharedHost& shared, LinkQueue& queue);

/// SharedHost::common_lock held besides a shard's lock, for what that doesn't cover. May be taken again while
/// it is held. Nothing where the lock covers all.
class CommonLock {
 public:
  CommonLock() {
    if (has_shards) [[unlikely]]
      enter();
  }
  ~CommonLock() {
    if (has_shards) [[unlikely]]
      leave();
  }
  CommonLock(const CommonLock&) = delete;
  CommonLock& operator=(const CommonLock&) = delete;
  static void enter();
  static void leave();
};

}  // namespace ustack::shim
