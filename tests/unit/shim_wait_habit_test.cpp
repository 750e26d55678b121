// Who is believed to wait after a call that found nothing.
#include "shim/wait_habit.h"

#include <gtest/gtest.h>

namespace ustack::shim {
namespace {

constexpr int kQueue = 0, kOther = 1;
constexpr Duration kJustLooked = 10us;

/// Reads until there is nothing, then waits.
void loop(WaitHabit& habit, uint32_t times) {
  for (uint32_t i = 0; i < times; ++i) {
    habit.waits_next(&kQueue, kJustLooked);
    habit.waits();
  }
}

TEST(WaitHabit, AnEventLoopIsBelievedAfterAWhile) {
  WaitHabit habit;
  EXPECT_FALSE(habit.waits_next(&kQueue, kJustLooked));
  habit.waits();
  loop(habit, WaitHabit::kBelieved - 2);
  EXPECT_FALSE(habit.waits_next(&kQueue, kJustLooked));
  habit.waits();
  EXPECT_TRUE(habit.waits_next(&kQueue, kJustLooked));
  EXPECT_TRUE(habit.waits_next(&kOther, kJustLooked)) << "of several connections each is read to its end";
}

TEST(WaitHabit, WhoAsksAgainPolls) {
  WaitHabit habit;
  loop(habit, 100);
  EXPECT_TRUE(habit.waits_next(&kQueue, kJustLooked));
  EXPECT_FALSE(habit.waits_next(&kQueue, kJustLooked));
  habit.waits();
  EXPECT_FALSE(habit.waits_next(&kQueue, kJustLooked)) << "and has to win trust again";
}

TEST(WaitHabit, WaitsAloneProveNothing) {
  WaitHabit habit;
  for (int i = 0; i < 100; ++i) habit.waits();
  EXPECT_FALSE(habit.waits_next(&kQueue, kJustLooked));
}

TEST(WaitHabit, WhatCameLongAgoIsLookedFor) {
  WaitHabit habit;
  loop(habit, 100);
  EXPECT_FALSE(habit.waits_next(&kQueue, WaitHabit::kRecent));
  habit.waits();
  EXPECT_TRUE(habit.waits_next(&kQueue, WaitHabit::kRecent - 1ns));
}

}  // namespace
}  // namespace ustack::shim
