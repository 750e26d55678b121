// Sockets of datagrams (udp(7)); under the library with USTACK_UDP=stack.
#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <thread>

#include "tests/api/support.h"

namespace api {

namespace {

/// What differs between the families.
struct OfFamily {
  int level, receive_errors, path_mtu, discovery, hops, traffic_class;
  /// What a packet has room for, on the link and at all.
  size_t on_link, largest;
};

const OfFamily& ours() {
  static constexpr OfFamily ipv4{IPPROTO_IP, IP_RECVERR, IP_MTU, IP_MTU_DISCOVER,
                                 IP_TTL,     IP_TOS,     1472,   65507};
  static constexpr OfFamily ipv6{IPPROTO_IPV6,      IPV6_RECVERR, IPV6_MTU, IPV6_MTU_DISCOVER,
                                 IPV6_UNICAST_HOPS, IPV6_TCLASS,  1452,     65527};
  return family() == AF_INET ? ipv4 : ipv6;
}

/// As name_of() says it.
const char* any_ip() { return family() == AF_INET ? "0.0.0.0" : "::"; }

Fd udp(int flags = 0) {
  Fd fd(socket(family(), SOCK_DGRAM | flags, 0));
  EXPECT_GE(fd, 0) << strerror(errno);
  return fd;
}

/// Bound to this side's address.
Fd bound(int flags = 0) {
  Fd fd = udp(flags);
  Address address = local();
  EXPECT_EQ(bind(fd, address.get(), Address::size), 0) << strerror(errno);
  set_timeout(fd, SO_RCVTIMEO, milliseconds(3000));
  return fd;
}

Fd connected_to_peer(int flags = 0) {
  Fd fd = udp(flags);
  EXPECT_EQ(connect(fd, peer().get(), Address::size), 0) << strerror(errno);
  set_timeout(fd, SO_RCVTIMEO, milliseconds(3000));
  return fd;
}

ssize_t send_to(int fd, std::string_view bytes, const Address& to, int flags = 0) {
  return sendto(fd, bytes.data(), bytes.size(), flags, to.get(), Address::size);
}

struct Got {
  ssize_t result = -1;
  std::string bytes;
  Address from;
  int flags = 0;
  std::array<std::byte, 512> control{};
  size_t control_bytes = 0;

  /// The ancillary data of that kind; empty: none.
  std::string ancillary(int level, int type) {
    msghdr header{};
    header.msg_control = control.data();
    header.msg_controllen = control_bytes;
    for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at))
      if (at->cmsg_level == level && at->cmsg_type == type)
        return {reinterpret_cast<char*>(CMSG_DATA(at)), at->cmsg_len - CMSG_LEN(0)};
    return {};
  }
};

Got receive(int fd, size_t room = 65536, int flags = 0) {
  Got got;
  got.bytes.resize(room);
  iovec part{got.bytes.data(), room};
  msghdr message{};
  message.msg_name = &got.from.in;
  message.msg_namelen = Address::size;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = got.control.data();
  message.msg_controllen = got.control.size();
  got.result = recvmsg(fd, &message, flags);
  got.bytes.resize(got.result < 0 ? 0 : std::min(static_cast<size_t>(got.result), room));
  got.flags = message.msg_flags;
  got.control_bytes = message.msg_controllen;
  return got;
}

/// Sends "echo x" to the peer with that ancillary data.
int send_with(int fd, int level, int type, const void* data, size_t bytes) {
  alignas(cmsghdr) char control[128]{};
  iovec part{const_cast<char*>("echo x"), 6};
  Address to = peer();
  msghdr message{};
  message.msg_name = to.get();
  message.msg_namelen = Address::size;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(bytes);
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = level;
  head->cmsg_type = type;
  head->cmsg_len = CMSG_LEN(bytes);
  std::memcpy(CMSG_DATA(head), data, bytes);
  return static_cast<int>(sendmsg(fd, &message, 0));
}

template <typename T>
T as(const std::string& bytes) {
  T value{};
  EXPECT_EQ(bytes.size(), sizeof value);
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

}  // namespace

