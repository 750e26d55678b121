#include "shim/address.h"

#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <cstring>

#include "io/descriptor.h"
#include "io/interface_query.h"
#include "io/syscalls.h"
#include "shim/process.h"
#include "shim/user_copy.h"

namespace ustack::shim {

Result<RawAddress> read_address(const sockaddr* address, socklen_t length) {
  RawAddress raw;
  if (length > sizeof raw.bytes)
    return Error{EINVAL};  // the kernel's length is an int: negative is large here
  if (Status s = copy_from_user(&raw.bytes, address, length); !s.ok()) return s.error();
  raw.length = length;
  return raw;
}

namespace {

SocketAddress from_sockaddr_in(const RawAddress& raw) {
  sockaddr_in in;
  std::memcpy(&in, &raw.bytes, sizeof in);
  return SocketAddress{IpAddress::v4(ntohl(in.sin_addr.s_addr)), ntohs(in.sin_port)};
}

}  // namespace

Result<SocketAddress> address_to_bind(const RawAddress& raw) {
  if (raw.length < sizeof(sockaddr_in)) return Error{EINVAL};
  SocketAddress address = from_sockaddr_in(raw);
  // Old programs leave the family out (inet_bind: "compatibility games").
  if (raw.family() != AF_INET && !(raw.family() == AF_UNSPEC && address.address.is_unspecified()))
    return Error{EAFNOSUPPORT};
  return address;
}

Result<SocketAddress> address_to_connect(const RawAddress& raw) {
  if (raw.length < sizeof(sockaddr_in)) return Error{EINVAL};
  if (raw.family() != AF_INET) return Error{EAFNOSUPPORT};
  return from_sockaddr_in(raw);
}

namespace {

constexpr std::array<std::byte, 12> kMappedPrefix = [] {
  std::array<std::byte, 12> prefix{};
  prefix[10] = prefix[11] = std::byte{0xff};
  return prefix;
}();

}  // namespace

IpAddress mapped_address(const IpAddress& v4) {
  std::array<std::byte, 16> bytes{};
  std::ranges::copy(kMappedPrefix, bytes.begin());
  std::memcpy(bytes.data() + kMappedPrefix.size(), v4.data(), 4);
  return IpAddress::from_bytes(Family::ipv6, bytes.data());
}

IpAddress unmapped_address(const IpAddress& v6) {
  if (!v6.is_ipv4_mapped()) return v6;
  return IpAddress::from_bytes(Family::ipv4, v6.data() + kMappedPrefix.size());
}

int link_index() {
  static std::atomic<int> known{-1};
  int index = known.load(std::memory_order_relaxed);
  if (index >= 0) return index;
  if (!Process::has_host()) return 0;
  ifreq device;
  io::Descriptor any(static_cast<int>(io::sys::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  const bool found =
      any && !io::sys::failed(io::query_interface(any.get(), Process::link().name(), SIOCGIFINDEX, &device));
  index = found ? device.ifr_ifindex : 0;
  known.store(index, std::memory_order_relaxed);
  return index;
}

socklen_t to_sockaddr(const SocketAddress& address, sockaddr_storage* to) {
  std::memset(to, 0, sizeof *to);
  if (address.address.is_v6()) {
    sockaddr_in6 in6{};
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(address.port);
    if (address.address.is_link_local()) in6.sin6_scope_id = static_cast<uint32_t>(link_index());
    std::memcpy(&in6.sin6_addr, address.address.data(), 16);
    std::memcpy(to, &in6, sizeof in6);
    return sizeof in6;
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(address.port);
  std::memcpy(&in.sin_addr, address.address.data(), 4);
  std::memcpy(to, &in, sizeof in);
  return sizeof in;
}

Status write_address(const SocketAddress& address, sockaddr* to, socklen_t* length) {
  sockaddr_storage storage;
  socklen_t size = to_sockaddr(address, &storage);
  Result<socklen_t> room = get_user(length);
  if (!room.ok()) return room.error();
  if (*room > INT_MAX) return Error{EINVAL};
  if (Status s = copy_to_user(to, &storage, std::min(*room, size)); !s.ok()) return s;
  return put_user(length, size);
}

}  // namespace ustack::shim
