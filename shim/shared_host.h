// What the processes of one host share beside the host itself: the lock, the role of the driver, who sleeps
// and who is attached. At the head of the arena's region.
//
//   region: | SharedRegion | SharedHost | SharedArena: Host, endpoints, tables, waiters ... |
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "io/link.h"
#include "io/shared_region.h"
#include "shim/driver.h"
#include "shim/escaped_end.h"
#include "shim/file_step.h"
#include "shim/keeper.h"
#include "shim/link_queue.h"
#include "stack/base/intrusive_list.h"
#include "stack/host.h"
#include "stack/mem/shared_arena.h"

namespace ustack::shim {

class FdTable;
class OpenFile;

/// A process that uses the host, and what is to be given back when it has died.
struct Attachment : ListHook<> {
  /// 0 until the parent or the child knows it, after a fork.
  std::atomic<int32_t> pid{0};
  /// Where `pid` is a process's number; 0: not known.
  std::atomic<uint64_t> pid_namespace{0};
  /// The number as its parent knows it, and where: another one for the first process of a namespace.
  int32_t outer_pid = 0;
  uint64_t outer_namespace = 0;
  /// The keeper's descriptor of the process; -1: it has none.
  int keepers_descriptor = -1;
  /// Never used twice.
  uint64_t serial = 0;
  FdTable* table = nullptr;
  /// Of its threads.
  IntrusiveList<Waiter, OfProcess> waiters;
  /// Shared events that its threads sleep on, a bit each.
  uint64_t shared_events = 0;
  /// It has closed everything and is about to end; its table may still be looked at until it has.
  bool ended = false;

  /// Its number in a PID namespace; 0: not known. Lock held.
  int32_t number_in(uint64_t where) const;
  /// Not 0: it is about to exec, and has left if that succeeds (departure.h).
  uint64_t departure = 0;
};

/// A part of the host with a lock of its own (stack/shards.h); mostly there is one, which is all of it.
struct Shard {
  /// Robust and process-shared: its owner may die.
  pthread_mutex_t lock;
  /// The owner of `lock` is about to change what is shared, or does. Found set by who gets the lock next, it
  /// has died: the host is repaired.
  bool changing = false;
  Arena* arena = nullptr;
  Host* host = nullptr;
  /// When somebody last took in what had come over the link.
  Instant last_look{};
};

/// Lock: that of its only shard. Where there are several, what is changed is changed with the locks of all
/// held and common_lock, and read with any of them; but what is said to be under common_lock needs that
/// alone, as do waiters and their entries in queues (with their shard's), epoll sets and files' reference
/// counts.
struct SharedHost {
  std::array<Shard, Shards::kMost> shards;
  uint32_t shard_count = 1;
  /// Of their stack.
  Shards hosts;
  /// Robust and process-shared. Used where there are several shards only; the last to be taken.
  pthread_mutex_t common_lock;

  io::SharedRegion* region = nullptr;
  /// What is no shard's. Under common_lock.
  Arena* arena = nullptr;
  /// The first shard's.
  Host* host = nullptr;
  /// io::Config::identity() of the program that has made it.
  uint64_t configured_as = 0;

  /// The link's. How many there are doesn't change.
  std::array<LinkQueue, io::Link::kMaxQueues> queues;
  uint32_t queue_count = 1;
  /// More than one thread uses the host, or the link has several queues: frames are written without the lock
  /// (link_queue.h), and who finds the lock held looks at it for a moment before it sleeps.
  std::atomic<bool> parallel = false;
  /// Threads that wait while another one drives, longest first; a driver that leaves wakes the first. Under
  /// common_lock.
  IntrusiveList<Waiter> sleepers;
  /// Waiters whose word was set, to be woken when the lock is dropped. Under common_lock, but for whether
  /// there are any.
  IntrusiveList<Waiter, PendingWake> wakes;
  std::atomic<bool> wakes_pending = false;
  /// Those among them that only the driver can wake, while the lock is dropped.
  IntrusiveList<Waiter, PendingWake> wakes_elsewhere;

