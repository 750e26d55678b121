// struct sockaddr and back, with every length and family as Linux judges them.
#pragma once

#include <sys/socket.h>

#include "stack/base/result.h"
#include "stack/net/address.h"

namespace ustack::shim {

/// An address as a program handed it over, copied but not yet understood.
struct RawAddress {
  sockaddr_storage bytes{};
  socklen_t length = 0;

  sa_family_t family() const { return bytes.ss_family; }
  const sockaddr* pointer() const { return reinterpret_cast<const sockaddr*>(&bytes); }
};

/// Copies it from the program: EINVAL for a length that is negative or larger than sockaddr_storage, EFAULT.
/// A length of 0 is no address and no error. Without the host's lock.
Result<RawAddress> read_address(const sockaddr* address, socklen_t length);

/// What bind(2) of an AF_INET socket makes of it: EINVAL (too short), EAFNOSUPPORT (AF_UNSPEC is taken for
/// AF_INET with the wildcard address only).
Result<SocketAddress> address_to_bind(const RawAddress& raw);
/// What connect(2) of an AF_INET socket makes of it; AF_UNSPEC is asked for before (is_disconnect): EINVAL,
/// EAFNOSUPPORT.
Result<SocketAddress> address_to_connect(const RawAddress& raw);
/// connect(2) with AF_UNSPEC: dissolve the association.
inline bool is_disconnect(const RawAddress& raw) {
  return raw.length >= sizeof(sa_family_t) && raw.family() == AF_UNSPEC;
}

/// The number of the device that the link is, which getifaddrs(3) names too; 0: it is none, or there
/// is no host yet. Asked once.
int link_index();

/// ::ffff:192.0.2.1 for 192.0.2.1 (RFC 4291, 2.5.5.2).
IpAddress mapped_address(const IpAddress& v4);
/// What one of IPv6 stands for if it is such an address, else itself.
IpAddress unmapped_address(const IpAddress& v6);

/// As accept(2), getsockname(2), ... return addresses: copies at most *length bytes and sets *length to the
/// address's true size. EFAULT, EINVAL for a negative *length. Without the host's lock.
Status write_address(const SocketAddress& address, sockaddr* to, socklen_t* length);
/// The kernel's form of an address, and its size. One of the link only (fe80::/10) names the device.
socklen_t to_sockaddr(const SocketAddress& address, sockaddr_storage* to);

}  // namespace ustack::shim
