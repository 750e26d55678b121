// How connections begin and end, between two whole hosts.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

int pending_error(TestSocket& socket) { return socket.get_int(SOL_SOCKET, SO_ERROR); }

TEST(Connection, ConnectsTalksAndCloses) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  EXPECT_EQ(pair.near->remote_address().ok(), true);
  EXPECT_EQ(*pair.near->remote_address(), (SocketAddress{pair.server.address(), 80}));
  EXPECT_EQ(*pair.far->remote_address(), *pair.near->local_address());
  EXPECT_EQ(tcp_state(pair.near), TCP_ESTABLISHED);
  EXPECT_EQ(tcp_state(pair.far), TCP_ESTABLISHED);

  EXPECT_EQ(pair.near.send("GET /"), 5);
  EXPECT_EQ(pair.read(pair.far, 5), "GET /");
  EXPECT_EQ(pair.far.send("200 OK"), 6);
  EXPECT_EQ(pair.read(pair.near, 6), "200 OK");

  // The client closes first and holds TIME-WAIT.
  pair.near.close();
  ASSERT_TRUE(pair.net.run_until([&] { return Pair::ended(pair.far); }, kSoon));
  EXPECT_EQ(tcp_state(pair.far), TCP_CLOSE_WAIT);
  pair.far.close();
  EXPECT_TRUE(pair.net.run_until([&] { return pair.client.host().drained() && pair.server.host().drained(); },
                                 kSoon));
  EXPECT_EQ(pair.client.counters().TcpExtTW + pair.server.counters().TcpExtTW, 0u)
      << "TW counts expired ones";
  pair.net.run_for(61s);
  EXPECT_EQ(pair.client.counters().TcpExtTW, 1u);
  EXPECT_EQ(pair.server.counters().TcpExtTW, 0u);
  EXPECT_EQ(pair.client.counters().TcpActiveOpens, 1u);
  EXPECT_EQ(pair.server.counters().TcpPassiveOpens, 1u);
  EXPECT_EQ(pair.client.counters().TcpRetransSegs + pair.server.counters().TcpRetransSegs, 0u);
  EXPECT_EQ(pair.client.counters().TcpOutRsts + pair.server.counters().TcpOutRsts, 0u);
}

TEST(Connection, HalfCloseStillCarriesTheOtherDirection) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  pair.near.send("question");
  ASSERT_TRUE(pair.near->shutdown(ShutdownHow::write).ok());
  EXPECT_EQ(pair.near.send("more"), -EPIPE);
  EXPECT_EQ(pair.read(pair.far, 100), "question");
  EXPECT_TRUE(Pair::ended(pair.far));
  pair.far.send("answer");
  EXPECT_EQ(pair.read(pair.near, 6), "answer");
  pair.far.close();
  EXPECT_TRUE(pair.net.run_until([&] { return Pair::ended(pair.near); }, kSoon));
}

TEST(Connection, BothCloseAtOnce) {
  // The two FINs cross: both ends go through CLOSING (RFC 9293, figure 13).
  Pair pair({.forward = {.delay = 10ms}, .backward = {.delay = 10ms}});
  ASSERT_TRUE(pair.establish());
  ASSERT_TRUE(pair.near->shutdown(ShutdownHow::write).ok());
  ASSERT_TRUE(pair.far->shutdown(ShutdownHow::write).ok());
  pair.net.run_for(12ms);
  EXPECT_EQ(tcp_state(pair.near), TCP_CLOSING);
  EXPECT_EQ(tcp_state(pair.far), TCP_CLOSING);
  pair.near.close();
  pair.far.close();
  EXPECT_TRUE(pair.net.run_until([&] { return pair.client.host().drained() && pair.server.host().drained(); },
                                 kSoon));
  pair.net.run_for(61s);
  EXPECT_EQ(pair.client.counters().TcpExtTW, 1u);
  EXPECT_EQ(pair.server.counters().TcpExtTW, 1u);
  EXPECT_EQ(pair.client.counters().TcpRetransSegs + pair.server.counters().TcpRetransSegs, 0u);
}

