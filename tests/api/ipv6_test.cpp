// Streams over IPv6 (ipv6(7)): what is not the same as over IPv4. Run where the tests' family is IPv6.
#include <linux/errqueue.h>
#include <net/if.h>

#include <cstddef>
#include <cstdlib>

#include "tests/api/support.h"

namespace api {
namespace {

class Ipv6 : public ::testing::Test {
 protected:
  void SetUp() override {
    if (family() != AF_INET6) GTEST_SKIP() << "over IPv4";
  }
  static Address address(const char* ip, uint16_t port, uint32_t scope = 0) {
    Address made(ip, port);
    made.in6.sin6_scope_id = scope;
    return made;
  }
};

TEST_F(Ipv6, NamesAreWhole) {
  Fd fd = connected("echo");
  for (const Address& name : {name_of(fd), peer_of(fd)}) {
    EXPECT_EQ(name.in6.sin6_family, AF_INET6);
    EXPECT_EQ(name.in6.sin6_flowinfo, 0u);
    EXPECT_EQ(name.in6.sin6_scope_id, 0u);
  }
  EXPECT_EQ(name_of(fd).ip(), local().ip());
  EXPECT_EQ(peer_of(fd).ip(), peer().ip());
}

TEST_F(Ipv6, LengthsAndFamilies) {
  constexpr socklen_t kRfc2133 = offsetof(sockaddr_in6, sin6_scope_id);
  Address own = local();
  Fd fd = tcp();
  EXPECT_FAILS(EINVAL, bind(fd, own.get(), kRfc2133 - 1));
  Address wrong = own;
  wrong.in6.sin6_family = AF_INET;
  EXPECT_FAILS(EAFNOSUPPORT, bind(fd, wrong.get(), Address::size));
  EXPECT_WORKS(bind(fd, own.get(), kRfc2133));
  EXPECT_FAILS(EINVAL, bind(fd, own.get(), Address::size));
  Fd other = tcp();
  EXPECT_FAILS(EINVAL, connect(other, peer().get(), kRfc2133 - 1));
  Address strange = peer();
  strange.in6.sin6_family = AF_UNIX;
  EXPECT_FAILS(EAFNOSUPPORT, connect(other, strange.get(), Address::size));
  EXPECT_WORKS(connect(other, peer().get(), kRfc2133));
}

TEST_F(Ipv6, OptionsOfPackets) {
  Fd fd = tcp();
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 64);
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_TCLASS), 0);
  EXPECT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9));
  EXPECT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, 0x48 | 3));
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 9);
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_TCLASS), 0x48) << "ECN's bits aren't the program's";
  EXPECT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, -1));
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 64);
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 256));
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, 256));
  int mtu = 0;
  socklen_t length = sizeof mtu;
  EXPECT_FAILS(ENOTCONN, getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &length));
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_MTU), 1500);
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_MAXSEG), 1428);
}

TEST_F(Ipv6, TooFewHopsAreDropped) {
  Fd fd = connected("sleep 300 say hello");
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, 255));
  EXPECT_EQ(poll_one(fd, POLLIN, 700), 0);
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, 64));
  EXPECT_EQ(read_all(fd, 5), "hello");
}

TEST_F(Ipv6, V6OnlyIsForTheUnbound) {
  Fd fd = tcp();
  EXPECT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  Address any("0.0.0.0", 0);
  ASSERT_WORKS(bind(fd, any.get(), Address::size));
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0));
}

