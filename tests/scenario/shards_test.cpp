// A host of several shards is one host to its peers and its programs (stack/shards.h).
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "stack/tcp/protocol.h"
#include "tests/support/simulator.h"

namespace ustack::test {
namespace {

constexpr Duration kSoon = 3s;
constexpr uint32_t kShards = 4;

/// Waits for events and counts how often it is told.
struct Counted : WaitEntry {
  explicit Counted(uint32_t events) : WaitEntry(tell, this) { interest = events; }
  static bool tell(WaitEntry& entry, uint32_t) {
    ++static_cast<Counted&>(entry).told;
    return true;
  }
  int told = 0;
};

class Shards : public ::testing::Test {
 protected:
  Shards() { net.connect(client, server, {.delay = 1ms}); }

  uint64_t endpoints_in(uint32_t shard) { return server.shards().hosts[shard]->tcp().endpoint_count(); }
  /// At both ends.
  bool all_have_connected(const std::vector<TestSocket>& sockets) {
    const bool connected = net.run_until(
        [&] { return std::ranges::all_of(sockets, [](const TestSocket& s) { return s.connected(); }); },
        kSoon);
    net.run_for(1ms);
    return connected;
  }
  std::vector<TestSocket> connect(int count, uint16_t port = 80) {
    std::vector<TestSocket> sockets;
    for (int i = 0; i < count; ++i) sockets.push_back(client.connect(server, port));
    return sockets;
  }

