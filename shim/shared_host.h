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

/// Lock: its own `lock`, but for what is said to be read without.
struct SharedHost {
  /// Robust and process-shared: its owner may die.
  pthread_mutex_t lock;

  io::SharedRegion* region = nullptr;
  Arena* arena = nullptr;
  Host* host = nullptr;
  /// io::Config::identity() of the program that has made it.
  uint64_t configured_as = 0;

  /// The link's. How many there are doesn't change.
  std::array<LinkQueue, io::Link::kMaxQueues> queues;
  uint32_t queue_count = 1;
  /// More than one thread uses the host, or the link has several queues: frames are written without the lock
  /// (link_queue.h), and who finds the lock held looks at it for a moment before it sleeps.
  std::atomic<bool> parallel = false;
  /// When somebody last took in what had come over the link.
  Instant last_look{};

  /// Threads that wait while another one drives, longest first; a driver that leaves wakes the first.
  IntrusiveList<Waiter> sleepers;
  /// Waiters whose word was set, to be woken when the lock is dropped.
  IntrusiveList<Waiter, PendingWake> wakes;
  /// Those among them that only the driver can wake, while the lock is dropped.
  IntrusiveList<Waiter, PendingWake> wakes_elsewhere;

  /// All open files, whoever has them.
  IntrusiveList<OpenFile> files;
  IntrusiveList<Attachment> attached;
  /// How many there are, and how many of them have not ended.
  uint32_t attachments = 0, attached_count = 0;
  uint64_t last_serial = 0;
  /// When reap_dead() was last asked.
  Instant last_reap{};
  /// A bit for each shared event (own_events.h) in use.
  uint64_t shared_events = 0;

  /// Ends of files outside of the library, which the keeper serves (escape.h).
  IntrusiveList<EscapedEnd> escaped;
  uint64_t last_departure = 0;

  /// The owner of `lock` is about to change what is shared, or does. Found set by who takes the lock over
  /// from one that has died, the host is repaired: `repairs` counts that.
  bool changing = false;
  uint64_t repairs = 0;
  /// The step on a list that is under way.
  ListJournal journal;
  /// The same of a file's reference count.
  FileStep file_step;

  keeper::Record keeper;

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
  bool drained() const;

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

}  // namespace ustack::shim
