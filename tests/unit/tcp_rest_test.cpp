// Connections at rest: when, what is kept, and what wakes them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include <cstring>

#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class TcpRest : public ::testing::Test {
 protected:
  static TcpPeer::Options options(int32_t most_awake) {
    TcpPeer::Options options;
    options.settings.tcp_awake = most_awake;
    options.recycle = false;  // so that memory can be refused
    return options;
  }
  TcpRest() : TcpRest(0) {}
  explicit TcpRest(int32_t most_awake) : peer(options(most_awake)) {
    socket = peer.connected(mss_option(1460) + timestamps_option(100, 0) + sack_permitted_option());
  }
  ~TcpRest() override {
    peer.arena().never_fail();
    socket.close();
  }
  bool awake() const { return TcpPeer::endpoint(socket).awake(); }
  uint32_t next_from_peer() const { return peer.peer_iss + 1; }
  uint32_t next_from_us() const { return peer.iss + 1; }
  /// A request of the peer and its answer.
  void exchange() {
    peer.send({.seq = next_from_peer(), .ack = next_from_us(), .payload = "request"});
    EXPECT_EQ(socket.receive(100), "request");
    socket.send("answer");
    peer.run();
    peer.peer_iss += 7;
    peer.iss += 6;
    peer.send({.seq = next_from_peer(), .ack = next_from_us()});
    peer.take();
  }
  void come_to_rest() {
    peer.advance(3s);
    ASSERT_FALSE(awake());
    EXPECT_THAT(peer.take(), IsEmpty()) << "the peer sees nothing of it";
  }
  void stays_awake() {
    peer.advance(10s);
    EXPECT_TRUE(awake());
  }
  tcp_info info() {
    tcp_info info{};
    (void)socket->get_option(IPPROTO_TCP, TCP_INFO, std::as_writable_bytes(std::span(&info, 1)));
    return info;
  }

  TcpPeer peer;
  TestSocket socket;
};

TEST_F(TcpRest, ComesAfterATimeInWhichNothingHappened) {
  exchange();
  peer.advance(150ms);
  EXPECT_TRUE(awake());
  peer.advance(300ms);
  EXPECT_FALSE(awake());
  EXPECT_EQ(peer.counters().UstackTcpRests, 1u);
  EXPECT_EQ(peer.host().tcp().awakes().live(), 0u);
}

TEST_F(TcpRest, ComesWithoutAnyDataAsWell) { come_to_rest(); }

TEST_F(TcpRest, ComesToAcceptedConnectionsAndNotToListeners) {
  TestSocket listener = peer.listen();
  TestSocket accepted =
      peer.accepted(listener, mss_option(1460) + window_scale_option(7) + sack_permitted_option());
  peer.advance(3s);
  EXPECT_FALSE(TcpPeer::endpoint(accepted).awake());
  EXPECT_TRUE(TcpPeer::endpoint(listener).awake());
}

TEST_F(TcpRest, TakesLittleMemory) {
  const size_t before = peer.arena().in_use();
  come_to_rest();
  EXPECT_GT(before - peer.arena().in_use(), sizeof(tcp::Awake) * 3 / 4) << "the record is what remains of it";
}

TEST_F(TcpRest, EndsWithASegmentOfThePeer) {
  exchange();
  come_to_rest();
  exchange();
  EXPECT_TRUE(awake());
  EXPECT_EQ(peer.counters().UstackTcpAwakenings, 1u);
  come_to_rest();
  exchange();
}

TEST_F(TcpRest, EndsWithASendOfTheProgram) {
  exchange();
  come_to_rest();
  socket.send("news");
  peer.run();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(Seq(next_from_us()), Ack(next_from_peer()), Payload("news"))));
}

TEST_F(TcpRest, OfWhichAReaderSeesNothing) {
  exchange();
  come_to_rest();
  int code = 0;
  EXPECT_EQ(socket.receive(100, &code), "");
  EXPECT_EQ(code, EAGAIN);
  EXPECT_TRUE(socket.writable());
  EXPECT_FALSE(socket.readable());
  EXPECT_EQ(*socket->remote_address(), (SocketAddress{TcpPeer::kPeer, 80}));
  EXPECT_EQ(socket->local_address()->address, TcpPeer::kHost);
  EXPECT_TRUE(socket->lingering_done());
  EXPECT_EQ(socket->receive_timeout(), 0s);
  EXPECT_EQ(socket->receive_low_water(), 1u);
  EXPECT_EQ(TcpPeer::state(socket), tcp::State::established);
  EXPECT_FALSE(awake()) << "such questions don't end it";
}

