// setsockopt, getsockopt and ioctl: values, bounds and errnos of Linux (socket(7), tcp(7), ip(7)).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
// linux/tcp.h has all of tcp_info; netinet/tcp.h has not, and the two don't go together.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cstring>
#include <string>

#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::State;

struct IntOption {
  const char* name;
  int level, option;
  int fresh;     // of a new socket
  int set, get;  // what it becomes
  int refused;   // a value that is refused with `error`, unless error is 0
  int error;
};
void PrintTo(const IntOption& option, std::ostream* out) { *out << option.name; }

class TcpIntOption : public ::testing::TestWithParam<IntOption> {};
INSTANTIATE_TEST_SUITE_P(
    Linux, TcpIntOption,
    ::testing::Values(
        IntOption{"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 0, 5, 1, 0, 0},
        IntOption{"SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 0, 1, 1, 0, 0},
        IntOption{"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 0, 7, 1, 0, 0},
        IntOption{"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 0, 1, 1, 0, 0},
        IntOption{"SO_BROADCAST", SOL_SOCKET, SO_BROADCAST, 0, 1, 1, 0, 0},
        IntOption{"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 16384, 10000, 20000, 0, 0},
        IntOption{"SO_SNDBUF small", SOL_SOCKET, SO_SNDBUF, 16384, 1, 4608, 0, 0},
        IntOption{"SO_SNDBUF large", SOL_SOCKET, SO_SNDBUF, 16384, 1 << 30, 8388608, 0, 0},
        IntOption{"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 131072, 10000, 20000, 0, 0},
        IntOption{"SO_RCVBUF small", SOL_SOCKET, SO_RCVBUF, 131072, 0, 2304, 0, 0},
        IntOption{"SO_RCVBUF large", SOL_SOCKET, SO_RCVBUF, 131072, 1 << 30, 8388608, 0, 0},
        IntOption{"SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 1, 100, 100, 0, 0},
        IntOption{"SO_RCVLOWAT 0", SOL_SOCKET, SO_RCVLOWAT, 1, 0, 1, 0, 0},
        IntOption{"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 0, 9, 1, 0, 0},
        IntOption{"TCP_CORK", IPPROTO_TCP, TCP_CORK, 0, 1, 1, 0, 0},
        IntOption{"TCP_MAXSEG", IPPROTO_TCP, TCP_MAXSEG, 536, 1000, 1000, 87, EINVAL},
        IntOption{"TCP_MAXSEG large", IPPROTO_TCP, TCP_MAXSEG, 536, 32767, 32767, 32768, EINVAL},
        IntOption{"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 7200, 5, 5, 0, EINVAL},
        IntOption{"TCP_KEEPIDLE large", IPPROTO_TCP, TCP_KEEPIDLE, 7200, 32767, 32767, 32768, EINVAL},
        IntOption{"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 75, 5, 5, -1, EINVAL},
        IntOption{"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 9, 5, 5, 128, EINVAL},
        IntOption{"TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 6, 3, 3, 0, EINVAL},
        IntOption{"TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 60, 30, 30, 0, 0},
        IntOption{"TCP_LINGER2 off", IPPROTO_TCP, TCP_LINGER2, 60, -5, -1, 0, 0},
        IntOption{"TCP_LINGER2 large", IPPROTO_TCP, TCP_LINGER2, 60, 1000, 120, 0, 0},
        IntOption{"TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 5, 7, 0, 0},
        IntOption{"TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, 9000, 9000, 0, 0},
        IntOption{"TCP_WINDOW_CLAMP small", IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, 1, 1152, 0, 0},
        IntOption{"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 1500, 1500, -1, EINVAL},
        IntOption{"TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, 1500, 1500, 0, 0},
        IntOption{"TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK, 1, 0, 0, 0, 0},
        IntOption{"IP_TOS", IPPROTO_IP, IP_TOS, 0, 0x1b, 0x18, 0, 0},
        IntOption{"IP_TTL", IPPROTO_IP, IP_TTL, 64, 3, 3, 256, EINVAL},
        IntOption{"IP_TTL default", IPPROTO_IP, IP_TTL, 64, -1, 64, 0, EINVAL},
        IntOption{"IP_MTU_DISCOVER", IPPROTO_IP, IP_MTU_DISCOVER, 1, 0, 0, 6, EINVAL},
        IntOption{"IP_RECVERR", IPPROTO_IP, IP_RECVERR, 0, 1, 1, 0, 0},
        IntOption{"IP_BIND_ADDRESS_NO_PORT", IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 0, 1, 1, 0, 0}));

TEST_P(TcpIntOption, SetAndGet) {
  const IntOption& option = GetParam();
  TcpPeer peer;
  TestSocket socket = peer.socket();
  EXPECT_EQ(socket.get_int(option.level, option.option), option.fresh);
  EXPECT_EQ(socket.set(option.level, option.option, option.set).code(), 0);
  EXPECT_EQ(socket.get_int(option.level, option.option), option.get);
  if (option.error != 0) {
    EXPECT_EQ(socket.set(option.level, option.option, option.refused).code(), option.error);
    EXPECT_EQ(socket.get_int(option.level, option.option), option.get) << "and is as it was";
  }
  // A value that is too short.
  std::byte little[2]{};
  if (option.level != IPPROTO_IP) {
    EXPECT_EQ(socket->set_option(option.level, option.option, little).code(), EINVAL);
    EXPECT_EQ(socket->set_option(option.level, option.option, {}).code(), EINVAL);
  } else {
    // ip(7)'s take nothing for 0.
    EXPECT_EQ(socket->set_option(option.level, option.option, {}).code(),
              socket.set(option.level, option.option, 0).code());
  }
}

TEST(TcpSockopt, ReadOnlyOptions) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_DOMAIN), AF_INET);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ACCEPTCONN), 0);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), 0);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_SNDLOWAT), 1);
  for (int name : {SO_TYPE, SO_PROTOCOL, SO_DOMAIN, SO_ACCEPTCONN, SO_ERROR, SO_SNDLOWAT})
    EXPECT_EQ(socket.set(SOL_SOCKET, name, 1).code(), ENOPROTOOPT) << name;
  EXPECT_EQ(socket.get_int(IPPROTO_IP, IP_MTU), -ENOTCONN);
}

// What a program without CAP_NET_ADMIN gets of Linux, or one whose kernel was built without.
TEST(TcpSockopt, RefusedAsLinuxRefuses) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  struct {
    int name, set, get;  // errno, or 0 for success
  } const rows[] = {{TCP_REPAIR, EPERM, 0},
                    {TCP_REPAIR_QUEUE, EPERM, EINVAL},
                    {TCP_QUEUE_SEQ, EPERM, EINVAL},
                    {TCP_REPAIR_OPTIONS, EINVAL, ENOPROTOOPT},
                    {TCP_REPAIR_WINDOW, EPERM, EINVAL},
                    {TCP_TIMESTAMP, EPERM, 0},
                    {TCP_MD5SIG, EINVAL, ENOPROTOOPT},
                    {TCP_ULP, ENOENT, 0},
                    {TCP_ZEROCOPY_RECEIVE, ENOPROTOOPT, EINVAL},
                    {TCP_SAVED_SYN, ENOPROTOOPT, 0},
                    {TCP_CC_INFO, ENOPROTOOPT, 0},
                    {43 /* TCP_IS_MPTCP */, ENOPROTOOPT, 0},
                    {TCP_INFO, ENOPROTOOPT, 0},
                    {999, ENOPROTOOPT, ENOPROTOOPT}};
  for (const auto& row : rows) {
    EXPECT_EQ(socket.set(IPPROTO_TCP, row.name, 1).code(), row.set) << row.name;
    std::array<std::byte, 256> out{};
    EXPECT_EQ(socket->get_option(IPPROTO_TCP, row.name, out).code(), row.get) << row.name;
  }
  EXPECT_EQ(socket.set(IPPROTO_TCP, TCP_THIN_DUPACK, 1).code(), 0);
  EXPECT_EQ(socket.set(IPPROTO_TCP, TCP_THIN_DUPACK, 2).code(), EINVAL);
  EXPECT_EQ(socket.get_int(IPPROTO_TCP, TCP_THIN_DUPACK), 0) << "without effect, as in Linux";
  EXPECT_EQ(socket->set_option(IPPROTO_TCP, TCP_ULP, {}).code(), EINVAL);
  EXPECT_EQ(socket.get_int(IPPROTO_TCP, TCP_REPAIR), 0);
}

TEST(TcpSockopt, SavedSyn) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  EXPECT_EQ(listener.set(IPPROTO_TCP, TCP_SAVE_SYN, 2).code(), EINVAL) << "the link's header is not kept";
  ASSERT_TRUE(listener.set(IPPROTO_TCP, TCP_SAVE_SYN, 1).ok());
  TestSocket socket = peer.accepted(listener, mss_option(1400));
  ASSERT_TRUE(socket);
  std::array<std::byte, 100> out{};
  EXPECT_EQ(socket->get_option(IPPROTO_TCP, TCP_SAVED_SYN, MutableBytes(out).first(43)).code(), EINVAL);
  Result<size_t> size = socket->get_option(IPPROTO_TCP, TCP_SAVED_SYN, out);
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(*size, 44u) << "IP 20, TCP 24";
  EXPECT_EQ(out[0], std::byte{0x45});
  EXPECT_EQ(load_be32(&out[24]), peer.peer_iss);
  EXPECT_EQ(load_be16(&out[42]), 1400);
  EXPECT_EQ(*socket->get_option(IPPROTO_TCP, TCP_SAVED_SYN, out), 0u) << "only once";
}

TEST(TcpSockopt, TimestampIsTheConnections) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460) + timestamps_option(7, 0));
  socket.send("x");
  auto sent = peer.take();
  ASSERT_THAT(sent, ::testing::SizeIs(1));
  EXPECT_EQ(static_cast<uint32_t>(socket.get_int(IPPROTO_TCP, TCP_TIMESTAMP)),
            sent[0].tcp->timestamps->first);
}

TEST(TcpSockopt, WhatMeansNothingHereIsRefused) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  struct {
    int level, name, error, value;
  } const refused[] = {{SOL_SOCKET, SO_BINDTODEVICE, ENODEV, 0},
                       {SOL_SOCKET, SO_ATTACH_FILTER, EINVAL, 0},
                       {IPPROTO_IP, IP_TRANSPARENT, EPERM, 0},
                       {IPPROTO_IP, IP_MULTICAST_TTL, EINVAL, 1},
                       {IPPROTO_IPV6, IPV6_V6ONLY, ENOPROTOOPT, -EOPNOTSUPP},
                       {12345, 1, ENOPROTOOPT, -EOPNOTSUPP}};
  for (auto [level, name, error, value] : refused) {
    EXPECT_EQ(socket.set(level, name, 1).code(), error) << level << ' ' << name;
    EXPECT_EQ(socket.get_int(level, name), value) << level << ' ' << name;
  }
  // A whole filter, which nothing would run.
  EXPECT_EQ(socket->set_option(SOL_SOCKET, SO_ATTACH_FILTER, std::array<std::byte, 16>{}).code(),
            ENOPROTOOPT);
}

TEST(TcpSockopt, ShortBuffersGetThePartThatFits) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  std::byte two[2];
  auto n = socket->get_option(SOL_SOCKET, SO_TYPE, two);
  ASSERT_TRUE(n.ok());
  EXPECT_EQ(*n, 2u);
  std::byte one[1];
  n = socket->get_option(IPPROTO_IP, IP_TTL, one);
  ASSERT_TRUE(n.ok());
  EXPECT_EQ(*n, 1u);
  EXPECT_EQ(one[0], std::byte{64});
  std::byte ttl{5};
  EXPECT_TRUE(socket->set_option(IPPROTO_IP, IP_TTL, Bytes(&ttl, 1)).ok()) << "ip(7) options may be a byte";
  EXPECT_EQ(socket.get_int(IPPROTO_IP, IP_TTL), 5);
}

TEST(TcpSockopt, DontRouteMeansNoGateway) {
  TcpPeer::Options options;
  options.gateway = TcpPeer::kPeer;
  TcpPeer peer(options);
  constexpr SocketAddress kFarAway{IpAddress::v4(203, 0, 113, 9), 80};
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_DONTROUTE, 1).ok());
  EXPECT_EQ(socket->connect(kFarAway).code(), ENETUNREACH);
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_DONTROUTE, 0).ok());
  EXPECT_EQ(socket->connect(kFarAway).code(), EINPROGRESS);
  peer.run();
}

