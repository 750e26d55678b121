// The scoreboard alone.
#include "stack/tcp/flight.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/support/heap_arena.h"

namespace ustack::test {
namespace {

using tcp::AckTally;
using tcp::Flight;
using tcp::SackBlock;
using tcp::SentSegment;

class TcpFlight : public ::testing::Test {
 protected:
  HeapArena arena{false};
  Slab<SentSegment> pool{arena};
  Flight flight{pool};
  Instant now{1h};
  AckTally delivered;

  void send(uint32_t count, uint32_t length = 100, uint32_t mss = 100) {
    for (uint32_t i = 0; i < count; ++i, nxt += length)
      ASSERT_TRUE(flight.append(SeqNum(nxt), length, false, mss, now += 1ms));
  }
  void sack(std::vector<std::pair<uint32_t, uint32_t>> ranges) {
    std::vector<SackBlock> blocks;
    for (auto [from, to] : ranges) blocks.push_back({SeqNum(from), SeqNum(to)});
    flight.sack(blocks, delivered);
  }
  /// What the rule of three newly calls lost.
  uint32_t mark_by_sack() {
    uint32_t before = flight.lost();
    flight.mark_lost_by_sack(3);
    return flight.lost() - before;
  }
  uint32_t nxt = 1000;
};

TEST_F(TcpFlight, CumulativeAckDropsAndTrims) {
  send(3);
  flight.acknowledge(SeqNum(1150), delivered);
  EXPECT_EQ(delivered.bytes, 150u);
  EXPECT_EQ(flight.outstanding(), 150u);
  EXPECT_EQ(flight.count(), 2u);
  EXPECT_EQ(*delivered.first_sent, Instant{1h} + 1ms);
  EXPECT_EQ(*delivered.last_sent, Instant{1h} + 2ms);
}

TEST_F(TcpFlight, SackSplitsSuperframes) {
  send(1, 1000);
  sack({{1300, 1500}});
  EXPECT_EQ(flight.count(), 3u);
  EXPECT_EQ(flight.sacked(), 200u);
  EXPECT_EQ(flight.in_flight(), 800u);
  sack({{1300, 1700}});
  EXPECT_EQ(flight.sacked(), 400u);
  EXPECT_EQ(delivered.bytes, 400u);
}

TEST_F(TcpFlight, ThreeSegmentsAboveMeanLost) {
  send(6);
  sack({{1200, 1300}});
  sack({{1200, 1400}});
  EXPECT_EQ(mark_by_sack(), 0u);
  sack({{1200, 1500}});
  EXPECT_EQ(mark_by_sack(), 200u);
  EXPECT_EQ(flight.in_flight(), 100u);
  ASSERT_NE(flight.next_lost(), nullptr);
  EXPECT_EQ(flight.next_lost()->seq.value(), 1000u);
  flight.mark_retransmitted(*flight.next_lost(), 100, now += 1ms);
  EXPECT_EQ(flight.in_flight(), 200u);
  EXPECT_EQ(flight.next_lost()->seq.value(), 1100u);
  EXPECT_EQ(mark_by_sack(), 0u) << "not lost twice by the same evidence";
}

TEST_F(TcpFlight, RetransmissionOvertakenIsLostAgain) {
  send(5);
  sack({{1200, 1500}});
  flight.mark_lost_by_sack(3);
  flight.mark_retransmitted(*flight.next_lost(), 100, Instant{2h});
  flight.mark_lost_retransmissions(Instant{2h});
  EXPECT_EQ(flight.retransmitted(), 100u);
  flight.mark_lost_retransmissions(Instant{2h} + 1ms);
  EXPECT_EQ(flight.lost_retransmissions(), 1u);
  EXPECT_EQ(flight.next_lost()->seq.value(), 1000u);
  EXPECT_EQ(flight.retransmitted(), 0u);
}

TEST_F(TcpFlight, AckOfWhatWasRetransmittedGivesNoSample) {
  send(1);
  flight.mark_timed_out(Duration(0), now);
  flight.mark_retransmitted(*flight.next_lost(), 100, now += 1ms);
  flight.acknowledge(SeqNum(1100), delivered);
  EXPECT_TRUE(delivered.retransmitted);
  EXPECT_FALSE(delivered.first_sent.has_value());
  EXPECT_TRUE(flight.empty());
}

TEST_F(TcpFlight, OutOfMemoryLeavesItAsItWas) {
  send(1, 1000);
  arena.fail_after(0);
  EXPECT_FALSE(flight.append(SeqNum(nxt), 10, false, 10, now));
  sack({{1300, 1500}});
  EXPECT_EQ(flight.sacked(), 0u);
  flight.mark_head_lost(100);
  EXPECT_EQ(flight.lost(), 0u);
  EXPECT_EQ(flight.outstanding(), 1000u);
  arena.never_fail();
}

// Against a model: one byte of state for each sequence number.
TEST_F(TcpFlight, SumsAgreeWithAModel) {
  std::mt19937 engine(7);
  auto random = [&] { return static_cast<uint32_t>(engine()); };
  struct Byte {
    bool sacked = false;
  };
  std::vector<Byte> model;
  uint32_t una = 1000;
  for (int step = 0; step < 20000; ++step) {
    switch (random() % 4) {
      case 0:
        if (nxt - una < 4000) {
          uint32_t length = 1 + random() % 400;
          model.resize(model.size() + length);
          send(1, length, 1);
        }
        break;
      case 1:
        if (nxt > una) {
          uint32_t n = random() % (nxt - una) / 4;
          flight.acknowledge(SeqNum(una + n), delivered);
          model.erase(model.begin(), model.begin() + n);
          una += n;
        }
        break;
      case 2:
        if (nxt > una + 10) {
          uint32_t from = una + 1 + random() % (nxt - una - 2), to = from + 1 + random() % (nxt - from - 1);
          sack({{from, to}});
          for (uint32_t i = from; i < to; ++i) model[i - una].sacked = true;
        }
        break;
      case 3:
        flight.mark_lost_by_sack(3);
        if (SentSegment* lost = flight.next_lost()) flight.mark_retransmitted(*lost, 1, now += 1ms);
        break;
    }
    uint32_t sacked = 0;
    for (const Byte& byte : model) sacked += byte.sacked;
    ASSERT_EQ(flight.outstanding(), nxt - una);
    ASSERT_EQ(flight.sacked(), sacked) << "step " << step;
    ASSERT_LE(flight.lost() + flight.sacked(), flight.outstanding());
    ASSERT_LE(flight.retransmitted() + flight.sacked(), flight.outstanding());
  }
}

}  // namespace
}  // namespace ustack::test
