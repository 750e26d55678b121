#include "stack/base/checksum.h"

namespace ustack {

namespace {

// The sum is the same modulo 2^16-1 in whatever word size it is taken, and byte order only swaps the result
// (RFC 1071, section 2), so 64-bit words are added as they lie in memory, with the carry added back.

inline uint64_t load64(const std::byte* p) {
  uint64_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void add_carry(uint64_t& sum, uint64_t value) {
  uint64_t result = sum + value;
  sum = result + (result < value ? 1 : 0);
}

/// As a 16-bit number in memory order.
inline uint16_t fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

uint16_t raw_sum(Bytes bytes) {
  const std::byte* p = bytes.data();
  size_t n = bytes.size();
  // Two halves of each word into two sums: no carry can be lost within 2^32 words, and the compiler
  // vectorises.
  uint64_t low = 0, high = 0;
  for (; n >= 32; n -= 32, p += 32) {
    for (size_t i = 0; i < 32; i += 8) {
      uint64_t word = load64(p + i);
      low += word & 0xffffffff;
      high += word >> 32;
    }
  }
  uint64_t sum = low;
  add_carry(sum, high);
  for (; n >= 8; n -= 8, p += 8) add_carry(sum, load64(p));
  // The last bytes in memory order, the rest zero; copies of fixed size, as a call would cost more than the
  // sum.
  uint64_t tail = 0;
  if ((n & 4) != 0) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    tail = four;
    p += 4;
  }
  if ((n & 2) != 0) {
    uint16_t two;
    std::memcpy(&two, p, 2);
    tail += two;
    p += 2;
  }
  if ((n & 1) != 0) tail += static_cast<uint64_t>(*p);
  add_carry(sum, tail);
  return fold(sum);
}

}  // namespace

void Checksum::add(Bytes bytes) {
  if (bytes.empty()) return;
  uint16_t sum = raw_sum(bytes);
  // A piece that starts at an odd place has its bytes in the other halves.
  sum_ += odd_ ? __builtin_bswap16(sum) : sum;
  odd_ ^= (bytes.size() & 1) != 0;
}

uint16_t Checksum::folded() const { return __builtin_bswap16(fold(sum_)); }

uint32_t checksum_add(Bytes bytes, uint32_t sum) {
  if (bytes.empty()) return fold(sum);
  return fold(static_cast<uint64_t>(sum) + raw_sum(bytes));
}

uint16_t checksum_finish(uint32_t sum) { return static_cast<uint16_t>(~__builtin_bswap16(fold(sum))); }

}  // namespace ustack