TEST(TcpSockopt, Linger) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  linger value{1, 7};
  EXPECT_TRUE(socket->set_option(SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&value, 1))).ok());
  value = {};
  ASSERT_TRUE(socket->get_option(SOL_SOCKET, SO_LINGER, std::as_writable_bytes(std::span(&value, 1))).ok());
  EXPECT_EQ(value.l_onoff, 1);
  EXPECT_EQ(value.l_linger, 7);
  EXPECT_EQ(socket.set(SOL_SOCKET, SO_LINGER, 1).code(), EINVAL) << "an int is too short";
}

TEST(TcpSockopt, Timeouts) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  for (int name : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    timeval tv{3, 250000};
    EXPECT_TRUE(socket->set_option(SOL_SOCKET, name, std::as_bytes(std::span(&tv, 1))).ok());
    tv = {};
    ASSERT_TRUE(socket->get_option(SOL_SOCKET, name, std::as_writable_bytes(std::span(&tv, 1))).ok());
    EXPECT_EQ(tv.tv_sec, 3);
    EXPECT_EQ(tv.tv_usec, 250000);
    tv = {0, 1000000};
    EXPECT_EQ(socket->set_option(SOL_SOCKET, name, std::as_bytes(std::span(&tv, 1))).code(), EDOM);
  }
  EXPECT_EQ(socket->receive_timeout(), 3250ms);
  EXPECT_EQ(socket->send_timeout(), 3250ms);
}

