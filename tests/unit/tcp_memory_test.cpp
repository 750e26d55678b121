// Memory that runs out at every possible moment: nothing crashes, nothing leaks, and what was agreed goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::State;

class TcpMemory : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(FailAfter, TcpMemory, ::testing::Range(0, 60));

TEST_P(TcpMemory, ActiveOpenDataAndClose) {
  TcpPeer::Options options;
  options.recycle = false;
  TcpPeer peer(options);
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket);
  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  int code = socket->connect({TcpPeer::kPeer, 80}).code();
  peer.run();
  peer.arena().never_fail();
  if (code != EINPROGRESS) {
    EXPECT_TRUE(code == ENOBUFS || code == EADDRNOTAVAIL) << code;
    EXPECT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS) << "and then it works";
  }
  // What could not be sent is sent again.
  peer.advance(3s);
  auto syns = peer.take();
  ASSERT_FALSE(syns.empty());
  peer.host_port = (*socket->local_address()).port;
  uint32_t iss = syns[0].tcp->seq;
  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  for (int i = 0; i < 2; ++i) {
    peer.send({.seq = 5000, .ack = iss + 1, .flags = "SA"});
    peer.arena().never_fail();
  }
  ASSERT_EQ(TcpPeer::state(socket), State::established);

  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  int64_t sent = socket.send(std::string(5000, 'x'));
  peer.run();
  peer.arena().never_fail();
  EXPECT_TRUE(sent > 0 || sent == -ENOBUFS) << sent;
  if (sent > 0) {
    peer.advance(1s);
    peer.send({.seq = 5001, .ack = iss + 1 + static_cast<uint32_t>(std::min<int64_t>(sent, 536))});
    peer.advance(10s);
    uint32_t furthest = 0;
    for (const CapturedFrame& frame : peer.take())
      furthest = std::max(furthest, frame.tcp->seq - iss - 1 + static_cast<uint32_t>(frame.payload.size()));
    EXPECT_GE(furthest, std::min<int64_t>(sent, 1072)) << "it went out in the end";
  }

  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  peer.send({.seq = 5101, .ack = iss + 1, .payload = std::string(100, 'b')});
  peer.send({.seq = 5001, .ack = iss + 1, .payload = std::string(100, 'a')});
  peer.arena().never_fail();
  peer.send({.seq = 5001, .ack = iss + 1, .payload = std::string(200, 'c')});
  std::string got = socket.receive();
  EXPECT_EQ(got.size(), 200u);

  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  socket.close();
  peer.run();
  peer.arena().never_fail();
  peer.advance(1000s);
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
}

TEST_P(TcpMemory, PassiveOpen) {
  TcpPeer::Options options;
  options.recycle = false;
  TcpPeer peer(options);
  TestSocket listener = peer.listen();
  ASSERT_TRUE(listener);
  peer.host_port = 80;
  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  peer.send({.seq = 5000, .flags = "S"});
  peer.arena().never_fail();
  peer.take();
  peer.send({.seq = 5000, .flags = "S"});
  auto answer = peer.take();
  ASSERT_FALSE(answer.empty());
  uint32_t iss = answer.back().tcp->seq;
  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  peer.send({.seq = 5001, .ack = iss + 1});
  peer.arena().never_fail();
  peer.send({.seq = 5001, .ack = iss + 1});
  TestSocket socket = listener.accept();
  ASSERT_TRUE(socket);
  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  peer.send({.seq = 5001, .ack = iss + 1, .flags = "FA"});
  peer.arena().never_fail();
  peer.send({.seq = 5001, .ack = iss + 1, .flags = "FA"});
  EXPECT_EQ(TcpPeer::state(socket), State::close_wait);
  socket.close();
  peer.run();
  peer.arena().fail_after(static_cast<uint64_t>(GetParam()));
  peer.send({.seq = 5002, .ack = iss + 2});
  peer.arena().never_fail();
  peer.send({.seq = 5002, .ack = iss + 2});
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u);
}

TEST(TcpMemoryLimit, SocketAndListenerSayEnobufs) {
  TcpPeer::Options options;
  options.recycle = false;
  TcpPeer peer(options);
  peer.arena().fail_after(0);
  EXPECT_EQ(peer.host().open_socket(AF_INET, SOCK_STREAM, 0).code(), ENOBUFS);
  peer.arena().never_fail();
  TestSocket socket = peer.socket();
  peer.arena().fail_after(0);
  EXPECT_EQ(socket->bind({IpAddress::any(Family::ipv4), 80}).code(), ENOBUFS);
  EXPECT_EQ(socket->listen(1).code(), ENOBUFS);
  peer.arena().never_fail();
  EXPECT_TRUE(socket->bind({IpAddress::any(Family::ipv4), 80}).ok());
  peer.arena().fail_after(0);
  EXPECT_EQ(socket->listen(1).code(), ENOBUFS);
  peer.arena().never_fail();
  EXPECT_TRUE(socket->listen(1).ok());
}

}  // namespace
}  // namespace ustack::test
