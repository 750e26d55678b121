#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "stack/base/checksum.h"
#include "stack/net/checksum.h"
#include "stack/udp/protocol.h"
#include "tests/support/datagrams.h"
#include "tests/support/packet_builder.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr IpAddress kHost = TcpPeer::kHost, kPeer = TcpPeer::kPeer, kOther = IpAddress::v4(192, 0, 2, 9),
                    kAll = IpAddress::v4(192, 0, 2, 255);
constexpr SocketAddress kAny{IpAddress::any(Family::ipv4), 0};

struct UdpFields {
  IpAddress source = kPeer, destination = kHost;
  uint16_t source_port = 53, destination_port = 5000;
  std::optional<uint16_t> length{};
  std::optional<uint16_t> checksum{};
};

ByteVector udp_message(const UdpFields& fields, std::string_view text) {
  ByteVector bytes(8);
  store_be16(bytes.data(), fields.source_port);
  store_be16(bytes.data() + 2, fields.destination_port);
  store_be16(bytes.data() + 4, fields.length.value_or(static_cast<uint16_t>(8 + text.size())));
  for (char c : text) bytes.push_back(static_cast<std::byte>(c));
  const uint32_t sum =
      pseudo_header_sum(fields.source, fields.destination, 17, static_cast<uint32_t>(bytes.size()));
  store_be16(bytes.data() + 6, fields.checksum.value_or(checksum_finish(checksum_add(bytes, sum))));
  return bytes;
}

class UdpTest : public testing::Test {
 protected:
  DatagramSocket& open(const SocketAddress& local = {kHost, 5000}) {
    sockets_.push_back(TestSocket(*peer.host().open_socket(AF_INET, SOCK_DGRAM, 0)));
    Socket& socket = *sockets_.back().get();
    if (local.port != 0) {
      EXPECT_TRUE(socket.bind(local).ok());
    }
    return *socket.datagrams();
  }
  void receive(const UdpFields& fields, std::string_view text = "text") {
    peer.send_packet(ipv4_packet({.source = fields.source, .destination = fields.destination, .protocol = 17},
                                 udp_message(fields, text)));
  }
  static std::string take(DatagramSocket& socket, bool peek = false) { return take_text(socket, peek); }
  static Status send(DatagramSocket& socket, std::string_view text, const DatagramOut& how = {}) {
    return send_text(socket, text, how);
  }
  int number(DatagramSocket& socket, int level, int name) {
    int value = -1;
    (void)socket.get_option(level, name, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  static void set(DatagramSocket& socket, int level, int name, int value) {
    EXPECT_TRUE(socket.set_option(level, name, std::as_bytes(std::span(&value, 1))).ok());
  }
  Counters& counters() { return peer.counters(); }
  /// Nothing of the host's memory is lost.
  void TearDown() override { EXPECT_EQ(peer.host().unaccounted(), 0u); }

  TcpPeer peer;
  std::vector<TestSocket> sockets_;
};

const std::string kNothing = "error " + std::to_string(EAGAIN);

// --- what comes

TEST_F(UdpTest, IsDeliveredWithAllThatIsKnownOfIt) {
  DatagramSocket& socket = open();
  receive({}, "hello");
  Result<Datagram*> got = socket.take(false);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ((*got)->source, (SocketAddress{kPeer, 53}));
  EXPECT_EQ((*got)->destination, (SocketAddress{kHost, 5000}));
  EXPECT_EQ((*got)->ttl, 64);
  socket.done(*got);
  EXPECT_EQ(take(socket), kNothing);
  EXPECT_EQ(counters().UdpInDatagrams, 1u);
}

TEST_F(UdpTest, ALengthThatIsWrongIsAnError) {
  DatagramSocket& socket = open();
  for (int length : {0, 7, 13, 0xffff}) receive({.length = static_cast<uint16_t>(length)}, "text");
  EXPECT_EQ(take(socket), kNothing);
  EXPECT_EQ(counters().UdpInErrors, 4u);
  // Shorter than the packet: the rest is none of it (RFC 768), and the checksum covers what is.
  receive({.length = 10, .checksum = 0}, "text");
  EXPECT_EQ(take(socket), "te");
  peer.send_packet(ipv4_packet({.source = kPeer, .destination = kHost, .protocol = 17}, ByteVector(7)));
  EXPECT_EQ(counters().UdpInErrors, 5u);
}

TEST_F(UdpTest, AChecksumIsVerifiedIfThereIsOne) {
  DatagramSocket& socket = open();
  receive({.checksum = 0x1234});
  EXPECT_EQ(take(socket), kNothing);
  EXPECT_EQ(counters().UdpInCsumErrors, 1u);
  EXPECT_EQ(counters().UdpInErrors, 1u);
  receive({.checksum = 0});
  EXPECT_EQ(take(socket), "text");
}

TEST_F(UdpTest, NobodysIsAnsweredWithPortUnreachable) {
  receive({.destination_port = 9});
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(SrcIs(kHost), DstIs(kPeer), Icmp(IcmpType(3), IcmpCode(3)))));
  EXPECT_EQ(counters().UdpNoPorts, 1u);
}

