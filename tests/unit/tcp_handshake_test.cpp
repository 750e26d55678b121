// The three-way handshake: active, passive and simultaneous, against a raw peer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::State;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

const ByteVector kAllOptions =
    mss_option(1400) + sack_permitted_option() + timestamps_option(700, 0) + window_scale_option(5);

TEST(TcpHandshake, ActiveOpen) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  EXPECT_EQ(TcpPeer::state(socket), State::syn_sent);
  EXPECT_EQ(socket->connect_result().code(), EINPROGRESS);
  EXPECT_EQ(socket->readiness(), 0u);
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(DstIs(TcpPeer::kPeer), Ttl(64), DontFragment(true),
                                            Tcp(DstPort(80), FlagsAre("S"), Ack(0u), Window(64240), Mss(1460),
                                                WindowScale(10), SackPermitted(true),
                                                OptionKinds(ElementsAre(2, 4, 8, 1, 3)), PayloadSize(0u)))));
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA", .options = kAllOptions});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Seq(peer.iss + 1), Ack(5001u),
                                           TimestampsAre(::testing::_, 700u), PayloadSize(0u))));
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  EXPECT_EQ(socket->connect_result().code(), 0);
  EXPECT_EQ(socket->readiness(), ready::kOut | ready::kWrNorm);
  const tcp::Tcb& tcb = TcpPeer::endpoint(socket).tcb();
  EXPECT_EQ(tcb.snd.snd_wscale, 5);
  EXPECT_EQ(tcb.rcv.rcv_wscale, 10);
  EXPECT_EQ(tcb.snd.mss(), 1400u - 12) << "timestamps take their place in every segment";
  EXPECT_TRUE(tcb.sack && tcb.timestamps);
  EXPECT_EQ(peer.counters().TcpActiveOpens, 1u);
  EXPECT_EQ(peer.counters().TcpCurrEstab, 1u);
}

struct OptionCase {
  bool sack, timestamps, scaling;
  std::vector<uint8_t> kinds;
};

class TcpHandshakeOptions : public ::testing::TestWithParam<OptionCase> {};

// Linux's order for every combination (the seed's makeSynOptions).
INSTANTIATE_TEST_SUITE_P(Combinations, TcpHandshakeOptions,
                         ::testing::Values(OptionCase{false, false, false, {2}},
                                           OptionCase{true, false, false, {2, 1, 1, 4}},
                                           OptionCase{false, true, false, {2, 1, 1, 8}},
                                           OptionCase{false, false, true, {2, 1, 3}},
                                           OptionCase{true, true, false, {2, 4, 8}},
                                           OptionCase{true, false, true, {2, 1, 1, 4, 1, 3}},
                                           OptionCase{false, true, true, {2, 1, 1, 8, 1, 3}},
                                           OptionCase{true, true, true, {2, 4, 8, 1, 3}}));

TEST_P(TcpHandshakeOptions, SynOffersWhatIsOn) {
  TcpPeer::Options options;
  options.settings.tcp_sack = GetParam().sack;
  options.settings.tcp_timestamps = GetParam().timestamps;
  options.settings.tcp_window_scaling = GetParam().scaling;
  TcpPeer peer(options);
  TestSocket socket = peer.connect();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), OptionKinds(GetParam().kinds), Mss(1460))));
  // What the peer offers beyond that is not taken.
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA", .options = kAllOptions});
  const tcp::Tcb& tcb = TcpPeer::endpoint(socket).tcb();
  EXPECT_EQ(tcb.sack, GetParam().sack);
  EXPECT_EQ(tcb.timestamps, GetParam().timestamps);
  EXPECT_EQ(tcb.window_scaling, GetParam().scaling);
  EXPECT_EQ(tcb.snd.snd_wscale, GetParam().scaling ? 5 : 0);
}

TEST_P(TcpHandshakeOptions, SynAckOffersWhatTheSynDid) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  ByteVector offered = mss_option(1400);
  if (GetParam().sack) offered = offered + sack_permitted_option();
  if (GetParam().timestamps) offered = offered + timestamps_option(700, 0);
  if (GetParam().scaling) offered = offered + window_scale_option(5);
  peer.host_port = 80;
  peer.send({.seq = 5000, .flags = "S", .options = offered});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"), Ack(5001u), OptionKinds(GetParam().kinds))));
}

