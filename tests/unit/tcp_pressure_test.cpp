// net.ipv4.tcp_mem: what all sockets' queues may hold together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "stack/host.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// In pages: no pressure below 30, pressure above 40, nothing above 100.
class TcpPressure : public ::testing::Test {
 protected:
  static TcpPeer::Options options() {
    TcpPeer::Options options;
    options.settings.tcp_mem = {30, 40, 100};
    return options;
  }
  ~TcpPressure() override { socket.close(); }
  uint64_t charged() { return peer.host().blocks().charged(); }
  void data(uint32_t offset, uint32_t length) {
    peer.send({.seq = peer.peer_iss + 1 + offset, .ack = peer.iss + 1, .payload = std::string(length, 'x')});
  }
  /// What is in the way: other sockets' queues.
  void occupy(uint32_t pages) { peer.host().blocks().charge(pages * 4096); }
  void vacate(uint32_t pages) { peer.host().blocks().uncharge(pages * 4096); }
  TcpPeer peer{options()};
  TestSocket socket = peer.connected(mss_option(1460) + sack_permitted_option());
};

TEST_F(TcpPressure, QueuesCountByTrueSize) {
  EXPECT_EQ(charged(), 0u);
  data(0, 1000);
  const tcp::Tcb& tcb = TcpPeer::endpoint(socket).tcb();
  EXPECT_EQ(charged(), tcb.rcv.true_size());
  EXPECT_GE(charged(), 1000u);
  data(2000, 1000);
  EXPECT_EQ(charged(), tcb.rcv.true_size()) << "what is out of order too";
  socket.send("hello");
  EXPECT_EQ(charged(), tcb.rcv.true_size() + tcb.snd.buffer.true_size());
  socket.receive();
  data(1000, 1000);
  socket.receive();
  peer.take();
  peer.send({.seq = peer.peer_iss + 3001, .ack = peer.iss + 6});
  EXPECT_EQ(charged(), 0u);
}

TEST_F(TcpPressure, PressureBeginsAboveTheSecondAndEndsBelowTheFirst) {
  tcp::Protocol& tcp = peer.host().tcp();
  occupy(40);
  EXPECT_FALSE(tcp.under_memory_pressure());
  occupy(1);
  EXPECT_TRUE(tcp.under_memory_pressure());
  vacate(10);
  EXPECT_TRUE(tcp.under_memory_pressure());
  peer.advance(1s);
  vacate(1);
  EXPECT_FALSE(tcp.under_memory_pressure());
  EXPECT_EQ(peer.counters().TcpExtTCPMemoryPressures, 1u);
  EXPECT_EQ(peer.counters().TcpExtTCPMemoryPressuresChrono, 1000u);
  vacate(30);
}

TEST_F(TcpPressure, UnderPressureTheWindowCloses) {
  // How far the right edge moves while the second half of the buffer fills.
  auto edge = [this] { return TcpPeer::endpoint(socket).tcb().rcv.rcv_adv; };
  auto moved = [&] {
    socket = peer.connected(mss_option(1460));
    for (uint32_t offset = 0; offset < 40 * 1460; offset += 1460) data(offset, 1460);
    SeqNum before = edge();
    for (uint32_t offset = 40 * 1460; offset < 50 * 1460; offset += 1460) data(offset, 1460);
    uint32_t by = edge() - before;
    socket.receive();
    socket.close();
    peer.take();
    return by;
  };
  EXPECT_GT(moved(), 0u) << "else this shows nothing";
  occupy(45);
  EXPECT_EQ(moved(), 0u);
  vacate(45);
}

TEST_F(TcpPressure, UnderPressureBuffersStay) {
  auto grown = [this] {
    socket = peer.connected(mss_option(1460));
    const uint32_t before = TcpPeer::endpoint(socket).options().send_limit;
    // More than cwnd lets go, so that it grows.
    for (uint32_t acked = 0; acked < 60 * 1460; acked += 10 * 1460) {
      socket.send(std::string(20 * 1460, 'x'));
      peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1 + acked});
    }
    const uint32_t after = TcpPeer::endpoint(socket).options().send_limit;
    socket.close();
    peer.take();
    return after - before;
  };
  EXPECT_GT(grown(), 0u);
  occupy(45);
  EXPECT_EQ(grown(), 0u);
  vacate(45);
}

TEST_F(TcpPressure, BeyondTheThirdEverybodyHasALittle) {
  occupy(101);
  const size_t sent = socket.send(std::string(100000, 'x'));
  EXPECT_GT(sent, 3000u) << "tcp_wmem's smallest, by true size";
  EXPECT_LT(sent, 4096u);
  EXPECT_EQ(socket->reserve_send(1).code(), EAGAIN);
  data(0, 1460);
  data(1460, 1460);
  data(2920, 1460);
  EXPECT_LE(socket.receive().size(), 2u * 1460) << "tcp_rmem's smallest";
  EXPECT_GE(peer.counters().TcpExtTCPRcvQDrop, 1u);
  vacate(101);
}

TEST_F(TcpPressure, WhatCameOutOfOrderMakesRoom) {
  for (uint32_t i = 1; i < 6; ++i) data(i * 1460, 1460);
  peer.take();
  occupy(101);
  data(0, 1460);
  EXPECT_EQ(socket.receive().size(), 1460u);
  EXPECT_EQ(peer.counters().TcpExtOfoPruned, 1u);
  EXPECT_THAT(peer.take().back(), Tcp(Ack(peer.peer_iss + 1 + 1460), SackBlocks(IsEmpty())));
  vacate(101);
}

TEST_F(TcpPressure, AnOrphanThatHoldsMuchIsReset) {
  EXPECT_GT(socket.send(std::string(100000, 'x')), 4608u);
  peer.take();
  occupy(101);
  socket.close();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("RA"))));
  EXPECT_EQ(peer.counters().TcpExtTCPAbortOnMemory, 1u);
  vacate(101);
}

}  // namespace
}  // namespace ustack::test
