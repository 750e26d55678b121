// TUN links: bare IP.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "io/bring_up.h"
#include "io/clock.h"
#include "io/link.h"
#include "io/netlink.h"
#include "tests/support/private_network.h"
#include "tests/support/seeded_random.h"

namespace ustack::io {
namespace {

TEST(Tun, CarriesBareIpPackets) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link link;
    auto problem = open_tun_device("tun0", false, &link);
    ASSERT_FALSE(problem) << problem->message;
    EXPECT_EQ(link.info().kind, LinkInfo::Kind::ip);
    EXPECT_EQ(link.info().mtu, 1500);
    EXPECT_EQ(link.prefix_length(), Link::kVirtioHeader);
    std::unique_ptr<Netlink> netlink;
    ASSERT_FALSE(Netlink::open(&netlink));
    ASSERT_FALSE(netlink->add_address("tun0", {IpAddress::v4(192, 0, 2, 1), 24}));
    ASSERT_FALSE(netlink->set_up("tun0"));
    ASSERT_FALSE(netlink->wait_until_up("tun0", 5000));

    int sender = socket(AF_INET, SOCK_DGRAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(4000);
    to.sin_addr.s_addr = htonl(0xc0000202);
    ASSERT_EQ(sendto(sender, "hello", 5, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 5);

    std::byte buffer[2048];
    Instant give_up = now() + 5s;
    ssize_t got = 0;
    while (now() < give_up) {
      pollfd fd{link.fd(), POLLIN, 0};
      poll(&fd, 1, 100);
      got = read(link.fd(), buffer, sizeof buffer);
      // IPv6 has its own things to say on a new device.
      if (got > 10 && std::to_integer<int>(buffer[10]) >> 4 == 4) break;
    }
    ASSERT_EQ(got, 10 + 20 + 8 + 5);
    Offload offload;
    ASSERT_TRUE(link.decode(buffer, static_cast<uint32_t>(got) - 10, &offload));
    EXPECT_TRUE(offload.partial_checksum);
    EXPECT_EQ(offload.checksum_start, 20);
    EXPECT_EQ(std::memcmp(buffer + got - 5, "hello", 5), 0);
    close(sender);
  });
}

TEST(Tun, IsBroughtUpWithoutAMac) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    test::SeededRandom random(1);
    Config config;
    config.link = {LinkSpec::Scheme::tun, "tun0", -1, false};
    BroughtUp up;
    auto problem = bring_up(config, random, &up);
    ASSERT_FALSE(problem) << problem->message;
    EXPECT_EQ(up.network.link.kind, LinkInfo::Kind::ip);
    EXPECT_TRUE(up.network.link.mac.is_zero());
    EXPECT_EQ(up.network.address_count, 1);
    EXPECT_EQ(up.network.gateway_count, 1);
  });
}

}  // namespace
}  // namespace ustack::io
