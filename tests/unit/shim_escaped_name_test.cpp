// Names of ends outside of the library: what is written is read, and nothing else is.
#include "shim/escaped_name.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>

namespace ustack::shim {
namespace {

std::string text_of(const UnixAddress& address) {
  return {address.bytes.sun_path, address.length - offsetof(sockaddr_un, sun_path)};
}

std::optional<EscapedName> parse(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return parse_escaped_name(reinterpret_cast<const sockaddr*>(&address),
                            static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size()));
}

const SocketAddress kLocal{IpAddress::v4(192, 0, 2, 2), 80}, kRemote{IpAddress::v4(198, 51, 100, 7), 65535};

TEST(EscapedName, SaysTheAddresses) {
  UnixAddress address = format_escaped_name({0x5f0c19ab77e2, 0x1c, kLocal, kRemote});
  EXPECT_EQ(text_of(address), std::string("\0ustack/5f0c19ab77e2/1c/192.0.2.2:80/198.51.100.7:65535", 55));
  EXPECT_EQ(text_of(format_keeper_name(0x5f0c19ab77e2)), std::string("\0ustack/5f0c19ab77e2", 20));
}

TEST(EscapedName, IsReadBack) {
  std::byte six[16];
  for (int i = 0; i < 16; ++i) six[i] = static_cast<std::byte>(i * 17);
  const SocketAddress far{IpAddress::from_bytes(Family::ipv6, six), 1};
  for (const EscapedName& name : {EscapedName{1, 2, kLocal, kRemote}, EscapedName{1, 2, kLocal, {}},
                                  EscapedName{0xffff'ffff'ffff, 0xffff'ffff, far, far}}) {
    UnixAddress address = format_escaped_name(name);
    ASSERT_LE(address.length, sizeof(sockaddr_un));
    std::optional<EscapedName> read =
        parse_escaped_name(reinterpret_cast<const sockaddr*>(&address.bytes), address.length);
    ASSERT_TRUE(read.has_value()) << text_of(address);
    EXPECT_EQ(read->keeper, name.keeper);
    EXPECT_EQ(read->number, name.number);
    EXPECT_EQ(read->local, name.local);
    EXPECT_EQ(read->remote, name.remote);
  }
}

TEST(EscapedName, OthersAreNotTakenForOne) {
  const std::string good("\0ustack/1/2/192.0.2.2:80/198.51.100.7:4444", 42);
  ASSERT_TRUE(parse(good).has_value());
  for (size_t length = 0; length < good.size() - 4; ++length)
    EXPECT_FALSE(parse(good.substr(0, length)).has_value()) << length;
  for (const char* wrong : {"ustack/1/2/192.0.2.2:80/-", "/1/2/192.0.2.2:80/-", "/ustack/1/2/192.0.2.2:80/-"})
    EXPECT_FALSE(parse(wrong).has_value()) << wrong;
  for (const char* rest :
       {"1/2/-/-", "1/2/192.0.2.256:80/-", "1/2/192.0.2:80/-", "1/2/192.0.2.2.2:80/-",
        "1/2/192.0.2.2:65536/-", "1/2/192.0.2.2:/-", "1/2/192.0.2.2:80/-x", "1/2/192.0.2.2:80/-/",
        "x/2/192.0.2.2:80/-", "1000000000000/2/192.0.2.2:80/-", "1/2/0123456789abcdef0123456789abcde:1/-",
        "1/2/0123456789abcdeg0123456789abcdef:1/-", "1/2/99999999999999999999.0.2.2:80/-"})
    EXPECT_FALSE(parse(std::string("\0ustack/", 8) + rest).has_value()) << rest;
  EXPECT_FALSE(parse_escaped_name(nullptr, 0).has_value());
  const sockaddr other{.sa_family = AF_INET, .sa_data = {}};
  EXPECT_FALSE(parse_escaped_name(&other, sizeof other).has_value());
}

}  // namespace
}  // namespace ustack::shim
