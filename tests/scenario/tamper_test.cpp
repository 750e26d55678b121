// Running connections with which the network tampers: exactly the segment that hurts, and its repair too. The
// bytes arrive whole, nothing takes longer than the time-outs that it must, and nothing is left behind.
#include <gtest/gtest.h>

#include "stack/tcp/protocol.h"
#include "tests/scenario/pair.h"
#include "tests/support/tamper.h"

namespace ustack::test {
namespace {

constexpr Impairments kWire{.delay = 5ms, .segment = true};

/// A transfer of 300 kB up, with armed rules on both directions; then the end of the connection.
class Tampered : public testing::Test {
 protected:
  Tampered() { EXPECT_TRUE(pair.establish()); }

  /// Returns how long it took from the first byte to the last one read.
  Duration transfer(uint64_t bytes = 300'000, Duration limit = 60s) {
    Pattern pattern(bytes);
    source = std::make_unique<PatternSender>(pair.client, *pair.near.get(), pattern, bytes);
    sink = std::make_unique<PatternReceiver>(pair.server, *pair.far.get(), pattern);
    Instant start = pair.net.now();
    EXPECT_TRUE(pair.net.run_until([&] { return sink->at_end(); }, limit));
    EXPECT_TRUE(sink->intact());
    EXPECT_EQ(sink->received(), bytes);
    EXPECT_EQ(source->error(), 0);
    EXPECT_EQ(sink->error(), 0);
    return pair.net.now() - start;
  }
  /// Both close; what is left is at most a TIME-WAIT.
  void expect_clean_end() {
    pair.client.clear_applications();
    pair.server.clear_applications();
    pair.near.close();
    pair.far.close();
    EXPECT_TRUE(pair.net.run_until(
        [&] {
          return pair.client.host().tcp().endpoint_count() == 0 &&
                 pair.server.host().tcp().endpoint_count() == 1;  // the listener
        },
        30s));
  }
  /// The n-th segment with data, from 1, the first time that it passes.
  static Tamper::Match data_segment(int n) {
    return [n, count = 0](const Passing& p) mutable {
      return p.payload > 0 && !p.retransmission && ++count == n;
    };
  }
  Counters& sender() { return pair.client.counters(); }

