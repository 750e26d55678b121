// What happens when, on a virtual clock (or, in the emulator program, on the real one).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "stack/base/time.h"

namespace ustack::test {

/// Functions ordered by time; those of the same instant run in the order in which they were added, so that a
/// run is the same each time.
class EventQueue {
 public:
  explicit EventQueue(Instant start) : now_(start) {}
  Instant now() const { return now_; }
  /// Runs `action` at `when`, or at the next step if that has passed.
  void at(Instant when, std::function<void()> action) {
    events_.emplace(std::pair(std::max(when, now_), order_++), std::move(action));
  }
  Instant next() const { return events_.empty() ? kNever : events_.begin()->first.first; }
  bool empty() const { return events_.empty(); }
  /// Moves the clock to `when` and runs all that is due by then, in order.
  void advance_to(Instant when) {
    while (!events_.empty() && events_.begin()->first.first <= when) {
      auto event = events_.extract(events_.begin());
      now_ = std::max(now_, event.key().first);
      event.mapped()();
    }
    now_ = std::max(now_, when);
  }

 private:
  Instant now_;
  uint64_t order_ = 0;
  std::map<std::pair<Instant, uint64_t>, std::function<void()>> events_;
};

}  // namespace ustack::test
