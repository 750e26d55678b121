#include "stack/net/route.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/network_harness.h"
#include "tests/support/packet_matchers.h"

namespace ustack::test {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr IpAddress kAny = IpAddress::any(Family::ipv4);
/// Three unanswered requests a second apart, each at most a tick late.
constexpr Duration kGivenUp = 3s + 3 * TimerWheel::kTick;

// --- which way

struct RouteCase {
  const char* name;
  IpAddress local, remote;
  int code = 0;
  IpAddress source{}, next_hop{};
  bool is_local = false;
};
std::ostream& operator<<(std::ostream& out, const RouteCase& c) { return out << c.name; }
class FindRoute : public ::testing::TestWithParam<RouteCase> {};

TEST_P(FindRoute, ChoosesNextHopAndSource) {
  const RouteCase& c = GetParam();
  NetworkHarness net({.addresses = {{kOurs, 24}, {kOurSecond, 24}, {IpAddress::v4(192, 0, 2, 65), 26}}});
  Result<Route> route = net.network->find_route(c.local, c.remote);
  ASSERT_EQ(route.code(), c.code);
  EXPECT_EQ(net.counters.IpOutNoRoutes + net.counters.Ip6OutNoRoutes, c.code == ENETUNREACH ? 1u : 0u);
  if (c.code != 0) return;
  EXPECT_EQ(route->local(), c.source);
  EXPECT_EQ(route->next_hop(), c.next_hop);
  EXPECT_EQ(route->is_local(), c.is_local);
}

std::byte kV6[16] = {std::byte{0x20}, std::byte{1}, std::byte{0x0d}, std::byte{0xb8}};
const IpAddress kV6Address = IpAddress::from_bytes(Family::ipv6, kV6);
constexpr IpAddress kOurThird = IpAddress::v4(192, 0, 2, 65), kNearThird = IpAddress::v4(192, 0, 2, 66);

INSTANTIATE_TEST_SUITE_P(
    Ways, FindRoute,
    ::testing::Values(RouteCase{"Connected", kAny, kPeer, 0, kOurs, kPeer},
                      RouteCase{"ConnectedWithoutFamily", {}, kPeer, 0, kOurs, kPeer},
                      RouteCase{"ConnectedToTheSecond", kAny, kSecondPeer, 0, kOurSecond, kSecondPeer},
                      RouteCase{"LongestPrefix", kAny, kNearThird, 0, kOurThird, kNearThird},
                      RouteCase{"Gateway", kAny, kFar, 0, kOurs, kGateway},
                      RouteCase{"GatewayFromTheSecond", kOurSecond, kFar, 0, kOurSecond, kGateway},
                      RouteCase{"ChosenSource", kOurThird, kPeer, 0, kOurThird, kPeer},
                      RouteCase{"Self", kAny, kOurs, 0, kOurs, kOurs, true},
                      RouteCase{"SelfFromTheSecond", kOurSecond, kOurs, 0, kOurSecond, kOurs, true},
                      RouteCase{"AnyIsSelf", kAny, kAny, 0, kOurs, kOurs, true},
                      RouteCase{"AnyFromTheSecond", kOurSecond, kAny, 0, kOurSecond, kOurSecond, true},
                      RouteCase{"NotOurs", kPeer, kFar, EADDRNOTAVAIL},
                      RouteCase{"NotOursToSelf", kPeer, kOurs, EADDRNOTAVAIL},
                      RouteCase{"Broadcast", kAny, IpAddress::broadcast_v4(), EACCES},
                      RouteCase{"DirectedBroadcast", kAny, IpAddress::v4(192, 0, 2, 255), EACCES},
                      RouteCase{"BroadcastOfTheLonger", kAny, IpAddress::v4(192, 0, 2, 127), EACCES},
                      RouteCase{"Multicast", kAny, IpAddress::v4(224, 0, 0, 1), ENETUNREACH},
                      RouteCase{"Loopback", kAny, IpAddress::v4(127, 0, 0, 1), ENETUNREACH},
                      RouteCase{"Ipv6", kAny, kV6Address, ENETUNREACH},
                      RouteCase{"NoFamily", kAny, {}, ENETUNREACH}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(FindRoute, WithoutAGatewayThereIsNoWayOut) {
  NetworkHarness net({.gateways = {}});
  EXPECT_EQ(net.network->find_route({}, kFar).code(), ENETUNREACH);
  EXPECT_TRUE(net.network->find_route({}, kPeer).ok());
}

TEST(FindRoute, GatewaysOfTheFamilyThatAreNotUs) {
  NetworkHarness net({.gateways = {kV6Address, kOurs, kSecondGateway}});
  EXPECT_EQ(net.network->find_route({}, kFar)->next_hop(), kSecondGateway);
}

TEST(FindRoute, HostRoutesNeedAGateway) {
  NetworkHarness net({.addresses = {{kOurs, 32}}});
  Result<Route> route = net.network->find_route({}, kPeer);
  ASSERT_TRUE(route.ok());
  EXPECT_EQ(route->next_hop(), kGateway);
  EXPECT_EQ(route->local(), kOurs);
}

TEST(FindRoute, LoopbackInsideTheHost) {
  constexpr IpAddress kLoopback = IpAddress::v4(127, 0, 0, 1);
  NetworkHarness net({.addresses = {{kLoopback, 8}, {kOurs, 24}}});
  Result<Route> route = net.network->find_route({}, IpAddress::v4(127, 9, 9, 9));
  ASSERT_TRUE(route.ok());
  EXPECT_TRUE(route->is_local());
  EXPECT_EQ(route->local(), kLoopback);
  EXPECT_EQ(net.network->find_route({}, kOurs)->local(), kOurs);
  EXPECT_EQ(net.network->find_route(kOurs, kLoopback)->local(), kOurs);
  EXPECT_EQ(net.network->find_route({}, kAny)->remote(), kLoopback);
  EXPECT_EQ(net.network->find_route({}, IpAddress::v4(127, 255, 255, 255)).code(), EACCES);
  // Never to or from the wire, and never its prefix for others.
  EXPECT_EQ(net.network->find_route(kLoopback, kPeer).code(), EINVAL);
  EXPECT_EQ(net.network->find_route({}, kPeer)->local(), kOurs);
}

TEST(FindRoute, WithoutAnAddressThereIsNoSource) {
  NetworkHarness net({.addresses = {}});
  EXPECT_EQ(net.network->find_route({}, kFar).code(), ENETUNREACH);
  EXPECT_EQ(net.network->find_route({}, kAny).code(), ENETUNREACH);
}

TEST(FindRoute, IpLinksUseGatewaysWithoutResolvingThem) {
  NetworkHarness net({.link = {.kind = LinkInfo::Kind::ip}});
  Result<Route> route = net.network->find_route({}, kFar);
  ASSERT_TRUE(route.ok());
  EXPECT_FALSE(route->is_resolution_required());
  ASSERT_TRUE(net.send(kFar, bytes_of("x")).ok());
  EXPECT_THAT(net.take(), ElementsAre(Ipv4(SrcIs(kOurs), DstIs(kFar))));
}

// --- what the way allows

TEST(RouteLink, MtuAndAbilities) {
  NetworkHarness net({.link = {.mtu = 1400, .mac = kOurMac}});
  Result<Route> route = net.network->find_route({}, kPeer);
  EXPECT_EQ(route->mtu(), 1400u);
  EXPECT_FALSE(route->link().tcp_segmentation_v4);
  Result<Route> self = net.network->find_route({}, kOurs);
  EXPECT_EQ(self->mtu(), 65535u);
  EXPECT_TRUE(self->link().checksum_offload);
  EXPECT_TRUE(self->link().tcp_segmentation_v4);
  EXPECT_FALSE(self->is_resolution_required());
  Waker waker;
  EXPECT_TRUE(self->resolve(waker).ok());
}

// --- path MTU

class PathMtu : public ::testing::Test {
 protected:
  uint32_t mtu(const IpAddress& remote) { return net.network->find_route({}, remote)->mtu(); }
  NetworkHarness net;
};

TEST_F(PathMtu, IsLoweredForOneDestinationAndAllItsRoutes) {
  Result<Route> before = net.network->find_route({}, kFar);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 1400), 1400u);
  EXPECT_EQ(before->mtu(), 1400u);
  EXPECT_EQ(mtu(kFar), 1400u);
  EXPECT_EQ(mtu(kPeer), 1500u);
}

TEST_F(PathMtu, IsNeverRaised) {
  EXPECT_EQ(net.network->update_path_mtu(kFar, 1500), 1500u);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 9000), 1500u);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 1300), 1300u);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 1400), 1300u);
  EXPECT_EQ(mtu(kFar), 1300u);
}

