// What a program finds out about its interfaces: getifaddrs(3), SO_BINDTODEVICE (socket(7)).
#include <ifaddrs.h>
#include <net/if.h>

#include <memory>
#include <optional>

#include "tests/api/support.h"

namespace api {
namespace {

using Interfaces = std::unique_ptr<ifaddrs, decltype(&freeifaddrs)>;
Interfaces interfaces() {
  ifaddrs* list = nullptr;
  EXPECT_EQ(getifaddrs(&list), 0) << strerror(errno);
  return {list, &freeifaddrs};
}

const ifaddrs* find(const Interfaces& list, const Address& address) {
  for (const ifaddrs* each = list.get(); each != nullptr; each = each->ifa_next)
    if (each->ifa_addr != nullptr && each->ifa_addr->sa_family == AF_INET &&
        reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr.s_addr == address.in.sin_addr.s_addr)
      return each;
  return nullptr;
}

uint32_t ipv4_of(const sockaddr* address) {
  return address != nullptr ? ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) : 0;
}

TEST(Interfaces, TheOwnAddressIsAmongThem) {
  Interfaces list = interfaces();
  const ifaddrs* own = find(list, local());
  ASSERT_NE(own, nullptr) << local().ip();
  EXPECT_NE(own->ifa_flags & IFF_UP, 0u);
  EXPECT_EQ(own->ifa_flags & IFF_LOOPBACK, 0u);
  ASSERT_NE(own->ifa_netmask, nullptr);
  EXPECT_EQ(ipv4_of(own->ifa_netmask), 0xffffff00);
  EXPECT_NE(if_nametoindex(own->ifa_name), 0u) << own->ifa_name << " is a device's name";
}

TEST(Interfaces, TheMachinesAreAsEver) {
  Interfaces list = interfaces();
  bool loopback = false, packet = false;
  for (const ifaddrs* each = list.get(); each != nullptr; each = each->ifa_next) {
    ASSERT_NE(each->ifa_name, nullptr);
    loopback |= std::string_view(each->ifa_name) == "lo" && (each->ifa_flags & IFF_LOOPBACK) != 0;
    packet |= each->ifa_addr != nullptr && each->ifa_addr->sa_family == AF_PACKET;
  }
  EXPECT_TRUE(loopback);
  EXPECT_TRUE(packet);
}

/// What it finds there a program can use.
TEST(Interfaces, ABoundAddressIsOneOfThem) {
  Interfaces list = interfaces();
  const ifaddrs* own = find(list, local());
  ASSERT_NE(own, nullptr);
  Fd fd = tcp();
  EXPECT_WORKS(bind(fd, own->ifa_addr, sizeof(sockaddr_in)));
  EXPECT_EQ(name_of(fd).ip(), local().ip());
}

TEST(Interfaces, FreeingNothing) { freeifaddrs(nullptr); }

}  // namespace
}  // namespace api
