// TCP Fast Open (RFC 7413), both sides, against a raw peer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "stack/tcp/fast_open.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::FastOpenKeys;
using tcp::State;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::SizeIs;

const ByteVector kCookie = bytes_of("cookie!!");
const SocketAddress kServer{TcpPeer::kPeer, 80};

auto Cookie(const ByteVector& bytes) { return FastOpenOption(Optional(bytes)); }
auto NoCookieOption() { return FastOpenOption(std::nullopt); }

tcp_info info_of(const TestSocket& socket) {
  tcp_info info{};
  EXPECT_TRUE(socket->get_option(IPPROTO_TCP, TCP_INFO, std::as_writable_bytes(std::span(&info, 1))).ok());
  return info;
}

// --- keys ---

// What Linux answers with the key 00112233-44556677-8899aabb-ccddeeff, so that a farm may be mixed:
// SipHash-2-4 of the addresses.
TEST(FastOpenKeys, CookieIsTheAddressesHash) {
  Settings settings;
  ASSERT_TRUE(settings.set("net.ipv4.tcp_fastopen_key", "00112233-44556677-8899aabb-ccddeeff").ok());
  FastOpenKeys keys;
  ASSERT_TRUE(keys.set(Bytes(settings.tcp_fastopen_key).first(16)));
  EXPECT_EQ(keys.bytes[0], std::byte{0x33}) << "words lie little-endian";
  tcp::FastOpenCookie cookie = keys.make(TcpPeer::kPeer, TcpPeer::kHost);
  EXPECT_EQ(cookie.length, 8);
  EXPECT_EQ(keys.check(cookie, TcpPeer::kPeer, TcpPeer::kHost), FastOpenKeys::Match::primary);
  EXPECT_EQ(keys.check(cookie, TcpPeer::kHost, TcpPeer::kPeer), FastOpenKeys::Match::none);
  cookie.bytes[7] ^= std::byte{1};
  EXPECT_EQ(keys.check(cookie, TcpPeer::kPeer, TcpPeer::kHost), FastOpenKeys::Match::none);
}

TEST(FastOpenKeys, BackupKeyIsStillAccepted) {
  ByteVector old_key = pattern_bytes(16, 1), new_key = pattern_bytes(16, 2);
  FastOpenKeys before, after;
  ASSERT_TRUE(before.set(old_key));
  ASSERT_TRUE(after.set(new_key + old_key));
  tcp::FastOpenCookie cookie = before.make(TcpPeer::kPeer, TcpPeer::kHost);
  EXPECT_EQ(after.check(cookie, TcpPeer::kPeer, TcpPeer::kHost), FastOpenKeys::Match::backup);
  EXPECT_FALSE(after.set(pattern_bytes(15)));
}

TEST(FastOpenKeys, SettingIsLinuxs) {
  Settings settings;
  const char* name = "net.ipv4.tcp_fastopen_key";
  EXPECT_TRUE(settings.set(name, "1-2-3-4,5-6-7-8").ok());
  EXPECT_EQ(settings.tcp_fastopen_keys, 2);
  EXPECT_EQ(settings.tcp_fastopen_key[16], std::byte{5});
  for (const char* wrong : {"", "1-2-3", "1-2-3-g", "1-2-3-4,", "1-2-3-4-5", "1-2-3-123456789", "1 -2-3-4"})
    EXPECT_EQ(settings.set(name, wrong).code(), EINVAL) << wrong;
}

// --- client ---

class FastOpenClient : public ::testing::Test {
 protected:
  /// sendto(MSG_FASTOPEN): what connect_with_data and then a send come to.
  TestSocket start(TcpPeer& peer, std::string_view data, int* code = nullptr) {
    TestSocket socket = peer.socket();
    int result = socket->connect_with_data(kServer).code();
    if (code != nullptr) *code = result;
    if (result == 0) socket.send(data);
    peer.run();
    peer.host_port = (*socket->local_address()).port;
    if (!peer.sent().empty()) peer.iss = peer.sent().back().tcp->seq;
    return socket;
  }
  /// A first connection that brings the cookie.
  void learn(TcpPeer& peer, const ByteVector& cookie = kCookie, uint16_t mss = 1460) {
    int code = 0;
    TestSocket socket = start(peer, "", &code);
    EXPECT_EQ(code, EINPROGRESS);
    EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), PayloadSize(0u), Cookie({}))));
    peer.send({.seq = 5000,
               .ack = peer.iss + 1,
               .flags = "SA",
               .options = mss_option(mss) + fast_open_option(cookie)});
    EXPECT_EQ(TcpPeer::state(socket), State::established);
    EXPECT_EQ(info_of(socket).tcpi_fastopen_client_fail, TFO_COOKIE_UNAVAILABLE);
    peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "RA"});
    peer.take();
  }
};

