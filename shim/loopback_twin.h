// Where sockets go that the machine's own network serves: 127/8 and what USTACK_KERNEL names; and the twin by
// which a listener of ours on the wildcard address is reached over the kernel's loopback, and over IPv6.
#pragma once

#include <array>

#include "io/descriptor.h"
#include "stack/net/address.h"

namespace ustack::shim {

/// connect(2) to or bind(2) of this address is the kernel's business: IPv6 unless the socket `has_ipv6`, the
/// loopback (unless USTACK_LOOPBACK=stack) and the destinations of USTACK_KERNEL. 0.0.0.0 and :: as a
/// destination are the loopback (ip_route_output).
bool destination_of_kernel(const SocketAddress& remote, bool has_ipv6);
bool local_address_of_kernel(const SocketAddress& local, bool has_ipv6);

/// Kernel sockets of the library's own that listen for a listener of ours.
struct Twin {
  /// Readable when one of them has a connection: itself if it is alone, else an epoll set of both.
  int watched() const { return set ? set.get() : listeners[0].get(); }
  explicit operator bool() const { return static_cast<bool>(listeners[0]); }
  bool has(int fd) const { return set.get() == fd || listeners[0].get() == fd || listeners[1].get() == fd; }

  std::array<io::Descriptor, 2> listeners;
  io::Descriptor set;
};

enum class TwinFor : uint8_t {
  ipv4,           ///< a listener of AF_INET
  mapped_ipv4,    ///< one of AF_INET6 that IPv4 alone reaches (::ffff:0.0.0.0)
  both,           ///< one of AF_INET6 on ::, of which IPv6 is the kernel's
  loopbacks,      ///< one of AF_INET6 on ::, of which it is the stack's
  ipv6_loopback,  ///< the same with IPV6_V6ONLY
};

/// The twin of a listener on `local`'s port of the wildcard address. It listens on the loopback interface
/// only, for IPv6 that is the kernel's on all of the machine's; O_NONBLOCK. Empty if USTACK_LOOPBACK=stack
/// (but for that), or if the kernel has the port in use or refuses otherwise: then the listener is reached
/// through the stack alone.
Twin open_twin(const SocketAddress& local, int backlog, TwinFor what);

}  // namespace ustack::shim
