// The sending half against a raw peer: windows, Nagle, retransmission, recovery, probes, path MTU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::State;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// A connection with an MSS of 1000 to a peer that grants much, and what the peer has seen of it.
class TcpSender : public ::testing::Test {
 protected:
  void connect(const ByteVector& more = {}, uint16_t window = 65535) {
    socket = peer->connected(mss_option(1000) + more, window);
    start = peer->iss + 1;
  }
  void restart(const TcpPeer::Options& options) {
    socket.close();
    peer = std::make_unique<TcpPeer>(options);
  }
  ~TcpSender() override { socket.close(); }
  void write(size_t bytes) {
    EXPECT_EQ(socket.send(std::string(bytes, 'd')), static_cast<int64_t>(bytes));
    peer->run();
  }
  /// An ACK of the first n bytes.
  void ack(uint32_t n, uint16_t window = 65535) {
    peer->send({.seq = 5001, .ack = start + n, .window = window});
  }
  /// What was sent, as "offset+length" in bytes of the stream, with F for a FIN.
  std::vector<std::string> sent() {
    std::vector<std::string> out;
    for (const CapturedFrame& frame : peer->take()) {
      if (!frame.tcp) continue;
      EXPECT_THAT(frame, Tcp());
      std::string text = std::to_string(static_cast<int32_t>(frame.tcp->seq - start)) + "+" +
                         std::to_string(frame.payload.size());
      if ((frame.tcp->flags & 1) != 0) text += "F";
      if ((frame.tcp->flags & 4) != 0) text += "R";
      out.push_back(text);
    }
    return out;
  }
  using Sent = std::vector<std::string>;
  const tcp::Sender& snd() { return TcpPeer::endpoint(socket).tcb().snd; }

  std::unique_ptr<TcpPeer> peer = std::make_unique<TcpPeer>();
  TestSocket socket;
  uint32_t start = 0;
};

TEST_F(TcpSender, InitialWindowIsTenSegments) {
  connect();
  write(20000);
  EXPECT_EQ(sent(), (Sent{"0+1000", "1000+1000", "2000+1000", "3000+1000", "4000+1000", "5000+1000",
                          "6000+1000", "7000+1000", "8000+1000", "9000+1000"}));
  ack(1000);  // slow start: two for one
  EXPECT_EQ(sent(), (Sent{"10000+1000", "11000+1000"}));
  ack(5000);
  EXPECT_EQ(sent().size(), 8u);
}

TEST_F(TcpSender, PushMarksTheEndOfWhatIsQueued) {
  connect();
  write(2500);
  EXPECT_THAT(peer->take(),
              ElementsAre(Tcp(FlagsAre("A")), Tcp(FlagsAre("A")), Tcp(FlagsAre("PA"), PayloadSize(500u))));
}

TEST_F(TcpSender, NagleHoldsSmallSegmentsWhileOneIsInFlight) {
  connect();
  write(10);
  EXPECT_EQ(sent(), Sent{"0+10"});
  write(10);
  write(20);
  EXPECT_EQ(sent(), Sent{});
  write(1000);
  EXPECT_EQ(sent(), Sent{"10+1000"}) << "a full one may go";
  ack(10);
  EXPECT_EQ(sent(), Sent{"1010+30"});
}

TEST_F(TcpSender, NodelaySendsAtOnce) {
  connect();
  write(10);
  write(10);
  EXPECT_EQ(sent(), Sent{"0+10"});
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_NODELAY, 1).ok());
  EXPECT_EQ(sent(), Sent{"10+10"}) << "setting it lets go what was held";
  write(10);
  EXPECT_EQ(sent(), Sent{"20+10"});
}

TEST_F(TcpSender, CorkHoldsPartialSegments) {
  connect();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_CORK, 1).ok());
  write(1500);
  EXPECT_EQ(sent(), Sent{"0+1000"});
  ack(1000);
  EXPECT_EQ(sent(), Sent{});
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_CORK, 0).ok());
  EXPECT_EQ(sent(), Sent{"1000+500"});
}

TEST_F(TcpSender, CorkGivesWayAfterTwoHundredMilliseconds) {
  connect();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_CORK, 1).ok());
  write(10);
  EXPECT_EQ(sent(), Sent{});
  peer->advance(199ms);
  EXPECT_EQ(sent(), Sent{});
  peer->advance(2ms);
  EXPECT_EQ(sent(), Sent{"0+10"});
}

