// Sockets of AF_INET6 carry IPv4 too, by IPv4-mapped addresses (::ffff:192.0.2.1; RFC 3493, 3.7; ipv6(7)):
// what java, node, iperf3 and many servers open. Those of a host that has addresses of IPv6 are the stack's
// as a whole (in_stack()). Else that half is the stack's and IPv6 itself the kernel's:
//
//   connect() to, bind() of    a mapped address: the stack's (or the machine's loopback's, as in IPv4)
//                              another: the socket becomes one of the kernel's
//   listen() on ::             the stack's, with twins of the kernel's for IPv6 (loopback_twin.h);
//                              with IPV6_V6ONLY the kernel's alone
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstdint>

#include "shim/address.h"
#include "stack/base/result.h"
#include "stack/socket/datagram_socket.h"

namespace ustack::shim {

/// What such a socket has beside one of AF_INET. Lock: the host's.
class DualStack {
 public:
  /// The kernel makes sockets of AF_INET6. Asked once in a process.
  static bool available();

  explicit DualStack(bool in_stack);
  /// One without IPV6_V6ONLY, whatever the machine's setting.
  static DualStack of_both(bool in_stack);

  /// IPv6 is the stack's as well.
  bool in_stack() const { return in_stack_; }

  /// IPV6_V6ONLY: it has no IPv4 half.
  bool v6_only() const;
  /// bind(2) and connect(2): an IPv4 address for a mapped one. EINVAL, EAFNOSUPPORT; of a mapped address
  /// where there is no IPv4 half EINVAL, ENETUNREACH.
  Result<SocketAddress> address_to_bind(const RawAddress& raw) const;
  Result<SocketAddress> address_to_connect(const RawAddress& raw) const;
  /// That is one of a link only, and doesn't say which (inet6_bind, tcp_v6_connect): EINVAL, unless the
  /// socket is bound to a device.
  bool lacks_link(const RawAddress& raw, const SocketAddress& address) const;
  /// Of a socket that may have none: an address of IPv6 on a link of the machine's other than the host's:
  /// that one's kernel's (ipv6(7), sin6_scope_id).
  static bool is_of_other_link(const DualStack* socket, const RawAddress& raw);
  /// bind(2) has taken this one.
  void bound_to(const RawAddress& raw);
  /// IPv6 reaches it as well, if it listens: it is bound to :: and not to ::ffff:0.0.0.0.
  bool bound_to_both() const { return !mapped_any_; }
  /// An address of its IPv4 half as its program sees it.
  SocketAddress shown(const SocketAddress& address) const;

  /// An option of IPPROTO_IPV6 that is remembered here. It concerns IPv6 packets (a mapped connection's are
  /// told by IP_TOS, IP_TTL, ...; ipv6(7)).
  static bool knows(int name);
  /// `bound`: the socket has a port; `stream`: it is one of TCP. EINVAL, ENOPROTOOPT.
  Status set_option(int name, Bytes value, bool bound, bool stream);
  Result<size_t> get_option(int name, MutableBytes out) const;

  /// What recvmsg(2) is to tell of each datagram: IPV6_RECVPKTINFO, ...
  DatagramWishes wishes() const;

  static constexpr size_t kOptions = 23;

 private:
  std::array<int16_t, kOptions> values_;
  bool in_stack_;
  bool mapped_any_ = false;
};

}  // namespace ustack::shim
