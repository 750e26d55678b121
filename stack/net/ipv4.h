// IPv4 headers (RFC 791): a byte view, the parsed header, and the check of options.
#pragma once

#include <cstdint>

#include "stack/base/bytes.h"
#include "stack/net/address.h"

namespace ustack {

/// Protocol numbers (IANA).
namespace ip_protocol {
inline constexpr uint8_t kIcmp = 1, kTcp = 6, kUdp = 17, kIcmpV6 = 58;
}  // namespace ip_protocol

/// The ECN field of TOS (RFC 3168, section 5).
namespace ecn {
inline constexpr uint8_t kMask = 3, kNotEct = 0, kEct1 = 1, kEct0 = 2, kCe = 3;
}  // namespace ecn

/// The fields of an IPv4 header where they lie. Unchecked: the bytes must hold kHeaderLength.
class Ipv4View {
 public:
  static constexpr uint32_t kHeaderLength = 20;
  explicit Ipv4View(const std::byte* header) : at_(header) {}

  uint8_t version() const { return std::to_integer<uint8_t>(at_[0] >> 4); }
  /// In bytes, 0 to 60.
  uint32_t header_length() const { return std::to_integer<uint32_t>(at_[0] & std::byte{15}) * 4; }
  uint8_t tos() const { return std::to_integer<uint8_t>(at_[1]); }
  uint16_t total_length() const { return load_be16(at_ + 2); }
  uint16_t id() const { return load_be16(at_ + 4); }
  bool dont_fragment() const { return (load_be16(at_ + 6) & 0x4000) != 0; }
  bool more_fragments() const { return (load_be16(at_ + 6) & 0x2000) != 0; }
  /// In bytes, 0 to 65528.
  uint16_t fragment_offset() const { return static_cast<uint16_t>((load_be16(at_ + 6) & 0x1fff) * 8); }
  uint8_t ttl() const { return std::to_integer<uint8_t>(at_[8]); }
  uint8_t protocol() const { return std::to_integer<uint8_t>(at_[9]); }
  uint16_t checksum() const { return load_be16(at_ + 10); }
  IpAddress source() const { return IpAddress::from_bytes(Family::ipv4, at_ + 12); }
  IpAddress destination() const { return IpAddress::from_bytes(Family::ipv4, at_ + 16); }

 private:
  const std::byte* at_;
};

/// Why bytes are not an IPv4 packet.
enum class Ipv4Error : uint8_t {
  none,
  short_header,   ///< fewer bytes than the header has
  version,        ///< not 4
  header_length,  ///< IHL below 5
  checksum,       ///< the header's
  total_length,   ///< less than the header's length
  truncated,      ///< fewer bytes than the total length says
};

/// A parsed IPv4 header. parse() takes any bytes whatever.
struct Ipv4Header {
  static constexpr uint32_t kLength = Ipv4View::kHeaderLength;
  static constexpr uint32_t kLargestPacket = 65535;
  uint8_t header_length = kLength;  ///< with options, in bytes
  uint8_t tos = 0;
  uint16_t total_length = 0;
  uint16_t id = 0;
  bool dont_fragment = false;
  bool more_fragments = false;
  uint16_t fragment_offset = 0;  ///< in bytes, a multiple of 8
  uint8_t ttl = 64;
  uint8_t protocol = 0;
  IpAddress source, destination;

  bool is_fragment() const { return more_fragments || fragment_offset != 0; }
  uint32_t payload_length() const { return total_length - uint32_t{header_length}; }

  /// Fills `out` when there is no error. Bytes after the total length are padding and no error.
  static Ipv4Error parse(Bytes packet, Ipv4Header& out);
  /// Writes kLength bytes, without options, with the checksum.
  void emit(std::byte* out) const;
  friend bool operator==(const Ipv4Header&, const Ipv4Header&) = default;
};

/// What a header's options amount to for a host that only receives them.
struct Ipv4Options {
  enum class Verdict : uint8_t {
    ok,
    malformed,      ///< `pointer` says where, counted from the header's first byte
    source_routed,  ///< strict or loose source route: refused, as accept_source_route=0 does in Linux
  };
  Verdict verdict = Verdict::ok;
  uint8_t pointer = 0;

  /// `header` is the whole header with its options, 20 to 60 bytes. RFC 791, section 3.1; RFC 1122, 3.2.1.8.
  static Ipv4Options check(Bytes header);
};

}  // namespace ustack