TEST_F(TcpSender, MoreIsACorkForOneCall) {
  connect();
  auto room = socket->reserve_send(100);
  ASSERT_TRUE(room.ok());
  socket->commit_send(100, {.more = true});
  EXPECT_EQ(sent(), Sent{});
  write(50);
  EXPECT_EQ(sent(), Sent{"0+150"});
}

TEST_F(TcpSender, StaysInsideThePeersWindow) {
  connect({}, 2500);
  write(5000);
  EXPECT_EQ(sent(), (Sent{"0+1000", "1000+1000"})) << "no silly 500 bytes";
  ack(2000, 2500);
  EXPECT_EQ(sent(), (Sent{"2000+1000", "3000+1000"}));
  ack(4000, 0);
  EXPECT_EQ(sent(), Sent{});
}

TEST_F(TcpSender, ReorderedAckDoesNotShrinkTheWindow) {
  connect({}, 4000);
  write(10000);
  EXPECT_EQ(sent().size(), 4u);
  ack(1000, 4000);
  EXPECT_EQ(sent().size(), 1u);
  ack(1000, 3000);  // older, same numbers
  EXPECT_EQ(snd().snd_wnd, 4000u);
}

// RFC 9293, 3.8.6 (MUST-34, SHLD-15 to SHLD-17) and RFC 7323, 2.4.
TEST_F(TcpSender, PeerMayTakeWindowBack) {
  connect({}, 5000);
  write(10000);
  EXPECT_EQ(sent().size(), 5u);
  ack(1000, 1000);  // its right edge moves from 5000 to 2000
  EXPECT_EQ(sent(), Sent{}) << "nothing new";
  peer->advance(250ms);
  EXPECT_EQ(sent(), Sent{"1000+1000"}) << "what is inside is sent again";
  ack(2000, 0);
  // An hour with a shut window: as long as the peer answers, the connection stays.
  for (int i = 0; i < 60; ++i) {
    peer->advance(60s);
    ack(2000, 0);
  }
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  for (const std::string& segment : sent()) EXPECT_LE(std::stoul(segment), 2000u) << segment;
  ack(2000, 60000);
  for (uint32_t n = 3000; n <= 10000; n += 1000) {
    peer->advance(10ms);
    ack(n, 60000);
  }
  EXPECT_EQ(*socket->ioctl_value(SIOCOUTQ), 0) << "what lay beyond was sent again where the window opened";
  EXPECT_EQ(snd().snd_nxt.value(), start + 10000);
}

TEST_F(TcpSender, ZeroWindowIsProbedWithBackOff) {
  connect({}, 1000);
  write(3000);
  EXPECT_EQ(sent(), Sent{"0+1000"});
  ack(1000, 0);
  Instant closed = peer->now();
  std::vector<int64_t> probed_at;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(peer->advance_until_sent(10s));
    EXPECT_EQ(sent(), Sent{"999+0"}) << "a number that was acknowledged";
    probed_at.push_back((peer->now() - closed) / 100ms);
    ack(1000, 0);
  }
  EXPECT_EQ(probed_at, (std::vector<int64_t>{2, 6, 14, 30, 62}));
  ack(1000, 1000);
  EXPECT_EQ(sent(), Sent{"1000+1000"});
  EXPECT_EQ(peer->counters().TcpExtTCPWinProbe, 5u);
}

TEST_F(TcpSender, SillyWindowIsUsedWhenNothingElseMoves) {
  connect({}, 1000);
  write(3000);
  ack(1000, 300);  // less than half of the largest window
  EXPECT_EQ(sent(), Sent{"0+1000"});
  peer->advance(250ms);
  EXPECT_EQ(sent(), Sent{"1000+300"}) << "RFC 9293, 3.8.6.2.1: the override time-out";
}

TEST_F(TcpSender, RetransmissionTimerDoubles) {
  connect();
  write(500);
  EXPECT_EQ(sent(), Sent{"0+500"});
  Instant begin = peer->now();
  std::vector<int64_t> at;
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(peer->advance_until_sent(100s));
    EXPECT_EQ(sent(), Sent{"0+500"});
    at.push_back((peer->now() - begin) / 100ms);
  }
  EXPECT_EQ(at, (std::vector<int64_t>{2, 6, 14, 30, 62, 126}));
  EXPECT_EQ(peer->counters().TcpRetransSegs, 6u);
  EXPECT_EQ(snd().cwnd(), 1000u) << "the loss window";
  ack(500);
  EXPECT_EQ(snd().rto_deadline, kNever);
}