TEST_F(PathMtu, HasAFloor) {
  EXPECT_EQ(net.network->update_path_mtu(kFar, 68), 552u);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 1), 552u);
  net.settings.route_min_pmtu = 1000;
  EXPECT_EQ(net.network->update_path_mtu(kPeer, 600), 1000u);
}

TEST_F(PathMtu, TheLinkMayBeBelowTheFloor) {
  NetworkHarness small({.link = {.mtu = 400, .mac = kOurMac}});
  EXPECT_EQ(small.network->update_path_mtu(kFar, 68), 400u);
  EXPECT_EQ(small.network->find_route({}, kFar)->mtu(), 400u);
}

TEST_F(PathMtu, RoutersThatDoNotSayGiveThePlateaus) {
  EXPECT_EQ(net.network->update_path_mtu(kFar, 0), 1492u);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 0), 1006u);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 0), 552u);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 0), 552u);
}

TEST_F(PathMtu, Expires) {
  net.network->update_path_mtu(kFar, 1400);
  net.advance(599s);
  EXPECT_EQ(mtu(kFar), 1400u);
  net.advance(1s);
  EXPECT_EQ(mtu(kFar), 1500u);
  // And may be learned again, even a larger one.
  EXPECT_EQ(net.network->update_path_mtu(kFar, 1450), 1450u);
  net.settings.route_mtu_expires = 10;
  net.network->update_path_mtu(kFar, 1440);
  net.advance(10s);
  EXPECT_EQ(mtu(kFar), 1500u);
}

