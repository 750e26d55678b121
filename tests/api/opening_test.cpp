// socket, bind, listen, accept, connect and the names of sockets.
#include <fcntl.h>

#include <thread>

#include "tests/api/support.h"

namespace api {
namespace {

TEST(Socket, FlagsAreTheDescriptors) {
  Fd plain = tcp();
  EXPECT_EQ(fcntl(plain, F_GETFL), O_RDWR);
  EXPECT_EQ(fcntl(plain, F_GETFD), 0);
  Fd both = tcp(SOCK_NONBLOCK | SOCK_CLOEXEC);
  EXPECT_EQ(fcntl(both, F_GETFL), O_RDWR | O_NONBLOCK);
  EXPECT_EQ(fcntl(both, F_GETFD), FD_CLOEXEC);
}

TEST(Socket, GetsTheLowestNumber) {
  Fd first = tcp();
  int number = first;
  Fd second = tcp();
  EXPECT_EQ(second, number + 1);
  first.reset();
  Fd third = tcp();
  EXPECT_EQ(third, number);
}

TEST(Socket, WhatItSaysOfItself) {
  Fd fd = tcp();
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_DOMAIN), family());
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
  EXPECT_EQ(pending_error(fd), 0);
}

TEST(Socket, WrongCombinations) {
  EXPECT_FAILS(EPROTONOSUPPORT, socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
  EXPECT_FAILS(EINVAL, socket(AF_INET, SOCK_STREAM | 0x400000, 0));
  EXPECT_FAILS(EAFNOSUPPORT, socket(200, SOCK_STREAM, 0));
}

TEST(Socket, OthersOfTheKernelWork) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  Fd a(pair[0]), b(pair[1]);
  EXPECT_EQ(write(a, "x", 1), 1);
  char c;
  EXPECT_EQ(read(b, &c, 1), 1);
  Fd udp(socket(AF_INET, SOCK_DGRAM, 0));
  EXPECT_GE(udp, 0);
}

TEST(Socket, OfTwoIsAClosedOneEbadf) {
  Fd fd = tcp();
  int number = fd;
  fd.reset();
  char c = 0;
  EXPECT_FAILS(EBADF, read(number, &c, 1));
  EXPECT_FAILS(EBADF, send(number, &c, 1, 0));
  EXPECT_FAILS(EBADF, listen(number, 1));
  EXPECT_FAILS(EBADF, connect(number, peer().get(), Address::size));
  EXPECT_FAILS(EBADF, fcntl(number, F_GETFL));
  EXPECT_FAILS(EBADF, close(number));
}

TEST(Bind, GivesAPort) {
  Fd fd = tcp();
  ASSERT_WORKS(bind(fd, local().get(), Address::size));
  Address name = name_of(fd);
  EXPECT_EQ(name.ip(), local().ip());
  EXPECT_NE(name.port(), 0);
}

TEST(Bind, ToTheWildcard) {
  Fd fd = tcp();
  Address any("0.0.0.0", 0);
  ASSERT_WORKS(bind(fd, any.get(), Address::size));
  EXPECT_EQ(name_of(fd).ip(), Address("0.0.0.0", 0).ip());
  EXPECT_NE(name_of(fd).port(), 0);
}

TEST(Bind, Errors) {
  Fd fd = tcp();
  Address foreign("203.0.113.77", 0);
  EXPECT_FAILS(EADDRNOTAVAIL, bind(fd, foreign.get(), Address::size));
  EXPECT_FAILS(EINVAL, bind(fd, local().get(), Address::size - 1));
  EXPECT_FAILS(EINVAL, bind(fd, local().get(), sizeof(sockaddr_storage) + 1));
  EXPECT_FAILS(EINVAL, bind(fd, local().get(), static_cast<socklen_t>(-1)));
  EXPECT_FAILS(EFAULT, bind(fd, nullptr, Address::size));
  Address wrong = local();
  wrong.in.sin_family = AF_INET6;
  EXPECT_FAILS(EAFNOSUPPORT, bind(fd, wrong.get(), Address::size));
  wrong.in.sin_family = AF_UNSPEC;
  EXPECT_FAILS(EAFNOSUPPORT, bind(fd, wrong.get(), Address::size));
  ASSERT_WORKS(bind(fd, local().get(), Address::size));
  EXPECT_FAILS(EINVAL, bind(fd, local().get(), Address::size));
}

TEST(Bind, UnspecifiedFamilyMeansTheWildcard) {
  Fd fd = tcp();
  Address any("0.0.0.0", 0);
  any.in.sin_family = AF_UNSPEC;
  EXPECT_WORKS(bind(fd, any.get(), Address::size));
}

