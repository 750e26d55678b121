#include "io/netlink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "io/bring_up.h"
#include "io/config.h"
#include "io/link.h"
#include "tests/support/private_network.h"
#include "tests/support/seeded_random.h"

namespace ustack::io {
namespace {

using testing::HasSubstr;

std::string message_of(const std::optional<OpenError>& problem) { return problem ? problem->message : ""; }

#define ASSERT_FINE(expression) ASSERT_EQ(message_of(expression), "")

Prefix prefix(const char* text) { return *parse_prefix(text); }

bool has_tun() { return access("/dev/net/tun", R_OK | W_OK) == 0; }

TEST(NetlinkTest, SetsUpTheKernelsSideOfADevice) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    Link link;
    ASSERT_FINE(open_tun_device("tap0", true, &link));
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));

    Netlink::LinkState state;
    ASSERT_FINE(netlink->get_link("tap0", &state));
    EXPECT_GT(state.index, 0);
    EXPECT_EQ(state.mtu, 1500u);
    EXPECT_FALSE(state.up);
    EXPECT_EQ(state.kind, "tun");
    EXPECT_EQ(netlink->wait_until_up("tap0", 20)->code, ETIMEDOUT);

    MacAddress mac = *parse_mac("02:00:00:00:00:99");
    ASSERT_FINE(netlink->set_mac("tap0", mac));
    ASSERT_FINE(netlink->set_mtu("tap0", 9000));
    ASSERT_FINE(netlink->add_address("tap0", prefix("192.0.2.1/24")));
    ASSERT_FINE(netlink->add_address("tap0", prefix("192.0.2.1/24"))) << "again is fine";
    ASSERT_FINE(netlink->set_up("tap0"));
    ASSERT_FINE(netlink->wait_until_up("tap0", 5000));
    ASSERT_FINE(netlink->get_link("tap0", &state));
    EXPECT_EQ(state.mtu, 9000u);
    EXPECT_TRUE(state.up);
    EXPECT_TRUE(state.running);
    EXPECT_EQ(state.mac, mac);
    std::vector<Prefix> addresses;
    ASSERT_FINE(netlink->get_addresses("tap0", &addresses));
    EXPECT_NE(std::find(addresses.begin(), addresses.end(), prefix("192.0.2.1/24")), addresses.end());

    ASSERT_FINE(netlink->add_route("tap0", prefix("198.51.100.0/24"), IpAddress::v4(192, 0, 2, 2)));
    ASSERT_FINE(netlink->add_route("tap0", prefix("203.0.113.0/24"), IpAddress()));
    ASSERT_FINE(netlink->add_route("tap0", prefix("0.0.0.0/0"), IpAddress::v4(192, 0, 2, 2)));
    ASSERT_FINE(netlink->set_up("tap0", false));
    ASSERT_FINE(netlink->get_link("tap0", &state));
    EXPECT_FALSE(state.up);
  });
}

TEST(NetlinkTest, FindsAddressesAndRoutesInUse) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    Link link;
    ASSERT_FINE(open_tun_device("tap0", true, &link));
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));
    auto in_use = [&](const char* subnet) {
      bool answer = false;
      EXPECT_EQ(message_of(netlink->is_in_use(prefix(subnet), &answer)), "");
      return answer;
    };
    EXPECT_FALSE(in_use("192.0.2.0/24"));
    ASSERT_FINE(netlink->add_address("tap0", prefix("192.0.2.1/28")));
    ASSERT_FINE(netlink->set_up("tap0"));
    EXPECT_TRUE(in_use("192.0.2.0/24"));
    EXPECT_TRUE(in_use("192.0.2.12/30"));
    EXPECT_FALSE(in_use("192.0.2.16/30"));
    ASSERT_FINE(netlink->add_route("tap0", prefix("0.0.0.0/0"), IpAddress::v4(192, 0, 2, 2)));
    EXPECT_FALSE(in_use("198.51.100.0/24")) << "the default route uses nothing";
    ASSERT_FINE(netlink->add_route("tap0", prefix("198.51.100.0/25"), IpAddress::v4(192, 0, 2, 2)));
    EXPECT_TRUE(in_use("198.51.100.0/24"));
    EXPECT_TRUE(in_use("198.51.100.4/30"));
    EXPECT_FALSE(in_use("198.51.100.128/25"));
  });
}

