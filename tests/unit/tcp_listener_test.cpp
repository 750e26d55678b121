// Listening: backlog, accept queue, half-open connections, ports.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "stack/tcp/listener.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::State;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr IpAddress kAny = IpAddress::any(Family::ipv4);

/// A connection from the peer's `port`, up to the third segment; returns our ISS, 0 if the SYN was dropped.
uint32_t syn(TcpPeer& peer, uint16_t port) {
  peer.host_port = 80;
  peer.port = port;
  peer.take();
  peer.send({.seq = 5000, .flags = "S"});
  auto answer = peer.take();
  return answer.empty() ? 0 : answer[0].tcp->seq;
}
void third_segment(TcpPeer& peer, uint16_t port, uint32_t iss) {
  peer.port = port;
  peer.send({.seq = 5001, .ack = iss + 1});
}

TEST(TcpListener, AcceptsInOrder) {
  TcpPeer peer;
  TestSocket listener = peer.listen(8);
  uint32_t first = syn(peer, 1001), second = syn(peer, 1002);
  third_segment(peer, 1002, second);
  third_segment(peer, 1001, first);
  EXPECT_EQ((*listener.accept()->remote_address()).port, 1002) << "by the end of the handshake";
  EXPECT_EQ((*listener.accept()->remote_address()).port, 1001);
  EXPECT_EQ(listener->accept().code(), EAGAIN);
}

TEST(TcpListener, BacklogLimitsTheAcceptQueue) {
  TcpPeer peer;
  TestSocket listener = peer.listen(1);
  // Linux: one more than the backlog.
  uint32_t isn[3];
  for (uint16_t i = 0; i < 3; ++i) isn[i] = syn(peer, static_cast<uint16_t>(1000 + i));
  for (uint16_t i = 0; i < 3; ++i) third_segment(peer, static_cast<uint16_t>(1000 + i), isn[i]);
  EXPECT_EQ(peer.counters().TcpExtListenOverflows, 1u);
  EXPECT_EQ(peer.counters().TcpPassiveOpens, 2u);
  // The queue is full: the SYN of the next one is dropped.
  EXPECT_EQ(syn(peer, 1003), 0u);
  EXPECT_EQ(peer.counters().TcpExtListenOverflows, 2u);
  EXPECT_EQ(peer.counters().TcpExtListenDrops, 2u);
  TestSocket a = listener.accept();
  // The third one's SYN-ACK is sent again, and now there is room for it.
  peer.port = 1002;
  ASSERT_TRUE(peer.advance_until_sent(2s));
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"), DstPort(1002))));
  third_segment(peer, 1002, isn[2]);
  EXPECT_TRUE(listener.accept());
  EXPECT_TRUE(listener.accept());
}

TEST(TcpListener, AbortOnOverflow) {
  TcpPeer::Options options;
  options.settings.tcp_abort_on_overflow = 1;
  TcpPeer peer(options);
  TestSocket listener = peer.listen(0);
  uint32_t first = syn(peer, 1001), second = syn(peer, 1002);
  third_segment(peer, 1001, first);
  third_segment(peer, 1002, second);
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), DstPort(1002), Seq(second + 1))));
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 2u);
}

TEST(TcpListener, HalfOpenConnectionsAreLimited) {
  TcpPeer::Options options;
  options.settings.tcp_max_syn_backlog = 4;
  options.settings.tcp_syncookies = 0;
  TcpPeer peer(options);
  TestSocket listener = peer.listen(100);
  for (uint16_t i = 0; i < 4; ++i) EXPECT_NE(syn(peer, static_cast<uint16_t>(1000 + i)), 0u);
  EXPECT_EQ(syn(peer, 1004), 0u);
  EXPECT_EQ(peer.counters().TcpExtTCPReqQFullDrop, 1u);
  EXPECT_EQ(peer.host().scheduler().stacks_in_use(), 4u);
  // They go away by themselves, and then there is room.
  peer.advance(64s);
  EXPECT_EQ(peer.host().scheduler().stacks_in_use(), 0u);
  EXPECT_NE(syn(peer, 1004), 0u);
}

TEST(TcpListener, ListenAgainChangesTheBacklog) {
  TcpPeer::Options options;
  options.settings.somaxconn = 50;
  TcpPeer peer(options);
  TestSocket listener = peer.listen(1);
  ASSERT_TRUE(listener->listen(7).ok());
  EXPECT_EQ(TcpPeer::endpoint(listener).accept_queue_limit(), 7u);
  ASSERT_TRUE(listener->listen(1000).ok());
  EXPECT_EQ(TcpPeer::endpoint(listener).accept_queue_limit(), 50u) << "net.core.somaxconn";
  ASSERT_TRUE(listener->listen(-1).ok());
  EXPECT_EQ(TcpPeer::endpoint(listener).accept_queue_limit(), 50u);
}