TEST(TcpHandshake, MssFollowsTheRoutesMtu) {
  for (uint16_t mtu : std::initializer_list<uint16_t>{576, 1500, 9000}) {
    TcpPeer::Options options;
    options.link.mtu = mtu;
    TcpPeer peer(options);
    TestSocket socket = peer.connect();
    EXPECT_THAT(peer.take(), ElementsAre(Tcp(Mss(static_cast<uint16_t>(mtu - 40)))));
  }
}

// RFC 1191, 3.1: the path's MTU, of one direction, is not the other's business.
TEST(TcpHandshake, MssIsTheLinksNotThePaths) {
  TcpPeer peer;
  peer.host().network().update_path_mtu(TcpPeer::kPeer, 1000);
  TestSocket socket = peer.connect();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(Mss(1460))));
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA", .options = mss_option(1460)});
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.mss(), 960u) << "what is sent is";
}

TEST(TcpHandshake, MaxsegLowersWhatIsAnnouncedAndSent) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_MAXSEG, 500).ok());
  ASSERT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  peer.run();
  peer.host_port = (*socket->local_address()).port;
  auto syn = peer.take();
  ASSERT_THAT(syn, ElementsAre(Tcp(Mss(500))));
  peer.send({.seq = 1, .ack = syn[0].tcp->seq + 1, .flags = "SA", .options = mss_option(1460)});
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.mss(), 500u);
}

TEST(TcpHandshake, PeerWithoutMssGetsTheDefault) {
  TcpPeer peer;
  TestSocket socket = peer.connected({});
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.mss(), 536u);
}

TEST(TcpHandshake, WindowOfASynIsNotScaled) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.send({.seq = 1, .ack = peer.iss + 1, .flags = "SA", .window = 1000, .options = kAllOptions});
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.snd_wnd, 1000u);
  peer.take();
  peer.send(
      {.seq = 2, .ack = peer.iss + 1, .flags = "A", .window = 1000, .options = timestamps_option(701, 0)});
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.snd_wnd, 1000u << 5);
}

struct ResendCase {
  int syn_count;  // TCP_SYNCNT, 0: not set
  int setting;    // tcp_syn_retries
  std::vector<int> sent_at;
  int fails_at;
};
class TcpSynResend : public ::testing::TestWithParam<ResendCase> {};
INSTANTIATE_TEST_SUITE_P(Limits, TcpSynResend,
                         ::testing::Values(
                             // The seed's rule: when the doubled time-out would pass 60 s.
                             ResendCase{0, 6, {0, 1, 3, 7, 15, 31}, 63}, ResendCase{0, 2, {0, 1, 3}, 7},
                             ResendCase{1, 6, {0, 1}, 3},
                             // A program that asks for more gets more, 60 s apart.
                             ResendCase{8, 6, {0, 1, 3, 7, 15, 31, 63, 123, 183}, 243}));

TEST_P(TcpSynResend, DoublesAndGivesUp) {
  TcpPeer::Options options;
  options.settings.tcp_syn_retries = GetParam().setting;
  TcpPeer peer(options);
  TestSocket socket = peer.socket();
  if (GetParam().syn_count != 0) {
    ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_SYNCNT, GetParam().syn_count).ok());
  }
  Instant start = peer.now();
  ASSERT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  peer.run();
  std::vector<int> sent_at;
  while (peer.advance_until_sent(300s)) {
    auto sent = peer.take();
    EXPECT_THAT(sent, ElementsAre(Tcp(FlagsAre("S"))));
    sent_at.push_back(static_cast<int>((peer.now() - start) / 1s));
  }
  EXPECT_EQ(sent_at, GetParam().sent_at);
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_EQ((peer.now() - start) / 1s, GetParam().fails_at);
  EXPECT_NE(socket->readiness() & ready::kErr, 0u);
  EXPECT_EQ(socket->connect_result().code(), ETIMEDOUT);
  EXPECT_EQ(socket->readiness() & ready::kErr, 0u) << "an error is told once";
  EXPECT_EQ(peer.counters().TcpAttemptFails, 1u);
}

