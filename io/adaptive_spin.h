// Whether it is worth looking for a while before a thread sleeps.
#pragma once

#include <algorithm>
#include <cstdint>

#include "stack/base/time.h"

namespace ustack::io {

/// What became of looking before a wait slept.
enum class SpinOutcome : uint8_t {
  none,    ///< it didn't look, or its time was up before it could tell
  caught,  ///< what it waited for came meanwhile
  vain,    ///< it had to sleep
};

/// Of a wait until `deadline` that looked until `spin_until`, if that is after `begin`; `spinning`: what has
/// ended it was found by looking.
inline SpinOutcome spin_outcome(Instant begin, Instant spin_until, Instant deadline, bool spinning) {
  if (spin_until <= begin) return SpinOutcome::none;
  if (spinning) return SpinOutcome::caught;
  return spin_until < deadline ? SpinOutcome::vain : SpinOutcome::none;
}

/// USTACK_SPIN is the longest time. A thread that looked for so long in vain several times in a row sleeps at
/// once from then on, but for a try now and then, more and more seldom: an idle program takes next to no
/// processor time, one whose peer needs the same processor is hardly held up, and one that is asked again is
/// soon looking again (as KVM's halt polling). No lock: the thread's own.
class AdaptiveSpin {
 public:
  /// So many in a row are believed.
  static constexpr uint32_t kBelieved = 4;
  /// One of so many waits tries again; twice as many after each try in vain, up to the most.
  static constexpr uint32_t kTry = 16, kSeldom = 1024;

  /// How long the next wait looks, `most` or not at all.
  Duration next(Duration most) {
    if (vain_ < kBelieved) return most;
    if (++waits_ < pause_) return Duration(0);
    waits_ = 0;
    return most;
  }
  void note(SpinOutcome outcome) {
    if (outcome == SpinOutcome::caught) {
      vain_ = 0;
      pause_ = kTry;
    } else if (outcome == SpinOutcome::vain) {
      if (vain_ < kBelieved)
        ++vain_;
      else
        pause_ = std::min(pause_ * 2, kSeldom);
    }
  }

 private:
  /// In a row.
  uint32_t vain_ = 0;
  /// Since the last that looked, and until one does.
  uint32_t waits_ = 0, pause_ = kTry;
};

}  // namespace ustack::io
