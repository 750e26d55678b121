#include "stack/net/neighbour.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/network_harness.h"
#include "tests/support/packet_matchers.h"

namespace ustack::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// Three unanswered requests a second apart, each at most a tick late.
constexpr Duration kGivenUp = 3s + 3 * TimerWheel::kTick;

auto broadcast_request(const IpAddress& target) {
  return Ethernet(EthDst(MacAddress::broadcast()), Arp(IsRequest(), SenderMac(kOurMac), SenderIp(kOurs),
                                                       TargetMac(MacAddress{}), TargetIp(target)));
}
auto unicast_request(const MacAddress& mac, const IpAddress& target) {
  return Ethernet(EthDst(mac), Arp(IsRequest(), SenderIp(kOurs), TargetIp(target)));
}
auto packet_to(const MacAddress& mac, const std::string& payload) {
  return Ethernet(EthDst(mac), EthSrc(kOurMac), Ipv4(SrcIs(kOurs), Payload(payload)));
}

class NeighbourTest : public ::testing::Test {
 protected:
  NeighbourState state(const IpAddress& address) {
    const Neighbour* neighbour = cache().find(address);
    EXPECT_NE(neighbour, nullptr) << to_string(address);
    return neighbour == nullptr ? NeighbourState::failed : cache().state(*neighbour);
  }
  NeighbourCache& cache() { return net.network->neighbours(); }
  void say(const IpAddress& to, const char* text) { ASSERT_TRUE(net.send(to, bytes_of(text)).ok()); }
  void answer(const IpAddress& address, const MacAddress& mac) {
    net.receive_arp(2, mac, address, kOurs, kOurMac);
  }
  Route route_to(const IpAddress& remote) {
    Result<Route> route = net.network->find_route({}, remote);
    EXPECT_TRUE(route.ok());
    return *route;
  }

  NetworkHarness net;
};

// --- resolution

TEST_F(NeighbourTest, QueuesWhileResolving) {
  say(kPeer, "one");
  say(kPeer, "two");
  EXPECT_THAT(net.take(), ElementsAre(broadcast_request(kPeer)));
  EXPECT_EQ(state(kPeer), NeighbourState::incomplete);
  answer(kPeer, kPeerMac);
  EXPECT_THAT(net.take(), ElementsAre(packet_to(kPeerMac, "one"), packet_to(kPeerMac, "two")));
  EXPECT_EQ(state(kPeer), NeighbourState::reachable);
  EXPECT_EQ(net.timers.armed(), 0u);
  say(kPeer, "three");
  EXPECT_THAT(net.take(), ElementsAre(packet_to(kPeerMac, "three")));
  EXPECT_EQ(net.take_counters(), "Ustack.ArpRequestsSent=1 Ustack.ArpReceived=1");
}

TEST_F(NeighbourTest, AsksMcastSolicitTimesThenFails) {
  net.settings.neigh_mcast_solicit = 4;
  net.settings.neigh_retrans_time_ms = 250;
  say(kPeer, "lost");
  EXPECT_THAT(net.take(), ElementsAre(broadcast_request(kPeer)));
  for (int i = 0; i < 3; ++i) {
    net.advance(249ms);
    EXPECT_THAT(net.take(), IsEmpty()) << i;
    net.advance(1ms + TimerWheel::kTick);
    EXPECT_THAT(net.take(), ElementsAre(broadcast_request(kPeer))) << i;
  }
  EXPECT_EQ(state(kPeer), NeighbourState::incomplete);
  net.advance(250ms);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(state(kPeer), NeighbourState::failed);
  EXPECT_EQ(net.timers.armed(), 0u);
  EXPECT_EQ(net.take_counters(), "Ustack.ArpRequestsSent=4 Ustack.ArpQueueDrops=1 Ustack.ArpFailures=1");
  EXPECT_EQ(net.frames.live(), 0u);
}