TEST_F(TcpSender, ThinStreamsTimeOutsAreLinearSixTimes) {
  connect();
  constexpr int kThinLinearTimeouts = 16;
  ASSERT_TRUE(socket.set(IPPROTO_TCP, kThinLinearTimeouts, 1).ok());
  write(500);
  EXPECT_EQ(sent(), Sent{"0+500"});
  Instant begin = peer->now();
  std::vector<int64_t> at;
  for (int i = 0; i < 9; ++i) {
    ASSERT_TRUE(peer->advance_until_sent(100s));
    EXPECT_EQ(sent(), Sent{"0+500"});
    at.push_back((peer->now() - begin) / 100ms);
  }
  EXPECT_EQ(at, (std::vector<int64_t>{2, 4, 6, 8, 10, 12, 14, 18, 26}));
}

TEST_F(TcpSender, GivesUpByRetries2) {
  TcpPeer::Options options;
  options.settings.tcp_retries2 = 3;
  restart(options);
  connect();
  write(500);
  Instant begin = peer->now();
  while (TcpPeer::state(socket) != State::closed) {
    peer->take();
    if (!peer->advance_until_sent(100s)) peer->advance(1s);
    ASSERT_LT(peer->now() - begin, 100s);
  }
  // 200 ms doubled: 3 s hypothetically; the first time-out past that is at 6.2 s.
  EXPECT_NEAR(static_cast<double>((peer->now() - begin) / 1ms), 6200, 1100);
  int code = 0;
  socket.receive(1, &code);
  EXPECT_EQ(code, ETIMEDOUT);
  EXPECT_EQ(peer->counters().TcpExtTCPAbortOnTimeout, 1u);
}

TEST_F(TcpSender, UserTimeoutEndsItSooner) {
  connect();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_USER_TIMEOUT, 1000).ok());
  write(500);
  Instant begin = peer->now();
  while (TcpPeer::state(socket) != State::closed && peer->now() - begin < 10s) peer->advance(10ms);
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_GE(peer->now() - begin, 1s);
  EXPECT_LT(peer->now() - begin, 2s) << "at the first time-out behind it";
  int code = 0;
  socket.receive(1, &code);
  EXPECT_EQ(code, ETIMEDOUT);
  EXPECT_LT(sent().size(), 6u);
}

TEST_F(TcpSender, SoftErrorIsWhatTheTimeoutTells) {
  connect();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_USER_TIMEOUT, 1000).ok());
  write(500);
  peer->send_icmp(3, 1, 0, start);
  EXPECT_EQ(TcpPeer::state(socket), State::established) << "RFC 1122, 4.2.3.9: only a hint";
  EXPECT_EQ(socket->readiness() & ready::kErr, 0u);
  peer->advance(10s);
  int code = 0;
  socket.receive(1, &code);
  EXPECT_EQ(code, EHOSTUNREACH);
}

// RFC 9293, 3.9.2.2 (MUST-56); RFC 5461 for what RFC 1122 calls hard (SHLD-26): Linux ends no connection by
// them.
TEST_F(TcpSender, NoIcmpErrorEndsAConnection) {
  connect();
  write(500);
  for (uint8_t code = 0; code <= 15; ++code)
    if (code != 4) peer->send_icmp(3, code, 0, start);
  for (uint8_t type : {uint8_t{4}, uint8_t{11}, uint8_t{12}})
    for (uint8_t code : {uint8_t{0}, uint8_t{1}}) peer->send_icmp(type, code, 0, start);
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  EXPECT_EQ(socket->readiness() & ready::kErr, 0u);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), EPROTO) << "the last one, for who asks";
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), 0);
  ack(500);
  write(1);
  EXPECT_EQ(sent(), (Sent{"0+500", "500+1"}));
}

// ip(7), IP_RECVERR (MUST-47, SHLD-20): who asks for them is told at once.
TEST_F(TcpSender, IcmpErrorsCanBeAskedFor) {
  connect();
  ASSERT_TRUE(socket.set(IPPROTO_IP, IP_RECVERR, 1).ok());
  write(500);
  peer->send_icmp(3, 1, 0, start);
  EXPECT_NE(socket->readiness() & ready::kErr, 0u);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), EHOSTUNREACH);
  EXPECT_EQ(TcpPeer::state(socket), State::established);
}