TEST(Connection, BothOpenAtOnce) {
  // Neither listens; the SYNs cross (RFC 9293, figure 8).
  Pair pair({.forward = {.delay = 20ms}, .backward = {.delay = 20ms}});
  // The neighbours must know each other first, or ARP would undo the coincidence.
  ASSERT_TRUE(pair.establish());
  TestSocket a = pair.client.socket(), b = pair.server.socket();
  ASSERT_TRUE(a->bind({pair.client.address(), 4000}).ok());
  ASSERT_TRUE(b->bind({pair.server.address(), 5000}).ok());
  EXPECT_EQ(a.connect({pair.server.address(), 5000}).code(), EINPROGRESS);
  EXPECT_EQ(b.connect({pair.client.address(), 4000}).code(), EINPROGRESS);
  ASSERT_TRUE(pair.net.run_until([&] { return a.connected() && b.connected(); }, kSoon));
  a.send("x");
  EXPECT_EQ(pair.read(b, 1), "x");
  b.send("y");
  EXPECT_EQ(pair.read(a, 1), "y");
}

TEST(Connection, ClosedPortRefuses) {
  Pair pair;
  TestSocket socket = pair.client.connect(pair.server, 81);
  ASSERT_TRUE(socket);
  ASSERT_TRUE(pair.net.run_until([&] { return socket->connect_result().code() != EINPROGRESS; }, kSoon) ||
              pending_error(socket) == ECONNREFUSED);
  EXPECT_EQ(pair.server.counters().TcpOutRsts, 1u);
  EXPECT_EQ(pair.client.counters().TcpAttemptFails, 1u);
}

TEST(Connection, RefusalIsReportedOnceWithPollErrAndHup) {
  Pair pair;
  TestSocket socket = pair.client.connect(pair.server, 81);
  ASSERT_TRUE(pair.net.run_until([&] { return (socket->readiness() & ready::kErr) != 0; }, kSoon));
  EXPECT_TRUE(socket->readiness() & ready::kHup);
  EXPECT_EQ(socket->connect_result().code(), ECONNREFUSED);
  EXPECT_EQ(pending_error(socket), 0);
}

TEST(Connection, SilentPeerTimesOut) {
  PairOptions options;
  options.client_settings.tcp_syn_retries = 3;
  Pair pair(options);
  ASSERT_TRUE(pair.establish());  // fills the ARP caches
  pair.server.vanish();
  Instant start = pair.net.now();
  TestSocket socket = pair.client.connect(pair.server, 80);
  int syns = 0;
  pair.cable.forward->add_rule(count_in(syns, [](const TcpView& t) { return t.syn(); }));
  ASSERT_TRUE(pair.net.run_until([&] { return (socket->readiness() & ready::kErr) != 0; }, 120s));
  EXPECT_EQ(socket->connect_result().code(), ETIMEDOUT);
  // 1 + 2 + 4 + 8 seconds (RFC 6298: doubling from 1 s), the neighbour entry lasts as long.
  EXPECT_NEAR(static_cast<double>(to_ms(pair.net.now() - start)), 15000, 500);
  EXPECT_EQ(syns, 4);
}

TEST(Connection, NobodyAnswersArp) {
  Pair pair;
  Instant start = pair.net.now();
  TestSocket socket = pair.client.connect({pair_address(99).address, 80});
  ASSERT_TRUE(socket);
  ASSERT_TRUE(pair.net.run_until([&] { return (socket->readiness() & ready::kErr) != 0; }, 30s));
  EXPECT_EQ(socket->connect_result().code(), EHOSTUNREACH);
  EXPECT_NEAR(static_cast<double>(to_ms(pair.net.now() - start)), 3000, 300);  // 3 requests, a second each
}

TEST(Connection, NoRouteFailsAtOnce) {
  Pair pair;
  TestSocket socket = pair.client.socket();
  EXPECT_EQ(socket.connect({far_address(), 80}).code(), ENETUNREACH);
}

