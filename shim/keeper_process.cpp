// The keeper's own life. It runs on a stack in the arena, without the program's memory: no malloc, no stdio,
// no environment, nothing of the heap (the strings of io::Config among it).
//
// It never holds the role of the driver while it sleeps, so that a thread of the program that begins to wait
// has it at once; both then sleep on the link until the next frame, after which the keeper sees that somebody
// drives. Who drives is looked at only every few milliseconds, since a program that waits, computes and waits
// again takes and leaves the role thousands of times a second and should not pay for that.
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "io/capture.h"
#include "io/clock.h"
#include "io/device_watch.h"
#include "io/engine.h"
#include "io/fork_mark.h"
#include "io/syscalls.h"
#include "io/yield.h"
#include "shim/counters_file.h"
#include "shim/escape.h"
#include "shim/events.h"
#include "shim/fd_table.h"
#include "shim/host_lock.h"
#include "shim/keeper.h"
#include "shim/keeper_memory.h"
#include "shim/lending.h"
#include "shim/opening.h"
#include "shim/process.h"
#include "shim/process_state.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/thread.h"
#include "shim/twins.h"
#include "stack/base/immortal.h"
#include "stack/tcp/protocol.h"

namespace ustack::shim::keeper {

namespace {

namespace sys = io::sys;

/// How long nobody must have driven.
constexpr Duration kGrace = 1ms;
/// How seldom the keeper looks, at most, while a program takes and leaves the role all the time. Less than a
/// peer waits for an acknowledgement.
constexpr Duration kLongestTick = 16ms;
/// The same while it looks at the link between its calls, as one that only sends does.
constexpr Duration kLongestPause = 4ms;
/// The same while others sleep that would drive: they were not woken for a driver that is soon back
/// (Promptness).
constexpr Duration kLongestAwaited = 2ms;
/// Who has driven that long without a break is trusted to say when it leaves.
constexpr Duration kRestAfter = 100ms;
/// Where a process can't be watched by a descriptor, it is looked for that often.
constexpr Duration kLookForDead = 500ms;

/// For a keeper that was asked to end (SIGTERM, a program that wants the device): as long as the peers
/// answer, at most this long; and without any segment from a peer, this long: some retransmissions.
constexpr Duration kLongest = 60s, kWithoutProgress = 5s;
/// After SIGTERM: the system goes down, and will not wait for long.
constexpr Duration kLongestWhenTold = 5s;

constexpr uint64_t bit(int signal) { return uint64_t{1} << (signal - 1); }

// --- becoming the keeper ---

/// Descriptors that stay, in ascending order.
struct KeptDescriptors {
  static constexpr int kMost = 128;
  int fds[kMost];
  int count = 0;