TEST_F(NeighbourTest, TellsTheTransportOfWhatWasLost) {
  ASSERT_TRUE(net.send(kPeer, bytes_of("eight or more")).ok());
  net.advance(kGivenUp);
  ASSERT_EQ(net.udp.errors.size(), 1u);
  const IcmpError& error = net.udp.errors[0].error;
  EXPECT_EQ(error.type, 3);
  EXPECT_EQ(error.code, 1);
  EXPECT_EQ(error.reporter, kOurs);
  EXPECT_EQ(error.local, kOurs);
  EXPECT_EQ(error.remote, kPeer);
  EXPECT_EQ(error.protocol, 17);
}

TEST_F(NeighbourTest, QuotesTheTransportHeaderOfWhatWasLost) {
  Route route = route_to(kPeer);
  ASSERT_TRUE(route.send(net.frame(bytes_of("a header of 20 bytes"), bytes_of("data")), 6, {}).ok());
  net.advance(kGivenUp);
  ASSERT_EQ(net.tcp.errors.size(), 1u);
  EXPECT_EQ(net.tcp.errors[0].quoted, "a header of 20 bytes");
}

TEST_F(NeighbourTest, TriesAgainAfterFailure) {
  say(kPeer, "lost");
  net.advance(kGivenUp);
  EXPECT_EQ(state(kPeer), NeighbourState::failed);
  net.take();
  say(kPeer, "again");
  EXPECT_THAT(net.take(), ElementsAre(broadcast_request(kPeer)));
  EXPECT_EQ(state(kPeer), NeighbourState::incomplete);
  answer(kPeer, kPeerMac);
  EXPECT_THAT(net.take(), ElementsAre(packet_to(kPeerMac, "again")));
}

TEST_F(NeighbourTest, QueueIsBoundedAndDropsTheOldest) {
  uint32_t frame_bytes = sizeof(TxFrame) + 1;
  net.settings.neigh_unres_qlen_bytes = static_cast<int32_t>(frame_bytes * 3 + frame_bytes / 2);
  for (const char* text : {"a", "b", "c", "d", "e"}) say(kPeer, text);
  EXPECT_EQ(net.frames.live(), 3u + 1u);  // and the request
  EXPECT_EQ(net.take_counters(), "Ustack.ArpRequestsSent=1 Ustack.ArpQueueDrops=2");
  net.take();
  answer(kPeer, kPeerMac);
  EXPECT_THAT(net.take(),
              ElementsAre(packet_to(kPeerMac, "c"), packet_to(kPeerMac, "d"), packet_to(kPeerMac, "e")));
}

TEST_F(NeighbourTest, OneFrameIsQueuedWhateverItsSize) {
  net.settings.neigh_unres_qlen_bytes = 0;
  say(kPeer, "a");
  say(kPeer, "b");
  net.take();
  answer(kPeer, kPeerMac);
  EXPECT_THAT(net.take(), ElementsAre(packet_to(kPeerMac, "b")));
}

TEST_F(NeighbourTest, ARequestFromTheNeighbourAnswersOurs) {
  say(kPeer, "hello");
  net.take();
  net.receive_arp(1, kPeerMac, kPeer, kOurs);
  // It is at that address, but whether our frames arrive there is not known.
  EXPECT_THAT(net.take(),
              ElementsAre(packet_to(kPeerMac, "hello"), Ethernet(EthDst(kPeerMac), Arp(IsReply()))));
  EXPECT_EQ(state(kPeer), NeighbourState::delay);
}

// --- wakers

TEST_F(NeighbourTest, ResolveWakesOnSuccess) {
  Route route = route_to(kPeer);
  Waker first, second;
  EXPECT_TRUE(route.is_resolution_required());
  EXPECT_EQ(route.resolve(first).code(), EWOULDBLOCK);
  Route copy = route;
  EXPECT_EQ(copy.resolve(second).code(), EWOULDBLOCK);
  EXPECT_EQ(route.resolve(first).code(), EWOULDBLOCK);  // again is once
  EXPECT_THAT(net.take(), ElementsAre(broadcast_request(kPeer)));
  answer(kPeer, kPeerMac);
  EXPECT_TRUE(first.asserted());
  EXPECT_TRUE(second.asserted());
  EXPECT_TRUE(route.resolve(first).ok());
  EXPECT_FALSE(route.is_resolution_required());
  EXPECT_FALSE(copy.is_resolution_required());
}