// RFC 6069: a router that can't reach the peer takes a back-off back; then the connection is there as soon as
// the network is.
TEST_F(TcpSender, UnreachableNetworkDoesNotBackOff) {
  connect();
  write(500);
  peer->send_icmp(3, 1, 0, start);
  sent();
  Instant begin = peer->now();
  std::vector<int64_t> at;
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(peer->advance_until_sent(100s));
    EXPECT_EQ(sent(), Sent{"0+500"});
    at.push_back((peer->now() - begin) / 100ms);
    peer->advance(10ms);
    // Not of what the timer has sent again; not of the network.
    peer->send_icmp(3, 1, 0, start + 400);
    peer->send_icmp(3, 13, 0, start);
    if (i < 5) peer->send_icmp(3, i % 2 == 0 ? 0 : 1, 0, start);
  }
  EXPECT_EQ(at, (std::vector<int64_t>{2, 4, 6, 8, 10, 12, 16, 24}));
}

TEST_F(TcpSender, NoSampleFromWhatWasSentTwice) {
  connect();
  ack(0);
  Duration srtt = snd().rtt.srtt();
  write(500);
  peer->advance(300ms);
  EXPECT_EQ(sent(), (Sent{"0+500", "0+500"}));
  ack(500);
  EXPECT_EQ(snd().rtt.srtt(), srtt) << "Karn";
  EXPECT_EQ(snd().rtt.back_off_count(), 1u) << "and the back-off stays until there is one";
  write(500);
  peer->advance(100ms);
  ack(1000);
  EXPECT_GT(snd().rtt.srtt(), srtt);
  EXPECT_EQ(snd().rtt.back_off_count(), 0u);
}

TEST_F(TcpSender, TimestampsMeasureWhatWasSentTwice) {
  connect(timestamps_option(100, 0));
  write(500);
  peer->advance(300ms);
  auto frames = peer->take();
  ASSERT_EQ(frames.size(), 2u);
  peer->advance(50ms);
  Duration before = snd().rtt.srtt();
  peer->send(
      {.seq = 5001, .ack = start + 500, .options = timestamps_option(101, frames[1].tcp->timestamps->first)});
  EXPECT_NEAR(static_cast<double>(snd().rtt.latest() / 1ms), 150, 2);
  EXPECT_NE(snd().rtt.srtt(), before);
}

TEST_F(TcpSender, ThreeDuplicateAcksRetransmit) {
  connect();
  write(10000);
  sent();
  ack(0);
  ack(0);
  EXPECT_EQ(sent(), Sent{}) << "nothing new to send by limited transmit";
  ack(0);
  EXPECT_EQ(sent(), Sent{"0+1000"});
  EXPECT_EQ(snd().congestion_state(), tcp::CongestionState::recovery);
  EXPECT_EQ(snd().congestion->ssthresh(), 7000u) << "CUBIC's beta";
  EXPECT_EQ(peer->counters().TcpExtTCPFastRetrans, 1u);
  ack(10000);
  EXPECT_EQ(snd().congestion_state(), tcp::CongestionState::open);
  EXPECT_EQ(snd().cwnd(), 7000u);
}

TEST_F(TcpSender, LimitedTransmit) {
  connect();
  write(20000);
  EXPECT_EQ(sent().size(), 10u);
  ack(0);  // RFC 3042: each of the first two lets a new segment go
  EXPECT_EQ(sent(), Sent{"10000+1000"});
  ack(0);
  EXPECT_EQ(sent(), Sent{"11000+1000"});
  ack(0);
  EXPECT_EQ(sent(), Sent{"0+1000"});
}

// RFC 6582, 3.2, step 4.
TEST_F(TcpSender, PartialAckRepairsTheNextHole) {
  connect();
  write(10000);
  sent();
  for (int i = 0; i < 6; ++i) ack(0);  // 0 and 3000 are lost
  EXPECT_EQ(sent(), Sent{"0+1000"});
  ack(3000);
  EXPECT_EQ(sent(), Sent{"3000+1000"}) << "at once, without three more";
  EXPECT_EQ(snd().congestion_state(), tcp::CongestionState::recovery);
  ack(10000);
  EXPECT_EQ(snd().congestion_state(), tcp::CongestionState::open);
}