TEST(Bind, APortInUse) {
  Fd first = listening();
  Address name = name_of(first);
  Fd second = tcp();
  EXPECT_FAILS(EADDRINUSE, bind(second, name.get(), Address::size));
  Address any("0.0.0.0", name.port());
  EXPECT_FAILS(EADDRINUSE, bind(second, any.get(), Address::size));
  first.reset();
  EXPECT_WORKS(bind(second, name.get(), Address::size));
}

TEST(Bind, ReuseAddressBesideAListenerIsRefused) {
  Fd first = tcp();
  set_option(first, SOL_SOCKET, SO_REUSEADDR, 1);
  ASSERT_WORKS(bind(first, local().get(), Address::size));
  Address name = name_of(first);
  Fd second = tcp();
  set_option(second, SOL_SOCKET, SO_REUSEADDR, 1);
  EXPECT_WORKS(bind(second, name.get(), Address::size));
  ASSERT_WORKS(listen(first, 1));
  EXPECT_FAILS(EADDRINUSE, listen(second, 1));
  Fd third = tcp();
  set_option(third, SOL_SOCKET, SO_REUSEADDR, 1);
  EXPECT_FAILS(EADDRINUSE, bind(third, name.get(), Address::size));
}

TEST(Listen, WithoutBindTakesAnyPort) {
  Fd fd = tcp();
  ASSERT_WORKS(listen(fd, 1));
  EXPECT_NE(name_of(fd).port(), 0);
  EXPECT_EQ(name_of(fd).ip(), Address("0.0.0.0", 0).ip());
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
}

TEST(Listen, AgainChangesTheBacklog) {
  Fd fd = listening(1);
  EXPECT_WORKS(listen(fd, 5));
  EXPECT_WORKS(listen(fd, 0));
  EXPECT_WORKS(listen(fd, -1));
}

TEST(Listen, NotOnAConnection) {
  Fd fd = connected("drain");
  EXPECT_FAILS(EINVAL, listen(fd, 1));
}

TEST(Listen, WhatAListenerCannot) {
  Fd fd = listening();
  char c = 0;
  EXPECT_FAILS(ENOTCONN, recv(fd, &c, 1, 0));
  EXPECT_FAILS(EPIPE, send(fd, &c, 1, MSG_NOSIGNAL));
  EXPECT_FAILS(EISCONN, connect(fd, peer().get(), Address::size));
  Address address;
  socklen_t length = Address::size;
  EXPECT_FAILS(ENOTCONN, getpeername(fd, address.get(), &length));
}

TEST(Accept, TellsWhoItIs) {
  Fd listener = listening();
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " drain");
  Address from;
  socklen_t length = Address::size;
  Fd fd(accept(listener, from.get(), &length));
  ASSERT_GE(fd, 0) << strerror(errno);
  EXPECT_EQ(length, Address::size);
  EXPECT_EQ(from.ip(), peer().ip());
  EXPECT_EQ(from.port(), peer_of(fd).port());
  EXPECT_EQ(name_of(fd).port(), name_of(listener).port());
  EXPECT_EQ(name_of(fd).ip(), local().ip());
}

TEST(Accept, FlagsAreItsOwn) {
  Incoming plain = incoming("drain");
  EXPECT_EQ(fcntl(plain.fd, F_GETFL), O_RDWR);
  EXPECT_EQ(fcntl(plain.fd, F_GETFD), 0);
  Incoming both = incoming("drain", SOCK_NONBLOCK | SOCK_CLOEXEC);
  EXPECT_EQ(fcntl(both.fd, F_GETFL), O_RDWR | O_NONBLOCK);
  EXPECT_EQ(fcntl(both.fd, F_GETFD), FD_CLOEXEC);
  EXPECT_FAILS(EINVAL, accept4(both.listener, nullptr, nullptr, 0x10));
}

TEST(Accept, InheritsNothingOfNonBlocking) {
  Fd listener = listening(16, SOCK_NONBLOCK);
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " drain");
  ASSERT_EQ(poll_one(listener, POLLIN), POLLIN);
  Fd fd(accept(listener, nullptr, nullptr));
  ASSERT_GE(fd, 0);
  EXPECT_EQ(fcntl(fd, F_GETFL), O_RDWR);
}

TEST(Accept, InheritsOptions) {
  Fd listener = tcp();
  set_option(listener, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(listener, SOL_SOCKET, SO_KEEPALIVE, 1);
  ASSERT_WORKS(bind(listener, local().get(), Address::size));
  ASSERT_WORKS(listen(listener, 1));
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " drain");
  Fd fd(accept(listener, nullptr, nullptr));
  ASSERT_GE(fd, 0);
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
}

