// Sockets of AF_INET6 that carry IPv4 (RFC 3493, 3.7; ipv6(7)), and IPv6 beside it.
#include <fcntl.h>
#include <linux/errqueue.h>
#include <sys/epoll.h>

#include <algorithm>
#include <thread>

#include "tests/api/support.h"

namespace api {
namespace {

struct Address6 {
  Address6() { in6.sin6_family = AF_INET6; }
  Address6(const std::string& ip, uint16_t port) : Address6() {
    EXPECT_EQ(inet_pton(AF_INET6, ip.c_str(), &in6.sin6_addr), 1) << ip;
    in6.sin6_port = htons(port);
  }
  /// ::ffff:192.0.2.1
  explicit Address6(const Address& of) : Address6("::ffff:" + of.ip(), of.port()) {}
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&in6); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&in6); }
  uint16_t port() const { return ntohs(in6.sin6_port); }
  std::string ip() const {
    char text[INET6_ADDRSTRLEN];
    return inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
  }
  static constexpr socklen_t size = sizeof(sockaddr_in6);
  sockaddr_in6 in6{};
};

template <typename Call>
Address6 ask(Call&& call, int fd) {
  Address6 name;
  socklen_t length = Address6::size;
  EXPECT_EQ(call(fd, name.get(), &length), 0) << strerror(errno);
  EXPECT_EQ(length, Address6::size);
  EXPECT_EQ(name.in6.sin6_family, AF_INET6);
  return name;
}
Address6 name6_of(int fd) { return ask(getsockname, fd); }
Address6 peer6_of(int fd) { return ask(getpeername, fd); }

Fd tcp6(int flags = 0) {
  Fd fd(socket(AF_INET6, SOCK_STREAM | flags, 0));
  EXPECT_GE(fd, 0) << strerror(errno);
  return fd;
}

Fd listening6(const std::string& ip, bool v6_only = false) {
  Fd listener = tcp6();
  EXPECT_EQ(set_option(listener, IPPROTO_IPV6, IPV6_V6ONLY, int{v6_only}), 0);
  Address6 address(ip, 0);
  EXPECT_EQ(bind(listener, address.get(), Address6::size), 0) << ip << ": " << strerror(errno);
  EXPECT_EQ(listen(listener, 64), 0) << strerror(errno);
  return listener;
}

void expect_accepted(int listener, int client, const std::string& peer) {
  Address6 from;
  socklen_t length = Address6::size;
  Fd far(accept(listener, from.get(), &length));
  ASSERT_GE(far, 0) << strerror(errno);
  EXPECT_EQ(length, Address6::size);
  EXPECT_EQ(from.ip(), peer);
  EXPECT_EQ(peer6_of(far).ip(), peer);
  EXPECT_EQ(name6_of(far).port(), name6_of(listener).port());
  ASSERT_TRUE(send_all(client, "there"));
  EXPECT_EQ(read_all(far, 5), "there");
  ASSERT_TRUE(send_all(far, "and back"));
  EXPECT_EQ(read_all(client, 8), "and back");
}

template <typename To>
Fd connected_to(Fd fd, To to) {
  EXPECT_EQ(connect(fd, to.get(), To::size), 0) << to.ip() << ": " << strerror(errno);
  return fd;
}

TEST(DualStack, ConnectsToAMappedAddress) {
  Fd fd = tcp6();
  EXPECT_EQ(name6_of(fd).ip(), "::");
  fd = connected_to(std::move(fd), Address6(peer()));
  EXPECT_EQ(peer6_of(fd).ip(), "::ffff:" + peer().ip());
  EXPECT_EQ(name6_of(fd).ip(), "::ffff:" + local().ip());
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET6);
  ASSERT_TRUE(send_all(fd, "echo\n"));
  EXPECT_TRUE(echoes(fd, "hello"));
}

