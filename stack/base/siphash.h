// SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash that a peer can't steer, for initial sequence
// numbers and hash tables.
#pragma once

#include <bit>
#include <cstdint>

#include "stack/base/bytes.h"
#include "stack/base/random.h"

namespace ustack {

/// The 128-bit secret.
struct SipKey {
  uint64_t k0 = 0, k1 = 0;
  static SipKey random(RandomSource& source) {
    SipKey key;
    key.k0 = source.u64();
    key.k1 = source.u64();
    return key;
  }
};

namespace detail {

struct SipState {
  uint64_t v0, v1, v2, v3;
  explicit constexpr SipState(const SipKey& key)
      : v0(key.k0 ^ 0x736f6d6570736575),
        v1(key.k1 ^ 0x646f72616e646f6d),
        v2(key.k0 ^ 0x6c7967656e657261),
        v3(key.k1 ^ 0x7465646279746573) {}
  constexpr void round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
  constexpr void word(uint64_t m) {
    v3 ^= m;
    round();
    round();
    v0 ^= m;
  }
  constexpr uint64_t finish() {
    v2 ^= 0xff;
    for (int i = 0; i < 4; ++i) round();
    return v0 ^ v1 ^ v2 ^ v3;
  }
};

}  // namespace detail

/// Hash of `bytes`.
inline uint64_t siphash(const SipKey& key, Bytes bytes) {
  detail::SipState state(key);
  const std::byte* p = bytes.data();
  size_t n = bytes.size();
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t m;
    std::memcpy(&m, p, 8);
    state.word(m);
  }
  uint64_t last = static_cast<uint64_t>(bytes.size()) << 56;
  uint64_t tail = 0;
  if (n > 0) std::memcpy(&tail, p, n);
  state.word(last | tail);
  return state.finish();
}

}  // namespace ustack
