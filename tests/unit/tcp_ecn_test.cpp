// Explicit congestion notification (RFC 3168), as Linux does it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "stack/net/ipv4.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"
#include "tests/support/tcp_script.h"

namespace ustack::test {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;

TcpPeer::Options with_ecn(int mode, int fallback = 1) {
  TcpPeer::Options options;
  options.settings.tcp_ecn = mode;
  options.settings.tcp_ecn_fallback = fallback;
  return options;
}

bool negotiated(const TestSocket& socket) {
  const tcp::Tcb& tcb = TcpPeer::endpoint(socket).tcb();
  EXPECT_EQ(tcb.snd.ecn, tcb.rcv.ecn);
  return tcb.snd.ecn;
}

// --- RFC 3168, 6.1.1: negotiation ---

TEST(TcpEcn, ActiveOpenAsksOnlyIfToldTo) {
  for (int mode : {0, 1, 2}) {
    TcpPeer peer(with_ecn(mode));
    TestSocket socket = peer.connect();
    EXPECT_THAT(peer.take(), ElementsAre(Ipv4(Tos(0), Tcp(FlagsAre(mode == 1 ? "SEC" : "S"))))) << mode;
  }
}

TEST(TcpEcn, SynAckDecides) {
  struct {
    std::string_view flags;
    bool on;
  } const cases[] = {{"SA", false}, {"SAE", true}, {"SAEC", false}, {"SAC", false}};
  for (auto [flags, on] : cases) {
    TcpPeer peer(with_ecn(1));
    TestSocket socket = peer.connect();
    peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = flags, .options = mss_option(1460)});
    EXPECT_EQ(negotiated(socket), on) << flags;
  }
  TcpPeer peer(with_ecn(2));
  TestSocket socket = peer.connect();
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SAE", .options = mss_option(1460)});
  EXPECT_FALSE(negotiated(socket)) << "we have not asked";
}

TEST(TcpEcn, SynThatIsSentAgainDoesNotAsk) {
  for (int fallback : {1, 0}) {
    TcpPeer peer(with_ecn(1, fallback));
    TestSocket socket = peer.connect();
    peer.take();
    peer.advance_until_sent(2s);
    EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre(fallback != 0 ? "S" : "SEC"))));
    // The answer may still be the first one's.
    peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SAE", .options = mss_option(1460)});
    EXPECT_TRUE(negotiated(socket));
  }
}

TEST(TcpEcn, PassiveOpenGrantsWhatIsAskedFor) {
  struct {
    int mode;
    std::string_view flags;
    uint8_t tos;
    bool on;
  } const cases[] = {
      {2, "SEC", 0, true}, {1, "SEC", 0, true}, {0, "SEC", 0, false},          {2, "S", 0, false},
      {2, "SE", 0, false}, {2, "SC", 0, false}, {2, "SEC", ecn::kEct0, false}, {2, "SEC", 0x20, true}};
  for (auto [mode, flags, tos, on] : cases) {
    TcpPeer peer(with_ecn(mode));
    TestSocket listener = peer.listen();
    peer.host_port = 80;
    peer.send({.seq = 5000, .flags = flags, .tos = tos, .options = mss_option(1460)});
    auto answer = peer.take();
    ASSERT_THAT(answer, ElementsAre(Ipv4(Tos(0), Tcp(FlagsAre(on ? "SAE" : "SA")))))
        << mode << flags << int{tos};
    peer.send({.seq = 5001, .ack = answer[0].tcp->seq + 1});
    TestSocket accepted(*listener->accept());
    EXPECT_EQ(negotiated(accepted), on) << mode << flags;
  }
}

TEST(TcpEcn, SimultaneousOpenNeedsBoth) {
  for (bool both : {true, false}) {
    TcpPeer peer(with_ecn(1));
    TestSocket socket = peer.connect();
    peer.take();
    peer.send({.seq = 5000, .flags = both ? "SEC" : "S", .options = mss_option(1460)});
    EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre(both ? "SAE" : "SA"))));
    peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA"});
    EXPECT_EQ(TcpPeer::state(socket), tcp::State::established);
    EXPECT_EQ(negotiated(socket), both);
  }
}

