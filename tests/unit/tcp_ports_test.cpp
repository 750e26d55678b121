#include "stack/tcp/ports.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

const IpAddress kLocal = IpAddress::v4(192, 0, 2, 2);
const SocketAddress kRemote{IpAddress::v4(192, 0, 2, 1), 80};

auto any = [](uint16_t) { return true; };

TEST(TcpPorts, AreInTheRange) {
  test::SeededRandom random(1);
  PortSelector selector(random);
  Settings settings;
  for (int i = 0; i < 1000; ++i) {
    Result<uint16_t> port = selector.select(settings, kLocal, kRemote, any);
    ASSERT_TRUE(port.ok());
    EXPECT_GE(*port, 32768);
    EXPECT_LE(*port, 60999);
  }
}

TEST(TcpPorts, SocketsOwnRangeCountsWithinTheHosts) {
  test::SeededRandom random(1);
  PortSelector selector(random);
  Settings settings;
  auto range = [](uint32_t lowest, uint32_t highest) { return static_cast<int32_t>(lowest | highest << 16); };
  for (int i = 0; i < 100; ++i) {
    uint16_t port = *selector.select(settings, kLocal, kRemote, any, range(40000, 40009));
    EXPECT_GE(port, 40000);
    EXPECT_LE(port, 40009);
    EXPECT_GE(*selector.select(settings, kLocal, kRemote, any, range(60000, 0)), 60000);
    EXPECT_LE(*selector.select(settings, kLocal, kRemote, any, range(0, 32770)), 32770);
    EXPECT_GE(*selector.select(settings, kLocal, kRemote, any, range(1000, 65535)), 32768);
  }
}

TEST(TcpPorts, GoUpForOneDestination) {
  test::SeededRandom random(2);
  PortSelector selector(random);
  Settings settings;
  settings.ip_local_port_range = {10000, 10099};
  uint16_t last = *selector.select(settings, kLocal, kRemote, any);
  for (int i = 0; i < 250; ++i) {
    uint16_t port = *selector.select(settings, kLocal, kRemote, any);
    EXPECT_EQ(port, last == 10099 ? 10000 : last + 1) << "an old port comes again as late as can be";
    last = port;
  }
}

TEST(TcpPorts, AnotherDestinationsTellNothing) {
  test::SeededRandom random(3);
  PortSelector selector(random);
  Settings settings;
  std::set<int> starts;
  for (uint8_t i = 1; i <= 50; ++i)
    starts.insert(*selector.select(settings, kLocal, {IpAddress::v4(198, 51, 100, i), 80}, any));
  EXPECT_GT(starts.size(), 45u);
  // All of local address, remote address and remote port count.
  starts.clear();
  Settings first;
  test::SeededRandom same(4);
  PortSelector fresh(same);
  starts.insert(*fresh.select(first, kLocal, kRemote, any));
  starts.insert(*fresh.select(first, IpAddress::v4(192, 0, 2, 3), kRemote, any));
  starts.insert(*fresh.select(first, kLocal, {kRemote.address, 81}, any));
  starts.insert(*fresh.select(first, kLocal, {}, any));
  EXPECT_EQ(starts.size(), 4u);
}

TEST(TcpPorts, EachIsTriedOnceUntilAllAreTaken) {
  test::SeededRandom random(5);
  for (std::array<int32_t, 2> range :
       {std::array{32768, 60999}, std::array{1, 65535}, std::array{5000, 5000}, std::array{65535, 65535}}) {
    PortSelector selector(random);
    Settings settings;
    settings.ip_local_port_range = range;
    auto count = static_cast<size_t>(range[1] - range[0] + 1);
    std::vector<int> asked(65536);
    Result<uint16_t> none = selector.select(settings, kLocal, kRemote, [&](uint16_t port) {
      ++asked[port];
      return false;
    });
    EXPECT_EQ(none.code(), EADDRNOTAVAIL);
    for (int port = 0; port < 65536; ++port)
      ASSERT_EQ(asked[static_cast<size_t>(port)], port >= range[0] && port <= range[1] ? 1 : 0) << port;

    // The last free one is found.
    auto last = static_cast<uint16_t>(range[0] + static_cast<int32_t>(random.below(count)));
    Result<uint16_t> port = selector.select(settings, kLocal, kRemote, [&](uint16_t p) { return p == last; });
    ASSERT_TRUE(port.ok());
    EXPECT_EQ(*port, last);
  }
}

TEST(TcpPorts, AWholeRangeCanBeUsed) {
  test::SeededRandom random(6);
  PortSelector selector(random);
  Settings settings;
  settings.ip_local_port_range = {20000, 20999};
  std::set<uint16_t> taken;
  for (int i = 0; i < 1000; ++i) {
    // Other destinations take turns in between, on the same counters.
    Result<uint16_t> other = selector.select(
        settings, kLocal, {IpAddress::v4(203, 0, 113, static_cast<uint8_t>(random.below(256))), 443}, any);
    ASSERT_TRUE(other.ok());
    Result<uint16_t> port =
        selector.select(settings, kLocal, kRemote, [&](uint16_t p) { return !taken.contains(p); });
    ASSERT_TRUE(port.ok());
    EXPECT_TRUE(taken.insert(*port).second);
  }
  EXPECT_EQ(selector.select(settings, kLocal, kRemote, [&](uint16_t p) { return !taken.contains(p); }).code(),
            EADDRNOTAVAIL);
}

TEST(TcpPorts, TheNextChoiceStartsBehindTheLast) {
  test::SeededRandom random(8);
  PortSelector selector(random);
  Settings settings;
  uint16_t first = *selector.select(settings, kLocal, kRemote, any);
  int asked = 0;
  uint16_t far = *selector.select(settings, kLocal, kRemote, [&](uint16_t) { return ++asked == 1000; });
  EXPECT_EQ(far, first + 1000 > 60999 ? first + 1000 - 28232 : first + 1000);
  uint16_t next = *selector.select(settings, kLocal, kRemote, any);
  EXPECT_EQ(next, far == 60999 ? 32768 : far + 1) << "those that were taken are not asked again";
}

TEST(TcpPorts, AnUpsideDownRangeIsItsFirstPort) {
  test::SeededRandom random(7);
  PortSelector selector(random);
  Settings settings;
  settings.ip_local_port_range = {6000, 5000};
  EXPECT_EQ(*selector.select(settings, kLocal, kRemote, any), 6000);
}

}  // namespace
}  // namespace ustack::tcp