TEST_F(PathMtu, IsBounded) {
  net.network->update_path_mtu(kFar, 1400);
  size_t in_use = 0;
  for (uint32_t i = 0; i < 3000; ++i) {
    EXPECT_EQ(net.network->update_path_mtu(IpAddress::v4(0xc6336400 + i), 1300), 1300u);
    if (i == 1500) in_use = net.arena.in_use();
  }
  EXPECT_EQ(net.arena.in_use(), in_use);
  EXPECT_EQ(mtu(kFar), 1500u);  // the oldest is forgotten
  EXPECT_EQ(mtu(IpAddress::v4(0xc6336400 + 2999)), 1300u);
}

TEST_F(PathMtu, WithoutMemoryItStaysAsItWas) {
  net.arena.fail_after(0);
  EXPECT_EQ(net.network->update_path_mtu(kFar, 1400), 1500u);
  net.arena.never_fail();
  EXPECT_EQ(mtu(kFar), 1500u);
}

TEST_F(PathMtu, AFragmentationNeededGoesAllTheWay) {
  // What TCP does: validate, then tell the network.
  ByteVector sent = ipv4_packet({.source = kOurs, .destination = kFar, .dont_fragment = true},
                                tcp_segment(kOurs, kFar, {.source_port = 1, .destination_port = 2}));
  sent.resize(28);
  net.receive_ip({.source = kGateway, .destination = kOurs, .protocol = 1}, icmp_message(3, 4, 1300, sent));
  ASSERT_EQ(net.tcp.errors.size(), 1u);
  const IcmpError& error = net.tcp.errors[0].error;
  EXPECT_EQ(net.network->update_path_mtu(error.remote, error.mtu), 1300u);
  EXPECT_EQ(mtu(kFar), 1300u);
}

// --- gateways that die

class DeadGateway : public ::testing::Test {
 protected:
  Route route() { return *net.network->find_route({}, kFar); }
  void answer(const IpAddress& address, const MacAddress& mac) {
    net.receive_arp(2, mac, address, kOurs, kOurMac);
  }
  auto through(const MacAddress& mac) { return Ethernet(EthDst(mac), Ipv4(DstIs(kFar))); }
  NetworkHarness net{{.gateways = {kGateway, kSecondGateway}}};
};

TEST_F(DeadGateway, FramesThatWaitedGoThroughTheNext) {
  ASSERT_TRUE(net.send(kFar, bytes_of("12345678")).ok());
  net.advance(kGivenUp);
  answer(kSecondGateway, kPeerMac);
  EXPECT_THAT(net.take(), Contains(through(kPeerMac)));
  EXPECT_THAT(net.udp.errors, IsEmpty());
}

TEST_F(DeadGateway, NewRoutesAvoidIt) {
  ASSERT_TRUE(net.send(kFar, bytes_of("x")).ok());
  EXPECT_EQ(route().next_hop(), kGateway);
  net.advance(kGivenUp);
  EXPECT_EQ(route().next_hop(), kSecondGateway);
}