TEST_F(NeighbourTest, ResolveTellsFailureOnceToEachAndThenTriesAgain) {
  Route route = route_to(kPeer);
  Waker first, second;
  (void)route.resolve(first);
  (void)route.resolve(second);
  net.advance(kGivenUp);
  EXPECT_TRUE(first.asserted());
  EXPECT_TRUE(second.asserted());
  EXPECT_EQ(route.resolve(first).code(), EHOSTUNREACH);
  EXPECT_EQ(route.resolve(second).code(), EHOSTUNREACH);
  net.take();
  first.clear();
  EXPECT_EQ(route.resolve(first).code(), EWOULDBLOCK);
  EXPECT_THAT(net.take(), ElementsAre(broadcast_request(kPeer)));
  answer(kPeer, kPeerMac);
  EXPECT_TRUE(first.asserted());
  EXPECT_TRUE(route.resolve(first).ok());
}

TEST_F(NeighbourTest, RemovedAndDestroyedWakersAreNotTouched) {
  Route route = route_to(kPeer);
  Waker removed;
  EXPECT_EQ(route.resolve(removed).code(), EWOULDBLOCK);
  {
    Waker destroyed;
    EXPECT_EQ(route.resolve(destroyed).code(), EWOULDBLOCK);
  }
  route.remove_waker(removed);
  answer(kPeer, kPeerMac);
  EXPECT_FALSE(removed.asserted());
}

TEST_F(NeighbourTest, WakersSurviveTheCache) {
  Waker waker;
  {
    NetworkHarness other;
    Result<Route> route = other.network->find_route({}, kPeer);
    EXPECT_EQ(route->resolve(waker).code(), EWOULDBLOCK);
  }
  EXPECT_FALSE(waker.asserted());
}

TEST_F(NeighbourTest, IpLinksNeedNoResolution) {
  NetworkHarness tun({.link = {.kind = LinkInfo::Kind::ip}});
  Result<Route> route = tun.network->find_route({}, kPeer);
  ASSERT_TRUE(route.ok());
  Waker waker;
  EXPECT_FALSE(route->is_resolution_required());
  EXPECT_TRUE(route->resolve(waker).ok());
  route->confirm_reachable();
  EXPECT_TRUE(route->send(tun.frame({}, bytes_of("x")), 17, {}).ok());
  EXPECT_THAT(tun.take(), ElementsAre(Ipv4(SrcIs(kOurs), DstIs(kPeer), Payload("x"))));
}

// --- age

class NeighbourAge : public NeighbourTest {
 protected:
  void SetUp() override {
    say(kPeer, "x");
    answer(kPeer, kPeerMac);
    net.take();
    net.take_counters();
  }
  /// Longer than any reachable time: 1.5 times 30 s.
  void age() { net.advance(46s); }
};

TEST_F(NeighbourAge, ReachableTurnsStaleWithoutATimer) {
  net.advance(14s);  // less than 0.5 times 30 s
  EXPECT_EQ(state(kPeer), NeighbourState::reachable);
  age();
  EXPECT_EQ(state(kPeer), NeighbourState::stale);
  EXPECT_EQ(net.timers.armed(), 0u);
  EXPECT_THAT(net.take(), IsEmpty());
}