TEST_F(Ipv6, PortsOfBothFamilies) {
  Fd both = tcp();
  ASSERT_WORKS(set_option(both, IPPROTO_IPV6, IPV6_V6ONLY, 0));
  Address any("0.0.0.0", 0);
  ASSERT_WORKS(bind(both, any.get(), Address::size));
  ASSERT_WORKS(listen(both, 4));
  sockaddr_in ipv4{};
  ipv4.sin_family = AF_INET;
  ipv4.sin_port = htons(name_of(both).port());
  auto* generic = reinterpret_cast<sockaddr*>(&ipv4);
  Fd other(socket(AF_INET, SOCK_STREAM, 0));
  EXPECT_FAILS(EADDRINUSE, bind(other, generic, sizeof ipv4));
  both.reset();
  Fd only = tcp();
  ASSERT_WORKS(set_option(only, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  ASSERT_WORKS(bind(only, any.get(), Address::size));
  ASSERT_WORKS(listen(only, 4));
  ipv4.sin_port = htons(name_of(only).port());
  EXPECT_WORKS(bind(other, generic, sizeof ipv4));
}

TEST_F(Ipv6, MappedAddressesReachIpv4) {
  Fd fd = tcp();
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0));
  Address to("::ffff:192.0.2.1", peer().port());
  ASSERT_WORKS(connect(fd, to.get(), Address::size));
  EXPECT_EQ(peer_of(fd).ip(), "::ffff:192.0.2.1");
  EXPECT_EQ(name_of(fd).ip(), "::ffff:192.0.2.2");
  ASSERT_TRUE(send_all(fd, "echo\n"));
  EXPECT_TRUE(echoes(fd, "over IPv4"));
  Fd only = tcp();
  ASSERT_WORKS(set_option(only, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  EXPECT_FAILS(ENETUNREACH, connect(only, to.get(), Address::size));
  Fd bound = tcp();
  Address mapped("::ffff:192.0.2.2", 0);
  ASSERT_WORKS(bind(bound, mapped.get(), Address::size));
  EXPECT_FAILS(EAFNOSUPPORT, connect(bound, peer().get(), Address::size));
}

TEST_F(Ipv6, AddressesOfALinkNeedIt) {
  Fd fd = tcp();
  Address somewhere = address("fe80::77", 80);
  EXPECT_FAILS(EINVAL, connect(fd, somewhere.get(), Address::size));
  EXPECT_FAILS(EINVAL, bind(fd, somewhere.get(), Address::size));
}

TEST_F(Ipv6, ErrorsComeWithTheirSender) {
  Fd fd = tcp(SOCK_NONBLOCK);
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_RECVERR, 1));
  Address far("2001:db8:77::1", 80);
  EXPECT_FAILS(EINPROGRESS, connect(fd, far.get(), Address::size));
  ASSERT_NE(poll_one(fd, POLLOUT) & POLLERR, 0);
  char bytes[256];
  alignas(cmsghdr) char control[256];
  iovec part{bytes, sizeof bytes};
  Address about;
  msghdr message{};
  message.msg_name = about.get();
  message.msg_namelen = Address::size;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ASSERT_GE(recvmsg(fd, &message, MSG_ERRQUEUE), 0) << strerror(errno);
  EXPECT_EQ(about.ip(), far.ip());
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(header->cmsg_level, IPPROTO_IPV6);
  EXPECT_EQ(header->cmsg_type, IPV6_RECVERR);
  sock_extended_err told;
  std::memcpy(&told, CMSG_DATA(header), sizeof told);
  EXPECT_EQ(told.ee_errno, static_cast<uint32_t>(ENETUNREACH));
  EXPECT_EQ(told.ee_origin, SO_EE_ORIGIN_ICMP6);
  EXPECT_EQ(told.ee_type, 1) << "destination unreachable";
  Address offender;
  std::memcpy(offender.get(), CMSG_DATA(header) + sizeof told, Address::size);
  EXPECT_EQ(offender.ip(), peer().ip());
}

TEST_F(Ipv6, AllZerosIsTheLoopback) {
  Fd fd = tcp();
  Address any("0.0.0.0", 9);
  EXPECT_FAILS(ECONNREFUSED, connect(fd, any.get(), Address::size));
}

TEST_F(Ipv6, AGroupIsUnreachable) {
  Fd fd = tcp();
  Address group("ff0e::1", 80);
  EXPECT_FAILS(ENETUNREACH, connect(fd, group.get(), Address::size));
}

}  // namespace
}  // namespace api
