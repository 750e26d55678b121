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
    if (each->ifa_addr != nullptr && each->ifa_addr->sa_family == family() &&
        std::memcmp(each->ifa_addr, address.get(), Address::size) == 0)
      return each;
  return nullptr;
}

std::string ip_of(const sockaddr* address) {
  Address copy;
  std::memcpy(copy.get(), address, Address::size);
  return copy.ip();
}

TEST(Interfaces, TheOwnAddressIsAmongThem) {
  Interfaces list = interfaces();
  const ifaddrs* own = find(list, local());
  ASSERT_NE(own, nullptr) << local().ip();
  EXPECT_NE(own->ifa_flags & IFF_UP, 0u);
  EXPECT_EQ(own->ifa_flags & IFF_LOOPBACK, 0u);
  ASSERT_NE(own->ifa_netmask, nullptr);
  EXPECT_EQ(ip_of(own->ifa_netmask), family() == AF_INET ? "255.255.255.0" : "ffff:ffff:ffff:ffff::");
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
  EXPECT_WORKS(bind(fd, own->ifa_addr, Address::size));
  EXPECT_EQ(name_of(fd).ip(), local().ip());
}

/// The device that the own address is on.
std::string own_device() {
  Interfaces list = interfaces();
  const ifaddrs* own = find(list, local());
  return own != nullptr ? own->ifa_name : "";
}

int bind_to(int fd, const std::string& device) {
  return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.c_str(), static_cast<socklen_t>(device.size()));
}
/// The device's name as getsockopt(2) tells it with its zero; empty: none.
std::string bound_to(int fd) {
  char name[IFNAMSIZ];
  socklen_t length = sizeof name;
  EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &length), 0) << strerror(errno);
  if (length == 0) return "";
  EXPECT_EQ(name[length - 1], 0);
  return {name, length - 1};
}

TEST(BindToDevice, TheNameIsRemembered) {
  Fd fd = tcp();
  EXPECT_EQ(bound_to(fd), "");
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX), 0);
  EXPECT_WORKS(bind_to(fd, own_device()));
  EXPECT_EQ(bound_to(fd), own_device());
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX),
            static_cast<int>(if_nametoindex(own_device().c_str())));
  char small[4];
  socklen_t length = sizeof small;
  EXPECT_FAILS(EINVAL, getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, small, &length));
  EXPECT_WORKS(bind_to(fd, ""));
  EXPECT_EQ(bound_to(fd), "");
  EXPECT_WORKS(set_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX, if_nametoindex(own_device().c_str())));
  EXPECT_EQ(bound_to(fd), own_device());
  EXPECT_FAILS(ENODEV, bind_to(fd, "nosuchdevice"));
  EXPECT_FAILS(EINVAL, set_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX, -1));
}

TEST(BindToDevice, ConnectionsGoThatWay) {
  Fd fd = tcp();
  ASSERT_WORKS(bind_to(fd, own_device()));
  Address to = peer();
  ASSERT_WORKS(connect(fd, to.get(), Address::size));
  ASSERT_TRUE(send_all(fd, "say hello\n"));
  EXPECT_EQ(read_all(fd), "hello");
}

TEST(BindToDevice, AListenerIsReachedThatWayOnly) {
  Fd listener = tcp();
  ASSERT_WORKS(bind_to(listener, own_device()));
  Address any("0.0.0.0", 0);
  ASSERT_WORKS(bind(listener, any.get(), Address::size));
  ASSERT_WORKS(listen(listener, 4));
  const uint16_t port = name_of(listener).port();
  Fd control = connected("call " + std::to_string(port) + " say hello drain");
  Fd fd = accept(listener, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(bound_to(fd), own_device());
  EXPECT_EQ(read_all(fd, 5), "hello");
  Fd inside = tcp();
  Address loopback("127.0.0.1", port);
  EXPECT_FAILS(ECONNREFUSED, connect(inside, loopback.get(), Address::size));
}

TEST(BindToDevice, TheLoopback) {
  Fd listener = tcp();
  Address any("127.0.0.1", 0);
  ASSERT_WORKS(bind_to(listener, "lo"));
  ASSERT_WORKS(bind(listener, any.get(), Address::size));
  ASSERT_WORKS(listen(listener, 4));
  Fd fd = tcp();
  ASSERT_WORKS(bind_to(fd, "lo"));
  EXPECT_EQ(bound_to(fd), "lo");
  Address to = name_of(listener);
  ASSERT_WORKS(connect(fd, to.get(), Address::size));
  Fd other = accept(listener, nullptr, nullptr);
  ASSERT_GE(other, 0);
  EXPECT_TRUE(send_all(fd, "x"));
  EXPECT_EQ(read_all(other, 1), "x");
}

TEST(Interfaces, FreeingNothing) { freeifaddrs(nullptr); }

/// In place of sin6_scope_id.
TEST(Ipv6Interfaces, TheBoundOneIsTheLinkOfAnAddress) {
  if (family() != AF_INET6) GTEST_SKIP() << "over IPv4";
  const Address somewhere("fe80::77", 80);
  Fd fd = tcp(SOCK_NONBLOCK);
  EXPECT_FAILS(EINVAL, connect(fd, somewhere.get(), Address::size));
  ASSERT_WORKS(bind_to(fd, own_device()));
  EXPECT_FAILS(EINPROGRESS, connect(fd, somewhere.get(), Address::size));
}

}  // namespace
}  // namespace api