TEST_F(NeighbourAge, StaleIsUsedAndProbedAfterTheDelay) {
  age();
  say(kPeer, "y");
  EXPECT_THAT(net.take(), ElementsAre(packet_to(kPeerMac, "y")));
  EXPECT_EQ(state(kPeer), NeighbourState::delay);
  net.advance(4900ms);
  EXPECT_THAT(net.take(), IsEmpty());
  net.advance(200ms);
  EXPECT_EQ(state(kPeer), NeighbourState::probe);
  EXPECT_THAT(net.take(), ElementsAre(unicast_request(kPeerMac, kPeer)));
  say(kPeer, "z");  // still used
  EXPECT_THAT(net.take(), ElementsAre(packet_to(kPeerMac, "z")));
  answer(kPeer, kPeerMac);
  EXPECT_EQ(state(kPeer), NeighbourState::reachable);
  EXPECT_EQ(net.timers.armed(), 0u);
}

TEST_F(NeighbourAge, UnansweredProbesFail) {
  net.settings.neigh_ucast_solicit = 2;
  age();
  say(kPeer, "y");
  net.take();
  net.advance(5s + 1ms);
  EXPECT_THAT(net.take(), ElementsAre(unicast_request(kPeerMac, kPeer)));
  net.advance(1s);
  EXPECT_THAT(net.take(), ElementsAre(unicast_request(kPeerMac, kPeer)));
  net.advance(1s);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(state(kPeer), NeighbourState::failed);
  EXPECT_EQ(net.take_counters(), "Ustack.ArpRequestsSent=2 Ustack.ArpFailures=1");
}

TEST_F(NeighbourAge, WithoutUnicastProbesDelayEndsInFailure) {
  net.settings.neigh_ucast_solicit = 0;
  age();
  say(kPeer, "y");
  net.advance(5s + 1ms);
  EXPECT_EQ(state(kPeer), NeighbourState::failed);
}

TEST_F(NeighbourAge, TransportsConfirm) {
  Route route = route_to(kPeer);
  net.advance(10s);
  route.confirm_reachable();
  net.advance(10s);
  EXPECT_EQ(state(kPeer), NeighbourState::reachable);  // 20 s old but confirmed 10 s ago
  age();
  EXPECT_EQ(state(kPeer), NeighbourState::stale);
  say(kPeer, "y");
  EXPECT_EQ(state(kPeer), NeighbourState::delay);
  route.confirm_reachable();
  EXPECT_EQ(state(kPeer), NeighbourState::reachable);
  EXPECT_EQ(net.timers.armed(), 0u);
}

TEST_F(NeighbourAge, ConfirmationDoesNotResolve) {
  Route route = route_to(kGateway);
  route.confirm_reachable();
  EXPECT_EQ(cache().find(kGateway), nullptr);
  say(kGateway, "x");
  route.confirm_reachable();
  EXPECT_EQ(state(kGateway), NeighbourState::incomplete);
}

TEST_F(NeighbourAge, UnprovenNewsLeavesTheStateAlone) {
  net.advance(2s);
  net.receive_arp(1, kPeerMac, kPeer, kOurs);  // the same address again
  EXPECT_EQ(state(kPeer), NeighbourState::reachable);
  net.receive_arp(1, kOtherMac, kPeer, kOurs);
  EXPECT_EQ(state(kPeer), NeighbourState::stale);
}

TEST_F(NeighbourAge, ReachableTimeIsRandomPerHost) {
  std::set<int64_t> seconds;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    NetworkHarness host({.seed = seed});
    ASSERT_TRUE(host.send(kPeer, bytes_of("x")).ok());
    host.receive_arp(2, kPeerMac, kPeer, kOurs, kOurMac);
    const Neighbour* neighbour = host.network->neighbours().find(kPeer);
    int64_t s = 0;
    while (host.network->neighbours().state(*neighbour) == NeighbourState::reachable) {
      host.advance(1s);
      ASSERT_LE(++s, 46);
    }
    EXPECT_GE(s, 15);
    seconds.insert(s);
  }
  EXPECT_GT(seconds.size(), 8u);
}

// --- bounds

IpAddress host(uint32_t n) { return IpAddress::v4(0xc6336400 + n); }  // 198.51.100.n