  Simulator net{1};
  TestHost& client =
      net.add_host({.name = "client", .address = {IpAddress::v4(192, 0, 2, 1), 24}, .shards = 1});
  TestHost& server =
      net.add_host({.name = "server", .address = {IpAddress::v4(192, 0, 2, 2), 24}, .shards = kShards});
};

TEST_F(Shards, EachHasAPartOfAListenersConnections) {
  constexpr int kCount = 64;
  TestSocket listener = server.listen(80);
  std::vector<TestSocket> near = connect(kCount);
  ASSERT_TRUE(all_have_connected(near));
  std::vector<TestSocket> far;
  std::set<Host*> hosts;
  while (TestSocket accepted = listener.accept()) {
    hosts.insert(&accepted->host());
    far.push_back(std::move(accepted));
  }
  EXPECT_EQ(far.size(), size_t{kCount});
  EXPECT_EQ(hosts.size(), size_t{kShards});
  for (uint32_t i = 0; i < kShards; ++i) EXPECT_GT(endpoints_in(i), kCount / kShards / 3u) << i;
  for (TestSocket& socket : near) ASSERT_EQ(socket.send("there and back"), 14);
  net.run_for(100ms);
  for (TestSocket& socket : far) {
    EXPECT_EQ(socket.receive(), "there and back");
    socket.send("again");
  }
  net.run_for(100ms);
  for (TestSocket& socket : near) EXPECT_EQ(socket.receive(), "again");
  EXPECT_GT(server.counters().UstackShardStrays, 0u) << "frames come by all queues";
  EXPECT_EQ(server.counters().UstackShardStraysDropped, 0u);
}

TEST_F(Shards, AcceptPrefersTheCallersConnections) {
  TestSocket listener = server.listen(80);
  std::vector<TestSocket> near = connect(32);
  ASSERT_TRUE(all_have_connected(near));
  for (uint8_t shard : {uint8_t{2}, uint8_t{1}, uint8_t{3}}) {
    server.shards().callers = shard;
    EXPECT_EQ(&listener.accept()->host(), server.shards().hosts[shard]);
  }
}

/// As accept(2) does with one shard's lock alone.
TEST_F(Shards, AcceptInAShardTakesItsOwnUnlessAnothersWaitsForLong) {
  TestSocket listener = server.listen(80);
  EXPECT_EQ(listener->accept_in_shard(0).code(), EAGAIN);
  std::vector<TestSocket> near = connect(32);
  net.run_for(2ms);  // there and back, and no longer
  auto take = [&](uint8_t shard) {
    Result<Socket*> taken = listener->accept_in_shard(shard);
    if (!taken.ok()) return taken.code();
    EXPECT_EQ(&(*taken)->host(), server.shards().hosts[shard]);
    (*taken)->release();
    return 0;
  };
  ASSERT_TRUE(net.run_until([&] { return listener.acceptable(); }, kSoon));
  int of_two = 0;
  while (take(2) == 0) ++of_two;
  EXPECT_GT(of_two, 1);
  EXPECT_EQ(take(2), EAGAIN) << "it has no more, though others have";
  EXPECT_EQ(take(3), 0);
  net.run_for(10ms);
  near.push_back(client.connect(server, 80));
  ASSERT_TRUE(all_have_connected(near));
  // All that have come at first wait for long, so that it is their turn, whoever asks; each shard can tell.
  int taken = 0;
  for (int looks = 0; looks < 200; ++looks)
    for (uint8_t shard = 0; shard < kShards; ++shard) taken += take(shard) == 0 ? 1 : 0;
  EXPECT_EQ(taken, 33 - of_two - 1);
  EXPECT_FALSE(listener.acceptable());
  ASSERT_TRUE(listener->shutdown(ShutdownHow::both).ok());
  EXPECT_EQ(listener->accept_in_shard(0).code(), EINVAL);
}

TEST_F(Shards, AConnectionLeavesByThePortThatLeadsBackToItsShard) {
  TestSocket listener = client.listen(80);
  std::vector<TestSocket> made;
  for (int i = 0; i < 20; ++i) made.push_back(server.connect(client, 80));
  ASSERT_TRUE(all_have_connected(made));
  const Steering& steering = server.shards().steering;
  for (TestSocket& socket : made)
    EXPECT_EQ(steering.shard_of(*socket->local_address(), *socket->remote_address()), 0);
}

TEST_F(Shards, AllPortsCanBeHadForOneDestination) {
  constexpr int kPorts = 16;
  Settings settings;
  settings.ip_local_port_range = {40000, 40000 + kPorts - 1};
  TestHost& few = net.add_host(
      {.name = "few", .address = {IpAddress::v4(192, 0, 2, 3), 24}, .settings = settings, .shards = kShards});
  net.connect(client, few, {.delay = 1ms});
  TestSocket listener = client.listen(80);
  std::vector<TestSocket> made;
  std::set<uint16_t> ports;
  for (int i = 0; i < kPorts; ++i) {
    made.push_back(few.connect(client, 80));
    ASSERT_TRUE(made.back()) << i;
    ports.insert(made.back()->local_address()->port);
  }
  EXPECT_EQ(ports.size(), size_t{kPorts});
  EXPECT_TRUE(all_have_connected(made));
  EXPECT_FALSE(few.connect(client, 80)) << "there are no more";
}

TEST_F(Shards, ABoundSocketMovesToWhereItsConnectionWillBe) {
  TestSocket listener = client.listen(80);
  std::set<Host*> hosts;
  for (uint16_t port = 4000; port < 4020; ++port) {
    TestSocket socket = server.socket();
    ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_NODELAY, 1).ok());
    ASSERT_TRUE(socket->bind({IpAddress::v4(0, 0, 0, 0), port}).ok());
    ASSERT_EQ(socket.connect({client.address(), 80}).code(), EINPROGRESS);
    ASSERT_TRUE(net.run_until([&] { return socket.connected(); }, kSoon));
    hosts.insert(&socket->host());
    EXPECT_EQ(socket->local_address()->port, port);
    EXPECT_EQ(socket.get_int(IPPROTO_TCP, TCP_NODELAY), 1);
    ASSERT_TRUE(net.run_until([&] { return listener.acceptable(); }, kSoon));
    ASSERT_TRUE(listener.accept());
  }
  EXPECT_EQ(hosts.size(), size_t{kShards});
}