TEST(NetlinkTest, ErrorsNameTheDeviceAndTheReason) {
  test::in_private_network([] {
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));
    Netlink::LinkState state;
    auto problem = netlink->get_link("nowhere0", &state);
    ASSERT_TRUE(problem);
    EXPECT_EQ(problem->code, ENODEV);
    EXPECT_THAT(problem->message, HasSubstr("nowhere0: no such device"));
    problem = netlink->add_route("lo", prefix("198.51.100.0/24"), IpAddress::v4(192, 0, 2, 2));
    ASSERT_TRUE(problem);
    EXPECT_THAT(problem->message, HasSubstr("can't add the route to 198.51.100.0/24 on lo"));
    if (getuid() != 0 || setresuid(65534, 65534, 65534) != 0) return;
    problem = netlink->set_up("lo");
    ASSERT_TRUE(problem);
    EXPECT_EQ(problem->code, EPERM);
    EXPECT_THAT(problem->message, HasSubstr("CAP_NET_ADMIN is missing"));
    EXPECT_THAT(problem->message, HasSubstr("unshare -Urn"));
  });
}

// bring_up: from a configuration to a link that is up.

TEST(BringUp, WithoutConfigurationEachHostGetsAnAddressOfThePool) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    test::SeededRandom random(1);
    BroughtUp first, second;
    ASSERT_FINE(bring_up(Config{}, random, &first));
    ASSERT_FINE(bring_up(Config{}, random, &second));
    EXPECT_EQ(first.link.name(), "ustack0");
    ASSERT_EQ(first.network.address_count, 1);
    EXPECT_EQ(to_string(first.network.addresses[0]), "198.18.0.2/30");
    ASSERT_EQ(first.network.gateway_count, 1);
    EXPECT_EQ(to_string(first.network.gateways[0]), "198.18.0.1");
    EXPECT_EQ(to_string(second.network.addresses[0]), "198.18.0.6/30");
    EXPECT_EQ(first.network.link.mtu, 1500);
    EXPECT_EQ(first.network.link.mac.bytes[0] & std::byte{3}, std::byte{2})
        << "locally administered, not a group";
    EXPECT_NE(first.network.link.mac, second.network.link.mac);
    EXPECT_EQ(first.network.link.mac, first.link.info().mac);
    EXPECT_THAT(first.summary, HasSubstr("ustack0: 198.18.0.2/30 via 198.18.0.1"));
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));
    Netlink::LinkState state;
    ASSERT_FINE(netlink->get_link("ustack0", &state));
    EXPECT_TRUE(state.up && state.running);
  });
}

TEST(BringUp, TakesTheNextSubnetWhenOneIsInUse) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    Link other;
    ASSERT_FINE(open_tun_device("tap0", true, &other));
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));
    ASSERT_FINE(netlink->add_address("tap0", prefix("198.18.0.2/31")));
    test::SeededRandom random(1);
    BroughtUp up;
    ASSERT_FINE(bring_up(Config{}, random, &up));
    EXPECT_EQ(to_string(up.network.addresses[0]), "198.18.0.6/30");
  });
}

TEST(BringUp, SaysSoWhenThePoolIsTaken) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    Link other;
    ASSERT_FINE(open_tun_device("tap0", true, &other));
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));
    ASSERT_FINE(netlink->add_address("tap0", prefix("198.18.0.1/15")));
    test::SeededRandom random(1);
    BroughtUp up;
    auto problem = bring_up(Config{}, random, &up);
    ASSERT_TRUE(problem);
    EXPECT_EQ(problem->code, EADDRINUSE);
    EXPECT_THAT(problem->message, HasSubstr("USTACK_ADDR"));
  });
}

TEST(BringUp, ANamedDeviceKeepsThePoolsAddressThatItHas) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    if (system("ip tuntap add dev tap7 mode tap") != 0) GTEST_SKIP() << "no ip(8)";
    test::SeededRandom random(1);
    Config config;
    config.link = {LinkSpec::Scheme::tap, "tap7", -1, false};
    std::string address;
    for (int run = 0; run < 3; ++run) {
      BroughtUp up;
      ASSERT_FINE(bring_up(config, random, &up));
      ASSERT_EQ(up.network.address_count, 1);
      std::string now = to_string(up.network.addresses[0]);
      EXPECT_TRUE(now.starts_with("198.18.0.")) << now;
      if (run > 0) {
        EXPECT_EQ(now, address);
      }
      address = now;
    }
  });
}

