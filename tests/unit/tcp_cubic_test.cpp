#include "stack/tcp/cubic.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ustack::tcp {
namespace {

constexpr uint32_t kMss = 1000;
constexpr Duration kRtt = 100ms;

class TcpCubic : public ::testing::Test {
 protected:
  TcpCubic() { cubic_.on_connected(kMss, false, now_); }

  void ack(uint32_t bytes, bool cwnd_limited = true) {
    AckSample sample;
    sample.now = now_;
    sample.acked = bytes;
    sample.srtt = kRtt;
    sample.cwnd_limited = cwnd_limited;
    delivered_ += bytes;
    sample.total_delivered = delivered_;
    cubic_.on_ack(sample);
  }
  /// A round trip in which all of the window is acknowledged, an ACK for every two segments, spread evenly.
  void round_trip(bool cwnd_limited = true) {
    uint32_t left = cubic_.cwnd();
    uint32_t acks = std::max(left / (2 * kMss), 1u);
    for (uint32_t i = 0; i < acks; ++i) {
      now_ += kRtt / acks;
      ack(left / acks, cwnd_limited);
    }
  }
  void lose() {
    cubic_.on_congestion_event(CongestionCause::loss, cubic_.cwnd(), now_);
    cubic_.set_cwnd(cubic_.ssthresh());
    cubic_.on_recovery_exit(0, now_);
  }
  void grow_to(uint32_t segments) { cubic_.set_cwnd(segments * kMss); }
  double segments() const { return double(cubic_.cwnd()) / kMss; }

