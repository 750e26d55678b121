#include "stack/net/arp.h"

#include <gtest/gtest.h>

#include "tests/support/network_harness.h"
#include "tests/support/packet_matchers.h"

namespace ustack::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr IpAddress kZero = IpAddress::v4(0, 0, 0, 0);
constexpr uint16_t kRequest = 1, kReply = 2;

auto reply_to(const MacAddress& mac, const IpAddress& asker, const IpAddress& asked) {
  return Ethernet(EthDst(mac), EthSrc(kOurMac),
                  Arp(IsReply(), SenderMac(kOurMac), SenderIp(asked), TargetMac(mac), TargetIp(asker)));
}
auto announcement_of(const IpAddress& address) {
  return Ethernet(
      EthDst(MacAddress::broadcast()), EthSrc(kOurMac),
      Arp(IsRequest(), SenderMac(kOurMac), SenderIp(address), TargetMac(MacAddress{}), TargetIp(address)));
}

/// The state of a neighbour as text, with the last byte of its MAC.
std::string known(NetworkHarness& net, const IpAddress& address) {
  const Neighbour* neighbour = net.network->neighbours().find(address);
  if (neighbour == nullptr) return "unknown";
  static constexpr const char* kNames[] = {"incomplete", "reachable", "stale", "delay", "probe", "failed"};
  NeighbourState state = net.network->neighbours().state(*neighbour);
  return std::string(kNames[static_cast<int>(state)]) + " " +
         std::to_string(std::to_integer<int>(neighbour->mac().bytes[5]));
}

TEST(ArpPacket, EmitsWhatItParses) {
  ArpPacket packet{ArpPacket::Operation::reply, kOurMac, kOurs, kPeerMac, kPeer};
  std::byte bytes[ArpPacket::kLength];
  packet.emit(bytes);
  EXPECT_EQ(ArpPacket::parse(Bytes(bytes)), packet);
  EXPECT_EQ(ByteVector(std::begin(bytes), std::end(bytes)), arp_packet(2, kOurMac, kOurs, kPeerMac, kPeer));
}

TEST(ArpPacket, RefusesOtherHardwareProtocolsAndOperations) {
  const ByteVector good = arp_packet(1, kPeerMac, kPeer, {}, kOurs);
  for (size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(ArpPacket::parse(Bytes(good).first(n))) << n;
  EXPECT_TRUE(ArpPacket::parse(good + ByteVector(18)));  // padding
  // Each byte of what must be as it is: hardware type, protocol type, lengths, operation.
  for (size_t at = 0; at < 8; ++at) {
    ByteVector bad = good;
    bad[at] = bad[at] ^ std::byte{0x40};
    EXPECT_FALSE(ArpPacket::parse(bad)) << at;
  }
  for (uint16_t operation : {uint16_t{0}, uint16_t{3}, uint16_t{8}})
    EXPECT_FALSE(ArpPacket::parse(arp_packet(operation, kPeerMac, kPeer, {}, kOurs)));
}

TEST(Arp, AnswersForEachOfOurAddresses) {
  NetworkHarness net;
  net.receive_arp(kRequest, kPeerMac, kPeer, kOurs);
  net.receive_arp(kRequest, kOtherMac, kSecondPeer, kOurSecond);
  EXPECT_THAT(net.take(),
              ElementsAre(reply_to(kPeerMac, kPeer, kOurs), reply_to(kOtherMac, kSecondPeer, kOurSecond)));
  EXPECT_EQ(net.take_counters(), "Ustack.ArpRepliesSent=2 Ustack.ArpReceived=2");
}

TEST(Arp, AnswersUnicastRequests) {
  NetworkHarness net;
  net.receive(ethernet_frame(kOurMac, kPeerMac, 0x0806, arp_packet(1, kPeerMac, kPeer, kOurMac, kOurs)));
  EXPECT_THAT(net.take(), ElementsAre(reply_to(kPeerMac, kPeer, kOurs)));
}

TEST(Arp, NeverAnswersForOthers) {
  NetworkHarness net;
  net.receive_arp(kRequest, kPeerMac, kPeer, kGateway);
  net.receive_arp(kRequest, kPeerMac, kPeer, IpAddress::v4(192, 0, 2, 255));
  net.receive_arp(kRequest, kPeerMac, kPeer, kZero);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(known(net, kPeer), "unknown");
  EXPECT_EQ(net.take_counters(), "Ustack.ArpReceived=3");
}

TEST(Arp, NeverAnswersForLoopback) {
  NetworkHarness net({.addresses = {{kOurs, 24}, {IpAddress::v4(127, 0, 0, 1), 8}}});
  net.receive_arp(kRequest, kPeerMac, kPeer, IpAddress::v4(127, 0, 0, 1));
  EXPECT_THAT(net.take(), IsEmpty());
}

TEST(Arp, LearnsWhoAsksForUs) {
  NetworkHarness net;
  net.receive_arp(kRequest, kPeerMac, kPeer, kOurs);
  EXPECT_EQ(known(net, kPeer), "stale 1");
}

TEST(Arp, DoesNotLearnWhoIsNotOnTheLink) {
  NetworkHarness net;
  net.receive_arp(kRequest, kPeerMac, kFar, kOurs);
  EXPECT_THAT(net.take(), ElementsAre(reply_to(kPeerMac, kFar, kOurs)));
  EXPECT_EQ(known(net, kFar), "unknown");
}

TEST(Arp, AnswersProbesWithoutLearning) {
  NetworkHarness net;
  net.receive_arp(kRequest, kPeerMac, kZero, kOurs);
  EXPECT_THAT(net.take(), ElementsAre(reply_to(kPeerMac, kZero, kOurs)));
  net.receive_arp(kRequest, kPeerMac, kZero, kPeer);
  net.receive_arp(kReply, kPeerMac, kZero, kOurs);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.network->neighbours().size(), 0u);
  EXPECT_EQ(net.take_counters(), "Ustack.ArpRepliesSent=1 Ustack.ArpReceived=3");
}

