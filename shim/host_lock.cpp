#include "shim/host_lock.h"

#include <linux/futex.h>

#include <cerrno>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/driver.h"
#include "shim/events.h"
#include "shim/process.h"
#include "shim/scope.h"

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
  Waiter* driver = shared.driver;
  if (driver != nullptr && driver->asleep && driver->word.exchange(1) == 0)
    Ending{&driver->word, driver->event}();
}

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
  make_robust(role);
  make_robust(keeper.life);
}

namespace {

/// This thread's calls have ended with the process (library_gate); the thread itself is about to.
[[noreturn]] void stay_out(SharedHost& shared) {
  if (pthread_mutex_unlock(&shared.role) == 0)  // robust: EPERM unless this thread has it
    if (Waiter* next = shared.sleepers.front()) rouse(shared, *next);
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
}

void show_threads(Census& census) {
  for (Attachment& process : shared_host->attached)
    for (Waiter& waiter : process.waiters) show(waiter, census);
  if (shared_host->keeper.waiter != nullptr) show(*shared_host->keeper.waiter, census);
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

void lock_host(SharedHost& shared) {
  if (pthread_mutex_lock(&shared.lock) != EOWNERDEAD) [[likely]]
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

void settle(SharedHost& shared) {
  Host& host = *shared.host;
  if (!host.idle()) host.run(host.now());
  bool full = !host.transmit_queue().empty() && !io::transmit(host, Process::link());
  if (shared.driver != nullptr && shared.asleep_until != SharedHost::kAwake &&
      (full || host.next_deadline() < shared.asleep_until)) {
    shared.asleep_until = SharedHost::kAwake;
    rouse(shared, *shared.driver);
  }
  // The same for the keeper, where nobody drives.
  if (shared.driver == nullptr && shared.keeper.watching_until != SharedHost::kAwake &&
      (full || host.next_deadline() < shared.keeper.watching_until))
    keeper::wake(shared);
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
  shared_host->host->run(io::now());
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