  Cubic cubic_;
  Instant now_{1s};
  uint64_t delivered_ = 0;
};

TEST_F(TcpCubic, SlowStartDoublesEachRoundTrip) {
  EXPECT_EQ(cubic_.cwnd(), 10 * kMss);
  for (uint32_t expected : {20u, 40u, 80u}) {
    ack(cubic_.cwnd());
    EXPECT_EQ(cubic_.cwnd(), expected * kMss);
  }
}

TEST_F(TcpCubic, ALossTakesThreeTenths) {
  grow_to(100);
  cubic_.on_congestion_event(CongestionCause::loss, 100 * kMss, now_);
  EXPECT_EQ(cubic_.ssthresh(), 70 * kMss);
  EXPECT_EQ(cubic_.cwnd(), 100 * kMss) << "rate reduction brings it there";
  EXPECT_EQ(cubic_.w_max(), 100 * kMss);
  cubic_.on_recovery_exit(70 * kMss, now_);
  EXPECT_EQ(cubic_.cwnd(), 70 * kMss);
}

TEST_F(TcpCubic, SsthreshIsTwoSegmentsAtLeast) {
  grow_to(2);
  cubic_.on_congestion_event(CongestionCause::loss, 2 * kMss, now_);
  EXPECT_EQ(cubic_.ssthresh(), 2 * kMss);
}

TEST_F(TcpCubic, FastConvergenceLeavesRoom) {
  grow_to(100);
  lose();
  lose();  // at 70, below W_max
  EXPECT_EQ(cubic_.w_max(), 70 * kMss * 17 / 20);
}

TEST_F(TcpCubic, KIsTheCubeRootOfTheWayBack) {
  grow_to(1000);
  lose();
  ack(kMss);
  // RFC 9438, equation 2: cbrt(300 / 0.4) = 9.0856 s.
  EXPECT_NEAR(double(cubic_.k()), std::cbrt(300 / 0.4) * 1000, 1.0);
}

TEST_F(TcpCubic, ItFollowsTheCurve) {
  // Large enough that Reno's window stays below the cubic one.
  grow_to(1000);
  lose();
  ack(2 * kMss);
  Instant epoch = now_;
  double k = double(cubic_.k()) / 1000;
  for (int i = 0; i < 150; ++i) {
    round_trip();
    double t = std::chrono::duration<double>(now_ - epoch).count();
    double curve = 0.4 * std::pow(t - k, 3) + 1000;
    EXPECT_NEAR(segments(), curve, 12) << t << " s after the loss";
  }
  EXPECT_GT(cubic_.cwnd(), 1050 * kMss) << "convex beyond W_max";
}

TEST_F(TcpCubic, IsNoSlowerThanReno) {
  // A small window and a short way: 10 segments lose 3, K = 1.96 s; Reno with alpha = 9/17 has 13 segments
  // long before the curve.
  grow_to(10);
  lose();
  EXPECT_EQ(cubic_.cwnd(), 7 * kMss);
  for (int i = 0; i < 10; ++i) round_trip();
  EXPECT_GE(segments(), 7 + 10 * 9.0 / 17 - 0.7);
  EXPECT_LE(segments(), 7 + 10 + 1);
}

TEST_F(TcpCubic, AWindowThatIsNotUsedDoesNotGrow) {
  grow_to(100);
  lose();
  uint32_t before = cubic_.cwnd();
  for (int i = 0; i < 20; ++i) round_trip(false);
  EXPECT_EQ(cubic_.cwnd(), before);
}

TEST_F(TcpCubic, APauseIsNotCountedAsTime) {
  grow_to(1000);
  lose();
  for (int i = 0; i < 10; ++i) round_trip();
  uint32_t before = cubic_.cwnd();
  now_ += 60s;
  cubic_.on_transmit_start(60s, now_);
  round_trip();
  EXPECT_LT(cubic_.cwnd(), before + before / 20) << "60 s of the curve would have been half as much again";
}

TEST_F(TcpCubic, ATargetIsAtMostHalfAsMuchAgain) {
  grow_to(100);
  lose();
  ack(kMss);
  uint32_t before = cubic_.cwnd();
  now_ += 100s;
  ack(before);
  EXPECT_LE(cubic_.cwnd(), before + before / 2 + kMss);
}

TEST_F(TcpCubic, ATimeOutBeginsAnew) {
  grow_to(100);
  lose();
  cubic_.on_rto(cubic_.cwnd(), false, now_);
  EXPECT_EQ(cubic_.ssthresh(), 49 * kMss);
  EXPECT_EQ(cubic_.cwnd(), kMss);
  EXPECT_EQ(cubic_.w_max(), 0u);
  ack(4 * kMss);
  EXPECT_EQ(cubic_.cwnd(), 2 * kMss) << "one MSS for each ACK: it may be for what left long ago";
  cubic_.on_rto(cubic_.cwnd(), true, now_);
  EXPECT_EQ(cubic_.ssthresh(), 49 * kMss) << "kept when the segment was retransmitted before (RFC 5681, 3.1)";
}

TEST_F(TcpCubic, AfterATimeOutTheCurveStartsFlat) {
  grow_to(100);
  cubic_.on_rto(cubic_.cwnd(), false, now_);
  cubic_.on_recovery_exit(0, now_);
  cubic_.set_cwnd(70 * kMss);
  ack(kMss);
  EXPECT_EQ(cubic_.k(), 0) << "RFC 9438, 4.8";
}

TEST_F(TcpCubic, UndoRestoresTheCurve) {
  grow_to(1000);
  lose();
  for (int i = 0; i < 5; ++i) round_trip();
  uint32_t cwnd = cubic_.cwnd(), ssthresh = cubic_.ssthresh(), w_max = cubic_.w_max();
  int64_t k = cubic_.k();
  cubic_.on_congestion_event(CongestionCause::loss, cwnd, now_);
  cubic_.set_cwnd(cubic_.ssthresh());
  cubic_.on_undo(now_);
  EXPECT_EQ(cubic_.cwnd(), cwnd);
  EXPECT_EQ(cubic_.ssthresh(), ssthresh);
  EXPECT_EQ(cubic_.w_max(), w_max);
  EXPECT_EQ(cubic_.k(), k);
}

TEST_F(TcpCubic, NothingOverflows) {
  cubic_.on_connected(65495, false, now_);
  cubic_.set_cwnd(0x7f000000);
  lose();
  for (Duration step : {Duration(1ms), Duration(1h), Duration(240h)}) {
    now_ += step;
    ack(0x40000000);
    EXPECT_GE(cubic_.cwnd(), 0x50000000u);
    EXPECT_LE(cubic_.cwnd(), 0x7fffffffu);
  }
}

}  // namespace
}  // namespace ustack::tcp
