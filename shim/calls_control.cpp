// Hooks that set and ask: options, fcntl, ioctl.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <span>
#include <string_view>

#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/async_owner.h"
#include "shim/call.h"
#include "shim/escaped_peer.h"
#include "shim/hooks.h"
#include "shim/kernel_socket.h"
#include "shim/opening.h"
#include "shim/process.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

// No option of a stream socket is larger.
constexpr size_t kOptionBytes = 512;
using OptionValue = std::array<std::byte, kOptionBytes>;

/// What takes a right, and the kernel knows whether the program has it: it is asked by the placeholder, a
/// socket of the same network namespace. EPERM, EACCES; success also where the value is bad.
Status may_set_option(int level, int name, Bytes value) {
  constexpr std::array kPrivileged{SO_DEBUG,       SO_PRIORITY,        SO_MARK, SO_RCVMARK, SO_SNDBUFFORCE,
                                   SO_RCVBUFFORCE, SO_PREFER_BUSY_POLL};
  if (level != SOL_SOCKET || std::ranges::find(kPrivileged, name) == kPrivileged.end()) return {};
  const long result = io::sys::call(SYS_setsockopt, Process::placeholder(), level, name,
                                    io::sys::arg(value.data()), static_cast<long>(value.size()));
  return result == -EPERM || result == -EACCES ? Status(Error{static_cast<int>(-result)}) : Status();
}

// --- the device that a socket is bound to: the host's goes by its name, the kernel knows the others and
// their numbers

