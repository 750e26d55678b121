// How a thread waits. Everything here happens in Wait::sleep(), in turns: under the lock look at the
// conditions, then either drive for one turn or sleep until somebody else who drives says so, then look
// again.
//
// That no wake-up is lost rests on four rules:
//   - conditions change and are looked at under the lock; a waiter says `asleep` before it drops the lock,
//   and
//     who changes its condition sets its word and, if it is asleep, ends its sleep after dropping the lock;
//   - the word is cleared before `asleep` is set, and the sleep (futex on the word, poll on an eventfd)
//   returns at
//     once when the wake-up came first;
//   - a signal handler that is put off does the same from within the thread (signals.cpp); whether one was is
//     looked at after the thread has said how it can be woken (word cleared, wake_fd set);
//   - whoever leaves sleep() and finds nobody driving rouses the longest sleeper, which then drives or, if it
//     leaves too, rouses the next; or it has the keeper look, which rouses one that it can wake if still
//     nobody drives after a millisecond. Should both be killed, the sleepers look themselves twice a second.
#include "shim/driver.h"

#include <linux/futex.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "io/adaptive_spin.h"
#include "io/clock.h"
#include "io/engine.h"
#include "io/syscalls.h"
#include "shim/cancellation.h"
#include "shim/events.h"
#include "shim/host_lock.h"
#include "shim/keeper.h"
#include "shim/process.h"
#include "shim/sandbox.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/thread.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

/// Where several processes share a host, the driver looks that often whether one of the others has died;
/// sleepers look whether anybody drives.
constexpr Duration kCheck = 500ms;
/// A queue whose driver has left it that long is looked at by others.
constexpr Duration kAway = 2ms;
/// A sleeper that could get no event (descriptors exhausted) looks that often, and a driver where there is no
/// keeper that would look at other queues.
constexpr Duration kTick = 5ms;
/// So often in a row frames must have been for one thread alone before it is relied on.
constexpr uint32_t kServed = 3;
/// Long ago, but far enough from the ends of the clock to be subtracted.
constexpr Instant kLook{};

/// Counts closed kernel_fds: an engine may still watch what had the number before.
std::atomic<uint32_t> kernel_epoch{0};

__kernel_timespec to_timespec(Duration duration) {
  return {duration.count() / 1'000'000'000, duration.count() % 1'000'000'000};
}

/// ppoll's mask, where the trampoline finds it.
class MaskInForce {
 public:
  MaskInForce(ThreadState& thread, const sigset_t* mask) : thread_(thread) {
    if (mask == nullptr) return;
    std::memcpy(&thread.wait_mask, mask, sizeof thread.wait_mask);
    thread.has_wait_mask = true;
  }
  ~MaskInForce() { thread_.has_wait_mask = false; }
  MaskInForce(const MaskInForce&) = delete;
  MaskInForce& operator=(const MaskInForce&) = delete;

 private:
  ThreadState& thread_;
};

/// One sleep() of one thread.
class Sleep {
 public:
  Sleep(ThreadState& thread, Waiter& waiter, const WaitRequest& request)
      : shared_(*shared_host),
        thread_(thread),
        waiter_(waiter),
        queue_(shared_.queue_of(waiter)),
        request_(request) {
    waiter.promptness.returns(now());
  }
  /// Leaves the role, and sees to it that somebody has it if anybody needs it. Lock held.
  ~Sleep();
  Sleep(const Sleep&) = delete;
  Sleep& operator=(const Sleep&) = delete;

  /// True: this thread drives from now on.
  bool take_role();
  /// True: it has driven for another thread only, which is to take the role when it is back.
  bool hand_over();
  /// Queues that nobody attends, to look at besides; a bit each. Lock held.
  uint32_t be_guest();
  /// Sends, waits for the link, takes in what has come. Lock held before and after.
  void drive();
  /// Sleeps until the driver or a signal says otherwise. Lock held before and after.
  void rest();

  /// kernel_fd was readable in the last turn.
  bool kernel = false;
  /// drive() took in frames in the last turn.
  bool frames = false;

 private:
  io::Engine* engine();
  Instant now() const { return covered_host(shared_).now(); }
  void fall_asleep(int event, int fd);
  void wake_up();
  void leave_role();
  void see_whom_it_serves();
  bool serves_only(const Waiter* waiter) const;
  /// There are relatives, or programs outside, that may need the keeper while this process needs nothing.
  bool others_count_on_it() const { return shared_.attachments > 1 || shared_.keeper.serves_outside.load(); }
  bool signalled() const { return thread_.signal_deferred.load(std::memory_order_seq_cst); }
  void sleep_on_word(Instant until);
  void sleep_in_poll(Instant until, int fd);