// RFC 9293, 3.10.7.2.
TEST(TcpListener, AnswersInListen) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  peer.host_port = 80;
  peer.send({.seq = 1, .flags = "R"});
  EXPECT_THAT(peer.take(), IsEmpty());
  peer.send({.seq = 1, .ack = 77, .flags = "A"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(77u))));
  peer.send({.seq = 1, .ack = 77, .flags = "SA"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(77u))));
  peer.send({.seq = 1, .flags = "F"});
  peer.send({.seq = 1, .flags = "SF"});
  peer.send({.seq = 1, .flags = ""});
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u);
}

TEST(TcpListener, IgnoresWhatWasSentToABroadcastAddress) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  constexpr IpAddress kBroadcast = IpAddress::v4(192, 0, 2, 255);
  for (uint16_t port : std::initializer_list<uint16_t>{80, 81}) {
    ByteVector packet =
        ipv4_packet({.source = TcpPeer::kPeer, .destination = kBroadcast},
                    tcp_segment(TcpPeer::kPeer, kBroadcast,
                                {.source_port = 9, .destination_port = port, .seq = 1, .flags = "S"}));
    peer.send_packet(packet);
  }
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u);
}

TEST(TcpListener, ConnectionThatWasResetStaysInTheQueue) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  uint32_t iss = syn(peer, 1001);
  third_segment(peer, 1001, iss);
  peer.send({.seq = 5001, .ack = iss + 1, .flags = "R"});
  EXPECT_TRUE(listener.acceptable());
  TestSocket socket = listener.accept();
  ASSERT_TRUE(socket);
  EXPECT_EQ((*socket->remote_address()).port, 1001) << "accept(2) still says who it was";
  EXPECT_EQ(socket->remote_address().code(), ENOTCONN);
  int code = 0;
  EXPECT_EQ(socket.receive(10, &code), "");
  EXPECT_EQ(code, ECONNRESET);
}

TEST(TcpListener, CloseResetsWhatWasNotAccepted) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  uint32_t ready = syn(peer, 1001);
  third_segment(peer, 1001, ready);
  syn(peer, 1002);
  peer.take();
  listener.close();
  peer.run();
  auto sent = peer.take();
  EXPECT_THAT(sent, ::testing::UnorderedElementsAre(Tcp(FlagsAre("RA"), DstPort(1001)),
                                                    Tcp(FlagsAre("RA"), DstPort(1002))));
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
  peer.send({.seq = 5001, .ack = ready + 1, .destination_port = uint16_t{80}});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"))));
}

TEST(TcpListener, ShutdownEndsListening) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  EXPECT_TRUE(listener->shutdown(ShutdownHow::write).ok());
  EXPECT_NE(syn(peer, 1001), 0u) << "SHUT_WR means nothing to a listener";
  EXPECT_TRUE(listener->shutdown(ShutdownHow::read).ok());
  EXPECT_EQ(listener->accept().code(), EINVAL);
  EXPECT_NE(listener->readiness() & ready::kHup, 0u);
  peer.run();
  peer.take();
  peer.port = 1002;
  peer.send({.seq = 1, .flags = "S"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("RA"))));
}

TEST(TcpListener, OptionsAreInherited) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  ASSERT_TRUE(listener.set(SOL_SOCKET, SO_KEEPALIVE, 1).ok());
  ASSERT_TRUE(listener.set(IPPROTO_TCP, TCP_NODELAY, 1).ok());
  ASSERT_TRUE(listener.set(IPPROTO_TCP, TCP_KEEPIDLE, 33).ok());
  ASSERT_TRUE(listener.set(SOL_SOCKET, SO_RCVBUF, 20000).ok());
  ASSERT_TRUE(listener.set(IPPROTO_IP, IP_TTL, 9).ok());
  TestSocket socket = peer.accepted(listener);
  ASSERT_TRUE(socket);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(socket.get_int(IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(socket.get_int(IPPROTO_TCP, TCP_KEEPIDLE), 33);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_RCVBUF), 40000);
  EXPECT_EQ(socket.get_int(IPPROTO_IP, IP_TTL), 9);
  EXPECT_EQ(socket.get_int(SOL_SOCKET, SO_ACCEPTCONN), 0);
  socket.send("x");
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(Ttl(9), Tcp())));
}