ifreq interface_named(std::string_view name) {
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

/// Interface requests (SIOCGIFADDR, ...) want some internet socket; the interfaces are the machine's.
Result<int> ask_interfaces(unsigned long request, void* argument) {
  io::Descriptor any(static_cast<int>(io::sys::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  long result = any ? io::sys::ioctl(any.get(), request, argument) : any.get();
  return result < 0 ? Result<int>(Error{static_cast<int>(-result)}) : Result<int>(static_cast<int>(result));
}

/// SIOCGIFINDEX or SIOCGIFNAME. ENODEV.
Status ask_interface(unsigned long request, ifreq& interface) {
  return ask_interfaces(request, &interface).status();
}

/// SO_BINDTODEVICE. With a device of the machine's other than the host's own link the socket becomes the
/// kernel's, if nothing has been done with it yet: kGoReal. ENODEV.
Status bind_to_device(SocketFile& file, int fd, Bytes name) {
  Status s = file.set_option(SOL_SOCKET, SO_BINDTODEVICE, name);
  if (s.code() != ENODEV || !file.undecided() || file.connecting()) return s;
  auto* text = reinterpret_cast<const char*>(name.data());
  ifreq interface = interface_named({text, strnlen(text, std::min<size_t>(name.size(), IFNAMSIZ - 1))});
  if (!ask_interface(SIOCGIFINDEX, interface).ok()) return s;
  return hand_over_to_kernel(file, fd);
}

/// SO_BINDTOIFINDEX, the same by its number; 0: to none. EINVAL, ENODEV.
Status bind_to_index(SocketFile& file, int fd, Bytes value) {
  int index;
  if (value.size() < sizeof index) return Error{EINVAL};
  std::memcpy(&index, value.data(), sizeof index);
  if (index < 0) return Error{EINVAL};
  ifreq interface {};
  interface.ifr_ifindex = index;
  if (index != 0)
    if (Status s = ask_interface(SIOCGIFNAME, interface); !s.ok()) return s;
  return bind_to_device(file, fd, std::as_bytes(std::span(interface.ifr_name)));
}

/// getsockopt(2) of the latter.
Result<size_t> bound_index(SocketFile& file, MutableBytes out) {
  std::array<std::byte, IFNAMSIZ> name{};
  Result<size_t> bytes = file.socket().get_option(SOL_SOCKET, SO_BINDTODEVICE, name);
  if (!bytes.ok()) return bytes;
  ifreq interface =
      interface_named({reinterpret_cast<const char*>(name.data()), *bytes > 0 ? *bytes - 1 : 0});
  interface.ifr_ifindex = 0;
  if (*bytes > 0)
    if (Status s = ask_interface(SIOCGIFINDEX, interface); !s.ok()) return s.error();
  return copy_out(&interface.ifr_ifindex, sizeof interface.ifr_ifindex, out);
}

/// IP multicast, which the stack has none of.
bool concerns_groups(int level, int name) {
  if (name >= MCAST_JOIN_GROUP && name <= MCAST_MSFILTER) return level == IPPROTO_IP || level == IPPROTO_IPV6;
  if (level == IPPROTO_IP)
    return (name >= IP_MULTICAST_IF && name <= IP_MSFILTER) || name == IP_MULTICAST_ALL;
  return level == IPPROTO_IPV6 &&
         ((name >= IPV6_MULTICAST_IF && name <= IPV6_LEAVE_GROUP) || name == IPV6_JOIN_ANYCAST ||
          name == IPV6_LEAVE_ANYCAST || name == IPV6_MULTICAST_ALL);
}

Status set_option(HostLock& lock, SocketFile& file, int fd, int level, int name, const void* value,
                  socklen_t length) {
  if (length > INT_MAX) return Error{EINVAL};
  OptionValue copy;
  Bytes bytes = Bytes(copy).first(std::min<size_t>(length, copy.size()));
  Status s = unlocked(lock, [&] { return copy_from_user(copy.data(), value, bytes.size()); });
  if (s.ok()) s = may_set_option(level, name, bytes);
  if (!s.ok()) return s;
  if (level == SOL_SOCKET && name == SO_BINDTODEVICE) return bind_to_device(file, fd, bytes);
  if (level == SOL_SOCKET && name == SO_BINDTOIFINDEX) return bind_to_index(file, fd, bytes);
  if (file.has_datagrams() && concerns_groups(level, name) && file.undecided())
    return hand_over_to_kernel(file, fd);
  if (level == IPPROTO_IPV6 && file.dual_stack() != nullptr && !DualStack::knows(name) && !file.has_ipv6() &&
      file.undecided() && !file.connecting())
    return hand_over_to_kernel(file, fd);  // it asks for more of IPv6 than the stack's half could have
  return file.set_option(level, name, bytes);
}

Status get_option(HostLock& lock, SocketFile& file, int level, int name, void* value, socklen_t* length) {
  // Of the namespace, so of any socket's: the kernel's descriptor knows it.
  constexpr int kNetworkNamespaceCookie = 71;  // SO_NETNS_COOKIE
  if (level == SOL_SOCKET && name == kNetworkNamespaceCookie) return Error{kGoReal};
  Result<socklen_t> room = unlocked(lock, [&] { return get_user(length); });
  if (!room.ok()) return room.error();
  if (*room > INT_MAX) return Error{EINVAL};
  OptionValue copy;
  const MutableBytes out = MutableBytes(copy).first(std::min<size_t>(*room, copy.size()));
  Result<size_t> n = level == SOL_SOCKET && name == SO_BINDTOIFINDEX ? bound_index(file, out)
                                                                     : file.get_option(level, name, out);
  if (!n.ok()) return n.error();
  return unlocked(lock, [&]() -> Status {
    if (Status s = copy_to_user(value, copy.data(), *n); !s.ok()) return s;
    return put_user(length, static_cast<socklen_t>(*n));
  });
}

/// What F_SETFL can change of a socket.
constexpr int kChangeable = O_NONBLOCK | O_ASYNC;

Result<int> set_async(SocketFile& file, bool on, int fd) {
  if (on || file.async_owner() != nullptr) {
    AsyncOwner* owner = file.make_async_owner();
    if (owner == nullptr) return Error{ENOMEM};
    owner->set_async(on, fd);
  }
  file.status_flags = on ? file.status_flags | O_ASYNC : file.status_flags & ~O_ASYNC;
  return 0;
}

Result<int> set_flags(SocketFile& file, int flags, int fd) {
  if (((file.status_flags ^ flags) & O_ASYNC) != 0)
    if (Result<int> done = set_async(file, (flags & O_ASYNC) != 0, fd); !done.ok()) return done;
  file.status_flags = (file.status_flags & ~kChangeable) | (flags & kChangeable);
  return 0;
}

/// F_SETOWN and its like, FIOSETOWN and SIOCSPGRP.
template <typename Set>
Result<int> set_owner(SocketFile& file, Set&& set) {
  AsyncOwner* owner = file.make_async_owner();
  if (owner == nullptr) return Error{ENOMEM};
  Status s = set(*owner);
  return s.ok() ? Result<int>(0) : Result<int>(s.error());
}

int owner_of(SocketFile& file) { return file.async_owner() != nullptr ? file.async_owner()->who() : 0; }

Result<int> control_owner(HostLock& lock, SocketFile& file, int command, unsigned long argument) {
  auto* extended = reinterpret_cast<f_owner_ex*>(argument);  // NOLINT(performance-no-int-to-ptr)
  switch (command) {
    case F_GETOWN:
      return owner_of(file);
    case F_GETSIG:
      return file.async_owner() != nullptr ? file.async_owner()->signal() : 0;
    case F_SETOWN:
      return set_owner(file, [&](AsyncOwner& owner) { return owner.set_owner(static_cast<int>(argument)); });
    case F_SETSIG:
      return set_owner(file, [&](AsyncOwner& owner) { return owner.set_signal(static_cast<int>(argument)); });
    case F_SETOWN_EX: {
      Result<f_owner_ex> wanted = unlocked(lock, [&] { return get_user(extended); });
      if (!wanted.ok()) return wanted.error();
      return set_owner(file, [&](AsyncOwner& owner) { return owner.set_owner(*wanted); });
    }
    default: {  // F_GETOWN_EX
      const f_owner_ex now =
          file.async_owner() != nullptr ? file.async_owner()->owner() : f_owner_ex{F_OWNER_TID, 0};
      Status s = unlocked(lock, [&] { return put_user(extended, now); });
      return s.ok() ? Result<int>(0) : Result<int>(s.error());
    }
  }
}

template <typename Real>
[[gnu::noinline]] int control_ours(int fd, int command, unsigned long argument, Real go_real) {
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: {
      Scope scope;
      HostLock lock;
      Result<int> number =
          FdTable::current()->duplicate(fd, command == F_DUPFD_CLOEXEC, static_cast<int>(argument));
      return number.ok() ? *number : scope.fail(number.code());
    }
    case F_GETFL:
      return on_socket(
          fd, [](HostLock&, SocketFile& file) -> Result<int> { return O_RDWR | file.status_flags; }, go_real);
    case F_SETFL:
      return on_socket(
          fd,
          [argument, fd](HostLock&, SocketFile& file) {
            return set_flags(file, static_cast<int>(argument), fd);
          },
          go_real);
    case F_GETOWN:
    case F_GETSIG:
    case F_SETOWN:
    case F_SETOWN_EX:
    case F_GETOWN_EX:
    case F_SETSIG:
      return on_socket(
          fd,
          [command, argument](HostLock& lock, SocketFile& file) {
            return control_owner(lock, file, command, argument);
          },
          go_real);
    default:
      break;  // F_GETFD, F_SETFD: the kernel's descriptor has them. Others: what a socket says to them
  }
  return go_real();
}

template <typename Real>
int control_descriptor(int fd, int command, unsigned long argument, Real go_real) {
  if (concerns_us(fd)) return control_ours(fd, command, argument, go_real);
  const int result = go_real();
  return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? FdTable::forget_stale(result) : result;
}

constexpr unsigned long kSocketRequests = 0x8900, kSocketRequestMask = 0xff00;

Result<int> control_socket(HostLock& lock, SocketFile& file, int fd, unsigned long request, void* argument) {
  auto* number = static_cast<int*>(argument);
  switch (request) {
    case FIONBIO: {
      Result<int> on = unlocked(lock, [&] { return get_user(number); });
      if (!on.ok()) return on.error();
      file.status_flags = *on != 0 ? file.status_flags | O_NONBLOCK : file.status_flags & ~O_NONBLOCK;
      return 0;
    }
    case FIOASYNC: {
      Result<int> on = unlocked(lock, [&] { return get_user(number); });
      if (!on.ok()) return on.error();
      return set_async(file, *on != 0, fd);
    }
    case FIOSETOWN:
    case SIOCSPGRP: {
      Result<int> who = unlocked(lock, [&] { return get_user(number); });
      if (!who.ok()) return who.error();
      return set_owner(file, [&](AsyncOwner& owner) { return owner.set_owner(*who); });
    }
    case FIOGETOWN:
    case SIOCGPGRP: {
      Status s = unlocked(lock, [&] { return put_user(number, owner_of(file)); });
      return s.ok() ? Result<int>(0) : Result<int>(s.error());
    }
    case FIONREAD:
    case TIOCOUTQ:
    case SIOCOUTQNSD:
    case SIOCATMARK: {
      Result<int> value = file.socket().ioctl_value(request);
      if (!value.ok()) return value.error();
      Status s = unlocked(lock, [&] { return put_user(number, *value); });
      return s.ok() ? Result<int>(0) : Result<int>(s.error());
    }
    default:
      break;
  }
  if ((request & kSocketRequestMask) == kSocketRequests)
    return unlocked(lock, [&] { return ask_interfaces(request, argument); });
  return Error{kGoReal};  // FIOCLEX, TCGETS, ...: the kernel's descriptor is a socket too
}

}  // namespace

namespace hook {

int setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
  auto go_real = [&] {
    if (opening::refuses_option(fd, level, option)) {
      errno = EOPNOTSUPP;
      return -1;
    }
    int result = real::setsockopt(fd, level, option, value, length);
    return escaped_peer::set_option(fd, level, option, value, length, result);
  };
  if (!concerns_us(fd)) return go_real();
  return on_socket(
      fd,
      [&](HostLock& lock, SocketFile& file) {
        return set_option(lock, file, fd, level, option, value, length);
      },
      go_real);
}

int getsockopt(int fd, int level, int option, void* value, socklen_t* length) {
  auto go_real = [&] {
    Result<socklen_t> room = length != nullptr ? get_user(length) : socklen_t{0};
    int result = real::getsockopt(fd, level, option, value, length);
    return room.ok() ? escaped_peer::get_option(fd, level, option, value, *room, length, result) : result;
  };
  if (!concerns_us(fd)) return go_real();
  return on_socket(
      fd,
      [&](HostLock& lock, SocketFile& file) { return get_option(lock, file, level, option, value, length); },
      go_real);
}

int fcntl(int fd, int command, unsigned long argument) {
  return control_descriptor(fd, command, argument, [&] { return real::fcntl(fd, command, argument); });
}

int fcntl64(int fd, int command, unsigned long argument) {
  return control_descriptor(fd, command, argument, [&] { return real::fcntl64(fd, command, argument); });
}

int ioctl(int fd, unsigned long request, void* argument) {
  auto go_real = [&] { return real::ioctl(fd, request, argument); };
  if (!concerns_us(fd)) return go_real();
  return on_socket(
      fd, [&](HostLock& lock, SocketFile& file) { return control_socket(lock, file, fd, request, argument); },
      go_real);
}

}  // namespace hook

}  // namespace ustack::shim
