// A queue of the link (USTACK_QUEUES), and who reads and writes it.
//
// With one queue there is one driver. With several each has a driver of its own, so that threads and
// processes sleep on the link and read it side by side; what TCP does in between stays under the host's one
// lock. A thread belongs to a queue for its life (Waiter::queue), a connection to the queue of the thread
// that has used it last.
//
// Of a host that only one thread uses frames are written under the lock (io::transmit). Else
// (SharedHost::parallel) the lock is dropped for that, which is most of the time that a segment takes:
//
//   Host::transmit_queue() --> LinkQueue::pending --> Outbox of the thread that is its writer --> link
//       lock held                lock held              no lock: the kernel takes the frame up to the peer
//
// A queue has one writer at a time, so that a connection's frames keep their order; who finds another one at
// it leaves its frames behind, and the writer takes them too.
#pragma once

#include <pthread.h>

#include <array>
#include <cstdint>

#include "stack/host.h"

namespace ustack::shim {

struct SharedHost;
struct Waiter;

/// Frames that a thread is writing. In the arena, with its waiter. Lock: the host's, while none is under way.
class Outbox {
 public:
  static constexpr uint32_t kMost = 16;

  /// Takes frames off `queue`, as many as there is room for.
  void fill(FrameQueue& queue);
  /// Writes them to a queue of this process's link, until one finds it full. No lock.
  void write(uint32_t queue);
  /// Gives back what was written, to the host whose frames they are; the rest goes back to the head of
  /// `queue`, in order. False: the link is full.
  bool empty(Host& host, FrameQueue& queue);
  /// The link's queue that they are for.
  uint32_t destination = 0;
  /// Shows it to a census.
  void show(Census& census) const;
  /// Its thread is dead. `host`: whose frames they are.
  void give_back(Host& host);

 private:
  uint32_t count_ = 0;
  std::array<TxFrame*, kMost> frames_;
  std::array<long, kMost> results_;
};

/// Lock: the host's, but for `role`; where the host has shards, each has one of these, under its lock.
struct LinkQueue {
  /// Held by the thread that drives, for as long as it does. A robust mutex and not a mere word, so that the
  /// death of its owner frees the role.
  pthread_mutex_t role;
  /// Who drives, for people and for wake(); the thread that has `role`.
  Waiter* driver = nullptr;
  int32_t driver_pid = 0, driver_tid = 0;
  /// How often the role was taken.
  uint64_t driver_generation = 0;
  /// "Asleep until T": when the driver will look at the host again by itself; kAwake while it is about to
  /// anyway. Others that move the next deadline before it wake the driver.
  static constexpr Instant kAwake = Instant::min();
  Instant asleep_until = kAwake;
  /// When it last lost a driver.
  Instant left_at{};
  /// For whom alone frames have come so many times in a row; compared only.
  const Waiter* served = nullptr;
  uint32_t times_served = 0;
  /// Who looks at it beside a queue of its own, as nobody else does.
  Waiter* guest = nullptr;

  /// Frames for it, in order.
  FrameQueue pending;
  Waiter* writer = nullptr;
  /// How often a writer was done with what it had taken.
  uint64_t written = 0;
  /// The link had no room for the first of them.
  bool full = false;

  /// What comes in by it is seen.
  bool attended() const { return driver != nullptr || guest != nullptr; }
};

/// Sends off what is pending. Where SharedHost::parallel only; the lock is dropped meanwhile.
void write_out(SharedHost& shared);
/// Sorts what the host has queued by the queue that it leaves by. Lock held.
void distribute(SharedHost& shared);

}  // namespace ustack::shim