TEST_F(UdpTest, GoesToWhomItFitsBest) {
  DatagramSocket& wild = open({IpAddress::any(Family::ipv4), 0});
  set(wild, SOL_SOCKET, SO_REUSEADDR, 1);
  ASSERT_TRUE(wild.bind({IpAddress::any(Family::ipv4), 5000}).ok());
  DatagramSocket& bound = open(kAny);
  set(bound, SOL_SOCKET, SO_REUSEADDR, 1);
  ASSERT_TRUE(bound.bind({kHost, 5000}).ok());
  DatagramSocket& connected = open(kAny);
  set(connected, SOL_SOCKET, SO_REUSEADDR, 1);
  ASSERT_TRUE(connected.bind({kHost, 5000}).ok());
  ASSERT_TRUE(connected.connect({kPeer, 53}).ok());
  receive({}, "to the connected");
  receive({.source_port = 54}, "to the bound");
  EXPECT_EQ(take(connected), "to the connected");
  EXPECT_EQ(take(bound), "to the bound");
  EXPECT_EQ(take(wild), kNothing);
}

TEST_F(UdpTest, ABroadcastIsEverybodys) {
  DatagramSocket& a = open(kAny);
  DatagramSocket& b = open(kAny);
  DatagramSocket& elsewhere = open({kHost, 5001});
  for (DatagramSocket* each : {&a, &b}) {
    set(*each, SOL_SOCKET, SO_REUSEADDR, 1);
    ASSERT_TRUE(each->bind({IpAddress::any(Family::ipv4), 5000}).ok());
  }
  receive({.destination = kAll});
  EXPECT_EQ(take(a), "text");
  EXPECT_EQ(take(b), "text");
  EXPECT_EQ(take(elsewhere), kNothing);
  receive({.destination = kAll, .destination_port = 9});
  EXPECT_THAT(peer.take(), IsEmpty()) << "no answer to a broadcast";
}

TEST_F(UdpTest, WhatHasNoRoomIsDroppedAndCounted) {
  DatagramSocket& socket = open();
  set(socket, SOL_SOCKET, SO_RCVBUF, 1);
  EXPECT_EQ(number(socket, SOL_SOCKET, SO_RCVBUF), 2304);
  for (int i = 0; i < 20; ++i) receive({}, std::string(500, 'x'));
  EXPECT_EQ(counters().UdpInDatagrams + counters().UdpRcvbufErrors, 20u);
  EXPECT_GE(counters().UdpInDatagrams, 2u);
  EXPECT_LE(counters().UdpInDatagrams, 4u);
  EXPECT_EQ(counters().UdpInErrors, counters().UdpRcvbufErrors);
  EXPECT_EQ(take(socket), std::string(500, 'x'));
  receive({}, "again");
  EXPECT_EQ(counters().UdpInDatagrams + counters().UdpRcvbufErrors, 21u);
}

