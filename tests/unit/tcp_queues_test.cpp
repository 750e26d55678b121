// Links with several queues: by which one a connection's frames leave, and whom accept(2) gives a connection.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using testing::Each;
using testing::Field;
using testing::Not;
using testing::SizeIs;

auto ByQueue(uint8_t queue) { return Each(Field("queue", &CapturedFrame::queue, queue)); }

/// The SYN comes while the thread of `queue` drives; our initial sequence number.
uint32_t syn(TcpPeer& peer, uint16_t port, uint8_t queue) {
  peer.host().set_queue(queue);
  peer.host_port = 80;
  peer.port = port;
  peer.send({.seq = 5000, .flags = "S"});
  auto answer = peer.take();
  EXPECT_THAT(answer, SizeIs(1));
  EXPECT_THAT(answer, ByQueue(queue));
  return answer.empty() ? 0 : answer[0].tcp->seq;
}
void third_segment(TcpPeer& peer, uint16_t port, uint32_t iss) {
  peer.port = port;
  peer.send({.seq = 5001, .ack = iss + 1});
}
uint16_t port_of(const TestSocket& socket) { return (*socket->remote_address()).port; }

TEST(TcpQueues, FramesLeaveByTheQueueOfTheThreadThatHasUsedTheConnectionLast) {
  TcpPeer peer;
  peer.host().set_queue(2);
  TestSocket socket = peer.connect();
  EXPECT_THAT(peer.sent(), ByQueue(2));
  peer.take();
  peer.host().set_queue(0);  // of the thread that takes in what comes
  peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA"});
  EXPECT_THAT(peer.sent(), SizeIs(1));
  EXPECT_THAT(peer.take(), ByQueue(2));

  peer.host().set_queue(3);
  ASSERT_EQ(socket.send("hello"), 5);
  peer.run();
  EXPECT_THAT(peer.sent(), SizeIs(1));
  EXPECT_THAT(peer.take(), ByQueue(3));
  // It is sent again by a timer that another thread runs.
  peer.host().set_queue(0);
  ASSERT_TRUE(peer.advance_until_sent(5s));
  EXPECT_THAT(peer.take(), ByQueue(3));
  peer.send({.seq = 5001, .ack = peer.iss + 6, .payload = "answer"});
  peer.advance(1s);
  EXPECT_THAT(peer.sent(), Not(SizeIs(0)));
  EXPECT_THAT(peer.take(), ByQueue(3)) << "the ACK";

  peer.host().set_queue(1);
  EXPECT_EQ(socket.receive(), "answer");
  peer.host().set_queue(0);
  peer.send({.seq = 5007, .ack = peer.iss + 6, .flags = "FA"});
  EXPECT_THAT(peer.sent(), Not(SizeIs(0)));
  EXPECT_THAT(peer.take(), ByQueue(1)) << "reading is using it";
}

TEST(TcpQueues, WhatBelongsToNoConnectionLeavesByAny) {
  TcpPeer peer;
  peer.host_port = 81;
  peer.send({.seq = 5000, .flags = "S"});
  EXPECT_THAT(peer.sent(), SizeIs(1));
  EXPECT_THAT(peer.take(), ByQueue(kAnyQueue)) << "a reset";
}

TEST(TcpQueues, AcceptPrefersTheCallersQueueForAMillisecond) {
  TcpPeer peer;
  TestSocket listener = peer.listen(8);
  const uint32_t first = syn(peer, 1001, 0), second = syn(peer, 1002, 1), third = syn(peer, 1003, 1);
  third_segment(peer, 1001, first);
  third_segment(peer, 1002, second);
  third_segment(peer, 1003, third);
  peer.host().set_queue(1);
  TestSocket one = listener.accept();
  EXPECT_EQ(port_of(one), 1002);
  peer.advance(2ms);
  TestSocket other = listener.accept();
  EXPECT_EQ(port_of(other), 1001) << "it has waited for long enough";
  TestSocket last = listener.accept();
  EXPECT_EQ(port_of(last), 1003);
  EXPECT_EQ(listener->accept().code(), EAGAIN);

  // An accepted connection is the caller's.
  peer.take();
  peer.host().set_queue(0);
  peer.port = 1001;
  peer.send({.seq = 5001, .ack = first + 1, .flags = "FA"});
  EXPECT_THAT(peer.sent(), Not(SizeIs(0)));
  EXPECT_THAT(peer.take(), ByQueue(1));
}

TEST(TcpQueues, AcceptTakesAnothersConnectionWhereThereIsNoneOfTheCallers) {
  TcpPeer peer;
  TestSocket listener = peer.listen(8);
  const uint32_t first = syn(peer, 1001, 0);
  third_segment(peer, 1001, first);
  peer.host().set_queue(1);
  TestSocket one = listener.accept();
  EXPECT_EQ(port_of(one), 1001);
}

}  // namespace
}  // namespace ustack::test
