// epoll(7).
#include <cerrno>

#include "shim/cancellation.h"
#include "shim/epoll_wait.h"
#include "shim/fd_table.h"
#include "shim/hooks.h"
#include "shim/opening.h"
#include "shim/scope.h"
#include "shim/time_limit.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

int fail(int code) {
  errno = code;
  return -1;
}

bool has_host() { return FdTable::current() != nullptr; }

int made(int fd) {
  FdTable::forget_stale(fd);
  if (fd >= 0) note_epoll(fd);
  return fd;
}

int wait_here(int set, epoll_event* events, int room, Instant deadline, const sigset_t* mask) {
  Scope scope;
  Result<int> result = wait_for_events(set, events, room, deadline, mask);
  return result.ok() ? *result : scope.fail(result.code());
}

/// Once there is a host, all waits are here, also those on sets of the kernel's alone: another thread may put
/// a member of ours in at any time. Before, they are the kernel's; `deadline` is asked for only if need be.
template <typename Deadline, typename Real>
int wait_on(int set, epoll_event* events, int room, const sigset_t* mask, Deadline deadline, Real go_real) {
  if (Scope::inside()) return go_real();
  Result<Instant> until = deadline();
  if (!until.ok()) return fail(until.code());
  if (!has_host()) {
    int result = 0;
    {
      KernelEpollWait waiting(set);
      result = go_real();
    }
    if (!has_host() || FdTable::look(set) == nullptr) return result;
    int count = without_recall(events, result);
    if (count != 0 || result <= 0) return count;
  }
  return cancellation::point([&] { return wait_here(set, events, room, *until, mask); });
}

}  // namespace

namespace hook {

int epoll_create(int size) { return made(real::epoll_create(size)); }
int epoll_create1(int flags) { return made(real::epoll_create1(flags)); }

int epoll_ctl(int set, int operation, int fd, epoll_event* event) {
  if (!has_host() || Scope::inside() || (FdTable::look(set) == nullptr && FdTable::look(fd) == nullptr))
    return opening::is_used() ? opening::epoll_ctl(set, operation, fd, event)
                              : real::epoll_ctl(set, operation, fd, event);
  Scope scope;
  epoll_event copy{};
  if (operation != EPOLL_CTL_DEL)
    if (Status s = copy_from_user(&copy, event, sizeof copy); !s.ok()) return scope.fail(s.code());
  HostLock lock(HostLock::Transfer{fd});
  Status s = control_member(lock, set, operation, fd, copy);
  return s.ok() ? 0 : scope.fail(s.code());
}

int epoll_wait(int set, epoll_event* events, int room, int timeout) {
  return wait_on(
      set, events, room, nullptr, [timeout]() -> Result<Instant> { return deadline_in_ms(timeout); },
      [&] { return real::epoll_wait(set, events, room, timeout); });
}

int epoll_pwait(int set, epoll_event* events, int room, int timeout, const sigset_t* mask) {
  return wait_on(
      set, events, room, mask, [timeout]() -> Result<Instant> { return deadline_in_ms(timeout); },
      [&] { return real::epoll_pwait(set, events, room, timeout, mask); });
}

int epoll_pwait2(int set, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask) {
  return wait_on(
      set, events, room, mask, [timeout] { return deadline_in(timeout); },
      [&] { return real::epoll_pwait2(set, events, room, timeout, mask); });
}

}  // namespace hook

}  // namespace ustack::shim