TEST(Datagram, GoesAndComes) {
  Fd fd = bound();
  ASSERT_EQ(send_to(fd, "echo one", peer()), 8);
  Got got = receive(fd);
  EXPECT_EQ(got.bytes, "echo one");
  EXPECT_EQ(got.from.ip(), peer().ip());
  EXPECT_EQ(got.from.port(), peer().port());
  EXPECT_EQ(got.flags, 0);
  EXPECT_EQ(got.control_bytes, 0u);
}

TEST(Datagram, KindOfSocket) {
  Fd fd = udp();
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDP);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_DOMAIN), family());
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
  EXPECT_FAILS(EPROTONOSUPPORT, socket(family(), SOCK_DGRAM, IPPROTO_TCP));
  EXPECT_FAILS(EOPNOTSUPP, listen(fd, 1));
  EXPECT_FAILS(EOPNOTSUPP, accept(fd, nullptr, nullptr));
}

TEST(Datagram, BoundariesAreKept) {
  Fd fd = connected_to_peer();
  ASSERT_TRUE(send_all(fd, "many 5 100"));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(receive(fd).bytes, pattern(100));
}

TEST(Datagram, WhatDoesNotFitIsCutOff) {
  Fd fd = connected_to_peer();
  ASSERT_TRUE(send_all(fd, "many 2 100"));
  Got got = receive(fd, 30);
  EXPECT_EQ(got.result, 30);
  EXPECT_EQ(got.bytes, pattern(30));
  EXPECT_EQ(got.flags, MSG_TRUNC);
  got = receive(fd, 30, MSG_TRUNC);
  EXPECT_EQ(got.result, 100);
  EXPECT_EQ(got.flags, MSG_TRUNC);
}

TEST(Datagram, AnEmptyOneIsNoEnd) {
  Fd fd = connected_to_peer();
  ASSERT_TRUE(send_all(fd, "size 0"));
  ASSERT_TRUE(send_all(fd, "echo more"));
  EXPECT_EQ(poll_one(fd, POLLIN), POLLIN);
  EXPECT_EQ(receive(fd).result, 0);
  EXPECT_EQ(receive(fd).bytes, "echo more");
  ASSERT_EQ(send(fd, "", 0, 0), 0);
}

TEST(Datagram, APeekLeavesIt) {
  Fd fd = connected_to_peer();
  ASSERT_TRUE(send_all(fd, "echo peek"));
  EXPECT_EQ(receive(fd, 4, MSG_PEEK).bytes, "echo");
  EXPECT_EQ(receive(fd, 100, MSG_PEEK).bytes, "echo peek");
  EXPECT_EQ(receive(fd).bytes, "echo peek");
  EXPECT_FAILS(EAGAIN, recv(fd, nullptr, 0, MSG_DONTWAIT | MSG_PEEK));
}

TEST(Datagram, LargerThanThePacketsOfTheLink) {
  Fd fd = connected_to_peer();
  const OfFamily& of = ours();
  for (size_t size : {of.on_link, of.on_link + 1, size_t{9000}, of.largest}) {
    ASSERT_TRUE(send_all(fd, "size " + std::to_string(size)));
    EXPECT_EQ(receive(fd).bytes, pattern(size)) << size;
    std::string back = "echo " + pattern(size - 5);
    ASSERT_EQ(send(fd, back.data(), back.size(), 0), static_cast<ssize_t>(size)) << strerror(errno);
    EXPECT_EQ(receive(fd).bytes, back) << size;
  }
  std::string too_large(of.largest + 1, 'x');
  EXPECT_FAILS(EMSGSIZE, send(fd, too_large.data(), too_large.size(), 0));
  set_option(fd, of.level, of.discovery, IP_PMTUDISC_DO);
  EXPECT_FAILS(EMSGSIZE, send(fd, too_large.data(), of.on_link + 1, 0));
  EXPECT_EQ(send(fd, too_large.data(), of.on_link, 0), static_cast<ssize_t>(of.on_link));
  EXPECT_EQ(get_option(fd, of.level, of.path_mtu), 1500);
}

