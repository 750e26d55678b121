// ICMP messages (RFC 792): a byte view, the parsed header, and the packet quoted in an error.
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/bytes.h"
#include "stack/net/ipv4.h"

namespace ustack {

struct IcmpError;

/// Types and codes (IANA, "ICMP Parameters").
namespace icmp {
inline constexpr uint8_t kEchoReply = 0, kUnreachable = 3, kSourceQuench = 4, kRedirect = 5, kEchoRequest = 8,
                         kTimeExceeded = 11, kParameterProblem = 12, kTimestamp = 13, kTimestampReply = 14,
                         kLargestType = 18;
// Codes of kUnreachable.
inline constexpr uint8_t kNetUnreachable = 0, kHostUnreachable = 1, kProtocolUnreachable = 2,
                         kPortUnreachable = 3, kFragmentationNeeded = 4, kLargestUnreachable = 15;
// Codes of kTimeExceeded.
inline constexpr uint8_t kTtlExceeded = 0, kReassemblyExceeded = 1;

/// A message about a packet, never itself the cause of one (RFC 1122, 3.2.2).
constexpr bool is_error(uint8_t type) {
  return type == kUnreachable || type == kSourceQuench || type == kRedirect || type == kTimeExceeded ||
         type == kParameterProblem;
}
/// What an error means to a transport: an errno, 0 if nothing; and whether it is the end of what it is about,
/// or may pass (Linux's icmp_err_convert).
struct Meaning {
  int error = 0;
  bool fatal = false;
};
Meaning meaning_of(uint8_t type, uint8_t code);

// Of errors of either family.
Meaning meaning_of(const IcmpError& error);
/// The packet was larger than the path takes: "fragmentation needed", "packet too big".
bool is_too_big(const IcmpError& error);
/// There is no way to the destination just now (RFC 6069, section 3).
bool is_way_lost(const IcmpError& error);
}  // namespace icmp

/// The fields of an ICMP header where they lie. Unchecked: the bytes must hold kHeaderLength.
class IcmpView {
 public:
  static constexpr uint32_t kHeaderLength = 8;
  explicit IcmpView(const std::byte* message) : at_(message) {}

  uint8_t type() const { return std::to_integer<uint8_t>(at_[0]); }
  uint8_t code() const { return std::to_integer<uint8_t>(at_[1]); }
  uint16_t checksum() const { return load_be16(at_ + 2); }
  /// Bytes 4 to 7: identifier and sequence number of an echo, pointer, gateway, next-hop MTU.
  uint32_t info() const { return load_be32(at_ + 4); }

 private:
  const std::byte* at_;
};

/// A parsed ICMP header. parse() takes any bytes whatever.
struct IcmpHeader {
  static constexpr uint32_t kLength = IcmpView::kHeaderLength;
  uint8_t type = 0, code = 0;
  uint32_t info = 0;

  /// The next hop's MTU in a "fragmentation needed" (RFC 1191, section 4), 0 if the router didn't say.
  uint16_t next_hop_mtu() const { return static_cast<uint16_t>(info); }

  /// Nothing when the message is shorter than its header. The checksum is the caller's to verify.
  static std::optional<IcmpHeader> parse(Bytes message) {
    if (message.size() < kLength) return std::nullopt;
    IcmpView view(message.data());
    return IcmpHeader{view.type(), view.code(), view.info()};
  }
  /// Writes kLength bytes with a checksum of zero, over which the true one is computed.
  void emit(std::byte* out) const {
    out[0] = std::byte{type};
    out[1] = std::byte{code};
    store_be16(out + 2, 0);
    store_be32(out + 4, info);
  }
  friend bool operator==(const IcmpHeader&, const IcmpHeader&) = default;
};

/// The packet that an ICMP error is about: its IP header and the first bytes of its payload.
struct IcmpQuote {
  /// What RFC 792 promises of the quoted payload.
  static constexpr uint32_t kLeastPayload = 8;
  IpAddress source, destination;
  uint8_t protocol = 0;
  uint16_t total_length = 0;
  uint16_t fragment_offset = 0;
  Bytes payload;

  /// Nothing unless the quote holds an IPv4 header and kLeastPayload bytes. The quoted header's checksum
  /// isn't verified, since routers change TTL and TOS before they quote.
  static std::optional<IcmpQuote> parse(Bytes quote) {
    if (quote.size() < Ipv4View::kHeaderLength) return std::nullopt;
    Ipv4View view(quote.data());
    uint32_t header_length = view.header_length();
    if (view.version() != 4 || header_length < Ipv4View::kHeaderLength) return std::nullopt;
    if (quote.size() < header_length + kLeastPayload) return std::nullopt;
    return IcmpQuote{view.source(),       view.destination(),     view.protocol(),
                     view.total_length(), view.fragment_offset(), quote.subspan(header_length)};
  }
};

}  // namespace ustack
