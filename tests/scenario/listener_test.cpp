// Backlog and accept queue, as listen(2) and tcp(7) tell it.
#include <gtest/gtest.h>

#include <vector>

#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

TEST(Listener, FullAcceptQueueHoldsFurtherClientsOffUntilThereIsRoom) {
  Pair pair;
  pair.listener = pair.server.listen(80, 2);
  ASSERT_TRUE(pair.listener);
  std::vector<TestSocket> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(pair.client.connect(pair.server, 80));
  pair.net.run_for(500ms);
  // Linux holds backlog + 1 (sk_acceptq_is_full) and drops what comes beyond.
  EXPECT_GT(pair.server.counters().TcpExtListenOverflows + pair.server.counters().TcpExtListenDrops, 0u);
  EXPECT_EQ(pair.server.counters().TcpOutRsts, 0u);

  std::vector<TestSocket> accepted;
  ASSERT_TRUE(pair.net.run_until(
      [&] {
        while (TestSocket socket = pair.listener.accept()) accepted.push_back(std::move(socket));
        return accepted.size() == 8;
      },
      60s));
  // Whoever was accepted really talks to one of the clients.
  for (auto& socket : accepted) socket.send("hi");
  for (auto& client : clients) EXPECT_EQ(pair.read(client, 2, 60s), "hi");
}

TEST(Listener, QueueIsServedInOrder) {
  Pair pair;
  pair.listener = pair.server.listen(80);
  std::vector<TestSocket> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(pair.client.connect(pair.server, 80));
    ASSERT_TRUE(pair.net.run_until([&] { return clients.back().connected(); }, kSoon));
  }
  EXPECT_TRUE(pair.listener.acceptable());
  for (auto& client : clients) {
    TestSocket accepted = pair.listener.accept();
    ASSERT_TRUE(accepted);
    EXPECT_EQ(*accepted->remote_address(), *client->local_address());
  }
  EXPECT_FALSE(pair.listener.acceptable());
  EXPECT_EQ(pair.listener->accept().code(), EAGAIN);
}

TEST(Listener, DataSentBeforeAcceptIsKept) {
  Pair pair;
  pair.listener = pair.server.listen(80);
  pair.near = pair.client.connect(pair.server, 80);
  ASSERT_TRUE(pair.net.run_until([&] { return pair.near.connected(); }, kSoon));
  pair.near.send("early");
  pair.near.close();
  pair.net.run_for(1s);
  pair.far = pair.listener.accept();
  ASSERT_TRUE(pair.far);
  EXPECT_EQ(pair.read(pair.far, 100), "early");
  EXPECT_TRUE(Pair::ended(pair.far));
}

TEST(Listener, ClosingResetsWhatWasNotAccepted) {
  Pair pair;
  pair.listener = pair.server.listen(80);
  pair.near = pair.client.connect(pair.server, 80);
  ASSERT_TRUE(pair.net.run_until([&] { return pair.near.connected() && pair.listener.acceptable(); }, kSoon));
  pair.listener.close();
  ASSERT_TRUE(pair.net.run_until([&] { return (pair.near->readiness() & ready::kErr) != 0; }, kSoon));
  EXPECT_EQ(Pair::receive_error(pair.near), ECONNRESET);
  // And the port is free again at once.
  EXPECT_TRUE(pair.server.listen(80));
}

TEST(Listener, PortOfALivingConnectionCanBeListenedOnAgainWithReuseAddr) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  pair.listener.close();
  TestSocket again = pair.server.socket();
  EXPECT_EQ(again->bind({IpAddress::any(pair_address(1).address.family()), 80}).code(), EADDRINUSE);
  ASSERT_TRUE(again.set(SOL_SOCKET, SO_REUSEADDR, 1).ok());
  // Both sides must have agreed (socket(7)); the listener's connections inherit its setting, which was off.
  EXPECT_EQ(again->bind({IpAddress::any(pair_address(1).address.family()), 80}).code(), EADDRINUSE);
}

TEST(Listener, SpecificAddressGoesBeforeWildcard) {
  Pair pair;
  TestSocket wildcard = pair.server.socket(), specific = pair.server.socket();
  ASSERT_TRUE(wildcard.set(SOL_SOCKET, SO_REUSEPORT, 1).ok());
  ASSERT_TRUE(specific.set(SOL_SOCKET, SO_REUSEPORT, 1).ok());
  ASSERT_TRUE(wildcard->bind({IpAddress::any(pair_address(1).address.family()), 80}).ok());
  ASSERT_TRUE(specific->bind({pair.server.address(), 80}).ok());
  ASSERT_TRUE(wildcard->listen(5).ok());
  ASSERT_TRUE(specific->listen(5).ok());
  TestSocket client = pair.client.connect(pair.server, 80);
  ASSERT_TRUE(pair.net.run_until([&] { return specific.acceptable(); }, kSoon));
  EXPECT_FALSE(wildcard.acceptable());
}

}  // namespace
}  // namespace ustack::test
