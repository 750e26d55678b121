// Connections that never leave the host: 127.0.0.0/8 and the host's own addresses.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

constexpr IpAddress kOwn = IpAddress::v4(192, 0, 2, 1);
constexpr IpAddress kLoopback = IpAddress::v4(127, 0, 0, 1);
constexpr IpAddress kAnyAddress = IpAddress::any(Family::ipv4);

struct Alone {
  Simulator net{1};
  TestHost& host = net.add_host({.name = "host", .address = {kOwn, 24}, .loopback = true});
  TestSocket listener = host.listen(80), near, far;

  bool establish(const IpAddress& to) {
    near = host.connect({to, 80});
    return near && net.run_until(
                       [&] {
                         if (!far) far = listener.accept();
                         return far && near.connected();
                       },
                       kSoon);
  }
};

struct Way {
  IpAddress to, far_end, near_end;
};

class LoopbackWays : public testing::TestWithParam<Way> {};

TEST_P(LoopbackWays, BothEndsHaveTheirNames) {
  Alone alone;
  ASSERT_TRUE(alone.establish(GetParam().to));
  EXPECT_EQ(alone.near->remote_address()->address, GetParam().far_end);
  EXPECT_EQ(alone.near->local_address()->address, GetParam().near_end);
  EXPECT_EQ(*alone.far->local_address(), *alone.near->remote_address());
  EXPECT_EQ(*alone.far->remote_address(), *alone.near->local_address());
  EXPECT_EQ(alone.net.frames(), 1u) << "the announcement of the address is all that is on the link";
}

INSTANTIATE_TEST_SUITE_P(All, LoopbackWays,
                         testing::Values(Way{kLoopback, kLoopback, kLoopback}, Way{kOwn, kOwn, kOwn},
                                         Way{IpAddress::v4(127, 1, 2, 3), IpAddress::v4(127, 1, 2, 3),
                                             kLoopback},
                                         // Linux: 0.0.0.0 is this host.
                                         Way{kAnyAddress, kLoopback, kLoopback}));

TEST(Loopback, CarriesABulkOfBytesInLargeSegments) {
  Alone alone;
  ASSERT_TRUE(alone.establish(kLoopback));
  constexpr uint64_t kTotal = 20'000'000;
  Pattern pattern(7);
  PatternSender sender(alone.host, *alone.near.get(), pattern, kTotal);
  PatternReceiver receiver(alone.host, *alone.far.get(), pattern);
  // No frame on a wire gives it turns.
  for (int turns = 0; turns < 10'000 && !receiver.at_end(); ++turns) alone.host.turn();
  EXPECT_TRUE(receiver.at_end());
  EXPECT_EQ(receiver.received(), kTotal);
  EXPECT_TRUE(receiver.intact());
  EXPECT_EQ(alone.near.get_int(IPPROTO_TCP, TCP_MAXSEG), 65535 - 20 - 20 - 12);
  EXPECT_EQ(alone.host.counters().TcpRetransSegs, 0u);
  EXPECT_EQ(alone.net.frames(), 1u);
}

TEST(Loopback, ASocketCanConnectToItself) {
  Alone alone;
  TestSocket socket = alone.host.socket();
  ASSERT_TRUE(socket->bind({kLoopback, 4000}).ok());
  EXPECT_EQ(socket.connect({kLoopback, 4000}).code(), EINPROGRESS);
  ASSERT_TRUE(alone.net.run_until([&] { return socket.connected(); }, kSoon));
  EXPECT_EQ(*socket->remote_address(), *socket->local_address());
  EXPECT_EQ(socket.send("to myself"), 9);
  std::string got;
  ASSERT_TRUE(alone.net.run_until([&] { return (got += socket.receive()).size() >= 9; }, kSoon));
  EXPECT_EQ(got, "to myself");
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  EXPECT_TRUE(alone.net.run_until([&] { return Pair::ended(socket); }, kSoon));
  socket.close();
  EXPECT_TRUE(alone.net.run_until([&] { return alone.host.host().drained(); }, kSoon));
}

TEST(Loopback, NobodyListens) {
  Alone alone;
  TestSocket socket = alone.host.connect({kLoopback, 81});
  ASSERT_TRUE(alone.net.run_until([&] { return (socket->readiness() & ready::kHup) != 0; }, kSoon));
  EXPECT_EQ(socket->connect_result().code(), ECONNREFUSED);
}

TEST(Loopback, ASecondListenerOnAnAddressOfItsOwnIsPreferred) {
  Alone alone;
  TestSocket own = alone.host.socket();
  ASSERT_FALSE(own->bind({kLoopback, 80}).ok()) << "the wildcard listener has the port";
  alone.listener.close();
  ASSERT_TRUE(own->bind({kLoopback, 80}).ok());
  ASSERT_TRUE(own->listen(5).ok());
  TestSocket refused = alone.host.connect({kOwn, 80});
  TestSocket taken = alone.host.connect({kLoopback, 80});
  ASSERT_TRUE(alone.net.run_until([&] { return taken.connected(); }, kSoon));
  EXPECT_EQ(refused->connect_result().code(), ECONNREFUSED);
  // From the host's other address it comes in all the same.
  TestSocket across = alone.host.socket();
  ASSERT_TRUE(across->bind({kOwn, 0}).ok());
  EXPECT_EQ(across.connect({kLoopback, 80}).code(), EINPROGRESS);
  EXPECT_TRUE(alone.net.run_until([&] { return across.connected(); }, kSoon));
}

TEST(Loopback, ItsBroadcastAddressIsNobody) {
  Alone alone;
  TestSocket socket = alone.host.socket();
  EXPECT_EQ(socket.connect({IpAddress::v4(127, 255, 255, 255), 80}).code(), ENETUNREACH);
}

TEST(Loopback, AResetArrives) {
  Alone alone;
  ASSERT_TRUE(alone.establish(kLoopback));
  linger now{1, 0};
  ASSERT_TRUE(alone.far->set_option(SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&now, 1))).ok());
  alone.far.close();
  ASSERT_TRUE(alone.net.run_until([&] { return (alone.near->readiness() & ready::kErr) != 0; }, kSoon));
  EXPECT_EQ(alone.near.get_int(SOL_SOCKET, SO_ERROR), ECONNRESET);
}

}  // namespace
}  // namespace ustack::test