TEST(Datagram, Names) {
  Fd fd = udp();
  EXPECT_EQ(name_of(fd).port(), 0);
  EXPECT_EQ(name_of(fd).ip(), any_ip());
  Address name;
  socklen_t length = Address::size;
  EXPECT_FAILS(ENOTCONN, getpeername(fd, name.get(), &length));
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  EXPECT_EQ(name_of(fd).ip(), local().ip());
  EXPECT_NE(name_of(fd).port(), 0);
  EXPECT_EQ(peer_of(fd).port(), peer().port());
  // Another peer, and none.
  ASSERT_WORKS(connect(fd, nobody().get(), Address::size));
  EXPECT_EQ(peer_of(fd).port(), nobody().port());
  Address none;
  none.in.sin_family = AF_UNSPEC;
  ASSERT_WORKS(connect(fd, none.get(), Address::size));
  length = Address::size;
  EXPECT_FAILS(ENOTCONN, getpeername(fd, name.get(), &length));
  EXPECT_EQ(name_of(fd).ip(), any_ip());
}

TEST(Datagram, SendingBindsIt) {
  Fd fd = udp();
  ASSERT_EQ(send_to(fd, "echo x", peer()), 6);
  EXPECT_NE(name_of(fd).port(), 0);
  EXPECT_EQ(name_of(fd).ip(), any_ip());
  EXPECT_FAILS(EINVAL, bind(fd, local().get(), Address::size));
  set_timeout(fd, SO_RCVTIMEO, milliseconds(3000));
  EXPECT_EQ(receive(fd).bytes, "echo x");
}

TEST(Datagram, WithoutADestination) {
  Fd fd = udp();
  EXPECT_FAILS(EDESTADDRREQ, send(fd, "x", 1, 0));
  EXPECT_FAILS(EINVAL, send_to(fd, "x", Address(peer().ip().c_str(), 0)));
  EXPECT_FAILS(EINVAL, sendto(fd, "x", 1, 0, peer().get(), sizeof(sockaddr_in) - 1));
  Address strange = peer();
  strange.in.sin_family = AF_UNIX;
  EXPECT_FAILS(family() == AF_INET ? EAFNOSUPPORT : EINVAL, send_to(fd, "x", strange));
  if (family() == AF_INET)
    EXPECT_FAILS(EOPNOTSUPP, send_to(fd, "x", peer(), MSG_OOB));
  else
    EXPECT_EQ(send_to(fd, "x", peer(), MSG_OOB), 1);
}

TEST(Datagram, AConnectedOneHearsItsPeerOnly) {
  Fd fd = bound();
  ASSERT_WORKS(connect(fd, nobody().get(), Address::size));
  Fd other = bound();
  const std::string port = std::to_string(name_of(fd).port());
  ASSERT_GT(send_to(other, "to " + port + " stranger", peer()), 0);
  // It comes from the peer's command port, which is not whom it is connected with.
  EXPECT_EQ(poll_one(fd, POLLIN, 200) & POLLIN, 0);
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  ASSERT_GT(send_to(other, "to " + port + " friend", peer()), 0);
  EXPECT_EQ(receive(fd).bytes, "friend");
  // It may send to others all the same.
  EXPECT_EQ(send_to(fd, "x", nobody()), 1);
}

// No more refusals in a row here than a host sends in a second (icmp_ratelimit).
TEST(Datagram, ARefusalIsToldToTheConnected) {
  Fd fd = udp();
  ASSERT_WORKS(connect(fd, nobody().get(), Address::size));
  ASSERT_EQ(send(fd, "x", 1, 0), 1);
  EXPECT_EQ(poll_one(fd, POLLIN) & (POLLERR | POLLIN), POLLERR);
  EXPECT_FAILS(ECONNREFUSED, recv(fd, nullptr, 0, MSG_DONTWAIT));
  EXPECT_FAILS(EAGAIN, recv(fd, nullptr, 0, MSG_DONTWAIT));
  ASSERT_EQ(send(fd, "x", 1, 0), 1);
  EXPECT_EQ(poll_one(fd, POLLIN) & POLLERR, POLLERR);
  EXPECT_EQ(pending_error(fd), ECONNREFUSED);
  EXPECT_EQ(pending_error(fd), 0);
}

TEST(Datagram, ARefusalIsNotToldToOthers) {
  Fd fd = bound();
  ASSERT_EQ(send_to(fd, "x", nobody()), 1);
  EXPECT_EQ(poll_one(fd, POLLIN, 200), 0);
}

