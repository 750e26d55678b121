#include "stack/net/address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/seeded_random.h"

namespace ustack {
namespace {

IpAddress v6(const char* text) {
  std::array<std::byte, 16> bytes;
  EXPECT_EQ(inet_pton(AF_INET6, text, bytes.data()), 1) << text;
  return IpAddress::from_bytes(Family::ipv6, bytes.data());
}

template <typename T>
std::string text(const T& value) {
  LogLine line;
  line << value;
  return std::string(line.text());
}

TEST(IpAddress, Kinds) {
  EXPECT_TRUE(IpAddress().is_unspecified());
  EXPECT_EQ(IpAddress().size(), 0);
  EXPECT_TRUE(IpAddress::any(Family::ipv4).is_unspecified());
  EXPECT_NE(IpAddress::any(Family::ipv4), IpAddress::any(Family::ipv6));
  EXPECT_TRUE(IpAddress::v4(127, 0, 0, 1).is_loopback());
  EXPECT_TRUE(IpAddress::v4(127, 255, 255, 254).is_loopback());
  EXPECT_FALSE(IpAddress::v4(128, 0, 0, 1).is_loopback());
  EXPECT_TRUE(v6("::1").is_loopback());
  EXPECT_FALSE(v6("::2").is_loopback());
  EXPECT_FALSE(v6("1::1").is_loopback());
  EXPECT_TRUE(IpAddress::v4(224, 0, 0, 1).is_multicast());
  EXPECT_TRUE(IpAddress::v4(239, 255, 255, 255).is_multicast());
  EXPECT_FALSE(IpAddress::v4(240, 0, 0, 1).is_multicast());
  EXPECT_FALSE(IpAddress::v4(223, 255, 255, 255).is_multicast());
  EXPECT_TRUE(v6("ff02::1").is_multicast());
  EXPECT_FALSE(v6("2001:db8::1").is_multicast());
  EXPECT_TRUE(IpAddress::broadcast_v4().is_limited_broadcast());
  EXPECT_EQ(IpAddress::v4(0xc0000201u), IpAddress::v4(192, 0, 2, 1));
  EXPECT_EQ(IpAddress::v4(192, 0, 2, 1).v4_host_order(), 0xc0000201u);
}

TEST(Prefix, Contains) {
  Prefix net{IpAddress::v4(192, 0, 2, 2), 24};
  EXPECT_TRUE(net.contains(IpAddress::v4(192, 0, 2, 255)));
  EXPECT_FALSE(net.contains(IpAddress::v4(192, 0, 3, 2)));
  EXPECT_FALSE(net.contains(v6("::1")));
  Prefix odd{IpAddress::v4(198, 51, 100, 64), 27};
  EXPECT_TRUE(odd.contains(IpAddress::v4(198, 51, 100, 95)));
  EXPECT_FALSE(odd.contains(IpAddress::v4(198, 51, 100, 96)));
  Prefix all{IpAddress::any(Family::ipv4), 0};
  EXPECT_TRUE(all.contains(IpAddress::v4(203, 0, 113, 9)));
  Prefix host{IpAddress::v4(203, 0, 113, 9), 32};
  EXPECT_TRUE(host.contains(IpAddress::v4(203, 0, 113, 9)));
  EXPECT_FALSE(host.contains(IpAddress::v4(203, 0, 113, 8)));
  Prefix six{v6("2001:db8:1::"), 47};
  EXPECT_TRUE(six.contains(v6("2001:db8:0:ffff::1")));
  EXPECT_FALSE(six.contains(v6("2001:db8:2::")));
  EXPECT_FALSE((Prefix{IpAddress::v4(192, 0, 2, 2), 33}).contains(IpAddress::v4(192, 0, 2, 2)));
}

TEST(Prefix, Broadcast) {
  EXPECT_EQ((Prefix{IpAddress::v4(192, 0, 2, 2), 24}).broadcast(), IpAddress::v4(192, 0, 2, 255));
  EXPECT_EQ((Prefix{IpAddress::v4(198, 51, 100, 65), 27}).broadcast(), IpAddress::v4(198, 51, 100, 95));
  EXPECT_EQ((Prefix{IpAddress::v4(192, 0, 2, 2), 31}).broadcast(), IpAddress());
  EXPECT_EQ((Prefix{IpAddress::v4(192, 0, 2, 2), 32}).broadcast(), IpAddress());
  EXPECT_EQ((Prefix{v6("2001:db8::1"), 64}).broadcast(), IpAddress());
}

TEST(AddressText, Ipv4AndMac) {
  EXPECT_EQ(text(IpAddress::v4(192, 0, 2, 1)), "192.0.2.1");
  EXPECT_EQ(text(IpAddress()), "*");
  EXPECT_EQ(text(SocketAddress{IpAddress::v4(192, 0, 2, 2), 80}), "192.0.2.2:80");
  EXPECT_EQ(text(MacAddress::broadcast()), "ff:ff:ff:ff:ff:ff");
  EXPECT_EQ(text(MacAddress{}), "00:00:00:00:00:00");
  ConnectionId id{{IpAddress::v4(192, 0, 2, 2), 5}, {IpAddress::v4(192, 0, 2, 3), 65535}};
  EXPECT_EQ(text(id), "192.0.2.2:5 -> 192.0.2.3:65535");
}

TEST(AddressText, Rfc5952) {
  for (const char* canonical :
       {"::", "::1", "1::", "2001:db8::1", "2001:db8:0:1:1:1:1:1", "2001:db8::1:0:0:1", "ff02::1",
        "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:0", "0:2:3:4:5:6:7:8", "1:0:3:4:5:6:7:8", "fe80::a:0:0:1",
        "::ffff:192.0.2.128", "::2:3:4:5:6:7", "1:2:3:4:5::"}) {
    EXPECT_EQ(text(v6(canonical)), canonical);
  }
  EXPECT_EQ(text(v6("2001:0:0:1:0:0:0:1")), "2001:0:0:1::1");        // the longer run
  EXPECT_EQ(text(v6("2001:db8:0:0:1:0:0:1")), "2001:db8::1:0:0:1");  // the first of two
  EXPECT_EQ(text(v6("2001:DB8::00A1")), "2001:db8::a1");
  EXPECT_EQ(text(SocketAddress{v6("2001:db8::2"), 80}), "[2001:db8::2]:80");
}

TEST(AddressText, RandomIpv6ReadsBackAsItself) {
  test::SeededRandom random(5);
  for (int i = 0; i < 5000; ++i) {
    std::array<std::byte, 16> bytes{};
    for (size_t g = 0; g < 16; g += 2)
      if (random.below(2) == 0)
        store_be16(&bytes[g], static_cast<uint16_t>(random.next() & (random.below(2) ? 0xffff : 0xf)));
    IpAddress address = IpAddress::from_bytes(Family::ipv6, bytes.data());
    ASSERT_EQ(v6(text(address).c_str()), address) << text(address);
  }
}

}  // namespace
}  // namespace ustack