TEST(Accept, TruncatesTheAddress) {
  Fd listener = listening();
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " drain");
  unsigned char small[Address::size];
  memset(small, 0xee, sizeof small);
  socklen_t length = 2;
  Fd fd(accept(listener, reinterpret_cast<sockaddr*>(small), &length));
  ASSERT_GE(fd, 0);
  EXPECT_EQ(length, Address::size);
  EXPECT_EQ(small[0], family());
  EXPECT_EQ(small[2], 0xee);
}

TEST(Accept, Errors) {
  Fd fd = tcp();
  EXPECT_FAILS(EINVAL, accept(fd, nullptr, nullptr));
  Fd connection = connected("drain");
  EXPECT_FAILS(EINVAL, accept(connection, nullptr, nullptr));
  Fd listener = listening(1, SOCK_NONBLOCK);
  EXPECT_FAILS(EAGAIN, accept(listener, nullptr, nullptr));
}

TEST(Accept, TimesOut) {
  Fd listener = listening();
  set_timeout(listener, SO_RCVTIMEO, milliseconds(100));
  Stopwatch watch;
  EXPECT_FAILS(EAGAIN, accept(listener, nullptr, nullptr));
  EXPECT_GE(watch.elapsed(), milliseconds(90));
  EXPECT_LT(watch.elapsed(), milliseconds(2000));
}

TEST(Accept, WaitsForAConnection) {
  Fd listener = listening();
  Fd control = connected("sleep 100 call " + std::to_string(name_of(listener).port()) + " say hello");
  Fd fd(accept(listener, nullptr, nullptr));
  ASSERT_GE(fd, 0);
  EXPECT_EQ(read_all(fd), "hello");
}

TEST(Accept, ManyInTheirOrder) {
  Fd listener = listening();
  Fd control = connected("dial 5 " + std::to_string(name_of(listener).port()) + " drain");
  std::vector<Fd> connections;
  for (int i = 0; i < 5; ++i) {
    connections.emplace_back(accept(listener, nullptr, nullptr));
    ASSERT_GE(connections.back(), 0);
  }
  set_nonblocking(listener);
  EXPECT_FAILS(EAGAIN, accept(listener, nullptr, nullptr));
}

TEST(Accept, WithoutAFreeNumberKeepsTheConnection) {
  Fd listener = listening(16, SOCK_NONBLOCK);
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " say kept");
  ASSERT_EQ(poll_one(listener, POLLIN), POLLIN);
  std::vector<Fd> fillers;
  for (;;) {
    int fd = dup(0);
    if (fd < 0) break;
    fillers.emplace_back(fd);
    ASSERT_LT(fillers.size(), 2'000'000U);
  }
  EXPECT_FAILS(EMFILE, accept(listener, nullptr, nullptr));
  fillers.clear();
  Fd fd(accept(listener, nullptr, nullptr));
  ASSERT_GE(fd, 0) << strerror(errno);
  set_nonblocking(fd, false);
  EXPECT_EQ(read_all(fd), "kept");
}

TEST(Connect, ToTheEndAndBack) {
  Fd fd = tcp();
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  EXPECT_EQ(peer_of(fd).ip(), peer().ip());
  EXPECT_EQ(peer_of(fd).port(), peer().port());
  EXPECT_EQ(name_of(fd).ip(), local().ip());
  EXPECT_NE(name_of(fd).port(), 0);
  EXPECT_FAILS(EISCONN, connect(fd, peer().get(), Address::size));
}

TEST(Connect, Errors) {
  Fd fd = tcp();
  EXPECT_FAILS(EINVAL, connect(fd, peer().get(), 1));
  EXPECT_FAILS(EINVAL, connect(fd, peer().get(), Address::size - 1));
  EXPECT_FAILS(EINVAL, connect(fd, peer().get(), static_cast<socklen_t>(-1)));
  EXPECT_FAILS(EFAULT, connect(fd, nullptr, Address::size));
  Address wrong = peer();
  wrong.in.sin_family = AF_INET6;
  EXPECT_FAILS(EAFNOSUPPORT, connect(fd, wrong.get(), Address::size));
  // None of it has spoilt the socket.
  EXPECT_WORKS(connect(fd, peer().get(), Address::size));
  EXPECT_FAILS(EISCONN, connect(fd, wrong.get(), Address::size));
}

TEST(Connect, Refused) {
  Fd fd = tcp();
  EXPECT_FAILS(ECONNREFUSED, connect(fd, nobody().get(), Address::size));
  EXPECT_EQ(pending_error(fd), 0) << "it was told already";
  EXPECT_WORKS(connect(fd, peer().get(), Address::size));
}

