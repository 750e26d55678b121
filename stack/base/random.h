// Randomness comes in through an interface, so that the same seed gives the same trace.
#pragma once

#include <cstdint>

#include "stack/base/bytes.h"

namespace ustack {

/// Source of unpredictable bytes. The shim's reads getrandom(2), the tests' is seeded.
class RandomSource {
 public:
  virtual void fill(MutableBytes out) = 0;
  uint32_t u32() {
    uint32_t v;
    fill(std::as_writable_bytes(std::span(&v, 1)));
    return v;
  }
  uint64_t u64() {
    uint64_t v;
    fill(std::as_writable_bytes(std::span(&v, 1)));
    return v;
  }

 protected:
  ~RandomSource() = default;
};

}  // namespace ustack