TEST(Datagram, TheErrorQueue) {
  Fd fd = bound();
  ASSERT_WORKS(set_option(fd, ours().level, ours().receive_errors, 1));
  ASSERT_EQ(send_to(fd, "lost", nobody()), 4);
  EXPECT_EQ(poll_one(fd, POLLIN) & (POLLERR | POLLIN), POLLERR);
  EXPECT_FAILS(ECONNREFUSED, recv(fd, nullptr, 0, MSG_DONTWAIT));
  Got got = receive(fd, 100, MSG_ERRQUEUE);
  EXPECT_EQ(got.bytes, "lost");
  EXPECT_EQ(got.flags, MSG_ERRQUEUE);
  EXPECT_EQ(got.from.port(), nobody().port());
  const std::string told = got.ancillary(ours().level, ours().receive_errors);
  ASSERT_GE(told.size(), sizeof(sock_extended_err));
  auto error = as<sock_extended_err>(told.substr(0, sizeof(sock_extended_err)));
  EXPECT_EQ(error.ee_errno, static_cast<uint32_t>(ECONNREFUSED));
  const bool v4 = family() == AF_INET;
  EXPECT_EQ(error.ee_origin, v4 ? SO_EE_ORIGIN_ICMP : SO_EE_ORIGIN_ICMP6);
  EXPECT_EQ(error.ee_type, v4 ? 3 : 1);
  EXPECT_EQ(error.ee_code, v4 ? 3 : 4);
  EXPECT_EQ(receive(fd, 100, MSG_ERRQUEUE | MSG_DONTWAIT).result, -1);
  EXPECT_EQ(pending_error(fd), 0);
}

TEST(Datagram, AncillaryData) {
  Fd fd = bound();
  for (int option : {IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVORIGDSTADDR})
    ASSERT_WORKS(set_option(fd, IPPROTO_IP, option, 1));
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1));
  ASSERT_GT(send_to(fd, "echo x", peer()), 0);
  Got got = receive(fd);
  EXPECT_EQ(got.bytes, "echo x");
  auto info = as<in_pktinfo>(got.ancillary(IPPROTO_IP, IP_PKTINFO));
  EXPECT_EQ(info.ipi_addr.s_addr, local().in.sin_addr.s_addr);
  EXPECT_EQ(info.ipi_spec_dst.s_addr, local().in.sin_addr.s_addr);
  char device[IF_NAMESIZE];
  EXPECT_NE(if_indextoname(static_cast<unsigned>(info.ipi_ifindex), device), nullptr);
  EXPECT_EQ(as<int>(got.ancillary(IPPROTO_IP, IP_TTL)), 64);
  EXPECT_EQ(got.ancillary(IPPROTO_IP, IP_TOS), std::string(1, '\0'));
  auto destination = as<sockaddr_in>(got.ancillary(IPPROTO_IP, IP_ORIGDSTADDR));
  EXPECT_EQ(ntohs(destination.sin_port), name_of(fd).port());
  auto time = as<timespec>(got.ancillary(SOL_SOCKET, SO_TIMESTAMPNS));
  EXPECT_LT(std::abs(::time(nullptr) - time.tv_sec), 5);
}

TEST(Datagram, AncillaryDataOfASend) {
  Fd fd = udp();
  set_timeout(fd, SO_RCVTIMEO, milliseconds(3000));
  auto send_with = [&](int type, const void* data, size_t bytes) {
    return api::send_with(fd, IPPROTO_IP, type, data, bytes);
  };
  in_pktinfo info{};
  info.ipi_spec_dst = local().in.sin_addr;
  EXPECT_EQ(send_with(IP_PKTINFO, &info, sizeof info), 6);
  EXPECT_EQ(receive(fd).bytes, "echo x");
  EXPECT_FAILS(EINVAL, send_with(IP_PKTINFO, &info, 4));
  int ttl = 3;
  EXPECT_EQ(send_with(IP_TTL, &ttl, sizeof ttl), 6);
  EXPECT_EQ(receive(fd).bytes, "echo x");
  ttl = 0;
  EXPECT_FAILS(EINVAL, send_with(IP_TTL, &ttl, sizeof ttl));
  int tos = 8;
  EXPECT_EQ(send_with(IP_TOS, &tos, sizeof tos), 6);
  EXPECT_EQ(receive(fd).bytes, "echo x");
  EXPECT_FAILS(EINVAL, send_with(99, &tos, sizeof tos));
}