TEST_F(TcpRest, LosesNothingThatTcpInfoTells) {
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_NODELAY, 1).ok());
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_SNDBUF, 30000).ok());
  for (int i = 0; i < 5; ++i) exchange();
  const tcp_info before = info();
  come_to_rest();
  tcp_info after = info();
  EXPECT_EQ(after.tcpi_last_data_sent, before.tcpi_last_data_sent + 3000);
  EXPECT_EQ(after.tcpi_last_ack_recv, before.tcpi_last_ack_recv + 3000);
  after.tcpi_last_data_sent = before.tcpi_last_data_sent;
  after.tcpi_last_data_recv = before.tcpi_last_data_recv;
  after.tcpi_last_ack_recv = before.tcpi_last_ack_recv;
  EXPECT_EQ(std::memcmp(&after, &before, sizeof before), 0);
  EXPECT_EQ(socket.get_int(IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_SNDBUF), 60000);
}

TEST_F(TcpRest, KeepsAnotherCongestionControl) {
  constexpr char kReno[] = "reno";
  ASSERT_TRUE(socket->set_option(IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(kReno))).ok());
  exchange();
  come_to_rest();
  exchange();
  std::array<std::byte, 16> name{};
  ASSERT_TRUE(socket->get_option(IPPROTO_TCP, TCP_CONGESTION, name).ok());
  EXPECT_STREQ(reinterpret_cast<const char*>(name.data()), "reno");
}

TEST_F(TcpRest, EndsWithTheFinOfThePeer) {
  come_to_rest();
  peer.send({.seq = next_from_peer(), .ack = next_from_us(), .flags = "FA"});
  EXPECT_EQ(TcpPeer::state(socket), tcp::State::close_wait);
  EXPECT_TRUE(socket.readable());
  stays_awake();
}

TEST_F(TcpRest, EndsWithItsReset) {
  come_to_rest();
  peer.send({.seq = next_from_peer(), .flags = "R"});
  EXPECT_EQ(TcpPeer::state(socket), tcp::State::closed);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), ECONNRESET);
}

TEST_F(TcpRest, EndsWithClose) {
  come_to_rest();
  socket.close();
  peer.run();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("FA"), Seq(next_from_us()))));
}

TEST_F(TcpRest, EndsWithShutdown) {
  come_to_rest();
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("FA"), Seq(next_from_us()))));
  EXPECT_EQ(TcpPeer::state(socket), tcp::State::fin_wait_1);
}

TEST_F(TcpRest, KeepaliveGoesOn) {
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_KEEPIDLE, 10).ok());
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_KEEPINTVL, 5).ok());
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_KEEPCNT, 3).ok());
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_KEEPALIVE, 1).ok());
  exchange();
  come_to_rest();
  peer.advance(8s);
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(Seq(next_from_us() - 1))));
  peer.send({.seq = next_from_peer(), .ack = next_from_us()});
  come_to_rest();
  peer.advance(30s);
  EXPECT_EQ(TcpPeer::state(socket), tcp::State::closed) << "the probes had no answer";
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), ETIMEDOUT);
}

TEST_F(TcpRest, AnIcmpErrorIsAboutNothingThatIsInFlight) {
  come_to_rest();
  peer.send_icmp(3, 1, 0, next_from_us());
  EXPECT_EQ(peer.counters().TcpExtOutOfWindowIcmps, 1u);
  EXPECT_FALSE(awake());
}

// --- what doesn't come to rest ---

TEST_F(TcpRest, NotBeforeWhatWasReceivedIsRead) {
  peer.send({.seq = next_from_peer(), .ack = next_from_us(), .payload = "request"});
  stays_awake();
  EXPECT_EQ(socket.receive(100), "request");
  peer.take();
  come_to_rest();
}

TEST_F(TcpRest, IsNotTriedForNothing) {
  peer.send({.seq = next_from_peer(), .ack = next_from_us(), .payload = "request"});
  stays_awake();
  EXPECT_EQ(peer.host().next_deadline(), kNever) << "what keeps it awake doesn't end of itself";
  EXPECT_EQ(socket.receive(100), "request");
  peer.take();
  come_to_rest();
  EXPECT_EQ(peer.host().next_deadline(), kNever);
}