TEST(TcpEcn, CookieBringsItBackWithATimestamp) {
  for (bool timestamps : {true, false}) {
    TcpPeer::Options options = with_ecn(2);
    options.settings.tcp_syncookies = 2;
    TcpPeer peer(options);
    TestSocket listener = peer.listen();
    peer.host_port = 80;
    ByteVector offered = mss_option(1460);
    if (timestamps) offered = offered + timestamps_option(700, 0);
    peer.send({.seq = 5000, .flags = "SEC", .options = offered});
    auto answer = peer.take();
    ASSERT_THAT(answer, ElementsAre(Tcp(FlagsAre(timestamps ? "SAE" : "SA"))));
    ByteVector echoed;
    if (timestamps) echoed = timestamps_option(701, answer[0].tcp->timestamps->first);
    peer.send({.seq = 5001, .ack = answer[0].tcp->seq + 1, .options = echoed});
    Result<Socket*> socket = listener->accept();
    ASSERT_TRUE(socket.ok());
    TestSocket accepted(*socket);
    EXPECT_EQ(negotiated(accepted), timestamps);
  }
}

// --- the sender ---

/// An open connection with ECN.
TestSocket connected(TcpPeer& peer) {
  TestSocket socket = peer.connect();
  peer.send({.seq = peer.peer_iss,
             .ack = peer.iss + 1,
             .flags = "SAE",
             .options = mss_option(1000) + sack_permitted_option()});
  peer.take();
  return socket;
}

TEST(TcpEcn, OnlyNewDataIsEcnCapable) {
  TcpPeer peer(with_ecn(1));
  TestSocket socket = connected(peer);
  int tos = 0x28;
  ASSERT_TRUE(socket.set(IPPROTO_IP, IP_TOS, tos).ok());
  ASSERT_EQ(socket.send(std::string(2000, 'a')), 2000);
  peer.run();
  EXPECT_THAT(peer.take(), AllOf(testing::SizeIs(2), Each(Ipv4(Tos(0x28 | ecn::kEct0)))));
  EXPECT_TRUE(peer.advance_until_sent(5s));
  EXPECT_THAT(peer.take(), Each(Ipv4(Tos(0x28), Tcp(Seq(peer.iss + 1 + 1000))))) << "a loss probe";
  EXPECT_TRUE(peer.advance_until_sent(5s));
  EXPECT_THAT(peer.take(), Each(Ipv4(Tos(0x28), Tcp(Seq(peer.iss + 1))))) << "a retransmission";
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 2001, .payload = "x"});
  peer.advance(300ms);
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(Tos(0x28), Tcp(FlagsAre("A"), PayloadSize(0u)))));
  peer.send({.seq = peer.peer_iss + 2, .ack = peer.iss + 2001, .window = 0});
  ASSERT_EQ(socket.send("x"), 1);
  EXPECT_TRUE(peer.advance_until_sent(5s));
  EXPECT_THAT(peer.take(), Each(Ipv4(Tos(0x28), Tcp(FlagsAre("A"))))) << "a window probe";
}

TEST(TcpEcn, NothingIsWithoutNegotiation) {
  TcpPeer peer(with_ecn(1));
  TestSocket socket = peer.connected(mss_option(1000) + sack_permitted_option());
  ASSERT_EQ(socket.send(std::string(2000, 'a')), 2000);
  peer.run();
  EXPECT_THAT(peer.take(), Each(Ipv4(Tos(0), Tcp(testing::Not(FlagsAre("AC"))))));
  uint32_t before = TcpPeer::endpoint(socket).tcb().snd.cwnd();
  peer.send(
      {.seq = peer.peer_iss + 1, .ack = peer.iss + 2001, .flags = "AE", .payload = "x", .tos = ecn::kCe});
  EXPECT_GE(TcpPeer::endpoint(socket).tcb().snd.cwnd(), before);
  peer.advance(300ms);
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"))));
}

constexpr ScriptOptions kEcn{.ecn = true};

TEST(TcpEcnScript, AnEchoHalvesOnceAWindow) {
  TcpScript script(kEcn);
  script.run(R"(
  write 40
  > 0-9
  +10 < 2 ece
  ? state cwr
  ? ssthresh 5
  > 10W
  +0 < 4 ece
  > 11
  +0 < 6 ece
  > 12
  ? ssthresh 5
  +0 < 8 ece
  +0 < 10 ece
  > 13-14
  ? cwnd 5
  ? state cwr
  ? TCPDeliveredCE 10
  ? TCPFastRetrans 0
  +10 < 12
  ? state open
  ? cwnd 5
)");
}

