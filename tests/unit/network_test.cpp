#include "stack/net/network.h"

#include <gtest/gtest.h>

#include "stack/net/checksum.h"
#include "tests/support/network_harness.h"
#include "tests/support/packet_matchers.h"

namespace ustack::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(Network, KnowsItsAddresses) {
  NetworkHarness net;
  EXPECT_TRUE(net.network->is_own_address(kOurs));
  EXPECT_TRUE(net.network->is_own_address(kOurSecond));
  EXPECT_FALSE(net.network->is_own_address(kPeer));
  EXPECT_FALSE(net.network->is_own_address(IpAddress::any(Family::ipv4)));
  EXPECT_FALSE(net.network->is_own_address(IpAddress::v4(127, 0, 0, 1)));
  EXPECT_TRUE(net.network->is_broadcast(IpAddress::v4(198, 51, 100, 255)));
  EXPECT_FALSE(net.network->is_broadcast(kOurs));
  EXPECT_THAT(net.network->addresses(), SizeIs(2));
}

TEST(Network, WithoutAddressesHearsOnlyBroadcasts) {
  NetworkHarness net({.addresses = {}, .gateways = {}});
  net.receive_ip({.source = kPeer, .destination = kOurs, .protocol = 17}, bytes_of("12345678"));
  net.receive_arp(1, kPeerMac, kPeer, kOurs);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ip.InAddrErrors=1 Ustack.ArpReceived=1");
}

TEST(Network, TransportsComeAndGo) {
  NetworkHarness net;
  RecordingTransport other;
  net.network->set_transport(99, &other);
  net.receive_ip({.source = kPeer, .destination = kOurs, .protocol = 99}, bytes_of("12345678"));
  EXPECT_THAT(other.packets, SizeIs(1));
  net.network->set_transport(99, nullptr);
  net.receive_ip({.source = kPeer, .destination = kOurs, .protocol = 99}, bytes_of("12345678"));
  EXPECT_EQ(net.counters.IpInUnknownProtos, 1u);
}

TEST(Network, NeedsNoMemoryToBegin) {
  NetworkHarness net;
  EXPECT_EQ(net.arena.objects(), 0u);
}

TEST(Network, GivesEverythingBack) {
  // What waits in queues when the network ends: HeapArena's destructor would tell what is left.
  NetworkHarness net;
  ASSERT_TRUE(net.send(kPeer, pattern_bytes(100)).ok());
  ASSERT_TRUE(net.send(kOurs, pattern_bytes(100)).ok());
  net.receive_ip({.source = kPeer, .destination = kOurs, .protocol = 17, .more_fragments = true},
                 pattern_bytes(8));
  net.network->update_path_mtu(kFar, 1000);
  net.take();
  net.network.reset();
  EXPECT_EQ(net.frames.live(), 0u);
  EXPECT_EQ(net.blocks.live(), 0u);
  EXPECT_EQ(net.timers.armed(), 0u);
}

// --- packets to ourselves

TEST(LocalDelivery, TurnsRoundInsideTheHost) {
  NetworkHarness net;
  ASSERT_TRUE(net.send(kOurs, bytes_of("to myself, with a header and more"), 17, {.ttl = 3, .tos = 8}).ok());
  EXPECT_THAT(net.udp.packets, IsEmpty());  // not before the next run
  EXPECT_TRUE(net.network->deliver_local());
  EXPECT_FALSE(net.network->deliver_local());
  ASSERT_THAT(net.udp.packets, SizeIs(1));
  const DeliveredPacket& got = net.udp.packets[0];
  EXPECT_EQ(got.data, "to myself, with a header and more");
  EXPECT_EQ(got.packet.source, kOurs);
  EXPECT_EQ(got.packet.destination, kOurs);
  EXPECT_EQ(got.packet.ttl, 3);
  EXPECT_EQ(got.packet.tos, 8);
  EXPECT_EQ(got.packet.arrived, net.now);
  EXPECT_TRUE(got.packet.checksum_trusted);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.frames.live(), 0u);
  EXPECT_EQ(net.take_counters(true),
            "Ip.InReceives=1 Ip.InDelivers=1 Ip.OutRequests=1 IpExt.InOctets=53 IpExt.OutOctets=53 "
            "IpExt.InNoECTPkts=1");
}

TEST(LocalDelivery, BetweenOurAddresses) {
  NetworkHarness net;
  Result<Route> route = net.network->find_route(kOurSecond, kOurs);
  ASSERT_TRUE(route->send(net.frame({}, bytes_of("x")), 17, {}).ok());
  net.network->deliver_local();
  ASSERT_THAT(net.udp.packets, SizeIs(1));
  EXPECT_EQ(net.udp.packets[0].packet.source, kOurSecond);
}

