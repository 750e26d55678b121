#include "shim/epoll_wait.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <optional>

#include "io/clock.h"
#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/fd_table.h"
#include "shim/host_lock.h"
#include "shim/poll.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

long kernel_control(int set, int operation, int fd, const epoll_event& event) {
  epoll_event copy = event;
  return io::sys::call(SYS_epoll_ctl, set, operation, fd, io::sys::arg(&copy));
}

/// Of a listener's twin. One of two listeners is an epoll set, which can't be watched with EPOLLEXCLUSIVE.
void control_half(int set, int operation, int half, epoll_event event) {
  if (kernel_control(set, operation, half, event) != -EINVAL || (event.events & EPOLLEXCLUSIVE) == 0) return;
  event.events &= ~static_cast<uint32_t>(EPOLLEXCLUSIVE);
  kernel_control(set, operation, half, event);
}

Status checked(long result) { return result < 0 ? Status(Error{static_cast<int>(-result)}) : Status(); }

// --- Recalling threads from the kernel's epoll_wait
// ---------------------------------------------------------------

constexpr int kFree = -1;
struct Slot : std::atomic<int> {
  constexpr Slot() : std::atomic<int>(kFree) {}
};
/// The epoll descriptors that threads wait on in the kernel. Those beyond the slots are not recalled.
struct Slots {
  std::array<Slot, 64> fds;
};
constinit Slots slots;
/// Readable for ever; put into a set whose waiters are to come back.
std::atomic<int> recall_fd{-1};
/// Its data in the sets: drawn at random, and looked for only in what such a wait brings back.
std::atomic<uint64_t> recall_data{0};
/// A thread that has left the kernel's wait by longjmp still has its slot; it is given up after that long.
constexpr Duration kRecallTime = 20ms;

bool is_waited_on(int set) {
  return std::ranges::any_of(slots.fds, [set](const std::atomic<int>& fd) { return fd.load() == set; });
}

void recall(int set) {
  if (!is_waited_on(set)) return;
  if (recall_fd.load() < 0) {
    io::Descriptor made(static_cast<int>(io::sys::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)));
    if (!made || !io::move_high(made).ok()) return;
    uint64_t data = 0;
    io::sys::getrandom(&data, sizeof data, 0);
    recall_data.store(data);
    recall_fd.store(made.release());
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = recall_data.load();
  if (kernel_control(set, EPOLL_CTL_ADD, recall_fd.load(), event) != 0) return;
  // Level-triggered, it reaches one waiting thread after the other. This is the only wait under the lock:
  // they need nothing of it to come out of the kernel, and it happens once in the life of a set.
  const Instant end = io::now() + kRecallTime;
  __kernel_timespec pause{0, 50'000};
  while (is_waited_on(set) && io::now() < end) io::sys::nanosleep(&pause);
  kernel_control(set, EPOLL_CTL_DEL, recall_fd.load(), {});
}

// --- Epoll descriptors
// ----------------------------------------------------------------------------------------------

constexpr int kBits = 64;
std::array<std::atomic<uint64_t>, FdTable::kLimit / kBits> epoll_descriptors{};
/// One past the last word of it that was ever used.
std::atomic<int> epoll_words{0};

/// The member `inner` of the kernel's set `outer`, as proc(5) shows it: "tfd: 5 events: 19 data: 7f00
/// pos:...".
std::optional<epoll_event> membership(int inner, int outer) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fdinfo/%d", outer);
  io::Descriptor file(static_cast<int>(io::sys::openat(path, O_RDONLY | O_CLOEXEC)));
  if (!file) return {};
  char text[4096];
  size_t kept = 0;  // of a line that was cut
  for (;;) {
    long n = io::sys::read(file.get(), text + kept, sizeof text - 1 - kept);
    if (n <= 0) return {};
    text[kept + static_cast<size_t>(n)] = 0;
    char* line = text;
    for (char* end = nullptr; (end = std::strchr(line, '\n')) != nullptr; line = end + 1) {
      *end = 0;
      int fd = -1;
      unsigned events = 0;
      unsigned long long data = 0;
      if (std::sscanf(line, "tfd: %d events: %x data: %llx", &fd, &events, &data) != 3 || fd != inner)
        continue;
      epoll_event event{};
      event.events = events;
      event.data.u64 = data;
      return event;
    }
    kept = std::strlen(line);
    if (kept == sizeof text - 1) return {};
    std::memmove(text, line, kept);
  }
}