TEST(DualStack, ConnectsWithoutBlocking) {
  Fd fd = tcp6(SOCK_NONBLOCK);
  Address6 to(peer());
  EXPECT_FAILS(EINPROGRESS, connect(fd, to.get(), Address6::size));
  EXPECT_EQ(poll_one(fd, POLLOUT), POLLOUT);
  EXPECT_EQ(pending_error(fd), 0);
  EXPECT_EQ(peer6_of(fd).ip(), to.ip());
}

TEST(DualStack, IsRefusedWhereNobodyListens) {
  Fd fd = tcp6();
  Address6 to(nobody());
  EXPECT_FAILS(ECONNREFUSED, connect(fd, to.get(), Address6::size));
}

TEST(DualStack, BindsAMappedAddress) {
  Fd fd = tcp6();
  Address6 own(local());
  ASSERT_WORKS(bind(fd, own.get(), Address6::size));
  EXPECT_EQ(name6_of(fd).ip(), own.ip());
  EXPECT_NE(name6_of(fd).port(), 0);
  const uint16_t port = name6_of(fd).port();
  fd = connected_to(std::move(fd), Address6(peer()));
  EXPECT_EQ(name6_of(fd).port(), port);
}

TEST(DualStack, OfAnAddressOfAnotherFamily) {
  Fd fd = tcp6();
  Address ipv4 = local();
  EXPECT_FAILS(EINVAL, bind(fd, ipv4.get(), Address::size));
  EXPECT_FAILS(EINVAL, connect(fd, ipv4.get(), Address::size));
  sockaddr_storage wrong{};
  std::memcpy(&wrong, ipv4.get(), Address::size);
  EXPECT_FAILS(EAFNOSUPPORT, bind(fd, reinterpret_cast<sockaddr*>(&wrong), Address6::size));
  EXPECT_FAILS(EAFNOSUPPORT, connect(fd, reinterpret_cast<sockaddr*>(&wrong), Address6::size));
  // Without the scope an address is long enough.
  Address6 own(local());
  EXPECT_FAILS(EINVAL, bind(fd, own.get(), 23));
  EXPECT_WORKS(bind(fd, own.get(), 24));
  Fd v4 = tcp();
  EXPECT_FAILS(EAFNOSUPPORT, connect(v4, own.get(), Address6::size));
}

TEST(DualStack, OfIpv6AloneHasNoMappedAddresses) {
  Fd fd = tcp6();
  ASSERT_EQ(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1), 0);
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_V6ONLY), 1);
  Address6 own(local()), to(peer());
  EXPECT_FAILS(EINVAL, bind(fd, own.get(), Address6::size));
  EXPECT_FAILS(ENETUNREACH, connect(fd, to.get(), Address6::size));
}

TEST(DualStack, V6OnlyIsDecidedBeforeBind) {
  Fd fd = tcp6();
  Address6 any("::", 0);
  ASSERT_WORKS(bind(fd, any.get(), Address6::size));
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
}

TEST(DualStackListener, IsReachedByEveryFamily) {
  Fd listener = listening6("::");
  const Address6 name = name6_of(listener);
  EXPECT_EQ(name.ip(), "::");
  for (int i = 0; i < 3; ++i) {
    expect_accepted(listener, connected_to(tcp(), Address("127.0.0.1", name.port())), "::ffff:127.0.0.1");
    expect_accepted(listener, connected_to(tcp(), local(name.port())), "::ffff:" + local().ip());
    expect_accepted(listener, connected_to(tcp6(), Address6("::1", name.port())), "::1");
    expect_accepted(listener, connected_to(tcp6(), Address6(local(name.port()))), "::ffff:" + local().ip());
    expect_accepted(listener, connected_to(tcp6(), Address6("::ffff:127.0.0.1", name.port())),
                    "::ffff:127.0.0.1");
  }
}