TEST(Connect, NonBlocking) {
  Fd fd = tcp(SOCK_NONBLOCK);
  EXPECT_FAILS(EINPROGRESS, connect(fd, peer().get(), Address::size));
  EXPECT_EQ(poll_one(fd, POLLOUT) & (POLLOUT | POLLERR | POLLHUP), POLLOUT);
  EXPECT_EQ(pending_error(fd), 0);
  EXPECT_WORKS(connect(fd, peer().get(), Address::size));
  EXPECT_FAILS(EISCONN, connect(fd, peer().get(), Address::size));
}

TEST(Connect, NonBlockingRefused) {
  Fd fd = tcp(SOCK_NONBLOCK);
  EXPECT_FAILS(EINPROGRESS, connect(fd, nobody().get(), Address::size));
  EXPECT_EQ(poll_one(fd, POLLOUT | POLLIN), POLLOUT | POLLIN | POLLERR | POLLHUP);
  EXPECT_EQ(pending_error(fd), ECONNREFUSED);
  EXPECT_EQ(pending_error(fd), 0);
}

TEST(Connect, NonBlockingRefusedIsToldByTheNextConnect) {
  Fd fd = tcp(SOCK_NONBLOCK);
  EXPECT_FAILS(EINPROGRESS, connect(fd, nobody().get(), Address::size));
  ASSERT_NE(poll_one(fd, POLLOUT), 0);
  EXPECT_FAILS(ECONNREFUSED, connect(fd, nobody().get(), Address::size));
  EXPECT_FAILS(EINPROGRESS, connect(fd, peer().get(), Address::size));
  EXPECT_EQ(poll_one(fd, POLLOUT), POLLOUT);
}

TEST(Connect, UnderWay) {
  Fd fd = tcp(SOCK_NONBLOCK);
  EXPECT_FAILS(EINPROGRESS, connect(fd, silent().get(), Address::size));
  EXPECT_FAILS(EALREADY, connect(fd, silent().get(), Address::size));
  char c = 0;
  EXPECT_FAILS(EAGAIN, send(fd, &c, 1, MSG_NOSIGNAL));
  EXPECT_FAILS(EAGAIN, recv(fd, &c, 1, 0));
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT, 0), 0);
  Address address;
  socklen_t length = Address::size;
  EXPECT_FAILS(ENOTCONN, getpeername(fd, address.get(), &length));
  EXPECT_EQ(name_of(fd).ip(), local().ip());
}

TEST(Connect, TimesOut) {
  Fd fd = tcp();
  set_timeout(fd, SO_SNDTIMEO, milliseconds(100));
  Stopwatch watch;
  EXPECT_FAILS(EINPROGRESS, connect(fd, silent().get(), Address::size));
  EXPECT_GE(watch.elapsed(), milliseconds(90));
  EXPECT_LT(watch.elapsed(), milliseconds(2000));
  EXPECT_FAILS(EALREADY, connect(fd, silent().get(), Address::size));
}

TEST(Connect, NoSuchHost) {
  Fd fd = tcp();
  EXPECT_FAILS(EHOSTUNREACH, connect(fd, silent().get(), Address::size));
}

TEST(Connect, InterruptedGoesOn) {
  Handler handler(SIGUSR1, 0);
  Fd fd = tcp();
  pthread_t self = pthread_self();
  Later later(milliseconds(150), [self] { pthread_kill(self, SIGUSR1); });
  EXPECT_FAILS(EINTR, connect(fd, silent().get(), Address::size));
  EXPECT_EQ(handler.count(), 1);
  set_nonblocking(fd);
  EXPECT_FAILS(EALREADY, connect(fd, silent().get(), Address::size));
}

TEST(Connect, UnspecifiedFamilyDissolves) {
  Fd fd = connected("drain");
  Address none;
  none.in.sin_family = AF_UNSPEC;
  EXPECT_WORKS(connect(fd, none.get(), Address::size));
  Address address;
  socklen_t length = Address::size;
  EXPECT_FAILS(ENOTCONN, getpeername(fd, address.get(), &length));
  EXPECT_WORKS(connect(fd, peer().get(), Address::size));
  ASSERT_TRUE(send_all(fd, "say again\n"));
  EXPECT_EQ(read_all(fd), "again");
}

TEST(Connect, FromABoundPort) {
  Fd fd = tcp();
  ASSERT_WORKS(bind(fd, local().get(), Address::size));
  uint16_t port = name_of(fd).port();
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  EXPECT_EQ(name_of(fd).port(), port);
}

