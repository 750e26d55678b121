// Neighbour discovery's messages (RFC 4861), and the groups of IPv6 on a link.
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/bytes.h"
#include "stack/net/icmpv6.h"

namespace ustack {

/// A neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4).
struct NeighbourMessage {
  static constexpr uint32_t kLength = 24, kOptionLength = 8;
  /// With the address option.
  static constexpr uint32_t kWhole = kLength + kOptionLength;
  /// Every message of neighbour discovery comes from the link itself, or isn't believed (RFC 4861, 7.1).
  static constexpr uint8_t kHopLimit = 255;
  uint8_t type = icmpv6::kNeighbourSolicitation;
  // Of an advertisement.
  bool router = false, solicited = false, override_known = false;
  IpAddress target;
  /// The source's link address, of an advertisement the target's.
  std::optional<MacAddress> mac;

  /// Nothing unless it is one of the two, whole and sound (RFC 4861, 7.1.1 and 7.1.2). The checksum and what
  /// the IP header must say are the caller's to verify.
  static std::optional<NeighbourMessage> parse(Bytes message);
  /// Writes kWhole bytes, or kLength without `mac`, with a checksum of zero. Returns how many.
  uint32_t emit(std::byte* out) const;
  friend bool operator==(const NeighbourMessage&, const NeighbourMessage&) = default;
};

/// ff02::1, and the group of all that may have `address` (RFC 4291, 2.7.1).
IpAddress all_nodes();
IpAddress solicited_node(const IpAddress& address);
/// Where a group's packets go on Ethernet (RFC 2464, section 7).
MacAddress group_mac(const IpAddress& group);

}  // namespace ustack
