#include "shim/poll.h"

#include <algorithm>
#include <cerrno>
#include <new>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/fd_table.h"
#include "shim/kernel_watch.h"
#include "shim/sandbox.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim {

namespace {

/// A program that finds something ready each time looks at the link after that long.
constexpr Duration kOverdue = 100us;
/// What can't be watched is looked at that often.
constexpr Duration kTick = 5ms;
/// Begin from the start: a socket has become the kernel's.
constexpr int kLookAgain = 2048;

Instant last_look{};  // lock: the host's

/// The kernel descriptor to look at for an item, -1: none.
int kernel_descriptor(int fd, const OpenFile* file) {
  if (file == nullptr || file->kind() == OpenFile::Kind::epoll) return fd;
  return file->kernel_half();
}

/// One descriptor that is only read from can be watched itself.
bool watch_directly(const pollfd& fd) {
  constexpr int kReading = POLLIN | POLLRDNORM | POLLRDHUP;
  return (fd.events & (POLLIN | POLLRDNORM)) != 0 && (fd.events & ~kReading) == 0;
}

/// One attempt of poll_items(). Lock held from beginning to end, but for its waits.
class Polling {
 public:
  Polling(HostLock& lock, PollRoom& room) : lock_(lock), room_(room) { gather(); }
  ~Polling();
  Polling(const Polling&) = delete;
  Polling& operator=(const Polling&) = delete;

  Result<int> run(Instant deadline, const sigset_t* mask);

 private:
  void gather();
  /// How many items have something.
  int look();
  int look_at_ours();
  int look_at_kernel();
  bool replaced() const;
  Status register_ours(Wait& wait);

