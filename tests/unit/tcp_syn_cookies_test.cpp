// SYN cookies (RFC 4987): a listener under a flood keeps nothing, and loses nothing that the peer brings
// back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "stack/tcp/syn_cookies.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::CookieOptions;
using tcp::State;
using tcp::SynCookies;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;

const ConnectionId kId{{TcpPeer::kHost, 80}, {TcpPeer::kPeer, 1000}};

TEST(SynCookies, MssIsRoundedDownToTheTable) {
  SeededRandom random(1);
  SynCookies cookies(random);
  Instant now{1h};
  struct {
    uint16_t offered, kept;
  } const cases[] = {{100, 536},   {536, 536},   {1299, 536},  {1300, 1300},
                     {1439, 1300}, {1440, 1440}, {1460, 1460}, {9000, 1460}};
  for (auto [offered, kept] : cases) {
    SeqNum cookie = cookies.make(kId, SeqNum(5000), offered, now);
    EXPECT_THAT(cookies.check(kId, SeqNum(5000), cookie, now), Optional(kept)) << offered;
  }
}

TEST(SynCookies, AgeAndForgeryAreSeen) {
  SeededRandom random(1);
  SynCookies cookies(random);
  // A whole minute, so that it is clear when the next one begins; many, so that the count's eight bits wrap.
  for (Instant made = Instant(59min); made < Instant(59min + 600min); made += 37min) {
    SeqNum cookie = cookies.make(kId, SeqNum(5000), 1460, made);
    EXPECT_TRUE(cookies.check(kId, SeqNum(5000), cookie, made + 119s));
    EXPECT_FALSE(cookies.check(kId, SeqNum(5000), cookie, made + 120s));
    EXPECT_FALSE(cookies.check(kId, SeqNum(5000), cookie, made - 1s)) << "from the future";
    EXPECT_FALSE(cookies.check(kId, SeqNum(5010), cookie, made));
    ConnectionId other = kId;
    ++other.remote.port;
    EXPECT_FALSE(cookies.check(other, SeqNum(5000), cookie, made));
  }
  int guessed = 0;
  for (uint32_t i = 0; i < 100000; ++i)
    guessed += cookies.check(kId, SeqNum(5000), SeqNum(random.u32()), Instant(59min)).has_value();
  EXPECT_LE(guessed, 1) << "four of 2^24 numbers for two of 256 minutes";
}

TEST(SynCookies, TimestampCarriesTheOptions) {
  for (int8_t scale = -1; scale <= 14; ++scale) {
    for (bool sack : {false, true}) {
      CookieOptions options{.window_scale = scale, .sack_permitted = sack, .ecn = !sack};
      for (uint32_t clock : {0u, 1u, 63u, 64u, 1000000007u, 0xffffffffu}) {
        uint32_t stamp = encode_cookie_timestamp(clock, options);
        EXPECT_EQ(tcp::decode_cookie_timestamp(stamp), options);
        EXPECT_LT(clock - stamp, 128u) << "not ahead of the clock, and not far behind it";
      }
    }
  }
}

/// A listener whose SYN queue of four is full.
class Flooded : public ::testing::Test {
 protected:
  static TcpPeer::Options options(int32_t mode) {
    TcpPeer::Options options;
    options.settings.tcp_max_syn_backlog = 4;
    options.settings.tcp_syncookies = mode;
    return options;
  }
  void flood(TcpPeer& peer) {
    peer.host_port = 80;
    for (uint16_t port = 1; port <= 4; ++port) {
      peer.port = port;
      peer.send({.seq = 1, .flags = "S"});
    }
    peer.take();
    peer.port = 2000;
  }
  /// The SYN-ACK to a SYN with these options.
  CapturedFrame syn(TcpPeer& peer, const ByteVector& syn_options) {
    peer.send({.seq = 5000, .flags = "S", .options = syn_options});
    auto sent = peer.take();
    if (sent.size() != 1) ADD_FAILURE() << sent.size() << " answers to a SYN";
    return sent.empty() ? CapturedFrame{} : sent[0];
  }
};

TEST_F(Flooded, CookieKeepsNothing) {
  TcpPeer peer(options(1));
  TestSocket listener = peer.listen(100);
  flood(peer);
  uint64_t endpoints = peer.host().tcp().endpoint_count();
  uint32_t stacks = peer.host().scheduler().stacks_in_use();
  for (uint16_t port = 2000; port < 2100; ++port) {
    peer.port = port;
    EXPECT_THAT(syn(peer, mss_option(1460)), Tcp(FlagsAre("SA"), Ack(5001u), Mss(1460)));
  }
  EXPECT_EQ(peer.host().tcp().endpoint_count(), endpoints);
  EXPECT_EQ(peer.host().scheduler().stacks_in_use(), stacks);
  EXPECT_EQ(peer.counters().TcpExtSyncookiesSent, 100u);
  EXPECT_EQ(peer.counters().TcpExtTCPReqQFullDoCookies, 100u);
  EXPECT_EQ(peer.counters().TcpExtListenDrops, 0u);
}

