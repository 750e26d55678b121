// What TCP_INFO tells of a connection's past: segments, what held the sender up, time-outs.
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include "stack/tcp/traffic.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using What = tcp::SendTimes::What;

TEST(SendTimes, AddUpAndGoOn) {
  tcp::SendTimes times;
  Instant start{1h};
  times.set(What::busy, start);
  times.set(What::busy, start + 1s);
  times.set(What::window_limited, start + 2s);
  times.set(What::buffer_limited, start + 5s);
  EXPECT_EQ(times.busy(start + 6s), 6s);
  EXPECT_EQ(times.window_limited(start + 6s), 3s);
  EXPECT_EQ(times.buffer_limited(start + 6s), 1s);
  times.set(What::idle, start + 7s);
  times.set(What::busy, start + 100s);
  EXPECT_EQ(times.busy(start + 101s), 8s);
  EXPECT_EQ(times.buffer_limited(start + 101s), 2s);
}

/// What getsockopt(2) gives, with what newer kernels have behind the header's struct.
struct Info : tcp_info {
  uint32_t rcv_wnd, rehash;
  uint16_t total_rto, total_rto_recoveries;
  uint32_t total_rto_time;
};
Info info_of(TestSocket& socket) {
  Info info{};
  Result<size_t> size =
      socket->get_option(IPPROTO_TCP, TCP_INFO, std::as_writable_bytes(std::span(&info, 1)));
  EXPECT_TRUE(size.ok());
  return info;
}

TEST(TcpInfo, TimeoutsAreCountedAndTimed) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460));
  socket.send("lost");
  peer.advance(2s);
  Info info = info_of(socket);
  EXPECT_GE(info.total_rto, 2u);
  EXPECT_EQ(info.total_rto_recoveries, 1u);
  EXPECT_GT(info.total_rto_time, 1000u) << "and goes on";
  EXPECT_EQ(info.tcpi_data_segs_out, 1u + info.total_rto);
  peer.take();
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 5});
  uint32_t time = info_of(socket).total_rto_time;
  peer.advance(1s);
  info = info_of(socket);
  EXPECT_EQ(info.total_rto_time, time) << "it is over";
  EXPECT_EQ(info.tcpi_busy_time, 2'000'000u);
  socket.close();
}

TEST(TcpInfo, AClosedWindowIsTold) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460), 1000);
  socket.send(std::string(1000, 'x'));
  socket.send(std::string(1000, 'y'));
  peer.advance(10ms);
  peer.take();
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1001, .window = 0});
  peer.advance(1s);
  Info info = info_of(socket);
  EXPECT_EQ(info.tcpi_snd_wnd, 0u);
  EXPECT_EQ(info.tcpi_busy_time, 1'010'000u);
  EXPECT_EQ(info.tcpi_rwnd_limited, 1'010'000u);
  EXPECT_EQ(info.tcpi_sndbuf_limited, 0u);
  socket.close();
}

TEST(TcpInfo, OutOfOrderSegmentsAreCountedForGood) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460));
  peer.send({.seq = peer.peer_iss + 3, .ack = peer.iss + 1, .payload = "c"});
  peer.send({.seq = peer.peer_iss + 2, .ack = peer.iss + 1, .payload = "b"});
  peer.send({.seq = peer.peer_iss + 1, .ack = peer.iss + 1, .payload = "a"});
  EXPECT_EQ(info_of(socket).tcpi_rcv_ooopack, 2u);
  EXPECT_EQ(info_of(socket).tcpi_data_segs_in, 3u);
  socket.close();
}

}  // namespace
}  // namespace ustack::test
