// Content that can be made and checked anywhere in a stream without keeping it.
#pragma once

#include <cstdint>

#include "stack/base/bytes.h"

namespace ustack::test {

/// An endless stream of bytes named by a seed; every offset has its byte.
class Pattern {
 public:
  explicit Pattern(uint64_t seed) : seed_(seed) {}
  void fill(uint64_t offset, MutableBytes out) const;
  /// The bytes are those of the stream at `offset`.
  bool matches(uint64_t offset, Bytes bytes) const;

 private:
  uint64_t word(uint64_t index) const {
    uint64_t z = (index + seed_) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 32)) * 0xd6e8feb86659fd93;
    return z ^ (z >> 32);
  }
  uint64_t seed_;
};

}  // namespace ustack::test
