// The TCP header (RFC 9293, section 3.1): an unchecked view of its bytes, and a parsed value. No input
// faults.
#pragma once

#include <cstdint>

#include "stack/base/bytes.h"
#include "stack/base/log.h"
#include "stack/base/result.h"
#include "stack/base/seqnum.h"

namespace ustack::tcp {

/// IANA's number for TCP in an IP header.
inline constexpr uint8_t kProtocolNumber = 6;
/// Header lengths in bytes: without options, with as many as the data offset can express, and the options
/// alone.
inline constexpr uint32_t kMinHeader = 20, kMaxHeader = 60, kMaxOptions = 40;
/// Where the checksum is in the header (Offload::checksum_offset).
inline constexpr uint16_t kChecksumOffset = 16;

/// The control bits. `Flags{.syn = true, .ack = true}`.
struct Flags {
  bool fin : 1 = false;
  bool syn : 1 = false;
  bool rst : 1 = false;
  bool psh : 1 = false;
  bool ack : 1 = false;
  bool urg : 1 = false;
  bool ece : 1 = false;
  bool cwr : 1 = false;

  /// As in byte 13 of the header.
  static constexpr Flags from_bits(uint8_t bits) {
    return Flags{.fin = (bits & 0x01) != 0,
                 .syn = (bits & 0x02) != 0,
                 .rst = (bits & 0x04) != 0,
                 .psh = (bits & 0x08) != 0,
                 .ack = (bits & 0x10) != 0,
                 .urg = (bits & 0x20) != 0,
                 .ece = (bits & 0x40) != 0,
                 .cwr = (bits & 0x80) != 0};
  }
  constexpr uint8_t bits() const {
    return static_cast<uint8_t>((fin ? 0x01 : 0) | (syn ? 0x02 : 0) | (rst ? 0x04 : 0) | (psh ? 0x08 : 0) |
                                (ack ? 0x10 : 0) | (urg ? 0x20 : 0) | (ece ? 0x40 : 0) | (cwr ? 0x80 : 0));
  }
  friend constexpr bool operator==(Flags, Flags) = default;
};

/// As tcpdump prints them: [S], [S.], [P.], [F.], [R], [none].
LogLine& operator<<(LogLine& line, Flags flags);

/// The bytes of a header that is known to be there: at least kMinHeader bytes at `data`. Fields in host
/// order.
class HeaderView {
 public:
  explicit HeaderView(const std::byte* data) : data_(data) {}
  uint16_t source_port() const { return load_be16(data_); }
  uint16_t destination_port() const { return load_be16(data_ + 2); }
  SeqNum seq() const { return SeqNum(load_be32(data_ + 4)); }
  SeqNum ack() const { return SeqNum(load_be32(data_ + 8)); }
  /// Header length in bytes as it claims, options included: 0 to 60.
  uint32_t header_length() const { return (static_cast<uint32_t>(data_[12]) >> 4) * 4; }
  Flags flags() const { return Flags::from_bits(static_cast<uint8_t>(data_[13])); }
  /// As on the wire, not scaled.
  uint16_t window() const { return load_be16(data_ + 14); }
  uint16_t checksum() const { return load_be16(data_ + kChecksumOffset); }
  uint16_t urgent_pointer() const { return load_be16(data_ + 18); }

 private:
  const std::byte* data_;
};

/// A parsed header without its options.
struct Header {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  SeqNum seq{};
  SeqNum ack{};
  Flags flags{};
  /// As on the wire, not scaled (RFC 7323, 2.2).
  uint16_t window = 0;
  uint16_t urgent_pointer = 0;
  /// In bytes with options, a multiple of 4 from kMinHeader to kMaxHeader.
  uint32_t header_length = kMinHeader;

  /// Reads the header at the start of `segment`. EINVAL: shorter than a header, or the data offset is less
  /// than kMinHeader or past the end. The checksum is Segment's matter.
  static Result<Header> parse(Bytes segment);
  /// Writes the first kMinHeader bytes at `out`, the checksum as 0; the options that header_length speaks of
  /// are the caller's to put behind.
  void emit(std::byte* out) const;
  /// The options of the `segment` that this was parsed from.
  Bytes options(Bytes segment) const { return segment.subspan(kMinHeader, header_length - kMinHeader); }

  friend bool operator==(const Header&, const Header&) = default;
};

}  // namespace ustack::tcp
