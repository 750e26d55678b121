#include "stack/time/timer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "tests/support/seeded_random.h"

namespace ustack {
namespace {

constexpr Instant kStart{Duration(1'000'000'000'123)};

struct Probe {
  explicit Probe() : timer(&Probe::fire, this) {}
  static void fire(Timer&, void* context, Instant now) {
    auto* self = static_cast<Probe*>(context);
    ++self->fired;
    self->at = now;
    if (self->action) self->action();
  }
  Timer timer;
  int fired = 0;
  Instant at{};
  std::function<void()> action;
};

TEST(TimerWheel, NeverEarlyAndAtMostATickLate) {
  for (Duration delay : {Duration(1), Duration(65535), Duration(65536), Duration(70000), Duration(1ms),
                         Duration(4194304), Duration(4194305), Duration(200ms), Duration(1s), Duration(60s),
                         Duration(7200s), Duration(std::chrono::hours(24 * 365))}) {
    TimerWheel wheel(kStart);
    Probe probe;
    Instant deadline = kStart + delay;
    wheel.arm(probe.timer, deadline);
    EXPECT_EQ(probe.timer.deadline(), deadline);
    wheel.advance(deadline - Duration(1));
    EXPECT_EQ(probe.fired, 0) << delay.count();
    wheel.advance(deadline + TimerWheel::kTick);
    EXPECT_EQ(probe.fired, 1) << delay.count();
    EXPECT_FALSE(probe.timer.armed());
    EXPECT_EQ(wheel.armed(), 0u);
    EXPECT_EQ(wheel.next_deadline(), kNever);
  }
}

TEST(TimerWheel, DrivenByNextDeadlineFiresAtMostATickLate) {
  for (Duration delay : {Duration(1), Duration(1ms), Duration(40ms), Duration(200ms), Duration(60s),
                         Duration(std::chrono::hours(48))}) {
    TimerWheel wheel(kStart);
    Probe probe;
    Instant deadline = kStart + delay;
    wheel.arm(probe.timer, deadline);
    int wakes = 0;
    Instant now = kStart;
    while (probe.fired == 0 && wakes < 20) {
      Instant next = wheel.next_deadline();
      ASSERT_NE(next, kNever);
      ASSERT_LE(next, deadline + TimerWheel::kTick);
      now = std::max(now, next);
      wheel.advance(now);
      ++wakes;
    }
    EXPECT_EQ(probe.fired, 1);
    EXPECT_GE(now, deadline);
    EXPECT_LE(now, deadline + TimerWheel::kTick);
    EXPECT_LE(wakes, 8);  // one for each level at most
  }
}

TEST(TimerWheel, PastDeadlineFiresAtTheNextAdvanceEvenIfTimeStands) {
  TimerWheel wheel(kStart);
  Probe probe;
  wheel.arm(probe.timer, kStart - 1s);
  EXPECT_LE(wheel.next_deadline(), kStart);
  wheel.advance(kStart);
  EXPECT_EQ(probe.fired, 1);
}

TEST(TimerWheel, RearmingInThePastFromTheCallbackWaitsForTheNextAdvance) {
  TimerWheel wheel(kStart);
  Probe probe;
  probe.action = [&] { wheel.arm(probe.timer, kStart); };
  wheel.arm(probe.timer, kStart);
  wheel.advance(kStart + 1s);
  EXPECT_EQ(probe.fired, 1);
  wheel.advance(kStart + 1s);
  EXPECT_EQ(probe.fired, 2);
}

TEST(TimerWheel, KNeverIsNotArmed) {
  TimerWheel wheel(kStart);
  Probe probe;
  wheel.arm(probe.timer, kStart + 1s);
  wheel.arm(probe.timer, kNever);
  EXPECT_FALSE(probe.timer.armed());
  EXPECT_EQ(wheel.armed(), 0u);
  EXPECT_EQ(probe.timer.deadline(), kNever);
}

TEST(TimerWheel, CancelAndRearmAndDestroy) {
  TimerWheel wheel(kStart);
  Probe cancelled, rearmed;
  auto destroyed = std::make_unique<Probe>();
  wheel.arm(cancelled.timer, kStart + 5ms);
  wheel.arm(rearmed.timer, kStart + 5ms);
  wheel.arm(destroyed->timer, kStart + 5ms);
  EXPECT_EQ(wheel.armed(), 3u);
  cancelled.timer.cancel();
  cancelled.timer.cancel();
  wheel.arm(rearmed.timer, kStart + 10ms);
  destroyed.reset();
  EXPECT_EQ(wheel.armed(), 1u);
  wheel.advance(kStart + 6ms);
  EXPECT_EQ(cancelled.fired + rearmed.fired, 0);
  wheel.advance(kStart + 11ms);
  EXPECT_EQ(cancelled.fired, 0);
  EXPECT_EQ(rearmed.fired, 1);
}

TEST(TimerWheel, CallbackMayCancelAndDestroyOthersThatAreDueAtTheSameTime) {
  TimerWheel wheel(kStart);
  Probe first, second;
  auto third = std::make_unique<Probe>();
  first.action = [&] {
    second.timer.cancel();
    third.reset();
  };
  wheel.arm(first.timer, kStart + 1ms);
  wheel.arm(second.timer, kStart + 1ms);
  wheel.arm(third->timer, kStart + 1ms);
  wheel.advance(kStart + 1s);
  EXPECT_EQ(first.fired, 1);
  EXPECT_EQ(second.fired, 0);
  EXPECT_EQ(wheel.armed(), 0u);
}

TEST(TimerWheel, AssertsAWaker) {
  TimerWheel wheel(kStart);
  Waker waker;
  Timer timer(waker);
  wheel.arm(timer, kStart + 1ms);
  wheel.advance(kStart + 2ms);
  EXPECT_TRUE(waker.asserted());
}

TEST(TimerWheel, FiresInOrderOfTicks) {
  TimerWheel wheel(kStart);
  std::vector<int> order;
  std::deque<Probe> probes(5);
  const Duration delays[] = {1s, 3ms, 100us, 70s, 20ms};
  for (int i = 0; i < 5; ++i) {
    probes[i].action = [&order, i] { order.push_back(i); };
    wheel.arm(probes[i].timer, kStart + delays[i]);
  }
  wheel.advance(kStart + 100s);
  EXPECT_EQ(order, (std::vector<int>{2, 1, 4, 0, 3}));
}

// Against a plain list of deadlines: random arms, cancels and leaps of every size.
TEST(TimerWheel, AgreesWithASortedListOverARandomLife) {
  test::SeededRandom random(20240607);
  TimerWheel wheel(kStart);
  constexpr size_t kTimers = 300;
  std::deque<Probe> probes(kTimers);
  std::vector<Instant> expected(kTimers, kNever);  // kNever: not armed
  Instant now = kStart;
  uint64_t fired = 0;
  for (int step = 0; step < 20000; ++step) {
    size_t i = random.below(kTimers);
    if (random.below(4) == 0) {
      probes[i].timer.cancel();
      expected[i] = kNever;
    } else {
      Duration delay(static_cast<int64_t>(random.below(uint64_t{1} << random.below(45))));
      expected[i] = now + delay;
      wheel.arm(probes[i].timer, expected[i]);
    }
    Instant earliest = *std::min_element(expected.begin(), expected.end());
    Instant next = wheel.next_deadline();
    if (earliest == kNever) {
      ASSERT_EQ(next, kNever);
    } else {
      ASSERT_LE(next, earliest + TimerWheel::kTick) << step;
    }
    if (random.below(3) == 0) {
      now += Duration(static_cast<int64_t>(random.below(uint64_t{1} << random.below(42))));
      wheel.advance(now);
      for (size_t k = 0; k < kTimers; ++k) {
        if (probes[k].fired > 0) {
          ASSERT_LE(expected[k], now) << "early";
          expected[k] = kNever;
          probes[k].fired = 0;
          ++fired;
        } else if (expected[k] != kNever) {
          ASSERT_GT(expected[k] + TimerWheel::kTick, now) << "late";
          ASSERT_TRUE(probes[k].timer.armed());
        }
      }
      auto armed = static_cast<uint64_t>(
          std::count_if(expected.begin(), expected.end(), [](Instant t) { return t != kNever; }));
      ASSERT_EQ(wheel.armed(), armed);
    }
  }
  EXPECT_GT(fired, 1000u);
}

}  // namespace
}  // namespace ustack