TEST_F(Flooded, TimestampBringsAllOptionsBack) {
  TcpPeer peer(options(1));
  TestSocket listener = peer.listen(100);
  flood(peer);
  CapturedFrame answer = syn(
      peer, mss_option(1400) + sack_permitted_option() + timestamps_option(700, 0) + window_scale_option(5));
  EXPECT_THAT(answer, Tcp(OptionKinds(ElementsAre(2, 4, 8, 1, 3)), WindowScale(10)));
  peer.advance(300ms);
  peer.take();
  // Its request comes with the ACK.
  peer.send({.seq = 5001,
             .ack = answer.tcp->seq + 1,
             .flags = "PA",
             .payload = "hello",
             .window = 1000,
             .options = timestamps_option(800, answer.tcp->timestamps->first)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Ack(5006u), TimestampsAre(::testing::_, 800u))));
  TestSocket socket = listener.accept();
  ASSERT_TRUE(socket);
  EXPECT_EQ(socket.receive(), "hello");
  const tcp::Tcb& tcb = TcpPeer::endpoint(socket).tcb();
  EXPECT_EQ(tcb.state, State::established);
  EXPECT_TRUE(tcb.sack && tcb.timestamps && tcb.window_scaling);
  EXPECT_EQ(tcb.snd.snd_wscale, 5);
  EXPECT_EQ(tcb.snd.snd_wnd, 32000u);
  EXPECT_EQ(tcb.rcv.rcv_wscale, 10) << "as the SYN-ACK has said";
  EXPECT_EQ(tcb.snd.mss(), 1300u - 12) << "rounded down";
  EXPECT_EQ(peer.counters().TcpExtSyncookiesRecv, 1u);
  EXPECT_EQ(peer.counters().TcpPassiveOpens, 1u);
  socket.send("world");
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(Seq(answer.tcp->seq + 1), Payload("world"))));
}

TEST_F(Flooded, WithoutTimestampsOnlyTheMssComesBack) {
  TcpPeer peer(options(1));
  TestSocket listener = peer.listen(100);
  flood(peer);
  CapturedFrame answer = syn(peer, mss_option(1460) + sack_permitted_option() + window_scale_option(5));
  EXPECT_THAT(answer, Tcp(OptionKinds(ElementsAre(2)))) << "nothing that would be forgotten is offered";
  peer.send({.seq = 5001, .ack = answer.tcp->seq + 1, .window = 1000});
  TestSocket socket = listener.accept();
  ASSERT_TRUE(socket);
  const tcp::Tcb& tcb = TcpPeer::endpoint(socket).tcb();
  EXPECT_FALSE(tcb.sack || tcb.timestamps || tcb.window_scaling);
  EXPECT_EQ(tcb.snd.snd_wnd, 1000u);
  EXPECT_EQ(tcb.snd.mss(), 1460u);
}

TEST_F(Flooded, WrongCookieIsReset) {
  TcpPeer peer(options(1));
  TestSocket listener = peer.listen(100);
  flood(peer);
  CapturedFrame answer = syn(peer, mss_option(1460));
  peer.send({.seq = 5001, .ack = answer.tcp->seq + 2});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(answer.tcp->seq + 2))));
  EXPECT_EQ(peer.counters().TcpExtSyncookiesFailed, 1u);
  peer.advance(150s);
  peer.take();
  peer.send({.seq = 5001, .ack = answer.tcp->seq + 1});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R")))) << "too old, and the flood is over";
  EXPECT_FALSE(listener.acceptable());
}

TEST_F(Flooded, WithoutAFloodNoCookieIsTaken) {
  TcpPeer peer(options(1));
  TestSocket listener = peer.listen(100);
  peer.host_port = 80;
  peer.send({.seq = 5001, .ack = 77});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(77u))));
  EXPECT_EQ(peer.counters().TcpExtSyncookiesFailed, 0u) << "it was not even looked at";
}

TEST_F(Flooded, Mode0DropsAndMode2AlwaysSendsThem) {
  TcpPeer none(options(0));
  TestSocket listener = none.listen(100);
  flood(none);
  none.send({.seq = 5000, .flags = "S"});
  EXPECT_THAT(none.take(), IsEmpty());
  EXPECT_EQ(none.counters().TcpExtTCPReqQFullDrop, 1u);
  EXPECT_EQ(none.counters().TcpExtSyncookiesSent, 0u);

  TcpPeer always(options(2));
  TestSocket other = always.listen(100);
  TestSocket socket = always.accepted(other);
  EXPECT_TRUE(socket);
  EXPECT_EQ(always.counters().TcpExtSyncookiesSent, 1u);
  EXPECT_EQ(always.counters().TcpExtSyncookiesRecv, 1u);
}