  void add(int fd) {
    if (fd < 0 || count == kMost) return;
    int* at = std::lower_bound(fds, fds + count, fd);
    if (at != fds + count && *at == fd) return;
    std::memmove(at + 1, at, static_cast<size_t>(fds + count - at) * sizeof(int));
    *at = fd;
    ++count;
  }
};

void close_the_programs_descriptors() {
  ProcessState& state = process_state();
  control().to_keeper.release();
  KeptDescriptors kept;
  for (const io::Descriptor& queue : state.link.descriptors()) kept.add(queue.get());
  kept.add(state.link.claim().get());
  kept.add(state.placeholder.get());
  kept.add(state.log_sink.descriptor().get());
  if (state.capture != nullptr) kept.add(state.capture->descriptor().get());
  kept.add(state.counters_file.get());
  kept.add(control().in_keeper.get());
  kept.add(lending::descriptor());
  for (int event = 0; event < events::kShared; ++event) kept.add(events::descriptor(event));
  events::forget_own();

  int next = 0;
  for (int i = 0; i < kept.count; ++i) {
    if (kept.fds[i] > next) sys::call(SYS_close_range, next, kept.fds[i] - 1, 0);
    next = kept.fds[i] + 1;
  }
  sys::call(SYS_close_range, next, ~0u, 0);
  // Whatever has these numbers next must not be what a line of the log goes to.
  for (int fd = 0; fd < 3; ++fd) sys::call(SYS_dup3, state.placeholder.get(), fd, O_CLOEXEC);
}

void drop_privileges() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  sys::call(SYS_capset, sys::arg(&header), sys::arg(none));
  sys::call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/// All signals stay blocked, so that no handler of the program's, whose code is gone, ever runs; a fault
/// kills. SIGTERM is read from a descriptor, for which it must not be ignored.
void default_action(int number) {
  struct {
    uintptr_t handler = 0;
    unsigned long flags = 0;
    uintptr_t restorer = 0;
    uint64_t mask = 0;
  } action;
  sys::call(SYS_rt_sigaction, number, sys::arg(&action), 0, sys::kSignalSetBytes);
}

/// Ends this process if another keeper was quicker.
void hold_life() {
  pthread_mutex_t& life = shared_host->keeper.life;
  int result = pthread_mutex_trylock(&life);
  if (result == EOWNERDEAD)
    pthread_mutex_consistent(&life);
  else if (result != 0)
    sys::call(SYS_exit_group, 1);
}

/// What the clone has copied of the program's and is not true of this process.
void begin_anew() {
  ProcessState& state = process_state();
  become();
  state.pid.store(0);
  state.generation = io::fork_generation();
  state.start_lock.reset();
  FdTable::lock().reset();
  ThreadState& thread = this_thread();
  thread.engine = nullptr;  // with the memory and the descriptors of the program
  after_fork_in_child(thread);
  thread.signal_deferred.store(false);
  thread.has_wait_mask = thread.deferred_in_wait = false;
  thread.forked = nullptr;
  thread.depth = 1;
  state.attachment = nullptr;
}

// --- the loop ---

class Keeper {
 public:
  /// `predecessor`: the keeper whose stand-in this process was.
  explicit Keeper(Start* start, Keeper* predecessor = nullptr);
  [[noreturn]] void run();

 private:
  bool attach(HostLock& lock);
  void open_descriptors();
  void open_sockets();
  void watch_device();
  void follow_device();
  bool watch(int fd);

  void turn(HostLock& lock);
  /// How long to leave the host to whoever drives; zero: it is the keeper's turn to.
  Duration leave_to_others(Instant now);
  Instant next_deadline() const;
  void drive(Instant until);
  void rest(Duration time);
  /// The mark that drop() and wake-ups need of a waiter that sleeps.
  void fall_asleep(bool sends);
  void awake();

  void serve(HostLock& lock);
  void receive_messages();
  void take_message(const Message& message, const int* fds, int count);
  void answer_yield();
  void open_door();
  void watch_processes();
  bool process_ended(int fd);
  void bury(Attachment& process);

  void have_stand_in(Instant now);
  bool stand_in_ended(int fd);

  bool may_leave(Instant now);
  bool told_to_end() const { return yielding_ || terminated_; }
  bool out_of_patience(Instant now);
  [[noreturn]] void leave();

  SharedHost& shared_;
  Record& record_;
  Start* start_;
  Keeper* predecessor_;
  io::Engine* engine_ = nullptr;
  /// All that ends its sleep beside the link, the timers and wake-ups.
  io::Descriptor set_, signals_, yield_, door_, device_watch_;
  /// As last seen.
  io::DeviceState device_;
  /// A device's next user is waited for here; others keep it for themselves.
  bool holds_time_wait_ = false;

