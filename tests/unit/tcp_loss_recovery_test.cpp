// The parts of loss recovery alone: the minimum filter, rate reduction, RACK's window, delivery rates, the
// flight's order in time; and its settings. The whole is in tests/scenario/recovery_script_test.cpp.
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include <random>

#include "stack/tcp/delivery_rate.h"
#include "stack/tcp/flight.h"
#include "stack/tcp/loss_recovery.h"
#include "stack/tcp/prr.h"
#include "stack/tcp/rack.h"
#include "stack/tcp/windowed_minimum.h"
#include "tests/support/heap_arena.h"
#include "tests/support/tcp_script.h"

namespace ustack::test {
namespace {

using tcp::AckTally;
using tcp::DeliveryRate;
using tcp::Flight;
using tcp::Rack;
using tcp::RateReduction;
using tcp::SackBlock;
using tcp::SentSegment;
using tcp::TransmitMark;
using tcp::WindowedMinimum;

TEST(TcpWindowedMinimum, TracksTheSmallestOfTheWindow) {
  WindowedMinimum minimum;
  Instant now{1h};
  EXPECT_EQ(minimum.value(), Duration(0));
  minimum.add(10ms, now, 10s);
  minimum.add(20ms, now + 1s, 10s);
  EXPECT_EQ(minimum.value(), 10ms);
  minimum.add(5ms, now + 2s, 10s);
  EXPECT_EQ(minimum.value(), 5ms);
  for (int s = 3; s < 12; ++s) minimum.add(15ms, now + std::chrono::seconds(s), 10s);
  EXPECT_EQ(minimum.value(), 5ms);
  minimum.add(15ms, now + 13s, 10s);
  EXPECT_EQ(minimum.value(), 15ms) << "the small one is too old";
}

// Against all samples of the window: never more than the true minimum of it, nor less than that of a window
// and a half.
TEST(TcpWindowedMinimum, AgreesWithAModel) {
  std::mt19937 dice(3);
  WindowedMinimum minimum;
  std::vector<std::pair<Instant, Duration>> all;
  Instant now{1h};
  for (int i = 0; i < 1000; ++i) {
    now += Duration(dice() % 200'000'000);
    Duration value(1'000'000 + dice() % 50'000'000);
    minimum.add(value, now, 5s);
    all.emplace_back(now, value);
    Duration recent = value, ever = value;
    for (auto& [at, sample] : all) {
      if (now - at <= 1250ms) recent = std::min(recent, sample);
      if (now - at <= 5s) ever = std::min(ever, sample);
    }
    ASSERT_GE(minimum.value(), ever);
    ASSERT_LE(minimum.value(), recent);
  }
}

TEST(TcpRateReduction, SendsInProportion) {
  RateReduction prr;
  prr.start(100'000);
  uint32_t in_flight = 100'000, sent = 0;
  for (int i = 0; i < 60; ++i) {
    in_flight -= 1000;
    uint32_t cwnd = prr.cwnd({.delivered = 1000, .in_flight = in_flight, .ssthresh = 70'000, .mss = 1000});
    while (in_flight + 1000 <= cwnd) {
      prr.on_sent(1000);
      in_flight += 1000;
      ++sent;
    }
  }
  EXPECT_NEAR(sent, 42, 1) << "seven tenths of what is delivered";
}

TEST(TcpRateReduction, NeverAimsBeyondSsthresh) {
  RateReduction prr;
  prr.start(20'000);
  uint32_t cwnd =
      prr.cwnd({.delivered = 50'000, .in_flight = 1000, .ssthresh = 10'000, .mss = 1000, .safe = true});
  EXPECT_EQ(cwnd, 10'000u);
}

TEST(TcpRateReduction, IsCarefulWhileLossesGoOn) {
  RateReduction prr;
  prr.start(20'000);
  prr.on_sent(1000);
  EXPECT_EQ(prr.cwnd({.delivered = 1000, .in_flight = 2000, .ssthresh = 10'000, .mss = 1000}), 3000u);
  EXPECT_EQ(prr.cwnd({.delivered = 1000, .in_flight = 2000, .ssthresh = 10'000, .mss = 1000, .safe = true}),
            4000u);
}

TEST(TcpRack, TheWindowAdapts) {
  Rack rack;
  Rack::WindowInput input{.min_rtt = 40ms, .srtt = 100ms};
  EXPECT_EQ(rack.window(input), 10ms);
  input.threshold_reached = true;
  EXPECT_EQ(rack.window(input), 0ms);
  rack.on_reordering();
  EXPECT_EQ(rack.window(input), 10ms) << "once it was seen to reorder";
  rack.on_dsack();
  rack.adapt_window(100, 200);
  EXPECT_EQ(rack.window(input), 20ms);
  rack.on_dsack();
  rack.adapt_window(150, 250);
  EXPECT_EQ(rack.window(input), 20ms) << "once a round trip";
  for (uint64_t round = 2; round < 20; ++round) {
    rack.on_dsack();
    rack.adapt_window(round * 1000, round * 1000 + 500);
  }
  EXPECT_EQ(rack.window(input), 100ms) << "at most a round trip";
  for (int i = 0; i < 16; ++i) rack.on_recovery_end();
  rack.adapt_window(90'000, 90'001);
  EXPECT_EQ(rack.window(input), 10ms) << "16 recoveries later it is as at first";
}

TEST(TcpRack, DsacksWithoutReorderingChangeNothing) {
  Rack rack;
  rack.on_dsack();
  rack.adapt_window(100, 200);
  EXPECT_EQ(rack.quarters(), 1u);
}

TEST(TcpDeliveryRate, MeasuresWhatIsDeliveredInARoundTrip) {
  HeapArena arena{false};
  Slab<SentSegment> pool{arena};
  Flight flight{pool};
  Instant now{1h};
  // A segment each millisecond, acknowledged 10 ms later: 1000 bytes a millisecond.
  for (uint32_t i = 0; i < 100; ++i, now += 1ms) {
    ASSERT_TRUE(flight.append(SeqNum(i * 1000), 1000, false, 1000, now));
    if (i < 10) continue;
    AckTally tally{.arrived = now};
    flight.acknowledge(SeqNum((i - 9) * 1000), tally);
    tcp::RateSample sample = flight.rate().sample(tally.rate, tally.bytes, 10ms, now);
    ASSERT_TRUE(sample.valid());
    if (i > 20) {
      EXPECT_NEAR(static_cast<double>(sample.bytes_per_second()), 1e6, 1e5);
    }
    EXPECT_FALSE(sample.app_limited);
  }
  flight.rate().set_app_limited(flight.in_flight());
  ASSERT_TRUE(flight.append(SeqNum(100'000), 1000, false, 1000, now));
  AckTally tally{.arrived = now + 10ms};
  flight.acknowledge(SeqNum(101'000), tally);
  EXPECT_TRUE(flight.rate().sample(tally.rate, tally.bytes, 10ms, now + 10ms).app_limited);
  EXPECT_FALSE(flight.rate().app_limited()) << "all of it has been delivered";
}

class TcpFlightInTime : public ::testing::Test {
 protected:
  void send(uint32_t count, uint32_t length = 1000, uint32_t mss = 1000) {
    for (uint32_t i = 0; i < count; ++i, nxt += length)
      ASSERT_TRUE(flight.append(SeqNum(nxt), length, false, mss, now += 1ms));
  }
  AckTally sack(std::vector<std::pair<uint32_t, uint32_t>> ranges) {
    AckTally tally{.arrived = now + 10ms};
    std::vector<SackBlock> blocks;
    for (auto [from, to] : ranges) blocks.push_back({SeqNum(from), SeqNum(to)});
    flight.sack(blocks, tally);
    return tally;
  }
  HeapArena arena{false};
  Slab<SentSegment> pool{arena};
  Flight flight{pool};
  Instant now{1h};
  uint32_t nxt = 0;
};

TEST_F(TcpFlightInTime, LostIsWhatWasSentBeforeAndLongAgo) {
  send(10);
  AckTally tally = sack({{5000, 6000}});
  ASSERT_TRUE(tally.newest);
  // Sent at 1 to 10 ms; at 14 ms what is older than 10 ms.
  Duration next = flight.mark_lost_by_time(*tally.newest, 10ms, Instant(1h) + 14ms);
  EXPECT_EQ(flight.lost(), 4000u);
  EXPECT_EQ(next, 1ms) << "the fifth";
  EXPECT_EQ(flight.mark_lost_by_time(*tally.newest, 10ms, Instant(1h) + 50ms), Duration(0));
  EXPECT_EQ(flight.lost(), 5000u) << "nothing that was sent after what has arrived";
}

TEST_F(TcpFlightInTime, ARetransmissionIsYoung) {
  send(5);
  AckTally tally = sack({{4000, 5000}});
  flight.mark_lost_by_time(*tally.newest, 1ms, now + 20ms);
  ASSERT_EQ(flight.lost_segments(), 4u);
  now += 20ms;
  while (SentSegment* lost = flight.next_lost()) flight.mark_retransmitted(*lost, 1000, now);
  flight.mark_lost_by_time(*tally.newest, 1ms, now + 20ms);
  EXPECT_EQ(flight.retransmitted_segments(), 4u) << "what has arrived was sent before them";
  // The third retransmission arrives: the first two left before it.
  tally = sack({{2000, 3000}});
  flight.mark_lost_by_time(*tally.newest, 1ms, now + 20ms);
  EXPECT_EQ(flight.lost_retransmissions(), 2u);
  EXPECT_EQ(flight.retransmitted_segments(), 1u);
}

TEST_F(TcpFlightInTime, AnUndoPutsThemBackInOrder) {
  send(10);
  AckTally tally = sack({{8000, 9000}});
  flight.mark_lost_by_time(*tally.newest, 1ms, now + 20ms);
  EXPECT_EQ(flight.lost_segments(), 8u);
  flight.unmark_lost();
  EXPECT_EQ(flight.lost(), 0u);
  EXPECT_EQ(flight.next_lost(), nullptr);
  EXPECT_EQ(flight.in_flight(), 9000u);
  // They are found again, the oldest first.
  Duration next = flight.mark_lost_by_time(*tally.newest, 20ms, Instant(1h) + 24ms);
  EXPECT_EQ(flight.lost_segments(), 4u);
  EXPECT_EQ(next, 1ms);
}

TEST_F(TcpFlightInTime, ATimeoutSparesWhatWasJustSent) {
  send(10);
  flight.mark_timed_out(5ms, now);
  EXPECT_EQ(flight.lost_segments(), 5u);
  flight.mark_timed_out(Duration(0), now);
  EXPECT_EQ(flight.lost_segments(), 10u);
}

TEST_F(TcpFlightInTime, TheLastSegmentIsCutOffASuperframe) {
  send(1, 4500);
  SentSegment* last = flight.last(1000);
  ASSERT_NE(last, nullptr);
  EXPECT_EQ(last->seq, SeqNum(4000));
  EXPECT_EQ(last->length, 500u);
  flight.mark_probed(*last, now + 5ms);
  EXPECT_EQ(flight.in_flight(), 4500u) << "it counts once";
}

// Whatever a peer SACKs, the flight holds no more pieces than there are segments, and an ACK costs no more
// than that.
TEST_F(TcpFlightInTime, ASackBombMakesNoMorePiecesThanSegments) {
  send(20, 44'000, 1000);
  std::mt19937 dice(1);
  for (int i = 0; i < 1000; ++i) {
    std::vector<std::pair<uint32_t, uint32_t>> ranges;
    for (int b = 0; b < 4; ++b) {
      auto from = static_cast<uint32_t>(dice() % (nxt - 2));
      ranges.emplace_back(
          from, from + 1 + static_cast<uint32_t>(dice() % std::min<uint32_t>(nxt - from - 1, 3000)));
    }
    sack(ranges);
  }
  EXPECT_LE(flight.count(), 20u * 44);
  EXPECT_EQ(flight.outstanding(), nxt);
}

TEST(TcpRecoverySettings, AreCheckedAndRead) {
  Settings settings;
  auto rules = tcp::LossRecovery::Rules::from(settings);
  EXPECT_TRUE(rules.rack && rules.loss_probes && rules.frto);
  EXPECT_FALSE(rules.static_window || rules.no_threshold);
  EXPECT_EQ(rules.reordering, 3u);
  EXPECT_EQ(rules.max_reordering, 300u);
  struct Row {
    const char *name, *good, *bad;
  };
  for (Row row :
       {Row{"tcp_recovery", "7", "8"}, Row{"tcp_early_retrans", "4", "5"}, Row{"tcp_frto", "0", "3"},
        Row{"tcp_reordering", "10", "0"}, Row{"tcp_max_reordering", "100", "-1"}, Row{"tcp_dsack", "0", "2"},
        Row{"tcp_sack", "0", "2"}, Row{"tcp_min_rtt_wlen", "60", "86401"}}) {
    std::string name = "net.ipv4." + std::string(row.name);
    EXPECT_TRUE(settings.set(name, row.good).ok()) << name;
    EXPECT_EQ(settings.set(name, row.bad).code(), EINVAL) << name;
  }
  rules = tcp::LossRecovery::Rules::from(settings);
  EXPECT_TRUE(rules.static_window && rules.no_threshold && rules.rack);
  EXPECT_FALSE(rules.frto);
  EXPECT_EQ(rules.reordering, 10u);
}

TEST(TcpRecoveryInfo, TellsWhatLinuxTells) {
  TcpScript script;
  script.run(R"(
    write 10
    > 0-9
    +10 < 0 sack 1-3
    > 0
  )");
  tcp_info info{};
  auto read = [&] {
    ASSERT_TRUE(
        script.socket()->get_option(IPPROTO_TCP, TCP_INFO, std::as_writable_bytes(std::span(&info, 1))).ok());
  };
  read();
  EXPECT_EQ(info.tcpi_ca_state, TCP_CA_Recovery);
  EXPECT_EQ(info.tcpi_unacked, 10u);
  EXPECT_EQ(info.tcpi_sacked, 3u);
  EXPECT_EQ(info.tcpi_lost, 1u);
  EXPECT_EQ(info.tcpi_retrans, 1u);
  EXPECT_EQ(info.tcpi_total_retrans, 1u);
  EXPECT_EQ(info.tcpi_reordering, 3u);
  EXPECT_EQ(info.tcpi_min_rtt, 10'000u);
  EXPECT_EQ(info.tcpi_delivered, 3u);
  EXPECT_EQ(info.tcpi_bytes_retrans, 1000u);
  script.run(R"(
    +1 < 10
    +9 < 10 dsack 0
  )");
  read();
  EXPECT_EQ(info.tcpi_ca_state, TCP_CA_Open);
  EXPECT_EQ(info.tcpi_dsack_dups, 1u);
  EXPECT_EQ(info.tcpi_unacked, 0u);
  EXPECT_GT(info.tcpi_delivery_rate, 0u);
}

// RFC 2883: what we report as a receiver.
TEST(TcpDsack, IsSentForDuplicatesOldAndOutOfOrder) {
  for (bool on : {true, false}) {
    TcpPeer::Options options;
    options.settings.tcp_dsack = on ? 1 : 0;
    TcpPeer peer(options);
    TestSocket socket = peer.connected(mss_option(1000) + sack_permitted_option());
    uint32_t base = peer.peer_iss + 1, ack = peer.iss + 1;
    auto deliver = [&](uint32_t at, uint32_t size) {
      peer.send({.seq = base + at, .ack = ack, .payload = std::string(size, 'x')});
      auto frames = peer.take();
      return frames.empty() || !frames.back().tcp ? std::vector<std::pair<uint32_t, uint32_t>>{}
                                                  : frames.back().tcp->sack_blocks;
    };
    deliver(0, 100);
    using Blocks = std::vector<std::pair<uint32_t, uint32_t>>;
    EXPECT_EQ(deliver(0, 100), on ? (Blocks{{base, base + 100}}) : Blocks{});
    EXPECT_EQ(deliver(200, 100), (Blocks{{base + 200, base + 300}}));
    EXPECT_EQ(deliver(200, 100), on ? (Blocks{{base + 200, base + 300}, {base + 200, base + 300}})
                                    : (Blocks{{base + 200, base + 300}}));
    EXPECT_EQ(peer.counters().TcpExtTCPDSACKOldSent, on ? 1u : 0u);
    EXPECT_EQ(peer.counters().TcpExtTCPDSACKOfoSent, on ? 1u : 0u);
    socket.close();
  }
}

}  // namespace
}  // namespace ustack::test