TEST_F(Flooded, FullAcceptQueueDropsTheCookiesAck) {
  TcpPeer peer(options(2));
  TestSocket listener = peer.listen(0);
  CapturedFrame first, second;
  peer.host_port = 80;
  for (CapturedFrame* answer : {&first, &second}) {
    ++peer.port;
    *answer = syn(peer, mss_option(1460));
  }
  --peer.port;
  peer.send({.seq = 5001, .ack = first.tcp->seq + 1});
  ++peer.port;
  peer.send({.seq = 5001, .ack = second.tcp->seq + 1});
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(peer.counters().TcpExtListenOverflows, 1u);
  EXPECT_TRUE(listener.accept());
  EXPECT_FALSE(listener.accept());
  // It comes again with the peer's data, and now there is room.
  peer.send({.seq = 5001, .ack = second.tcp->seq + 1, .flags = "PA", .payload = "x"});
  TestSocket socket = listener.accept();
  ASSERT_TRUE(socket);
  EXPECT_EQ(socket.receive(), "x");
}

// --- limits by the second ---

TEST(TcpFloods, ResetsAreLimited) {
  TcpPeer::Options options;
  options.settings.tcp_reset_limit = 3;
  TcpPeer peer(options);
  peer.host_port = 81;
  for (int i = 0; i < 10; ++i) peer.send({.seq = 1, .flags = "S"});
  EXPECT_EQ(peer.take().size(), 3u);
  EXPECT_EQ(peer.counters().UstackTcpResetsSuppressed, 7u);
  peer.advance(1s);
  peer.send({.seq = 1, .flags = "S"});
  EXPECT_EQ(peer.take().size(), 1u);
}

TEST(TcpFloods, ChallengeAcksAreLimitedByConnection) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  for (int i = 0; i < 10; ++i) peer.send({.seq = 5002, .flags = "S"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"))));
  EXPECT_EQ(peer.counters().TcpExtTCPChallengeACK, 1u);
  EXPECT_EQ(peer.counters().TcpExtTCPACKSkippedChallenge, 9u);
  peer.advance(500ms);
  peer.send({.seq = 5002, .flags = "S"});
  EXPECT_EQ(peer.take().size(), 1u);
}

TEST(TcpFloods, ChallengeAcksAreLimitedByHostUnpredictably) {
  TcpPeer::Options options;
  options.settings.tcp_challenge_ack_limit = 20;
  options.settings.tcp_invalid_ratelimit = 0;
  TcpPeer peer(options);
  TestSocket socket = peer.connected();
  std::vector<size_t> sent;
  for (int second = 0; second < 8; ++second) {
    for (int i = 0; i < 50; ++i) peer.send({.seq = 5002, .flags = "S"});
    sent.push_back(peer.take().size());
    peer.advance(1s);
    peer.take();
  }
  for (size_t n : sent) {
    EXPECT_GE(n, 10u);
    EXPECT_LT(n, 30u);
  }
  EXPECT_THAT(sent, ::testing::Contains(::testing::Ne(sent[0]))) << "nobody can count what others have had";
}

// Segments of one byte far from each other, as many as the window takes: memory and ranges stay bounded.
TEST(TcpFloods, OutOfOrderCrumbsAreBounded) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  for (uint32_t at = 1; at < 60000; at += 7)
    peer.send({.seq = 5001 + at, .ack = peer.iss + 1, .flags = "PA", .payload = "x"});
  peer.take();
  tcp::Receiver& rcv = TcpPeer::endpoint(socket).tcb().rcv;
  EXPECT_LE(rcv.reassembly().range_count(), 1024u);
  EXPECT_LE(rcv.true_size(), rcv.limit + 4096) << "a block more at most";
  // From behind: what comes earlier in the stream pushes later crumbs out.
  for (uint32_t at = 60000; at > 1; at -= 5)
    peer.send({.seq = 5001 + at, .ack = peer.iss + 1, .flags = "PA", .payload = "x"});
  peer.take();
  EXPECT_LE(rcv.reassembly().range_count(), 1024u);
  EXPECT_LE(rcv.true_size(), rcv.limit + 4096) << "a block more at most";
  EXPECT_GT(peer.counters().TcpExtOfoPruned, 0u);
  // And the stream itself goes on.
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = std::string(1400, 'y')});
  EXPECT_EQ(socket.receive().substr(0, 1), "y");
}

}  // namespace
}  // namespace ustack::test
