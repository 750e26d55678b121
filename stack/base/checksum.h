// The Internet checksum (RFC 1071).
#pragma once

#include <cstdint>
#include <cstring>

#include "stack/base/bytes.h"

namespace ustack {

/// A ones' complement sum in the making over bytes that may come in pieces of any length, odd ones too.
/// Parity is kept, so the pieces may be cut anywhere.
class Checksum {
 public:
  Checksum() = default;
  /// Starts from a partial sum such as pseudo_header_sum()'s, folded or not.
  explicit Checksum(uint32_t sum) : sum_(sum) {}

  void add(Bytes bytes);
  /// Adds a 16-bit number in host order. Only where an even number of bytes has gone before.
  void add16(uint16_t value) { sum_ += __builtin_bswap16(value); }

  /// The sum folded to 16 bits, not complemented, in host order: what a partial checksum field holds.
  uint16_t folded() const;
  /// What goes into the checksum field, in host order. Over data that includes a right checksum it is 0.
  uint16_t finish() const { return static_cast<uint16_t>(~folded()); }

 private:
  uint64_t sum_ = 0;  // of 16-bit words as they lie in memory
  bool odd_ = false;
};

/// One-piece form, and to chain even-length pieces: adds `bytes` to `sum` and returns it folded to at most 16
/// bits, in memory order (feed it back, to Checksum, or to checksum_finish only).
uint32_t checksum_add(Bytes bytes, uint32_t sum);
/// The complemented sum in host order, for store_be16.
uint16_t checksum_finish(uint32_t sum);
/// The header checksum of one run of bytes.
inline uint16_t checksum_of(Bytes bytes) { return checksum_finish(checksum_add(bytes, 0)); }

/// The same of an IPv4 header without options, in line: each packet has one to be made and one to be checked.
inline uint16_t checksum_of_20(const std::byte* header) {
  uint64_t words[2];
  uint32_t last;
  std::memcpy(words, header, sizeof words);
  std::memcpy(&last, header + sizeof words, sizeof last);
  uint64_t sum =
      (words[0] & 0xffffffff) + (words[0] >> 32) + (words[1] & 0xffffffff) + (words[1] >> 32) + last;
  sum = (sum & 0xffffffff) + (sum >> 32);
  for (int i = 0; i < 3; ++i) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~__builtin_bswap16(static_cast<uint16_t>(sum)));
}

/// The new checksum of data in which a 16-bit field changed, all in host order (RFC 1624, equation 3).
inline uint16_t checksum_update(uint16_t checksum, uint16_t old_value, uint16_t new_value) {
  uint32_t sum =
      static_cast<uint16_t>(~checksum) + static_cast<uint32_t>(static_cast<uint16_t>(~old_value)) + new_value;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

}  // namespace ustack
