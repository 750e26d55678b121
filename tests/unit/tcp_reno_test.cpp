#include "stack/tcp/reno.h"

#include <gtest/gtest.h>

namespace ustack::tcp {
namespace {

constexpr uint32_t kMss = 1000;

class TcpReno : public ::testing::Test {
 protected:
  TcpReno() {
    EXPECT_TRUE(slot_.select("reno").ok());
    slot_->on_connected(kMss, false, now_);
  }

  void ack(uint32_t bytes) {
    AckSample sample;
    sample.now = now_;
    sample.acked = bytes;
    sample.prior_in_flight = slot_->cwnd();
    slot_->on_ack(sample);
  }
  /// One whole window acknowledged, an ACK for every two segments.
  void ack_a_window() {
    uint32_t left = slot_->cwnd();
    for (; left > 2 * kMss; left -= 2 * kMss) ack(2 * kMss);
    ack(left);
  }
  void lose() {
    slot_->on_congestion_event(CongestionCause::loss, slot_->cwnd(), now_);
    slot_->set_cwnd(slot_->ssthresh());
  }

  CongestionSlot slot_;
  Instant now_{};
};

TEST_F(TcpReno, StartsWithTheInitialWindow) {
  // RFC 6928, 2: min(10 * MSS, max(2 * MSS, 14600)).
  struct Row {
    uint32_t mss, window;
  };
  for (Row row : {Row{536, 5360}, Row{1000, 10000}, Row{1448, 14480}, Row{1460, 14600}, Row{2000, 14600},
                  Row{9000, 18000}}) {
    slot_->on_connected(row.mss, false, now_);
    EXPECT_EQ(slot_->cwnd(), row.window) << row.mss;
    EXPECT_TRUE(slot_->in_slow_start());
    slot_->on_connected(row.mss, true, now_);
    EXPECT_EQ(slot_->cwnd(), row.mss) << "after a lost SYN";
  }
}

TEST_F(TcpReno, SlowStartDoublesEachRoundTrip) {
  for (uint32_t expected : {20u, 40u, 80u, 160u}) {
    ack_a_window();
    EXPECT_EQ(slot_->cwnd(), expected * kMss);
  }
}

TEST_F(TcpReno, AStretchAckCountsWhole) {
  ack(10 * kMss);
  EXPECT_EQ(slot_->cwnd(), 20 * kMss);
  ack(500);
  EXPECT_EQ(slot_->cwnd(), 20 * kMss + 500) << "bytes, not ACKs: splitting ACKs gains nothing (RFC 3465)";
}

TEST_F(TcpReno, ALossHalvesWhatIsInFlight) {
  slot_->on_congestion_event(CongestionCause::loss, 8 * kMss, now_);
  EXPECT_EQ(slot_->ssthresh(), 4 * kMss);
  EXPECT_EQ(slot_->cwnd(), 10 * kMss) << "rate reduction brings it there, not the algorithm";
  slot_->set_cwnd(4 * kMss);
  AckSample in_recovery;
  in_recovery.acked = 4 * kMss;
  in_recovery.in_recovery = true;
  slot_->on_ack(in_recovery);
  EXPECT_EQ(slot_->cwnd(), 4 * kMss) << "no growth in recovery";
  slot_->on_recovery_exit(4 * kMss, now_);
  EXPECT_EQ(slot_->cwnd(), 4 * kMss);
  EXPECT_FALSE(slot_->in_slow_start());
}

TEST_F(TcpReno, SsthreshIsTwoSegmentsAtLeast) {
  slot_->on_congestion_event(CongestionCause::loss, kMss, now_);
  EXPECT_EQ(slot_->ssthresh(), 2 * kMss);
  slot_->on_rto(0, false, now_);
  EXPECT_EQ(slot_->ssthresh(), 2 * kMss);
}

TEST_F(TcpReno, CongestionAvoidanceAddsASegmentEachRoundTrip) {
  lose();
  slot_->on_recovery_exit(0, now_);
  uint32_t cwnd = slot_->cwnd();
  for (uint32_t i = 1; i <= 20; ++i) {
    ack_a_window();
    EXPECT_EQ(slot_->cwnd(), cwnd + i * kMss);
  }
}

TEST_F(TcpReno, SlowStartEndsAtSsthresh) {
  slot_->on_rto(10 * kMss, false, now_);
  slot_->on_recovery_exit(0, now_);
  EXPECT_EQ(slot_->cwnd(), kMss);
  EXPECT_EQ(slot_->ssthresh(), 5 * kMss);
  ack(20 * kMss);
  // Four segments to ssthresh; the other sixteen count for avoidance: one at 5, 6 more at 6, not the 7 after
  // them.
  EXPECT_EQ(slot_->cwnd(), 7 * kMss);
}

TEST_F(TcpReno, ATimeoutStartsFromOneSegment) {
  slot_->on_rto(10 * kMss, false, now_);
  EXPECT_EQ(slot_->cwnd(), kMss);
  EXPECT_EQ(slot_->ssthresh(), 5 * kMss);
  // RFC 5681, 3.1: ssthresh is held when the same segment is lost again.
  slot_->on_rto(kMss, true, now_);
  EXPECT_EQ(slot_->ssthresh(), 5 * kMss);
  EXPECT_EQ(slot_->cwnd(), kMss);
  // RFC 3465, 2.3: an ACK that jumps over what the peer had already must not make a burst.
  ack(8 * kMss);
  EXPECT_EQ(slot_->cwnd(), 2 * kMss);
  slot_->on_recovery_exit(0, now_);
  EXPECT_EQ(slot_->cwnd(), 2 * kMss) << "slow start goes on from where it is";
  ack(3 * kMss);
  EXPECT_EQ(slot_->cwnd(), 5 * kMss);
}

TEST_F(TcpReno, AWindowThatIsNotUsedDoesNotGrow) {
  AckSample sample;
  sample.acked = kMss;
  sample.cwnd_limited = false;
  slot_->on_ack(sample);
  EXPECT_EQ(slot_->cwnd(), 10 * kMss);
}

TEST_F(TcpReno, KnowsWhenTheWindowIsTheLimit) {
  // Slow start: as long as more than half is used.
  EXPECT_FALSE(is_cwnd_limited(*slot_, 5 * kMss));
  EXPECT_TRUE(is_cwnd_limited(*slot_, 5 * kMss + 1));
  lose();
  slot_->on_recovery_exit(0, now_);
  ASSERT_EQ(slot_->cwnd(), 5 * kMss);
  EXPECT_FALSE(is_cwnd_limited(*slot_, 4 * kMss));
  EXPECT_TRUE(is_cwnd_limited(*slot_, 4 * kMss + 1)) << "no whole segment would fit";
  EXPECT_TRUE(is_cwnd_limited(*slot_, 6 * kMss));
}

TEST_F(TcpReno, ASpuriousTimeoutIsUndone) {
  ack_a_window();
  slot_->on_rto(20 * kMss, false, now_);
  slot_->on_rto(20 * kMss, true, now_);
  slot_->on_undo(now_);
  EXPECT_EQ(slot_->cwnd(), 20 * kMss);
  EXPECT_TRUE(slot_->in_slow_start());
  ack(10 * kMss);
  EXPECT_EQ(slot_->cwnd(), 30 * kMss) << "the limit after a time-out is gone too";
}

TEST_F(TcpReno, IdlenessHalvesTheWindowForEachRto) {
  while (slot_->cwnd() < 160 * kMss) ack_a_window();
  lose();
  slot_->on_recovery_exit(0, now_);
  ASSERT_EQ(slot_->cwnd(), 80 * kMss);
  slot_->on_idle_restart(450ms, 200ms, now_);
  EXPECT_EQ(slot_->cwnd(), 20 * kMss);
  EXPECT_EQ(slot_->ssthresh(), 80 * kMss) << "what was possible is remembered";
  slot_->on_idle_restart(3600s, 200ms, now_);
  EXPECT_EQ(slot_->cwnd(), 10 * kMss) << "not below the restart window";
  slot_->on_rto(10 * kMss, false, now_);
  slot_->on_idle_restart(3600s, 200ms, now_);
  EXPECT_EQ(slot_->cwnd(), kMss) << "nor does it grow";
}

TEST_F(TcpReno, CwndDoesNotOverflow) {
  for (int i = 0; i < 100; ++i) ack(0x7fffffff);
  EXPECT_LE(slot_->cwnd(), 0x7fffffffu);
  EXPECT_GT(slot_->cwnd(), 1u << 30);
  lose();
  slot_->on_recovery_exit(0, now_);
  for (int i = 0; i < 10; ++i) ack(0x7fffffff);
  EXPECT_LE(slot_->cwnd(), 0x7fffffffu);
}

TEST_F(TcpReno, AnotherMssKeepsTheNumberOfSegments) {
  lose();
  slot_->set_mss(500);
  EXPECT_EQ(slot_->mss(), 500u);
  EXPECT_EQ(slot_->cwnd(), 2500u);
  EXPECT_EQ(slot_->ssthresh(), 2500u);
  CongestionSlot fresh;
  fresh->on_connected(1000, false, now_);
  fresh->set_mss(1460);
  EXPECT_TRUE(fresh->in_slow_start());
  EXPECT_EQ(fresh->cwnd(), 14600u);
}

TEST(TcpCongestion, IsSelectedByName) {
  CongestionSlot slot;
  EXPECT_EQ(slot->name(), "cubic");
  EXPECT_TRUE(slot.select("reno").ok());
  slot->on_connected(kMss, false, {});
  slot->on_congestion_event(CongestionCause::loss, 8 * kMss, {});
  slot->set_cwnd(4 * kMss);
  EXPECT_TRUE(slot.select("reno").ok());
  EXPECT_EQ(slot->cwnd(), 4 * kMss);
  EXPECT_EQ(slot->ssthresh(), 4 * kMss);
  EXPECT_EQ(slot->mss(), kMss);
  EXPECT_EQ(slot.select("vegas").code(), ENOENT);
  EXPECT_EQ(slot.select("").code(), ENOENT);
  EXPECT_EQ(slot->name(), "reno");
  EXPECT_EQ(slot->pacing_rate(), 0u);
  for (const CongestionAlgorithm& algorithm : congestion_algorithms()) {
    EXPECT_TRUE(slot.select(algorithm.name).ok());
    EXPECT_EQ(slot->name(), algorithm.name);
  }
  EXPECT_TRUE(slot.select("reno").ok());
  LogLine line;
  line << *slot;
  EXPECT_EQ(line.text(), "reno cwnd 4000 ssthresh 4000");
}

}  // namespace
}  // namespace ustack::tcp