TEST(TcpListener, AddressIsPreferredToTheWildcard) {
  TcpPeer peer;
  TestSocket any = peer.socket(), exact = peer.socket();
  for (TestSocket* s : {&any, &exact}) ASSERT_TRUE(s->set(SOL_SOCKET, SO_REUSEPORT, 1).ok());
  ASSERT_TRUE(any->bind({kAny, 80}).ok());
  ASSERT_TRUE(exact->bind({TcpPeer::kHost, 80}).ok());
  ASSERT_TRUE(any->listen(5).ok());
  ASSERT_TRUE(exact->listen(5).ok());
  third_segment(peer, 1001, syn(peer, 1001));
  EXPECT_TRUE(exact.acceptable());
  EXPECT_FALSE(any.acceptable());
}

TEST(TcpListener, ReusePortSharesConnectionsOut) {
  TcpPeer peer;
  std::vector<TestSocket> listeners;
  for (int i = 0; i < 3; ++i) {
    listeners.push_back(peer.socket());
    ASSERT_TRUE(listeners.back().set(SOL_SOCKET, SO_REUSEPORT, 1).ok());
    ASSERT_TRUE(listeners.back()->bind({kAny, 80}).ok());
    ASSERT_TRUE(listeners.back()->listen(1000).ok());
  }
  for (uint16_t port = 1000; port < 1300; ++port) third_segment(peer, port, syn(peer, port));
  for (TestSocket& listener : listeners) {
    uint32_t share = TcpPeer::endpoint(listener).accept_queue_length();
    EXPECT_GT(share, 60u);
    EXPECT_LT(share, 140u);
  }
}

// --- ports ---

struct BindCase {
  IpAddress first, second;
  bool first_reuse_address, second_reuse_address, first_reuse_port, second_reuse_port, first_listens;
  int error;
};
class TcpBind : public ::testing::TestWithParam<BindCase> {};
INSTANTIATE_TEST_SUITE_P(
    Conflicts, TcpBind,
    ::testing::Values(BindCase{kAny, kAny, false, false, false, false, false, EADDRINUSE},
                      BindCase{TcpPeer::kHost, kAny, false, false, false, false, false, EADDRINUSE},
                      BindCase{kAny, TcpPeer::kHost, false, false, false, false, false, EADDRINUSE},
                      BindCase{kAny, kAny, true, true, false, false, false, 0},
                      BindCase{kAny, kAny, true, false, false, false, false, EADDRINUSE},
                      BindCase{kAny, kAny, true, true, false, false, true, EADDRINUSE},
                      BindCase{kAny, kAny, false, false, true, true, true, 0},
                      BindCase{kAny, kAny, false, false, true, false, true, EADDRINUSE},
                      BindCase{kAny, kAny, false, true, true, true, true, 0}));
TEST_P(TcpBind, FollowsLinux) {
  const BindCase& c = GetParam();
  TcpPeer peer;
  TestSocket first = peer.socket(), second = peer.socket();
  ASSERT_TRUE(first.set(SOL_SOCKET, SO_REUSEADDR, c.first_reuse_address).ok());
  ASSERT_TRUE(second.set(SOL_SOCKET, SO_REUSEADDR, c.second_reuse_address).ok());
  ASSERT_TRUE(first.set(SOL_SOCKET, SO_REUSEPORT, c.first_reuse_port).ok());
  ASSERT_TRUE(second.set(SOL_SOCKET, SO_REUSEPORT, c.second_reuse_port).ok());
  ASSERT_TRUE(first->bind({c.first, 80}).ok());
  if (c.first_listens) {
    ASSERT_TRUE(first->listen(1).ok());
  }
  EXPECT_EQ(second->bind({c.second, 80}).code(), c.error);
}

TEST(TcpBindErrors, AreLinuxs) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  EXPECT_EQ(socket->bind({IpAddress::v4(203, 0, 113, 5), 80}).code(), EADDRNOTAVAIL);
  EXPECT_EQ(socket->bind({IpAddress::any(Family::ipv6), 80}).code(), EAFNOSUPPORT);
  ASSERT_TRUE(socket->bind({kAny, 0}).ok());
  uint16_t port = (*socket->local_address()).port;
  EXPECT_GE(port, 32768);
  EXPECT_LE(port, 60999);
  EXPECT_EQ(socket->bind({kAny, 81}).code(), EINVAL) << "bound already";
}