  /// All open files, whoever has them; and those that nothing refers to any more, which are closed when the
  /// lock next covers all. Under common_lock.
  IntrusiveList<OpenFile> files;
  IntrusiveList<OpenFile> unreferenced;
  /// There may be some of those.
  std::atomic<bool> closing_pending = false;
  IntrusiveList<Attachment> attached;
  /// How many there are, and how many of them have not ended.
  uint32_t attachments = 0, attached_count = 0;
  uint64_t last_serial = 0;
  /// When reap_dead() was last asked.
  Instant last_reap{};
  /// A bit for each shared event (events.h) in use. Under common_lock.
  uint64_t shared_events = 0;

  /// Ends of files outside of the library, which the keeper serves (escape.h).
  IntrusiveList<EscapedEnd> escaped;
  uint64_t last_departure = 0;

  /// How often the host was repaired.
  uint64_t repairs = 0;
  /// The steps on lists that are under way: in a shard's memory, and in `arena` if that is another.
  ListJournals journals;
  /// The same of a file's reference count. Under common_lock.
  FileStep file_step;

  keeper::Record keeper;

  /// Where it has several shards, each has a queue.
  bool sharded() const { return shard_count > 1; }
  /// When somebody last took in what came by a thread's queue.
  Instant& last_look(const Waiter& waiter) { return shards[sharded() ? waiter.queue : 0].last_look; }
  /// The part of `journals` that notes what is in `arena`.
  size_t common_part() const { return sharded() ? shard_count : 0; }
  template <typename Visit>
  void each_shard(Visit&& visit) {
    for (uint32_t i = 0; i < shard_count; ++i) visit(shards[i]);
  }
  /// The host whose frames a queue's are.
  Host& host_of_queue(uint32_t queue) { return *shards[sharded() ? queue : 0].host; }
  /// The one whose queue a thread drives.
  Host& host_of(const Waiter& waiter) { return host_of_queue(waiter.queue); }
  /// All shards' counters.
  Counters counters();
  /// The queue that a thread drives.
  LinkQueue& queue_of(const Waiter& waiter) { return queues[waiter.queue]; }
  /// There is a queue that nobody looks at. Lock held.
  bool unattended() const;
  /// A thread has got its waiter, or one is gone: `parallel` may change. Lock held.
  void threads_changed();
  /// The queue with the fewest threads, for a new one. Lock held.
  uint8_t queue_for_new_thread();
  /// The longest sleeper among the threads of a queue, `for_keeper`: of those that the keeper can wake.
  /// nullptr: none. Lock held.
  Waiter* next_sleeper(const LinkQueue& queue, bool for_keeper = false);
  /// It looks at no other queue than its own any more. Lock held.
  void forget_guest(const Waiter& waiter);
  /// The thread drives no more. Lock held.
  void forget_driver(const Waiter& waiter);
  /// The thread is dead, or will be before it writes anything more. Lock held.
  void forget_writer(Waiter& waiter);
  /// Nothing is left to be sent: Host::drained(), and all frames are the link's. Lock held.
  bool drained();

  /// Frees what is left of processes that have died, and closes what they had open if they died without a
  /// word (kill -9), as far as their numbers tell: not while they are zombies. Lock held.
  void reap_dead();
  /// Ends sockets that no file has: of a process that was killed before it made one, or while it closed it.
  /// Lock held.
  void release_lost_sockets();
  /// Takes a process in, with its table. nullptr: no memory. Lock held, or not yet shared.
  Attachment* attach(FdTable* table);
  void detach(Attachment& attachment);
  /// The process is dead: closes what it had open if it died without a word.
  void bury(Attachment& attachment);
  /// Makes the locks. The memory is zeroed.
  void initialise_locks();
};

/// Shows a census what threads have of the host's memory while they are outside of it. Lock held.
void show_threads(Census& census);

/// This process's host; nullptr before it has one.
extern SharedHost* shared_host;
/// It has several shards.
inline bool has_shards = false;

}  // namespace ustack::shim