TEST_F(TcpRest, NotBeforeWhatWasSentIsAcknowledged) {
  socket.send("answer");
  peer.run();
  stays_awake();
  peer.send({.seq = next_from_peer(), .ack = next_from_us() + 6});
  peer.take();
  come_to_rest();
}

TEST_F(TcpRest, NotWithAGapInWhatWasReceived) {
  peer.send({.seq = next_from_peer() + 3, .ack = next_from_us(), .payload = "uest"});
  stays_awake();
}

TEST_F(TcpRest, NotWhereACallMayWaitForALimitedTime) {
  const timeval second{.tv_sec = 1, .tv_usec = 0};
  ASSERT_TRUE(socket->set_option(SOL_SOCKET, SO_RCVTIMEO, std::as_bytes(std::span(&second, 1))).ok());
  stays_awake();
}

TEST_F(TcpRest, NotWithAHigherLowWaterMark) {
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_RCVLOWAT, 100).ok());
  stays_awake();
}

TEST_F(TcpRest, NotBeforeItIsAccepted) {
  TestSocket listener = peer.listen();
  peer.host_port = 80;
  peer.port = 2000;
  peer.send({.seq = 5000, .flags = "S"});
  const auto answer = peer.take();
  ASSERT_EQ(answer.size(), 1u);
  peer.send({.seq = 5001, .ack = answer[0].tcp->seq + 1});
  peer.advance(3s);
  EXPECT_EQ(peer.host().tcp().awakes().live(), 2u) << "the listener and its child";
  TestSocket accepted = listener.accept();
  EXPECT_TRUE(TcpPeer::endpoint(accepted).awake());
}

class TcpRestWhereFewAreAwake : public TcpRest {
 protected:
  TcpRestWhereFewAreAwake() : TcpRest(2) {}
};

TEST_F(TcpRestWhereFewAreAwake, DoesNotCome) {
  stays_awake();
  EXPECT_EQ(peer.counters().UstackTcpRests, 0u);
}

TEST_F(TcpRestWhereFewAreAwake, ComesOnlyToAsManyAsThereAreTooMany) {
  TestSocket listener = peer.listen();
  std::vector<TestSocket> accepted;
  for (uint16_t i = 0; i < 5; ++i) {
    peer.port = static_cast<uint16_t>(2000 + i);
    accepted.push_back(peer.accepted(listener));
  }
  peer.advance(5s);
  EXPECT_EQ(peer.host().tcp().awakes().live(), 2u);
}

// --- without memory ---

TEST_F(TcpRest, DoesNotComeWithoutMemoryForTheRecord) {
  peer.arena().fail_after(0);
  peer.advance(3s);
  EXPECT_TRUE(awake());
  peer.arena().never_fail();
  peer.advance(3s);
  EXPECT_FALSE(awake());
}

TEST_F(TcpRest, ACallThatCantWakeItFails) {
  come_to_rest();
  peer.arena().fail_after(0);
  EXPECT_EQ(socket->reserve_send(10).code(), ENOBUFS);
  EXPECT_EQ(socket.set(IPPROTO_TCP, TCP_NODELAY, 1).code(), ENOBUFS);
  EXPECT_EQ(socket->shutdown(ShutdownHow::both).code(), ENOBUFS);
  EXPECT_FALSE(awake());
  peer.arena().never_fail();
  exchange();
}

TEST_F(TcpRest, ASegmentThatCantWakeItIsLost) {
  come_to_rest();
  peer.arena().fail_after(1);  // the segment's own
  peer.send({.seq = next_from_peer(), .ack = next_from_us(), .payload = "request"});
  EXPECT_FALSE(awake());
  peer.arena().never_fail();
  exchange();
}

TEST_F(TcpRest, CloseThatCantWakeItGivesUpTheConnection) {
  come_to_rest();
  peer.arena().fail_after(0);
  socket.close();
  EXPECT_EQ(peer.counters().TcpExtTCPAbortOnMemory, 1u);
  EXPECT_EQ(peer.counters().TcpCurrEstab, 0u);
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
  peer.arena().never_fail();
  peer.send({.seq = next_from_peer(), .ack = next_from_us(), .payload = "request"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"))));
}

}  // namespace
}  // namespace ustack::test