TEST(TcpSockopt, Congestion) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  auto set = [&](std::string_view name) {
    return socket->set_option(IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(name))).code();
  };
  char first[16] = {};
  EXPECT_TRUE(socket->get_option(IPPROTO_TCP, TCP_CONGESTION, std::as_writable_bytes(std::span(first))).ok());
  EXPECT_STREQ(first, "cubic") << "net.ipv4.tcp_congestion_control";
  EXPECT_EQ(set("reno"), 0);
  EXPECT_EQ(set(std::string_view("reno\0junk", 9)), 0);
  EXPECT_EQ(set("nonesuch"), ENOENT);
  EXPECT_EQ(set(""), EINVAL);
  char name[32] = {};
  auto n = socket->get_option(IPPROTO_TCP, TCP_CONGESTION, std::as_writable_bytes(std::span(name)));
  ASSERT_TRUE(n.ok());
  EXPECT_EQ(*n, 16u);
  EXPECT_STREQ(name, "reno");
}

TEST(TcpSockopt, MaxsegOfAConnectionIsWhatItSends) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1400) + timestamps_option(1, 0));
  EXPECT_EQ(socket.get_int(IPPROTO_TCP, TCP_MAXSEG), 1388);
  EXPECT_EQ(socket.get_int(IPPROTO_IP, IP_MTU), 1500);
}

