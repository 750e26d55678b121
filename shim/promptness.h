// How soon a thread comes back to its next wait. A thread that drives leaves the role whenever it finds
// something to do; where others sleep meanwhile, waking one of them to drive costs a switch of context, and
// what then comes for the first thread has to be passed on to it. A thread that is always back in a moment is
// better waited for.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/base/time.h"

namespace ustack::shim {

/// Of one thread, learned from its last absences. Lock: the host's.
class Promptness {
 public:
  /// An absence that is soon over.
  static constexpr Duration kSoon = 1ms;
  /// So many of them in a row are believed, and twice as many after each time that others relied on it in
  /// vain.
  static constexpr uint32_t kBelieved = 8;
  static constexpr uint32_t kMostDisappointments = 8;
  /// So many more, and one disappointment is forgotten.
  static constexpr uint32_t kForgotten = 4096;

  /// Its wait has ended.
  void leaves(Instant now) {
    left_at_ = now;
    relied_on_ = false;
  }
  /// It waits again.
  void returns(Instant now) {
    if (left_at_ == Instant{}) return;
    if (now - left_at_ > kSoon) {
      in_a_row_ = 0;
      if (relied_on_) disappointments_ = std::min(disappointments_ + 1, kMostDisappointments);
    } else if (++in_a_row_ >= needed() + kForgotten) {
      in_a_row_ = needed();
      disappointments_ -= disappointments_ > 0 ? 1 : 0;
    }
    left_at_ = {};
  }
  /// It will probably be back soon.
  bool believed() const { return in_a_row_ >= needed(); }
  /// Others wait for it now. Between leaves() and returns().
  void rely() { relied_on_ = true; }

 private:
  uint32_t needed() const { return kBelieved << disappointments_; }

  Instant left_at_{};
  uint32_t in_a_row_ = 0;
  uint32_t disappointments_ = 0;
  bool relied_on_ = false;
};

}  // namespace ustack::shim
