// poll(2), select(2) and their kin.
#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/cancellation.h"
#include "shim/fd_table.h"
#include "shim/hooks.h"
#include "shim/poll.h"
#include "shim/scope.h"
#include "shim/time_limit.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

int fail(int code) {
  errno = code;
  return -1;
}

bool nothing_is_ours() { return FdTable::current() == nullptr || Scope::inside(); }

/// Calls visit(index, fd) for the program's array until it says false. EFAULT.
template <typename Visit>
Status each_pollfd(const pollfd* fds, size_t count, Visit&& visit) {
  constexpr size_t kAtOnce = 32;
  pollfd some[kAtOnce];
  for (size_t i = 0; i < count; i += kAtOnce) {
    size_t n = std::min(kAtOnce, count - i);
    if (Status s = copy_from_user(some, fds + i, n * sizeof(pollfd)); !s.ok()) return s;
    for (size_t k = 0; k < n; ++k)
      if (!visit(i + k, some[k])) return {};
  }
  return {};
}

bool any_is_ours(const pollfd* fds, nfds_t count) {
  if (count > static_cast<nfds_t>(FdTable::kLimit) || !user_range(fds, count * sizeof(pollfd))) return false;
  bool any = false;
  (void)each_pollfd(fds, count,
                    [&any](size_t, const pollfd& fd) { return !(any = FdTable::look(fd.fd) != nullptr); });
  return any;
}

int poll_under_mask(pollfd* fds, nfds_t count, Instant deadline, const sigset_t* mask) {
  // Asked for only where it can matter: it is a system call.
  constexpr nfds_t kSmallLimit = 64;
  rlimit limit{};
  if (count > kSmallLimit && getrlimit(RLIMIT_NOFILE, &limit) == 0 && count > limit.rlim_cur)
    return fail(EINVAL);
  Scope scope;
  PollRoom room(count);
  if (!room.ok()) return scope.fail(ENOMEM);
  Status s = each_pollfd(fds, count, [&room](size_t i, const pollfd& fd) {
    auto events = static_cast<uint16_t>(fd.events);
    room.items()[i] = {
        .fd = fd.fd, .events = events, .counts = static_cast<uint16_t>(events | POLLERR | POLLHUP)};
    return true;
  });
  if (!s.ok()) return scope.fail(s.code());
  Result<int> result = poll_items(room, deadline, mask);
  if (!result.ok()) return scope.fail(result.code());
  for (size_t i = 0; i < count; ++i)
    if (Status put = put_user(&fds[i].revents, static_cast<short>(room.items()[i].revents)); !put.ok())
      return scope.fail(put.code());
  return *result;
}

int poll_mixed(pollfd* fds, nfds_t count, Instant deadline, const sigset_t* mask) {
  return cancellation::point([&] { return poll_under_mask(fds, count, deadline, mask); });
}

constexpr int kWordBits = 8 * sizeof(unsigned long);