TEST(BringUp, AHostThatComesBackToItsDeviceHasTheSameMac) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    if (system("ip tuntap add dev tap0 mode tap && ip tuntap add dev tap1 mode tap") != 0)
      GTEST_SKIP() << "no ip(8)";
    test::SeededRandom random(1);
    auto mac_of = [&](const char* device, const char* address) {
      Config config;
      config.link = {LinkSpec::Scheme::tap, device, -1, false};
      config.addresses = {prefix(address)};
      BroughtUp up;
      EXPECT_EQ(message_of(bring_up(config, random, &up)), "");
      return up.network.link.mac;
    };
    MacAddress first = mac_of("tap0", "192.0.2.2/24");
    EXPECT_EQ(first.bytes[0] & std::byte{3}, std::byte{2}) << "locally administered, not a group";
    EXPECT_EQ(mac_of("tap0", "192.0.2.2/24"), first);
    EXPECT_NE(mac_of("tap0", "192.0.2.3/24"), first);
    EXPECT_NE(mac_of("tap1", "192.0.2.2/24"), first) << "both may be ports of one bridge";
  });
}

TEST(BringUp, WithAddressesTheKernelsSideIsLeftAlone) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    test::SeededRandom random(1);
    Config config;
    config.link = {LinkSpec::Scheme::tap, "tap0", -1, false};
    config.addresses = {prefix("192.0.2.2/24"), prefix("198.51.100.2/24")};
    config.gateways = {IpAddress::v4(192, 0, 2, 1)};
    config.mac = parse_mac("02:00:00:00:00:42");
    config.mtu = 1400;
    BroughtUp up;
    ASSERT_FINE(bring_up(config, random, &up));
    EXPECT_EQ(up.network.address_count, 2);
    EXPECT_EQ(up.network.gateways[0], IpAddress::v4(192, 0, 2, 1));
    EXPECT_EQ(up.network.link.mac, *config.mac);
    EXPECT_EQ(up.network.link.mtu, 1400);
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));
    Netlink::LinkState state;
    ASSERT_FINE(netlink->get_link("tap0", &state));
    EXPECT_TRUE(state.up) << "a device made here is brought up";
    EXPECT_EQ(state.mtu, 1400u);
    std::vector<Prefix> addresses;
    ASSERT_FINE(netlink->get_addresses("tap0", &addresses));
    for (const Prefix& address : addresses) EXPECT_TRUE(address.address.is_v6()) << to_string(address);
  });
}

TEST(BringUp, AnExistingDeviceWithAddressesIsLeftAsItIs) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    if (system("ip tuntap add dev tap0 mode tap") != 0) GTEST_SKIP() << "no ip(8)";
    test::SeededRandom random(1);
    Config config;
    config.link = {LinkSpec::Scheme::tap, "tap0", -1, false};
    config.addresses = {prefix("192.0.2.2/24")};
    BroughtUp up;
    ASSERT_FINE(bring_up(config, random, &up));
    std::unique_ptr<Netlink> netlink;
    ASSERT_FINE(Netlink::open(&netlink));
    Netlink::LinkState state;
    ASSERT_FINE(netlink->get_link("tap0", &state));
    EXPECT_FALSE(state.up);
  });
}

TEST(BringUp, WaitsUntilTheKernelHasTakenItsSideIntoUse) {
  test::in_private_network([] {
    if (!has_tun()) GTEST_SKIP();
    if (system("ip tuntap add dev tap0 mode tap && ip link set dev tap0 up") != 0) GTEST_SKIP() << "no ip(8)";
    test::SeededRandom random(1);
    Config config;
    config.link = {LinkSpec::Scheme::tap, "tap0", -1, false};
    config.addresses = {prefix("192.0.2.2/24")};
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    // It takes the kernel a moment; without the wait one of these is early.
    for (int i = 0; i < 20; ++i) {
      BroughtUp up;
      ASSERT_FINE(bring_up(config, random, &up));
      // Not through netlink, which would have the kernel catch up first.
      ifreq device{.ifr_ifrn = {"tap0"}, .ifr_ifru = {}};
      ASSERT_EQ(ioctl(any, SIOCGIFFLAGS, &device), 0);
      EXPECT_NE(device.ifr_flags & IFF_RUNNING, 0) << "turn " << i;
    }
    close(any);
  });
}

}  // namespace
}  // namespace ustack::io