class Ipv6Datagram : public ::testing::Test {
 protected:
  void SetUp() override {
    if (family() != AF_INET6) GTEST_SKIP() << "over IPv4";
  }
};

TEST_F(Ipv6Datagram, AncillaryData) {
  Fd fd = bound();
  for (int option : {IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_RECVORIGDSTADDR})
    ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, option, 1));
  ASSERT_GT(send_to(fd, "echo x", peer()), 0);
  Got got = receive(fd);
  EXPECT_EQ(got.bytes, "echo x");
  const Address own = local();
  auto info = as<in6_pktinfo>(got.ancillary(IPPROTO_IPV6, IPV6_PKTINFO));
  EXPECT_TRUE(IN6_ARE_ADDR_EQUAL(&info.ipi6_addr, &own.in6.sin6_addr));
  char device[IF_NAMESIZE];
  EXPECT_NE(if_indextoname(info.ipi6_ifindex, device), nullptr);
  EXPECT_EQ(as<int>(got.ancillary(IPPROTO_IPV6, IPV6_HOPLIMIT)), 64);
  EXPECT_EQ(as<int>(got.ancillary(IPPROTO_IPV6, IPV6_TCLASS)), 0);
  auto destination = as<sockaddr_in6>(got.ancillary(IPPROTO_IPV6, IPV6_ORIGDSTADDR));
  EXPECT_EQ(ntohs(destination.sin6_port), name_of(fd).port());
  EXPECT_TRUE(IN6_ARE_ADDR_EQUAL(&destination.sin6_addr, &own.in6.sin6_addr));
}

TEST_F(Ipv6Datagram, AncillaryDataOfASend) {
  Fd fd = udp();
  set_timeout(fd, SO_RCVTIMEO, milliseconds(3000));
  auto sends = [&](int type, auto value) {
    const int sent = send_with(fd, IPPROTO_IPV6, type, &value, sizeof value);
    if (sent > 0) {
      EXPECT_EQ(receive(fd).bytes, "echo x");
    }
    return sent;
  };
  in6_pktinfo info{};
  EXPECT_EQ(sends(IPV6_PKTINFO, info), 6) << "of no address";
  info.ipi6_addr = local().in6.sin6_addr;
  EXPECT_EQ(sends(IPV6_PKTINFO, info), 6);
  info.ipi6_addr = Address("203.0.113.7", 0).in6.sin6_addr;
  EXPECT_FAILS(EINVAL, sends(IPV6_PKTINFO, info));
  EXPECT_FAILS(EINVAL, sends(IPV6_PKTINFO, 1));
  for (int type : {IPV6_HOPLIMIT, IPV6_TCLASS}) {
    EXPECT_EQ(sends(type, 3), 6);
    EXPECT_EQ(sends(type, -1), 6);
    EXPECT_FAILS(EINVAL, sends(type, -2));
    EXPECT_FAILS(EINVAL, sends(type, 256));
    EXPECT_FAILS(EINVAL, sends(type, char{1}));
  }
  EXPECT_EQ(sends(IPV6_DONTFRAG, 1), 6);
  EXPECT_FAILS(EINVAL, sends(IPV6_DONTFRAG, 2));
  EXPECT_FAILS(EINVAL, sends(999, 1));
  // Of the other family, which isn't the destination's: nobody looks at it.
  const int ttl = 0;
  EXPECT_EQ(send_with(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl), 6);
  EXPECT_EQ(receive(fd).bytes, "echo x");
}

TEST_F(Ipv6Datagram, WithoutFragments) {
  Fd fd = connected_to_peer();
  const std::string large(3000, 'x');
  EXPECT_EQ(send(fd, large.data(), large.size(), 0), 3000);
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1));
  EXPECT_FAILS(EMSGSIZE, send(fd, large.data(), large.size(), 0));
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 0));
  EXPECT_EQ(send(fd, large.data(), large.size(), 0), 3000);
}

