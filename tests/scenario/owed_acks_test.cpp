// ACKs that wait for a program's answer (HostConfig::acks_wait), in virtual time.
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

#include "stack/tcp/receiver.h"
#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

constexpr Duration kOneWay = 10ms;

PairOptions options(bool acks_wait) {
  return {.forward = {.delay = kOneWay}, .backward = {.delay = kOneWay}, .acks_wait = acks_wait};
}

bool all_acknowledged(TestSocket& socket) {
  Result<int> bytes = socket->ioctl_value(SIOCOUTQ);
  return bytes.ok() && *bytes == 0;
}

/// A server that answers each byte at once and closes when its peer does.
class Answering {
 public:
  explicit Answering(Pair& pair) : listener_(pair.server.listen(80)) {
    pair.server.on_turn([this] {
      if (!connection_) connection_ = listener_.accept();
      if (!connection_) return;
      int code = 0;
      std::string text = connection_.receive(1 << 20, &code);
      if (!text.empty()) connection_.send(text);
      if (text.empty() && code == 0) connection_.close();
    });
  }

 private:
  TestSocket listener_, connection_;
};

struct Segments {
  uint64_t client, server;
};

/// What a connection with one request takes; a client that asks as soon as it is connected, and closes as
/// soon as it has its answer.
Segments one_request(bool acks_wait) {
  Pair pair(options(acks_wait));
  Answering server(pair);
  bool asked = false, done = false;
  pair.near = pair.client.connect(pair.server, 80);
  pair.client.on_turn([&] {
    if (!asked && pair.near && pair.near.connected()) asked = pair.near.send("x") == 1;
    if (asked && pair.near && pair.near.receive() == "x") {
      pair.near.close();
      done = true;
    }
  });
  EXPECT_TRUE(pair.net.run_until([&] { return done; }, kSoon));
  pair.net.run_for(1s);
  EXPECT_TRUE(pair.client.host().drained() && pair.server.host().drained());
  EXPECT_EQ(pair.client.counters().TcpRetransSegs + pair.server.counters().TcpRetransSegs, 0u);
  pair.client.clear_applications();
  pair.server.clear_applications();
  return {pair.client.counters().TcpOutSegs, pair.server.counters().TcpOutSegs};
}

TEST(OwedAcks, AConnectionWithOneRequestSavesTwoSegmentsEachWay) {
  // SYN, request, FIN, the last ACK; SYN-ACK, answer, FIN.
  Segments with = one_request(true);
  EXPECT_EQ(with.client, 4u);
  EXPECT_EQ(with.server, 3u);
  // And ACKs of the SYN-ACK and of the answer; of the request and of the FIN.
  Segments without = one_request(false);
  EXPECT_EQ(without.client, 6u);
  EXPECT_EQ(without.server, 5u);
}

TEST(OwedAcks, AProgramThatDoesNotAnswerAcknowledgesAsSoonAsItWaits) {
  Pair pair(options(true));
  ASSERT_TRUE(pair.establish());
  pair.net.run_for(1s);
  const Instant sent = pair.net.now();
  pair.near.send("x");
  ASSERT_TRUE(pair.net.run_until([&] { return all_acknowledged(pair.near); }, kSoon));
  EXPECT_EQ(pair.net.now() - sent, 2 * kOneWay);
  // The end of the stream, too.
  ASSERT_TRUE(pair.near->shutdown(ShutdownHow::write).ok());
  ASSERT_TRUE(pair.net.run_until([&] { return tcp_state(pair.near) == TCP_FIN_WAIT2; }, kSoon));
  EXPECT_EQ(pair.net.now() - sent, 4 * kOneWay);
}

TEST(OwedAcks, OfABusyProgramTheyAreDelayedAcks) {
  Pair pair(options(true));
  ASSERT_TRUE(pair.establish());
  pair.net.run_for(1s);
  pair.server.set_busy(true);
  const Instant sent = pair.net.now();
  pair.near.send("x");
  ASSERT_TRUE(pair.net.run_until([&] { return all_acknowledged(pair.near); }, kSoon));
  EXPECT_GE(pair.net.now() - sent, 2 * kOneWay + tcp::kMinAckDelay);
  EXPECT_LE(pair.net.now() - sent, 2 * kOneWay + tcp::kMinAckDelay + 5ms);
  EXPECT_EQ(pair.server.counters().TcpExtDelayedACKs, 1u);
}

TEST(OwedAcks, EverySecondSegmentOfManyIsAcknowledgedAtOnce) {
  Pair pair(options(true));
  ASSERT_TRUE(pair.establish());
  pair.server.set_busy(true);
  const std::string data(200000, 'x');
  int64_t sent = 0;
  std::string received;
  const Instant began = pair.net.now();
  ASSERT_TRUE(pair.net.run_until(
      [&] {
        if (static_cast<size_t>(sent) < data.size())
          sent +=
              std::max<int64_t>(pair.near.send(std::string_view(data).substr(static_cast<size_t>(sent))), 0);
        received += pair.far.receive();
        return received.size() == data.size();
      },
      kSoon));
  EXPECT_LT(pair.net.now() - began, 200ms) << "slow start in round trips of 20 ms, not of 60";
}

TEST(OwedAcks, AConnectionThatEndsInBetweenOwesNothing) {
  Pair pair(options(true));
  ASSERT_TRUE(pair.establish());
  pair.server.set_busy(true);
  pair.near.send("x");
  pair.net.run_for(kOneWay + 1ms);
  pair.far.close();  // with data unread: a reset
  pair.server.set_busy(false);
  pair.server.turn();
  ASSERT_TRUE(pair.net.run_until([&] { return Pair::receive_error(pair.near) == ECONNRESET; }, kSoon));
  pair.net.run_for(1s);
}

}  // namespace
}  // namespace ustack::test