TEST(TcpEcnScript, AnotherWindowsEchoHalvesAgain) {
  TcpScript script(kEcn);
  script.run(R"(
  write 40
  > 0-9
  +10 < 10 ece
  ? ssthresh 5
  > 10W 11-14
  +10 < 11
  ? state open
  > 15
  +0 < 15 ece
  ? state cwr
  ? ssthresh 2500b
  > 16W
)");
}

TEST(TcpEcnScript, CwrFollowsALossToo) {
  TcpScript script(kEcn);
  script.run(R"(
  write 30
  > 0-9
  +10 < 0 sack 1-3
  > 0
  ? state recovery
  +0 < 0 sack 1-9
  +10 < 10
  ? state open
  ? cwnd 5
)");
  bool found = false;
  for (const CapturedFrame& frame : script.peer().sent())
    found |= frame.tcp && (frame.tcp->flags & 0x80) != 0;
  EXPECT_TRUE(found) << "the first new data after the reduction";
}

TEST(TcpEcnScript, AnEchoWithALossIsOneReduction) {
  TcpScript script(kEcn);
  script.run(R"(
  write 30
  > 0-9
  +10 < 0 sack 1-3 ece
  ? state recovery
  ? ssthresh 5
)");
}

// --- the receiver ---

TEST(TcpEcn, AMarkIsEchoedUntilCwr) {
  TcpPeer peer(with_ecn(1));
  TestSocket socket = connected(peer);
  uint32_t seq = peer.peer_iss + 1;
  auto data = [&](uint8_t tos, std::string_view flags = "A") {
    peer.send(
        {.seq = seq, .ack = peer.iss + 1, .flags = flags, .payload = std::string(1000, 'x'), .tos = tos});
    seq += 1000;
    peer.advance(300ms);
    auto sent = peer.take();
    EXPECT_FALSE(sent.empty());
    return !sent.empty() && sent.back().tcp && (sent.back().tcp->flags & 0x40) != 0;
  };
  EXPECT_FALSE(data(ecn::kEct0));
  EXPECT_TRUE(data(ecn::kCe));
  EXPECT_TRUE(data(ecn::kEct0)) << "until CWR";
  // On data as well.
  ASSERT_EQ(socket.send("answer"), 6);
  peer.run();
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(Tos(ecn::kEct0), Tcp(FlagsAre("APE")))));
  EXPECT_FALSE(data(ecn::kEct0, "AC"));
  EXPECT_FALSE(data(ecn::kEct1));
  EXPECT_TRUE(data(ecn::kCe, "AC")) << "marked again on the way";
  tcp_info info{};
  ASSERT_TRUE(socket->get_option(IPPROTO_TCP, TCP_INFO, std::as_writable_bytes(std::span(&info, 1))).ok());
  EXPECT_EQ(info.tcpi_options & (TCPI_OPT_ECN | TCPI_OPT_ECN_SEEN), TCPI_OPT_ECN | TCPI_OPT_ECN_SEEN);
}

TEST(TcpEcn, AMarkAndItsCwrAreAcknowledgedAtOnce) {
  TcpPeer peer(with_ecn(1));
  TestSocket socket = connected(peer);
  uint32_t seq = peer.peer_iss + 1;
  auto data = [&](uint8_t tos, std::string_view flags = "A") {
    peer.send({.seq = seq, .ack = peer.iss + 1, .flags = flags, .payload = "x", .tos = tos});
    ++seq;
    return peer.take().size();
  };
  // Until the quick ACKs of the beginning are used up.
  for (int i = 0; i < 100 && data(ecn::kEct0) > 0; ++i) {
  }
  peer.advance(1s);
  peer.take();
  EXPECT_EQ(data(ecn::kCe), 1u);
  for (int i = 0; i < 10; ++i) data(ecn::kEct0);
  peer.advance(1s);
  peer.take();
  EXPECT_EQ(data(ecn::kEct0, "AC"), 1u);
}

TEST(TcpEcn, AMarkedRetransmissionThatHasArrivedIsNotEchoed) {
  TcpPeer peer(with_ecn(1));
  TestSocket socket = connected(peer);
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1, .payload = "abc", .tos = ecn::kEct0});
  peer.advance(300ms);
  peer.take();
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1, .payload = "abc", .tos = ecn::kCe});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"))));
}

}  // namespace
}  // namespace ustack::test