TEST(TcpSockopt, MtuDiscoveryOffClearsDontFragment) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  socket.send("a");
  EXPECT_THAT(peer.take(), ::testing::ElementsAre(Ipv4(DontFragment(true), Tcp())));
  peer.send({.seq = 5001, .ack = peer.iss + 2});
  ASSERT_TRUE(socket.set(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT).ok());
  ASSERT_TRUE(socket.set(IPPROTO_IP, IP_TOS, 0x10).ok());
  socket.send("b");
  EXPECT_THAT(peer.take(), ::testing::ElementsAre(Ipv4(DontFragment(false), Tos(0x10), Tcp())));
}

TEST(TcpSockopt, WindowClampLimitsTheWindow) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_WINDOW_CLAMP, 5000).ok());
  ASSERT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  peer.run();
  EXPECT_THAT(peer.take(), ::testing::ElementsAre(Tcp(Window(4380)))) << "three whole segments of 1460";
}

TEST(TcpSockopt, ErrorIsTakenOnce) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.send({.seq = 0, .ack = peer.iss + 1, .flags = "RA"});
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), ECONNREFUSED);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ERROR), 0);
  // As Linux: the attempt has failed all the same.
  EXPECT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), ECONNABORTED);
}

tcp_info info_of(TestSocket& socket) {
  tcp_info info;
  std::memset(&info, 0xff, sizeof info);
  auto n = socket->get_option(IPPROTO_TCP, TCP_INFO, std::as_writable_bytes(std::span(&info, 1)));
  EXPECT_TRUE(n.ok());
  EXPECT_EQ(*n, sizeof info);
  return info;
}