TEST(DualStackListener, TellsEpollOfEveryFamily) {
  for (uint32_t flags : {0u, static_cast<uint32_t>(EPOLLET), static_cast<uint32_t>(EPOLLEXCLUSIVE)}) {
    Fd listener = listening6("::"), set(epoll_create1(0));
    ASSERT_TRUE(set_nonblocking(listener));
    const uint16_t port = name6_of(listener).port();
    epoll_event event{.events = EPOLLIN | flags, .data = {.u32 = 7}};
    ASSERT_WORKS(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event));
    for (int i = 0; i < 6; ++i) {
      Fd client = i % 3 == 0   ? connected_to(tcp(), Address("127.0.0.1", port))
                  : i % 3 == 1 ? connected_to(tcp(), local(port))
                               : connected_to(tcp6(), Address6("::1", port));
      event = {};
      EXPECT_EQ(epoll_wait(set, &event, 1, 5000), 1) << i << " with " << flags;
      EXPECT_EQ(event.data.u32, 7u);
      Fd far(accept(listener, nullptr, nullptr));
      EXPECT_GE(far, 0);
      EXPECT_FAILS(EAGAIN, accept(listener, nullptr, nullptr));
    }
  }
}

TEST(DualStackListener, WaitsForEveryFamilyInAcceptAndPoll) {
  Fd listener = listening6("::");
  const uint16_t port = name6_of(listener).port();
  for (int i = 0; i < 4; ++i) {
    std::thread later([&] {
      usleep(30'000);
      if (i % 2 == 0)
        connected_to(tcp6(), Address6("::1", port));
      else
        connected_to(tcp(), local(port));
    });
    if (i >= 2) {
      EXPECT_EQ(poll_one(listener, POLLIN), POLLIN);
    }
    EXPECT_GE(Fd(accept(listener, nullptr, nullptr)), 0);
    later.join();
  }
}

TEST(DualStackListener, WithoutBindGetsAPort) {
  Fd listener = tcp6();
  ASSERT_EQ(set_option(listener, IPPROTO_IPV6, IPV6_V6ONLY, 0), 0);
  ASSERT_WORKS(listen(listener, 4));
  EXPECT_NE(name6_of(listener).port(), 0);
  expect_accepted(listener, connected_to(tcp(), local(name6_of(listener).port())), "::ffff:" + local().ip());
}

TEST(DualStackListener, OnAMappedAddress) {
  Fd listener = listening6("::ffff:" + local().ip());
  expect_accepted(listener, connected_to(tcp(), local(name6_of(listener).port())), "::ffff:" + local().ip());
}

TEST(DualStackListener, OnTheMappedWildcardIsOfIpv4) {
  Fd listener = listening6("::ffff:0.0.0.0");
  const uint16_t port = name6_of(listener).port();
  EXPECT_EQ(name6_of(listener).ip(), "::ffff:0.0.0.0");
  expect_accepted(listener, connected_to(tcp(), local(port)), "::ffff:" + local().ip());
  expect_accepted(listener, connected_to(tcp(), Address("127.0.0.1", port)), "::ffff:127.0.0.1");
  Fd fd = tcp6();
  Address6 to("::1", port);
  EXPECT_FAILS(ECONNREFUSED, connect(fd, to.get(), Address6::size));
}

TEST(DualStackListener, OnIpv6sLoopback) {
  Fd listener = listening6("::1");
  EXPECT_EQ(name6_of(listener).ip(), "::1");
  expect_accepted(listener, connected_to(tcp6(), Address6("::1", name6_of(listener).port())), "::1");
}

TEST(DualStackListener, OfIpv6AloneLeavesThePortToIpv4) {
  Fd listener, ipv4;
  uint16_t port = 0;
  // A connection of before, or another program of the host, may have the port that it got.
  for (int result = -1, attempt = 0; result != 0 && attempt < 5; ++attempt) {
    listener = listening6("::", true);
    port = name6_of(listener).port();
    ipv4 = tcp();
    ASSERT_WORKS(set_option(ipv4, SOL_SOCKET, SO_REUSEADDR, 1));
    result = bind(ipv4, Address("0.0.0.0", port).get(), Address::size);
  }
  ASSERT_WORKS(listen(ipv4, 4));
  expect_accepted(listener, connected_to(tcp6(), Address6("::1", port)), "::1");
  Fd client = connected_to(tcp(), local(port));
  EXPECT_GE(Fd(accept(ipv4, nullptr, nullptr)), 0);
}

TEST(DualStackListener, TakesThePortOfIpv4Too) {
  Fd listener = listening6("::");
  Fd ipv4 = tcp();
  Address any("0.0.0.0", name6_of(listener).port());
  EXPECT_FAILS(EADDRINUSE, bind(ipv4, any.get(), Address::size));
}

TEST(ForkedListener, OfEveryFamilyServesInAChild) {
  Fd listener = listening6("::");
  const uint16_t port = name6_of(listener).port();
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    for (int i = 0; i < 9; ++i) {
      Fd far(accept(listener, nullptr, nullptr));
      if (far < 0 || !send_all(far, peer6_of(far).ip())) _exit(1);
    }
    _exit(0);
  }
  listener.reset();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(read_all(connected_to(tcp6(), Address6("::1", port))), "::1");
    EXPECT_EQ(read_all(connected_to(tcp(), local(port))), "::ffff:" + local().ip());
    EXPECT_EQ(read_all(connected_to(tcp(), Address("127.0.0.1", port))), "::ffff:127.0.0.1");
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  Fd fd = tcp6();
  Address6 to("::1", port);
  EXPECT_FAILS(ECONNREFUSED, connect(fd, to.get(), Address6::size));
}