  Pair pair{PairOptions{.seed = 3, .forward = kWire, .backward = kWire}};
  Tamper up{*pair.cable.forward, pair.net}, down{*pair.cable.backward, pair.net};
  std::unique_ptr<PatternSender> source;
  std::unique_ptr<PatternReceiver> sink;
};

TEST_F(Tampered, OneSegmentLost) {
  up.drop(1, data_segment(20));
  EXPECT_LT(transfer(), 190ms);
  EXPECT_EQ(sender().TcpExtTCPTimeouts, 0u);
  EXPECT_EQ(sender().TcpExtTCPSackRecovery, 1u);
  expect_clean_end();
}

TEST_F(Tampered, ItsRetransmissionTooAndTheOneAfterThat) {
  up.drop(1, data_segment(400));
  up.drop(2, &Passing::is_retransmission);
  // As long as new data follows them, for which the send buffer has room.
  EXPECT_LT(transfer(3'000'000), 2s);
  EXPECT_TRUE(up.spent());
  EXPECT_EQ(sender().TcpExtTCPTimeouts, 0u) << "RACK finds lost retransmissions";
  EXPECT_EQ(sender().TcpExtTCPLostRetransmit, 2u);
}

TEST_F(Tampered, AWholeFlightLost) {
  bool on = false;
  up.drop(Tamper::kAlways, [&](const Passing& p) { return on && p.payload > 0 && !p.retransmission; });
  pair.net.run_for(1ms);
  on = true;
  pair.net.events().at(pair.net.now() + 8ms, [&] { on = false; });
  EXPECT_LT(transfer(), 1s);
  EXPECT_GT(up.fired(), 5);
  EXPECT_LE(sender().TcpExtTCPTimeouts, 1u);
}

TEST_F(Tampered, TheFirstTwoFins) {
  up.drop(2, &Passing::is_fin);
  EXPECT_LT(transfer(), 2s);
  EXPECT_TRUE(up.spent());
  expect_clean_end();
}

TEST_F(Tampered, TheFirstTwoFinsOfBoth) {
  up.drop(2, &Passing::is_fin);
  down.drop(2, &Passing::is_fin);
  EXPECT_LT(transfer(), 2s);
  expect_clean_end();
}

TEST_F(Tampered, AllAcksForAWhile) {
  down.drop(8, &Passing::is_pure_ack);
  EXPECT_LT(transfer(), 3s);
  expect_clean_end();
}

TEST_F(Tampered, EverySecondAck) {
  down.drop(Tamper::kAlways, [n = 0](const Passing& p) mutable { return p.is_pure_ack() && ++n % 2 == 0; });
  EXPECT_LT(transfer(), 1s);
  EXPECT_EQ(sender().TcpRetransSegs, 0u) << "ACKs are cumulative";
}

TEST_F(Tampered, AHeldAckMakesNoRetransmission) {
  down.hold(
      1, [n = 0](const Passing& p) mutable { return p.is_pure_ack() && ++n == 5; }, 300ms);
  EXPECT_LT(transfer(), 400ms);
  EXPECT_EQ(sender().TcpRetransSegs, 0u);
}

TEST_F(Tampered, AHeldSegmentIsReordering) {
  up.hold(1, data_segment(20), 2ms);
  EXPECT_LT(transfer(), 190ms);
  EXPECT_EQ(sender().TcpExtTCPTimeouts, 0u);
  expect_clean_end();
}

TEST_F(Tampered, ANeedlessRecoveryIsUndone) {
  up.hold(1, data_segment(20), 15ms);
  EXPECT_LT(transfer(), 250ms);
  EXPECT_EQ(sender().TcpExtTCPTimeouts, 0u);
  EXPECT_EQ(sender().TcpExtTCPSackRecovery, 1u);
  EXPECT_GE(sender().TcpExtTCPFullUndo + sender().TcpExtTCPDSACKUndo + sender().TcpExtTCPPartialUndo, 1u);
}

TEST_F(Tampered, ADelaySpikeIsUndone) {
  // Everything is held for longer than the time-out, and then comes in order: nothing was lost.
  Instant begin = pair.net.now() + 31ms;
  up.hold_until(begin + 300ms,
                [this, begin](const Passing& p) { return pair.net.now() >= begin && p.payload > 0; });
  EXPECT_LT(transfer(), 1s);
  pair.net.run_for(50ms);  // the ACKs are on their way back
  EXPECT_GE(sender().TcpExtTCPLossUndo + sender().TcpExtTCPFullUndo + sender().TcpExtTCPDSACKUndo +
                sender().TcpExtTCPPartialUndo,
            1u);
}

TEST_F(Tampered, CorruptedSegmentsAreLosses) {
  up.corrupt(3, data_segment(15));
  up.corrupt(1, &Passing::is_retransmission);
  EXPECT_LT(transfer(), 1s);
  EXPECT_GE(pair.server.counters().TcpInCsumErrors, 2u);
}

TEST_F(Tampered, CorruptedAcksAreLosses) {
  down.corrupt(10, &Passing::is_pure_ack);
  EXPECT_LT(transfer(), 1s);
  EXPECT_EQ(pair.client.counters().TcpInCsumErrors, 10u);
}

TEST_F(Tampered, AnOldSegmentReplayed) {
  up.replay(5, &Passing::has_data, 50ms);
  EXPECT_LT(transfer(), 250ms);
  pair.net.run_for(1s);
  EXPECT_EQ(sender().TcpExtTCPDSACKUndo, 0u) << "duplicates of the network's are no proof (RFC 3708)";
  EXPECT_EQ(sink->received(), 300'000u);
  expect_clean_end();
}

TEST_F(Tampered, AnOldAckReplayed) {
  down.replay(5, &Passing::is_pure_ack, 50ms);
  EXPECT_LT(transfer(), 250ms);
  EXPECT_EQ(sender().TcpRetransSegs, 0u);
  expect_clean_end();
}

TEST_F(Tampered, SegmentsReplayedIntoTimeWait) {
  up.replay(3, &Passing::has_data, 2s);
  up.replay(1, &Passing::is_fin, 3s);
  transfer();
  expect_clean_end();
  pair.net.run_for(5s);
  EXPECT_EQ(pair.client.counters().TcpEstabResets, 0u);
}

TEST_F(Tampered, ALoneSegmentAndItsProbe) {
  up.drop(1, &Passing::has_data);
  up.drop(1, &Passing::is_retransmission);
  Pattern pattern(1);
  source = std::make_unique<PatternSender>(pair.client, *pair.near.get(), pattern, 100, false);
  sink = std::make_unique<PatternReceiver>(pair.server, *pair.far.get(), pattern);
  EXPECT_TRUE(pair.net.run_until([&] { return sink->received() == 100; }, 1s))
      << "probe at 210 ms, time-out 210 ms later";
  EXPECT_EQ(sender().TcpExtTCPLossProbes, 1u);
  EXPECT_EQ(sender().TcpExtTCPTimeouts, 1u);
}

TEST_F(Tampered, ATailOfThree) {
  // Of 300,000 bytes in segments with timestamps the last three.
  const int segments = pair.client.address().is_v6() ? 211 : 208;
  up.drop(3, [n = 0, segments](const Passing& p) mutable {
    return p.payload > 0 && !p.retransmission && ++n > segments - 3;
  });
  EXPECT_LT(transfer(), 300ms);
  EXPECT_EQ(sender().TcpExtTCPTimeouts, 0u) << "a loss probe brings the news";
  EXPECT_GE(sender().TcpExtTCPLossProbes, 1u);
}

TEST_F(Tampered, RetransmissionsAreDroppedThreeTimes) {
  up.drop(1, data_segment(30));
  up.drop(Tamper::kAlways,
          [](const Passing& p) { return p.times_before > 0 && p.times_before < 4 && p.payload > 0; });
  EXPECT_LT(transfer(), 5s);
  expect_clean_end();
}

TEST_F(Tampered, AWindowUpdateIsLost) {
  // The reader stops, the window closes; the update that opens it never arrives.
  Pattern pattern(2'000'000);
  source = std::make_unique<PatternSender>(pair.client, *pair.near.get(), pattern, 2'000'000);
  sink = std::make_unique<PatternReceiver>(pair.server, *pair.far.get(), pattern);
  sink->paused = true;
  pair.net.run_for(2s);
  down.drop(2, &Passing::is_pure_ack);
  sink->paused = false;
  EXPECT_TRUE(pair.net.run_until([&] { return sink->at_end(); }, 20s));
  EXPECT_TRUE(sink->intact());
  expect_clean_end();
}

}  // namespace
}  // namespace ustack::test
