// Randomness that repeats.
#pragma once

#include <cstdint>

#include "stack/base/random.h"

namespace ustack::test {

/// SplitMix64 (Steele, Lea and Flood, 2014). The same seed gives the same bytes, whatever the sizes asked
/// for.
class SeededRandom final : public RandomSource {
 public:
  explicit SeededRandom(uint64_t seed) : state_(seed) {}

  void fill(MutableBytes out) override {
    for (std::byte& b : out) b = static_cast<std::byte>(next() >> 56);
  }
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, n), n > 0.
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
  /// Uniform in [0, 1).
  double fraction() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  bool chance(double probability) { return probability > 0 && fraction() < probability; }

 private:
  uint64_t state_;
};

}  // namespace ustack::test
