// TCP_RTO_MAX_MS, TCP_RTO_MIN_US, TCP_DELACK_MAX_US: what they do to the timers.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

constexpr int kRtoMaxMs = 44, kRtoMinUs = 45, kAckDelayMaxUs = 46;

class TcpTimerBounds : public ::testing::Test {
 protected:
  ~TcpTimerBounds() override { socket.close(); }
  /// The time until something is sent, to the millisecond, which is the timers' tick.
  Duration wait() {
    Instant start = peer.now();
    EXPECT_TRUE(peer.advance_until_sent(300s));
    peer.take();
    return std::chrono::floor<std::chrono::milliseconds>(peer.now() - start);
  }
  TcpPeer peer;
  TestSocket socket = peer.connected();
};

TEST_F(TcpTimerBounds, TheLargestTimeoutIsAsSet) {
  ASSERT_TRUE(socket.set(IPPROTO_TCP, kRtoMaxMs, 1000).ok());
  socket.send("lost");
  peer.take();
  for (int i = 0; i < 4; ++i) wait();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(wait(), 1s);
}

TEST_F(TcpTimerBounds, AndItIsKnownSoonerThatThePeerIsGone) {
  ASSERT_TRUE(socket.set(IPPROTO_TCP, kRtoMaxMs, 1000).ok());
  socket.send("lost");
  peer.advance(16s);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), ETIMEDOUT) << "15 retries, of which 13 took a second";
}

TEST_F(TcpTimerBounds, TheSmallestTimeoutIsAsSet) {
  ASSERT_TRUE(socket.set(IPPROTO_TCP, kRtoMinUs, 20000).ok());
  for (uint32_t i = 0; i < 20; ++i) {
    socket.send("x");
    peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 2 + i});
  }
  peer.take();
  socket.send("lost");
  peer.take();
  EXPECT_GE(wait(), 20ms);
  EXPECT_LE(wait(), 50ms);
}

TEST_F(TcpTimerBounds, AnAckIsDelayedForNoLonger) {
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_QUICKACK, 0).ok());
  ASSERT_TRUE(socket.set(IPPROTO_TCP, kAckDelayMaxUs, 10000).ok());
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1, .payload = "hello"});
  EXPECT_EQ(wait(), 10ms);
}

}  // namespace
}  // namespace ustack::test