/// Where select stops: descriptors from the size of the kernel's table on are not looked at, whatever `count`
/// says (core_sys_select); programs pass getdtablesize() with sets of FD_SETSIZE.
int clip(int count) {
  if (count <= FD_SETSIZE) return count;
  long fd = io::sys::openat("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FD_SETSIZE;
  char text[1024];
  long n = io::sys::read(static_cast<int>(fd), text, sizeof text - 1);
  io::sys::close(static_cast<int>(fd));
  text[std::max(n, 0L)] = 0;
  const char* at = std::strstr(text, "FDSize:");
  int size = FD_SETSIZE;
  if (at != nullptr) std::sscanf(at + 7, "%d", &size);
  return std::min(count, size);
}

/// One of select's three sets, read and written by words; nullptr is the empty set.
class Set {
 public:
  explicit Set(fd_set* set) : words_(reinterpret_cast<unsigned long*>(set)) {}
  Result<unsigned long> word(int index) const {
    return words_ == nullptr ? Result<unsigned long>(0UL) : get_user(words_ + index);
  }
  Status put(int index, unsigned long value) const {
    return words_ == nullptr ? Status() : put_user(words_ + index, value);
  }

 private:
  unsigned long* words_;
};

/// The bits of a word that stand for descriptors below `count`.
unsigned long mask_of(int index, int count) {
  int bits = count - index * kWordBits;
  return bits >= kWordBits ? ~0UL : (1UL << bits) - 1;
}

struct Sets {
  Set in, out, except;

  /// Calls visit(fd, in, out, except) for each descriptor that is in any; false ends it. EFAULT.
  template <typename Visit>
  Status each(int count, Visit&& visit) const {
    for (int index = 0; index * kWordBits < count; ++index) {
      Result<unsigned long> i = in.word(index), o = out.word(index), e = except.word(index);
      if (!i.ok() || !o.ok() || !e.ok()) return Error{EFAULT};
      for (unsigned long any = (*i | *o | *e) & mask_of(index, count); any != 0; any &= any - 1) {
        int bit = __builtin_ctzl(any);
        unsigned long one = 1UL << bit;
        if (!visit(index * kWordBits + bit, (*i & one) != 0, (*o & one) != 0, (*e & one) != 0)) return {};
      }
    }
    return {};
  }
};

// What makes a descriptor count in each of the sets (fs/select.c).
constexpr uint16_t kIn = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR;
constexpr uint16_t kOut = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR;
constexpr uint16_t kExcept = POLLPRI;

/// Writes what is ready into the sets; how many bits that are. EFAULT.
Result<int> write_sets(const Sets& sets, int count, std::span<const PollItem> items) {
  int bits = 0;
  size_t next = 0;
  for (int index = 0; index * kWordBits < count; ++index) {
    unsigned long in = 0, out = 0, except = 0;
    for (; next < items.size() && items[next].fd >= 0 && items[next].fd / kWordBits == index; ++next) {
      const PollItem& item = items[next];
      unsigned long one = 1UL << (item.fd % kWordBits);
      // `events` remembers which sets it was in.
      if ((item.events & POLLIN) != 0 && (item.revents & kIn) != 0) in |= one;
      if ((item.events & POLLOUT) != 0 && (item.revents & kOut) != 0) out |= one;
      if ((item.events & POLLPRI) != 0 && (item.revents & kExcept) != 0) except |= one;
    }
    bits += __builtin_popcountl(in) + __builtin_popcountl(out) + __builtin_popcountl(except);
    unsigned long keep = ~mask_of(index, count);  // what lies beyond `count` is not select's
    auto put = [&](const Set& set, unsigned long value) -> Status {
      if (keep == 0) return set.put(index, value);
      Result<unsigned long> old = set.word(index);
      return old.ok() ? set.put(index, (*old & keep) | value) : Status(old.error());
    };
    if (!put(sets.in, in).ok() || !put(sets.out, out).ok() || !put(sets.except, except).ok())
      return Error{EFAULT};
  }
  return bits;
}

bool any_is_ours(int count, const Sets& sets) {
  bool any = false;
  (void)sets.each(count, [&any](int fd, bool, bool, bool) { return !(any = FdTable::look(fd) != nullptr); });
  return any;
}

/// `count` is clipped.
int select_under_mask(int count, const Sets& sets, Instant deadline, const sigset_t* mask) {
  Scope scope;
  size_t members = 0;
  Status s = sets.each(count, [&members](int, bool, bool, bool) { return ++members, true; });
  if (!s.ok()) return scope.fail(s.code());
  PollRoom room(members);
  if (!room.ok()) return scope.fail(ENOMEM);
  size_t next = 0;
  s = sets.each(count, [&](int fd, bool in, bool out, bool except) {
    if (next == members) return false;  // another thread has added to the sets meanwhile
    room.items()[next++] = {
        .fd = fd,
        .events =
            static_cast<uint16_t>((in ? POLLIN | POLLRDNORM | POLLRDBAND : 0) |
                                  (out ? POLLOUT | POLLWRNORM | POLLWRBAND : 0) | (except ? POLLPRI : 0)),
        .counts = static_cast<uint16_t>((in ? kIn : 0) | (out ? kOut : 0) | (except ? kExcept : 0))};
    return true;
  });
  if (!s.ok()) return scope.fail(s.code());
  Result<int> ready = poll_items(room, deadline, mask);
  if (!ready.ok()) return scope.fail(ready.code());
  for (const PollItem& item : room.items())
    if ((item.revents & POLLNVAL) != 0) return scope.fail(EBADF);
  Result<int> bits = write_sets(sets, count, room.items());
  return bits.ok() ? *bits : scope.fail(bits.code());
}

int select_mixed(int count, const Sets& sets, Instant deadline, const sigset_t* mask) {
  return cancellation::point([&] { return select_under_mask(count, sets, deadline, mask); });
}

}  // namespace