TEST_F(TcpSender, DuplicatesOfOwnRetransmissionsStartNothing) {
  connect();
  write(10000);
  sent();
  peer->advance(250ms);  // a time-out
  EXPECT_EQ(sent(), Sent{"0+1000"});
  ack(10000);
  EXPECT_EQ(snd().congestion_state(), tcp::CongestionState::open);
  write(4000);
  sent();
  ack(10000);
  ack(10000);
  ack(10000);
  EXPECT_EQ(snd().congestion_state(), tcp::CongestionState::disorder)
      << "RFC 6582, step 2: SND.UNA is not past recover";
}

TEST_F(TcpSender, TimeoutSendsAllAgainInSlowStart) {
  connect();
  write(6000);
  sent();
  peer->advance(210ms);
  EXPECT_EQ(sent(), Sent{"0+1000"});
  ack(1000);
  EXPECT_EQ(sent(), (Sent{"1000+1000", "2000+1000"}));
  ack(3000);
  EXPECT_EQ(sent(), (Sent{"3000+1000", "4000+1000", "5000+1000"}));
  ack(6000);
  EXPECT_EQ(snd().congestion_state(), tcp::CongestionState::open);
}

TEST_F(TcpSender, FinGoesWithTheLastSegmentAndIsRetransmitted) {
  connect();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_CORK, 1).ok());
  write(500);
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  EXPECT_EQ(sent(), Sent{"0+500F"});
  peer->advance(250ms);
  EXPECT_EQ(sent(), Sent{"0+500F"});
  ack(500);
  EXPECT_EQ(sent(), Sent{}) << "the FIN is still in flight";
  peer->advance(500ms);
  EXPECT_EQ(sent(), Sent{"500+0F"});
  ack(501);
  EXPECT_EQ(TcpPeer::state(socket), State::fin_wait_2);
}

TEST_F(TcpSender, FinWaitsForTheWindow) {
  connect({}, 1000);
  write(1000);
  EXPECT_EQ(sent(), Sent{"0+1000"});
  ack(1000, 0);
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  EXPECT_EQ(sent(), Sent{});
  ack(1000, 10);
  EXPECT_EQ(sent(), Sent{"1000+0F"});
}

TEST_F(TcpSender, IdleConnectionStartsFromTheRestartWindow) {
  connect();
  write(30000);
  for (uint32_t n = 1000; n <= 30000; n += 1000) ack(n);
  sent();
  uint32_t large = snd().cwnd();
  EXPECT_GT(large, 30000u);
  peer->advance(10s);
  write(40000);
  EXPECT_EQ(sent().size(), 10u) << "RFC 5681, 4.1";
}

TEST_F(TcpSender, FragmentationNeededMakesSegmentsSmaller) {
  connect();
  write(3000);
  EXPECT_EQ(sent(), (Sent{"0+1000", "1000+1000", "2000+1000"}));
  peer->send_icmp(3, 4, 640, start + 5000);
  EXPECT_EQ(peer->counters().TcpExtOutOfWindowIcmps, 1u) << "not about what is in flight: an attack";
  EXPECT_EQ(snd().mss(), 1000u);
  peer->send_icmp(3, 4, 640, start);
  EXPECT_EQ(snd().mss(), 600u);
  EXPECT_EQ(sent()[0], "0+600") << "sent again at once";
  for (uint32_t i = 1; i <= 5; ++i) ack(600 * i);
  sent();
  EXPECT_EQ(snd().snd_una.value(), start + 3000);
  write(1200);
  EXPECT_EQ(sent(), (Sent{"3000+600", "3600+600"}));
  EXPECT_GE(snd().cwnd(), 6000u) << "no congestion";
}

TEST_F(TcpSender, SuperframesOnALinkThatCutsThem) {
  TcpPeer::Options options;
  options.link = superframe_link();
  restart(options);
  connect();
  write(10000);
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(PartialChecksum(), SegmentSize(1000), PayloadSize(10000u))));
  EXPECT_EQ(peer->counters().TcpOutSegs, 2u + 10);
  ack(10000);
  write(15500);
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(PayloadSize(15500u), FlagsAre("PA"))));
  // A lost superframe is repaired by segments of what is missing.
  ack(13000);
  for (int i = 0; i < 3; ++i) ack(13000);
  EXPECT_EQ(sent(), Sent{"13000+1000"});
}

