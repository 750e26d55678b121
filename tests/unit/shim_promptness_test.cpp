// Which threads are worth waiting for.
#include "shim/promptness.h"

#include <gtest/gtest.h>

namespace ustack::shim {
namespace {

/// A thread whose absences the tests say.
class Thread {
 public:
  void is_away_for(Duration time, bool relied_on = false) {
    now_ += 1s;
    promptness_.leaves(now_);
    if (relied_on) promptness_.rely();
    now_ += time;
    promptness_.returns(now_);
  }
  /// How many prompt returns it takes until it is believed.
  uint32_t returns_until_believed() {
    for (uint32_t count = 0;; ++count) {
      if (promptness_.believed()) return count;
      if (count > 100'000) return count;
      is_away_for(1us);
    }
  }
  void disappoints() {
    returns_until_believed();
    is_away_for(1s, true);
  }
  bool believed() const { return promptness_.believed(); }

 private:
  Promptness promptness_;
  Instant now_{1h};
};

TEST(Promptness, AFewPromptReturnsAreBelieved) {
  Thread thread;
  EXPECT_FALSE(thread.believed());
  EXPECT_EQ(thread.returns_until_believed(), Promptness::kBelieved);
  thread.is_away_for(Promptness::kSoon);
  EXPECT_TRUE(thread.believed());
}

TEST(Promptness, ALateReturnEndsTheBelief) {
  Thread thread;
  thread.returns_until_believed();
  thread.is_away_for(Promptness::kSoon + 1ns);
  EXPECT_FALSE(thread.believed());
  EXPECT_EQ(thread.returns_until_believed(), Promptness::kBelieved) << "nobody relied on it";
}

TEST(Promptness, WhoDisappointsHasToShowMore) {
  Thread thread;
  for (uint32_t times = 1; times <= Promptness::kMostDisappointments; ++times) {
    thread.disappoints();
    EXPECT_EQ(thread.returns_until_believed(), Promptness::kBelieved << times);
  }
  thread.disappoints();
  EXPECT_EQ(thread.returns_until_believed(), Promptness::kBelieved << Promptness::kMostDisappointments);
}

TEST(Promptness, DisappointmentsAreForgotten) {
  Thread thread;
  thread.disappoints();
  thread.disappoints();
  thread.returns_until_believed();
  for (uint32_t i = 0; i < Promptness::kForgotten; ++i) thread.is_away_for(1us, true);
  EXPECT_TRUE(thread.believed());
  thread.is_away_for(1s);
  EXPECT_EQ(thread.returns_until_believed(), Promptness::kBelieved << 1);
}

TEST(Promptness, OnlyAnAbsenceCounts) {
  Promptness promptness;
  for (uint32_t i = 0; i < 100; ++i) promptness.returns(Instant{1h});
  EXPECT_FALSE(promptness.believed()) << "it has never been away";
}

}  // namespace
}  // namespace ustack::shim
