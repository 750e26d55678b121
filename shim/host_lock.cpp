#include "shim/host_lock.h"

#include <linux/futex.h>

#include <array>
#include <cerrno>
#include <span>
#include <utility>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/driver.h"
#include "shim/events.h"
#include "shim/fd_table.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "shim/socket_file.h"
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
  for (Shard& shard : shards) make_robust(shard.lock);
  make_robust(common_lock);
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

}  // namespace

void show_threads(Census& census) {
  for (Attachment& process : shared_host->attached)
    for (Waiter& waiter : process.waiters) show(waiter, census);
  if (shared_host->keeper.waiter != nullptr) show(*shared_host->keeper.waiter, census);
  for (LinkQueue& queue : shared_host->queues) census.see(queue.pending);
}

namespace {

/// What nothing refers to any more.
void close_unreferenced(SharedHost& shared) {
  shared.closing_pending.store(false, std::memory_order_relaxed);
  while (OpenFile* file = shared.unreferenced.front()) file->close_for_good();
}

/// The same of what FileStep::count_anew() has left besides, or who was killed before he closed it.
void find_unreferenced(SharedHost& shared) {
  close_unreferenced(shared);
  for (OpenFile* found = shared.files.front(); found != nullptr;) {
    found = nullptr;
    for (OpenFile& file : shared.files)
      if (file.references() == 0) found = &file;
    if (found != nullptr) found->close_for_good();  // others may go with it
  }
}

/// A process was killed in the middle of a change.
void repair(SharedHost& shared) {
  for (size_t part = 0; part <= shared.common_part(); ++part) shared.journals.finish(part);
  ++shared.repairs;
  shared.host->log()(LogLevel::error, [](LogLine& line) {
    line << "a process was killed while it held the host's lock; the host is rebuilt from its endpoints";
  });
  // What comes after a shard's mending may change the others, and may be interrupted like anything else.
  std::array<bool, Shards::kMost> broken;
  for (uint32_t i = 0; i < shared.shard_count; ++i)
    broken[i] = std::exchange(shared.shards[i].changing, true);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  for (uint32_t i = 0; i < shared.shard_count; ++i)
    if (broken[i]) shared.shards[i].host->mend(&show_threads);
  shared.file_step.finish();
  if (shared.sharded()) find_unreferenced(shared);
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
int sleep_for_lock(pthread_mutex_t& lock) {
  // It doesn't know pthread_mutex_clocklock().
  if constexpr (kThreadSanitizer) return pthread_mutex_lock(&lock);
  for (;;) {
    const Duration until = (io::now() + kLockTick).time_since_epoch();
    const timespec deadline{.tv_sec = until / 1s, .tv_nsec = (until % 1s).count()};
    if (int result = pthread_mutex_clocklock(&lock, CLOCK_MONOTONIC, &deadline); result != ETIMEDOUT)
      return result;
  }
}

/// Where nobody writes under it, a lock that is held is free again sooner than a thread could fall asleep.
int lock_soon(SharedHost& shared, pthread_mutex_t& lock) {
  constexpr int kTries = 400;
  const int tries = shared.parallel ? kTries : 1;
  for (int i = 0; i < tries; ++i) {
    if (int result = pthread_mutex_trylock(&lock); result != EBUSY) return result;
    relax();
  }
  return sleep_for_lock(lock);
}

/// True: its owner has died in the middle of a change. Else it was on its way in or out, if it has.
bool lock_shard(SharedHost& shared, Shard& shard) {
  if (lock_soon(shared, shard.lock) == EOWNERDEAD) [[unlikely]]
    pthread_mutex_consistent(&shard.lock);
  return shard.changing;
}

void unlock_shard(Shard& shard) {
  shard.changing = false;
  pthread_mutex_unlock(&shard.lock);
}

void lock_common(SharedHost& shared) {
  if (lock_soon(shared, shared.common_lock) != EOWNERDEAD) [[likely]]
    return;
  // What is done under it alone is whole when these are. Who was woken just then may not be noted as such.
  pthread_mutex_consistent(&shared.common_lock);
  shared.journals.finish(shared.common_part());
  shared.arena->mend();
  shared.file_step.count_anew();
  shared.wakes_pending = shared.closing_pending = true;
}

void lock_all(SharedHost& shared) {
  bool broken = false;
  shared.each_shard([&](Shard& shard) { broken |= lock_shard(shared, shard); });
  if (shared.sharded()) lock_common(shared);
  if (broken) [[unlikely]]
    repair(shared);
}

void unlock_all(SharedHost& shared) {
  if (shared.sharded()) pthread_mutex_unlock(&shared.common_lock);
  shared.each_shard(&unlock_shard);
}

}  // namespace

void acquire(SharedHost& shared) {
  ThreadState& thread = this_thread();
  if (thread.covers != kWhole) {
    Shard& shard = shared.shards[thread.covers];
    while (lock_shard(shared, shard)) {
      pthread_mutex_unlock(&shard.lock);
      lock_all(shared);  // which is what repairing needs
      unlock_all(shared);
    }
  } else {
    lock_all(shared);
  }
  if (thread.depth != 0 && thread.gate != library_gate.load(std::memory_order_relaxed)) [[unlikely]] {
    if (thread.covers != kWhole) {
      unlock_shard(shared.shards[thread.covers]);
      thread.covers = kWhole;
      lock_all(shared);
    }
    stay_out(shared);
  }
  if (thread.covers != kWhole)
    shared.shards[thread.covers].changing = true;
  else
    shared.each_shard([](Shard& shard) { shard.changing = true; });
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (shared.queue_count == 1 || thread.waiter == nullptr) return;
  if (!shared.sharded())
    shared.host->set_queue(thread.waiter->queue);
  else if (thread.covers == kWhole)
    shared.hosts.callers = thread.waiter->queue;
}

void CommonLock::enter() {
  ThreadState& thread = this_thread();
  if (thread.covers != kWhole && thread.common_depth++ == 0) lock_common(*shared_host);
}

void CommonLock::leave() {
  ThreadState& thread = this_thread();
  if (thread.covers != kWhole && --thread.common_depth == 0) pthread_mutex_unlock(&shared_host->common_lock);
}

bool locks_by_shard() { return has_shards && Process::link().capture == nullptr; }

Host& covered_host(SharedHost& shared) {
  const ThreadState& thread = this_thread();
  if (!shared.sharded()) return *shared.host;
  if (thread.covers != kWhole) return *shared.shards[thread.covers].host;
  return thread.waiter != nullptr ? shared.host_of(*thread.waiter) : *shared.host;
}

Counters SharedHost::counters() {
  Counters sum;
  each_shard([&](Shard& shard) { add(sum, shard.host->counters()); });
  return sum;
}

namespace {

/// Those that were woken, to be told when the lock is dropped: as many as there is room for, the rest now.
int take_wakes(SharedHost& shared, std::span<Ending, kEndings> endings) {
  if (!shared.wakes_pending.load(std::memory_order_relaxed)) return 0;
  CommonLock common;
  shared.wakes_pending.store(false, std::memory_order_relaxed);
  int count = 0;
  while (Waiter* waiter = shared.wakes.pop_front()) {
    Ending ending{&waiter->word, waiter->event};
    if (!ending.possible()) {
      shared.wakes_elsewhere.push_back(*waiter);
      continue;
    }
    if (count < kEndings)
      endings[static_cast<size_t>(count++)] = ending;
    else
      ending();
  }
  if (!shared.wakes_elsewhere.empty()) [[unlikely]]
    leave_to_driver(shared);
  return count;
}

}  // namespace

void drop(SharedHost& shared) {
  std::array<Ending, kEndings> endings;
  const int count = take_wakes(shared, endings);
  const uint8_t covers = this_thread().covers;
  if (covers == kWhole) FileStep::end();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (covers != kWhole)
    unlock_shard(shared.shards[covers]);
  else
    unlock_all(shared);
  for (int i = 0; i < count; ++i) endings[static_cast<size_t>(i)]();
}

void run_ready(SharedHost& shared) {
  each_covered(shared, [](Host& host) {
    if (!host.idle()) host.run(host.now());
  });
}

namespace {

/// Drops the lock and takes it for what it is to cover.
void take_instead(SharedHost& shared, uint8_t what) {
  drop(shared);
  this_thread().covers = what;
  acquire(shared);
}

void run_until_now(SharedHost& shared) {
  const Instant now = io::now();
  each_covered(shared, [now](Host& host) { host.run(now); });
}

}  // namespace

void cover(SharedHost& shared, uint8_t what) {
  if (this_thread().covers == what || !shared.sharded()) return;
  settle(shared);
  take_instead(shared, what);
  run_until_now(shared);
}

void rouse(SharedHost& shared, Waiter& waiter) {
  CommonLock common;
  if (!waiter.asleep || waiter.word.exchange(1) != 0) return;
  shared.wakes.push_back(waiter);
  shared.wakes_pending.store(true, std::memory_order_relaxed);
}

void wake_driver(SharedHost& shared, LinkQueue& queue) {
  queue.asleep_until = LinkQueue::kAwake;
  rouse(shared, *queue.driver);
}

namespace {

void tell_keeper_deadline(SharedHost& shared, Instant next, bool full) {
  if (shared.keeper.watching_until != LinkQueue::kAwake && (full || next < shared.keeper.watching_until))
    keeper::wake(shared);
}

/// The same of shards, which have a queue each.
void tell_deadlines(SharedHost& shared) {
  for (uint32_t i = 0; i < shared.shard_count; ++i) {
    if (!is_covered(shared, i)) continue;
    const Instant next = shared.shards[i].host->next_deadline();
    LinkQueue& queue = shared.queues[i];
    if (queue.driver == nullptr) {
      if ((shared.keeper.watched & 1u << i) != 0) tell_keeper_deadline(shared, next, false);
    } else if (queue.asleep_until != LinkQueue::kAwake && queue.asleep_until > next) {
      wake_driver(shared, queue);
    }
  }
}

/// Sees to it that a driver looks at the host when its next deadline comes, and if the link was found full.
void tell_deadline(SharedHost& shared, bool full) {
  if (shared.sharded()) return tell_deadlines(shared);
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
  if (late != nullptr && (!away || !keeper::alive(shared)))
    wake_driver(shared, *late);
  else
    tell_keeper_deadline(shared, next, full);
}

/// Does what only a lock on all can do: what has come to one shard and is another's gets there, and is
/// answered; what nothing refers to is closed.
void do_for_all(SharedHost& shared) {
  if (!shared.sharded()) return;
  bool strays = false;
  each_covered(shared, [&](Host& host) { strays |= host.has_strays(); });
  const bool closing = shared.closing_pending.load(std::memory_order_relaxed);
  if (!strays && !closing) return;
  const uint8_t before = this_thread().covers;
  if (before != kWhole) take_instead(shared, kWhole);
  if (closing) {
    close_unreferenced(shared);
    run_until_now(shared);
  }
  while (Host::hand_over(shared.hosts)) run_until_now(shared);
  if (before == kWhole) return;
  write_out(shared);
  tell_deadline(shared, false);
  take_instead(shared, before);
}

}  // namespace

void settle(SharedHost& shared) {
  run_ready(shared);
  do_for_all(shared);
  bool full = false;
  if (shared.parallel)
    write_out(shared);
  else
    full = !shared.host->transmit_queue().empty() && !io::transmit(*shared.host, Process::link());
  tell_deadline(shared, full);
}

HostLock::HostLock() : HostLock(kWhole) {}

HostLock::HostLock(uint8_t covers) : before_(std::exchange(this_thread().covers, covers)) { lock(); }

namespace {

/// The shard whose queue the calling thread drives, if it knows.
uint8_t own_shard() {
  const Waiter* waiter = this_thread().waiter;
  return locks_by_shard() && waiter != nullptr && !keeper::is_keeper() ? waiter->queue : kWhole;
}

}  // namespace

HostLock::HostLock(Own) : HostLock(own_shard()) {}

namespace {

/// Any lock held.
uint8_t transfers_under(int fd) {
  CommonLock common;
  OpenFile* file = FdTable::look(fd);
  const bool is_socket = file != nullptr && file->kind() == OpenFile::Kind::socket;
  return is_socket ? static_cast<SocketFile*>(file)->transfers_under() : kWhole;
}

}  // namespace

HostLock::HostLock(Transfer transfer) : HostLock(own_shard()) {
  // What the number stands for may change whenever the lock is dropped.
  while (this_thread().covers != kWhole) {
    const uint8_t needed = transfers_under(transfer.fd);
    if (needed == this_thread().covers) return;
    cover(needed);
  }
}

HostLock::~HostLock() {
  if (held_) unlock();
  this_thread().covers = before_;
}

Host& HostLock::host() const { return covered_host(*shared_host); }

void HostLock::cover(uint8_t what) { shim::cover(*shared_host, what); }

void HostLock::lock() {
  SharedHost& shared = *shared_host;
  acquire(shared);
  held_ = true;
  if (Process::is_late_child()) [[unlikely]] {
    if (this_thread().covers != kWhole) take_instead(shared, kWhole);
    Process::late_child();
  }
  // acquire() knows it from then on.
  if (shared.parallel && this_thread().waiter == nullptr && !keeper::is_keeper())
    if (Waiter* waiter = this_waiter(); waiter != nullptr && !shared.sharded())
      shared.host->set_queue(waiter->queue);
  run_until_now(shared);
}

bool HostLock::unlock_unsent() {
  SharedHost& shared = *shared_host;
  if (!shared.parallel) {
    unlock();
    return true;
  }
  run_ready(shared);
  bool sent = !shared.closing_pending.load(std::memory_order_relaxed);
  each_covered(shared, [&](Host& host) { sent &= host.transmit_queue().empty() && !host.has_strays(); });
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
