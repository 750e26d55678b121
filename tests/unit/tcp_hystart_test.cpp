#include "stack/tcp/hystart.h"

#include <gtest/gtest.h>

#include "stack/tcp/cubic.h"

namespace ustack::tcp {
namespace {

/// Rounds of ACKs with a round trip time each.
class TcpHyStart : public ::testing::Test {
 protected:
  static constexpr uint32_t kMss = 1000;

  void round(Duration rtt, int acks = 10) {
    uint64_t sent_before = delivered_;
    for (int i = 0; i < acks; ++i) {
      AckSample sample;
      sample.rtt = rtt;
      sample.acked = kMss;
      delivered_ += kMss;
      sample.total_delivered = delivered_;
      // The first of a round is about what was sent after the last one's end.
      sample.rate.prior_delivered = i == 0 ? sent_before : sent_before - (sent_before > 0 ? 1 : 0);
      hystart_.on_ack(sample);
    }
  }

  HyStart hystart_;
  uint64_t delivered_ = 0;
};

TEST_F(TcpHyStart, ASteadyPathStaysInSlowStart) {
  for (int i = 0; i < 20; ++i) round(50ms);
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::slow_start);
  EXPECT_EQ(hystart_.growth(1000), 1000u);
}

TEST_F(TcpHyStart, AGrowingRoundTripSlowsDown) {
  round(50ms), round(50ms);
  round(58ms);  // the threshold is an eighth: 6.25 ms
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::conservative);
  EXPECT_EQ(hystart_.growth(1000), 250u) << "CSS_GROWTH_DIVISOR";
}

TEST_F(TcpHyStart, LessThanTheThresholdIsJitter) {
  round(50ms), round(50ms), round(55ms);
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::slow_start);
}

TEST_F(TcpHyStart, TheThresholdHasBounds) {
  round(1ms), round(1ms), round(4ms);
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::slow_start) << "at least 4 ms";
  round(9ms);
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::conservative);
  hystart_ = {};
  round(400ms), round(400ms), round(417ms);
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::conservative) << "at most 16 ms";
}

TEST_F(TcpHyStart, FewSamplesSayNothing) {
  round(50ms), round(50ms);
  round(90ms, 7);
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::slow_start);
}

TEST_F(TcpHyStart, AShorterRoundTripResumesSlowStart) {
  round(50ms), round(50ms), round(60ms);
  ASSERT_EQ(hystart_.phase(), HyStart::Phase::conservative);
  round(50ms);
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::slow_start);
}

TEST_F(TcpHyStart, FiveRoundsEndIt) {
  round(50ms), round(50ms), round(60ms);
  for (int i = 0; i < 4; ++i) {
    round(61ms);
    EXPECT_EQ(hystart_.phase(), HyStart::Phase::conservative) << i;
  }
  round(61ms);
  EXPECT_EQ(hystart_.phase(), HyStart::Phase::done);
}

/// A connection whose slow start fills a queue that makes its round trips longer.
struct Filling {
  Filling() { cubic.on_connected(1000, false, {}); }
  /// A round trip, each segment acknowledged alone.
  void round() {
    uint64_t before = delivered;
    uint32_t acks = cubic.cwnd() / 1000;
    for (uint32_t i = 0; i < acks; ++i) {
      AckSample sample;
      sample.acked = 1000;
      sample.rtt = sample.srtt = rtt;
      delivered += 1000;
      sample.total_delivered = delivered;
      sample.rate.prior_delivered = i == 0 || before == 0 ? before : before - 1;
      cubic.on_ack(sample);
    }
  }
  Cubic cubic;
  uint64_t delivered = 0;
  Duration rtt = 50ms;
};

TEST(TcpCubicHyStart, ItsEndSetsSsthresh) {
  Filling filling;
  Cubic& cubic = filling.cubic;
  for (int rounds = 0; cubic.in_slow_start() && rounds < 30; ++rounds) {
    filling.round();
    // The queue grows from 160 segments in flight on.
    if (cubic.cwnd() > 160'000) filling.rtt += 10ms;
  }
  EXPECT_FALSE(cubic.in_slow_start());
  EXPECT_NEAR(cubic.ssthresh(), cubic.cwnd(), 2000) << "ACKs of the same round came after it";
  EXPECT_LT(cubic.cwnd(), 2'000'000u) << "without it 30 rounds would have come to the limit";
}

// RFC 9406, 4.3: a later slow start knows where to end, whatever its round trips do.
TEST(TcpCubicHyStart, OnlyTheFirstSlowStartIsCutShort) {
  Filling filling;
  Cubic& cubic = filling.cubic;
  while (cubic.cwnd() < 200'000) filling.round();
  cubic.on_rto(cubic.cwnd(), false, {});
  cubic.on_recovery_exit(0, {});
  const uint32_t ssthresh = cubic.ssthresh();
  ASSERT_LT(cubic.cwnd(), ssthresh / 4);
  for (int rounds = 0; cubic.in_slow_start() && rounds < 30; ++rounds) {
    filling.round();
    filling.rtt += 10ms;
  }
  EXPECT_EQ(cubic.ssthresh(), ssthresh);
  EXPECT_GE(cubic.cwnd(), ssthresh);
}

}  // namespace
}  // namespace ustack::tcp
