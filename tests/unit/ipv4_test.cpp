#include "stack/net/ipv4.h"

#include <gtest/gtest.h>

#include "stack/net/checksum.h"
#include "tests/support/network_harness.h"
#include "tests/support/packet_matchers.h"

namespace ustack::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Ipv4Fields kGood{.source = kPeer, .destination = kOurs, .protocol = 17};

ByteVector bytes(std::initializer_list<int> values) {
  ByteVector out;
  for (int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

// --- the wire format

TEST(Ipv4Header, EmitsWhatItParses) {
  Ipv4Header header;
  header.tos = 0xb9;
  header.total_length = 1500;
  header.id = 0xbeef;
  header.dont_fragment = true;
  header.ttl = 3;
  header.protocol = 6;
  header.source = kOurs;
  header.destination = kFar;
  ByteVector packet(1500);
  header.emit(packet.data());
  Ipv4Header parsed;
  EXPECT_EQ(Ipv4Header::parse(packet, parsed), Ipv4Error::none);
  EXPECT_EQ(parsed, header);

  header.dont_fragment = false;
  header.more_fragments = true;
  header.fragment_offset = 65528;
  header.emit(packet.data());
  EXPECT_EQ(Ipv4Header::parse(packet, parsed), Ipv4Error::none);
  EXPECT_EQ(parsed, header);
  EXPECT_TRUE(parsed.is_fragment());
  CapturedFrame frame = CapturedFrame::parse(packet, LinkInfo::Kind::ip);
  EXPECT_THAT(frame, Ipv4(FragmentOffset(65528), MoreFragments(true), DontFragment(false), Tos(0xb9)));
}

TEST(Ipv4Header, NoPrefixOfAPacketIsAPacket) {
  ByteVector packet =
      ipv4_packet({.source = kPeer, .destination = kOurs, .options = ByteVector(8)}, bytes_of("data"));
  Ipv4Header header;
  for (size_t n = 0; n < packet.size(); ++n)
    EXPECT_NE(Ipv4Header::parse(Bytes(packet).first(n), header), Ipv4Error::none);
  EXPECT_EQ(Ipv4Header::parse(packet, header), Ipv4Error::none);
  EXPECT_EQ(header.header_length, 28);
  EXPECT_EQ(header.payload_length(), 4u);
}

TEST(Ipv4Header, EveryFlippedBitOfTheHeaderIsNoticed) {
  ByteVector good = ipv4_packet(kGood, bytes_of("data"));
  Ipv4Header header;
  for (size_t bit = 0; bit < 160; ++bit) {
    ByteVector bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_NE(Ipv4Header::parse(bad, header), Ipv4Error::none) << bit;
  }
}

struct OptionsCase {
  ByteVector options;
  Ipv4Options::Verdict verdict;
  int pointer = 0;
};

TEST(Ipv4Options, AreJudged) {
  using enum Ipv4Options::Verdict;
  const OptionsCase kCases[] = {
      {bytes({1, 1, 1, 0}), ok},
      {bytes({0, 99, 1, 0}), ok},            // nothing after the end counts
      {bytes({1, 1, 1, 7}), malformed, 23},  // no room for a length
      {bytes({7, 0, 0, 0}), malformed, 20},  // length below 2
      {bytes({7, 1, 0, 0}), malformed, 20},
      {bytes({1, 7, 8, 4}), malformed, 21},           // longer than the header
      {bytes({7, 7, 4, 0, 0, 0, 0}), ok},             // record route
      {bytes({7, 7, 8, 1, 2, 3, 4}), ok},             // full
      {bytes({7, 7, 3, 0, 0, 0, 0}), malformed, 22},  // pointer below 4
      {bytes({7, 7, 5, 0, 0, 0, 0}), malformed, 22},  // no room for an address
      {bytes({1, 1, 7, 2}), malformed, 23},
      {bytes({7, 7, 4, 0, 0, 0, 0, 7, 5, 4, 0, 0}), malformed, 27},
      {bytes({7, 7, 4, 0, 0, 0, 0, 7, 7, 4, 0, 0, 0, 0}), malformed, 27},  // twice
      {bytes({131, 7, 4, 1, 2, 3, 4}), source_routed},
      {bytes({137, 7, 8, 1, 2, 3, 4}), source_routed},
      {bytes({131, 7, 4, 1, 2, 3, 4, 137, 7, 4, 1, 2, 3, 4}), malformed, 27},
      {bytes({131, 2, 0, 0}), malformed, 21},
      {bytes({68, 8, 5, 0, 0, 0, 0, 0}), ok},             // timestamp
      {bytes({68, 8, 5, 1, 0, 0, 0, 0}), malformed, 22},  // no room for address and time
      {bytes({68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0}), ok},
      {bytes({68, 8, 4, 0, 0, 0, 0, 0}), malformed, 22},
      {bytes({68, 3, 5, 0}), malformed, 21},
      {bytes({148, 4, 0, 0}), ok},  // router alert
      {bytes({148, 3, 0, 0}), malformed, 21},
      {bytes({130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0}), ok},  // security, unknown to us
      {bytes({99, 40}) + ByteVector(38), ok},
  };
  for (const OptionsCase& c : kCases) {
    ByteVector packet = ipv4_packet({.source = kPeer, .destination = kOurs, .options = c.options}, {});
    Ipv4Options found = Ipv4Options::check(packet);
    EXPECT_EQ(static_cast<int>(found.verdict), static_cast<int>(c.verdict))
        << ::testing::PrintToString(c.options);
    if (c.verdict == malformed) {
      EXPECT_EQ(found.pointer, c.pointer) << ::testing::PrintToString(c.options);
    }
  }
}

TEST(Ipv4Options, NoInputReadsPastTheHeader) {
  SeededRandom random(7);
  for (int round = 0; round < 20000; ++round) {
    // A heap block of exactly the header's length, so that a sanitizer sees a byte too much.
    std::vector<std::byte> header(20 + 4 * random.below(11));
    random.fill(header);
    (void)Ipv4Options::check(header);
  }
}

// --- what comes in

struct InputCase {
  const char* name;
  Ipv4Fields fields;
  const char* counters;
};
std::ostream& operator<<(std::ostream& out, const InputCase& c) { return out << c.name; }
class Ipv4Input : public ::testing::TestWithParam<InputCase> {};

TEST_P(Ipv4Input, WrongPacketsAreCountedAndDropped) {
  NetworkHarness net;
  net.receive_ip(GetParam().fields, bytes_of("12345678"));
  EXPECT_EQ(net.take_counters(), GetParam().counters);
  EXPECT_THAT(net.udp.packets, IsEmpty());
  EXPECT_THAT(net.take(), IsEmpty());
}

Ipv4Fields from(const IpAddress& source) { return {.source = source, .destination = kOurs, .protocol = 17}; }
Ipv4Fields to(const IpAddress& destination) {
  return {.source = kPeer, .destination = destination, .protocol = 17};
}

INSTANTIATE_TEST_SUITE_P(
    Packets, Ipv4Input,
    ::testing::Values(
        InputCase{"Version6", {.source = kPeer, .destination = kOurs, .version = 6}, "Ip.InHdrErrors=1"},
        InputCase{"Version0", {.source = kPeer, .destination = kOurs, .version = 0}, "Ip.InHdrErrors=1"},
        InputCase{"ShortIhl", {.source = kPeer, .destination = kOurs, .ihl = 4}, "Ip.InHdrErrors=1"},
        InputCase{"IhlPastTheEnd", {.source = kPeer, .destination = kOurs, .ihl = 15}, "Ip.InHdrErrors=1"},
        InputCase{"TotalBelowHeader",
                  {.source = kPeer, .destination = kOurs, .total_length = 19},
                  "Ip.InHdrErrors=1"},
        InputCase{
            "TotalZero", {.source = kPeer, .destination = kOurs, .total_length = 0}, "Ip.InHdrErrors=1"},
        InputCase{"Truncated",
                  {.source = kPeer, .destination = kOurs, .total_length = 29},
                  "IpExt.InTruncatedPkts=1"},
        InputCase{"Checksum",
                  {.source = kPeer, .destination = kOurs, .checksum_error = 1},
                  "Ip.InHdrErrors=1 IpExt.InCsumErrors=1"},
        InputCase{"ForAnother", to(kPeer), "Ip.InAddrErrors=1"},
        InputCase{"ForFar", to(kFar), "Ip.InAddrErrors=1"},
        InputCase{"ForMulticast", to(IpAddress::v4(224, 0, 0, 1)), "Ip.InAddrErrors=1"},
        InputCase{"ForZero", to(IpAddress::v4(uint32_t{0})), "Ip.InAddrErrors=1"},
        InputCase{"ForLoopback", to(IpAddress::v4(127, 0, 0, 1)), "Ip.InAddrErrors=1"},
        InputCase{"FromMulticast", from(IpAddress::v4(224, 0, 0, 1)), "Ustack.RxMartians=1"},
        InputCase{"FromBroadcast", from(IpAddress::broadcast_v4()), "Ustack.RxMartians=1"},
        InputCase{"FromDirectedBroadcast", from(IpAddress::v4(192, 0, 2, 255)), "Ustack.RxMartians=1"},
        InputCase{"FromUs", from(kOurs), "Ustack.RxMartians=1"},
        InputCase{"FromOurOther", from(kOurSecond), "Ustack.RxMartians=1"},
        InputCase{"FromLoopback", from(IpAddress::v4(127, 0, 0, 1)), "Ustack.RxMartians=1"},
        InputCase{"FromZero", from(IpAddress::v4(uint32_t{0})), "Ustack.RxMartians=1"},
        InputCase{"SourceRoute",
                  {.source = kPeer, .destination = kOurs, .options = bytes({131, 7, 4, 1, 2, 3, 4})},
                  "Ip.InDiscards=1"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(Ipv4Input, LoopbackStaysOffTheWireEvenIfItIsOurs) {
  NetworkHarness net({.addresses = {{kOurs, 24}, {IpAddress::v4(127, 0, 0, 1), 8}}});
  net.receive_ip(to(IpAddress::v4(127, 0, 0, 1)), bytes_of("12345678"));
  EXPECT_EQ(net.take_counters(), "Ustack.RxMartians=1");
}

TEST(Ipv4Input, DeliversWithEverythingATransportNeeds) {
  NetworkHarness net;
  Ipv4Fields fields = kGood;
  fields.tos = 0x20;
  fields.ttl = 1;  // a host doesn't drop by TTL (RFC 1122, 3.2.1.7)
  net.receive_ip(fields, bytes_of("12345678"));
  ASSERT_EQ(net.udp.packets.size(), 1u);
  const DeliveredPacket& got = net.udp.packets[0];
  EXPECT_EQ(got.data, "12345678");
  EXPECT_EQ(got.packet.source, kPeer);
  EXPECT_EQ(got.packet.destination, kOurs);
  EXPECT_EQ(got.packet.protocol, 17);
  EXPECT_EQ(got.packet.tos, 0x20);
  EXPECT_EQ(got.packet.ttl, 1);
  EXPECT_FALSE(got.packet.checksum_trusted);
  EXPECT_EQ(got.packet.segment_size, 0);
  EXPECT_EQ(got.packet.arrived, net.now);
  EXPECT_EQ(got.packet.network_length, 28u);
  EXPECT_EQ(net.take_counters(true),
            "Ip.InReceives=1 Ip.InDelivers=1 IpExt.InOctets=28 IpExt.InNoECTPkts=1 Ustack.RxFrames=1");
}

TEST(Ipv4Input, ArrivalIsWhenTheLinkSaysSo) {
  NetworkHarness net({.link = {.kind = LinkInfo::Kind::ip}});
  Instant arrived = net.now - 5ms;
  ByteVector packet = ipv4_packet(kGood, bytes_of("12345678"));
  BlockRef block = net.blocks.allocate(64);
  std::memcpy(block->data(), packet.data(), packet.size());
  net.network->receive(RxFrame{Slice{block, 0, static_cast<uint32_t>(packet.size())}, {}, arrived});
  ASSERT_EQ(net.udp.packets.size(), 1u);
  EXPECT_EQ(net.udp.packets[0].packet.arrived, arrived);
}

TEST(Ipv4Input, EthernetPaddingIsCutOff) {
  NetworkHarness net;
  net.receive(ethernet_frame(kOurMac, kPeerMac, 0x0800, ipv4_packet(kGood, bytes_of("1")) + ByteVector(25)));
  ASSERT_EQ(net.udp.packets.size(), 1u);
  EXPECT_EQ(net.udp.packets[0].data, "1");
}

TEST(Ipv4Input, EmptyPayloadIsDelivered) {
  NetworkHarness net;
  net.receive_ip(kGood, {});
  ASSERT_EQ(net.udp.packets.size(), 1u);
  EXPECT_EQ(net.udp.packets[0].data, "");
}

TEST(Ipv4Input, OptionsAreTolerated) {
  NetworkHarness net;
  Ipv4Fields fields = kGood;
  fields.options = bytes({148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 1});
  net.receive_ip(fields, bytes_of("12345678"));
  ASSERT_EQ(net.udp.packets.size(), 1u);
  EXPECT_EQ(net.udp.packets[0].data, "12345678");
}

TEST(Ipv4Input, MalformedOptionsAreAnsweredWithTheirPlace) {
  NetworkHarness net;
  net.learn(kPeer, kPeerMac);
  Ipv4Fields fields = kGood;
  fields.options = bytes({1, 1, 7, 1});
  net.receive_ip(fields, bytes_of("12345678"));
  EXPECT_THAT(net.udp.packets, IsEmpty());
  EXPECT_THAT(net.take(),
              ElementsAre(Ipv4(SrcIs(kOurs), DstIs(kPeer),
                               Icmp(IcmpType(12), IcmpCode(0), IcmpInfo(22u << 24), PayloadSize(32u)))));
  EXPECT_EQ(net.take_counters(), "Ip.InHdrErrors=1 Icmp.OutMsgs=1 Icmp.OutParmProbs=1");
}

TEST(Ipv4Input, OffloadBecomesTrust) {
  NetworkHarness net;
  Offload partial{.partial_checksum = true, .checksum_start = 34, .checksum_offset = 16};
  Offload valid{.checksum_valid = true};
  Offload super{
      .partial_checksum = true, .segmentation = Offload::Segmentation::tcp_v4, .segment_size = 1448};
  Ipv4Fields tcp{.source = kPeer, .destination = kOurs, .protocol = 6};
  net.receive_ip(tcp, pattern_bytes(40), partial);
  net.receive_ip(tcp, pattern_bytes(40), valid);
  net.receive_ip(tcp, pattern_bytes(20000), super);
  ASSERT_EQ(net.tcp.packets.size(), 3u);
  EXPECT_TRUE(net.tcp.packets[0].packet.checksum_trusted);
  EXPECT_TRUE(net.tcp.packets[1].packet.checksum_trusted);
  EXPECT_EQ(net.tcp.packets[1].packet.segment_size, 0);
  EXPECT_TRUE(net.tcp.packets[2].packet.checksum_trusted);
  EXPECT_EQ(net.tcp.packets[2].packet.segment_size, 1448);
  EXPECT_EQ(net.tcp.packets[2].data.size(), 20000u);
}

TEST(Ipv4Input, EcnIsCounted) {
  NetworkHarness net;
  for (uint8_t tos : {uint8_t{0}, uint8_t{1}, uint8_t{2}, uint8_t{2}, uint8_t{0xff}}) {
    Ipv4Fields fields = kGood;
    fields.tos = tos;
    net.receive_ip(fields, bytes_of("12345678"));
  }
  EXPECT_EQ(net.counters.IpExtInNoECTPkts, 1u);
  EXPECT_EQ(net.counters.IpExtInECT1Pkts, 1u);
  EXPECT_EQ(net.counters.IpExtInECT0Pkts, 2u);
  EXPECT_EQ(net.counters.IpExtInCEPkts, 1u);
}

TEST(Ipv4Input, TcpGetsNoBroadcasts) {
  NetworkHarness net;
  for (const IpAddress& broadcast : {IpAddress::broadcast_v4(), IpAddress::v4(192, 0, 2, 255)})
    net.receive_ip({.source = kPeer, .destination = broadcast, .protocol = 6}, pattern_bytes(20));
  EXPECT_THAT(net.tcp.packets, IsEmpty());
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ip.InDelivers=2 IpExt.InBcastPkts=2 IpExt.InBcastOctets=80");
}

TEST(Ipv4Input, UnknownProtocolsAreRefused) {
  NetworkHarness net;
  net.learn(kPeer, kPeerMac);
  net.receive_ip({.source = kPeer, .destination = kOurs, .protocol = 132}, bytes_of("12345678"));
  EXPECT_THAT(net.take(), ElementsAre(Ipv4(DstIs(kPeer), Tos(0xc0),
                                           Icmp(IcmpType(3), IcmpCode(2), IcmpInfo(0), PayloadSize(28u)))));
  net.receive_ip({.source = kPeer, .destination = IpAddress::broadcast_v4(), .protocol = 132},
                 bytes_of("12345678"));
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.counters.IpInUnknownProtos, 2u);
}

TEST(Ipv4Input, RandomBytesDoNoHarm) {
  SeededRandom random(3);
  NetworkHarness net({.link = {.kind = LinkInfo::Kind::ip}});
  for (int round = 0; round < 20000; ++round) {
    ByteVector packet(random.below(120));
    random.fill(packet);
    if (packet.size() >= 20 && random.chance(0.9)) {
      // Let it pass the first checks, so that the later ones see something.
      size_t header = std::min<size_t>(packet.size() / 4, 5 + random.below(4)) * 4;
      packet[0] = static_cast<std::byte>(0x40 | header / 4);
      store_be16(&packet[2], static_cast<uint16_t>(packet.size()));
      if (random.chance(0.7)) packet[9] = std::byte{1};
      if (random.chance(0.5)) packet[6] = packet[7] = std::byte{0};
      std::memcpy(&packet[12], kPeer.data(), 4);
      std::memcpy(&packet[16], kOurs.data(), 4);
      packet[10] = packet[11] = std::byte{0};
      store_be16(&packet[10], checksum_of(Bytes(packet).first(header)));
    }
    net.receive(packet);
    if (round % 100 == 0) net.advance(100ms);
  }
  EXPECT_GT(net.counters.IpInDelivers, 1000u);
  EXPECT_GT(net.counters.IpReasmReqds, 1000u);
}

// --- what goes out

class Ipv4Output : public ::testing::Test {
 protected:
  Ipv4Output() { net.learn(kPeer, kPeerMac); }
  Route route() {
    Result<Route> found = net.network->find_route({}, kPeer);
    EXPECT_TRUE(found.ok());
    return *found;
  }
  NetworkHarness net;
};

TEST_F(Ipv4Output, PutsAHeaderInFront) {
  EXPECT_TRUE(net.send(kPeer, bytes_of("payload"), 17, {.ttl = 9, .tos = 0x10, .dont_fragment = true}).ok());
  EXPECT_THAT(net.take(),
              ElementsAre(Ethernet(
                  EthSrc(kOurMac), EthDst(kPeerMac),
                  Ipv4(SrcIs(kOurs), DstIs(kPeer), Ttl(9), Tos(0x10), IpProtocol(17), DontFragment(true),
                       FragmentOffset(0), MoreFragments(false), TotalLength(27), Payload("payload")))));
  EXPECT_EQ(net.take_counters(true), "Ip.OutRequests=1 IpExt.OutOctets=27 Ustack.TxFrames=1");
}

TEST_F(Ipv4Output, IdentificationCountsPerDestination) {
  net.learn(kGateway, kGatewayMac);
  std::vector<uint16_t> ids;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(net.send(kPeer, bytes_of("x")).ok());
  for (const CapturedFrame& frame : net.take()) ids.push_back(frame.ipv4->id);
  EXPECT_EQ(static_cast<uint16_t>(ids[0] + 1), ids[1]);
  EXPECT_EQ(static_cast<uint16_t>(ids[0] + 2), ids[2]);
  ASSERT_TRUE(net.send(kFar, bytes_of("x")).ok());
  EXPECT_NE(net.take().at(0).ipv4->id, static_cast<uint16_t>(ids[2] + 1));

  NetworkHarness other({.seed = 2});
  other.learn(kPeer, kPeerMac);
  ASSERT_TRUE(other.send(kPeer, bytes_of("x")).ok());
  EXPECT_NE(other.take().at(0).ipv4->id, ids[0]);
}

/// A TCP segment whose checksum field holds the pseudo-header's sum.
TxFrame* partial_tcp(NetworkHarness& net, const ByteVector& payload, size_t slice = 1 << 16) {
  ByteVector header = tcp_segment(kOurs, kPeer, {.source_port = 1, .destination_port = 2});
  uint32_t sum = pseudo_header_sum(kOurs, kPeer, 6, static_cast<uint32_t>(header.size() + payload.size()));
  store_be16(&header[16], Checksum(sum).folded());
  TxFrame* frame = net.frame(header, payload, slice);
  frame->offload.partial_checksum = true;
  frame->offload.checksum_offset = 16;
  return frame;
}

TEST_F(Ipv4Output, CompletesChecksumsForLinksThatDoNot) {
  for (size_t slice : {1, 3, 8, 100}) {
    for (size_t n : {0, 1, 2, 17, 18}) {
      ASSERT_TRUE(route().send(partial_tcp(net, pattern_bytes(n), slice == 1 ? 1 : slice), 6, {}).ok());
      auto frames = net.take();
      EXPECT_THAT(frames, ElementsAre(Ipv4(Tcp(SrcPort(1), PayloadSize(n)))))
          << n << " in slices of " << slice;
      EXPECT_FALSE(frames[0].offload.partial_checksum);
    }
  }
}

TEST(Ipv4OutputOffload, LeavesChecksumsToLinksThatCan) {
  for (auto [kind, link_header] : {std::pair{LinkInfo::Kind::ethernet, 14}, {LinkInfo::Kind::ip, 0}}) {
    NetworkHarness net({.link = {.kind = kind, .mac = kOurMac, .checksum_offload = true}});
    net.learn(kPeer, kPeerMac);
    Result<Route> route = net.network->find_route({}, kPeer);
    ASSERT_TRUE(route->send(partial_tcp(net, bytes_of("hello")), 6, {}).ok());
    auto frames = net.take();
    EXPECT_THAT(frames, ElementsAre(Ipv4(Tcp(PartialChecksum(), Payload("hello")))));
    EXPECT_EQ(frames[0].offload.checksum_start, link_header + 20);
    EXPECT_EQ(frames[0].offload.checksum_offset, 16);
  }
}

class Superframe : public ::testing::Test {
 protected:
  Superframe() { net.learn(kPeer, kPeerMac); }
  Status send(size_t payload, uint16_t segment_size) {
    Result<Route> route = net.network->find_route({}, kPeer);
    TxFrame* frame = partial_tcp(net, pattern_bytes(payload), 16000);
    frame->offload.segmentation = Offload::Segmentation::tcp_v4;
    frame->offload.segment_size = segment_size;
    return route->send(frame, 6, {});
  }
  NetworkHarness net{
      {.link = {
           .mac = kOurMac, .checksum_offload = true, .tcp_segmentation_v4 = true, .max_superframe = 40000}}};
};

TEST_F(Superframe, IsExemptFromTheMtu) {
  ASSERT_TRUE(send(14480, 1448).ok());
  auto frames = net.take();
  EXPECT_THAT(frames, ElementsAre(Ipv4(Tcp(PartialChecksum(), SegmentSize(1448), PayloadSize(14480u)))));
  EXPECT_EQ(frames[0].offload.header_length, 14 + 20 + 20);
  EXPECT_EQ(frames[0].offload.checksum_start, 34);
}

TEST_F(Superframe, TakesAnIdentificationForEachSegment) {
  ASSERT_TRUE(send(14481, 1448).ok());
  ASSERT_TRUE(send(100, 1448).ok());
  auto frames = net.take();
  EXPECT_EQ(static_cast<uint16_t>(frames[0].ipv4->id + 11), frames[1].ipv4->id);
}

TEST_F(Superframe, OfOneSegmentIsAnOrdinaryFrame) {
  ASSERT_TRUE(send(1448, 1448).ok());
  auto frames = net.take();
  EXPECT_EQ(frames.at(0).offload.segmentation, Offload::Segmentation::none);
  EXPECT_THAT(frames[0], Ipv4(Tcp(PartialChecksum(), SegmentSize(0))));
}

TEST_F(Superframe, BeyondTheLinksLimitIsRefused) {
  EXPECT_TRUE(send(40000 - 40, 1448).ok());
  EXPECT_EQ(send(40000 - 39, 1448).code(), EMSGSIZE);
}

TEST_F(Superframe, WhoseSegmentsExceedThePathMtuIsRefused) {
  EXPECT_EQ(send(14480, 1461).code(), EMSGSIZE);
  EXPECT_TRUE(send(14480, 1460).ok());
  net.network->update_path_mtu(kPeer, 1400);
  EXPECT_EQ(send(14480, 1460).code(), EMSGSIZE);
  EXPECT_TRUE(send(14480, 1360).ok());
  EXPECT_EQ(net.counters.IpFragFails, 2u);
}

TEST_F(Superframe, ThatContradictsItselfIsRefused) {
  EXPECT_EQ(send(14480, 0).code(), EINVAL);
  Result<Route> route = net.network->find_route({}, kPeer);
  auto refused = [&](auto&& spoil, uint8_t protocol) {
    TxFrame* frame = partial_tcp(net, pattern_bytes(5000));
    frame->offload.segmentation = Offload::Segmentation::tcp_v4;
    frame->offload.segment_size = 1448;
    spoil(*frame);
    return route->send(frame, protocol, {}).code();
  };
  EXPECT_EQ(refused([](TxFrame&) {}, 17), EINVAL);
  EXPECT_EQ(refused([](TxFrame& f) { f.offload.segmentation = Offload::Segmentation::tcp_v6; }, 6), EINVAL);
  EXPECT_EQ(refused([](TxFrame& f) { f.offload.partial_checksum = false; }, 6), EINVAL);
  EXPECT_EQ(refused([](TxFrame& f) { f.offload.checksum_offset = 19; }, 6), EINVAL);
  EXPECT_EQ(refused([](TxFrame& f) { f.header()[12] = std::byte{0x60}; }, 6),
            EINVAL);  // longer than the frame's
  EXPECT_EQ(refused([](TxFrame& f) { f.header()[12] = std::byte{0x40}; }, 6), EINVAL);
  EXPECT_EQ(net.frames.live(), 0u);
  EXPECT_EQ(net.counters.IpOutDiscards, 7u);
}

TEST_F(Ipv4Output, SuperframesForLinksWithoutThemAreRefused) {
  TxFrame* frame = partial_tcp(net, pattern_bytes(5000));
  frame->offload.segmentation = Offload::Segmentation::tcp_v4;
  frame->offload.segment_size = 1448;
  EXPECT_EQ(route().send(frame, 6, {}).code(), EINVAL);
}

// --- fragmentation

TEST_F(Ipv4Output, FragmentsWhatIsTooLarge) {
  ByteVector data = pattern_bytes(4000);
  ByteVector header = data;
  header.resize(20);
  ByteVector body(data.begin() + 20, data.end());
  ASSERT_TRUE(route().send(net.frame(header, body, 700), 17, {.dont_fragment = false}).ok());
  auto frames = net.take();
  ASSERT_EQ(frames.size(), 3u);
  std::string joined;
  for (const CapturedFrame& frame : frames) {
    EXPECT_THAT(frame,
                Ipv4(SrcIs(kOurs), DstIs(kPeer), IpProtocol(17), FragmentOffset(joined.size()),
                     IpId(frames[0].ipv4->id), MoreFragments(&frame != &frames.back()), DontFragment(false)));
    EXPECT_LE(frame.ipv4->total_length, 1500u);
    joined += frame.payload;
  }
  EXPECT_EQ(bytes_of(joined), data);
  EXPECT_EQ(net.take_counters(true),
            "Ip.OutRequests=1 Ip.FragOKs=1 Ip.FragCreates=3 IpExt.OutOctets=4020 Ustack.TxFrames=3");
}

TEST(Ipv4Fragmentation, AtEveryMtuAndSize) {
  for (uint16_t mtu : {uint16_t{68}, uint16_t{69}, uint16_t{75}, uint16_t{76}, uint16_t{576}}) {
    NetworkHarness net({.link = {.kind = LinkInfo::Kind::ip, .mtu = mtu}});
    for (size_t n : {size_t{0}, size_t{1}, size_t{mtu - 20u}, size_t{mtu - 19u}, size_t{333}, size_t{1200}}) {
      // A header larger than the smallest fragment is cut, too.
      ByteVector data = pattern_bytes(n + 60);
      ByteVector header(data.begin(), data.begin() + 60);
      Result<Route> route = net.network->find_route({}, kPeer);
      TxFrame* frame = net.frame(header, {data.begin() + 60, data.end()}, 100);
      ASSERT_TRUE(route->send(frame, 17, {.dont_fragment = false}).ok());
      std::string joined;
      for (const CapturedFrame& part : net.take()) {
        EXPECT_THAT(part, Ipv4(FragmentOffset(joined.size())));
        EXPECT_LE(part.ipv4->total_length, mtu);
        joined += part.payload;
        EXPECT_EQ(part.ipv4->more_fragments, joined.size() < data.size());
      }
      EXPECT_EQ(bytes_of(joined), data) << mtu << ' ' << n;
    }
  }
}

TEST_F(Ipv4Output, ChecksumsAreCompletedBeforeFragmenting) {
  NetworkHarness offloading({.link = {.mac = kOurMac, .checksum_offload = true}});
  offloading.learn(kPeer, kPeerMac);
  Result<Route> route = offloading.network->find_route({}, kPeer);
  ASSERT_TRUE(route->send(partial_tcp(offloading, pattern_bytes(3000)), 6, {.dont_fragment = false}).ok());
  std::string joined;
  for (const CapturedFrame& part : offloading.take()) {
    EXPECT_FALSE(part.offload.partial_checksum);
    joined += part.payload;
  }
  ByteVector whole = ipv4_packet({.source = kOurs, .destination = kPeer, .protocol = 6}, bytes_of(joined));
  EXPECT_THAT(CapturedFrame::parse(whole, LinkInfo::Kind::ip), Ipv4(Tcp(PayloadSize(3000u))));
}

TEST_F(Ipv4Output, DontFragmentIsAnError) {
  EXPECT_TRUE(net.send(kPeer, pattern_bytes(1480)).ok());
  EXPECT_EQ(net.send(kPeer, pattern_bytes(1481)).code(), EMSGSIZE);
  net.network->update_path_mtu(kPeer, 1000);
  EXPECT_EQ(net.send(kPeer, pattern_bytes(981)).code(), EMSGSIZE);
  EXPECT_TRUE(net.send(kPeer, pattern_bytes(980)).ok());
  EXPECT_EQ(net.take().size(), 2u);
  EXPECT_EQ(net.take_counters(), "Ip.FragFails=2");
}

TEST_F(Ipv4Output, NoPacketIsLargerThan64K) {
  EXPECT_EQ(net.send(kPeer, pattern_bytes(65516), 17, {.dont_fragment = false}).code(), EMSGSIZE);
  EXPECT_TRUE(net.send(kPeer, pattern_bytes(65515), 17, {.dont_fragment = false}).ok());
  EXPECT_EQ(net.take().size(), 45u);
  EXPECT_EQ(net.frames.live(), 0u);
}

TEST_F(Ipv4Output, FragmentsAllOrNothing) {
  Route way = route();
  TxFrame* frame = net.frame({}, pattern_bytes(6000));
  net.arena.fail_after(2);
  EXPECT_EQ(way.send(frame, 17, {.dont_fragment = false}).code(), ENOBUFS);
  net.arena.never_fail();
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.frames.live(), 0u);
  EXPECT_EQ(net.blocks.live(), 0u);
  EXPECT_EQ(net.take_counters(), "Ip.OutDiscards=1 Ip.FragFails=1 Ustack.TxNoMemory=1");
}

}  // namespace
}  // namespace ustack::test
