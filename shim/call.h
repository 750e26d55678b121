// The frame of the hooks that take a socket: ours? then the object's method, in a Scope, under the lock, with
// a reference; else the real function.
#pragma once

#include <optional>
#include <utility>

#include "shim/blocker.h"
#include "shim/cancellation.h"
#include "shim/driver.h"
#include "shim/fd_table.h"
#include "shim/host_lock.h"
#include "shim/scope.h"
#include "shim/socket_file.h"

namespace ustack::shim {

/// Result of a body that finds that the real function has to be called (the socket has become the kernel's).
inline constexpr int kGoReal = 1024;

/// The first line of every hook: whether the descriptor may be ours and we are not inside the library.
inline bool concerns_us(int fd) { return FdTable::look(fd) != nullptr && !Scope::inside(); }

/// Runs something that touches the program's memory, without the lock.
template <typename Copy>
auto unlocked(HostLock& lock, Copy&& copy) {
  lock.unlock();
  auto result = copy();
  lock.lock();
  return result;
}

namespace detail {
inline long value_of(const Status&) { return 0; }
template <typename T>
long value_of(const Result<T>& result) {
  return static_cast<long>(*result);
}
}  // namespace detail

/// `body(lock, file)` for a descriptor that is a socket of ours; it yields a Status or a Result of a number.
/// What is no socket of ours by the time that the lock is held, and a body that says kGoReal, goes to
/// `real()`. errno, restarts and EINTR are seen to here.
/// `As`: what the lock is made of.
template <typename As = HostLock::All, typename Body, typename Real>
auto on_socket(int fd, Body&& body, Real&& real) -> decltype(real()) {
  using Return = decltype(real());
  bool go_real = false;
  long value = blocking_call([&](Scope& scope) -> long {
    HostLock lock(As{fd});
    std::optional<CommonLock> finding(std::in_place);
    OpenFile* file = FdTable::look(fd);
    if (file == nullptr || file->kind() != OpenFile::Kind::socket) {
      go_real = true;
      return 0;
    }
    Held held(*file);
    finding.reset();
    auto result = body(lock, static_cast<SocketFile&>(*file));
    if (result.ok()) return detail::value_of(result);
    if (result.code() == kGoReal) {
      go_real = true;
      return 0;
    }
    return result.code() == kRestart ? scope.interrupted(true) : scope.fail(result.code());
  });
  return go_real ? real() : static_cast<Return>(value);
}

/// The same where POSIX has a cancellation point.
template <typename As = HostLock::All, typename Body, typename Real>
auto on_socket_cancellable(int fd, Body&& body, Real&& real) -> decltype(real()) {
  return cancellation::point([&] { return on_socket<As>(fd, body, real); });
}

}  // namespace ustack::shim