TEST_F(DeadGateway, OldRoutesLeaveIt) {
  Route old = route();
  ASSERT_TRUE(old.send(net.frame({}, bytes_of("a")), 17, {}).ok());
  answer(kGateway, kGatewayMac);
  net.learn(kSecondGateway, kPeerMac);
  EXPECT_THAT(net.take(), Contains(through(kGatewayMac)));
  net.advance(46s);
  ASSERT_TRUE(old.send(net.frame({}, bytes_of("b")), 17, {}).ok());  // stale: used, then probed
  EXPECT_THAT(net.take(), ElementsAre(through(kGatewayMac)));
  net.advance(5s + kGivenUp + 1ms);  // nobody answers the probes
  net.take();
  ASSERT_TRUE(old.send(net.frame({}, bytes_of("c")), 17, {}).ok());
  EXPECT_THAT(net.take(), ElementsAre(through(kPeerMac)));
  EXPECT_EQ(old.next_hop(), kSecondGateway);
}

TEST_F(DeadGateway, ResolveGoesOnWithTheNext) {
  Route connecting = route();
  Waker waker;
  EXPECT_EQ(connecting.resolve(waker).code(), EWOULDBLOCK);
  net.advance(kGivenUp);
  ASSERT_TRUE(waker.asserted());
  waker.clear();
  EXPECT_EQ(connecting.resolve(waker).code(), EWOULDBLOCK);
  EXPECT_EQ(connecting.next_hop(), kSecondGateway);
  answer(kSecondGateway, kPeerMac);
  EXPECT_TRUE(waker.asserted());
  EXPECT_TRUE(connecting.resolve(waker).ok());
}

TEST_F(DeadGateway, WhenAllAreDeadTheDestinationIsUnreachable) {
  Route connecting = route();
  Waker waker;
  EXPECT_EQ(connecting.resolve(waker).code(), EWOULDBLOCK);
  net.advance(kGivenUp);
  EXPECT_EQ(connecting.resolve(waker).code(), EWOULDBLOCK);
  net.advance(kGivenUp);
  EXPECT_EQ(connecting.resolve(waker).code(), EHOSTUNREACH);
  // The next attempt begins with the first again.
  EXPECT_EQ(route().next_hop(), kGateway);
  net.take();
  EXPECT_EQ(connecting.resolve(waker).code(), EWOULDBLOCK);
  EXPECT_THAT(net.take(), ElementsAre(Arp(IsRequest(), TargetIp(kGateway))));
}

TEST_F(DeadGateway, FramesAreReportedWhenAllAreDead) {
  ASSERT_TRUE(net.send(kFar, bytes_of("12345678")).ok());
  net.advance(kGivenUp);
  EXPECT_THAT(net.udp.errors, IsEmpty());
  net.advance(kGivenUp);
  ASSERT_EQ(net.udp.errors.size(), 1u);
  EXPECT_EQ(net.udp.errors[0].error.remote, kFar);
  EXPECT_EQ(net.timers.armed(), 0u);
  net.take();
  EXPECT_EQ(net.frames.live(), 0u);
}

TEST_F(DeadGateway, IsAskedAgainInTheBackgroundAndTakenBack) {
  net.learn(kSecondGateway, kPeerMac);
  ASSERT_TRUE(net.send(kFar, bytes_of("x")).ok());
  net.advance(kGivenUp);
  net.take();
  net.advance(5s);
  route().confirm_reachable();
  net.advance(15s);
  ASSERT_TRUE(net.send(kFar, bytes_of("x")).ok());
  EXPECT_THAT(net.take(), Not(Contains(Arp(TargetIp(kGateway)))));
  route().confirm_reachable();
  net.advance(14s);
  // New packets go through the second at once, while the first is asked.
  ASSERT_TRUE(net.send(kFar, bytes_of("x")).ok());
  auto frames = net.take();
  EXPECT_THAT(frames, Contains(through(kPeerMac)));
  EXPECT_THAT(frames, Contains(Arp(IsRequest(), TargetIp(kGateway))));
  EXPECT_EQ(route().next_hop(), kSecondGateway);
  answer(kGateway, kGatewayMac);
  EXPECT_EQ(route().next_hop(), kGateway);
}

TEST_F(DeadGateway, LocalDestinationsDoNotCare) {
  ASSERT_TRUE(net.send(kFar, bytes_of("x")).ok());
  net.advance(2 * kGivenUp);
  EXPECT_EQ(net.network->find_route({}, kPeer)->next_hop(), kPeer);
}

}  // namespace
}  // namespace ustack::test
