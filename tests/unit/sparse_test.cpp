#include "stack/mem/sparse.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>

#include "tests/support/seeded_random.h"

namespace ustack::test {
namespace {

struct Object {
  Object* self = this;
  uint64_t words[600] = {};
  void* pointer = nullptr;
  bool operator==(const Object& other) const {
    return std::memcmp(words, other.words, sizeof words) == 0 && pointer == other.pointer;
  }
};

class Sparse : public ::testing::Test {
 protected:
  size_t write() { return write_sparse(&object, &fresh, sizeof object, out); }
  /// What it takes; the copy is the same.
  size_t copied() {
    const size_t bytes = write();
    auto copy = std::make_unique<Object>();
    read_sparse(Bytes(out).first(bytes), copy.get());
    EXPECT_TRUE(*copy == object);
    EXPECT_EQ(copy->self, copy.get()) << "it points into itself, not into the other";
    return bytes;
  }
  Object fresh, object;
  std::array<std::byte, 8192> out;
};

TEST_F(Sparse, WhatDiffersTakesAByteMoreOrTwo) {
  object.words[0] = 0x4200;
  object.words[2] = 0x42000041;
  object.words[100] = 0x42;
  // The tail takes nothing, but for two bytes and one that is the same for each 256 words.
  EXPECT_EQ(copied(), 2u + 5u + 3u + 3u);
}

TEST_F(Sparse, FarAway) {
  object.words[299] = ~uint64_t{0};
  object.words[599] = 1;
  copied();
}

TEST_F(Sparse, AnythingAtAll) {
  SeededRandom random(7);
  for (int i = 0; i < 200; ++i) {
    for (uint64_t& word : object.words) {
      std::array<std::byte, 9> draw;
      random.fill(draw);
      if (std::to_integer<int>(draw[8]) < i) std::memcpy(&word, draw.data(), sizeof word);
    }
    copied();
  }
}

TEST_F(Sparse, APointerOutOfTheObjectStays) {
  object.pointer = &fresh.words[1];
  copied();
}

TEST_F(Sparse, APointerIntoTheObjectPointsIntoTheCopy) {
  object.words[300] = reinterpret_cast<uintptr_t>(&object.words[7]);
  object.words[301] = 5;
  const size_t bytes = write();
  auto copy = std::make_unique<Object>();
  read_sparse(Bytes(out).first(bytes), copy.get());
  EXPECT_EQ(copy->words[300], reinterpret_cast<uintptr_t>(&copy->words[7]));
  EXPECT_EQ(copy->words[301], 5u);
  EXPECT_EQ(copy->self, copy.get());
}

TEST_F(Sparse, WhatDoesNotFitIsRefused) {
  for (uint64_t& word : object.words) word = ~uint64_t{0};
  EXPECT_EQ(write_sparse(&object, &fresh, sizeof object, MutableBytes(out).first(1000)), 0u);
}

}  // namespace
}  // namespace ustack::test