/// A set that gets its first member of ours may have been put into others before there was anything of ours:
/// those have to know it as a member.
void tell_outer_sets(EpollSet& inner, int fd) {
  const auto words = static_cast<size_t>(epoll_words.load());
  for (size_t word = 0; word < words; ++word) {
    for (uint64_t bits = epoll_descriptors[word].load(std::memory_order_relaxed); bits != 0;
         bits &= bits - 1) {
      int outer = static_cast<int>(word) * kBits + __builtin_ctzll(bits);
      if (outer == fd) continue;
      std::optional<epoll_event> event = membership(fd, outer);
      if (!event) continue;
      Result<EpollSet*> set = epoll_set_of(outer);
      if (!set.ok() || (*set)->find(inner, fd) != nullptr) continue;
      bool first = (*set)->empty();
      if ((*set)->add(inner, fd, *event).ok() && first) tell_outer_sets(**set, outer);
    }
  }
}

Status control_ours(EpollSet& set, int operation, OpenFile& file, int fd, const epoll_event& event) {
  switch (operation) {
    case EPOLL_CTL_ADD:
      return set.add(file, fd, event);
    case EPOLL_CTL_MOD:
      return set.modify(file, fd, event);
    case EPOLL_CTL_DEL:
      return set.remove(file, fd);
    default:
      return Error{EINVAL};
  }
}

/// One epoll_wait. Lock held, dropped for what touches the program's memory.
class EpollWait {
 public:
  EpollWait(HostLock& lock, EpollSet& set, int fd, epoll_event* events, int room)
      : lock_(lock),
        set_(set),
        fd_(fd),
        events_(events),
        room_(static_cast<size_t>(room)),
        wait_(set.begin_wait()) {}

  Result<int> run(Instant deadline, const sigset_t* mask);

 private:
  static constexpr size_t kAtOnce = 32;

  /// Fills the program's array with what is ready now, of the kernel's if it is to be asked. EFAULT.
  Status gather(bool ask);
  /// Before anything is waited for: a wait tells for nothing whether the kernel's members are ready, so they
  /// are asked here only where ours are, or where the kernel's have something of late.
  bool asks_kernel_first() const {
    return set_.kernel_gave || (has_shards ? ready_lists() != 0 : set_.readiness() != 0);
  }
  Status ask_kernel();
  template <typename Collect>
  Status ask_ours(Collect collect);
  template <typename Collect>
  Status ask_list(Collect collect, uint32_t list);
  uint32_t ready_lists() const;
  Status ask_ours_after_kernel();
  Result<int> result() const { return static_cast<int>(count_); }

  HostLock& lock_;
  EpollSet& set_;
  int fd_;
  epoll_event* events_;
  size_t room_;
  uint32_t wait_;
  size_t count_ = 0;
  /// What the kernel reported, if that has to be compared.
  epoll_event reported_[kAtOnce];
  size_t reported_count_ = 0;
};

Status EpollWait::ask_kernel() {
  if (count_ == room_) return {};
  const bool compare = set_.has_halves();
  const size_t room = compare ? std::min(room_ - count_, kAtOnce) : room_ - count_;
  lock_.unlock();
  long n = io::sys::call(SYS_epoll_pwait, fd_, io::sys::arg(events_ + count_), static_cast<long>(room), 0, 0,
                         io::sys::kSignalSetBytes);
  if (n > 0 && compare) {
    reported_count_ = static_cast<size_t>(n);
    (void)copy_from_user(reported_, events_ + count_, reported_count_ * sizeof(epoll_event));
  }
  lock_.lock();
  if (n < 0) return n == -EINTR ? Status() : checked(n);
  set_.kernel_gave = n > 0;
  count_ += static_cast<size_t>(n);
  return {};
}

/// Collects from one list after the other, its own shard's first.
template <typename Collect>
Status EpollWait::ask_ours(Collect collect) {
  if (!has_shards) return ask_list(collect, EpollSet::kLastList);
  const uint32_t lists = ready_lists();
  auto ask = [&](uint32_t list) -> Status {
    if ((lists & 1u << list) == 0 || count_ == room_) return {};
    // The last one is asked without all locks for what needs none of them (EpollSet::needs_all).
    if (list != EpollSet::kLastList) lock_.cover(static_cast<uint8_t>(list));
    Status s = ask_list(collect, list);
    if (!s.ok() || list != EpollSet::kLastList || covers_all() || !set_.needs_all()) return s;
    lock_.cover(kWhole);
    return ask_list(collect, list);
  };
  const Waiter* waiter = this_waiter();
  const uint32_t own = waiter != nullptr ? waiter->queue : 0;
  Status s = ask(own);
  for (uint32_t list = 0; list < EpollSet::kLists && s.ok(); ++list)
    if (list != own) s = ask(list);
  return s;
}