TEST_F(FastOpenClient, SecondSynCarriesCookieAndData) {
  TcpPeer peer;
  learn(peer);
  TestSocket socket = start(peer, "request");
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), Cookie(kCookie), Payload("request"),
                                           OptionKinds(ElementsAre(2, 4, 8, 1, 3, 34, 1, 1)))));
  EXPECT_EQ(socket->readiness() & ready::kOut, 0u) << "the handshake is under way";
  peer.send({.seq = 6000, .ack = peer.iss + 8, .flags = "SA", .options = mss_option(1460)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Seq(peer.iss + 8), PayloadSize(0u))));
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  EXPECT_NE(info_of(socket).tcpi_options & TCPI_OPT_SYN_DATA, 0);
  EXPECT_EQ(peer.counters().TcpExtTCPFastOpenActive, 1u);
  peer.send({.seq = 6001, .ack = peer.iss + 8, .flags = "PA", .payload = "answer"});
  EXPECT_EQ(socket.receive(), "answer");
  EXPECT_EQ(socket->connect(kServer).code(), EISCONN);
}

TEST_F(FastOpenClient, DataThatWasNotTakenGoesAfterTheHandshake) {
  TcpPeer peer;
  learn(peer);
  TestSocket socket = start(peer, "request");
  peer.take();
  peer.send({.seq = 6000, .ack = peer.iss + 1, .flags = "SA", .options = mss_option(1460)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(Seq(peer.iss + 1), Ack(6001u), Payload("request"))));
  EXPECT_EQ(info_of(socket).tcpi_options & TCPI_OPT_SYN_DATA, 0);
  EXPECT_EQ(info_of(socket).tcpi_fastopen_client_fail, TFO_DATA_NOT_ACKED);
  EXPECT_EQ(peer.counters().TcpExtTCPFastOpenActiveFail, 1u);
}

TEST_F(FastOpenClient, PartOfTheDataMayBeTaken) {
  TcpPeer peer;
  learn(peer);
  TestSocket socket = start(peer, "request");
  peer.take();
  peer.send({.seq = 6000, .ack = peer.iss + 4, .flags = "SA", .options = mss_option(1460)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(Seq(peer.iss + 4), Payload("uest"))));
}

TEST_F(FastOpenClient, AckBeyondTheDataIsReset) {
  TcpPeer peer;
  learn(peer);
  TestSocket socket = start(peer, "request");
  peer.take();
  peer.send({.seq = 6000, .ack = peer.iss + 9, .flags = "SA"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(peer.iss + 9))));
  EXPECT_EQ(TcpPeer::state(socket), State::syn_sent);
}

TEST_F(FastOpenClient, SynIsSentAgainWithoutAnyOfIt) {
  TcpPeer peer;
  learn(peer);
  TestSocket socket = start(peer, "request");
  peer.take();
  ASSERT_TRUE(peer.advance_until_sent(2s));
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), Seq(peer.iss), NoCookieOption(), PayloadSize(0u))));
  peer.send({.seq = 6000, .ack = peer.iss + 1, .flags = "SA", .options = mss_option(1460)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(Payload("request"))));
  EXPECT_EQ(info_of(socket).tcpi_fastopen_client_fail, TFO_SYN_RETRANSMITTED);
  // After a second such loss nobody tries for a while.
  TestSocket second = start(peer, "request");
  peer.take();
  ASSERT_TRUE(peer.advance_until_sent(2s));
  peer.take();
  peer.send({.seq = 7000, .ack = peer.iss + 1, .flags = "SA", .options = mss_option(1460)});
  peer.take();
  int code = 0;
  TestSocket third = start(peer, "request", &code);
  EXPECT_EQ(code, EINPROGRESS);
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), NoCookieOption(), PayloadSize(0u))));
}

TEST_F(FastOpenClient, OnlyAsMuchAsTheSynCanTake) {
  TcpPeer peer;
  learn(peer, kCookie, 1000);
  std::string data(3000, 'x');
  TestSocket socket = start(peer, data);
  // MSS 4, SACK and timestamps 12, window scale 4, cookie 12.
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), PayloadSize(1000u - 32))));
  peer.send({.seq = 6000, .ack = peer.iss + 1 + 968, .flags = "SA", .options = mss_option(1000)});
  size_t rest = 0;
  for (const CapturedFrame& frame : peer.take()) rest += frame.payload.size();
  EXPECT_EQ(rest, 3000u - 968);
}

