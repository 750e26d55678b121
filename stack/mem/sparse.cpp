#include "stack/mem/sparse.h"

#include <cstring>

namespace ustack {

namespace {

constexpr size_t kWord = sizeof(uint64_t);
constexpr uint8_t kMostSkipped = 255;

uint64_t word_at(const void* object, size_t index) {
  uint64_t word;
  std::memcpy(&word, static_cast<const std::byte*>(object) + index * kWord, kWord);
  return word;
}

}  // namespace

size_t write_sparse(const void* object, const void* fresh, size_t bytes, MutableBytes out) {
  const auto begin = reinterpret_cast<uintptr_t>(object), fresh_begin = reinterpret_cast<uintptr_t>(fresh);
  size_t used = 0;
  uint8_t same = 0;
  for (size_t i = 0; i < bytes / kWord; ++i) {
    const uint64_t word = word_at(object, i), before = word_at(fresh, i);
    const bool inward = word - begin < bytes;
    const bool equal = word == before || (inward && word - begin == before - fresh_begin);
    if (equal && same < kMostSkipped) {
      ++same;
      continue;
    }
    if (inward && !equal) return 0;
    const uint64_t difference = equal ? 0 : word ^ before;
    if (out.size() - used < 2 + kWord) return 0;
    out[used] = std::byte{same};
    std::byte& changed = out[used + 1] = std::byte{0};
    used += 2;
    for (size_t b = 0; b < kWord; ++b) {
      const auto byte = static_cast<std::byte>(difference >> (8 * b));
      if (byte == std::byte{0}) continue;
      changed |= std::byte{1} << b;
      out[used++] = byte;
    }
    same = 0;
  }
  return used;
}

void read_sparse(Bytes in, void* object) {
  auto* at = static_cast<std::byte*>(object);
  for (size_t i = 0; i < in.size();) {
    at += std::to_integer<size_t>(in[i]) * kWord;
    const std::byte changed = in[i + 1];
    i += 2;
    for (size_t b = 0; b < kWord; ++b)
      if ((changed & std::byte{1} << b) != std::byte{0}) at[b] ^= in[i++];
    at += kWord;
  }
}

}  // namespace ustack