TEST(DualStackListener, EndsWhenItIsShutDown) {
  Fd listener = listening6("::");
  const uint16_t port = name6_of(listener).port();
  ASSERT_WORKS(shutdown(listener, SHUT_RD));
  Fd fd = tcp6(), ipv4 = tcp();
  Address6 to("::1", port);
  EXPECT_FAILS(ECONNREFUSED, connect(fd, to.get(), Address6::size));
  Address own = local(port);
  EXPECT_FAILS(ECONNREFUSED, connect(ipv4, own.get(), Address::size));
}

TEST(DualStackIpv6, IsTheMachines) {
  Fd listener = listening6("::1");
  Fd fd = tcp6();
  // What was set before it is known whose it will be stays set.
  ASSERT_EQ(set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1), 0);
  ASSERT_EQ(set_option(fd, IPPROTO_IPV6, IPV6_TCLASS, 0x20), 0);
  ASSERT_EQ(set_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9), 0);
  fd = connected_to(std::move(fd), name6_of(listener));
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_TCLASS), 0x20);
  EXPECT_EQ(get_option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 9);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET6);
  expect_accepted(listener, fd, "::1");
}

TEST(DualStackIpv6, FromABoundPort) {
  Fd listener = listening6("::1");
  Fd fd = tcp6();
  Address6 any("::", 0);
  ASSERT_WORKS(bind(fd, any.get(), Address6::size));
  const uint16_t port = name6_of(fd).port();
  EXPECT_NE(port, 0);
  fd = connected_to(std::move(fd), name6_of(listener));
  EXPECT_EQ(name6_of(fd).port(), port);
}

TEST(DualStackIpv6, IsNotSpokenFromAnIpv4Address) {
  Fd fd = tcp6();
  Address6 own(local()), to("::1", 9);
  ASSERT_WORKS(bind(fd, own.get(), Address6::size));
  EXPECT_FAILS(EAFNOSUPPORT, connect(fd, to.get(), Address6::size));
}

