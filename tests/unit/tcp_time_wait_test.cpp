// TIME-WAIT: how long it lasts, what ends it early, and how a four-tuple is used again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>

#include "stack/tcp/time_wait.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::State;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class TcpTimeWait : public ::testing::Test {
 protected:
  /// Our side closes first. Leaves rcv and snd at the numbers after both FINs.
  [[nodiscard]] TestSocket enter(TcpPeer& peer, const ByteVector& options = mss_option(1460)) {
    TestSocket listener = peer.listen();
    TestSocket socket = peer.accepted(listener, options);
    ByteVector ts = options.size() > 4 ? timestamps_option(1001, 0) : ByteVector{};
    socket.close();
    peer.run();
    peer.send({.seq = 5001, .ack = peer.iss + 2, .flags = "FA", .options = ts});
    rcv = 5002;
    snd = peer.iss + 2;
    peer.take();
    EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u);
    EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u) << "only the listener";
    return listener;
  }
  uint32_t rcv = 0, snd = 0;
};

TEST_F(TcpTimeWait, LastsSixtySeconds) {
  TcpPeer peer;
  TestSocket listener = enter(peer);
  EXPECT_TRUE(peer.host().drained()) << "nobody has to wait for it";
  peer.advance(59900ms);
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u);
  peer.advance(200ms);
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 0u);
  EXPECT_EQ(peer.counters().TcpExtTW, 1u);
  listener.close();
}

TEST_F(TcpTimeWait, RepeatedFinIsAcknowledgedAndStartsItAnew) {
  TcpPeer peer;
  TestSocket listener = enter(peer);
  peer.advance(50s);
  peer.send({.seq = rcv - 1, .ack = snd, .flags = "FA"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Seq(snd), Ack(rcv))));
  peer.advance(50s);
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u);
  peer.advance(11s);
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 0u);
}

TEST_F(TcpTimeWait, RstEndsItUnlessRfc1337) {
  TcpPeer peer;
  TestSocket listener = enter(peer);
  peer.send({.seq = rcv + 5, .flags = "R"});
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u) << "not the exact number";
  peer.send({.seq = rcv, .flags = "R"});
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 0u);
  EXPECT_THAT(peer.take(), IsEmpty());
}

TEST_F(TcpTimeWait, RstIsIgnoredWithRfc1337) {
  TcpPeer::Options options;
  options.settings.tcp_rfc1337 = 1;
  TcpPeer peer(options);
  TestSocket listener = enter(peer);
  peer.send({.seq = rcv, .flags = "R"});
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u);
  EXPECT_THAT(peer.take(), IsEmpty());
}

TEST_F(TcpTimeWait, NewSynReopensByItsNumber) {
  TcpPeer peer;
  TestSocket listener = enter(peer);
  peer.send({.seq = rcv - 100, .flags = "S"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Seq(snd), Ack(rcv)))) << "an old duplicate";
  peer.send({.seq = rcv + 1000, .flags = "S"});
  auto answer = peer.take();
  ASSERT_THAT(answer, ElementsAre(Tcp(FlagsAre("SA"), Ack(rcv + 1001))));
  EXPECT_EQ(answer[0].tcp->seq, snd + 65535 + 2) << "above all numbers of the old connection";
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 0u);
  EXPECT_EQ(peer.counters().TcpExtTWRecycled, 1u);
}