TEST_F(UdpTest, APeekOutlivesTheReceiverOfTheSame) {
  DatagramSocket& socket = open();
  receive({}, "shared");
  Result<Datagram*> peeked = socket.take(true);
  ASSERT_TRUE(peeked.ok());
  EXPECT_EQ(take(socket), "shared");
  EXPECT_EQ((*peeked)->data.length, 6u);
  EXPECT_EQ((*peeked)->data.bytes()[0], std::byte{'s'});
  socket.done(*peeked);
  EXPECT_EQ(take(socket), kNothing);
}

// --- what goes

TEST_F(UdpTest, ItsChecksumIsRight) {
  DatagramSocket& socket = open();
  for (std::string_view text : {"", "odd", "even"}) {
    ASSERT_TRUE(send(socket, text, {.to = {kPeer, 53}}).ok());
    auto sent = peer.take();
    ASSERT_THAT(sent, SizeIs(1));
    const Bytes packet = Bytes(sent[0].bytes);
    ASSERT_EQ(packet.size(), 28 + text.size());
    const Bytes message = packet.subspan(20);
    EXPECT_EQ(load_be16(message.data()), 5000);
    EXPECT_EQ(load_be16(message.data() + 2), 53);
    EXPECT_EQ(load_be16(message.data() + 4), 8 + text.size());
    const uint32_t sum = pseudo_header_sum(kHost, kPeer, 17, static_cast<uint32_t>(message.size()));
    EXPECT_EQ(checksum_finish(checksum_add(message, sum)), 0);
    EXPECT_NE(load_be16(message.data() + 6), 0) << "which would mean that there is none";
  }
  EXPECT_EQ(counters().UdpOutDatagrams, 3u);
}

TEST_F(UdpTest, WithoutAChecksum) {
  DatagramSocket& socket = open();
  set(socket, SOL_SOCKET, SO_NO_CHECK, 1);
  ASSERT_TRUE(send(socket, "text", {.to = {kPeer, 53}}).ok());
  auto sent = peer.take();
  ASSERT_THAT(sent, SizeIs(1));
  EXPECT_EQ(load_be16(sent[0].bytes.data() + 26), 0);
  EXPECT_EQ(number(socket, SOL_SOCKET, SO_NO_CHECK), 1);
}

TEST_F(UdpTest, IsCutWhereItDoesNotFitAndThatIsAllowed) {
  DatagramSocket& socket = open();
  const DatagramOut to{.to = {kPeer, 53}};
  ASSERT_TRUE(send(socket, std::string(1472, 'x'), to).ok());
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(DontFragment(true))));
  ASSERT_TRUE(send(socket, std::string(1473, 'x'), to).ok());
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(DontFragment(false)), Ipv4(DontFragment(false))));
  set(socket, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
  EXPECT_EQ(send(socket, std::string(1473, 'x'), to).code(), EMSGSIZE);
  set(socket, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
  ASSERT_TRUE(send(socket, "x", to).ok());
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(DontFragment(false))));
  EXPECT_EQ(socket.reserve(65508).code(), EMSGSIZE);
}

TEST_F(UdpTest, TosAndTtlOfTheSocketOrTheDatagram) {
  DatagramSocket& socket = open();
  set(socket, IPPROTO_IP, IP_TTL, 7);
  set(socket, IPPROTO_IP, IP_TOS, 0x10);
  ASSERT_TRUE(send(socket, "x", {.to = {kPeer, 53}}).ok());
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(Ttl(7), Tos(0x10))));
  ASSERT_TRUE(send(socket, "x", {.to = {kPeer, 53}, .ttl = 3, .tos = 0}).ok());
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(Ttl(3), Tos(0))));
}