TEST_F(NeighbourTest, CacheIsBoundedLeastRecentlyUsedFirst) {
  net.settings.neigh_gc_thresh3 = 3;
  for (uint32_t n : {10, 11, 12}) {
    ASSERT_TRUE(net.send(host(n), bytes_of("x")).ok());
    net.receive_arp(2, test_mac(static_cast<uint8_t>(n)), host(n), kOurSecond, kOurMac);
  }
  net.advance(46s);  // all are stale
  ASSERT_TRUE(net.send(host(10), bytes_of("x")).ok());
  EXPECT_EQ(state(host(10)), NeighbourState::delay);
  ASSERT_TRUE(net.send(host(13), bytes_of("x")).ok());
  EXPECT_EQ(cache().find(host(11)), nullptr);  // the oldest that is stale
  EXPECT_NE(cache().find(host(10)), nullptr);
  EXPECT_EQ(cache().size(), 3u);
}

TEST_F(NeighbourTest, ReachableOnesGoOnlyForOurOwnFrames) {
  net.settings.neigh_gc_thresh3 = 2;
  for (uint32_t n : {10, 11}) {
    ASSERT_TRUE(net.send(host(n), bytes_of("x")).ok());
    net.receive_arp(2, test_mac(static_cast<uint8_t>(n)), host(n), kOurSecond, kOurMac);
  }
  net.receive_arp(1, kOtherMac, host(12), kOurSecond);  // answered, but not remembered
  EXPECT_EQ(cache().find(host(12)), nullptr);
  ASSERT_TRUE(net.send(host(13), bytes_of("x")).ok());
  EXPECT_EQ(cache().find(host(10)), nullptr);
  EXPECT_EQ(cache().size(), 2u);
}

TEST_F(NeighbourTest, FullOfUnresolvedIsAnError) {
  net.settings.neigh_gc_thresh3 = 2;
  Waker waker;
  EXPECT_TRUE(net.send(host(10), bytes_of("x")).ok());
  EXPECT_EQ(route_to(host(11)).resolve(waker).code(), EWOULDBLOCK);
  EXPECT_EQ(net.send(host(12), bytes_of("x")).code(), ENOBUFS);
  Waker other;
  EXPECT_EQ(route_to(host(12)).resolve(other).code(), ENOBUFS);
  EXPECT_EQ(net.take_counters(), "Ip.OutDiscards=1 Ustack.ArpRequestsSent=2");
  net.advance(kGivenUp);  // both have failed
  EXPECT_TRUE(net.send(host(12), bytes_of("x")).ok());
  EXPECT_EQ(cache().size(), 2u);
}

TEST_F(NeighbourTest, EvictionForgetsHintsOfRoutes) {
  net.settings.neigh_gc_thresh3 = 1;
  Route route = route_to(host(10));
  ASSERT_TRUE(route.send(net.frame({}, bytes_of("x")), 17, {}).ok());
  net.receive_arp(2, test_mac(10), host(10), kOurSecond, kOurMac);
  EXPECT_FALSE(route.is_resolution_required());
  ASSERT_TRUE(net.send(host(11), bytes_of("x")).ok());  // pushes host(10) out
  EXPECT_TRUE(route.is_resolution_required());
  route.confirm_reachable();
  net.advance(kGivenUp);
  net.take();
  ASSERT_TRUE(route.send(net.frame({}, bytes_of("y")), 17, {}).ok());
  EXPECT_EQ(state(host(10)), NeighbourState::incomplete);
  EXPECT_EQ(cache().find(host(11)), nullptr);
}

