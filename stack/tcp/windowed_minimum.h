// The smallest value of the last while, in constant space and time (Kathleen Nichols' algorithm, as Linux's
// win_minmax.c): besides the smallest it keeps the smallest since, and the smallest since that.
#pragma once

#include <array>
#include <cstddef>

#include "stack/base/time.h"

namespace ustack::tcp {

class WindowedMinimum {
 public:
  /// Zero before the first add().
  Duration value() const { return best_[0].value; }
  /// Times don't go back.
  void add(Duration value, Instant now, Duration window) {
    Sample sample{value, now, true};
    if (!best_[0].valid || value <= best_[0].value || now - best_[2].at > window) {
      best_.fill(sample);
      return;
    }
    if (value <= best_[1].value)
      best_[1] = best_[2] = sample;
    else if (value <= best_[2].value)
      best_[2] = sample;
    Duration age = now - best_[0].at;
    if (age > window) {
      // The smallest is too old: the next takes its place, and perhaps the one after that.
      promote(sample);
      if (now - best_[0].at > window) promote(sample);
    } else if (best_[1].at == best_[0].at && age > window / 4) {
      best_[1] = best_[2] = sample;
    } else if (best_[2].at == best_[1].at && age > window / 2) {
      best_[2] = sample;
    }
  }

 private:
  struct Sample {
    Duration value{0};
    Instant at{};
    bool valid = false;
  };
  void promote(const Sample& newest) {
    best_[0] = best_[1];
    best_[1] = best_[2];
    best_[2] = newest;
  }
  std::array<Sample, 3> best_{};
};

}  // namespace ustack::tcp