  SharedHost& shared_;
  ThreadState& thread_;
  Waiter& waiter_;
  LinkQueue& queue_;
  const WaitRequest& request_;
  bool driving_ = false;
  bool hands_over_ = false;
};

bool Sleep::take_role() {
  if (driving_) return true;
  // One that has forbidden itself system calls leaves it to others, if there are any.
  if (sandbox::active() && (shared_.attached_count > 1 || keeper::alive(shared_))) return false;
  int result = pthread_mutex_trylock(&queue_.role);
  if (result == EOWNERDEAD) {
    pthread_mutex_consistent(&queue_.role);
    covered_host(shared_).log()(LogLevel::warning, [&](LogLine& line) {
      line << "the driver, thread " << queue_.driver_tid << " of process " << queue_.driver_pid
           << ", has died; another takes over";
    });
  } else if (result != 0) {
    return false;
  }
  driving_ = true;
  queue_.driver = &waiter_;
  queue_.driver_pid = Process::id();
  queue_.driver_tid = this_thread_id();
  if (++queue_.driver_generation == 1 && shared_.queue_count > 1) {
    covered_host(shared_).log()(LogLevel::debug, [&](LogLine& line) {
      line << "queue " << waiter_.queue << " is driven first by thread " << queue_.driver_tid
           << " of process " << queue_.driver_pid;
    });
  }
  return true;
}

Sleep::~Sleep() {
  waiter_.promptness.leaves(now());
  if (driving_) leave_role();
  if (queue_.driver != nullptr) return;
  CommonLock common;
  if (Waiter* next = shared_.next_sleeper(queue_)) {
    // The keeper rouses one if it isn't back soon.
    const bool left_to_keeper =
        serves_only(&waiter_) && shared_.next_sleeper(queue_, true) != nullptr && keeper::alive(shared_);
    if (!left_to_keeper) {
      rouse(shared_, *next);
      return;
    }
    waiter_.promptness.rely();
  }
  keeper::driver_leaves(shared_, shared_.keeper);
}

void Sleep::leave_role() {
  driving_ = false;
  queue_.driver = nullptr;
  queue_.asleep_until = LinkQueue::kAwake;
  queue_.left_at = now();
  pthread_mutex_unlock(&queue_.role);
}

void Sleep::see_whom_it_serves() {
  Waiter* woken = shared_.wakes.front();
  const bool own = waiter_.notified || kernel;
  if (woken == nullptr && !own) return;  // frames that concern nobody
  const bool one = own ? woken == nullptr : shared_.wakes.next(*woken) == nullptr;
  const Waiter* served = !one ? nullptr : own ? &waiter_ : woken;
  queue_.times_served = served != nullptr && served == queue_.served ? queue_.times_served + 1 : 0;
  queue_.served = served;
  hands_over_ = !own && serves_only(woken);
}

bool Sleep::serves_only(const Waiter* waiter) const {
  return waiter != nullptr && queue_.served == waiter && &shared_.queue_of(*waiter) == &queue_ &&
         queue_.times_served >= kServed && waiter->promptness.believed();
}

bool Sleep::hand_over() {
  if (!std::exchange(hands_over_, false) || !keeper::alive(shared_)) return false;
  leave_role();
  keeper::driver_leaves(shared_, shared_.keeper);
  return true;
}

uint32_t Sleep::be_guest() {
  uint32_t queues = 0;
  for (uint32_t i = 0; i < shared_.queue_count; ++i) {
    LinkQueue& queue = shared_.queues[i];
    // Whose driver is away for a moment will find it as it was; the keeper leaves it to anybody.
    if (queue.driver != nullptr || (queue.guest != nullptr && queue.guest != shared_.keeper.waiter) ||
        now() - queue.left_at < kAway)
      continue;
    queue.guest = &waiter_;
    queues |= 1u << i;
  }
  return queues;
}

/// The thread's own, made when it first drives; nullptr: no memory.
io::Engine* Sleep::engine() {
  if (thread_.engine != nullptr && thread_.engine->stale()) {
    io::Engine::abandon(thread_.engine);
    thread_.engine = nullptr;
  }
  if (thread_.engine == nullptr) {
    const io::Config& config = Process::config();
    thread_.engine = io::Engine::create(config.io, Process::link(), shared_.host_of(waiter_), config.spin,
                                        &waiter_.holdings, waiter_.queue);
  }
  return thread_.engine;
}