/// connect() whose SYN gets lost; the second one.
CapturedFrame second_syn(TcpPeer& peer) {
  peer.take();
  EXPECT_TRUE(peer.advance_until_sent(2s));
  std::vector<CapturedFrame> sent = peer.take();
  EXPECT_THAT(sent, ElementsAre(Tcp(FlagsAre("S"))));
  return sent.empty() ? CapturedFrame{} : sent[0];
}

TEST(TcpHandshake, SynIsTheSameEachTime) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  EXPECT_THAT(second_syn(peer), Tcp(Seq(peer.iss)));
  // An answer to it still connects, and there is no RTT in it (Karn).
  peer.send({.seq = 1, .ack = peer.iss + 1, .flags = "SA"});
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  EXPECT_FALSE(TcpPeer::endpoint(socket).tcb().snd.rtt.has_sample());
  EXPECT_EQ(peer.counters().TcpExtTCPSynRetrans, 1u);
}

TEST(TcpHandshake, RstRefuses) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.take();
  peer.send({.seq = 0, .ack = peer.iss + 1, .flags = "RA"});
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_EQ(socket->readiness() & (ready::kErr | ready::kHup), ready::kErr | ready::kHup);
  EXPECT_EQ(socket->connect_result().code(), ECONNREFUSED);
  // Then the socket is as new (connect(2) may be tried again).
  EXPECT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
}

// RFC 9293, 3.10.7.3, first to fifth.
TEST(TcpHandshake, SynSentIgnoresAndResetsWhatItMust) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.take();
  peer.send({.seq = 9, .flags = "R"});
  EXPECT_THAT(peer.take(), IsEmpty()) << "a RST without ACK";
  peer.send({.seq = 9, .ack = peer.iss + 77, .flags = "RA"});
  EXPECT_THAT(peer.take(), IsEmpty()) << "a RST with a wrong ACK";
  peer.send({.seq = 9, .ack = peer.iss, .flags = "A"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(peer.iss)))) << "an old ACK";
  peer.send({.seq = 9, .ack = peer.iss + 2, .flags = "SA"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(peer.iss + 2))))
      << "a SYN-ACK of something else";
  peer.send({.seq = 9, .ack = peer.iss + 1, .flags = "A"});
  EXPECT_THAT(peer.take(), IsEmpty()) << "a good ACK without SYN";
  peer.send({.seq = 9, .flags = "F"});
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(TcpPeer::state(socket), State::syn_sent);
  peer.send({.seq = 9, .ack = peer.iss + 1, .flags = "SA"});
  EXPECT_EQ(TcpPeer::state(socket), State::established);
}

TEST(TcpHandshake, SimultaneousOpen) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.take();
  peer.send({.seq = 5000, .flags = "S", .options = mss_option(1000)});
  EXPECT_EQ(TcpPeer::state(socket), State::syn_received);
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"), Seq(peer.iss), Ack(5001u))));
  EXPECT_EQ(socket->connect_result().code(), EINPROGRESS);
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA", .options = mss_option(1000)});
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  EXPECT_EQ(socket->connect_result().code(), 0);
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.mss(), 1000u);
}

// RFC 9293, 3.10.7.4, second (MUST-11): a RST in SYN-RECEIVED means one thing to who has called connect(),
// and nothing to a listener (SynReceivedAnswersAsItMust).
TEST(TcpHandshake, RstRefusesASimultaneousOpen) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.send({.seq = 5000, .flags = "S", .options = mss_option(1000)});
  ASSERT_EQ(TcpPeer::state(socket), State::syn_received);
  peer.send({.seq = 5001, .flags = "R"});
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_EQ(socket->connect_result().code(), ECONNREFUSED);
}

// RFC 7323, 3.2: TSecr is zero without ACK, and means nothing there.
TEST(TcpHandshake, EchoOfASynMeansNothing) {
  TcpPeer peer;
  TestSocket active = peer.connect();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), TimestampsAre(::testing::_, 0u))));
  active.close();
  peer.take();
  TestSocket listener = peer.listen();
  peer.port = 4000;
  peer.host_port = 80;
  uint32_t now = TcpPeer::endpoint(listener).tcb().timestamp(peer.now());
  peer.send({.seq = 5000, .flags = "S", .options = mss_option(1460) + timestamps_option(700, now - 5000)});
  auto syn_ack = peer.take();
  ASSERT_THAT(syn_ack, ElementsAre(Tcp(FlagsAre("SA"), TimestampsAre(::testing::_, 700u))));
  peer.advance(20ms);
  peer.send({.seq = 5001,
             .ack = syn_ack[0].tcp->seq + 1,
             .options = timestamps_option(720, syn_ack[0].tcp->timestamps->first)});
  TestSocket socket = listener.accept();
  ASSERT_TRUE(socket);
  EXPECT_NEAR(static_cast<double>(TcpPeer::endpoint(socket).tcb().snd.rtt.srtt() / 1ms), 20, 1)
      << "not five seconds";
}