TEST_F(TcpSender, NagleAppliesToTheEndOfASuperframe) {
  TcpPeer::Options options;
  options.link = superframe_link();
  restart(options);
  connect();
  write(10);
  write(5500);
  EXPECT_EQ(sent(), (Sent{"0+10", "10+5000"}));
  ack(10);
  EXPECT_EQ(sent(), Sent{"5010+500"});
}

/// A program that has sent more than a mebibyte to a peer that says nothing, and 8000 bytes that are under
/// way.
class TcpStream : public TcpSender {
 protected:
  TcpStream() {
    TcpPeer::Options options;
    options.link = superframe_link();
    options.link.max_superframe = 40 + 10 * 1000;
    restart(options);
    connect();
    EXPECT_TRUE(socket.set(SOL_SOCKET, SO_SNDBUF, 100'000).ok());
    for (; offset < 1 << 20; ack(offset)) more(10'000);
    more(8000);
    sent();
  }
  void more(uint32_t bytes) {
    write(bytes);
    offset += bytes;
  }
  static std::string piece(uint32_t at, uint32_t length) {
    return std::to_string(at) + "+" + std::to_string(length);
  }
  uint32_t offset = 0;
};

TEST_F(TcpStream, GathersASuperframeWhileSomethingIsUnderWay) {
  uint32_t at = offset;
  more(2000);
  more(3500);
  EXPECT_THAT(sent(), IsEmpty());
  ack(at);
  EXPECT_EQ(sent(), Sent{piece(at, 5500)});
}

TEST_F(TcpStream, GathersForAMillisecondAtMost) {
  uint32_t at = offset;
  more(2000);
  peer->advance(500us);
  EXPECT_THAT(sent(), IsEmpty());
  peer->advance(1ms);
  EXPECT_EQ(sent(), Sent{piece(at, 2000)});
}

TEST_F(TcpStream, AFullSuperframeDoesNotWait) {
  uint32_t at = offset;
  more(9000);
  EXPECT_THAT(sent(), IsEmpty());
  more(1500);
  EXPECT_EQ(sent(), Sent{piece(at, 10'000)}) << "the rest waits";
}

TEST_F(TcpStream, WhatIsToGoAtOnceDoes) {
  uint32_t at = offset;
  more(2000);
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_NODELAY, 1).ok());
  peer->run();
  EXPECT_EQ(sent(), Sent{piece(at, 2000)}) << "TCP_NODELAY";
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_NODELAY, 0).ok());
  at = offset;
  more(2000);
  EXPECT_THAT(sent(), IsEmpty());
  ASSERT_TRUE(socket.get()->shutdown(ShutdownHow::write).ok());
  peer->run();
  EXPECT_EQ(sent(), Sent{piece(at, 2000) + "F"}) << "the last of it";
}

TEST_F(TcpStream, UrgentDataTakesWithItWhatWaits) {
  uint32_t at = offset;
  more(2000);
  EXPECT_THAT(sent(), IsEmpty());
  ASSERT_TRUE(socket->reserve_send(1).ok());
  socket->commit_send(1, {.out_of_band = true});
  peer->run();
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(FlagsAre("PAU"), Seq(start + at), PayloadSize(2001u))));
}

TEST_F(TcpStream, APacedOneGoesAtItsRate) {
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_MAX_PACING_RATE, 1'000'000'000).ok());
  uint32_t at = offset;
  more(2000);
  peer->advance(100us);
  EXPECT_EQ(sent(), Sent{piece(at, 2000)}) << "long before the millisecond is over";
}

TEST_F(TcpStream, AnAnswerDoesNotWait) {
  uint32_t at = offset;
  peer->send({.seq = 5001, .ack = start + at - 8000, .payload = "a question"});
  sent();
  more(2000);
  EXPECT_EQ(sent(), Sent{piece(at, 2000)});
}