uint32_t EpollWait::ready_lists() const {
  CommonLock common;
  return set_.ready_lists();
}

template <typename Collect>
Status EpollWait::ask_list(Collect collect, uint32_t list) {
  while (count_ < room_) {
    epoll_event some[kAtOnce];
    std::span<epoll_event> out(some, std::min(kAtOnce, room_ - count_));
    const size_t n = collect(out, list);
    if (n == 0) return {};
    lock_.unlock();
    Status s = copy_to_user(events_ + count_, some, n * sizeof(epoll_event));
    lock_.lock();
    if (!s.ok()) return count_ > 0 ? Status() : s;
    count_ += n;
    if (n < out.size()) return {};
  }
  return {};
}

Status EpollWait::ask_ours_after_kernel() {
  return ask_ours([this](std::span<epoll_event> out, uint32_t list) {
    return set_.collect_after(wait_, out, std::span(reported_, reported_count_), list);
  });
}

Status EpollWait::gather(bool ask) {
  ask = ask && set_.has_kernel_members();
  reported_count_ = 0;
  set_.kernel_first = !set_.kernel_first;
  Status s;
  // When the array is too small for all, the kernel's and ours go first in turns.
  if (ask && !set_.kernel_first)
    s = ask_ours(
        [this](std::span<epoll_event> out, uint32_t list) { return set_.collect_whole(wait_, out, list); });
  if (ask && s.ok()) s = ask_kernel();
  return s.ok() ? ask_ours_after_kernel() : s;
}

Result<int> EpollWait::run(Instant deadline, const sigset_t* mask) {
  if (Status s = gather(asks_kernel_first()); !s.ok()) return s.error();
  if (count_ > 0) {
    look_if_overdue(lock_);
    if (Status s = ask_ours_after_kernel(); !s.ok()) return s.error();
    set_.pass_on();
    return result();
  }
  int code = 0;
  bool over = false;
  {
    Wait wait;
    while (count_ == 0 && !over) {
      // One event wakes one of the threads that wait on a set (epoll(7)).
      if (Status s = wait.on(set_.waiters(), ready::kIn | ready::kRdNorm, true); !s.ok()) return s.error();
      // What has come to one shard while another one was asked has told nobody.
      if (has_shards && ready_lists() != 0) {
        if (Status s = ask_ours_after_kernel(); !s.ok()) return s.error();
        if (count_ > 0) break;
      }
      WaitOutcome outcome = wait.sleep(
          lock_,
          {.deadline = deadline, .kernel_fd = set_.has_kernel_members() ? fd_ : -1, .signal_mask = mask});
      note_look(lock_);
      over = outcome == WaitOutcome::timed_out || outcome == WaitOutcome::interrupted;
      code = outcome == WaitOutcome::interrupted ? EINTR : 0;
      // Whatever ended it: what has come meanwhile goes first.
      if (Status s = gather(wait.kernel_ready()); !s.ok()) return s.error();
    }
  }
  if (count_ == 0) return code == 0 ? result() : Error{code};
  set_.pass_on();
  return result();
}

}  // namespace

KernelEpollWait::KernelEpollWait(int fd) {
  for (auto& slot : slots.fds) {
    int none = kFree;
    if (slot.load(std::memory_order_relaxed) != kFree || !slot.compare_exchange_strong(none, fd)) continue;
    slot_ = &slot;
    return;
  }
}

KernelEpollWait::~KernelEpollWait() {
  if (slot_ != nullptr) slot_->store(kFree);
}

int without_recall(epoll_event* events, int count) {
  const uint64_t data = recall_data.load();
  if (data == 0) return count;
  epoll_event* end = std::remove_if(events, events + std::max(count, 0),
                                    [data](const epoll_event& e) { return e.data.u64 == data; });
  return count < 0 ? count : static_cast<int>(end - events);
}