// RFC 9293, 3.9.2.3 (MUST-46); Linux: ENETUNREACH.
TEST(TcpHandshake, NoOpenToABroadcastOrMulticastAddress) {
  TcpPeer peer;
  for (IpAddress to : {IpAddress::v4(192, 0, 2, 255), IpAddress::broadcast_v4(), IpAddress::v4(224, 0, 0, 1),
                       IpAddress::v4(239, 1, 2, 3)}) {
    TestSocket socket = peer.socket();
    EXPECT_EQ(socket->connect({to, 80}).code(), ENETUNREACH);
    peer.run();
  }
  EXPECT_THAT(peer.take(), IsEmpty());
}

// RFC 9293, 3.9.1.1 (MUST-43, MUST-45): the address that the program binds is the one that all segments have.
TEST(TcpHandshake, BoundAddressIsTheSource) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket->bind({TcpPeer::kHost, 7777}).ok());
  ASSERT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  peer.run();
  auto syn = peer.take();
  ASSERT_THAT(syn, ElementsAre(Ipv4(SrcIs(TcpPeer::kHost), Tcp(SrcPort(7777), FlagsAre("S")))));
  peer.host_port = 7777;
  peer.send({.seq = 5000, .ack = syn[0].tcp->seq + 1, .flags = "SA"});
  socket.send("x");
  EXPECT_THAT(peer.take(), ::testing::Each(Ipv4(SrcIs(TcpPeer::kHost), Tcp(SrcPort(7777)))));
}

// RFC 6298, 5.7: a SYN that had to be sent again leaves a time-out of three seconds.
TEST(TcpHandshake, AfterALostSynTheTimeoutIsThreeSeconds) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  second_syn(peer);
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA", .options = mss_option(1460)});
  socket.send("x");
  peer.run();
  peer.take();
  Instant sent = peer.now();
  ASSERT_TRUE(peer.advance_until_sent(10s));
  EXPECT_EQ((peer.now() - sent) / 1ms, 3000);
}

// RFC 7323, 4.1: unless a timestamp tells which SYN is answered.
TEST(TcpHandshake, TimestampsMeasureASynThatWasSentAgain) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  CapturedFrame second = second_syn(peer);
  ASSERT_TRUE(second.tcp && second.tcp->timestamps);
  peer.advance(30ms);
  peer.send({.seq = 5000,
             .ack = peer.iss + 1,
             .flags = "SA",
             .options = mss_option(1460) + timestamps_option(7, second.tcp->timestamps->first)});
  EXPECT_NEAR(static_cast<double>(TcpPeer::endpoint(socket).tcb().snd.rtt.srtt() / 1ms), 30, 1);
}

TEST(TcpHandshake, CloseGivesTheAttemptUp) {
  TcpPeer peer;
  {
    TestSocket socket = peer.connect();
    EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u);
  }
  peer.run();
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
  EXPECT_EQ(peer.host().scheduler().stacks_in_use(), 0u);
  peer.take();
  // Nobody is there for the answer.
  peer.send({.seq = 1, .ack = peer.iss + 1, .flags = "SA"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(peer.iss + 1))));
}

TEST(TcpHandshake, CloseBeforeTheFiberRan) {
  TcpPeer peer;
  {
    TestSocket socket = peer.socket();
    ASSERT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  }
  peer.run();
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
}

TEST(TcpHandshake, ShutdownOfAnAttempt) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  EXPECT_TRUE(socket->shutdown(ShutdownHow::both).ok());
  peer.run();
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS) << "the socket can be used again";
}

