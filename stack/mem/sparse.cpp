#include "stack/mem/sparse.h"

#include <cstring>

namespace ustack {

namespace {

constexpr size_t kWord = sizeof(uint64_t);
constexpr uint8_t kMostSkipped = 127;
/// Beside the number of words that are the same: the next points into the object.
constexpr uint8_t kInward = 128;

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
    const uint64_t word = word_at(object, i), before = word_at(fresh, i), offset = word - begin;
    const bool inward = offset < bytes;
    const bool equal = word == before || (inward && offset == before - fresh_begin);
    if (equal && same < kMostSkipped) {
      ++same;
      continue;
    }
    if (out.size() - used < 2 + kWord) return 0;
    if (inward && !equal) {
      out[used++] = std::byte{kInward} | std::byte{same};
      out[used++] = static_cast<std::byte>(offset);
      out[used++] = static_cast<std::byte>(offset >> 8);
    } else {
      const uint64_t difference = equal ? 0 : word ^ before;
      out[used++] = std::byte{same};
      std::byte& changed = out[used++] = std::byte{0};
      for (size_t b = 0; b < kWord; ++b) {
        const auto byte = static_cast<std::byte>(difference >> (8 * b));
        if (byte == std::byte{0}) continue;
        changed |= std::byte{1} << b;
        out[used++] = byte;
      }
    }
    same = 0;
  }
  return used;
}

void read_sparse(Bytes in, void* object) {
  auto* at = static_cast<std::byte*>(object);
  for (size_t i = 0; i < in.size();) {
    const auto first = std::to_integer<uint8_t>(in[i++]);
    at += (first & kMostSkipped) * kWord;
    if ((first & kInward) != 0) {
      const auto low = std::to_integer<size_t>(in[i++]), high = std::to_integer<size_t>(in[i++]);
      const uint64_t word = reinterpret_cast<uintptr_t>(object) + (low | high << 8);
      std::memcpy(at, &word, kWord);
    } else {
      const std::byte changed = in[i++];
      for (size_t b = 0; b < kWord; ++b)
        if ((changed & std::byte{1} << b) != std::byte{0}) at[b] ^= in[i++];
    }
    at += kWord;
  }
}

}  // namespace ustack