TEST_F(FastOpenClient, ConnectOption) {
  TcpPeer peer;
  learn(peer);
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1).ok());
  EXPECT_EQ(socket->connect(kServer).code(), 0) << "at once";
  peer.run();
  EXPECT_THAT(peer.take(), IsEmpty()) << "the SYN waits for data";
  EXPECT_NE(socket->readiness() & ready::kOut, 0u);
  EXPECT_EQ(socket->connect(kServer).code(), EISCONN);
  EXPECT_EQ(socket.send("first"), 5);
  peer.run();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), Cookie(kCookie), Payload("first"))));
  EXPECT_EQ(socket.send("second"), -EAGAIN);
}

TEST_F(FastOpenClient, ClosedBeforeItsDataCame) {
  TcpPeer peer;
  learn(peer);
  uint64_t endpoints = peer.host().tcp().endpoint_count();
  {
    TestSocket socket = peer.socket();
    ASSERT_TRUE(socket->connect_with_data(kServer).ok());
  }
  peer.run();
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(peer.host().tcp().endpoint_count(), endpoints);
}

TEST_F(FastOpenClient, Refused) {
  TcpPeer peer;
  learn(peer);
  TestSocket socket = start(peer, "request");
  peer.take();
  peer.send({.seq = 0, .ack = peer.iss + 8, .flags = "RA"});
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), ECONNREFUSED);
}

TEST_F(FastOpenClient, OptionsErrors) {
  TcpPeer::Options options;
  options.settings.tcp_fastopen = 0;
  TcpPeer peer(options);
  TestSocket socket = peer.socket();
  EXPECT_EQ(socket->connect_with_data(kServer).code(), EOPNOTSUPP);
  EXPECT_EQ(socket.set(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1).code(), EOPNOTSUPP);
  TcpPeer on;
  TestSocket connected = on.connected();
  EXPECT_EQ(connected.set(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1).code(), EINVAL);
  EXPECT_EQ(connected.set(IPPROTO_TCP, TCP_FASTOPEN, 1).code(), EINVAL);
  EXPECT_EQ(connected.set(IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1).code(), EINVAL);
  EXPECT_EQ(connected.set(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 2).code(), EINVAL);
  EXPECT_EQ(connected->set_option(IPPROTO_TCP, TCP_FASTOPEN_KEY, pattern_bytes(8)).code(), EINVAL);
  EXPECT_EQ(connected->connect_with_data(kServer).code(), 0) << "connect() tells success once";
  EXPECT_EQ(connected->connect_with_data(kServer).code(), EISCONN);
}

TEST_F(FastOpenClient, WithoutCookie) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1).ok());
  ASSERT_TRUE(socket->connect_with_data(kServer).ok());
  socket.send("x");
  peer.run();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"), NoCookieOption(), Payload("x"))));
}

TEST_F(FastOpenClient, BlackHolePausesIt) {
  TcpPeer::Options options;
  options.settings.tcp_fastopen_blackhole_timeout_sec = 100;
  TcpPeer peer(options);
  learn(peer);
  TestSocket socket = start(peer, "x");
  peer.advance(8s);  // the third time-out is at 7 s
  peer.take();
  EXPECT_EQ(peer.counters().TcpExtTCPFastOpenBlackhole, 1u);
  int code = 0;
  TestSocket second = start(peer, "x", &code);
  EXPECT_EQ(code, EINPROGRESS);
  second.close();
  socket.close();
  peer.advance(100s);
  peer.take();
  TestSocket third = start(peer, "x", &code);
  EXPECT_EQ(code, 0);
}

// --- server ---

class FastOpenServer : public ::testing::Test {
 protected:
  FastOpenServer() {
    TcpPeer::Options options;
    options.settings.tcp_fastopen = 3;
    peer_ = std::make_unique<TcpPeer>(options);
    listener_ = peer().listen();
    EXPECT_TRUE(listener_.set(IPPROTO_TCP, TCP_FASTOPEN, 2).ok());
    peer().host_port = 80;
    peer().port = 1000;
  }
  TcpPeer& peer() { return *peer_; }
  /// Asks for a cookie.
  ByteVector ask() {
    peer().send({.seq = 1, .flags = "S", .options = mss_option(1460) + fast_open_option()});
    auto sent = peer().take();
    EXPECT_THAT(sent, ElementsAre(Tcp(FlagsAre("SA"), FastOpenOption(Optional(SizeIs(8))))));
    peer().send({.seq = 2, .ack = sent[0].tcp->seq + 1, .flags = "R"});
    ++peer().port;
    return *sent[0].tcp->fast_open;
  }
  /// A SYN with data; our ISS from the SYN-ACK, which acknowledges up to `ack`.
  void syn(const ByteVector& cookie, std::string data, uint32_t ack) {
    peer().send({.seq = 5000,
                 .flags = "S",
                 .payload = data,
                 .options = mss_option(1460) + timestamps_option(1, 0) + fast_open_option(cookie)});
    auto sent = peer().take();
    ASSERT_THAT(sent, ElementsAre(Tcp(FlagsAre("SA"), Ack(ack))));
    peer().iss = sent[0].tcp->seq;
    tsval_ = sent[0].tcp->timestamps->first;
  }
  PeerSegment segment(uint32_t seq, uint32_t ack, std::string_view flags = "A", std::string payload = "") {
    return {
        .seq = seq, .ack = ack, .flags = flags, .payload = payload, .options = timestamps_option(2, tsval_)};
  }
  std::unique_ptr<TcpPeer> peer_;
  TestSocket listener_;
  uint32_t tsval_ = 0;
};