  uint64_t processes_seen_ = ~uint64_t{0};
  /// What is known of each queue's driver: LinkQueue::driver_generation, and when it was found changed.
  struct Seen {
    uint64_t generation = 0;
    Instant changed_at{};
    /// For which generation's absence a sleeper was roused.
    uint64_t roused = ~uint64_t{0};
  };
  std::array<Seen, io::Link::kMaxQueues> seen_;
  /// Queues that nobody attends, a bit each: they are the keeper's to drive.
  uint32_t watched_ = 0;
  /// Others may need it soon.
  bool look_again_ = false;
  Duration tick_ = kGrace;
  /// Some process has no descriptor here to be watched by.
  bool blind_ = false;
  bool link_lost_ = false;
  /// Of the stand-in: a pidfd, its stack, when the next may be started.
  io::Descriptor stand_in_;
  int32_t stand_in_pid_ = 0;
  void* stand_in_stack_ = nullptr;
  Instant next_stand_in_{};

  bool yielding_ = false, terminated_ = false;
  /// Since when nobody is attached and it was told to end; since when no segment came.
  Instant ending_since_ = kNever, progress_at_{};
  uint64_t segments_seen_ = 0;
};

/// What a keeper and its stand-in, which share memory and descriptors, know of each other.
struct Pair {
  /// The keeper ends by itself: so does the stand-in.
  std::atomic<bool> leaving{false};
  Keeper* keeper = nullptr;
  /// By which the stand-in hears of the keeper's death.
  io::Descriptor pidfd;
  /// The word in which libc has the thread's number.
  int32_t* thread_id = nullptr;
  /// SharedHost::repairs as the keeper has last seen it.
  uint64_t repairs = 0;
};
constinit Immortal<Pair> pair;

Keeper::Keeper(Start* start, Keeper* predecessor)
    : shared_(*shared_host), record_(shared_.keeper), start_(start), predecessor_(predecessor) {
  pair->keeper = this;
  if (predecessor == nullptr) return;
  predecessor->set_.reset();
  predecessor->signals_.reset();
  predecessor->yield_.reset();
  predecessor->door_.reset();
  predecessor->device_watch_.reset();
  predecessor->stand_in_.reset();
  io::Engine::abandon(std::exchange(predecessor->engine_, nullptr));
}

bool Keeper::attach(HostLock& lock) {
  if (predecessor_ != nullptr)
    for (Attachment& process : shared_.attached) io::Descriptor(process.keepers_descriptor).reset();
  // What the one before has left.
  if (record_.waiter != nullptr) destroy_waiter(record_.waiter);
  FdTable::destroy(record_.table);
  if (record_.stack != nullptr) shared_.arena->release(record_.stack, kStackBytes);
  record_.resting = record_.missing = false;
  record_.watching_until = Instant::min();
  for (Attachment& process : shared_.attached) process.keepers_descriptor = -1;

  record_.stack = start_->stack;
  record_.table = FdTable::create(*shared_.arena);
  record_.waiter = this_thread().waiter = make_waiter();
  if (record_.waiter != nullptr && shared_.sharded()) record_.waiter->queue = 0;  // its engine is the first's
  FdTable::set_current(record_.table);
  record_.pid.store(Process::id());
  if (record_.table == nullptr || record_.waiter == nullptr) return false;
  engine_ = io::Engine::create(io::EngineKind::plain, Process::link(), *shared_.host, Duration(0),
                               &record_.waiter->holdings);
  if (engine_ == nullptr) return false;
  lock.host().log()(LogLevel::debug, [&](LogLine& line) {
    line << "keeper process " << Process::id()
         << (predecessor_ != nullptr ? ", in place of one that was killed" : "");
  });
  if (std::exchange(predecessor_, nullptr) != nullptr)
    escape::go_on_after_death(shared_.repairs != pair->repairs);
  record_.state.store(Record::running);
  sys::call(SYS_futex, sys::arg(&record_.state), FUTEX_WAKE, ~0u >> 1);
  return true;
}

bool Keeper::watch(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  return fd >= 0 && sys::call(SYS_epoll_ctl, set_.get(), EPOLL_CTL_ADD, fd, sys::arg(&event)) == 0;
}

void Keeper::open_descriptors() {
  set_ = io::Descriptor(static_cast<int>(sys::call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  (void)io::move_high(set_);
  uint64_t mask = bit(SIGTERM);
  signals_ = io::Descriptor(static_cast<int>(
      sys::call(SYS_signalfd4, -1, sys::arg(&mask), sys::kSignalSetBytes, SFD_NONBLOCK | SFD_CLOEXEC)));
  (void)io::move_high(signals_);
  watch(signals_.get());
  watch(control().in_keeper.get());
  open_sockets();
  watch_device();
  if (int fd = escape::kernel_fd(); fd >= 0) watch(fd);
}

/// Where other programs ask for what this host has for itself, the device or an address on one, or to join.
void Keeper::open_sockets() {
  using Scheme = io::LinkSpec::Scheme;
  Scheme scheme = Process::config().link.scheme;
  if (scheme == Scheme::automatic || scheme == Scheme::fd) return;
  std::string_view name = Process::link().name();
  sockaddr_un claimed{};
  if (io::Descriptor& claim = Process::link().claim()) {
    socklen_t length = sizeof claimed;
    sys::call(SYS_getsockname, claim.get(), sys::arg(&claimed), sys::arg(&length));
    if (length > offsetof(sockaddr_un, sun_path) + 1)
      name = {claimed.sun_path + 1, length - offsetof(sockaddr_un, sun_path) - 1};
  }
  yield_ = io::open_yield_socket(name);
  holds_time_wait_ = watch(yield_.get());
  door_ = io::open_door(name);
  watch(door_.get());
}

void Keeper::watch_device() {
  if (Process::config().link.scheme == io::LinkSpec::Scheme::fd) return;
  device_watch_ = io::open_device_watch();
  (void)io::move_high(device_watch_);
  if (auto state = io::query_device(device_watch_.get(), Process::link().name())) device_ = *state;
  watch(device_watch_.get());
}

/// An interface has changed; ours, perhaps. What the user has chosen stays as it is.
void Keeper::follow_device() {
  io::clear_device_watch(device_watch_);
  std::optional<io::DeviceState> now = io::query_device(device_watch_.get(), Process::link().name());
  if (!now) return;
  const io::Config& config = Process::config();
  Network& network = shared_.host->network();  // of shards the one that speaks for all
  const Log& log = shared_.host->log();
  if (now->up != device_.up) {
    log(LogLevel::warning, [&](LogLine& line) { line << "the link is " << (now->up ? "up again" : "down"); });
    if (now->up) network.start();
  }
  if (now->mtu != device_.mtu) {
    const uint16_t mtu = config.mtu != 0 ? std::min(config.mtu, now->mtu) : now->mtu;
    shared_.each_shard([mtu](Shard& shard) { shard.host->network().set_link_mtu(mtu); });
    log(LogLevel::info, [&](LogLine& line) { line << "the link's MTU is " << network.link().mtu; });
  }
  const bool shared_mac =
      config.link.scheme == io::LinkSpec::Scheme::packet && network.link().mac == device_.mac;
  if (now->mac != device_.mac && shared_mac) {
    shared_.each_shard([&](Shard& shard) { shard.host->network().set_link_mac(now->mac); });
    const long result = io::filter_packet(network.config(), true, Process::link());
    log(LogLevel::info, [&](LogLine& line) {
      line << "the interface has another MAC address, and the host with it";
      if (result < 0) line << "; its filter could not be set: errno " << -result;
    });
  }
  device_ = *now;
}

void Keeper::run() {
  open_descriptors();
  drop_privileges();
  HostLock lock;
  if (!attach(lock)) {
    record_.state.store(Record::none);
    record_.not_before = io::now() + 1s;
    lock.unlock();
    pair->leaving.store(true);
    sys::call(SYS_exit_group, 1);
  }
  for (;;) turn(lock);
}

void Keeper::turn(HostLock& lock) {
  pair->repairs = shared_.repairs;
  if (processes_seen_ != record_.processes) watch_processes();
  escape::run(lock);
  record_.serves_outside.store(!escape::idle());
  Instant now = io::now();
  if (may_leave(now)) leave();
  have_stand_in(now);
  Duration others = leave_to_others(now);
  if (others == Duration(0)) {
    Instant until = told_to_end() && shared_.attached_count == 0 ? now + 100ms : kNever;
    if (look_again_) until = std::min(until, now + kLongestPause);
    drive(blind_ ? std::min(until, now + kLookForDead) : until);
  } else {
    rest(blind_ ? std::min(others, kLookForDead) : others);
  }
  serve(lock);
  if (blind_) shared_.reap_dead();
}

Duration Keeper::leave_to_others(Instant now) {
  watched_ = 0;
  uint32_t orphans = 0;
  bool taken = false, steady = true, left_and_back = false, just_left = false, awaited = false;
  for (uint32_t i = 0; i < shared_.queue_count; ++i) {
    const LinkQueue& queue = shared_.queues[i];
    const bool changed = queue.driver_generation != seen_[i].generation;
    seen_[i].generation = queue.driver_generation;
    if (changed) seen_[i].changed_at = now;
    const Duration unchanged = now - seen_[i].changed_at;
    if (queue.attended()) {
      awaited |= shared_.next_sleeper(queue) != nullptr;
      taken |= changed;
      steady &= unchanged >= kRestAfter;
    } else if (Waiter* next = shared_.attached_count > 0 ? shared_.next_sleeper(queue, true) : nullptr) {
      awaited = true;
      if (now - queue.left_at < kGrace) {
        just_left = true;
      } else if (std::exchange(seen_[i].roused, queue.driver_generation) != queue.driver_generation) {
        rouse(shared_, *next);
        just_left = true;
      } else {
        watched_ |= 1u << i;  // one that may not drive
      }
    } else if (shared_.attached_count > 0 && changed) {
      left_and_back = true;
    } else if (shared_.attached_count > 0 && unchanged < kGrace) {
      just_left = true;
    } else {
      watched_ |= 1u << i;
      if (unchanged >= kRestAfter) orphans |= 1u << i;
    }
  }
  // Without a driver of their own for long: those of the others see to them, and are only away for a moment.
  // Shards' queues have nobody else.
  if ((just_left || left_and_back) && !shared_.sharded()) watched_ &= ~orphans;
  look_again_ = !steady || left_and_back || just_left;
  if (watched_ != 0) {
    tick_ = kGrace;
    return Duration(0);
  }
  if (just_left) return kGrace;
  if (left_and_back) return tick_ = std::min(2 * tick_, kLongestPause);
  if (taken) tick_ = std::min(2 * tick_, awaited ? kLongestAwaited : kLongestTick);
  return steady ? Duration::max() : tick_;
}

/// `sends`: what is queued goes out first.
void Keeper::fall_asleep(bool sends) {
  Waiter& waiter = *record_.waiter;
  waiter.event = events::kKeeper;
  waiter.word.store(0, std::memory_order_seq_cst);
  waiter.asleep = true;
  if (sends) settle(shared_);  // who wakes it meanwhile ends the sleep before it begins
  drop(shared_);
}

void Keeper::awake() {
  acquire(shared_);
  Waiter& waiter = *record_.waiter;
  waiter.asleep = false;
  static_cast<ListHook<PendingWake>&>(waiter).unlink();
  shared_.forget_guest(waiter);
}

/// Of what nobody else sees to.
Instant Keeper::next_deadline() const {
  if (!shared_.sharded()) return shared_.host->next_deadline();
  Instant next = kNever;
  for (uint32_t i = 0; i < shared_.shard_count; ++i)
    if ((watched_ & 1u << i) != 0) next = std::min(next, shared_.shards[i].host->next_deadline());
  return next;
}

void Keeper::drive(Instant until) {
  const bool parallel = shared_.parallel;
  shared_.each_shard([](Shard& shard) { shard.host->send_owed_acks(); });
  if (parallel) distribute(shared_);
  engine_->transmit();
  io::WaitRequest wait;
  wait.queues = watched_;
  wait.deadline = std::max(Instant{}, std::min(until, next_deadline()));
  wait.wake_fd = events::descriptor(events::kKeeper);
  wait.kernel_fd = set_.get();
  record_.watching_until = wait.deadline;
  record_.watched = watched_;
  // Of other shards' queues it hears by their drivers.
  record_.resting = shared_.sharded() && !look_again_;
  for (uint32_t i = 0; i < shared_.queue_count; ++i) {
    if ((watched_ & 1u << i) == 0) continue;
    shared_.queues[i].guest = record_.waiter;
    wait.room |= shared_.queues[i].full;
  }
  fall_asleep(parallel);

  io::WaitResult result = engine_->wait(wait);

  awake();
  record_.resting = false;
  record_.watching_until = Instant::min();
  Instant now = io::now();
  engine_->deliver(now);
  shared_.each_shard([now](Shard& shard) {
    shard.last_look = now;
    shard.host->run(now);
  });
  settle(shared_);
  link_lost_ |= result.link_lost;
}

void Keeper::rest(Duration time) {
  record_.resting = time == Duration::max();
  fall_asleep(true);

  pollfd fds[2] = {{events::descriptor(events::kKeeper), POLLIN, 0}, {set_.get(), POLLIN, 0}};
  __kernel_timespec timeout{time.count() / 1'000'000'000, time.count() % 1'000'000'000};
  sys::ppoll(fds, 2, time == Duration::max() ? nullptr : &timeout, nullptr);
  events::clear(events::kKeeper);

  awake();
  record_.resting = false;
}

// --- what happens beside the link ---

void Keeper::serve(HostLock&) {
  constexpr int kRoom = 16;
  epoll_event ready[kRoom];
  long count = sys::call(SYS_epoll_pwait, set_.get(), sys::arg(ready), kRoom, 0, 0, sys::kSignalSetBytes);
  for (long i = 0; i < count; ++i) {
    int fd = ready[i].data.fd;
    if (fd == signals_.get()) {
      signalfd_siginfo info;
      terminated_ |= sys::read(fd, &info, sizeof info) > 0;
    } else if (fd == control().in_keeper.get()) {
      receive_messages();
    } else if (fd == yield_.get()) {
      answer_yield();
    } else if (fd == door_.get()) {
      open_door();
    } else if (fd == device_watch_.get()) {
      follow_device();
    } else if (fd != escape::kernel_fd() && !stand_in_ended(fd) && !process_ended(fd)) {
      io::Descriptor(fd).reset();  // of one that a relative has buried
    }
  }
}

void Keeper::receive_messages() {
  for (;;) {
    Message message;
    iovec part{&message, sizeof message};
    alignas(cmsghdr) char rights[CMSG_SPACE(Message::kMostDescriptors * sizeof(int))];
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = rights;
    header.msg_controllen = sizeof rights;
    long bytes =
        sys::call(SYS_recvmsg, control().in_keeper.get(), sys::arg(&header), MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    // The last process has ended: nobody is left to say anything.
    if (bytes == 0) sys::call(SYS_epoll_ctl, set_.get(), EPOLL_CTL_DEL, control().in_keeper.get(), 0);
    if (bytes != sizeof message) return;
    int fds[Message::kMostDescriptors];
    int count = 0;
    cmsghdr* first = CMSG_FIRSTHDR(&header);
    if (first != nullptr && first->cmsg_type == SCM_RIGHTS) {
      count = static_cast<int>((first->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      std::memcpy(fds, CMSG_DATA(first), static_cast<size_t>(count) * sizeof(int));
    }
    take_message(message, fds, count);
  }
}

void Keeper::take_message(const Message& message, const int* fds, int count) {
  if (message.kind == Message::events) {
    for (int i = 0; i < count; ++i) events::adopt(message.first + i, io::Descriptor(fds[i]));
    return;
  }
  io::Descriptor end(count > 0 ? fds[0] : -1);
  (void)io::move_high(end);
  if (message.kind == Message::memory) return lending::adopt(message.lender, std::move(end));
  escape::adopt(*message.file, std::move(end));
}

void Keeper::answer_yield() {
  while (io::Descriptor asking = io::accept_yield(yield_)) {
    if (shared_.attached_count > 0 || opening::channels() > 0) {
      io::refuse_yield(std::move(asking));
    } else {
      yielding_ = true;
      asking.release();  // closed by our end
    }
  }
}

void Keeper::open_door() {
  while (io::Descriptor guest = io::accept_guest(door_, EACCES))
    opening::let_in(std::move(guest), told_to_end() ? ESHUTDOWN : 0);
}

/// Opens a descriptor for every process that has none here.
void Keeper::watch_processes() {
  processes_seen_ = record_.processes;
  blind_ = false;
  const uint64_t here = this_pid_namespace();
  Attachment* next;
  for (Attachment* process = shared_.attached.front(); process != nullptr; process = next) {
    next = shared_.attached.next(*process);
    if (process->keepers_descriptor >= 0) continue;
    int32_t pid = process->number_in(here);
    if (pid == 0) {
      blind_ = true;
      continue;
    }
    long opened = sys::call(SYS_pidfd_open, pid, 0);
    if (opened == -ESRCH) {
      bury(*process);
      continue;
    }
    io::Descriptor fd(opened < 0 ? -1 : static_cast<int>(opened));
    if (!fd || !io::move_high(fd).ok() || !watch(fd.get())) {
      blind_ = true;
      continue;
    }
    process->keepers_descriptor = fd.release();
  }
}

bool Keeper::process_ended(int fd) {
  for (Attachment& process : shared_.attached) {
    if (process.keepers_descriptor != fd) continue;
    bury(process);
    return true;
  }
  return false;
}

void Keeper::bury(Attachment& process) {
  io::Descriptor(std::exchange(process.keepers_descriptor, -1)).reset();
  lending::forget(process.serial);
  shared_.bury(process);
  // If it drove, or was about to, another one must.
  for (uint32_t i = 0; i < shared_.queue_count; ++i)
    if (Waiter* next = shared_.next_sleeper(shared_.queues[i]);
        next != nullptr && shared_.queues[i].driver == nullptr)
      rouse(shared_, *next);
}

// --- the stand-in ---

/// Goes on as the keeper, which has died.
[[noreturn]] void take_over(Start* start) {
  struct RobustList {
    RobustList* next;
    long offset;
    void* pending;
  };
  // The kernel has marked the keeper's locks as those of a dead owner; this task has none.
  auto* list = static_cast<RobustList*>(start->robust_list);
  list->next = list;
  list->pending = nullptr;
  sys::call(SYS_set_robust_list, sys::arg(list), static_cast<long>(start->robust_list_bytes));
  *pair->thread_id = static_cast<int32_t>(sys::call(SYS_set_tid_address, sys::arg(pair->thread_id)));
  begin_anew();
  hold_life();
  sys::call(SYS_prctl, PR_SET_NAME, sys::arg("ustack-keeper"));
  sys::call(SYS_setsid);
  pair->pidfd.reset();
  Keeper(start, pair->keeper).run();
}

/// On its own stack beside the keeper's, with nothing else of its own: libc is not called.
void stand_in_main(void* start) {
  sys::call(SYS_prctl, PR_SET_NAME, sys::arg("ustack-standin"));
  pollfd item{pair->pidfd.get(), POLLIN, 0};
  while (sys::ppoll(&item, 1, nullptr, nullptr) <= 0) {
  }
  if (pair->leaving.load()) sys::call(SYS_exit_group, 0);
  take_over(static_cast<Start*>(start));
}

/// Only where something would be lost with the keeper.
void Keeper::have_stand_in(Instant now) {
  constexpr Duration kTryAgainAfter = 50ms;
  if (stand_in_ || escape::idle() || now < next_stand_in_) return;
  next_stand_in_ = now + kTryAgainAfter;
  if (!pair->pidfd) {
    pair->pidfd = io::Descriptor(static_cast<int>(sys::call(SYS_pidfd_open, Process::id(), 0)));
    (void)io::move_high(pair->pidfd);
  }
  pair->thread_id = thread_id_address();
  if (!pair->pidfd || pair->thread_id == nullptr) return;
  Start* start = make_stack(shared_);
  if (start == nullptr) return;
  long pid = clone_process(start, CLONE_VM | CLONE_FILES, nullptr, stand_in_main);
  stand_in_ = io::Descriptor(pid < 0 ? -1 : static_cast<int>(sys::call(SYS_pidfd_open, pid, 0)));
  (void)io::move_high(stand_in_);
  if (pid < 0 || !watch(stand_in_.get())) {
    if (pid > 0) {
      sys::call(SYS_kill, pid, SIGKILL);
      sys::call(SYS_wait4, pid, 0, __WCLONE, 0);
    }
    stand_in_.reset();
    shared_.arena->release(start->stack, kStackBytes);
    return;
  }
  stand_in_pid_ = static_cast<int32_t>(pid);
  stand_in_stack_ = start->stack;
  record_.has_stand_in.store(true);
}

bool Keeper::stand_in_ended(int fd) {
  if (!stand_in_ || fd != stand_in_.get()) return false;
  record_.has_stand_in.store(false);
  stand_in_.reset();
  sys::call(SYS_wait4, stand_in_pid_, 0, __WCLONE, 0);
  shared_.arena->release(std::exchange(stand_in_stack_, nullptr), kStackBytes);
  return true;
}

// --- the end ---

bool Keeper::out_of_patience(Instant now) {
  uint64_t segments = shared_.counters().TcpInSegs;
  if (ending_since_ == kNever) {
    ending_since_ = progress_at_ = now;
    segments_seen_ = segments;
  } else if (segments != segments_seen_) {
    segments_seen_ = segments;
    progress_at_ = now;
  }
  Duration longest = terminated_ ? kLongestWhenTold : kLongest;
  if (now < ending_since_ + longest && now < progress_at_ + kWithoutProgress) return false;
  shared_.host->log()(LogLevel::warning, [](LogLine& line) {
    line << "the keeper was told to end before all that was sent was acknowledged";
  });
  return true;
}

bool Keeper::may_leave(Instant now) {
  if (shared_.attached_count > 0) return false;
  if (link_lost_) return true;
  if (told_to_end() && out_of_patience(now)) return true;
  settle(shared_);
  if (!escape::idle() || !shared_.drained()) return false;
  uint64_t time_waits = 0;
  shared_.each_shard([&](Shard& shard) { time_waits += shard.host->tcp().time_wait_count(); });
  return told_to_end() || !holds_time_wait_ || time_waits == 0;
}

void Keeper::leave() {
  pair->leaving.store(true);
  record_.has_stand_in.store(false);
  record_.state.store(Record::none);
  if (io::Capture* capture = process_state().capture) capture->flush();
  write_counters(process_state().counters_file, shared_.counters());
  drop(shared_);
  sys::call(SYS_exit_group, 0);
  __builtin_unreachable();
}

}  // namespace

void process_main(void* argument) {
  auto* start = static_cast<Start*>(argument);
  sys::call(SYS_set_robust_list, sys::arg(start->robust_list), static_cast<long>(start->robust_list_bytes));
  begin_anew();
  hold_life();
  sys::call(SYS_prctl, PR_SET_NAME, sys::arg("ustack-keeper"));
  default_action(SIGTERM);
  sys::call(SYS_setsid);
  sys::call(SYS_chdir, sys::arg("/"));
  close_the_programs_descriptors();
  twins::forget_all();
  unmap_program();
  Keeper(start).run();
}

}  // namespace ustack::shim::keeper