void Sleep::drive() {
  kernel = frames = false;
  Host& host = covered_host(shared_);
  host.send_owed_acks();
  io::Engine* engine = this->engine();
  if (engine == nullptr) {
    // Memory is out: at least time goes on.
    Instant until = std::min({request_.deadline, host.next_deadline(), io::now() + kTick});
    settle(shared_);
    drop(shared_);
    sleep_in_poll(until, -1);
    acquire(shared_);
    host.run(io::now());
    return;
  }

  if (uint32_t epoch = kernel_epoch.load(std::memory_order_relaxed); thread_.kernel_epoch != epoch) {
    thread_.kernel_epoch = epoch;
    engine->forget(-1);  // it may watch another one than this wait asks for
  }
  // Of shards each has its own driver, or the keeper.
  const bool several = shared_.queue_count > 1 && !shared_.sharded();
  const bool forsaken = shared_.sharded() && !keeper::alive(shared_);
  const bool parallel = shared_.parallel;
  if (parallel) distribute(shared_);  // written below
  engine->transmit();
  io::WaitRequest wait;
  wait.queues = 1u << waiter_.queue;
  if (several) wait.queues |= be_guest();
  if (forsaken) wait.queues = (1u << shared_.queue_count) - 1;
  // It will look after those that are left, if they stay so.
  if (several && shared_.unattended()) keeper::driver_leaves(shared_, shared_.keeper);
  wait.deadline = std::max(kLook, std::min(request_.deadline, host.next_deadline()));
  if (others_count_on_it())
    wait.deadline = std::min(wait.deadline, std::max(kLook, shared_.last_reap + kCheck));
  if (forsaken || (several && !keeper::alive(shared_)))
    wait.deadline = std::min(wait.deadline, io::now() + kTick);
  wait.wake_fd = events::descriptor(events::driver(waiter_.queue));
  wait.kernel_fd = request_.kernel_fd;
  wait.signal_mask = request_.signal_mask;

  queue_.asleep_until = wait.deadline;
  fall_asleep(events::driver(waiter_.queue), wait.wake_fd);
  if (parallel) {
    // Who finds a condition fulfilled meanwhile ends the sleep before it begins.
    settle(shared_);
    wait.room = queue_.full;
  }
  if (signalled() || waiter_.notified) wait.deadline = kLook;
  drop(shared_);

  io::WaitResult result = engine->wait(wait);

  thread_.wake_fd.store(-1, std::memory_order_relaxed);
  acquire(shared_);
  wake_up();
  queue_.asleep_until = LinkQueue::kAwake;
  if (several) shared_.forget_guest(waiter_);
  Instant now = io::now();
  shared_.last_look(waiter_) = now;
  engine->deliver(now);
  if (others_count_on_it() && now >= shared_.last_reap + kCheck) {
    Covering all(shared_, kWhole);
    shared_.last_reap = now;
    shared_.reap_dead();
    // Killed, and nobody else may ever need one and see it.
    if (!keeper::is_keeper() && !keeper::alive(shared_)) {
      drop(shared_);
      keeper::ensure();
      acquire(shared_);
    }
  }
  // What came by others' queues is handed over, and their time goes on.
  if (forsaken) Covering all(shared_, kWhole);
  host.run(now);
  kernel = result.kernel;
  frames = result.frames;
  if (frames && !shared_.sharded() && shared_.sleepers.front() != nullptr) see_whom_it_serves();
  if (result.link_lost) host.log()(LogLevel::error, [](LogLine& line) { line << "the link is gone"; });
}

/// From here on who notifies it ends its sleep; what has come before is seen by the caller.
void Sleep::fall_asleep(int event, int fd) {
  CommonLock common;
  waiter_.event = event;
  waiter_.word.store(0, std::memory_order_seq_cst);
  waiter_.asleep = true;
  thread_.wake_fd.store(fd, std::memory_order_seq_cst);
}

void Sleep::wake_up() {
  CommonLock common;
  waiter_.asleep = false;
  static_cast<ListHook<PendingWake>&>(waiter_).unlink();
}

void Sleep::sleep_on_word(Instant until) {
  if (const Duration most = Process::config().spin; most > Duration(0)) {
    const Duration spin = thread_.spin.next(most);
    const Instant begin = io::now(), end = std::min(until, begin + spin);
    bool woken = false;
    while (!woken && io::now() < end) woken = waiter_.word.load(std::memory_order_acquire) != 0;
    thread_.spin.note(io::spin_outcome(begin, end, until, woken));
    if (woken) return;
  }
  if (until == kLook) return;
  __kernel_timespec time = to_timespec(until.time_since_epoch());
  sys::call(SYS_futex, sys::arg(&waiter_.word), FUTEX_WAIT_BITSET, 0, until == kNever ? 0 : sys::arg(&time),
            0, FUTEX_BITSET_MATCH_ANY);
}

