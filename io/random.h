// Randomness from the kernel.
#pragma once

#include "stack/base/random.h"

namespace ustack::io {

/// getrandom(2), unbuffered: nothing that a forked child could inherit and repeat. Some 0.3 us a call.
class GetrandomSource final : public RandomSource {
 public:
  void fill(MutableBytes out) override;
};

}  // namespace ustack::io
