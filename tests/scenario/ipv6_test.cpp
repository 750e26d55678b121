// Hosts that have both families: sockets of IPv6 that carry IPv4 too, their ports, and a path that is smaller
// than the link. What TCP does is the same over either: all other scenarios run over IPv6 as well
// (USTACK_TEST_FAMILY).
#include <gtest/gtest.h>

#include "stack/net/checksum.h"
#include "stack/net/icmpv6.h"
#include "tests/scenario/pair.h"
#include "tests/support/datagrams.h"

namespace ustack::test {
namespace {

const IpAddress kAny4 = IpAddress::any(Family::ipv4), kAny6 = IpAddress::any(Family::ipv6);
const IpAddress kServer4 = IpAddress::v4(192, 0, 2, 2), kServer6 = v6_number(2);

class Ipv6 : public ::testing::Test {
 protected:
  Simulator net{1};
  TestHost& client = net.add_host(
      {.name = "client", .address = {IpAddress::v4(192, 0, 2, 1), 24}, .second = {v6_number(1), 64}});
  TestHost& server = net.add_host({.name = "server", .address = {kServer4, 24}, .second = {kServer6, 64}});
  Cable& cable = net.connect(client, server, {}, {});

  static TestSocket open(TestHost& host, int domain) {
    Result<Socket*> socket = host.host().open_socket(domain, SOCK_STREAM, 0);
    return socket.ok() ? TestSocket(*socket) : TestSocket();
  }
  TestSocket listener_on(const SocketAddress& address, bool v6_only = false) {
    TestSocket listener = open(server, address.address.is_v6() ? AF_INET6 : AF_INET);
    EXPECT_TRUE(listener.set(IPPROTO_IPV6, IPV6_V6ONLY, v6_only ? 1 : 0).ok() || address.address.is_v4());
    EXPECT_TRUE(listener->bind(address).ok());
    EXPECT_TRUE(listener->listen(5).ok());
    return listener;
  }
  TestSocket connect(const SocketAddress& to, int domain = AF_INET6) {
    TestSocket socket = open(client, domain);
    EXPECT_EQ(socket->connect(to).code(), EINPROGRESS);
    net.run_until([&] { return socket.connected() || (socket->readiness() & ready::kErr) != 0; }, kSoon);
    return socket;
  }
  TestSocket accept(TestSocket& listener) {
    TestSocket accepted;
    net.run_until([&] { return (accepted = listener.accept()), bool(accepted); }, kSoon);
    return accepted;
  }
};

TEST_F(Ipv6, AListenerOnAllTakesBothFamilies) {
  TestSocket listener = listener_on({kAny6, 80});
  TestSocket over6 = connect({kServer6, 80}), over4 = connect({kServer4, 80});
  ASSERT_TRUE(over6.connected() && over4.connected());
  EXPECT_EQ(accept(listener)->local_address()->address, kServer6);
  TestSocket far = accept(listener);
  EXPECT_EQ(far->local_address()->address, kServer4);
  // 40 bytes of IP against 20.
  EXPECT_EQ(over4.get_int(IPPROTO_TCP, TCP_MAXSEG) - over6.get_int(IPPROTO_TCP, TCP_MAXSEG), 20);
  EXPECT_EQ(over6.get_int(IPPROTO_IPV6, IPV6_MTU), 1500);
  EXPECT_EQ(over4.get_int(IPPROTO_IPV6, IPV6_MTU), -ENOTCONN);
}

TEST_F(Ipv6, OneOfIpv6OnlyLeavesIpv4ToOthers) {
  TestSocket only = listener_on({kAny6, 80}, true);
  TestSocket refused = connect({kServer4, 80}, AF_INET);
  EXPECT_EQ(refused->connect_result().code(), ECONNREFUSED);
  TestSocket other = listener_on({kAny4, 80});
  EXPECT_TRUE(connect({kServer4, 80}, AF_INET).connected());
  EXPECT_TRUE(accept(other));
  EXPECT_TRUE(connect({kServer6, 80}).connected());
  EXPECT_TRUE(accept(only));
}

TEST_F(Ipv6, PortsOfBothFamiliesCollideWhereAddressesDo) {
  TestSocket both = listener_on({kAny6, 80});
  TestSocket any4 = open(server, AF_INET), own4 = open(server, AF_INET), own6 = open(server, AF_INET6);
  EXPECT_EQ(any4->bind({kAny4, 80}).code(), EADDRINUSE);
  EXPECT_EQ(own4->bind({kServer4, 80}).code(), EADDRINUSE);
  EXPECT_EQ(own6->bind({kServer6, 80}).code(), EADDRINUSE);
  TestSocket fixed = listener_on({kServer6, 81});
  EXPECT_TRUE(any4->bind({kAny4, 81}).ok()) << "nothing of IPv4 is taken";
}

TEST_F(Ipv6, IsWhatThePortsOwnerSays) {
  // The one of IPv4 goes before one of both (Linux's compute_score).
  TestSocket both = open(server, AF_INET6), own = open(server, AF_INET);
  for (TestSocket* socket : {&both, &own}) ASSERT_TRUE(socket->set(SOL_SOCKET, SO_REUSEPORT, 1).ok());
  ASSERT_TRUE(both->bind({kAny6, 80}).ok());
  ASSERT_TRUE(own->bind({kAny4, 80}).ok());
  ASSERT_TRUE(both->listen(5).ok());
  ASSERT_TRUE(own->listen(5).ok());
  EXPECT_TRUE(connect({kServer4, 80}, AF_INET).connected());
  EXPECT_TRUE(own.accept());
  EXPECT_TRUE(connect({kServer6, 80}).connected());
  EXPECT_TRUE(both.accept());
}

TEST_F(Ipv6, RefusesWhatItCantReach) {
  TestSocket bound = open(client, AF_INET6);
  ASSERT_TRUE(bound->bind({IpAddress::v4(192, 0, 2, 1), 0}).ok());
  EXPECT_EQ(bound.connect({kServer6, 80}).code(), EAFNOSUPPORT) << "from an address of IPv4";
  TestSocket only = open(client, AF_INET6);
  ASSERT_TRUE(only.set(IPPROTO_IPV6, IPV6_V6ONLY, 1).ok());
  EXPECT_EQ(only.connect({kServer4, 80}).code(), EAFNOSUPPORT);
  EXPECT_EQ(open(client, AF_INET)->connect({kServer6, 80}).code(), EAFNOSUPPORT);
  TestHost& other = net.add_host({.name = "other", .address = {IpAddress::v4(198, 51, 100, 1), 24}});
  EXPECT_EQ(other.host().open_socket(AF_INET6, SOCK_STREAM, 0).code(), EAFNOSUPPORT) << "has no address";
}

TEST_F(Ipv6, OptionsGoIntoThePackets) {
  TestSocket listener = listener_on({kAny6, 80});
  TestSocket near = open(client, AF_INET6);
  ASSERT_TRUE(near.set(IPPROTO_IPV6, IPV6_TCLASS, 0x48).ok());
  ASSERT_TRUE(near.set(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 7).ok());
  int seen = 0;
  uint32_t label = 0;
  cable.forward->add_rule([&](WireFrame& frame) {
    if (!TcpView::parse(frame)) return Verdict::pass;
    Ipv6View header(&frame.bytes[14]);
    EXPECT_EQ(header.traffic_class(), 0x48);
    EXPECT_EQ(header.hop_limit(), 7);
    EXPECT_NE(header.flow_label(), 0u);
    if (seen++ == 0) label = header.flow_label();
    EXPECT_EQ(header.flow_label(), label) << "the same of all segments";
    return Verdict::pass;
  });
  EXPECT_EQ(near.connect({kServer6, 80}).code(), EINPROGRESS);
  ASSERT_TRUE(net.run_until([&] { return near.connected(); }, kSoon));
  near.send("text");
  net.run_for(1s);
  EXPECT_GE(seen, 3);
}

TEST_F(Ipv6, TooFewHopsAreDropped) {
  TestSocket listener = listener_on({kAny6, 80});
  TestSocket near = connect({kServer6, 80}), far = accept(listener);
  ASSERT_TRUE(far.set(IPPROTO_IPV6, IPV6_MINHOPCOUNT, 255).ok());
  near.send("text");
  net.run_for(1s);
  EXPECT_FALSE(far.readable());
  EXPECT_GE(server.counters().TcpExtTCPMinTTLDrop, 1u);
}

// --- datagrams

class Ipv6Datagrams : public Ipv6 {
 protected:
  TestSocket datagrams(TestHost& host, int domain, const SocketAddress& local = {}) {
    Result<Socket*> socket = host.host().open_socket(domain, SOCK_DGRAM, 0);
    TestSocket made = socket.ok() ? TestSocket(*socket) : TestSocket();
    if (local.port != 0) {
      EXPECT_TRUE(made->bind(local).ok());
    }
    return made;
  }
  Status send(TestSocket& socket, std::string_view text, const DatagramOut& how = {}) {
    Status s = send_text(*socket->datagrams(), text, how);
    net.run_for(100ms);
    return s;
  }
  static std::string take(TestSocket& socket, SocketAddress* source = nullptr) {
    return take_text(*socket->datagrams(), false, source);
  }
  static bool is_datagram(const WireFrame& frame) {
    return frame.bytes[12] == std::byte{0x86} && frame.bytes[20] == std::byte{17};
  }
  const std::string kNothing = "error " + std::to_string(EAGAIN);
};

TEST_F(Ipv6Datagrams, OneSocketHasBothFamilies) {
  TestSocket both = datagrams(server, AF_INET6, {kAny6, 53}), near = datagrams(client, AF_INET6);
  EXPECT_TRUE(send(near, "six", {.to = {kServer6, 53}}).ok());
  EXPECT_TRUE(send(near, "four", {.to = {kServer4, 53}}).ok());
  SocketAddress source;
  EXPECT_EQ(take(both, &source), "six");
  EXPECT_EQ(source.address, v6_number(1));
  EXPECT_TRUE(send(both, "answer", {.to = source}).ok());
  EXPECT_EQ(take(near), "answer");
  EXPECT_EQ(take(both, &source), "four");
  EXPECT_EQ(source.address, IpAddress::v4(192, 0, 2, 1));
  EXPECT_TRUE(send(both, "answer", {.to = source}).ok());
  EXPECT_EQ(take(near), "answer");
  EXPECT_EQ(server.counters().Udp6InDatagrams, 1u);
  EXPECT_EQ(server.counters().UdpInDatagrams, 1u);
  EXPECT_EQ(client.counters().Udp6OutDatagrams, 1u);
  EXPECT_EQ(client.counters().UdpOutDatagrams, 1u);
}

TEST_F(Ipv6Datagrams, GoToWhomTheyFitBest) {
  TestSocket both = datagrams(server, AF_INET6), own = datagrams(server, AF_INET),
             only = datagrams(server, AF_INET6), near = datagrams(client, AF_INET6);
  for (TestSocket* each : {&both, &own, &only}) {
    ASSERT_TRUE(each->set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
  }
  ASSERT_TRUE(only.set(IPPROTO_IPV6, IPV6_V6ONLY, 1).ok());
  ASSERT_TRUE(both->bind({kAny6, 53}).ok());
  ASSERT_TRUE(own->bind({kAny4, 53}).ok());
  ASSERT_TRUE(only->bind({kServer6, 53}).ok());
  EXPECT_TRUE(send(near, "four", {.to = {kServer4, 53}}).ok());
  EXPECT_TRUE(send(near, "six", {.to = {kServer6, 53}}).ok());
  EXPECT_EQ(take(own), "four") << "IPv4's own goes before one of both";
  EXPECT_EQ(take(only), "six") << "the address says more than the wildcard";
  EXPECT_EQ(take(both), kNothing);
  own = TestSocket();
  EXPECT_TRUE(send(near, "four", {.to = {kServer4, 53}}).ok());
  EXPECT_EQ(take(both), "four");
  EXPECT_EQ(take(only), kNothing);
}

TEST_F(Ipv6Datagrams, OneBoundToAllOfIpv4HasNoOther) {
  TestSocket mapped = datagrams(server, AF_INET6, {kAny4, 53}), near = datagrams(client, AF_INET6);
  EXPECT_TRUE(send(near, "six", {.to = {kServer6, 53}}).ok());
  EXPECT_EQ(take(mapped), kNothing);
  EXPECT_TRUE(send(near, "four", {.to = {kServer4, 53}}).ok());
  EXPECT_EQ(take(mapped), "four");
  EXPECT_EQ(send(mapped, "x", {.to = {v6_number(1), 9}}).code(), EAFNOSUPPORT);
}

TEST_F(Ipv6Datagrams, ARefusalComesBack) {
  TestSocket near = datagrams(client, AF_INET6);
  ASSERT_TRUE(near.connect({kServer6, 9}).ok());
  EXPECT_TRUE(send(near, "x").ok());
  EXPECT_EQ(take(near), "error " + std::to_string(ECONNREFUSED));
  EXPECT_EQ(server.counters().Udp6NoPorts, 1u);
  EXPECT_EQ(server.counters().Icmp6OutDestUnreachs, 1u);
}

TEST_F(Ipv6Datagrams, TheChecksumIsNoChoice) {
  TestSocket far = datagrams(server, AF_INET6, {kAny6, 53}), near = datagrams(client, AF_INET6);
  ASSERT_TRUE(near.set(SOL_SOCKET, SO_NO_CHECK, 1).ok());
  EXPECT_TRUE(send(near, "with", {.to = {kServer6, 53}}).ok());
  EXPECT_EQ(take(far), "with");
  // RFC 8200, 8.1: one without is no datagram.
  cable.forward->add_rule([](WireFrame& frame) {
    if (is_datagram(frame)) store_be16(&frame.bytes[60], 0);
    return Verdict::pass;
  });
  EXPECT_TRUE(send(near, "without", {.to = {kServer6, 53}}).ok());
  EXPECT_EQ(take(far), kNothing);
  EXPECT_EQ(server.counters().Udp6InCsumErrors, 1u);
  EXPECT_EQ(server.counters().Udp6InErrors, 1u);
}

TEST_F(Ipv6Datagrams, OptionsGoIntoThePackets) {
  TestSocket far = datagrams(server, AF_INET6, {kAny6, 53}), near = datagrams(client, AF_INET6);
  ASSERT_TRUE(near.set(IPPROTO_IPV6, IPV6_TCLASS, 0x4a).ok());
  ASSERT_TRUE(near.set(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 7).ok());
  std::vector<uint32_t> labels;
  uint8_t hops = 0, traffic_class = 0;
  cable.forward->add_rule([&](WireFrame& frame) {
    if (!is_datagram(frame)) return Verdict::pass;
    const Ipv6View header(&frame.bytes[14]);
    labels.push_back(header.flow_label());
    hops = header.hop_limit();
    traffic_class = header.traffic_class();
    return Verdict::pass;
  });
  EXPECT_TRUE(send(near, "a", {.to = {kServer6, 53}}).ok());
  EXPECT_EQ(hops, 7);
  EXPECT_EQ(traffic_class, 0x4a);
  EXPECT_TRUE(send(near, "b", {.to = {kServer6, 53}, .ttl = 3, .tos = 0x10}).ok());
  EXPECT_EQ(hops, 3);
  EXPECT_EQ(traffic_class, 0x10);
  EXPECT_TRUE(send(near, "c", {.to = {kServer6, 54}}).ok());
  ASSERT_TRUE(near.set(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 0).ok());
  EXPECT_TRUE(send(near, "d", {.to = {kServer6, 53}}).ok());
  ASSERT_EQ(labels.size(), 4u);
  EXPECT_EQ(labels[0], labels[1]) << "of one flow";
  EXPECT_NE(labels[0], labels[2]);
  EXPECT_NE(labels[0], 0u);
  EXPECT_EQ(labels[3], 0u);
}

TEST_F(Ipv6Datagrams, AGroupsIsEverybodys) {
  TestSocket all = datagrams(server, AF_INET6, {kAny6, 53}),
             one = datagrams(server, AF_INET6, {kServer6, 54}), near = datagrams(client, AF_INET6);
  // All nodes (ff02::1), as another host of the link may send it; the stack itself sends to no group.
  cable.forward->add_rule([](WireFrame& frame) {
    if (!is_datagram(frame)) return Verdict::pass;
    std::byte* udp = &frame.bytes[54];
    const IpAddress group = v6(0xff02, 0, 1), source = v6_number(1);
    std::memcpy(&frame.bytes[14 + 24], group.data(), 16);
    const std::byte mac[6] = {std::byte{0x33}, std::byte{0x33}, {}, {}, {}, std::byte{1}};
    std::memcpy(&frame.bytes[0], mac, sizeof mac);
    store_be16(udp + 6, 0);
    const auto length = static_cast<uint32_t>(frame.bytes.size() - 54);
    store_be16(udp + 6, checksum_finish(
                            checksum_add(Bytes(udp, length), pseudo_header_sum(source, group, 17, length))));
    frame.offload = {};
    return Verdict::pass;
  });
  EXPECT_TRUE(send(near, "to all", {.to = {kServer6, 53}}).ok());
  EXPECT_EQ(take(all), "to all");
  EXPECT_TRUE(send(near, "to all", {.to = {kServer6, 54}}).ok());
  EXPECT_EQ(take(one), kNothing) << "it is bound to an address";
  EXPECT_EQ(server.counters().Icmp6OutDestUnreachs, 0u) << "no answer to a group";
  EXPECT_EQ(send(near, "x", {.to = {v6(0xff02, 0, 1), 53}}).code(), ENETUNREACH);
}

/// A router whose next link takes packets of 1300 bytes (RFC 8201).
TEST_F(Ipv6, FindsThePathsMtu) {
  TestSocket listener = listener_on({kAny6, 80});
  TestSocket near = connect({kServer6, 80}), far = accept(listener);
  ASSERT_TRUE(far);
  constexpr uint32_t kNarrow = 1300;
  int told = 0;
  cable.forward->add_rule([&](WireFrame& frame) {
    auto view = TcpView::parse(frame);
    const size_t size = frame.bytes.size() - 14;
    if (!view || size <= kNarrow) return Verdict::pass;
    ++told;
    WireFrame error;
    error.bytes.resize(14 + 40 + 8 + 1000);
    std::byte* out = error.bytes.data();
    std::memcpy(out, &frame.bytes[6], 6);
    std::memcpy(out + 6, &frame.bytes[0], 6);
    store_be16(out + 12, 0x86dd);
    Ipv6Header ip{.payload_length = 8 + 1000,
                  .next_header = ip_protocol::kIcmpV6,
                  .source = v6_number(77),
                  .destination = view->source};
    ip.emit(out + 14);
    IcmpHeader{icmpv6::kPacketTooBig, 0, kNarrow}.emit(out + 54);
    std::memcpy(out + 62, &frame.bytes[14], 1000);
    store_be16(out + 56, icmpv6::checksum(ip.source, ip.destination, Bytes(out + 54, 1008)));
    client.deliver(std::move(error));
    return Verdict::drop;
  });
  constexpr uint64_t kTotal = 300'000;
  Pattern pattern(3);
  PatternSender source(client, *near.get(), pattern, kTotal);
  PatternReceiver sink(server, *far.get(), pattern);
  EXPECT_TRUE(net.run_until([&] { return sink.at_end(); }, 5s));
  EXPECT_TRUE(sink.intact());
  EXPECT_EQ(sink.received(), kTotal);
  EXPECT_GE(told, 1);
  EXPECT_EQ(near.get_int(IPPROTO_IPV6, IPV6_MTU), static_cast<int>(kNarrow));
  EXPECT_EQ(client.counters().TcpExtTCPTimeouts, 0u);
}

}  // namespace
}  // namespace ustack::test