/// Options and their initial values, what is taken and what isn't.
struct Option6 {
  int name;
  std::vector<int> values;
};
const Option6 kOptions6[] = {
    {IPV6_V6ONLY, {0, 1, 2, -1}},
    {IPV6_UNICAST_HOPS, {-1, 0, 1, 255, 256, -2}},
    {IPV6_TCLASS, {-1, 0, 0x10, 0x50, 255, 256, -2}},
    {IPV6_MTU_DISCOVER, {0, 1, 2, 3, 4, 5, 6, -1}},
    {IPV6_MINHOPCOUNT, {0, 7, 255, 256, -1}},
    {IPV6_MULTICAST_LOOP, {0, 1, 2}},
    {IPV6_MULTICAST_ALL, {0, 1, 2}},
    {31 /* IPV6_RECVERR_RFC4884 */, {0, 1, 2}},
    {IPV6_RECVERR, {0, 1, 5}},
    {IPV6_DONTFRAG, {0, 1, 5}},
    {IPV6_AUTOFLOWLABEL, {0, 1, 5}},
    {33 /* IPV6_FLOWINFO_SEND */, {0, 1, 5}},
    {IPV6_FREEBIND, {0, 1, 5}},
    {IPV6_RECVPKTINFO, {0, 1, 5}},
    {IPV6_RECVHOPLIMIT, {0, 1, 5}},
    {IPV6_RECVTCLASS, {0, 1, 5}},
    {IPV6_RECVRTHDR, {0, 1, 5}},
    {IPV6_RECVHOPOPTS, {0, 1, 5}},
    {IPV6_RECVDSTOPTS, {0, 1, 5}},
    {IPV6_RECVPATHMTU, {0, 1, 5}},
    {IPV6_RECVORIGDSTADDR, {0, 1, 5}},
    {IPV6_RECVFRAGSIZE, {0, 1, 5}},
    {IPV6_2292PKTINFO, {0, 1, 5}},
};

/// What the kernel makes of it: by a socket that is its own in any case, for under the library it can't know
/// of the other.
class KernelsSocket {
 public:
  KernelsSocket() : fd_(tcp6()) {
    Address6 loopback("::1", 0);
    EXPECT_EQ(bind(fd_, loopback.get(), Address6::size), 0);
  }
  operator int() const { return fd_; }  // NOLINT: implicit

 private:
  Fd fd_;
};

std::string outcome(int result, int value) {
  return result == 0 ? "value " + std::to_string(value) : strerror(errno);
}
std::string set_and_get(int fd, int name, int value) {
  errno = 0;
  const int set = setsockopt(fd, IPPROTO_IPV6, name, &value, sizeof value);
  std::string said = set == 0 ? "taken, " : std::string(strerror(errno)) + ", ";
  int got = -77;
  socklen_t length = sizeof got;
  const int result = getsockopt(fd, IPPROTO_IPV6, name, &got, &length);
  return said + outcome(result, got) + ", " + std::to_string(length) + " bytes";
}

TEST(DualStackOptions, AreTakenAndToldAsByTheKernel) {
  for (const Option6& option : kOptions6) {
    Fd ours = tcp6();
    KernelsSocket kernels;
    auto initial = [&](int fd) {
      int value = -77;
      socklen_t length = sizeof value;
      const int result = getsockopt(fd, IPPROTO_IPV6, option.name, &value, &length);
      return outcome(result, value);
    };
    if (option.name == IPV6_V6ONLY) continue;  // decided by the bind
    EXPECT_EQ(initial(ours), initial(kernels)) << option.name;
    for (int value : option.values)
      EXPECT_EQ(set_and_get(ours, option.name, value), set_and_get(kernels, option.name, value))
          << option.name << " = " << value;
    char small = 1;
    errno = 0;
    const int mine = setsockopt(ours, IPPROTO_IPV6, option.name, &small, 1);
    const std::string said = outcome(mine, 0);
    errno = 0;
    EXPECT_EQ(said, outcome(setsockopt(kernels, IPPROTO_IPV6, option.name, &small, 1), 0)) << option.name;
  }
}

