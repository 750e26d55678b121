// IPv6 headers (RFC 8200): a byte view, the parsed header, and the way along the extension headers.
#pragma once

#include <cstdint>

#include "stack/base/bytes.h"
#include "stack/net/address.h"

namespace ustack {

/// The fields of an IPv6 header where they lie. Unchecked: the bytes must hold kHeaderLength.
class Ipv6View {
 public:
  static constexpr uint32_t kHeaderLength = 40;
  explicit Ipv6View(const std::byte* header) : at_(header) {}

  uint8_t version() const { return std::to_integer<uint8_t>(at_[0] >> 4); }
  uint8_t traffic_class() const { return static_cast<uint8_t>(load_be16(at_) >> 4); }
  uint32_t flow_label() const { return load_be32(at_) & 0xfffff; }
  uint16_t payload_length() const { return load_be16(at_ + 4); }
  uint8_t next_header() const { return std::to_integer<uint8_t>(at_[6]); }
  uint8_t hop_limit() const { return std::to_integer<uint8_t>(at_[7]); }
  IpAddress source() const { return IpAddress::from_bytes(Family::ipv6, at_ + 8); }
  IpAddress destination() const { return IpAddress::from_bytes(Family::ipv6, at_ + 24); }

 private:
  const std::byte* at_;
};

/// Why bytes are not an IPv6 packet.
enum class Ipv6Error : uint8_t {
  none,
  short_header,  ///< fewer bytes than the header has
  version,       ///< not 6
  truncated,     ///< fewer bytes than the payload length says
};

/// A parsed IPv6 header. parse() takes any bytes whatever.
struct Ipv6Header {
  static constexpr uint32_t kLength = Ipv6View::kHeaderLength;
  /// Without a jumbo payload (RFC 2675), which is not understood.
  static constexpr uint32_t kLargestPayload = 65535;
  /// What every link of IPv6 carries (RFC 8200, section 5), in bytes.
  static constexpr uint32_t kLeastMtu = 1280;
  static constexpr uint32_t kPayloadLengthAt = 4, kNextHeaderAt = 6;
  uint8_t traffic_class = 0;
  uint32_t flow_label = 0;  ///< 20 bits
  uint16_t payload_length = 0;
  uint8_t next_header = 0;
  uint8_t hop_limit = 64;
  IpAddress source, destination;

  uint32_t total_length() const { return kLength + uint32_t{payload_length}; }

  /// Fills `out` when there is no error. Bytes after the payload are padding and no error.
  static Ipv6Error parse(Bytes packet, Ipv6Header& out);
  /// Writes kLength bytes.
  void emit(std::byte* out) const;
  friend bool operator==(const Ipv6Header&, const Ipv6Header&) = default;
};

/// A fragment header (RFC 8200, section 4.5).
struct Ipv6Fragment {
  static constexpr uint32_t kLength = 8;
  uint32_t at = 0;        ///< where it lies in the packet
  uint32_t named_at = 0;  ///< where the Next Header field lies that names it
  uint8_t next_header = 0;
  uint16_t offset = 0;  ///< in bytes, a multiple of 8
  bool more = false;
  uint32_t id = 0;

  /// Writes kLength bytes.
  void emit(std::byte* out) const;
};

/// Extension headers (RFC 8200, section 4) that a packet may have before its transport header.
namespace ip_protocol {
inline constexpr uint8_t kHopByHop = 0, kRouting = 43, kFragment = 44, kNoNextHeader = 59,
                         kDestinationOptions = 60;
}  // namespace ip_protocol

/// What the extension headers of a packet amount to for its destination.
struct Ipv6Chain {
  enum class Verdict : uint8_t {
    ok,
    fragment,  ///< of which only `part` is here
    discard,   ///< without a word
    problem,   ///< with an ICMPv6 parameter problem of `code` about the byte at `pointer`
  };
  Verdict verdict = Verdict::ok;
  uint8_t code = 0;
  uint32_t pointer = 0;
  /// The transport's number, where its header begins, and where the Next Header field lies that says so; of a
  /// fragment: of what it is a part.
  uint8_t protocol = 0;
  uint32_t offset = 0;
  uint32_t named_at = 0;
  Ipv6Fragment part;

  /// `packet` begins with a whole IPv6 header. `group`: it was sent to a multicast address.
  static Ipv6Chain walk(Bytes packet, bool group);
  /// The transport's header, whatever is wrong before it; empty: there is none.
  static Bytes skip(Bytes packet, uint8_t& protocol);
};

}  // namespace ustack
