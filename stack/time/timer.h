// Timers on a hierarchical wheel: arm and cancel in O(1) at any number of connections.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/base/time.h"
#include "stack/fiber/task.h"

namespace ustack {

class TimerWheel;

/// Fires once at its deadline: asserts a waker, or calls a function under the host's lock. Embedded in what
/// it times; destroying it cancels it.
class Timer : public ListHook<> {
 public:
  using Callback = void (*)(Timer& timer, void* context, Instant now);
  explicit Timer(Waker& waker) : context_(&waker) {}
  Timer(Callback callback, void* context) : callback_(callback), context_(context) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer();

  bool armed() const { return wheel_ != nullptr; }
  /// When it fires, kNever if it is not armed.
  Instant deadline() const { return armed() ? deadline_ : kNever; }
  void cancel();

 private:
  friend class TimerWheel;
  Waker* waker() const { return callback_ == nullptr ? static_cast<Waker*>(context_) : nullptr; }
  /// nullptr: the context is a waker.
  Callback callback_ = nullptr;
  void* context_;
  TimerWheel* wheel_ = nullptr;
  Instant deadline_{};
  uint8_t level_ = 0, slot_ = 0;
};

/// Hierarchical timing wheel (Varghese and Lauck, 1987). A timer never fires before its deadline and at most
/// one tick after it, if advance() is called then. Lock: the host's.
class TimerWheel {
 public:
  /// 2^16 ns: finer than any TCP timer but pacing.
  static constexpr Duration kTick{1 << 16};

  explicit TimerWheel(Instant start);
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  /// (Re)arms the timer. A deadline in the past fires at the next advance().
  void arm(Timer& timer, Instant deadline);
  /// Fires all that is due at `now`; timers may be armed and cancelled by what fires.
  void advance(Instant now);
  /// No timer fires before this; may be early by a wheel level's granularity, then advance() cascades and a
  /// later call knows better. kNever if none is armed.
  Instant next_deadline() const;
  uint64_t armed() const { return armed_; }
  /// After a process was killed while it changed the host: what it was about to fire is due again, slots are
  /// what their lists say, and the timer that it had in hand is in a list if it is armed.
  void mend();
  /// The timer is in a list if it is armed.
  void mend(Timer& timer);

 private:
  friend class Timer;
  static constexpr int kLevels = 8, kSlotBits = 6, kSlots = 1 << kSlotBits;
  void place(Timer& timer);
  void take_in_hand(Timer* timer) {
    in_hand_ = timer;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  void unplace(Timer& timer);

  struct Level {
    uint64_t occupied = 0;  // a bit for each slot that is not empty
    std::array<IntrusiveList<Timer>, kSlots> slots;
  };
  std::array<Level, kLevels> levels_;
  /// Taken out by advance() to be fired. Here and not on its stack, so that they outlive it.
  IntrusiveList<Timer> expired_;
  /// Is being put into a list, out of it or from one to another.
  Timer* in_hand_ = nullptr;
  uint64_t now_ticks_;
  uint64_t armed_ = 0;
};

}  // namespace ustack