TEST(DualStackOptions, OfAConnectionAreRemembered) {
  Fd fd = connected_to(tcp6(), Address6(peer()));
  EXPECT_EQ(set_and_get(fd, IPV6_TCLASS, 0x28), "taken, value 40, 4 bytes");
  EXPECT_EQ(set_and_get(fd, IPV6_UNICAST_HOPS, 17), "taken, value 17, 4 bytes");
  EXPECT_EQ(set_and_get(fd, IPV6_V6ONLY, 1), "Invalid argument, value 0, 4 bytes");
  int mtu;
  socklen_t length = sizeof mtu;
  EXPECT_FAILS(ENOTCONN, getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &length));
  // IPv4's are the connection's.
  ASSERT_EQ(set_option(fd, IPPROTO_IP, IP_TOS, 0x10), 0);
  EXPECT_EQ(get_option(fd, IPPROTO_IP, IP_TOS), 0x10);
  EXPECT_GT(get_option(fd, IPPROTO_TCP, TCP_MAXSEG), 500);
}

TEST(DualStackOptions, OfAListenerAreItsConnections) {
  Fd listener = listening6("::");
  ASSERT_EQ(set_option(listener, IPPROTO_IPV6, IPV6_RECVTCLASS, 1), 0);
  Fd client = connected_to(tcp(), local(name6_of(listener).port()));
  Fd far(accept(listener, nullptr, nullptr));
  EXPECT_EQ(get_option(far, SOL_SOCKET, SO_DOMAIN), AF_INET6);
  EXPECT_EQ(get_option(far, IPPROTO_IPV6, IPV6_RECVTCLASS), 1);
}

TEST(DualStackOptions, ZeroCopyIsToldAsIpv6Does) {
  Fd fd = connected_to(tcp6(), Address6(peer()));
  ASSERT_EQ(set_option(fd, SOL_SOCKET, SO_ZEROCOPY, 1), 0);
  ASSERT_EQ(send(fd, "x", 1, MSG_ZEROCOPY), 1);
  EXPECT_EQ(poll_one(fd, 0), POLLERR);
  alignas(cmsghdr) char control[200];
  msghdr message{};
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ASSERT_EQ(recvmsg(fd, &message, MSG_ERRQUEUE), 0) << strerror(errno);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  ASSERT_NE(header, nullptr);
  EXPECT_EQ(header->cmsg_level, IPPROTO_IPV6);
  EXPECT_EQ(header->cmsg_type, IPV6_RECVERR);
  EXPECT_EQ(header->cmsg_len, CMSG_LEN(sizeof(sock_extended_err) + sizeof(sockaddr_in6)));
  auto* told = reinterpret_cast<sock_extended_err*>(CMSG_DATA(header));
  EXPECT_EQ(told->ee_origin, SO_EE_ORIGIN_ZEROCOPY);
}

TEST(DualStack, MovesABulkBothWays) {
  Fd listener = listening6("::");
  Fd near = connected_to(tcp6(), Address6(local(name6_of(listener).port())));
  Fd far(accept(listener, nullptr, nullptr));
  const std::string bytes = pattern(3'000'000);
  std::thread sender([&] {
    EXPECT_TRUE(send_all(near, bytes));
    shutdown(near, SHUT_WR);
  });
  EXPECT_TRUE(read_all(far) == bytes);
  sender.join();
}

// --- datagrams; under the library with USTACK_UDP=stack

Fd udp6() {
  Fd fd(socket(AF_INET6, SOCK_DGRAM, 0));
  EXPECT_GE(fd, 0) << strerror(errno);
  EXPECT_EQ(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0), 0);
  set_timeout(fd, SO_RCVTIMEO, milliseconds(3000));
  return fd;
}

TEST(DualStackDatagram, AsksAndIsAnswered) {
  Fd fd = udp6();
  Address6 to(peer());
  ASSERT_EQ(sendto(fd, "echo one", 8, 0, to.get(), Address6::size), 8) << strerror(errno);
  char text[100];
  Address6 from;
  socklen_t length = Address6::size;
  ASSERT_EQ(recvfrom(fd, text, sizeof text, 0, from.get(), &length), 8) << strerror(errno);
  EXPECT_EQ(std::string(text, 8), "echo one");
  EXPECT_EQ(length, Address6::size);
  EXPECT_EQ(from.ip(), "::ffff:" + peer().ip());
  EXPECT_EQ(from.port(), peer().port());
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET6);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
}