TEST_F(NeighbourTest, ManyNeighbours) {
  net.settings.neigh_gc_thresh3 = 200;
  for (uint32_t n = 1; n < 255; ++n) {
    if (host(n) == kOurSecond) continue;
    ASSERT_TRUE(net.send(host(n), bytes_of("x")).ok()) << n;
    net.receive_arp(2, test_mac(static_cast<uint8_t>(n)), host(n), kOurSecond, kOurMac);
  }
  EXPECT_EQ(cache().size(), 200u);
  for (uint32_t n = 55; n < 255; ++n) {
    const Neighbour* neighbour = cache().find(host(n));
    ASSERT_NE(neighbour, nullptr) << n;
    EXPECT_EQ(neighbour->mac(), test_mac(static_cast<uint8_t>(n)));
  }
  uint32_t seen = 0;
  cache().for_each([&](const Neighbour&, NeighbourState s) { seen += s == NeighbourState::reachable; });
  EXPECT_EQ(seen, 200u);
}

TEST_F(NeighbourTest, CarriesBothFamilies) {
  std::byte bytes[16] = {std::byte{0x20}, std::byte{1}, std::byte{0x0d}, std::byte{0xb8}};
  bytes[15] = std::byte{7};
  IpAddress v6 = IpAddress::from_bytes(Family::ipv6, bytes);
  cache().learn(v6, kPeerMac, NeighbourCache::Evidence::mention, true);
  cache().learn(kPeer, kOtherMac, NeighbourCache::Evidence::mention, true);
  ASSERT_NE(cache().find(v6), nullptr);
  EXPECT_EQ(cache().find(v6)->mac(), kPeerMac);
  EXPECT_EQ(cache().find(kPeer)->mac(), kOtherMac);
  NeighbourHint hint;
  ASSERT_TRUE(cache().send(v6, hint, net.frame({}, bytes_of("six"))).ok());
  EXPECT_THAT(net.take(), ElementsAre(Ethernet(EthDst(kPeerMac), EtherType(0x86dd), Payload("six"))));
}

TEST_F(NeighbourTest, OutOfMemoryIsAnError) {
  TxFrame* frame = net.frame({}, bytes_of("x"));
  Route route = route_to(kPeer);
  net.arena.fail_after(0);
  EXPECT_EQ(route.send(frame, 17, {}).code(), ENOBUFS);
  Waker waker;
  EXPECT_EQ(route.resolve(waker).code(), ENOBUFS);
  EXPECT_EQ(net.take_counters(), "Ip.OutDiscards=1");
  net.arena.never_fail();
  EXPECT_EQ(net.frames.live(), 0u);
}

TEST_F(NeighbourTest, ARequestThatCouldNotBeSentIsRepeated) {
  Route route = route_to(kPeer);
  Waker waker;
  // Memory for the table and the entry, but not for the request's frame.
  net.arena.fail_after(2);
  EXPECT_EQ(route.resolve(waker).code(), EWOULDBLOCK);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ustack.TxNoMemory=1");
  net.arena.never_fail();
  net.advance(1s + 1ms);
  EXPECT_THAT(net.take(), ElementsAre(broadcast_request(kPeer)));
}

/// A transport that answers each error by sending again, from within the report.
class Stubborn final : public TransportProtocol {
 public:
  explicit Stubborn(NetworkHarness& net) : net_(net) {}
  void on_packet(Packet&&, Instant) override {}
  void on_icmp_error(const IcmpError& error, Instant) override {
    ++reports;
    if (reports < 5) (void)net_.send(error.remote, bytes_of("once more"), 99);
    (void)net_.send(host(40 + static_cast<uint32_t>(reports)), bytes_of("elsewhere"), 99);
  }
  int reports = 0;

 private:
  NetworkHarness& net_;
};

TEST_F(NeighbourTest, ReportsMaySendAgain) {
  Stubborn transport(net);
  net.network->set_transport(99, &transport);
  net.settings.neigh_gc_thresh3 = 1;  // what it sends evicts the entry that failed
  ASSERT_TRUE(net.send(kPeer, bytes_of("first message"), 99).ok());
  ASSERT_TRUE(net.send(kPeer, bytes_of("second message"), 99).ok());
  net.advance(30s);
  EXPECT_GE(transport.reports, 5);
  EXPECT_EQ(cache().size(), 1u);
  net.take();
  net.network->set_transport(99, nullptr);
}

}  // namespace
}  // namespace ustack::test