TEST(TcpSockopt, Info) {
  TcpPeer peer;
  TestSocket fresh = peer.socket();
  EXPECT_EQ(info_of(fresh).tcpi_state, 7);
  TestSocket listener = peer.listen(6, 81);
  tcp_info info = info_of(listener);
  EXPECT_EQ(info.tcpi_state, 10);
  EXPECT_EQ(info.tcpi_sacked, 6u);

  TestSocket socket = peer.connected(mss_option(1012) + sack_permitted_option() + timestamps_option(1, 0) +
                                     window_scale_option(4));
  auto ts = timestamps_option(2, 0);
  socket.send(std::string(20000, 'x'));
  peer.take();
  peer.advance(30ms);
  peer.send({.seq = 5001, .ack = peer.iss + 1 + 2000, .payload = "abc", .options = ts});
  info = info_of(socket);
  EXPECT_EQ(info.tcpi_state, 1);
  EXPECT_EQ(info.tcpi_options, TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE);
  EXPECT_EQ(info.tcpi_snd_wscale, 4);
  EXPECT_EQ(info.tcpi_rcv_wscale, 10);
  EXPECT_EQ(info.tcpi_snd_mss, 1000u);
  EXPECT_EQ(info.tcpi_bytes_acked, 2000u);
  EXPECT_EQ(info.tcpi_bytes_received, 3u);
  EXPECT_EQ(info.tcpi_snd_cwnd, 12u);
  EXPECT_EQ(info.tcpi_unacked, 12u);
  EXPECT_EQ(info.tcpi_notsent_bytes, 6000u);
  EXPECT_EQ(info.tcpi_pmtu, 1500u);
  EXPECT_GT(info.tcpi_rtt, 0u);
  EXPECT_GE(info.tcpi_rto, 200000u);
  EXPECT_EQ(info.tcpi_total_retrans, 0u);
  peer.take();
  peer.advance(2s);
  info = info_of(socket);
  EXPECT_EQ(info.tcpi_ca_state, 4);
  EXPECT_GT(info.tcpi_retransmits, 0);
  EXPECT_GT(info.tcpi_total_retrans, 0u);
  EXPECT_EQ(info.tcpi_last_data_recv, 2000u);
}

TEST(TcpIoctl, Queues) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000), 1000);
  socket.send(std::string(2500, 'x'));
  EXPECT_EQ(*socket->ioctl_value(TIOCOUTQ), 2500);
  EXPECT_EQ(*socket->ioctl_value(0x894b), 1500) << "SIOCOUTQNSD";
  peer.send({.seq = 5001, .ack = peer.iss + 1001, .payload = "hello", .window = 0});
  EXPECT_EQ(*socket->ioctl_value(TIOCOUTQ), 1500);
  EXPECT_EQ(*socket->ioctl_value(FIONREAD), 5);
  EXPECT_EQ(socket->ioctl_value(0x1234).code(), ENOTTY);
  TestSocket listener = peer.listen();
  EXPECT_EQ(listener->ioctl_value(FIONREAD).code(), EINVAL);
}

}  // namespace
}  // namespace ustack::test
