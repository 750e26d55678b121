// Pacing: segments are spaced by a timer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/inet_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

void limit_rate(const TestSocket& socket, uint64_t rate) {
  ASSERT_TRUE(socket->set_option(SOL_SOCKET, SO_MAX_PACING_RATE, std::as_bytes(std::span(&rate, 1))).ok());
}

/// Acknowledges all at once for ever, so that only pacing holds back; bytes that came in each of the next
/// milliseconds.
std::vector<uint32_t> bytes_by_millisecond(TcpPeer& peer, int milliseconds) {
  std::vector<uint32_t> result;
  for (int ms = 0; ms < milliseconds; ++ms) {
    uint32_t bytes = 0;
    for (int i = 0; i < 10; ++i) {
      peer.advance(100us);
      uint32_t end = 0;
      for (const CapturedFrame& frame : peer.take()) {
        bytes += static_cast<uint32_t>(frame.payload.size());
        end = frame.tcp->seq + static_cast<uint32_t>(frame.payload.size());
      }
      if (end != 0) peer.send({.seq = peer.peer_iss + 1, .ack = end});
    }
    result.push_back(bytes);
  }
  return result;
}

TEST(TcpPacing, KeepsToTheRateThatIsSet) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000));
  limit_rate(socket, 2'000'000);
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_SNDBUF, 400'000).ok());
  ASSERT_EQ(socket.send(std::string(300'000, 'a')), 300'000);
  peer.run();
  std::vector<uint32_t> bytes = bytes_by_millisecond(peer, 120);
  uint32_t sum = 0;
  for (size_t ms = 10; ms < 110; ++ms) {
    sum += bytes[ms];
    EXPECT_LE(bytes[ms], 4000u) << "never more than two milliseconds' worth at " << ms;
  }
  EXPECT_NEAR(sum, 200'000, 4000) << "in 100 ms";
}

TEST(TcpPacing, WithoutALimitThereIsNone) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000));
  ASSERT_EQ(socket.send(std::string(40'000, 'a')), 40'000);
  peer.run();
  std::vector<uint32_t> bytes = bytes_by_millisecond(peer, 2);
  EXPECT_EQ(bytes[0], 40'000u);
}

TEST(TcpPacing, SuperframesAreAMillisecondsWorth) {
  TcpPeer::Options options;
  options.link = superframe_link();
  TcpPeer peer(options);
  TestSocket socket = peer.connected(mss_option(1000));
  limit_rate(socket, 8'000'000);
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_SNDBUF, 400'000).ok());
  ASSERT_EQ(socket.send(std::string(200'000, 'a')), 200'000);
  peer.run();
  peer.take();
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1 + 10'000});
  for (int i = 0; i < 100; ++i) {
    peer.advance(100us);
    for (const CapturedFrame& frame : peer.take()) EXPECT_LE(frame.payload.size(), 8000u);
  }
}

TEST(TcpPacing, HoldsBackRetransmissionsToo) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000) + sack_permitted_option());
  limit_rate(socket, 1'000'000);
  ASSERT_EQ(socket.send(std::string(40'000, 'a')), 40'000);
  peer.run();
  bytes_by_millisecond(peer, 10);
  uint32_t una = TcpPeer::endpoint(socket).tcb().snd.snd_una.value();
  peer.advance(8ms);
  peer.take();
  // All but the last of what is in flight is lost.
  uint32_t next = TcpPeer::endpoint(socket).tcb().snd.snd_nxt.value();
  ASSERT_GE(next - una, 5000u);
  peer.send({.seq = peer.peer_iss + 1, .ack = una, .options = sack_option({{next - 3000, next}})});
  uint32_t at_once = 0;
  for (const CapturedFrame& frame : peer.take()) at_once += static_cast<uint32_t>(frame.payload.size());
  EXPECT_LE(at_once, 2000u);
}

TEST(TcpPacing, TheProbeOfAClosedWindowIsNotPacings) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000));
  limit_rate(socket, 100'000);
  ASSERT_EQ(socket.send(std::string(20'000, 'a')), 20'000);
  peer.run();
  peer.take();
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1 + 10'000, .window = 0});
  peer.take();
  EXPECT_TRUE(peer.advance_until_sent(2s)) << "a window probe";
}

TEST(TcpPacing, BbrTellsItsModel) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000));
  tcp_bbr_info info{};
  auto read = [&] {
    return *socket->get_option(IPPROTO_TCP, TCP_CC_INFO, std::as_writable_bytes(std::span(&info, 1)));
  };
  EXPECT_EQ(read(), 0u) << "CUBIC has nothing to tell";
  std::string name = "bbr";
  ASSERT_TRUE(socket->set_option(IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(name))).ok());
  ASSERT_EQ(socket.send(std::string(5'000, 'a')), 5'000);
  peer.run();
  peer.advance(10ms);
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1 + 5'000});
  ASSERT_EQ(read(), sizeof info);
  EXPECT_EQ(info.bbr_bw_lo, 500'000u);
  EXPECT_EQ(info.bbr_bw_hi, 0u);
  EXPECT_EQ(info.bbr_min_rtt, 10'000u);
  EXPECT_EQ(info.bbr_pacing_gain, 709u);
  EXPECT_EQ(info.bbr_cwnd_gain, 512u);
}

TEST(TcpPacing, InfoTellsTheRates) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000));
  tcp_info info{};
  auto read = [&] {
    return socket->get_option(IPPROTO_TCP, TCP_INFO, std::as_writable_bytes(std::span(&info, 1))).ok();
  };
  ASSERT_TRUE(read());
  EXPECT_EQ(info.tcpi_max_pacing_rate, ~uint64_t{0});
  limit_rate(socket, 12345);
  ASSERT_TRUE(read());
  EXPECT_EQ(info.tcpi_max_pacing_rate, 12345u);
  EXPECT_EQ(info.tcpi_pacing_rate, 12345u);
}

}  // namespace
}  // namespace ustack::test