TEST(Arp, IgnoresRepliesThatNobodyAskedFor) {
  NetworkHarness net;
  net.receive_arp(kReply, kOtherMac, kPeer, kOurs, kOurMac);
  EXPECT_EQ(known(net, kPeer), "unknown");
}

TEST(Arp, GratuitousUpdatesOnlyWhatIsKnown) {
  NetworkHarness net;
  net.receive_arp(kRequest, kOtherMac, kPeer, kPeer);
  net.receive_arp(kReply, kOtherMac, kPeer, kPeer);
  EXPECT_EQ(known(net, kPeer), "unknown");

  net.receive_arp(kRequest, kPeerMac, kPeer, kOurs);
  EXPECT_EQ(known(net, kPeer), "stale 1");
  net.receive_arp(kRequest, kOtherMac, kPeer, kPeer);  // at once: a failover announces itself
  EXPECT_EQ(known(net, kPeer), "stale 99");
  net.receive_arp(kReply, kPeerMac, kPeer, kPeer);
  EXPECT_EQ(known(net, kPeer), "stale 1");
}

TEST(Arp, OverheardRequestsUpdateWhatIsKnown) {
  NetworkHarness net;
  net.receive_arp(kRequest, kPeerMac, kPeer, kOurs);
  net.advance(2s);
  net.receive_arp(kRequest, kOtherMac, kPeer, kGateway);
  EXPECT_EQ(known(net, kPeer), "stale 99");
}

TEST(Arp, FirstOfSeveralAnswersHolds) {
  NetworkHarness net;
  ASSERT_TRUE(net.send(kPeer, pattern_bytes(8)).ok());
  net.receive_arp(kReply, kPeerMac, kPeer, kOurs, kOurMac);
  EXPECT_EQ(known(net, kPeer), "reachable 1");
  net.advance(900ms);
  net.receive_arp(kReply, kOtherMac, kPeer, kOurs, kOurMac);
  EXPECT_EQ(known(net, kPeer), "reachable 1");
  net.advance(200ms);
  net.receive_arp(kReply, kOtherMac, kPeer, kOurs, kOurMac);
  EXPECT_EQ(known(net, kPeer), "stale 99");  // not asked for, so not proven
}

struct BadArp {
  const char* name;
  ByteVector frame;
  const char* counters;
};
std::ostream& operator<<(std::ostream& out, const BadArp& c) { return out << c.name; }
class ArpMalformed : public ::testing::TestWithParam<BadArp> {};

TEST_P(ArpMalformed, IsCountedAndTeachesNothing) {
  NetworkHarness net;
  net.receive(GetParam().frame);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.network->neighbours().size(), 0u);
  EXPECT_EQ(net.take_counters(), GetParam().counters);
}

