#include "stack/base/siphash.h"

#include <gtest/gtest.h>

#include <array>

namespace ustack {
namespace {

// Key 00..0f, message 00, 01, 02...: the authors' test vectors (Aumasson and Bernstein, appendix A).
constexpr SipKey kKey{0x0706050403020100, 0x0f0e0d0c0b0a0908};

TEST(SipHash, AgreesWithTheAuthorsVectors) {
  std::array<std::byte, 64> message;
  for (size_t i = 0; i < message.size(); ++i) message[i] = static_cast<std::byte>(i);
  EXPECT_EQ(siphash(kKey, Bytes(message).first(0)), 0x726fdb47dd0e0e31u);
  EXPECT_EQ(siphash(kKey, Bytes(message).first(1)), 0x74f839c593dc67fdu);
  EXPECT_EQ(siphash(kKey, Bytes(message).first(8)), 0x93f5f5799a932462u);
  EXPECT_EQ(siphash(kKey, Bytes(message).first(15)), 0xa129ca6149be45e5u);
}

TEST(SipHash, DependsOnTheWholeKey) {
  std::array<std::byte, 12> message{};
  SipKey low = kKey, high = kKey;
  low.k0 ^= 1;
  high.k1 ^= uint64_t{1} << 63;
  EXPECT_NE(siphash(kKey, message), siphash(low, message));
  EXPECT_NE(siphash(kKey, message), siphash(high, message));
}

}  // namespace
}  // namespace ustack