TEST_F(FastOpenServer, DataIsReadAndAnsweredBeforeTheHandshakeIsComplete) {
  ByteVector cookie = ask();
  syn(cookie, "request", 5008);
  TestSocket socket = listener_.accept();
  ASSERT_TRUE(socket);
  EXPECT_EQ(TcpPeer::state(socket), State::syn_received);
  EXPECT_EQ(socket.receive(), "request");
  EXPECT_EQ(socket.send("answer"), 6);
  EXPECT_THAT(peer().take(),
              ElementsAre(Tcp(FlagsAre("PA"), Seq(peer().iss + 1), Ack(5008u), Payload("answer"))));
  peer().send(segment(5008, peer().iss + 7));
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  EXPECT_EQ((*socket->ioctl_value(SIOCOUTQ)), 0) << "the answer is acknowledged too";
  peer().send(segment(5008, peer().iss + 7, "PA", "more"));
  EXPECT_EQ(socket.receive(), "more");
  EXPECT_EQ(peer().counters().TcpExtTCPFastOpenPassive, 1u);
  EXPECT_EQ(peer().counters().TcpExtTCPFastOpenCookieReqd, 1u);
  EXPECT_EQ(peer().counters().TcpPassiveOpens, 1u);
}

TEST_F(FastOpenServer, AnswerThatGotLostIsSentAgain) {
  syn(ask(), "request", 5008);
  TestSocket socket = listener_.accept();
  socket.send("answer");
  peer().take();
  peer().send(segment(5008, peer().iss + 1));
  peer().take();
  ASSERT_TRUE(peer().advance_until_sent(5s));
  EXPECT_THAT(peer().take(), ElementsAre(Tcp(Seq(peer().iss + 1), Payload("answer"))));
}

TEST_F(FastOpenServer, SynAckIsSentAgain) {
  syn(ask(), "request", 5008);
  TestSocket socket = listener_.accept();
  socket.send("answer");
  peer().take();
  ASSERT_TRUE(peer().advance_until_sent(5s));
  EXPECT_THAT(peer().take(), ElementsAre(Tcp(FlagsAre("SA"), Seq(peer().iss), Ack(5008u))));
  peer().advance(5s);
  peer().take();
  // The client's SYN without data, because ours got lost: it is answered as the first one was.
  peer().send({.seq = 5000, .flags = "S", .options = mss_option(1460) + timestamps_option(2, 0)});
  EXPECT_THAT(peer().take(), ElementsAre(Tcp(FlagsAre("SA"), Seq(peer().iss), Ack(5008u))));
  peer().send(segment(5008, peer().iss + 1));
  EXPECT_EQ(TcpPeer::state(socket), State::established);
}

TEST_F(FastOpenServer, WrongCookieTakesNoDataButBringsAGoodOne) {
  ByteVector good = ask();
  peer().send({.seq = 5000,
               .flags = "S",
               .payload = "request",
               .options = mss_option(1460) + fast_open_option(kCookie)});
  EXPECT_THAT(peer().take(), ElementsAre(Tcp(FlagsAre("SA"), Ack(5001u), FastOpenOption(Optional(good)))));
  EXPECT_FALSE(listener_.accept());
  EXPECT_EQ(peer().counters().TcpExtTCPFastOpenPassiveFail, 1u);
}

