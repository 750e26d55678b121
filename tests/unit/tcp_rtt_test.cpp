#include "stack/tcp/rtt.h"

#include <gtest/gtest.h>

#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

TEST(TcpRtt, StartsAtOneSecond) {
  RttEstimator rtt;
  EXPECT_FALSE(rtt.has_sample());
  EXPECT_EQ(rtt.srtt(), Duration(0));
  EXPECT_EQ(rtt.rto(), 1s);
}

TEST(TcpRtt, FollowsTheFormulas) {
  // RFC 6298, section 2, worked by hand.
  RttEstimator rtt;
  rtt.sample(800ms);
  EXPECT_EQ(rtt.srtt(), 800ms);
  EXPECT_EQ(rtt.rttvar(), 400ms);
  EXPECT_EQ(rtt.rto(), 2400ms);
  rtt.sample(400ms);
  EXPECT_EQ(rtt.rttvar(), 400ms) << "3/4 * 400 + 1/4 * |800 - 400|";
  EXPECT_EQ(rtt.srtt(), 750ms) << "7/8 * 800 + 1/8 * 400";
  EXPECT_EQ(rtt.rto(), 2350ms);
  rtt.sample(750ms);
  EXPECT_EQ(rtt.rttvar(), 300ms);
  EXPECT_EQ(rtt.srtt(), 750ms);
  EXPECT_EQ(rtt.latest(), 750ms);
  EXPECT_EQ(rtt.minimum(), 400ms);
}

TEST(TcpRtt, LeavesRoomForADelayedAck) {
  RttEstimator rtt;
  for (int i = 0; i < 100; ++i) rtt.sample(50us);
  // As Linux: never less than 200 ms above the smoothed time.
  EXPECT_EQ(rtt.rto(), 200ms + 50us);
}

TEST(TcpRtt, IsBounded) {
  RttEstimator rtt;
  rtt.sample(300s);
  EXPECT_EQ(rtt.rto(), 120s);
  RttEstimator zero;
  zero.sample(Duration(0));
  EXPECT_TRUE(zero.has_sample());
  EXPECT_GE(zero.rto(), 200ms);
  zero.sample(Duration(-5));
  EXPECT_GT(zero.srtt(), Duration(0));
}

TEST(TcpRtt, BacksOffByDoublingUpTo120Seconds) {
  RttEstimator rtt;
  Duration expected = 1s;
  for (uint32_t i = 0; i < 100; ++i) {
    EXPECT_EQ(rtt.rto(), expected) << i;
    EXPECT_EQ(rtt.back_off_count(), i);
    rtt.back_off();
    expected = std::min<Duration>(expected * 2, 120s);
  }
  EXPECT_EQ(rtt.base_rto(), 1s);
  rtt.undo_back_off();
  EXPECT_EQ(rtt.rto(), 1s);
  EXPECT_EQ(rtt.back_off_count(), 0u);
}

TEST(TcpRtt, ASampleEndsTheBackOff) {
  RttEstimator rtt;
  rtt.sample(100ms);
  Duration base = rtt.rto();
  rtt.back_off();
  rtt.back_off();
  EXPECT_EQ(rtt.rto(), 4 * base);
  rtt.sample(100ms);
  EXPECT_LE(rtt.rto(), base);
}

TEST(TcpRtt, FallsBackToThreeSecondsAfterALostSyn) {
  // RFC 6298, 5.7.
  RttEstimator rtt;
  rtt.back_off();
  rtt.fall_back();
  EXPECT_EQ(rtt.rto(), 3s);
  rtt.sample(10ms);
  EXPECT_LT(rtt.rto(), 1s);
  rtt.fall_back();
  EXPECT_LT(rtt.rto(), 1s) << "a sample is better";
}

TEST(TcpRtt, ManySamplesARoundTripWeighLessEach) {
  // RFC 7323, appendix G: 50 samples of one round trip move the estimate about as much as one does.
  RttEstimator one, many;
  one.sample(100ms);
  many.sample(100ms);
  one.sample(180ms);
  for (int i = 0; i < 50; ++i) many.sample(180ms, 50);
  EXPECT_NEAR(static_cast<double>(to_us(many.srtt())), static_cast<double>(to_us(one.srtt())), 2000);
  EXPECT_LT(many.rttvar(), one.rttvar() + 1ms);
  EXPECT_GT(many.rttvar(), one.rttvar() - 5ms);
  many.sample(180ms, 0);  // counts as 1
  EXPECT_GT(many.srtt(), 115ms);
}

TEST(TcpRtt, StaysSaneWhateverItSees) {
  test::SeededRandom random(7);
  RttEstimator rtt;
  for (int i = 0; i < 10000; ++i) {
    rtt.sample(Duration(static_cast<int64_t>(random.next() >> (1 + random.below(62)))),
               static_cast<uint32_t>(random.below(100)));
    ASSERT_GT(rtt.srtt(), Duration(0));
    ASSERT_GE(rtt.rttvar(), Duration(0));
    ASSERT_GE(rtt.rto(), kMinRto);
    ASSERT_LE(rtt.rto(), kMaxRto);
    if (random.chance(0.2)) rtt.back_off();
  }
}

TEST(TcpRtt, Prints) {
  RttEstimator rtt;
  rtt.sample(12345us);
  LogLine line;
  line << rtt;
  EXPECT_EQ(line.text(), "srtt 12.3ms rttvar 6.1ms rto 212.3ms");
}

TEST(TcpBackoff, DoublesUpToItsLimit) {
  Backoff backoff(1s, 60s);
  EXPECT_EQ(backoff.current(), 1s);
  for (Duration expected : {2s, 4s, 8s, 16s, 32s, 60s, 60s}) EXPECT_EQ(backoff.next(), expected);
}

}  // namespace
}  // namespace ustack::tcp