TEST(Connection, EstablishedPeerThatVanishesTimesOut) {
  PairOptions options;
  options.client_settings.tcp_retries2 = 5;
  options.forward.delay = options.backward.delay = 1ms;
  Pair pair(options);
  ASSERT_TRUE(pair.establish());
  pair.server.vanish();
  pair.near.send("hello?");
  ASSERT_TRUE(pair.net.run_until([&] { return (pair.near->readiness() & ready::kErr) != 0; }, 600s));
  // As on Linux, what ARP has found out meanwhile is told instead of the bare time-out.
  int error = Pair::receive_error(pair.near);
  EXPECT_TRUE(error == ETIMEDOUT || error == EHOSTUNREACH) << error;
  EXPECT_GE(pair.client.counters().TcpRetransSegs, 5u);
}

TEST(Connection, KeepaliveFindsAVanishedPeer) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  ASSERT_TRUE(pair.near.set(SOL_SOCKET, SO_KEEPALIVE, 1).ok());
  ASSERT_TRUE(pair.near.set(IPPROTO_TCP, TCP_KEEPIDLE, 10).ok());
  ASSERT_TRUE(pair.near.set(IPPROTO_TCP, TCP_KEEPINTVL, 2).ok());
  ASSERT_TRUE(pair.near.set(IPPROTO_TCP, TCP_KEEPCNT, 3).ok());
  pair.net.run_for(100s);
  EXPECT_EQ(pair.near->readiness() & ready::kErr, 0u) << "a living peer answers the probes";
  EXPECT_GT(pair.client.counters().TcpExtTCPKeepAlive, 5u);
  pair.server.vanish();
  ASSERT_TRUE(pair.net.run_until([&] { return (pair.near->readiness() & ready::kErr) != 0; }, 30s));
  // As on Linux, what ARP has found out meanwhile is told instead of the bare time-out.
  int error = Pair::receive_error(pair.near);
  EXPECT_TRUE(error == ETIMEDOUT || error == EHOSTUNREACH) << error;
}

TEST(Connection, ClosingWithUnreadDataResets) {
  // RFC 2525, section 2.17: data is lost, and the peer is to know it.
  Pair pair;
  ASSERT_TRUE(pair.establish());
  pair.near.send("never read");
  ASSERT_TRUE(pair.net.run_until([&] { return pair.far.readable(); }, kSoon));
  pair.far.close();
  ASSERT_TRUE(pair.net.run_until([&] { return (pair.near->readiness() & ready::kErr) != 0; }, kSoon));
  EXPECT_EQ(Pair::receive_error(pair.near), ECONNRESET);
  EXPECT_EQ(pair.server.counters().TcpOutRsts, 1u);
  EXPECT_EQ(pair.server.counters().TcpExtTCPAbortOnClose, 1u);
}

TEST(Connection, LingerZeroResets) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  linger option{.l_onoff = 1, .l_linger = 0};
  ASSERT_TRUE(pair.near->set_option(SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&option, 1))).ok());
  pair.near.close();
  ASSERT_TRUE(pair.net.run_until([&] { return (pair.far->readiness() & ready::kErr) != 0; }, kSoon));
  EXPECT_EQ(Pair::receive_error(pair.far), ECONNRESET);
}

TEST(Connection, SendingToAPeerThatHasClosedItsSocketEndsInReset) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  pair.far.close();
  ASSERT_TRUE(pair.net.run_until([&] { return Pair::ended(pair.near); }, kSoon));
  EXPECT_EQ(pair.near.send("too late"), 8);
  ASSERT_TRUE(pair.net.run_until([&] { return (pair.near->readiness() & ready::kErr) != 0; }, kSoon));
  // The FIN came in before: Linux says EPIPE for a reset in CLOSE-WAIT (tcp_reset).
  EXPECT_EQ(pair.near.send("again"), -EPIPE);
}

TEST(Connection, LostSynSynAckAndFinAreRepaired) {
  for (int which = 0; which < 4; ++which) {
    Pair pair;
    auto& direction = which == 1 || which == 3 ? pair.cable.backward : pair.cable.forward;
    if (which < 2)
      direction->add_rule(drop_first(2, [](const TcpView& t) { return t.syn(); }));
    else
      direction->add_rule(drop_first(2, [](const TcpView& t) { return t.fin(); }));
    ASSERT_TRUE(pair.establish(80, 20s)) << which;
    pair.near.send("x");
    EXPECT_EQ(pair.read(pair.far, 1), "x");
    pair.near.close();
    ASSERT_TRUE(pair.net.run_until([&] { return Pair::ended(pair.far); }, 20s)) << which;
    pair.far.close();
    EXPECT_TRUE(
        pair.net.run_until([&] { return pair.client.host().drained() && pair.server.host().drained(); }, 20s))
        << which;
  }
}