TEST_F(TcpTimeWait, NewSynReopensByItsTimestamp) {
  TcpPeer peer;
  ByteVector with_ts = mss_option(1460) + timestamps_option(1000, 0);
  TestSocket listener = enter(peer, with_ts);
  // RFC 6191: a lower number, but a later timestamp.
  peer.send({.seq = rcv - 1000000, .flags = "S", .options = mss_option(1460) + timestamps_option(999, 0)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A")))) << "an older one";
  EXPECT_EQ(peer.counters().TcpExtPAWSEstab, 1u);
  peer.send({.seq = rcv - 1000000, .flags = "S", .options = mss_option(1460) + timestamps_option(1002, 0)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"))));
}

// RFC 6191, 2: the same timestamp says nothing, then the number does.
TEST_F(TcpTimeWait, NewSynOfTheSameTimestampReopensByItsNumber) {
  TcpPeer peer;
  TestSocket listener = enter(peer, mss_option(1460) + timestamps_option(1000, 0));
  ByteVector same = mss_option(1460) + timestamps_option(1001, 0);
  peer.send({.seq = rcv - 1000, .flags = "S", .options = same});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"))));
  peer.send({.seq = rcv + 1000, .flags = "S", .options = same});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"), Ack(rcv + 1001))));
}

// Here RFC 6191 would let it in; as in Linux the number alone counts where the old connection had no
// timestamps.
TEST_F(TcpTimeWait, TimestampsOfTheSynAloneSayNothing) {
  TcpPeer peer;
  TestSocket listener = enter(peer);
  peer.send({.seq = rcv - 1000, .flags = "S", .options = mss_option(1460) + timestamps_option(1000, 0)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"))));
}

TEST_F(TcpTimeWait, SynWithoutAListenerIsNotLetIn) {
  TcpPeer peer;
  TestSocket listener = enter(peer);
  listener.close();
  peer.send({.seq = rcv + 1000, .flags = "S"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Ack(rcv))));
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u);
}

TEST_F(TcpTimeWait, KeepsThePortBusy) {
  TcpPeer peer;
  TestSocket listener = enter(peer);
  listener.close();
  TestSocket plain = peer.socket();
  EXPECT_EQ(plain->bind({IpAddress::any(Family::ipv4), 80}).code(), EADDRINUSE);
  peer.advance(61s);
  EXPECT_TRUE(plain->bind({IpAddress::any(Family::ipv4), 80}).ok());
}

TEST_F(TcpTimeWait, NoMoreThanMaxTwBuckets) {
  TcpPeer::Options options;
  options.settings.tcp_max_tw_buckets = 2;
  TcpPeer peer(options);
  TestSocket listener = peer.listen();
  for (uint16_t i = 0; i < 4; ++i) {
    peer.port = static_cast<uint16_t>(1000 + i);
    TestSocket socket = peer.accepted(listener);
    socket.close();
    peer.run();
    peer.send({.seq = 5001, .ack = peer.iss + 2, .flags = "FA"});
  }
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 2u);
}

TEST_F(TcpTimeWait, OpenSocketIsClosedButItsTupleWaits) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  peer.send({.seq = 5001, .ack = peer.iss + 2, .flags = "PFA", .payload = "bye"});
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u);
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_EQ(socket.receive(), "bye") << "what came can still be read";
  EXPECT_EQ(socket->remote_address().code(), ENOTCONN);
}

struct ReuseCase {
  int setting;
  bool timestamps;
  Duration later;
  bool possible;
};
class TcpTimeWaitReuse : public ::testing::TestWithParam<ReuseCase> {};
INSTANTIATE_TEST_SUITE_P(Settings, TcpTimeWaitReuse,
                         ::testing::Values(ReuseCase{0, true, 2s, false}, ReuseCase{1, true, 2s, true},
                                           ReuseCase{1, true, 500ms, false}, ReuseCase{1, false, 2s, false},
                                           ReuseCase{2, true, 2s, false}));
// RFC 6191, section 2, for active opens; tcp_tw_reuse.
TEST_P(TcpTimeWaitReuse, ForAnActiveOpen) {
  TcpPeer::Options options;
  options.settings.tcp_tw_reuse = GetParam().setting;
  options.settings.ip_local_port_range = {40000, 40000};
  TcpPeer peer(options);
  ByteVector ts = GetParam().timestamps ? timestamps_option(1000, 0) : ByteVector{};
  TestSocket socket = peer.connected(mss_option(1460) + ts);
  socket.close();
  peer.run();
  peer.send({.seq = 5001, .ack = peer.iss + 2, .flags = "FA", .options = ts});
  uint32_t old_next = peer.iss + 2;
  ASSERT_EQ(peer.host().tcp().time_wait_count(), 1u);
  peer.advance(GetParam().later);
  TestSocket again = peer.socket();
  EXPECT_EQ(again->connect({TcpPeer::kPeer, 80}).code(), GetParam().possible ? EINPROGRESS : EADDRNOTAVAIL);
  peer.take();
  peer.run();
  if (GetParam().possible) {
    auto syn = peer.take();
    ASSERT_THAT(syn, ElementsAre(Tcp(FlagsAre("S"))));
    EXPECT_EQ(syn[0].tcp->seq, old_next + 65535 + 2);
  }
}

// The decision alone, as a table.
TEST(TimeWaitDecision, Table) {
  using tcp::TimeWaitVerdict;
  struct Case {
    const char* what;
    tcp::Flags flags;
    uint32_t seq;
    uint32_t payload;
    TimeWaitVerdict verdict;
    bool restart;
  };
  const Case cases[] = {
      {"exact ACK", {.ack = true}, 100, 0, TimeWaitVerdict::drop, true},
      {"old ACK", {.ack = true}, 90, 0, TimeWaitVerdict::acknowledge, true},
      {"FIN again", {.fin = true, .ack = true}, 99, 0, TimeWaitVerdict::acknowledge, true},
      {"exact RST", {.rst = true}, 100, 0, TimeWaitVerdict::end, false},
      {"other RST", {.rst = true}, 101, 0, TimeWaitVerdict::drop, false},
      {"new SYN", {.syn = true}, 101, 0, TimeWaitVerdict::reopen, false},
      {"SYN of the last number", {.syn = true}, 100, 0, TimeWaitVerdict::acknowledge, false},
      {"SYN-ACK", {.syn = true, .ack = true}, 101, 0, TimeWaitVerdict::acknowledge, true},
  };
  HeapArena arena;
  BlockPool blocks(arena);
  FramePool frames(arena);
  tcp::SegmentPool segments(arena);
  for (const Case& c : cases) {
    tcp::TimeWaitState state{.snd_nxt = SeqNum(7), .rcv_nxt = SeqNum(100)};
    ByteVector bytes = tcp_segment(IpAddress::v4(192, 0, 2, 1), IpAddress::v4(192, 0, 2, 2), {.seq = c.seq});
    Packet packet;
    packet.source = IpAddress::v4(192, 0, 2, 1);
    packet.destination = IpAddress::v4(192, 0, 2, 2);
    packet.checksum_trusted = true;
    packet.data.block = blocks.allocate(static_cast<uint32_t>(bytes.size()));
    std::memcpy(packet.data.block->data(), bytes.data(), bytes.size());
    packet.data.length = static_cast<uint32_t>(bytes.size());
    auto segment = segments.receive(std::move(packet));
    ASSERT_TRUE(segment.ok());
    (*segment)->flags = c.flags;
    auto answer = tcp::segment_in_time_wait(state, **segment, false, Instant{} + 1h);
    EXPECT_EQ(answer.verdict, c.verdict) << c.what;
    EXPECT_EQ(answer.restart, c.restart) << c.what;
    segments.release(*segment);
  }
}

}  // namespace
}  // namespace ustack::test