TEST_F(Shards, WhoWaitsForASocketMovesWithIt) {
  TestSocket listener = client.listen(80);
  Counted entry(ready::kOut);
  TestSocket socket = server.socket();
  for (uint16_t port = 4000; !socket || &socket->host() == &server.host(); ++port) {
    socket = server.socket();
    socket->waiters.add(entry);
    ASSERT_TRUE(socket->bind({IpAddress::v4(0, 0, 0, 0), port}).ok());
    ASSERT_EQ(socket.connect({client.address(), 80}).code(), EINPROGRESS);
    if (&socket->host() == &server.host()) entry.unlink();
  }
  EXPECT_TRUE(net.run_until([&] { return entry.told > 0; }, kSoon));
  entry.unlink();
}

TEST_F(Shards, PortsAreOneSpace) {
  TestSocket listener = server.listen(80);
  // Of another shard, as a socket of another thread is.
  Result<Socket*> opened = server.shards().hosts[2]->open_socket(AF_INET, SOCK_STREAM, 0);
  TestSocket other(*opened);
  EXPECT_EQ(other->bind({IpAddress::v4(0, 0, 0, 0), 80}).code(), EADDRINUSE);
  EXPECT_TRUE(other->bind({IpAddress::v4(0, 0, 0, 0), 81}).ok());
  TestSocket late = server.socket();
  EXPECT_EQ(late->bind({IpAddress::v4(0, 0, 0, 0), 81}).code(), EADDRINUSE);
  listener.close();
  other.close();
  EXPECT_TRUE(late->bind({IpAddress::v4(0, 0, 0, 0), 80}).ok()) << "its siblings have given it up as well";
}

TEST_F(Shards, OfTwoThatMayShareAPortOneListens) {
  TestSocket first = server.socket();
  TestSocket second(*server.shards().hosts[1]->open_socket(AF_INET, SOCK_STREAM, 0));
  for (TestSocket* socket : {&first, &second}) {
    ASSERT_TRUE(socket->set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
    ASSERT_TRUE((*socket)->bind({IpAddress::v4(0, 0, 0, 0), 80}).ok());
  }
  EXPECT_TRUE(first->listen(5).ok());
  EXPECT_EQ(second->listen(5).code(), EADDRINUSE);
}

TEST_F(Shards, TheBacklogIsOne) {
  constexpr int kBacklog = 3;
  TestSocket listener = server.listen(80, kBacklog);
  std::vector<TestSocket> near = connect(40);
  net.run_for(500ms);
  int accepted = 0;
  while (listener.accept()) ++accepted;
  EXPECT_EQ(accepted, kBacklog + 1) << "Linux's queue takes one more";
}

TEST_F(Shards, AListenersOptionsAreAllItsConnections) {
  TestSocket listener = server.listen(80);
  ASSERT_TRUE(listener.set(IPPROTO_TCP, TCP_NODELAY, 1).ok());
  ASSERT_TRUE(listener.set(SOL_SOCKET, SO_RCVBUF, 20'000).ok());
  std::vector<TestSocket> near = connect(32);
  ASSERT_TRUE(all_have_connected(near));
  int count = 0;
  while (TestSocket accepted = listener.accept()) {
    EXPECT_EQ(accepted.get_int(IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_EQ(accepted.get_int(SOL_SOCKET, SO_RCVBUF), 40'000);
    ++count;
  }
  EXPECT_EQ(count, 32);
}

TEST_F(Shards, AClosedListenerRefusesInAll) {
  TestSocket listener = server.listen(80);
  listener.close();
  std::vector<TestSocket> near = connect(32);
  net.run_for(100ms);
  for (TestSocket& socket : near) EXPECT_EQ(socket->connect_result().code(), ECONNREFUSED);
  for (uint32_t i = 0; i < kShards; ++i) EXPECT_EQ(endpoints_in(i), 0u);
}

TEST_F(Shards, WhoWaitsForAListenerHearsOfAllItsConnections) {
  TestSocket listener = server.listen(80, 100);
  Counted entry(ready::kIn);
  listener->waiters.add(entry);
  std::vector<TestSocket> near = connect(48);
  ASSERT_TRUE(all_have_connected(near));
  net.run_for(10ms);
  EXPECT_EQ(entry.told, 48);
  entry.unlink();
}

}  // namespace
}  // namespace ustack::test
