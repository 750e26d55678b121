#include "shim/dual_stack.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <cstring>

namespace ustack::shim {
namespace {

RawAddress raw6(const char* text, uint16_t port, socklen_t length = sizeof(sockaddr_in6)) {
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(port);
  EXPECT_EQ(inet_pton(AF_INET6, text, &in6.sin6_addr), 1) << text;
  RawAddress raw;
  std::memcpy(&raw.bytes, &in6, sizeof in6);
  raw.length = length;
  return raw;
}

std::string text_of(const SocketAddress& address) {
  char text[INET6_ADDRSTRLEN] = "-";
  inet_ntop(address.address.is_v6() ? AF_INET6 : AF_INET, address.address.data(), text, sizeof text);
  return std::string(text) + " " + std::to_string(address.port);
}

Bytes bytes_of(const int& value) { return std::as_bytes(std::span(&value, 1)); }

class ShimDualStack : public testing::Test {
 protected:
  void SetUp() override {
    if (!DualStack::available()) GTEST_SKIP() << "the kernel has no IPv6";
    const int no = 0;
    ASSERT_TRUE(socket_.set_option(IPV6_V6ONLY, bytes_of(no), false, true).ok());
  }
  DualStack socket_{false};
};

TEST_F(ShimDualStack, TellsIpv4FromIpv6) {
  EXPECT_EQ(text_of(*socket_.address_to_connect(raw6("::ffff:192.0.2.7", 80))), "192.0.2.7 80");
  EXPECT_EQ(text_of(*socket_.address_to_connect(raw6("2001:db8::7", 80))), "2001:db8::7 80");
  EXPECT_EQ(text_of(*socket_.address_to_connect(raw6("::", 80))), ":: 80");
  EXPECT_EQ(text_of(*socket_.address_to_bind(raw6("::ffff:192.0.2.7", 0))), "192.0.2.7 0");
  EXPECT_EQ(text_of(*socket_.address_to_bind(raw6("::1", 5))), "::1 5");
  EXPECT_EQ(text_of(*socket_.address_to_bind(raw6("::", 5))), "0.0.0.0 5") << "of both";
  EXPECT_EQ(text_of(*socket_.address_to_bind(raw6("::192.0.2.7", 5))), "::192.0.2.7 5") << "no mapped one";
}

TEST_F(ShimDualStack, JudgesLengthAndFamily) {
  EXPECT_EQ(socket_.address_to_bind(raw6("::1", 1, 23)).code(), EINVAL);
  EXPECT_TRUE(socket_.address_to_bind(raw6("::1", 1, 24)).ok());
  RawAddress other = raw6("::1", 1);
  other.bytes.ss_family = AF_INET;
  EXPECT_EQ(socket_.address_to_bind(other).code(), EAFNOSUPPORT);
  EXPECT_EQ(socket_.address_to_connect(other).code(), EAFNOSUPPORT);
}

TEST_F(ShimDualStack, WithV6OnlyHasNoIpv4) {
  const int yes = 7;
  ASSERT_TRUE(socket_.set_option(IPV6_V6ONLY, bytes_of(yes), false, true).ok());
  EXPECT_TRUE(socket_.v6_only());
  EXPECT_EQ(socket_.address_to_connect(raw6("::ffff:192.0.2.7", 80)).code(), ENETUNREACH);
  EXPECT_EQ(socket_.address_to_bind(raw6("::ffff:192.0.2.7", 80)).code(), EINVAL);
  EXPECT_TRUE(socket_.address_to_bind(raw6("::", 5))->address.is_v6());
  EXPECT_EQ(socket_.set_option(IPV6_V6ONLY, bytes_of(yes), true, true).code(), EINVAL) << "once it is bound";
}

TEST_F(ShimDualStack, ShowsItsIpv4HalfMapped) {
  const SocketAddress any{IpAddress::any(Family::ipv4), 80};
  EXPECT_EQ(text_of(socket_.shown({IpAddress::v4(192, 0, 2, 7), 80})), "::ffff:192.0.2.7 80");
  EXPECT_EQ(text_of(socket_.shown(any)), ":: 80");
  EXPECT_TRUE(socket_.bound_to_both());
  socket_.bound_to(raw6("::ffff:0.0.0.0", 80));
  EXPECT_EQ(text_of(socket_.shown(any)), "::ffff:0.0.0.0 80");
  EXPECT_FALSE(socket_.bound_to_both());
  const SocketAddress none{};
  EXPECT_EQ(socket_.shown(none).address.family(), Family::unspecified);
}

TEST_F(ShimDualStack, MapsThereAndBack) {
  const IpAddress v4 = IpAddress::v4(198, 51, 100, 9), v6 = mapped_address(v4);
  EXPECT_TRUE(v6.is_v6());
  EXPECT_EQ(unmapped_address(v6), v4);
  EXPECT_EQ(unmapped_address(v4), v4);
  EXPECT_EQ(unmapped_address(IpAddress::any(Family::ipv6)), IpAddress::any(Family::ipv6));
}

TEST_F(ShimDualStack, OptionsOfOtherThingsAreUnknown) {
  const int one = 1;
  EXPECT_FALSE(DualStack::knows(IPV6_JOIN_GROUP));
  EXPECT_EQ(socket_.set_option(IPV6_JOIN_GROUP, bytes_of(one), false, true).code(), ENOPROTOOPT);
  int value = 0;
  EXPECT_EQ(socket_.get_option(IPV6_JOIN_GROUP, std::as_writable_bytes(std::span(&value, 1))).code(),
            ENOPROTOOPT);
}

}  // namespace
}  // namespace ustack::shim