TEST_F(Ipv6Datagram, SmallerPackets) {
  Fd fd = connected_to_peer();
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_IPV6, IPV6_MTU, 1279));
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_MTU, 1280));
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_MTU), 1500) << "the path's";
  const std::string bytes = "echo " + std::string(1300, 'x');
  EXPECT_TRUE(send_all(fd, bytes));
  EXPECT_EQ(receive(fd).bytes, bytes);
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO));
  EXPECT_FAILS(EMSGSIZE, send(fd, bytes.data(), 1280 - 48 + 1, 0));
  EXPECT_EQ(send(fd, bytes.data(), 1280 - 48, 0), 1280 - 48);
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_MTU, 0));
  EXPECT_EQ(send(fd, bytes.data(), 1305, 0), 1305);
}

TEST_F(Ipv6Datagram, PortsOfBothFamilies) {
  Fd both = udp();
  ASSERT_WORKS(bind(both, Address("0.0.0.0", 0).get(), Address::size));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_port = htons(name_of(both).port());
  Fd other(socket(AF_INET, SOCK_DGRAM, 0));
  EXPECT_FAILS(EADDRINUSE, bind(other, reinterpret_cast<sockaddr*>(&any), sizeof any));
  both = udp();
  ASSERT_WORKS(set_option(both, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  ASSERT_WORKS(bind(both, Address("0.0.0.0", ntohs(any.sin_port)).get(), Address::size));
  EXPECT_WORKS(bind(other, reinterpret_cast<sockaddr*>(&any), sizeof any));
}

TEST_F(Ipv6Datagram, FromAnAddressOfIpv4) {
  Fd fd = udp();
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0));
  Address mapped;
  ASSERT_EQ(inet_pton(AF_INET6, "::ffff:0.0.0.0", &mapped.in6.sin6_addr), 1);
  ASSERT_WORKS(bind(fd, mapped.get(), Address::size));
  EXPECT_EQ(name_of(fd).ip(), "::ffff:0.0.0.0");
  EXPECT_FAILS(EAFNOSUPPORT, send_to(fd, "x", peer()));
  EXPECT_FAILS(EAFNOSUPPORT, connect(fd, peer().get(), Address::size));
}

