// Who runs the stack. There is no stack thread: the thread of the program that waits drives.
//
//   recv() --> lock --> would block? --> is somebody driving?
//                                          | no                                   | yes
//                      take the role, unlock, Engine::wait, lock,       unlock, sleep on the own word or
//                      deliver frames, Host::run, transmit,             eventfd until a driver sets it
//                      look again ... leave the role, wake one sleeper
//
// Nobody is woken where the frames of late were all for the one that leaves, if it is always back in a moment
// (promptness.h); and one that drives for another thread only leaves the role to that. The keeper sees to it
// that somebody drives if it isn't back.
//
// The role, the sleepers and the lock live in the arena, so that relatives after fork take turns. A link with
// several queues has as many drivers (link_queue.h).
#pragma once

#include <atomic>
#include <csignal>
#include <cstdint>

#include "io/holdings.h"
#include "shim/link_queue.h"
#include "shim/promptness.h"
#include "stack/base/intrusive_list.h"
#include "stack/base/time.h"
#include "stack/host.h"

namespace ustack::shim {

struct SharedHost;

/// All of the host and not one of its shards.
inline constexpr uint8_t kWhole = 0xff;

/// The host's lock held: robust and process-shared. Nobody waits or copies the program's bytes under it.
/// Frames that came out of the stack meanwhile are handed to the link, and threads that were woken get their
/// wake-up, when it is dropped.
class HostLock {
 public:
  /// Takes the current process's host's lock and brings the host's time up to date.
  HostLock();
  /// The same of what transfers on a descriptor need: the shard of its socket, if it has one (host_lock.h).
  struct Transfer {
    int fd;
  };
  explicit HostLock(Transfer transfer);
  /// As without an argument.
  struct All {
    int fd;
  };
  explicit HostLock(All) : HostLock() {}
  /// The same of the shard whose queue the calling thread drives.
  struct Own {
    int fd = -1;
  };
  explicit HostLock(Own);
  ~HostLock();
  HostLock(const HostLock&) = delete;
  HostLock& operator=(const HostLock&) = delete;

  Host& host() const;
  /// From here on it covers that shard, or kWhole. Dropped meanwhile, unless it did before.
  void cover(uint8_t what);
  /// Runs what became ready and transmits, then drops the lock; lock() takes it again. For copying.
  void unlock();
  void lock();
  /// The same where a lock is held that comes after this one, so that it can't be taken again to send. False:
  /// something is left to be sent, by the next unlock().
  bool unlock_unsent();

 private:
  explicit HostLock(uint8_t covers);

