#include "shim/loopback_twin.h"

#include <netinet/in.h>
#include <sys/epoll.h>

#include <utility>

#include "io/syscalls.h"
#include "shim/address.h"
#include "shim/process.h"

namespace ustack::shim {

bool destination_of_kernel(const SocketAddress& remote, bool has_ipv6) {
  const io::Config& config = Process::config();
  if (remote.address.is_v6() && !has_ipv6) return true;
  if (!config.loopback_in_stack && (remote.address.is_loopback() || remote.address.is_unspecified()))
    return true;
  return config.stays_with_kernel(remote);
}

bool local_address_of_kernel(const SocketAddress& local, bool has_ipv6) {
  return (local.address.is_v6() && !has_ipv6) ||
         (!Process::config().loopback_in_stack && local.address.is_loopback());
}

namespace {

/// A listener of the kernel's; empty if it refuses. `prepare` sets options and may change the address.
template <typename Prepare>
io::Descriptor listen_in_kernel(SocketAddress address, int backlog, Prepare&& prepare) {
  const int family = address.address.is_v6() ? AF_INET6 : AF_INET;
  io::Descriptor twin(
      static_cast<int>(io::sys::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP)));
  if (!twin || !io::move_high(twin).ok()) return {};
  const int on = 1;
  // A server that starts again must not be kept out by its own connections of before.
  io::sys::setsockopt(twin.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  prepare(twin.get(), address);
  sockaddr_storage storage;
  socklen_t length = to_sockaddr(address, &storage);
  if (io::sys::call(SYS_bind, twin.get(), io::sys::arg(&storage), static_cast<long>(length)) != 0 ||
      io::sys::call(SYS_listen, twin.get(), backlog) != 0)
    return {};
  return twin;
}

/// Where the kernel doesn't let us name the interface, 127.0.0.1 (or ::1) alone is offered.
void keep_to_loopback(int fd, SocketAddress& address, const IpAddress& instead) {
  if (io::sys::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) != 0) address.address = instead;
}

io::Descriptor listen_on_loopback(uint16_t port, int backlog, bool mapped) {
  auto shown = [mapped](const IpAddress& address) { return mapped ? mapped_address(address) : address; };
  return listen_in_kernel({shown(IpAddress::any(Family::ipv4)), port}, backlog,
                          [&](int fd, SocketAddress& address) {
                            keep_to_loopback(fd, address, shown(IpAddress::v4(INADDR_LOOPBACK)));
                          });
}

io::Descriptor listen_on_ipv6(uint16_t port, int backlog, bool loopback) {
  return listen_in_kernel({IpAddress::any(Family::ipv6), port}, backlog, [&](int fd, SocketAddress& address) {
    const int on = 1;
    io::sys::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (loopback)
      keep_to_loopback(
          fd, address,
          IpAddress::from_bytes(Family::ipv6, reinterpret_cast<const std::byte*>(&in6addr_loopback)));
  });
}

/// An epoll set of both; empty: it can't be had.
io::Descriptor watch_both(const Twin& twin) {
  io::Descriptor set(static_cast<int>(io::sys::call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  if (!set || !io::move_high(set).ok()) return {};
  for (const io::Descriptor& listener : twin.listeners) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (io::sys::call(SYS_epoll_ctl, set.get(), EPOLL_CTL_ADD, listener.get(), io::sys::arg(&event)) != 0)
      return {};
  }
  return set;
}

}  // namespace

Twin open_twin(const SocketAddress& local, int backlog, TwinFor what) {
  Twin twin;
  if (!local.address.is_unspecified()) return twin;
  const bool has_loopback = !Process::config().loopback_in_stack;
  if (has_loopback && what != TwinFor::ipv6_loopback)
    twin.listeners[0] = listen_on_loopback(local.port, backlog, what != TwinFor::ipv4);
  const bool of_loopback = what == TwinFor::loopbacks || what == TwinFor::ipv6_loopback;
  if (what != TwinFor::both && !(of_loopback && has_loopback)) return twin;
  io::Descriptor ipv6 = listen_on_ipv6(local.port, backlog, of_loopback);
  if (!twin.listeners[0]) {
    twin.listeners[0] = std::move(ipv6);
  } else if (ipv6) {
    twin.listeners[1] = std::move(ipv6);
    twin.set = watch_both(twin);
    if (!twin.set) twin.listeners[1].reset();
  }
  return twin;
}

}  // namespace ustack::shim