  HostLock& lock_;
  PollRoom& room_;
  Claims* claims_ = this_claims();
  size_t kernel_count_ = 0;
};

void Polling::gather() {
  std::span<PollItem> items = room_.items();
  for (size_t i = 0; i < items.size(); ++i) {
    OpenFile* file = FdTable::look(items[i].fd);
    room_.files()[i] = file;
    if (file != nullptr) file->reference();
    int fd = kernel_descriptor(items[i].fd, file);
    if (fd < 0) continue;
    room_.kernel()[kernel_count_] = {fd, static_cast<short>(items[i].events), 0};
    room_.kernel_of()[kernel_count_] = static_cast<uint32_t>(i);
    ++kernel_count_;
  }
  if (claims_ != nullptr) room_.claim(*claims_);
}

Polling::~Polling() {
  if (claims_ != nullptr) claims_->clear_polled();
  for (OpenFile* file : room_.files())
    if (file != nullptr) file->release();
}

int Polling::look_at_ours() {
  int count = 0;
  for (size_t i = 0; i < room_.items().size(); ++i) {
    PollItem& item = room_.items()[i];
    OpenFile* file = room_.files()[i];
    item.revents = file == nullptr ? 0 : static_cast<uint16_t>(file->readiness() & item.counts);
    count += item.revents != 0;
  }
  return count;
}

int Polling::look_at_kernel() {
  std::span<pollfd> kernel = room_.kernel().first(kernel_count_);
  __kernel_timespec none{};
  lock_.unlock();
  long result = io::sys::ppoll(kernel.data(), kernel.size(), &none, nullptr);
  lock_.lock();
  if (result <= 0) return 0;
  int count = 0;
  for (size_t k = 0; k < kernel.size(); ++k) {
    PollItem& item = room_.items()[room_.kernel_of()[k]];
    auto events = static_cast<uint16_t>(kernel[k].revents & (item.counts | POLLNVAL));
    count += item.revents == 0 && events != 0;
    item.revents |= events;
  }
  return count;
}

int Polling::look() {
  int count = look_at_ours();
  return kernel_count_ == 0 ? count : count + look_at_kernel();
}

bool Polling::replaced() const {
  return std::ranges::any_of(room_.files(), [](OpenFile* file) {
    return file != nullptr && file->kind() == OpenFile::Kind::socket &&
           static_cast<SocketFile*>(file)->replaced();
  });
}

Status Polling::register_ours(Wait& wait) {
  for (size_t i = 0; i < room_.items().size(); ++i)
    if (OpenFile* file = room_.files()[i])
      if (Status s = wait.on(file->waiters(), room_.items()[i].counts); !s.ok()) return s;
  return {};
}

Result<int> Polling::run(Instant deadline, const sigset_t* mask) {
  int count = look();
  if (count > 0) {
    Instant before = last_look;
    look_if_overdue(lock_);
    return last_look == before ? count : look();
  }
  const bool waits = deadline != Instant::min();
  if (!waits && mask == nullptr) {
    look_at_link(lock_);
    note_look(lock_);
    return look();
  }
  KernelWatch watch;
  WaitRequest request{.deadline = deadline, .signal_mask = mask};
  bool direct = false;
  if (!waits) {
    // Only the signals that the mask lets through are waited for.
  } else if (kernel_count_ == 1 && watch_directly(room_.kernel()[0])) {
    request.kernel_fd = room_.kernel()[0].fd;
    direct = true;
  } else if (kernel_count_ > 0 && !sandbox::active()) {
    lock_.unlock();
    request.kernel_fd = watch.start(room_.kernel().first(kernel_count_));
    lock_.lock();
  }
  // The kernel's side can't be waited for, only looked at.
  bool blind = !watch.complete() || (kernel_count_ > 0 && waits && request.kernel_fd < 0);
  Wait wait;
  Result<int> result = 0;
  for (;;) {
    if (Status s = register_ours(wait); !s.ok()) return s.error();
    // While the kernel was asked the lock was dropped: who wasn't registered then hasn't been told.
    if (int ours = look_at_ours(); ours > 0) {
      result = ours;
      break;
    }
    if (blind) request.deadline = std::min(deadline, io::now() + kTick);
    WaitOutcome outcome = wait.sleep(lock_, request);
    note_look(lock_);
    if (replaced()) {
      result = Error{kLookAgain};
      break;
    }
    // Whatever ended it: what has come meanwhile goes first. The wait has seen whether the kernel has
    // anything.
    if (int found = blind || wait.kernel_ready() ? look() : look_at_ours(); found > 0) {
      result = found;
      break;
    }
    if (outcome == WaitOutcome::interrupted) {
      result = Error{EINTR};
      break;
    }
    if (outcome == WaitOutcome::timed_out && lock_.host().now() >= deadline) break;
    if (outcome == WaitOutcome::kernel) {
      // Ready in a way that nobody asked for (select: POLLHUP of one that is only written to).
      blind = true;
      request.kernel_fd = -1;
    }
  }
  if (direct) kernel_fd_closes();  // its number may be another's when it is watched next
  return result;
}

}  // namespace

PollRoom::PollRoom(size_t count) : count_(count) {
  void* memory = few_;
  if (count > kFew) {
    HostLock lock;
    memory = memory_ = shared_host->arena->allocate(count * kBytesEach, 8);
  }
  if (memory == nullptr) return;
  // The largest alignment first.
  auto* at = static_cast<std::byte*>(memory);
  files_ = new (at) OpenFile* [count] {};
  at += count * sizeof(OpenFile*);
  kernel_ = new (at) pollfd[count]{};
  at += count * sizeof(pollfd);
  kernel_of_ = new (at) uint32_t[count]{};
  at += count * sizeof(uint32_t);
  items_ = new (at) PollItem[count]{};
}

PollRoom::~PollRoom() {
  if (memory_ == nullptr) return;
  HostLock lock;
  shared_host->arena->release(memory_, count_ * kBytesEach);
}

Result<int> poll_items(PollRoom& room, Instant deadline, const sigset_t* mask) {
  this_thread().habit.waits();
  HostLock lock;
  for (;;) {
    Polling polling(lock, room);
    Result<int> result = polling.run(deadline, mask);
    if (result.code() != kLookAgain) return result;
  }
}

void note_look(HostLock& lock) { last_look = lock.host().now(); }

void look_if_overdue(HostLock& lock) {
  if (lock.host().now() - last_look < kOverdue) return;
  look_at_link(lock);
  note_look(lock);
}

}  // namespace ustack::shim
