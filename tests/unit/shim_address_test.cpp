#include "shim/address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <cstring>

namespace ustack::shim {
namespace {

sockaddr_in internet(const char* text, uint16_t port) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  inet_pton(AF_INET, text, &in.sin_addr);
  return in;
}

template <typename T>
const sockaddr* generic(const T& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

TEST(ShimAddress, ReadsAnInternetAddress) {
  sockaddr_in in = internet("192.0.2.7", 8080);
  Result<RawAddress> raw = read_address(generic(in), sizeof in);
  ASSERT_TRUE(raw.ok());
  SocketAddress expected{IpAddress::v4(192, 0, 2, 7), 8080};
  EXPECT_EQ(*address_to_bind(*raw), expected);
  EXPECT_EQ(*address_to_connect(*raw), expected);
  EXPECT_FALSE(is_disconnect(*raw));
}

TEST(ShimAddress, LengthsAreJudgedAsLinuxDoes) {
  sockaddr_storage storage{};
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  storage.ss_family = AF_INET;
  EXPECT_EQ(read_address(address, sizeof storage + 1).code(), EINVAL);
  EXPECT_EQ(read_address(address, static_cast<socklen_t>(-1)).code(), EINVAL);
  EXPECT_TRUE(read_address(nullptr, 0).ok()) << "no address at all is no error yet";
  EXPECT_EQ(read_address(nullptr, sizeof(sockaddr_in)).code(), EFAULT);
  EXPECT_EQ(read_address(reinterpret_cast<sockaddr*>(-1L), sizeof(sockaddr_in)).code(), EFAULT);

  for (socklen_t length : {0U, 1U, 2U, 8U, 15U}) {
    Result<RawAddress> raw = read_address(address, length);
    ASSERT_TRUE(raw.ok()) << length;
    EXPECT_EQ(address_to_bind(*raw).code(), EINVAL) << length;
    EXPECT_EQ(address_to_connect(*raw).code(), EINVAL) << length;
  }
  Result<RawAddress> longer = read_address(address, sizeof storage);
  ASSERT_TRUE(longer.ok());
  EXPECT_TRUE(address_to_connect(*longer).ok()) << "more than needed is fine";
}

TEST(ShimAddress, FamiliesAreJudgedAsLinuxDoes) {
  sockaddr_in in = internet("192.0.2.7", 80);
  in.sin_family = AF_INET6;
  Result<RawAddress> raw = read_address(generic(in), sizeof in);
  EXPECT_EQ(address_to_bind(*raw).code(), EAFNOSUPPORT);
  EXPECT_EQ(address_to_connect(*raw).code(), EAFNOSUPPORT);

  in.sin_family = AF_UNSPEC;
  raw = read_address(generic(in), sizeof in);
  EXPECT_EQ(address_to_bind(*raw).code(), EAFNOSUPPORT) << "only the wildcard may lack its family";
  in.sin_addr.s_addr = INADDR_ANY;
  raw = read_address(generic(in), sizeof in);
  ASSERT_TRUE(address_to_bind(*raw).ok());
  EXPECT_EQ(address_to_bind(*raw)->port, 80);
}

TEST(ShimAddress, UnspecifiedFamilyDissolvesFromTwoBytesOn) {
  sockaddr address{};
  address.sa_family = AF_UNSPEC;
  EXPECT_TRUE(is_disconnect(*read_address(&address, sizeof address)));
  EXPECT_TRUE(is_disconnect(*read_address(&address, 2)));
  EXPECT_FALSE(is_disconnect(*read_address(&address, 1)));
}

TEST(ShimAddress, WritesWhatFitsAndSaysHowMuchThereIs) {
  SocketAddress address{IpAddress::v4(198, 51, 100, 9), 443};
  sockaddr_in out{};
  socklen_t length = sizeof out;
  ASSERT_TRUE(write_address(address, reinterpret_cast<sockaddr*>(&out), &length).ok());
  EXPECT_EQ(length, sizeof out);
  EXPECT_EQ(out.sin_family, AF_INET);
  EXPECT_EQ(ntohs(out.sin_port), 443);
  EXPECT_EQ(ntohl(out.sin_addr.s_addr), 0xc6336409U);

  unsigned char small[16];
  std::memset(small, 0xee, sizeof small);
  length = 4;
  ASSERT_TRUE(write_address(address, reinterpret_cast<sockaddr*>(small), &length).ok());
  EXPECT_EQ(length, sizeof(sockaddr_in)) << "the true size, not what was written";
  EXPECT_EQ(small[3], 443 & 0xff);
  EXPECT_EQ(small[4], 0xee) << "no byte beyond what the caller has room for";

  length = 0;
  EXPECT_TRUE(write_address(address, nullptr, &length).ok()) << "nothing is written to nowhere";
  EXPECT_EQ(length, sizeof(sockaddr_in));
  length = static_cast<socklen_t>(-1);
  EXPECT_EQ(write_address(address, reinterpret_cast<sockaddr*>(&out), &length).code(), EINVAL);
  EXPECT_EQ(write_address(address, reinterpret_cast<sockaddr*>(&out), nullptr).code(), EFAULT);
  length = sizeof out;
  EXPECT_EQ(write_address(address, nullptr, &length).code(), EFAULT);
}

}  // namespace
}  // namespace ustack::shim