TEST(Names, TruncationAndErrors) {
  Fd fd = connected("drain");
  unsigned char small[Address::size];
  for (auto call : {getsockname, getpeername}) {
    memset(small, 0xee, sizeof small);
    socklen_t length = 4;
    EXPECT_WORKS(call(fd, reinterpret_cast<sockaddr*>(small), &length));
    EXPECT_EQ(length, Address::size);
    EXPECT_EQ(small[4], 0xee);
    sockaddr_storage large;
    length = sizeof large;
    EXPECT_WORKS(call(fd, reinterpret_cast<sockaddr*>(&large), &length));
    EXPECT_EQ(length, Address::size);
    length = static_cast<socklen_t>(-1);
    EXPECT_FAILS(EINVAL, call(fd, reinterpret_cast<sockaddr*>(&large), &length));
    EXPECT_FAILS(EFAULT, call(fd, reinterpret_cast<sockaddr*>(&large), nullptr));
    length = Address::size;
    EXPECT_FAILS(EFAULT, call(fd, nullptr, &length));
  }
}

TEST(Names, OfAFreshSocket) {
  Fd fd = tcp();
  EXPECT_EQ(name_of(fd).ip(), Address("0.0.0.0", 0).ip());
  EXPECT_EQ(name_of(fd).port(), 0);
  Address address;
  socklen_t length = Address::size;
  EXPECT_FAILS(ENOTCONN, getpeername(fd, address.get(), &length));
}

TEST(Loopback, IsTheMachines) {
  // A server of the kernel's on the loopback is reached through any socket, with what was set on it before.
  Fd server(socket(AF_INET, SOCK_STREAM, 0));
  Address address("127.0.0.1", 0);
  ASSERT_WORKS(bind(server, address.get(), Address::size));
  ASSERT_WORKS(listen(server, 4));
  address = name_of(server);
  EXPECT_EQ(address.ip(), Address("127.0.0.1", 0).ip());

  Fd client = tcp();
  set_option(client, IPPROTO_TCP, TCP_NODELAY, 1);
  Fd duplicate(dup(client));
  ASSERT_WORKS(connect(client, address.get(), Address::size));
  EXPECT_EQ(get_option(client, IPPROTO_TCP, TCP_NODELAY), 1);
  Fd accepted(accept(server, nullptr, nullptr));
  ASSERT_GE(accepted, 0);
  ASSERT_EQ(write(duplicate, "hi", 2), 2) << strerror(errno);
  EXPECT_EQ(read_all(accepted, 2), "hi");
  EXPECT_EQ(peer_of(duplicate).port(), address.port());
}

TEST(Loopback, AWildcardListenerIsReachedFromBothSides) {
  Fd listener = tcp(SOCK_NONBLOCK);
  Address any("0.0.0.0", 0);
  ASSERT_WORKS(bind(listener, any.get(), Address::size));
  ASSERT_WORKS(listen(listener, 4));
  uint16_t port = name_of(listener).port();

  Fd near = tcp();
  Address loopback("127.0.0.1", port);
  ASSERT_WORKS(connect(near, loopback.get(), Address::size));
  ASSERT_EQ(poll_one(listener, POLLIN), POLLIN);
  Address from;
  socklen_t length = Address::size;
  Fd first(accept(listener, from.get(), &length));
  ASSERT_GE(first, 0) << strerror(errno);
  EXPECT_EQ(from.ip(), Address("127.0.0.1", 0).ip());
  EXPECT_EQ(poll_one(listener, POLLIN, 0), 0);

  Fd control = connected("call " + std::to_string(port) + " say far");
  ASSERT_EQ(poll_one(listener, POLLIN), POLLIN);
  Fd second(accept(listener, from.get(), &length));
  ASSERT_GE(second, 0) << strerror(errno);
  EXPECT_EQ(from.ip(), peer().ip());
  EXPECT_EQ(read_all(second), "far");
  ASSERT_EQ(write(near, "near", 4), 4);
  EXPECT_EQ(read_all(first, 4), "near");
}

TEST(Loopback, ABlockedAcceptIsReachedFromBothSides) {
  Fd listener = tcp();
  Address any("0.0.0.0", 0);
  ASSERT_WORKS(bind(listener, any.get(), Address::size));
  ASSERT_WORKS(listen(listener, 4));
  Address loopback("127.0.0.1", name_of(listener).port());
  Fd near;
  Later later(milliseconds(100), [&] {
    near = tcp();
    connect(near, loopback.get(), Address::size);
  });
  Fd fd(accept(listener, nullptr, nullptr));
  EXPECT_GE(fd, 0) << strerror(errno);
}

}  // namespace
}  // namespace api
