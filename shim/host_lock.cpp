#include "shim/host_lock.h"

#include <linux/futex.h>

#include <cerrno>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/driver.h"
#include "shim/events.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "stack/base/sanitizers.h"

namespace ustack::shim {

namespace {

/// What is left to do for a waiter when the lock is dropped. Both stay valid whatever becomes of the waiter:
/// the arena stays mapped and events are never closed; at worst somebody looks once more than needed.
struct Ending {
  std::atomic<uint32_t>* word;
  int event;

  /// This process has what it takes.
  bool possible() const { return event == Waiter::kNoEvent || events::descriptor(event) >= 0; }
  void operator()() const {
    if (event != Waiter::kNoEvent)
      events::set(event);
    else
      io::sys::call(SYS_futex, io::sys::arg(word), FUTEX_WAKE, 1);
  }
};

/// Sleepers of another process that only its own events wake, which this one (the keeper) doesn't have. While
/// somebody sleeps there is a driver, or one is about to be; it wakes them when it drops the lock.
void leave_to_driver(SharedHost& shared) {
  shared.wakes.splice_back(shared.wakes_elsewhere);
  for (uint32_t i = 0; i < shared.queue_count; ++i) {
    Waiter* driver = shared.queues[i].driver;
    if (driver != nullptr && driver->asleep && driver->word.exchange(1) == 0)
      Ending{&driver->word, driver->event}();
  }
}

/// Who sleeps for the lock looks at it that often.
constexpr Duration kLockTick = 50ms;

/// Wake-ups made after the lock was dropped; more are made under it.
constexpr int kEndings = 32;

void make_robust(pthread_mutex_t& mutex) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
}

}  // namespace

SharedHost* shared_host = nullptr;

void SharedHost::initialise_locks() {
  make_robust(lock);
  for (LinkQueue& queue : queues) make_robust(queue.role);
  make_robust(keeper.life);
}

namespace {

/// This thread's calls have ended with the process (library_gate); the thread itself is about to.
[[noreturn]] void stay_out(SharedHost& shared) {
  if (Waiter* waiter = this_thread().waiter) {
    LinkQueue& queue = shared.queue_of(*waiter);
    if (pthread_mutex_unlock(&queue.role) == 0)  // robust: EPERM unless this thread has it
      if (Waiter* next = shared.next_sleeper(queue)) rouse(shared, *next);
    shared.forget_driver(*waiter);
    shared.forget_writer(*waiter);
  }
  drop(shared);
  for (;;) io::sys::ppoll(nullptr, 0, nullptr, nullptr);
}

void lock_host(SharedHost& shared);

}  // namespace

void acquire(SharedHost& shared) {
  lock_host(shared);
  ThreadState& thread = this_thread();
  if (thread.depth != 0 && thread.gate != library_gate.load(std::memory_order_relaxed)) [[unlikely]]
    stay_out(shared);
  shared.changing = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (shared.queue_count > 1 && thread.waiter != nullptr) shared.host->set_queue(thread.waiter->queue);
}

void show_threads(Census& census) {
  for (Attachment& process : shared_host->attached)
    for (Waiter& waiter : process.waiters) show(waiter, census);
  if (shared_host->keeper.waiter != nullptr) show(*shared_host->keeper.waiter, census);
  for (LinkQueue& queue : shared_host->queues) census.see(queue.pending);
}

namespace {

/// A process was killed in the middle of a change.
void repair(SharedHost& shared) {
  shared.journal.finish();
  ++shared.repairs;
  shared.host->log()(LogLevel::error, [](LogLine& line) {
    line << "a process was killed while it held the host's lock; the host is rebuilt from its endpoints";
  });
  shared.host->mend(&show_threads);
  shared.file_step.finish();
  shared.release_lost_sockets();
}

/// Tells the processor that this is a loop that waits.
void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// In place of pthread_mutex_lock(), which may sleep for ever: who drops the lock wakes one sleeper. If that
/// one is killed while a third, who knows of no sleepers, has the lock already, the next is told by nobody.
/// So it looks itself.
int sleep_for_lock(SharedHost& shared) {
  // It doesn't know pthread_mutex_clocklock().
  if constexpr (kThreadSanitizer) return pthread_mutex_lock(&shared.lock);
  for (;;) {
    const Duration until = (io::now() + kLockTick).time_since_epoch();
    const timespec deadline{.tv_sec = until / 1s, .tv_nsec = (until % 1s).count()};
    if (int result = pthread_mutex_clocklock(&shared.lock, CLOCK_MONOTONIC, &deadline); result != ETIMEDOUT)
      return result;
  }
}

/// Where nobody writes under it, a lock that is held is free again sooner than a thread could fall asleep.
int lock_soon(SharedHost& shared) {
  constexpr int kTries = 400;
  const int tries = shared.parallel ? kTries : 1;
  for (int i = 0; i < tries; ++i) {
    if (int result = pthread_mutex_trylock(&shared.lock); result != EBUSY) return result;
    relax();
  }
  return sleep_for_lock(shared);
}

void lock_host(SharedHost& shared) {
  if (lock_soon(shared) != EOWNERDEAD) [[likely]]
    return;
  pthread_mutex_consistent(&shared.lock);
  // Else it was on its way in or out.
  if (shared.changing) repair(shared);
}

}  // namespace