TEST_F(TcpStream, NoWaitWhereTheBufferIsTheLimit) {
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_SNDBUF, 10'000).ok());
  uint32_t at = offset;
  int64_t taken = socket.send(std::string(30'000, 'd'));
  ASSERT_GT(taken, 0);
  ASSERT_LT(taken, 30'000);
  peer->run();
  std::vector<std::string> went = sent();
  ASSERT_THAT(went, ::testing::Not(IsEmpty()));
  EXPECT_EQ(went.back().substr(0, went.back().find('+')), std::to_string(at + 10'000))
      << "less than a superframe";
}

TEST_F(TcpSender, KeepaliveProbesAndGivesUp) {
  connect();
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_KEEPALIVE, 1).ok());
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_KEEPIDLE, 10).ok());
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_KEEPINTVL, 2).ok());
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_KEEPCNT, 3).ok());
  Instant begin = peer->now();
  ASSERT_TRUE(peer->advance_until_sent(20s));
  EXPECT_EQ((peer->now() - begin) / 1s, 10);
  EXPECT_EQ(sent(), Sent{"-1+0"});
  ack(0);
  ASSERT_TRUE(peer->advance_until_sent(20s));
  EXPECT_EQ((peer->now() - begin) / 1s, 20) << "an answer starts it anew";
  EXPECT_EQ(sent(), Sent{"-1+0"});
  peer->advance(5s);
  EXPECT_EQ(sent(), (Sent{"-1+0", "-1+0"}));
  peer->advance(2s);
  EXPECT_EQ(sent(), Sent{"0+0R"});
  int code = 0;
  socket.receive(1, &code);
  EXPECT_EQ(code, ETIMEDOUT);
  EXPECT_EQ(peer->counters().TcpExtTCPKeepAlive, 4u);
}

TEST_F(TcpSender, KeepaliveOffSendsNothing) {
  connect();
  peer->advance(std::chrono::hours(3));
  EXPECT_EQ(sent(), Sent{});
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_KEEPALIVE, 1).ok());
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_KEEPALIVE, 0).ok());
  peer->advance(std::chrono::hours(3));
  EXPECT_EQ(sent(), Sent{});
}

TEST_F(TcpSender, UrgentPointerPointsBehindTheByte) {
  connect();
  auto room = socket->reserve_send(3);
  ASSERT_TRUE(room.ok());
  socket->commit_send(3, {.out_of_band = true});
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(FlagsAre("PAU"), UrgentPointer(3), PayloadSize(3u))));
  ack(3);
  write(1);
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(FlagsAre("PA"))));
}

TEST_F(TcpSender, NotSentLowWaterLimitsWhatWaits) {
  connect({}, 1000);
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 2000).ok());
  write(1000);
  EXPECT_TRUE(socket.writable());
  write(2000);
  EXPECT_FALSE(socket.writable());
  EXPECT_EQ(socket.send("x"), -EAGAIN);
  ack(1000, 5000);
  EXPECT_TRUE(socket.writable());
}

TEST_F(TcpSender, WritersAreWokenWhenAThirdIsFree) {
  connect();
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_SNDBUF, 16384).ok());
  while (socket.send(std::string(1000, 'x')) > 0) {
  }
  EXPECT_FALSE(socket.writable());
  uint32_t woken = 0;
  WaitEntry entry(
      [](WaitEntry& e, uint32_t events) {
        *static_cast<uint32_t*>(e.context()) |= events;
        return true;
      },
      &woken);
  entry.interest = ready::kOut;
  socket->waiters.add(entry);
  uint32_t acked = 0;
  while (!socket.writable()) ack(acked += 1000);
  EXPECT_NE(woken & ready::kOut, 0u);
  EXPECT_GT(acked, 5000u);
}

TEST_F(TcpSender, SendingNothingIsNoError) {
  connect();
  auto room = socket->reserve_send(0);
  ASSERT_TRUE(room.ok());
  EXPECT_EQ(room->bytes, 0u);
  socket->commit_send(0, {});
  EXPECT_EQ(sent(), Sent{});
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  EXPECT_EQ(socket->reserve_send(0).code(), EPIPE);
}

TEST_F(TcpSender, ReservationIsExclusive) {
  connect();
  auto room = socket->reserve_send(10);
  ASSERT_TRUE(room.ok());
  EXPECT_EQ(socket->reserve_send(10).code(), EAGAIN);
  uint32_t woken = 0;
  WaitEntry entry(
      [](WaitEntry& e, uint32_t events) {
        *static_cast<uint32_t*>(e.context()) |= events;
        return true;
      },
      &woken);
  entry.interest = ready::kOut;
  socket->waiters.add(entry);
  socket->commit_send(0, {});
  EXPECT_NE(woken & ready::kOut, 0u) << "waiters are told when it ends";
  EXPECT_EQ(sent(), Sent{});
}

}  // namespace
}  // namespace ustack::test