TEST(Datagram, SeveralByOneCall) {
  Fd fd = connected_to_peer();
  std::array<iovec, 3> parts;
  std::array<mmsghdr, 3> messages{};
  const char* texts[] = {"echo a", "echo bb", "echo ccc"};
  for (size_t i = 0; i < 3; ++i) {
    parts[i] = {const_cast<char*>(texts[i]), strlen(texts[i])};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  ASSERT_EQ(sendmmsg(fd, messages.data(), 3, 0), 3);
  EXPECT_EQ(messages[2].msg_len, 8u);
  char room[3][16];
  for (size_t i = 0; i < 3; ++i) parts[i] = {room[i], sizeof room[i]};
  int got = 0;
  while (got < 3) {
    int n = recvmmsg(fd, messages.data() + got, static_cast<unsigned>(3 - got), MSG_WAITFORONE, nullptr);
    ASSERT_GT(n, 0) << strerror(errno);
    got += n;
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(std::string(room[i], messages[i].msg_len), texts[i]);
}

TEST(Datagram, ReadAndWrite) {
  Fd fd = connected_to_peer();
  iovec out[] = {{const_cast<char*>("ec"), 2}, {const_cast<char*>("ho !"), 4}};
  ASSERT_EQ(writev(fd, out, 2), 6);
  char a[3], b[10];
  iovec in[] = {{a, sizeof a}, {b, sizeof b}};
  ASSERT_EQ(readv(fd, in, 2), 6);
  EXPECT_EQ(std::string(a, 3) + std::string(b, 3), "echo !");
  ASSERT_EQ(write(fd, "echo 2", 6), 6);
  EXPECT_EQ(poll_one(fd, POLLIN), POLLIN);
  int waiting = 0;
  ASSERT_WORKS(ioctl(fd, FIONREAD, &waiting));
  EXPECT_EQ(waiting, 6);
  ASSERT_EQ(read(fd, b, 4), 4);
  EXPECT_EQ(std::string(b, 4), "echo");
  ASSERT_WORKS(ioctl(fd, FIONREAD, &waiting));
  EXPECT_EQ(waiting, 0);
}

TEST(Datagram, BindConflicts) {
  Fd first = bound();
  Address taken = name_of(first);
  Fd second = udp();
  EXPECT_FAILS(EADDRINUSE, bind(second, taken.get(), Address::size));
  Address wild("0.0.0.0", taken.port());
  EXPECT_FAILS(EADDRINUSE, bind(second, wild.get(), Address::size));
  ASSERT_WORKS(set_option(second, SOL_SOCKET, SO_REUSEADDR, 1));
  EXPECT_FAILS(EADDRINUSE, bind(second, taken.get(), Address::size));
  ASSERT_WORKS(set_option(first, SOL_SOCKET, SO_REUSEADDR, 1));
  EXPECT_WORKS(bind(second, taken.get(), Address::size));
  Fd third = udp();
  EXPECT_FAILS(EADDRNOTAVAIL, bind(third, Address("203.0.113.7", 0).get(), Address::size));
  EXPECT_FAILS(EINVAL, bind(third, local().get(), 4));
  first.reset();
  second.reset();
  EXPECT_WORKS(bind(third, taken.get(), Address::size));
}

TEST(Datagram, ReusedPortsShare) {
  std::array<Fd, 4> fds;
  Address address = local();
  for (Fd& fd : fds) {
    fd = udp(SOCK_NONBLOCK);
    ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    ASSERT_WORKS(bind(fd, address.get(), Address::size));
    address = name_of(fd);
  }
  // All from one place go to one of them.
  Fd sender = bound();
  for (int i = 0; i < 8; ++i)
    ASSERT_GT(send_to(sender, "to " + std::to_string(address.port()) + " x", peer()), 0);
  std::this_thread::sleep_for(milliseconds(200));
  int with = 0, datagrams = 0;
  for (Fd& fd : fds) {
    int before = datagrams;
    while (receive(fd, 10).result == 1) ++datagrams;
    with += datagrams > before;
  }
  EXPECT_EQ(datagrams, 8);
  EXPECT_EQ(with, 1);
}

TEST(Datagram, WithinTheHost) {
  Fd a = bound(), b = bound();
  ASSERT_EQ(send_to(a, "hello", name_of(b)), 5);
  Got got = receive(b);
  EXPECT_EQ(got.bytes, "hello");
  EXPECT_EQ(got.from.port(), name_of(a).port());
  ASSERT_EQ(send_to(b, std::string(20000, 'y'), got.from), 20000);
  EXPECT_EQ(receive(a).bytes, std::string(20000, 'y'));
}

TEST(Datagram, Shutdown) {
  Fd fd = udp();
  EXPECT_FAILS(ENOTCONN, shutdown(fd, SHUT_RD));
  Fd other = connected_to_peer();
  ASSERT_WORKS(shutdown(other, SHUT_WR));
  EXPECT_FAILS(EPIPE, send(other, "x", 1, MSG_NOSIGNAL));
  ASSERT_WORKS(shutdown(other, SHUT_RD));
  EXPECT_EQ(recv(other, nullptr, 0, 0), 0);
  EXPECT_EQ(poll_one(other, POLLIN | POLLOUT | POLLRDHUP, 0) & (POLLIN | POLLHUP | POLLRDHUP),
            POLLIN | POLLHUP | POLLRDHUP);
}

TEST(Datagram, ShutdownEndsAllWaits) {
  Fd fd = connected_to_peer();
  set_timeout(fd, SO_RCVTIMEO, milliseconds(0));
  std::atomic<int> ended{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      char byte;
      if (recv(fd, &byte, 1, 0) == 0) ++ended;
    });
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(ended, 0);
  ASSERT_WORKS(shutdown(fd, SHUT_RDWR));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended, 3);
}

