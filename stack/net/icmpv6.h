// ICMPv6 messages (RFC 4443).
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/bytes.h"
#include "stack/net/icmp.h"
#include "stack/net/ipv6.h"

namespace ustack {

/// Types and codes (IANA, "ICMPv6 Parameters").
namespace icmpv6 {
inline constexpr uint8_t kUnreachable = 1, kPacketTooBig = 2, kTimeExceeded = 3, kParameterProblem = 4,
                         kEchoRequest = 128, kEchoReply = 129, kGroupQuery = 130, kRouterSolicitation = 133,
                         kRouterAdvertisement = 134, kNeighbourSolicitation = 135,
                         kNeighbourAdvertisement = 136, kRedirect = 137, kGroupReport = 143;
// Codes of kUnreachable.
inline constexpr uint8_t kNoRoute = 0, kBeyondScope = 2, kAddressUnreachable = 3, kPortUnreachable = 4,
                         kLargestUnreachable = 6;
// Codes of kTimeExceeded.
inline constexpr uint8_t kReassemblyExceeded = 1;
// Codes of kParameterProblem.
inline constexpr uint8_t kErroneousField = 0, kUnknownNextHeader = 1, kUnknownOption = 2;

/// A message about a packet, never itself the cause of one (RFC 4443, 2.4(e)).
constexpr bool is_error(uint8_t type) { return type < 128; }

/// What an error means to a transport (Linux's icmpv6_err_convert).
icmp::Meaning meaning_of(uint8_t type, uint8_t code);

/// The sum over the pseudo-header and `message`: 0 if the checksum in it is right.
uint16_t checksum(const IpAddress& source, const IpAddress& destination, Bytes message);
}  // namespace icmpv6

/// The packet that an ICMPv6 error is about.
struct Icmpv6Quote {
  IpAddress source, destination;
  uint8_t protocol = 0;
  Bytes payload;

  /// Nothing unless the quote holds the headers of a packet's first part and at least 8 bytes of its
  /// transport's.
  static std::optional<Icmpv6Quote> parse(Bytes quote);
};

}  // namespace ustack