void drop(SharedHost& shared) {
  Ending endings[kEndings];
  int count = 0;
  while (Waiter* waiter = shared.wakes.pop_front()) {
    Ending ending{&waiter->word, waiter->event};
    if (!ending.possible()) {
      shared.wakes_elsewhere.push_back(*waiter);
      continue;
    }
    if (count < kEndings)
      endings[count++] = ending;
    else
      ending();
  }
  if (!shared.wakes_elsewhere.empty()) [[unlikely]]
    leave_to_driver(shared);
  FileStep::end();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  shared.changing = false;
  pthread_mutex_unlock(&shared.lock);
  for (int i = 0; i < count; ++i) endings[i]();
}

void rouse(SharedHost& shared, Waiter& waiter) {
  if (waiter.asleep && waiter.word.exchange(1) == 0) shared.wakes.push_back(waiter);
}

void wake_driver(SharedHost& shared, LinkQueue& queue) {
  queue.asleep_until = LinkQueue::kAwake;
  rouse(shared, *queue.driver);
}

namespace {

/// Sees to it that a driver looks at the host when its next deadline comes, and if the link was found full.
void tell_deadline(SharedHost& shared, bool full) {
  const Instant next = shared.host->next_deadline();
  LinkQueue* late = nullptr;
  bool away = false;
  for (uint32_t i = 0; i < shared.queue_count; ++i) {
    LinkQueue& queue = shared.queues[i];
    away |= !queue.attended();
    if (queue.driver == nullptr) continue;
    if (queue.asleep_until == LinkQueue::kAwake || (!full && queue.asleep_until <= next)) return;
    late = &queue;
  }
  // A driver that is away for a moment looks when it is back; else the keeper, which watches over that.
  if (late != nullptr && (!away || !keeper::alive(shared))) {
    wake_driver(shared, *late);
  } else if (shared.keeper.watching_until != LinkQueue::kAwake &&
             (full || next < shared.keeper.watching_until)) {
    keeper::wake(shared);
  }
}

}  // namespace

void settle(SharedHost& shared) {
  Host& host = *shared.host;
  if (!host.idle()) host.run(host.now());
  bool full = false;
  if (shared.parallel)
    write_out(shared);
  else
    full = !host.transmit_queue().empty() && !io::transmit(host, Process::link());
  tell_deadline(shared, full);
}

HostLock::HostLock() { lock(); }

HostLock::~HostLock() {
  if (held_) unlock();
}

Host& HostLock::host() const { return *shared_host->host; }

void HostLock::lock() {
  acquire(*shared_host);
  held_ = true;
  if (Process::is_late_child()) [[unlikely]]
    Process::late_child();
  // acquire() knows it from then on.
  if (shared_host->parallel && this_thread().waiter == nullptr && !keeper::is_keeper())
    if (Waiter* waiter = this_waiter()) shared_host->host->set_queue(waiter->queue);
  shared_host->host->run(io::now());
}

bool HostLock::unlock_unsent() {
  SharedHost& shared = *shared_host;
  if (!shared.parallel) {
    unlock();
    return true;
  }
  if (!shared.host->idle()) shared.host->run(shared.host->now());
  bool sent = shared.host->transmit_queue().empty();
  distribute(shared);
  tell_deadline(shared, false);
  held_ = false;
  drop(shared);
  return sent;
}

void HostLock::unlock() {
  SharedHost& shared = *shared_host;
  settle(shared);
  held_ = false;
  bool keeper_missing = shared.keeper.missing;
  drop(shared);
  if (keeper_missing && !keeper::is_keeper()) [[unlikely]]
    keeper::ensure();
}

}  // namespace ustack::shim