  bool held_ = false;
  /// What the thread's lock covers when it next takes one.
  uint8_t before_;
};

struct OfProcess;    // tag: waiters of one process's threads
struct PendingWake;  // tag: waiters that get their wake-up when the lock is dropped

/// Where one thread sleeps while others drive. In the arena, so that a driver in any process can wake it.
/// Lock: the host's (of shards, the common one), but for the word.
struct Waiter : ListHook<>, ListHook<PendingWake>, ListHook<OfProcess> {
  /// 0 asleep or about to; 1 woken. Set under the lock or by a signal handler; also a futex word.
  std::atomic<uint32_t> word{0};
  /// How to end the sleep: by an event (events.h), or by the futex on the word.
  static constexpr int kNoEvent = -1;
  int event = kNoEvent;
  /// Something that its thread waits for has come since sleep() last said so.
  std::atomic<bool> notified = false;
  /// Entries that it has in wait queues (Wait).
  uint32_t registrations = 0;
  /// Its thread sleeps or has made up its mind to: who sets the word must end the sleep.
  bool asleep = false;
  /// The link's that its thread drives, whose frames are those of the shard of that number.
  uint8_t queue = 0;
  /// Whether it is worth waiting for while it drives (Sleep).
  Promptness promptness;
  /// What its thread's engine has of the host's.
  io::Holdings holdings;
  /// What its thread writes.
  Outbox outbox;
};

/// Shows what a thread has of the host's memory, to a census. Lock: the host's.
void show(const Waiter& waiter, Census& census);
/// For WaitEntry::Notify functions of code that registers its own entries (an epoll set's, ...) for a thread:
/// its wait ends as `notified`. Returns false if it was to be woken already. Lock: the host's.
bool wake(Waiter& waiter);
/// The calling thread's waiter; nullptr when the arena is exhausted (ENOMEM). Lock: the host's.
Waiter* this_waiter();

/// For calls that find nothing and must not wait (O_NONBLOCK, a time-out of zero): takes from the link what
/// has come in, if nobody else is driving, and processes it. The lock is dropped meanwhile. Call it before
/// giving EAGAIN, then look once more.
void look_at_link(HostLock& lock);

/// For calls that need nothing from the link and may follow each other for long (a program that only sends):
/// the same if nobody has looked for a while, so that acknowledgements don't wait for the keeper.
void look_at_link_now_and_then(HostLock& lock);

/// A descriptor that was (or may have been) the kernel_fd of a wait is about to be closed: its number may
/// come back for something else.
void kernel_fd_closes();

/// What a blocking call waits for besides its time-out and signals.
struct WaitRequest {
  Instant deadline = kNever;
  /// A kernel descriptor (usually an epoll set) whose readability ends the wait too; -1: none.
  int kernel_fd = -1;
  /// ppoll, pselect, epoll_pwait: the signal mask that is in force while waiting; nullptr: as it is.
  const sigset_t* signal_mask = nullptr;
  /// Ends as `notified` whenever frames were processed, whomever they were for: an exiting program's.
  bool any_frame = false;
};

enum class WaitOutcome : uint8_t {
  notified,     ///< a wait entry of this call was notified
  kernel,       ///< kernel_fd became readable
  timed_out,    ///< the deadline has passed
  interrupted,  ///< a signal handler has to run (or ran): EINTR or restart as SA_RESTART says
};

/// One call's wait: registers wait entries, then waits. The pattern of every blocking call:
///
///   HostLock lock;
///   Wait wait;                          // no cost until it is used
///   for (;;) {
///     auto result = socket.view_receive(...);
///     if (result.code() != EAGAIN || nonblocking) break;
///     wait.on(socket.waiters, ready::kIn);
///     switch (wait.sleep(lock, request)) { ... }
///   }
class Wait {
 public:
  Wait();
  /// Unregisters. The lock must be held.
  ~Wait();
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;

  /// Registers for events of a queue. For the next sleep() ask again in the same order: that is cheap and
  /// changes the events; a queue asked for twice has both wishes. The first few entries cost nothing, more
  /// come from the arena: ENOMEM.
  Status on(WaitQueue& queue, uint32_t events, bool exclusive = false);
  /// Waits until something registered is notified since the last sleep() (a notification between on() and
  /// sleep() counts), or as `request` says. The lock is held before and after, not in between; drives if
  /// nobody does. A deadline in the past still looks once, at the link and at kernel_fd. What was notified
  /// goes before readiness of kernel_fd, that before a signal, and that before the deadline.
  WaitOutcome sleep(HostLock& lock, const WaitRequest& request);
  /// kernel_fd was readable when the last sleep() last looked, whatever has ended it.
  bool kernel_ready() const { return kernel_ready_; }

 private:
  struct Registration;
  static Registration* at(Waiter& waiter, uint32_t index);
  friend void withdraw(Waiter& waiter);
  friend void end_calls(Waiter& waiter);
  friend void pass_on(Waiter& waiter);

  Waiter* waiter_ = nullptr;
  /// The registration that is probably asked for next.
  uint32_t cursor_ = 0;
  /// Counts sleeps.
  uint32_t turn_ = 0;
  bool kernel_ready_ = false;
};

}  // namespace ustack::shim