void Sleep::sleep_in_poll(Instant until, int fd) {
  pollfd fds[2] = {{request_.kernel_fd, POLLIN, 0}, {fd, POLLIN, 0}};
  const bool both = request_.kernel_fd >= 0 && fd >= 0;
  pollfd* first = request_.kernel_fd >= 0 ? fds : fds + 1;
  Duration left = until == kLook ? Duration(0) : std::max(Duration(0), until - io::now());
  __kernel_timespec time = to_timespec(left);
  long result = sys::ppoll(first, both ? 2 : 1, until == kNever ? nullptr : &time, request_.signal_mask);
  if (result == -EINVAL && both) {
    // poll(2): no more descriptors than RLIMIT_NOFILE, which is 1 in sshd's sandbox.
    time = to_timespec(std::min(left, kTick));
    sys::ppoll(fds, 1, &time, request_.signal_mask);
  }
  kernel = request_.kernel_fd >= 0 && fds[0].revents != 0;
}

void Sleep::rest() {
  kernel = frames = false;
  bool in_poll = request_.kernel_fd >= 0 || request_.signal_mask != nullptr;
  // A driver may have been killed, or the keeper that was to rouse one of the sleepers.
  const Instant now = this->now();
  Instant until = std::max(kLook, std::min(request_.deadline, now + kCheck));
  {
    CommonLock common;
    const int event = in_poll ? events::take() : Waiter::kNoEvent;
    const int fd = events::descriptor(event);
    // Nobody can wake it; or the keeper can't, which sees to it that somebody drives soon.
    if ((in_poll && fd < 0) || (queue_.driver == nullptr && !events::keepers(event)))
      until = std::min(until, now + kTick);
    fall_asleep(event, fd);
    shared_.sleepers.push_back(waiter_);
  }
  const int fd = events::descriptor(waiter_.event);
  if (signalled() || waiter_.notified) until = kLook;
  Host& host = covered_host(shared_);
  host.send_owed_acks();
  settle(shared_);
  drop(shared_);

  if (in_poll)
    sleep_in_poll(until, fd);
  else
    sleep_on_word(until);

  thread_.wake_fd.store(-1, std::memory_order_relaxed);
  acquire(shared_);
  {
    CommonLock common;
    wake_up();
    static_cast<ListHook<>&>(waiter_).unlink();
    if (waiter_.event != Waiter::kNoEvent) {
      events::clear(waiter_.event);
      events::give_back(waiter_.event);
      waiter_.event = Waiter::kNoEvent;
    }
  }
  host.run(io::now());
}

/// What a thread's lock covers while it waits: the shard whose queue it drives.
uint8_t covers_while_waiting(const Waiter& waiter) {
  return locks_by_shard() ? waiter.queue : this_thread().covers;
}

}  // namespace

WaitOutcome Wait::sleep(HostLock&, const WaitRequest& request) {
  ThreadState& thread = this_thread();
  Waiter* waiter = this_waiter();
  if (waiter == nullptr) return WaitOutcome::interrupted;
  cursor_ = 0;
  ++turn_;
  SharedHost& shared = *shared_host;
  MaskInForce mask(thread, request.signal_mask);
  Covering own(shared, covers_while_waiting(*waiter));
  Sleep sleep(thread, *waiter, request);
  for (bool looked = false;; looked = true) {
    kernel_ready_ = sleep.kernel;
    run_ready(shared);
    if (waiter->notified.exchange(false) || (request.any_frame && sleep.frames)) return WaitOutcome::notified;
    if (sleep.kernel) return WaitOutcome::kernel;
    if (thread.signal_deferred.load(std::memory_order_seq_cst) || cancellation::requested(thread))
      return WaitOutcome::interrupted;
    if (looked && covered_host(shared).now() >= request.deadline) return WaitOutcome::timed_out;
    if (sleep.hand_over() || !sleep.take_role())
      sleep.rest();
    else
      sleep.drive();
  }
}

void look_at_link(HostLock&) {
  Waiter* waiter = this_waiter();
  if (waiter == nullptr) return;
  WaitRequest request{.deadline = kLook};
  Covering own(*shared_host, covers_while_waiting(*waiter));
  Sleep sleep(this_thread(), *waiter, request);
  // Who drives looks all the time: there is nothing to be found that it hasn't.
  if (sleep.take_role()) sleep.drive();
}

void look_at_link_now_and_then(HostLock& lock) {
  constexpr Duration kOften = 200us;
  SharedHost& shared = *shared_host;
  const Waiter* waiter = this_thread().waiter;
  const uint8_t queue = waiter != nullptr ? waiter->queue : 0;
  // What comes by another shard's queue is no concern of this thread's.
  if (!is_covered(shared, queue) || shared.queues[queue].driver != nullptr) return;
  if (covered_host(shared).now() - shared.shards[shared.sharded() ? queue : 0].last_look >= kOften)
    look_at_link(lock);
}

void kernel_fd_closes() { kernel_epoch.fetch_add(1, std::memory_order_relaxed); }

}  // namespace ustack::shim