TEST(Datagram, WaitsAndTimesOut) {
  Fd fd = bound(SOCK_NONBLOCK);
  char byte;
  EXPECT_FAILS(EAGAIN, recv(fd, &byte, 1, 0));
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT, 0), POLLOUT);
  set_nonblocking(fd, false);
  EXPECT_FAILS(EAGAIN, recv(fd, &byte, 1, MSG_DONTWAIT));
  set_timeout(fd, SO_RCVTIMEO, milliseconds(50));
  EXPECT_FAILS(EAGAIN, recv(fd, &byte, 1, 0));
  set_timeout(fd, SO_RCVTIMEO, milliseconds(0));
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(50));
    send_to(fd, "echo z", peer());
  });
  EXPECT_EQ(receive(fd).bytes, "echo z");
  later.join();
}

TEST(Datagram, Epoll) {
  Fd fd = bound();
  Fd set(epoll_create1(0));
  epoll_event event{EPOLLIN | EPOLLET, {.u32 = 7}};
  ASSERT_WORKS(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
  EXPECT_EQ(epoll_wait(set, &event, 1, 0), 0);
  for (int i = 0; i < 3; ++i) {
    ASSERT_GT(send_to(fd, "echo e", peer()), 0);
    ASSERT_EQ(epoll_wait(set, &event, 1, 3000), 1);
    EXPECT_EQ(event.data.u32, 7u);
  }
  EXPECT_EQ(epoll_wait(set, &event, 1, 50), 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(receive(fd).bytes, "echo e");
}

TEST(Datagram, TheReceiveBufferHasAnEnd) {
  Fd fd = connected_to_peer();
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_RCVBUF, 4096));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_RCVBUF), 8192);
  ASSERT_TRUE(send_all(fd, "many 100 1000"));
  // Somebody who waits takes in what has come.
  Fd other = bound();
  EXPECT_EQ(poll_one(other, POLLIN, 200), 0);
  int got = 0;
  while (receive(fd, 2000, MSG_DONTWAIT).result == 1000) ++got;
  EXPECT_GE(got, 2);
  EXPECT_LE(got, 12);
}

TEST(Datagram, Options) {
  Fd fd = udp();
  const OfFamily& of = ours();
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_BROADCAST), 0);
  EXPECT_EQ(get_option(fd, of.level, of.hops), 64);
  EXPECT_EQ(get_option(fd, of.level, of.traffic_class), 0);
  EXPECT_EQ(get_option(fd, of.level, of.discovery), IP_PMTUDISC_WANT);
  EXPECT_WORKS(set_option(fd, of.level, of.hops, 9));
  EXPECT_EQ(get_option(fd, of.level, of.hops), 9);
  EXPECT_FAILS(EINVAL, set_option(fd, of.level, of.hops, 256));
  EXPECT_WORKS(set_option(fd, of.level, of.traffic_class, 0x1b));
  EXPECT_EQ(get_option(fd, of.level, of.traffic_class), 0x1b);
  EXPECT_FAILS(EINVAL, set_option(fd, of.level, of.discovery, 6));
  int value = 0;
  socklen_t length = sizeof value;
  EXPECT_FAILS(ENOTCONN, getsockopt(fd, of.level, of.path_mtu, &value, &length));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_SNDLOWAT), 1);
}

TEST(Datagram, ABroadcastWantsToBeAllowed) {
  Fd fd = udp();
  EXPECT_FAILS(EACCES, send_to(fd, "x", Address("192.0.2.255", 9)));
}

TEST(Datagram, AChildHasItToo) {
  Fd fd = bound();
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(send_to(fd, "echo child", peer()) == 10 && receive(fd).bytes == "echo child" ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ASSERT_GT(send_to(fd, "echo parent", peer()), 0);
  EXPECT_EQ(receive(fd).bytes, "echo parent");
}

TEST(Datagram, ManyThreads) {
  Fd fd = bound();
  constexpr int kThreads = 4, kEach = 200;
  std::atomic<int> received{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        if (send_to(fd, "echo t", peer()) != 6) return;
        if (receive(fd).bytes == "echo t") ++received;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(received, kThreads * kEach);
}

TEST(Datagram, BadPointers) {
  Fd fd = connected_to_peer();
  EXPECT_FAILS(EFAULT, send(fd, nullptr, 5, 0));
  EXPECT_TRUE(send_all(fd, "echo ok"));
  EXPECT_EQ(receive(fd).bytes, "echo ok");
}

}  // namespace api