TEST(TcpHandshake, RouteIsResolvedFirst) {
  TcpPeer::Options options;
  options.link = {.kind = LinkInfo::Kind::ethernet, .mtu = 1500, .mac = {{std::byte{2}}}};
  TcpPeer peer(options);
  TestSocket socket = peer.connect();
  EXPECT_THAT(peer.take(), ElementsAre(Ethernet(Arp(IsRequest(), TargetIp(TcpPeer::kPeer)))));
  EXPECT_EQ(TcpPeer::state(socket), State::syn_sent);
  peer.host().network().neighbours().learn(TcpPeer::kPeer, {{std::byte{2}, std::byte{1}}},
                                           NeighbourCache::Evidence::answer, true);
  peer.run();
  EXPECT_THAT(peer.take(),
              ElementsAre(Ethernet(EthDst(MacAddress{{std::byte{2}, std::byte{1}}}), Tcp(FlagsAre("S")))));
}

TEST(TcpHandshake, RouteThatCannotBeResolved) {
  TcpPeer::Options options;
  options.link = {.kind = LinkInfo::Kind::ethernet, .mtu = 1500, .mac = {{std::byte{2}}}};
  TcpPeer peer(options);
  TestSocket socket = peer.connect();
  peer.advance(10s);
  for (const CapturedFrame& frame : peer.take()) EXPECT_THAT(frame, Ethernet(Arp(IsRequest())));
  EXPECT_EQ(socket->connect_result().code(), EHOSTUNREACH);
}

TEST(TcpHandshake, CloseWhileTheRouteIsBeingResolved) {
  TcpPeer::Options options;
  options.link = {.kind = LinkInfo::Kind::ethernet, .mtu = 1500, .mac = {{std::byte{2}}}};
  TcpPeer peer(options);
  peer.connect();
  peer.run();
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
  peer.advance(10s);
}

struct IcmpCase {
  uint8_t type, code;
  int error;
};
class TcpHandshakeIcmp : public ::testing::TestWithParam<IcmpCase> {};
INSTANTIATE_TEST_SUITE_P(Errors, TcpHandshakeIcmp,
                         ::testing::Values(IcmpCase{3, 0, ENETUNREACH}, IcmpCase{3, 1, EHOSTUNREACH},
                                           IcmpCase{3, 2, ENOPROTOOPT}, IcmpCase{3, 3, ECONNREFUSED},
                                           IcmpCase{3, 13, EHOSTUNREACH}, IcmpCase{11, 0, EHOSTUNREACH}));
TEST_P(TcpHandshakeIcmp, EndsTheAttempt) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.send_icmp(GetParam().type, GetParam().code, 0, peer.iss);
  EXPECT_EQ(socket->connect_result().code(), GetParam().error);
}

TEST(TcpHandshake, IcmpErrorAboutSomethingElseIsIgnored) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.send_icmp(3, 3, 0, peer.iss + 100);
  EXPECT_EQ(socket->connect_result().code(), EINPROGRESS);
  EXPECT_EQ(peer.counters().TcpExtOutOfWindowIcmps, 1u);
}

TEST(TcpHandshake, ConnectsToItself) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket->bind({TcpPeer::kHost, 7000}).ok());
  ASSERT_EQ(socket->connect({TcpPeer::kHost, 7000}).code(), EINPROGRESS);
  peer.run();
  EXPECT_EQ(socket->connect_result().code(), 0) << "a simultaneous open of one";
  socket.send("echo");
  peer.run();
  EXPECT_EQ(socket.receive(), "echo");
}

TEST(TcpHandshake, RefusalAndCloseInTheSameTurn) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  linger reset{1, 0};
  ASSERT_TRUE(socket->set_option(SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&reset, 1))).ok());
  peer.take();
  tcp::Endpoint& endpoint = TcpPeer::endpoint(socket);
  endpoint.drain();
  peer.run();
  peer.send({.seq = 0, .ack = peer.iss + 1, .flags = "RA"});
  socket.close();
  endpoint.undrain();
  peer.run();
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
}

