// Bytes without casts: network byte order by unaligned big-endian loads and stores, and copies into what is
// given.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace ustack {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline uint16_t load_be16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_bswap16(v);
}
inline uint32_t load_be32(const std::byte* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_bswap32(v);
}
inline void store_be16(std::byte* p, uint16_t v) {
  v = __builtin_bswap16(v);
  std::memcpy(p, &v, sizeof v);
}
inline void store_be32(std::byte* p, uint32_t v) {
  v = __builtin_bswap32(v);
  std::memcpy(p, &v, sizeof v);
}
/// Copies as much of a value as there is room for (getsockopt(2)); the number of bytes.
inline size_t copy_out(const void* value, size_t size, MutableBytes out) {
  const size_t n = std::min(size, out.size());
  std::memcpy(out.data(), value, n);
  return n;
}
static_assert(std::endian::native == std::endian::little, "only little-endian machines are supported");

}  // namespace ustack