TEST(LocalDelivery, CopiesWhatTheSenderKeeps) {
  NetworkHarness net;
  BlockRef block = net.blocks.allocate(100);
  std::memset(block->data(), 'a', 100);
  TxFrame* frame = net.frames.allocate();
  frame->append(Slice{block, 0, 50});
  frame->append(Slice{block, 50, 50});
  ASSERT_TRUE(net.network->find_route({}, kOurs)->send(frame, 17, {}).ok());
  net.network->deliver_local();
  EXPECT_TRUE(block.unique());
  EXPECT_EQ(net.udp.packets.at(0).data, std::string(100, 'a'));
}

TEST(LocalDelivery, SuperframesStayWhole) {
  NetworkHarness net;
  ByteVector header = tcp_segment(kOurs, kOurs, {.source_port = 1, .destination_port = 2});
  TxFrame* frame = net.frame(header, pattern_bytes(60000), 4000);
  frame->offload.partial_checksum = true;
  frame->offload.checksum_offset = 16;
  frame->offload.segmentation = Offload::Segmentation::tcp_v4;
  frame->offload.segment_size = 1448;
  ASSERT_TRUE(net.network->find_route({}, kOurs)->send(frame, 6, {}).ok());
  net.network->deliver_local();
  ASSERT_THAT(net.tcp.packets, SizeIs(1));
  EXPECT_EQ(net.tcp.packets[0].packet.segment_size, 1448);
  EXPECT_TRUE(net.tcp.packets[0].packet.checksum_trusted);
  EXPECT_EQ(net.tcp.packets[0].data.size(), 60020u);
}

TEST(LocalDelivery, TheLargestPacket) {
  NetworkHarness net;
  EXPECT_TRUE(net.send(kOurs, pattern_bytes(65515)).ok());
  EXPECT_EQ(net.send(kOurs, pattern_bytes(65516)).code(), EMSGSIZE);
  net.network->deliver_local();
  ASSERT_THAT(net.udp.packets, SizeIs(1));
  EXPECT_EQ(net.udp.packets[0].data.size(), 65515u);
}

/// Sends a packet back for each that it gets.
class Echoing final : public TransportProtocol {
 public:
  explicit Echoing(NetworkHarness& net) : net_(net) {}
  void on_packet(Packet&&, Instant) override {
    ++packets;
    ASSERT_TRUE(net_.send(kOurs, bytes_of("again"), 99).ok());
  }
  void on_icmp_error(const IcmpError&, Instant) override {}
  int packets = 0;

 private:
  NetworkHarness& net_;
};

TEST(LocalDelivery, AnswersWaitForTheNextCall) {
  NetworkHarness net;
  Echoing echoing(net);
  net.network->set_transport(99, &echoing);
  ASSERT_TRUE(net.send(kOurs, bytes_of("first"), 99).ok());
  for (int i = 1; i <= 3; ++i) {
    EXPECT_TRUE(net.network->deliver_local());
    EXPECT_EQ(echoing.packets, i);
  }
}

TEST(LocalDelivery, PingOurselves) {
  NetworkHarness net;
  ByteVector message = icmp_message(8, 0, 77, bytes_of("me"));
  ASSERT_TRUE(net.send(kOurs, message, 1).ok());
  EXPECT_TRUE(net.network->deliver_local());
  EXPECT_TRUE(net.network->deliver_local());
  EXPECT_FALSE(net.network->deliver_local());
  EXPECT_EQ(net.counters.IcmpInEchos, 1u);
  EXPECT_EQ(net.counters.IcmpInEchoReps, 1u);
  EXPECT_THAT(net.take(), IsEmpty());
}

TEST(LocalDelivery, UnknownProtocolsAreRefusedToo) {
  NetworkHarness net;
  ASSERT_TRUE(net.send(kOurs, bytes_of("12345678"), 132).ok());
  while (net.network->deliver_local()) {
  }
  EXPECT_EQ(net.counters.IpInUnknownProtos, 1u);
  EXPECT_EQ(net.counters.IcmpOutDestUnreachs, 1u);
  EXPECT_EQ(net.counters.IcmpInDestUnreachs, 1u);
}

TEST(LocalDelivery, ErrorsReachOurOwnTransport) {
  NetworkHarness net;
  ASSERT_TRUE(net.send(kOurs, bytes_of("12345678")).ok());
  net.network->deliver_local();
  net.network->send_icmp_error(net.udp.packets.at(0).packet, 3, 3, 0);
  net.network->deliver_local();
  ASSERT_THAT(net.udp.errors, SizeIs(1));
  EXPECT_EQ(net.udp.errors[0].quoted, "12345678");
}

