// Addresses of both families in one type, from the start.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <cstring>

#include "stack/base/bytes.h"
#include "stack/base/log.h"

namespace ustack {

enum class Family : uint8_t { unspecified, ipv4, ipv6 };

/// An IPv4 or IPv6 address. The default is "no address". Bytes are in network order; an IPv4 address uses the
/// first four, the rest are zero.
class IpAddress {
 public:
  constexpr IpAddress() = default;
  static constexpr IpAddress v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    IpAddress address;
    address.family_ = Family::ipv4;
    address.bytes_ = {std::byte{a}, std::byte{b}, std::byte{c}, std::byte{d}};
    return address;
  }
  /// From host order: 0xc0000201 is 192.0.2.1.
  static constexpr IpAddress v4(uint32_t host_order) {
    return v4(static_cast<uint8_t>(host_order >> 24), static_cast<uint8_t>(host_order >> 16),
              static_cast<uint8_t>(host_order >> 8), static_cast<uint8_t>(host_order));
  }
  static IpAddress from_bytes(Family family, const std::byte* network_order) {
    IpAddress address;
    address.family_ = family;
    std::memcpy(address.bytes_.data(), network_order, family == Family::ipv4 ? 4 : 16);
    return address;
  }
  static constexpr IpAddress any(Family family) {
    IpAddress address;
    address.family_ = family;
    return address;
  }
  static constexpr IpAddress broadcast_v4() { return v4(0xffffffff); }

  constexpr Family family() const { return family_; }
  constexpr bool is_v4() const { return family_ == Family::ipv4; }
  constexpr bool is_v6() const { return family_ == Family::ipv6; }
  constexpr const std::byte* data() const { return bytes_.data(); }
  /// Address length in bytes: 4, 16 or 0.
  constexpr uint8_t size() const { return is_v4() ? 4 : is_v6() ? 16 : 0; }
  uint32_t v4_host_order() const { return load_be32(bytes_.data()); }

  /// 0.0.0.0, :: or no address.
  constexpr bool is_unspecified() const {
    const auto words = std::bit_cast<Words>(bytes_);
    return (words[0] | words[1]) == 0;
  }
  /// 127.0.0.0/8 or ::1.
  bool is_loopback() const;
  /// fe80::/10: of one link only (RFC 4291, 2.5.6).
  bool is_link_local() const { return is_v6() && (load_be16(bytes_.data()) & 0xffc0) == 0xfe80; }
  /// ::ffff:0:0/96: stands for an address of IPv4 (RFC 4291, 2.5.5.2).
  bool is_ipv4_mapped() const;
  /// 224.0.0.0/4 or ff00::/8.
  bool is_multicast() const;
  bool is_limited_broadcast() const { return is_v4() && v4_host_order() == 0xffffffff; }

  // Not byte by byte: each segment that comes is looked up by this.
  friend constexpr bool operator==(const IpAddress& a, const IpAddress& b) {
    const auto own = std::bit_cast<Words>(a.bytes_), other = std::bit_cast<Words>(b.bytes_);
    return ((own[0] ^ other[0]) | (own[1] ^ other[1])) == 0 && a.family_ == b.family_;
  }

 private:
  using Words = std::array<uint64_t, 2>;

  std::array<std::byte, 16> bytes_{};
  Family family_ = Family::unspecified;
};

/// Two sockets that are bound to these would have some address in common: an unspecified one is the wildcard;
/// IPv6's is IPv4's too, unless it is IPV6_V6ONLY (Linux's inet_rcv_saddr_equal).
bool addresses_overlap(const IpAddress& a, bool a_v6_only, const IpAddress& b, bool b_v6_only);

/// An address with a prefix length (RFC 4632): 192.0.2.2/24.
struct Prefix {
  IpAddress address;
  uint8_t length = 0;
  bool contains(const IpAddress& other) const;
  /// The prefix's directed broadcast address (IPv4, length <= 30), else "no address".
  IpAddress broadcast() const;
  /// `other` is that.
  bool is_broadcast(const IpAddress& other) const {
    if (!address.is_v4() || !other.is_v4() || length > 30) return false;
    return other.v4_host_order() == (address.v4_host_order() | host_mask());
  }
  friend constexpr bool operator==(const Prefix&, const Prefix&) = default;

 private:
  /// Of IPv4, length <= 30.
  uint32_t host_mask() const { return length == 0 ? 0xffffffff : (uint32_t{1} << (32 - length)) - 1; }
};

/// Where a transport endpoint is: an address and a port in host order.
struct SocketAddress {
  IpAddress address;
  uint16_t port = 0;
  friend constexpr bool operator==(const SocketAddress&, const SocketAddress&) = default;
};

/// An IEEE 802 address.
struct MacAddress {
  std::array<std::byte, 6> bytes{};
  static constexpr MacAddress broadcast() {
    MacAddress mac;
    for (auto& b : mac.bytes) b = std::byte{0xff};
    return mac;
  }
  constexpr bool is_multicast() const { return (bytes[0] & std::byte{1}) != std::byte{0}; }
  constexpr bool is_zero() const { return *this == MacAddress{}; }
  friend constexpr bool operator==(const MacAddress&, const MacAddress&) = default;
};

/// The four-tuple that names a connection, seen from this host; the seed's TransportEndpointID.
struct ConnectionId {
  SocketAddress local, remote;
  friend constexpr bool operator==(const ConnectionId&, const ConnectionId&) = default;
};

LogLine& operator<<(LogLine& line, const IpAddress& address);
/// 192.0.2.2:80 or [2001:db8::2]:80.
LogLine& operator<<(LogLine& line, const SocketAddress& address);
LogLine& operator<<(LogLine& line, const MacAddress& mac);
LogLine& operator<<(LogLine& line, const ConnectionId& id);

}  // namespace ustack
