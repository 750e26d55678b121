#include "stack/time/timer.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace ustack {

namespace {

// Levels hold 64 slots each; a slot of level n spans 64^n ticks. A timer sits at the level of the highest
// 6-bit digit in which its deadline and now differ, in the slot of its deadline's digit there. So all timers
// of a level are due before any of the next, a slot number below now's digit can't occur, and the first bit
// of the first level that has any is the next thing to do.

/// In no slot: taken out by advance() to be fired next.
constexpr uint8_t kExpired = 0xff;

uint64_t ticks_floor(Instant t) {
  return t.time_since_epoch().count() <= 0 ? 0
                                           : static_cast<uint64_t>(t.time_since_epoch() / TimerWheel::kTick);
}

uint64_t ticks_ceil(Instant t) {
  uint64_t floor = ticks_floor(t);
  return t.time_since_epoch() > TimerWheel::kTick * static_cast<int64_t>(floor) ? floor + 1 : floor;
}

}  // namespace

Timer::~Timer() { cancel(); }

void Timer::cancel() {
  if (wheel_ != nullptr) wheel_->unplace(*this);
}

TimerWheel::TimerWheel(Instant start) : now_ticks_(ticks_floor(start)) {}

void TimerWheel::arm(Timer& timer, Instant deadline) {
  timer.cancel();
  if (deadline == kNever) return;
  timer.deadline_ = deadline;
  take_in_hand(&timer);
  timer.wheel_ = this;
  ++armed_;
  place(timer);
  take_in_hand(nullptr);
}

void TimerWheel::place(Timer& timer) {
  uint64_t when = std::max(ticks_ceil(timer.deadline_), now_ticks_);
  uint64_t differing = when ^ now_ticks_;
  int level = differing == 0 ? 0 : (63 - std::countl_zero(differing)) / kSlotBits;
  auto slot = static_cast<uint8_t>((when >> (level * kSlotBits)) & (kSlots - 1));
  timer.level_ = static_cast<uint8_t>(level);
  timer.slot_ = slot;
  levels_[level].slots[slot].push_back(timer);
  levels_[level].occupied |= uint64_t{1} << slot;
}

void TimerWheel::unplace(Timer& timer) {
  timer.unlink();
  timer.wheel_ = nullptr;
  --armed_;
  if (timer.level_ == kExpired) return;
  Level& level = levels_[timer.level_];
  if (level.slots[timer.slot_].empty()) level.occupied &= ~(uint64_t{1} << timer.slot_);
}

void TimerWheel::advance(Instant now) {
  uint64_t target = std::max(ticks_floor(now), now_ticks_);
  // First all that is due is collected and the time moved, then it is fired: what is armed meanwhile for the
  // past lies at the new time and waits for the next advance().
  for (int l = 0; l < kLevels;) {
    Level& level = levels_[l];
    if (level.occupied == 0) {
      ++l;
      continue;
    }
    auto slot = static_cast<uint64_t>(std::countr_zero(level.occupied));
    uint64_t digit_mask = (uint64_t{1} << ((l + 1) * kSlotBits)) - 1;
    uint64_t when = (now_ticks_ & ~digit_mask) | (slot << (l * kSlotBits));
    if (when > target) break;
    now_ticks_ = std::max(now_ticks_, when);
    level.occupied &= ~(uint64_t{1} << slot);
    while (Timer* timer = level.slots[slot].front()) {
      // Of many, each comes from memory: the next one, and whom this one concerns, do so meanwhile.
      __builtin_prefetch(level.slots[slot].next(*timer));
      __builtin_prefetch(timer->context_);
      take_in_hand(timer);
      timer->unlink();
      if (l == 0) {
        timer->level_ = kExpired;
        expired_.push_back(*timer);
      } else {
        place(*timer);
      }
    }
    take_in_hand(nullptr);
    l = 0;
  }
  now_ticks_ = target;

  while (Timer* timer = expired_.front()) {
    // Told before it is forgotten: who is killed in between tells it again.
    take_in_hand(timer);
    timer->unlink();
    Waker* const waker = timer->waker();
    if (waker != nullptr) waker->wake();
    timer->wheel_ = nullptr;
    --armed_;
    take_in_hand(nullptr);
    if (waker == nullptr) timer->callback_(*timer, timer->context_, now);  // may destroy the timer
  }
}

void TimerWheel::mend() {
  for (Level& level : levels_) {
    level.occupied = 0;
    for (int slot = 0; slot < kSlots; ++slot)
      if (!level.slots[static_cast<size_t>(slot)].empty()) level.occupied |= uint64_t{1} << slot;
  }
  while (Timer* timer = expired_.pop_front()) {
    timer->wheel_ = this;
    place(*timer);
  }
  if (Timer* timer = std::exchange(in_hand_, nullptr); timer != nullptr && timer->wheel_ == this)
    mend(*timer);
}

void TimerWheel::mend(Timer& timer) {
  if (timer.armed() && !timer.linked()) place(timer);
}

Instant TimerWheel::next_deadline() const {
  for (int l = 0; l < kLevels; ++l) {
    const Level& level = levels_[l];
    if (level.occupied == 0) continue;
    auto slot = static_cast<uint64_t>(std::countr_zero(level.occupied));
    uint64_t digit_mask = (uint64_t{1} << ((l + 1) * kSlotBits)) - 1;
    uint64_t when = (now_ticks_ & ~digit_mask) | (slot << (l * kSlotBits));
    return Instant(kTick * static_cast<int64_t>(when));
  }
  return kNever;
}

}  // namespace ustack