void note_epoll(int fd) {
  if (fd < 0 || fd >= FdTable::kLimit) return;
  epoll_descriptors[static_cast<size_t>(fd / kBits)].fetch_or(uint64_t{1} << (fd % kBits));
  for (int words = epoll_words.load(); words <= fd / kBits;)
    if (epoll_words.compare_exchange_weak(words, fd / kBits + 1)) break;
}

bool may_be_epoll(int fd) {
  return fd >= 0 && fd < FdTable::kLimit &&
         (epoll_descriptors[static_cast<size_t>(fd / kBits)].load(std::memory_order_relaxed) >> (fd % kBits) &
          1) != 0;
}

Result<EpollSet*> epoll_set_of(int fd) {
  if (OpenFile* file = FdTable::look(fd)) {
    if (file->kind() != OpenFile::Kind::epoll) return Error{EINVAL};
    return static_cast<EpollSet*>(file);
  }
  // A placeholder is in no kernel set: ENOENT says that `fd` is an epoll descriptor.
  Status s = checked(kernel_control(fd, EPOLL_CTL_DEL, Process::placeholder(), {}));
  if (s.code() != ENOENT) return s.ok() ? Error{EINVAL} : s.error();
  EpollSet* set = EpollSet::create(*shared_host->arena, fd);
  if (set == nullptr) return Error{ENOMEM};
  if (Status put = FdTable::current()->set(fd, set); !put.ok()) {
    set->release();
    return put.error();
  }
  // What it has of the kernel's is not known.
  set->expect_kernel_members();
  recall(fd);
  return set;
}

namespace {

/// A connection in a set that has members already needs no more than its shard's lock.
std::optional<Status> control_connection(int set_fd, int operation, int fd, const epoll_event& event) {
  if (covers_all()) return {};
  CommonLock common;
  OpenFile* set = FdTable::look(set_fd);
  if (set == nullptr || set->kind() != OpenFile::Kind::epoll || static_cast<EpollSet*>(set)->empty())
    return {};
  return control_ours(static_cast<EpollSet&>(*set), operation, *FdTable::look(fd), fd, event);
}

}  // namespace

Status control_member(HostLock& lock, int set_fd, int operation, int fd, const epoll_event& event) {
  if (std::optional<Status> done = control_connection(set_fd, operation, fd, event)) return *done;
  lock.cover(kWhole);
  OpenFile* file = FdTable::look(fd);
  if (set_fd == fd) return Error{EINVAL};
  Result<EpollSet*> found = epoll_set_of(set_fd);
  if (!found.ok()) return found.error();
  EpollSet& set = **found;
  Status s;
  if (file == nullptr && may_be_epoll(fd)) {
    // A set of the kernel's only, up to now. If it isn't one after all, it is like any other descriptor.
    if (Result<EpollSet*> inner = epoll_set_of(fd); inner.ok()) file = *inner;
  }
  if (file == nullptr) {
    if (operation == EPOLL_CTL_ADD) set.expect_kernel_members();
    return checked(kernel_control(set_fd, operation, fd, event));
  }
  if (file->kind() == OpenFile::Kind::epoll) {
    // The kernel judges loops and depth, and keeps its half.
    s = checked(kernel_control(set_fd, operation, fd, event));
    if (!s.ok()) return s;
    set.expect_kernel_members();
  }
  const bool first = set.empty();
  s = control_ours(set, operation, *file, fd, event);
  if (!s.ok()) return s;
  if (first && operation == EPOLL_CTL_ADD) tell_outer_sets(set, set_fd);
  if (file->kind() == OpenFile::Kind::socket && file->kernel_half() >= 0) {
    set.expect_kernel_members();
    control_half(set_fd, operation, file->kernel_half(), event);
  }
  return {};
}

Result<int> wait_for_events(int fd, epoll_event* events, int room, Instant deadline, const sigset_t* mask) {
  if (room <= 0 || room > INT_MAX / static_cast<int>(sizeof(epoll_event))) return Error{EINVAL};
  if (!user_range(events, static_cast<size_t>(room) * sizeof(epoll_event))) return Error{EFAULT};
  this_thread().habit.waits();
  HostLock lock{HostLock::Own{}};
  if (FdTable::look(fd) == nullptr) lock.cover(kWhole);  // it is made
  std::optional<CommonLock> finding(std::in_place);
  Result<EpollSet*> set = epoll_set_of(fd);
  if (!set.ok()) return set.error();
  Held held(**set);
  finding.reset();
  return EpollWait(lock, **set, fd, events, room).run(deadline, mask);
}

}  // namespace ustack::shim
