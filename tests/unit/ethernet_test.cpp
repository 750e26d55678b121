#include "stack/net/ethernet.h"

#include <gtest/gtest.h>

#include "tests/support/network_harness.h"
#include "tests/support/packet_matchers.h"

namespace ustack::test {
namespace {

TEST(EthernetHeader, EmitsWhatItParses) {
  EthernetHeader header{kPeerMac, kOurMac, 0x86dd};
  std::byte bytes[EthernetHeader::kLength];
  header.emit(bytes);
  EXPECT_EQ(EthernetHeader::parse(Bytes(bytes)), header);
  EXPECT_EQ(bytes[5], std::byte{1});  // destination first
  EXPECT_EQ(bytes[11], std::byte{2});
  EXPECT_EQ(bytes[12], std::byte{0x86});
}

TEST(EthernetHeader, RefusesWhatIsShort) {
  ByteVector frame = ethernet_frame(kOurMac, kPeerMac, 0x0800, {});
  for (size_t n = 0; n < frame.size(); ++n) EXPECT_FALSE(EthernetHeader::parse(Bytes(frame).first(n))) << n;
  EXPECT_TRUE(EthernetHeader::parse(frame));
}

TEST(EthernetHeader, RefusesGroupSource) {
  EXPECT_FALSE(EthernetHeader::parse(ethernet_frame(kOurMac, MacAddress::broadcast(), 0x0800, {})));
}

struct DemuxCase {
  const char* name;
  ByteVector frame;
  const char* counters;
};
std::ostream& operator<<(std::ostream& out, const DemuxCase& c) { return out << c.name; }

class EthernetDemux : public ::testing::TestWithParam<DemuxCase> {};

TEST_P(EthernetDemux, CountsAndDropsWhatIsNotForUs) {
  NetworkHarness net;
  net.receive(GetParam().frame);
  EXPECT_EQ(net.take_counters(), GetParam().counters);
  EXPECT_TRUE(net.take().empty());
  EXPECT_TRUE(net.udp.packets.empty());
}

ByteVector udp_packet() {
  return ipv4_packet({.source = kPeer, .destination = kOurs, .protocol = 17}, pattern_bytes(8));
}
constexpr MacAddress kIpMulticastMac{
    {std::byte{1}, std::byte{0}, std::byte{0x5e}, std::byte{0}, std::byte{0}, std::byte{1}}};

INSTANTIATE_TEST_SUITE_P(
    Frames, EthernetDemux,
    ::testing::Values(
        DemuxCase{"Empty", {}, "Ustack.RxMalformed=1"},
        DemuxCase{"Short", ByteVector(13), "Ustack.RxMalformed=1"},
        DemuxCase{"GroupSource", ethernet_frame(kOurMac, kIpMulticastMac, 0x0800, udp_packet()),
                  "Ustack.RxMalformed=1"},
        DemuxCase{"OtherHost", ethernet_frame(kOtherMac, kPeerMac, 0x0800, udp_packet()),
                  "Ustack.RxNotForUs=1"},
        DemuxCase{"Multicast", ethernet_frame(kIpMulticastMac, kPeerMac, 0x0800, udp_packet()),
                  "Ustack.RxNotForUs=1"},
        DemuxCase{"Vlan", ethernet_frame(kOurMac, kPeerMac, 0x8100, udp_packet()), "Ustack.RxNotForUs=1"},
        DemuxCase{"ServiceVlan", ethernet_frame(kOurMac, kPeerMac, 0x88a8, udp_packet()),
                  "Ustack.RxNotForUs=1"},
        DemuxCase{"Ipv6", ethernet_frame(kOurMac, kPeerMac, 0x86dd, ByteVector(40)), "Ustack.RxNotForUs=1"},
        DemuxCase{"LengthField", ethernet_frame(kOurMac, kPeerMac, 0x0026, ByteVector(38)),
                  "Ustack.RxNotForUs=1"},
        DemuxCase{"UnicastInBroadcast",
                  ethernet_frame(MacAddress::broadcast(), kPeerMac, 0x0800, udp_packet()),
                  "Ustack.RxMartians=1"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(EthernetDemux, TakesFramesForUsAndBroadcasts) {
  NetworkHarness net;
  net.receive(ethernet_frame(kOurMac, kPeerMac, 0x0800, udp_packet()));
  ByteVector broadcast = ipv4_packet(
      {.source = kPeer, .destination = IpAddress::broadcast_v4(), .protocol = 17}, pattern_bytes(8));
  net.receive(ethernet_frame(MacAddress::broadcast(), kPeerMac, 0x0800, broadcast));
  EXPECT_EQ(net.udp.packets.size(), 2u);
  EXPECT_EQ(net.take_counters(true),
            "Ip.InReceives=2 Ip.InDelivers=2 IpExt.InOctets=56 IpExt.InBcastPkts=1 IpExt.InBcastOctets=28 "
            "IpExt.InNoECTPkts=2 Ustack.RxFrames=2");
}

TEST(EthernetDemux, IpLinkTellsFamiliesByVersion) {
  NetworkHarness net({.link = {.kind = LinkInfo::Kind::ip}});
  net.receive({});
  EXPECT_EQ(net.take_counters(), "Ustack.RxMalformed=1");
  net.receive({std::byte{0x60}});
  EXPECT_EQ(net.take_counters(), "Ustack.RxNotForUs=1");
  net.receive({std::byte{0x50}});
  EXPECT_EQ(net.take_counters(), "Ip.InHdrErrors=1");
  net.receive(udp_packet());
  EXPECT_EQ(net.take_counters(), "Ip.InDelivers=1");
  ASSERT_EQ(net.udp.packets.size(), 1u);
  EXPECT_EQ(net.udp.packets[0].packet.source, kPeer);
}

}  // namespace
}  // namespace ustack::test