TEST(TcpBindErrors, ReuseCountsAsItIsNow) {
  TcpPeer peer;
  TestSocket first = peer.socket(), second = peer.socket();
  ASSERT_TRUE(first->bind({kAny, 80}).ok());
  ASSERT_TRUE(first.set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
  ASSERT_TRUE(second.set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
  EXPECT_TRUE(second->bind({kAny, 80}).ok());
}

TEST(TcpBindErrors, SharedPortCanHaveOneListener) {
  TcpPeer peer;
  TestSocket first = peer.socket(), second = peer.socket();
  for (TestSocket* s : {&first, &second}) {
    ASSERT_TRUE(s->set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
    ASSERT_TRUE((*s)->bind({kAny, 80}).ok());
  }
  ASSERT_TRUE(first->listen(1).ok());
  EXPECT_EQ(second->listen(1).code(), EADDRINUSE);
}

TEST(TcpBindErrors, PortOfAConnectionNeedsReuse) {
  TcpPeer peer;
  TestSocket listener = peer.socket();
  ASSERT_TRUE(listener.set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
  ASSERT_TRUE(listener->bind({kAny, 80}).ok());
  ASSERT_TRUE(listener->listen(5).ok());
  TestSocket connection = peer.accepted(listener);
  ASSERT_TRUE(connection);
  listener.close();
  // A server that is started again while old connections last.
  TestSocket plain = peer.socket(), again = peer.socket();
  EXPECT_EQ(plain->bind({kAny, 80}).code(), EADDRINUSE);
  ASSERT_TRUE(again.set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
  ASSERT_TRUE(again->bind({kAny, 80}).ok());
  EXPECT_TRUE(again->listen(5).ok());
}

TEST(TcpEphemeral, PortsAreSharedAcrossDestinations) {
  TcpPeer::Options options;
  options.settings.ip_local_port_range = {40000, 40001};
  TcpPeer peer(options);
  auto connect = [&](uint16_t port) {
    TestSocket socket = peer.socket();
    int code = socket->connect({TcpPeer::kPeer, port}).code();
    return std::pair(std::move(socket), code);
  };
  auto a = connect(1), b = connect(1);
  EXPECT_EQ(a.second, EINPROGRESS);
  EXPECT_EQ(b.second, EINPROGRESS);
  EXPECT_NE((*a.first->local_address()).port, (*b.first->local_address()).port);
  EXPECT_EQ(connect(1).second, EADDRNOTAVAIL) << "all used with that peer";
  auto other = connect(2);
  EXPECT_EQ(other.second, EINPROGRESS) << "another destination may share a port";
  EXPECT_EQ(peer.socket()->bind({kAny, 0}).code(), EADDRINUSE) << "bind needs one for itself";
  peer.run();
}

TEST(TcpEphemeral, BindAddressNoPort) {
  TcpPeer peer;
  TestSocket socket = peer.socket();
  ASSERT_TRUE(socket.set(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1).ok());
  ASSERT_TRUE(socket->bind({TcpPeer::kHost, 0}).ok());
  EXPECT_EQ((*socket->local_address()).port, 0);
  ASSERT_EQ(socket->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  EXPECT_NE((*socket->local_address()).port, 0);
  peer.run();
}

TEST(TcpEphemeral, SameTupleTwiceIsRefused) {
  TcpPeer peer;
  TestSocket first = peer.socket(), second = peer.socket();
  for (TestSocket* s : {&first, &second}) {
    ASSERT_TRUE(s->set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
    ASSERT_TRUE((*s)->bind({TcpPeer::kHost, 3000}).ok());
  }
  ASSERT_EQ(first->connect({TcpPeer::kPeer, 80}).code(), EINPROGRESS);
  EXPECT_EQ(second->connect({TcpPeer::kPeer, 80}).code(), EADDRNOTAVAIL);
  EXPECT_EQ(second->connect({TcpPeer::kPeer, 81}).code(), EINPROGRESS);
  peer.run();
}

// A connection to ourselves turns round inside the host.
TEST(TcpLocal, ConnectsToItsOwnListener) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  TestSocket socket = peer.socket();
  ASSERT_EQ(socket->connect({TcpPeer::kHost, 80}).code(), EINPROGRESS);
  peer.run();
  EXPECT_THAT(peer.take(), IsEmpty()) << "nothing of it on the wire";
  TestSocket accepted = listener.accept();
  ASSERT_TRUE(accepted);
  socket.send("to myself");
  peer.run();
  EXPECT_EQ(accepted.receive(), "to myself");
}

}  // namespace
}  // namespace ustack::test