TEST(TcpHandshake, PassiveOpen) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  EXPECT_EQ(listener->readiness(), 0u);
  peer.host_port = 80;
  peer.port = 4000;
  peer.send({.seq = 5000, .flags = "S", .window = 3000, .options = kAllOptions});
  auto syn_ack = peer.take();
  ASSERT_THAT(syn_ack, ElementsAre(Tcp(SrcPort(80), DstPort(4000), FlagsAre("SA"), Ack(5001u), Window(65160),
                                       Mss(1460), WindowScale(10), TimestampsAre(::testing::_, 700u))));
  uint32_t iss = syn_ack[0].tcp->seq;
  EXPECT_EQ(listener->accept().code(), EAGAIN) << "not before the third segment";
  peer.send({.seq = 5001, .ack = iss + 1, .window = 100, .options = timestamps_option(701, 0)});
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(listener->readiness(), ready::kIn | ready::kRdNorm);
  TestSocket socket = listener.accept();
  ASSERT_TRUE(socket);
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  EXPECT_EQ((*socket->remote_address()).port, 4000);
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.snd_wnd, 100u << 5);
  EXPECT_EQ(peer.counters().TcpPassiveOpens, 1u);
}

// tcp_invalid_ratelimit: a flood of SYNs with one number is not answered by a flood of SYN-ACKs.
TEST(TcpHandshake, SynReceivedAnswersRarely) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  peer.host_port = 80;
  peer.send({.seq = 5000, .flags = "S"});
  EXPECT_EQ(peer.take().size(), 1u);
  for (int i = 0; i < 10; ++i) peer.send({.seq = 5000, .flags = "S"});
  EXPECT_EQ(peer.take().size(), 1u);
  EXPECT_EQ(peer.counters().TcpExtTCPACKSkippedSynRecv, 9u);
}

TEST(TcpHandshake, SynReceivedAnswersAsItMust) {
  TcpPeer::Options options;
  options.settings.tcp_invalid_ratelimit = 0;
  TcpPeer peer(options);
  TestSocket listener = peer.listen();
  peer.host_port = 80;
  peer.send({.seq = 5000, .flags = "S"});
  uint32_t iss = peer.take()[0].tcp->seq;
  peer.send({.seq = 5000, .flags = "S"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"), Seq(iss), Ack(5001u)))) << "the SYN again";
  peer.send({.seq = 5001, .ack = iss + 7, .flags = "A"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(iss + 7)))) << "a wrong ACK";
  peer.send({.seq = 5001 + 100000, .ack = iss + 1, .flags = "A"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Seq(iss + 1), Ack(5001u)))) << "out of window";
  peer.send({.seq = 5100, .flags = "R"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Ack(5001u)))) << "RFC 5961: not the exact number";
  peer.send({.seq = 5100, .flags = "S"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Ack(5001u)))) << "RFC 5961: a SYN in the window";
  peer.send({.seq = 5001, .flags = ""});
  EXPECT_THAT(peer.take(), IsEmpty()) << "neither ACK nor anything";
  peer.send({.seq = 5001, .flags = "R"});
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u) << "back to LISTEN";
  EXPECT_EQ(peer.counters().TcpAttemptFails, 1u);
}

TEST(TcpHandshake, SynAckIsSentAgainAndGivenUp) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  peer.host_port = 80;
  Instant start = peer.now();
  peer.send({.seq = 5000, .flags = "S"});
  std::vector<int> sent_at;
  while (peer.advance_until_sent(100s)) {
    EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"))));
    sent_at.push_back(static_cast<int>((peer.now() - start) / 1s));
  }
  EXPECT_EQ(sent_at, (std::vector<int>{0, 1, 3, 7, 15, 31}));
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u);
  EXPECT_EQ((peer.now() - start) / 1s, 63);
}

TEST(TcpHandshake, DataAndFinWithTheThirdSegment) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  peer.host_port = 80;
  peer.send({.seq = 5000, .flags = "S"});
  uint32_t iss = peer.take()[0].tcp->seq;
  peer.send({.seq = 5001, .ack = iss + 1, .flags = "PFA", .payload = "hello"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Ack(5007u))));
  TestSocket socket = listener.accept();
  ASSERT_TRUE(socket);
  EXPECT_EQ(socket.receive(), "hello");
  EXPECT_EQ(TcpPeer::state(socket), State::close_wait);
}

TEST(TcpHandshake, DataWithTheSynAck) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.take();
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA", .payload = "early"});
  EXPECT_EQ(socket.receive(), "early");
  auto acks = peer.take();
  ASSERT_FALSE(acks.empty());
  EXPECT_THAT(acks.back(), Tcp(FlagsAre("A"), Ack(5006u)));
}