TEST_F(FastOpenServer, QueueIsBounded) {
  ByteVector cookie = ask();
  for (int i = 0; i < 2; ++i) {
    syn(cookie, "x", 5002);
    ++peer().port;
  }
  syn(cookie, "x", 5001);
  EXPECT_EQ(peer().counters().TcpExtTCPFastOpenListenOverflow, 1u);
  // Accepted or not, they count until their handshake is complete.
  TestSocket first = listener_.accept();
  ++peer().port;
  syn(cookie, "x", 5001);
  peer().port = static_cast<uint16_t>((*first->remote_address()).port);
  peer().iss = TcpPeer::endpoint(first).tcb().snd.iss.value();
  peer().send(segment(5002, peer().iss + 1));
  EXPECT_EQ(TcpPeer::state(first), State::established);
  peer().port = 3000;
  syn(cookie, "x", 5002);
}

TEST_F(FastOpenServer, OffUnlessAsked) {
  for (int32_t mode : {0, 1, 3}) {
    TcpPeer::Options options;
    options.settings.tcp_fastopen = mode;
    TcpPeer other(options);
    TestSocket listener = other.listen();
    if (mode != 3) {
      ASSERT_TRUE(listener.set(IPPROTO_TCP, TCP_FASTOPEN, 5).ok());
    }
    other.host_port = 80;
    other.send({.seq = 1, .flags = "S", .payload = "x", .options = fast_open_option()});
    EXPECT_THAT(other.take(), ElementsAre(Tcp(FlagsAre("SA"), Ack(2u), NoCookieOption())));
  }
}

TEST_F(FastOpenServer, WithoutCookieAndForEveryListener) {
  TcpPeer::Options options;
  options.settings.tcp_fastopen = 2 | 0x200 | 0x400;
  TcpPeer other(options);
  TestSocket listener = other.listen();
  other.host_port = 80;
  other.send({.seq = 1, .flags = "S", .payload = "x"});
  EXPECT_THAT(other.take(), ElementsAre(Tcp(FlagsAre("SA"), Ack(3u))));
  EXPECT_EQ(listener.accept().receive(), "x");
}

TEST_F(FastOpenServer, ResetEndsIt) {
  syn(ask(), "request", 5008);
  TestSocket socket = listener_.accept();
  peer().send(segment(5008, peer().iss + 1, "RA"));
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_EQ(socket.receive(7), "request") << "what has come can still be read";
  int code = 0;
  socket.receive(1, &code);
  EXPECT_EQ(code, ECONNRESET);
}

TEST_F(FastOpenServer, ClosedBeforeTheHandshakeIsComplete) {
  syn(ask(), "request", 5008);
  {
    TestSocket socket = listener_.accept();
    EXPECT_EQ(socket.receive(), "request");
    socket.send("answer");
  }
  peer().run();
  EXPECT_THAT(peer().take(), ElementsAre(Tcp(Payload("answer"))));
  EXPECT_FALSE(peer().host().tcp().drained());
  peer().send(segment(5008, peer().iss + 7));
  EXPECT_THAT(peer().take(), ElementsAre(Tcp(FlagsAre("FA"), Seq(peer().iss + 7))));
  peer().send(segment(5008, peer().iss + 8, "FA"));
  EXPECT_EQ(peer().host().tcp().time_wait_count(), 1u);
}

TEST_F(FastOpenServer, ShutdownWaitsForTheHandshake) {
  syn(ask(), "request", 5008);
  TestSocket socket = listener_.accept();
  EXPECT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  EXPECT_EQ(socket.send("x"), -EPIPE);
  EXPECT_EQ(socket.receive(), "request");
  peer().run();
  peer().take();
  peer().send(segment(5008, peer().iss + 1));
  EXPECT_THAT(peer().take(), ElementsAre(Tcp(FlagsAre("FA"))));
  EXPECT_EQ(TcpPeer::state(socket), State::fin_wait_1);
}

TEST_F(FastOpenServer, ListenerThatCloses) {
  ByteVector cookie = ask();
  syn(cookie, "a", 5002);
  TestSocket accepted = listener_.accept();
  uint32_t iss = peer().iss;
  uint32_t stamp = tsval_;
  ++peer().port;
  syn(cookie, "b", 5002);
  listener_.close();
  peer().run();
  EXPECT_THAT(peer().take(), ElementsAre(Tcp(FlagsAre("RA"), DstPort(peer().port))))
      << "nobody will accept it";
  --peer().port;
  tsval_ = stamp;
  peer().send(segment(5002, iss + 1));
  EXPECT_EQ(TcpPeer::state(accepted), State::established) << "the accepted one lives on";
}

TEST_F(FastOpenServer, NobodyAnswers) {
  syn(ask(), "request", 5008);
  TestSocket socket = listener_.accept();
  peer().advance(120s);
  peer().take();
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), ETIMEDOUT);
}

}  // namespace
}  // namespace ustack::test