namespace hook {

int poll(pollfd* fds, nfds_t count, int timeout) {
  if (nothing_is_ours() || !any_is_ours(fds, count)) return real::poll(fds, count, timeout);
  return poll_mixed(fds, count, deadline_in_ms(timeout), nullptr);
}

int __poll_chk(pollfd* fds, nfds_t count, int timeout, size_t room) {
  if (room / sizeof *fds < count) return real::__poll_chk(fds, count, timeout, room);
  return hook::poll(fds, count, timeout);
}

int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (nothing_is_ours() || !any_is_ours(fds, count)) return real::ppoll(fds, count, timeout, mask);
  Result<Instant> deadline = deadline_in(timeout);
  return deadline.ok() ? poll_mixed(fds, count, *deadline, mask) : fail(deadline.code());
}

int __ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, size_t room) {
  if (room / sizeof *fds < count) return real::__ppoll_chk(fds, count, timeout, mask, room);
  return hook::ppoll(fds, count, timeout, mask);
}

int select(int count, fd_set* in, fd_set* out, fd_set* except, timeval* timeout) {
  if (nothing_is_ours() || count <= 0) return real::select(count, in, out, except, timeout);
  Sets sets{Set(in), Set(out), Set(except)};
  int clipped = clip(count);
  if (!any_is_ours(clipped, sets)) return real::select(count, in, out, except, timeout);
  Instant deadline = kNever;
  if (timeout != nullptr) {
    Result<timeval> limit = get_user(timeout);
    if (!limit.ok()) return fail(limit.code());
    if (limit->tv_sec < 0 || limit->tv_usec < 0) return fail(EINVAL);
    limit->tv_sec = std::min<time_t>(limit->tv_sec, kEndlessSeconds);
    deadline = deadline_after(limit->tv_sec + limit->tv_usec / 1'000'000,
                              std::chrono::microseconds(limit->tv_usec % 1'000'000));
  }
  int result = select_mixed(clipped, sets, deadline, nullptr);
  if (timeout != nullptr) {
    // Linux says what was left of the time (select(2)), also when a signal came.
    Duration left = deadline == Instant::min() ? Duration(0) : std::max(Duration(0), deadline - io::now());
    if (deadline != kNever) (void)put_user(timeout, timeval{.tv_sec = left / 1s, .tv_usec = left % 1s / 1us});
  }
  return result;
}

int pselect(int count, fd_set* in, fd_set* out, fd_set* except, const timespec* timeout,
            const sigset_t* mask) {
  if (nothing_is_ours() || count <= 0) return real::pselect(count, in, out, except, timeout, mask);
  Sets sets{Set(in), Set(out), Set(except)};
  int clipped = clip(count);
  if (!any_is_ours(clipped, sets)) return real::pselect(count, in, out, except, timeout, mask);
  Result<Instant> deadline = deadline_in(timeout);
  return deadline.ok() ? select_mixed(clipped, sets, *deadline, mask) : fail(deadline.code());
}

}  // namespace hook

}  // namespace ustack::shim