TEST_F(UdpTest, WhereItCannotGo) {
  DatagramSocket& socket = open(kAny);
  EXPECT_EQ(send(socket, "x").code(), EDESTADDRREQ);
  EXPECT_EQ(send(socket, "x", {.to = {kPeer, 0}}).code(), EINVAL);
  EXPECT_EQ(send(socket, "x", {.to = {IpAddress::v4(203, 0, 113, 1), 9}}).code(), ENETUNREACH);
  EXPECT_EQ(send(socket, "x", {.to = {kAll, 9}}).code(), EACCES);
  EXPECT_EQ(send(socket, "x", {.to = {kPeer, 9}, .from = kOther}).code(), EINVAL);
  EXPECT_THAT(peer.take(), IsEmpty());
  // What was asked for and not sent is nobody's.
  Result<TxFrame*> frame = socket.reserve(10);
  ASSERT_TRUE(frame.ok());
  socket.abandon(*frame);
}

TEST_F(UdpTest, ALinkThatTakesNothingHasAnEnd) {
  DatagramSocket& socket = open();
  Status s;
  int sent = 0;
  for (; s.ok() && sent < 10000; ++sent) s = send(socket, "x", {.to = {kPeer, 53}});
  EXPECT_EQ(s.code(), ENOBUFS);
  EXPECT_GT(sent, 1000);
  EXPECT_LT(sent, 10000);
  peer.run();
  peer.take();
  EXPECT_TRUE(send(socket, "x", {.to = {kPeer, 53}}).ok());
}

TEST_F(UdpTest, BoundToABroadcastItSendsFromItsOwnAddress) {
  DatagramSocket& socket = open({kAll, 5000});
  receive({.destination = kAll});
  EXPECT_EQ(take(socket), "text");
  ASSERT_TRUE(send(socket, "x", {.to = {kPeer, 53}}).ok());
  EXPECT_THAT(peer.take(), ElementsAre(Ipv4(SrcIs(kHost), DstIs(kPeer))));
}

TEST_F(UdpTest, AnUnboundOneGetsAPortOfTheRange) {
  std::set<uint16_t> ports;
  for (int i = 0; i < 50; ++i) {
    DatagramSocket& socket = open(kAny);
    ASSERT_TRUE(send(socket, "x", {.to = {kPeer, 53}}).ok());
    ports.insert((*socket.local_address()).port);
  }
  EXPECT_EQ(ports.size(), 50u);
  EXPECT_GE(*ports.begin(), 32768);
}

TEST_F(UdpTest, WhatDontRouteForbids) {
  TcpPeer::Options options;
  options.gateway = kPeer;
  TcpPeer routed(options);
  TestSocket holder(*routed.host().open_socket(AF_INET, SOCK_DGRAM, 0));
  DatagramSocket& socket = *holder.get()->datagrams();
  const DatagramOut far{.to = {IpAddress::v4(203, 0, 113, 1), 9}};
  EXPECT_TRUE(send(socket, "x", far).ok());
  set(socket, SOL_SOCKET, SO_DONTROUTE, 1);
  EXPECT_EQ(send(socket, "x", far).code(), ENETUNREACH);
  EXPECT_TRUE(send(socket, "x", {.to = {kPeer, 9}}).ok());
  routed.run();
}

TEST_F(UdpTest, WhatWaitsForItsNextHopIsNotDrained) {
  TcpPeer::Options options;
  options.link = {.kind = LinkInfo::Kind::ethernet, .mtu = 1500};
  TcpPeer ethernet(options);
  TestSocket holder(*ethernet.host().open_socket(AF_INET, SOCK_DGRAM, 0));
  ethernet.take();
  EXPECT_TRUE(ethernet.host().drained());
  EXPECT_TRUE(send(*holder.get()->datagrams(), "x", {.to = {kPeer, 9}}).ok());
  ethernet.run();
  EXPECT_FALSE(ethernet.host().drained());
  ethernet.advance(10s);
  EXPECT_TRUE(ethernet.host().drained()) << "nobody has answered";
}

// --- errors