TEST(DualStackDatagram, BoundToAll) {
  Fd fd = udp6();
  Address6 any("::", 0);
  ASSERT_WORKS(bind(fd, any.get(), Address6::size));
  EXPECT_EQ(name6_of(fd).ip(), "::");
  Fd other(socket(AF_INET, SOCK_DGRAM, 0));
  const std::string command = "to " + std::to_string(name6_of(fd).port()) + " hello";
  ASSERT_GT(sendto(other, command.data(), command.size(), 0, peer().get(), Address::size), 0);
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
  char text[100];
  alignas(cmsghdr) char control[200];
  iovec part{text, sizeof text};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  // The first may have come before it was asked for.
  ASSERT_EQ(recvmsg(fd, &message, 0), 5) << strerror(errno);
  ASSERT_GT(sendto(other, command.data(), command.size(), 0, peer().get(), Address::size), 0);
  message.msg_controllen = sizeof control;
  ASSERT_EQ(recvmsg(fd, &message, 0), 5) << strerror(errno);
  cmsghdr* told = CMSG_FIRSTHDR(&message);
  ASSERT_NE(told, nullptr);
  EXPECT_EQ(told->cmsg_level, IPPROTO_IPV6);
  EXPECT_EQ(told->cmsg_type, IPV6_PKTINFO);
  in6_pktinfo info;
  std::memcpy(&info, CMSG_DATA(told), sizeof info);
  char ip[INET6_ADDRSTRLEN];
  EXPECT_EQ(inet_ntop(AF_INET6, &info.ipi6_addr, ip, sizeof ip), "::ffff:" + local().ip());
  // The answer goes from there.
  Address6 to(peer());
  message = {};
  part = {const_cast<char*>("echo x"), 6};
  message.msg_name = to.get();
  message.msg_namelen = Address6::size;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(sizeof info);
  EXPECT_EQ(sendmsg(fd, &message, 0), 6) << strerror(errno);
  EXPECT_EQ(recv(fd, text, sizeof text, 0), 6);
}

TEST(DualStackDatagram, Connected) {
  Fd fd = udp6();
  Address6 to(peer());
  ASSERT_WORKS(connect(fd, to.get(), Address6::size));
  EXPECT_EQ(peer6_of(fd).ip(), "::ffff:" + peer().ip());
  EXPECT_EQ(name6_of(fd).ip(), "::ffff:" + local().ip());
  EXPECT_TRUE(echoes(fd, "echo two"));
}

TEST(DualStackDatagram, DestinationsOfBothFamilies) {
  Fd fd = udp6();
  ASSERT_EQ(sendto(fd, "echo 4", 6, 0, peer().get(), Address::size), 6) << strerror(errno);
  char text[10];
  EXPECT_EQ(recv(fd, text, sizeof text, 0), 6);
  Address strange = peer();
  strange.in.sin_family = AF_UNIX;
  EXPECT_FAILS(EINVAL, sendto(fd, "x", 1, 0, strange.get(), Address::size));
}

TEST(DualStackDatagram, OfIpv6Only) {
  Fd fd = udp6();
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  Address6 mapped(peer());
  EXPECT_FAILS(ENETUNREACH, sendto(fd, "x", 1, 0, mapped.get(), Address6::size));
  fd = udp6();
  ASSERT_WORKS(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
  Address6 loopback("::1", 0);
  ASSERT_WORKS(bind(fd, loopback.get(), Address6::size));
  Address6 self = name6_of(fd);
  EXPECT_EQ(self.ip(), "::1");
  ASSERT_EQ(sendto(fd, "self", 4, 0, self.get(), Address6::size), 4) << strerror(errno);
  char text[10];
  EXPECT_EQ(recv(fd, text, sizeof text, 0), 4);
}

}  // namespace
}  // namespace api