TEST(Connection, LostLastAckOfTheHandshakeIsMadeUpByData) {
  Pair pair;
  pair.cable.forward->add_rule(drop_first(1, [](const TcpView& t) { return t.pure_ack(); }));
  pair.listener = pair.server.listen(80);
  pair.near = pair.client.connect(pair.server, 80);
  ASSERT_TRUE(pair.net.run_until([&] { return pair.near.connected(); }, kSoon));
  pair.near.send("data");
  ASSERT_TRUE(pair.net.run_until([&] { return bool(pair.far = pair.listener.accept()); }, kSoon));
  EXPECT_EQ(pair.read(pair.far, 4), "data");
}

TEST(Connection, ManyAtOnceAndOneAfterTheOther) {
  Pair pair;
  pair.listener = pair.server.listen(80, 1000);
  std::vector<TestSocket> near, far;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 200; ++i) {
      near.push_back(pair.client.connect(pair.server, 80));
      ASSERT_TRUE(near.back());
    }
    ASSERT_TRUE(pair.net.run_until(
        [&] {
          while (TestSocket socket = pair.listener.accept()) far.push_back(std::move(socket));
          return far.size() == 200;
        },
        kSoon));
    for (auto& socket : near) EXPECT_TRUE(socket.connected());
    near.clear();
    pair.net.run_for(100ms);
    far.clear();
    ASSERT_TRUE(pair.net.run_until(
        [&] { return pair.client.host().drained() && pair.server.host().drained(); }, kSoon));
  }
  EXPECT_EQ(pair.server.counters().TcpPassiveOpens, 600u);
  pair.net.run_for(120s);
  EXPECT_EQ(pair.client.counters().TcpExtTW, 600u);
}

TEST(Connection, ConnectToItselfInsideTheHost) {
  Pair pair;
  TestSocket listener = pair.client.listen(80);
  TestSocket near = pair.client.connect(pair.client, 80);
  TestSocket far;
  ASSERT_TRUE(pair.net.run_until(
      [&] {
        if (!far) far = listener.accept();
        return far && near.connected();
      },
      kSoon));
  uint64_t frames = pair.net.frames();
  near.send("inside");
  EXPECT_EQ(pair.read(far, 6), "inside");
  EXPECT_EQ(pair.net.frames(), frames) << "nothing of it goes over the wire";
}

TEST(Connection, ErrnosOfMisuse) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  // The end of a connect that was under way is told once (tcp_connect in SS_CONNECTING), then it is an error.
  EXPECT_EQ(pair.near.connect({pair.server.address(), 80}).code(), 0);
  EXPECT_EQ(pair.near.connect({pair.server.address(), 80}).code(), EISCONN);
  EXPECT_EQ(pair.near->listen(1).code(), EINVAL);
  TestSocket fresh = pair.client.socket();
  EXPECT_EQ(fresh->remote_address().code(), ENOTCONN);
  EXPECT_EQ(fresh->shutdown(ShutdownHow::both).code(), ENOTCONN);
  EXPECT_EQ(Pair::receive_error(fresh), ENOTCONN);
  EXPECT_EQ(fresh.send("x"), -EPIPE);  // as Linux: tcp_sendmsg without a connection
  EXPECT_EQ(fresh->accept().code(), EINVAL);
  EXPECT_EQ(fresh->bind({far_address(), 1000}).code(), EADDRNOTAVAIL);
  EXPECT_EQ(pair.server.socket()->bind({pair.server.address(), 80}).code(), EADDRINUSE);
  TestSocket pending = pair.client.connect({pair_address(99).address, 80});
  EXPECT_EQ(pending.connect({pair_address(99).address, 80}).code(), EALREADY);
}

}  // namespace
}  // namespace ustack::test