ByteVector arp_frame(const ByteVector& packet) {
  return ethernet_frame(MacAddress::broadcast(), kPeerMac, 0x0806, packet);
}

INSTANTIATE_TEST_SUITE_P(
    Packets, ArpMalformed,
    ::testing::Values(
        BadArp{"Empty", arp_frame({}), "Ustack.RxMalformed=1 Ustack.ArpReceived=1"},
        BadArp{"Short", arp_frame(ByteVector(27)), "Ustack.RxMalformed=1 Ustack.ArpReceived=1"},
        BadArp{"Operation", arp_frame(arp_packet(9, kPeerMac, kPeer, {}, kOurs)),
               "Ustack.RxMalformed=1 Ustack.ArpReceived=1"},
        BadArp{"BroadcastSenderMac", arp_frame(arp_packet(1, MacAddress::broadcast(), kPeer, {}, kOurs)),
               "Ustack.RxMalformed=1 Ustack.ArpReceived=1"},
        BadArp{"ZeroSenderMac", arp_frame(arp_packet(1, {}, kPeer, {}, kOurs)),
               "Ustack.RxMalformed=1 Ustack.ArpReceived=1"},
        BadArp{"MulticastSender", arp_frame(arp_packet(1, kPeerMac, IpAddress::v4(224, 0, 0, 1), {}, kOurs)),
               "Ustack.RxMartians=1 Ustack.ArpReceived=1"},
        BadArp{"LoopbackSender", arp_frame(arp_packet(1, kPeerMac, IpAddress::v4(127, 0, 0, 1), {}, kOurs)),
               "Ustack.RxMartians=1 Ustack.ArpReceived=1"},
        BadArp{"BroadcastSender",
               arp_frame(arp_packet(1, kPeerMac, IpAddress::v4(192, 0, 2, 255), {}, kOurs)),
               "Ustack.RxMartians=1 Ustack.ArpReceived=1"},
        BadArp{"OurOwnComeBack", arp_frame(arp_packet(1, kOurMac, kOurs, {}, kOurs)),
               "Ustack.ArpReceived=1"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(ArpConflict, IsCountedAndDefendedOncePerInterval) {
  NetworkHarness net;
  net.receive_arp(kRequest, kOtherMac, kOurs, kPeer);
  EXPECT_THAT(net.take(), ElementsAre(announcement_of(kOurs)));
  EXPECT_EQ(net.take_counters(), "Ustack.ArpRequestsSent=1 Ustack.ArpReceived=1 Ustack.ArpConflicts=1");

  net.advance(9900ms);
  net.receive_arp(kReply, kOtherMac, kOurs, kOurs);
  net.receive_arp(kRequest, kOtherMac, kOurs, kOurs);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ustack.ArpReceived=2 Ustack.ArpConflicts=2");

  // Another address has an interval of its own.
  net.receive_arp(kRequest, kOtherMac, kOurSecond, kOurSecond);
  EXPECT_THAT(net.take(), ElementsAre(announcement_of(kOurSecond)));
  net.advance(200ms);
  net.receive_arp(kRequest, kOtherMac, kOurs, kPeer);
  EXPECT_THAT(net.take(), ElementsAre(announcement_of(kOurs)));
  EXPECT_EQ(net.network->neighbours().size(), 0u);
}

TEST(ArpStart, AnnouncesEachAddress) {
  NetworkHarness net;
  net.network->start();
  EXPECT_THAT(net.take(), ElementsAre(announcement_of(kOurs), announcement_of(kOurSecond)));
  EXPECT_EQ(net.take_counters(), "Ustack.ArpRequestsSent=2");
  EXPECT_EQ(net.timers.armed(), 0u);
}

TEST(ArpStart, IsSilentOnIpLinks) {
  NetworkHarness net({.link = {.kind = LinkInfo::Kind::ip}});
  net.network->start();
  EXPECT_THAT(net.take(), IsEmpty());
}

TEST(Arp, WithoutMemoryNothingIsSent) {
  NetworkHarness net;
  net.arena.fail_after(0);
  net.counters = {};
  ByteVector request = arp_packet(1, kPeerMac, kFar, {}, kOurs);
  BlockRef block = net.blocks.allocate(64);
  EXPECT_FALSE(block);
  net.network->start();
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ustack.TxNoMemory=2");
  net.arena.never_fail();
}

}  // namespace
}  // namespace ustack::test