TEST_F(UdpTest, RefusalsAreToldToTheConnected) {
  DatagramSocket& socket = open();
  ASSERT_TRUE(socket.connect({kPeer, 53}).ok());
  ASSERT_TRUE(send(socket, "x").ok());
  const ByteVector quoted = ipv4_packet(
      {.source = kHost, .destination = kPeer, .protocol = 17},
      udp_message({.source = kHost, .destination = kPeer, .source_port = 5000, .destination_port = 53}, "x"));
  auto complain = [&](uint8_t code, uint32_t info = 0) {
    peer.send_packet(ipv4_packet({.source = kPeer, .destination = kHost, .protocol = 1},
                                 icmp_message(3, code, info, quoted)));
  };
  complain(3);
  EXPECT_EQ(socket.readiness() & ready::kErr, ready::kErr);
  EXPECT_EQ(take(socket), "error " + std::to_string(ECONNREFUSED));
  EXPECT_EQ(take(socket), kNothing);
  // The host may be there again in a moment.
  complain(1);
  EXPECT_EQ(take(socket), kNothing);
  complain(4, 1000);
  EXPECT_EQ(take(socket), "error " + std::to_string(EMSGSIZE));
  EXPECT_EQ(number(socket, IPPROTO_IP, IP_MTU), 1000);
}

TEST_F(UdpTest, OthersAskForThem) {
  DatagramSocket& socket = open();
  ASSERT_TRUE(send(socket, "lost", {.to = {kPeer, 53}}).ok());
  const ByteVector quoted = ipv4_packet(
      {.source = kHost, .destination = kPeer, .protocol = 17},
      udp_message({.source = kHost, .destination = kPeer, .source_port = 5000, .destination_port = 53},
                  "lost"));
  auto complain = [&] {
    peer.send_packet(
        ipv4_packet({.source = kPeer, .destination = kHost, .protocol = 1}, icmp_message(3, 1, 0, quoted)));
  };
  complain();
  EXPECT_EQ(take(socket), kNothing);
  set(socket, IPPROTO_IP, IP_RECVERR, 1);
  complain();
  EXPECT_EQ(take(socket), "error " + std::to_string(EHOSTUNREACH));
  std::optional<Report> report = socket.take_report();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->what.ee_errno, static_cast<uint32_t>(EHOSTUNREACH));
  EXPECT_EQ(report->offender, kPeer);
  EXPECT_EQ(report->about, (SocketAddress{kPeer, 53}));
  EXPECT_EQ(report->payload.length, 4u);
  EXPECT_FALSE(socket.take_report());
}

// --- after a process was killed

TEST_F(UdpTest, MendingKeepsWhatWaitsAndFreesWhatNobodyHas) {
  DatagramSocket& socket = open();
  receive({}, "waits");
  // On its way from the pool to a socket.
  ASSERT_NE(peer.host().udp().datagrams().create(), nullptr);
  EXPECT_NE(peer.host().unaccounted(), 0u);
  peer.host().mend(nullptr);
  EXPECT_EQ(peer.host().unaccounted(), 0u);
  EXPECT_EQ(take(socket), "waits");
  receive({}, "more");
  EXPECT_EQ(take(socket), "more");
}

TEST_F(UdpTest, SocketsThatNobodyHasAreReleased) {
  // Of a process that was killed before it had made a file of it.
  Socket* lost = *peer.host().open_socket(AF_INET, SOCK_DGRAM, 0);
  ASSERT_TRUE(lost->bind({kHost, 5000}).ok());
  DatagramSocket& kept = open({kHost, 5001});
  kept.owned = true;
  EXPECT_EQ(peer.host().udp().endpoint_count(), 2u);
  peer.host().release_lost();
  EXPECT_EQ(peer.host().udp().endpoint_count(), 1u);
  DatagramSocket& again = open();
  receive({}, "to the next");
  EXPECT_EQ(take(again), "to the next");
}

}  // namespace
}  // namespace ustack::test