TEST(LocalDelivery, IsBounded) {
  NetworkHarness net;
  int sent = 0;
  while (net.send(kOurs, bytes_of("x")).ok()) ASSERT_LT(++sent, 5000);
  EXPECT_EQ(sent, 1000);
  EXPECT_EQ(net.counters.UstackTxQueueDrops, 1u);
  EXPECT_EQ(net.counters.IpOutDiscards, 1u);
  net.network->deliver_local();
  EXPECT_THAT(net.udp.packets, SizeIs(1000));
  EXPECT_TRUE(net.send(kOurs, bytes_of("x")).ok());
}

TEST(LocalDelivery, WithoutMemoryPacketsAreLost) {
  NetworkHarness net;
  ASSERT_TRUE(net.send(kOurs, bytes_of("x")).ok());
  net.arena.fail_after(0);
  EXPECT_TRUE(net.network->deliver_local());
  net.arena.never_fail();
  EXPECT_THAT(net.udp.packets, IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ustack.RxNoMemory=1");
  EXPECT_EQ(net.frames.live(), 0u);
}

// --- all of it at once

TEST(Network, RandomFramesDoNoHarm) {
  SeededRandom random(42);
  NetworkHarness net({.gateways = {kGateway, kSecondGateway}});
  net.settings.neigh_gc_thresh3 = 16;
  net.settings.ipfrag_high_thresh = 100000;
  const IpAddress kAddresses[] = {kOurs,
                                  kOurSecond,
                                  kPeer,
                                  kFar,
                                  kGateway,
                                  IpAddress::broadcast_v4(),
                                  IpAddress::v4(224, 0, 0, 1),
                                  IpAddress::v4(127, 0, 0, 1)};
  auto address = [&] { return kAddresses[random.below(std::size(kAddresses))]; };
  auto noise = [&](size_t most) {
    ByteVector bytes(random.below(most));
    random.fill(bytes);
    return bytes;
  };
  for (int round = 0; round < 30000; ++round) {
    ByteVector packet;
    uint16_t type = 0x0800;
    Ipv4Fields fields{.source = address(), .destination = address()};
    fields.protocol = static_cast<uint8_t>(random.below(3) * 5 + 1);
    if (random.chance(0.2)) fields.options = noise(41);
    if (random.chance(0.3)) {
      fields.more_fragments = random.chance(0.7);
      fields.fragment_offset = static_cast<uint32_t>(random.below(20) * 8);
      fields.id = static_cast<uint16_t>(random.below(4));
    }
    switch (random.below(5)) {
      case 0:
        type = 0x0806;
        packet = arp_packet(static_cast<uint16_t>(random.below(4)),
                            test_mac(static_cast<uint8_t>(random.below(20))), address(), kOurMac, address());
        break;
      case 1:
        fields.protocol = 1;
        packet = ipv4_packet(
            fields,
            icmp_message(static_cast<uint8_t>(random.below(20)), static_cast<uint8_t>(random.below(20)), 600,
                         ipv4_packet({.source = address(), .destination = address()}, noise(40))));
        break;
      case 2:  // halves that sometimes meet
        fields.source = kFar;
        fields.destination = kOurs;
        fields.protocol = 17;
        fields.id = static_cast<uint16_t>(100 + random.below(4));
        fields.more_fragments = random.chance(0.5);
        fields.fragment_offset = fields.more_fragments ? 0 : 16;
        packet = ipv4_packet(fields, pattern_bytes(16));
        break;
      default:
        packet = ipv4_packet(fields, noise(200));
    }
    MacAddress destination = random.chance(0.8) ? kOurMac : MacAddress::broadcast();
    ByteVector frame = ethernet_frame(destination, kPeerMac, type, packet);
    if (random.chance(0.2) && !frame.empty()) frame[random.below(frame.size())] ^= std::byte{0x10};
    if (random.chance(0.1)) frame.resize(random.below(frame.size() + 1));
    net.receive(frame);
    if (random.chance(0.3)) (void)net.send(address(), noise(3000), 17, {.dont_fragment = random.chance(0.5)});
    while (net.network->deliver_local()) {
    }
    if (random.chance(0.05)) net.advance(std::chrono::milliseconds(random.below(3000)));
    for (const CapturedFrame& sent : net.take()) {
      if (sent.arp) continue;
      EXPECT_THAT(sent, Ipv4());
      if (sent.icmp) {
        EXPECT_THAT(sent, Icmp());
      }
    }
    net.udp.packets.clear();
    net.tcp.packets.clear();
    EXPECT_LE(net.network->neighbours().size(), 16u);
  }
  EXPECT_GT(net.counters.IpReasmOKs, 50u);
  EXPECT_GT(net.counters.IpFragOKs, 50u);
  EXPECT_GT(net.counters.IcmpOutMsgs, 50u);
  EXPECT_GT(net.udp.errors.size() + net.tcp.errors.size(), 50u);
}

}  // namespace
}  // namespace ustack::test