TEST(TcpHandshake, DeferAcceptWaitsForData) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  ASSERT_TRUE(listener.set(IPPROTO_TCP, TCP_DEFER_ACCEPT, 3).ok());
  peer.host_port = 80;
  peer.send({.seq = 5000, .flags = "S"});
  uint32_t iss = peer.take()[0].tcp->seq;
  peer.send({.seq = 5001, .ack = iss + 1});
  EXPECT_FALSE(listener.acceptable()) << "a bare ACK is not enough";
  peer.send({.seq = 5001, .ack = iss + 1, .flags = "PA", .payload = "GET"});
  ASSERT_TRUE(listener.acceptable());
  EXPECT_EQ(listener.accept().receive(), "GET");
}

TEST(TcpHandshake, DeferAcceptGivesUpWaiting) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  ASSERT_TRUE(listener.set(IPPROTO_TCP, TCP_DEFER_ACCEPT, 3).ok());  // worth two time-outs: 1 + 2 s
  peer.host_port = 80;
  peer.send({.seq = 5000, .flags = "S"});
  uint32_t iss = peer.take()[0].tcp->seq;
  peer.send({.seq = 5001, .ack = iss + 1});
  ASSERT_TRUE(peer.advance_until_sent(10s));
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"))));
  peer.send({.seq = 5001, .ack = iss + 1});
  EXPECT_TRUE(listener.acceptable());
}

// notifyDrain, drainDone and undrain of the seed.
TEST(TcpHandshake, DrainPausesAHandshake) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.take();
  tcp::Endpoint& endpoint = TcpPeer::endpoint(socket);
  endpoint.drain();
  peer.run();
  EXPECT_TRUE(endpoint.drained());
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA"});
  EXPECT_THAT(peer.take(), IsEmpty()) << "nothing moves";
  EXPECT_EQ(TcpPeer::state(socket), State::syn_sent);
  endpoint.undrain();
  peer.run();
  EXPECT_FALSE(endpoint.drained());
  EXPECT_EQ(TcpPeer::state(socket), State::established);
}

TEST(TcpHandshake, DrainHandlesWhatIsQueuedFirst) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  tcp::Endpoint& endpoint = TcpPeer::endpoint(socket);
  endpoint.drain();
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "before"});
  EXPECT_TRUE(endpoint.drained());
  EXPECT_EQ(socket.receive(), "before");
  peer.send({.seq = 5007, .ack = peer.iss + 1, .flags = "PA", .payload = "after"});
  int code = 0;
  EXPECT_EQ(socket.receive(100, &code), "");
  EXPECT_EQ(code, EAGAIN);
  endpoint.undrain();
  peer.run();
  EXPECT_EQ(socket.receive(), "after");
  EXPECT_EQ(peer.host().scheduler().stacks_in_use(), 0u) << "an idle connection holds no fiber";
}

// The host goes while handshakes wait: no fiber is left, no byte lost (HeapArena looks for leaks).
TEST(TcpHandshake, HostEndsInTheMiddle) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  TestSocket socket = peer.connect();
  peer.send({.seq = 5000, .flags = "S", .source_port = 999, .destination_port = 80});
  EXPECT_EQ(peer.host().scheduler().stacks_in_use(), 2u);
  // The sockets' owners are gone with the host: release() first, as a closing program does, in either order.
  socket.close();
  listener.close();
}

TEST(TcpHandshake, IssIsAboveAnEarlierConnectionsOfTheSameTuple) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket->bind({TcpPeer::kHost, 2000}).ok());
  ASSERT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  peer.run();
  peer.host_port = 2000;
  uint32_t first = peer.take()[0].tcp->seq;
  peer.send({.seq = 0, .ack = first + 1, .flags = "RA"});
  peer.advance(100ms);
  EXPECT_EQ(socket->connect_result().code(), ECONNREFUSED);
  ASSERT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  peer.run();
  uint32_t second = peer.take()[0].tcp->seq;
  // RFC 6528: 4 us a tick.
  EXPECT_EQ(second - first, 25000u);
}

}  // namespace
}  // namespace ustack::test
