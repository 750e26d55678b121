// Flow control: what happens when the reader doesn't read.
#include <gtest/gtest.h>

#include <memory>

#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

class Window : public testing::Test {
 protected:
  void start(Pair& pair, uint64_t bytes) {
    sink = std::make_unique<PatternReceiver>(pair.server, *pair.far.get(), Pattern(9));
    sink->paused = true;
    source = std::make_unique<PatternSender>(pair.client, *pair.near.get(), Pattern(9), bytes);
  }
  void expect_all(Pair& pair, uint64_t bytes, Duration limit) {
    EXPECT_TRUE(pair.net.run_until([&] { return sink->at_end(); }, limit));
    EXPECT_EQ(sink->received(), bytes);
    EXPECT_TRUE(sink->intact());
    pair.client.clear_applications();
    pair.server.clear_applications();
  }
  std::unique_ptr<PatternSender> source;
  std::unique_ptr<PatternReceiver> sink;
};

/// More than both buffers can ever hold (tcp_wmem and tcp_rmem: 4 + 6 MB).
constexpr uint64_t kBytes = 12 << 20;

TEST_F(Window, ClosesAndOpensAgain) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  start(pair, kBytes);
  pair.net.run_for(10s);
  EXPECT_LT(source->sent(), kBytes);
  uint64_t stuck_at = source->sent();
  pair.net.run_for(10s);
  EXPECT_EQ(source->sent(), stuck_at) << "nothing moves while nobody reads";
  EXPECT_GT(pair.server.counters().TcpExtTCPToZeroWindowAdv, 0u);
  EXPECT_GT(pair.client.counters().TcpExtTCPWinProbe, 0u);
  sink->paused = false;
  expect_all(pair, kBytes, 10s);
  EXPECT_EQ(pair.server.counters().TcpExtTCPRcvQDrop, 0u) << "no more was sent than the window allowed";
}

TEST_F(Window, ProbesFindALostWindowUpdate) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  start(pair, kBytes);
  pair.net.run_for(5s);
  // The news that there is room again is lost, all of it for a while; only the sender's probe can bring it.
  bool lossy = true;
  pair.cable.backward->add_rule([&](WireFrame& frame) {
    auto view = TcpView::parse(frame);
    return lossy && view && view->window != 0 ? Verdict::drop : Verdict::pass;
  });
  sink->paused = false;
  pair.net.run_for(100ms);
  lossy = false;
  expect_all(pair, kBytes, 60s);
}

TEST_F(Window, ProbesLastAsLongAsTheyAreAnswered) {
  // RFC 9293, 3.8.6.1: an open connection whose window is shut stays, whatever tcp_retries2 says.
  PairOptions options;
  options.client_settings.tcp_retries2 = 3;
  Pair pair(options);
  ASSERT_TRUE(pair.establish());
  start(pair, kBytes);
  pair.net.run_for(std::chrono::hours(1));
  EXPECT_EQ(source->error(), 0);
  EXPECT_EQ(pair.near->readiness() & ready::kErr, 0u);
  sink->paused = false;
  expect_all(pair, kBytes, 200s);
}

TEST_F(Window, ProbesThatNobodyAnswersEndTheConnection) {
  PairOptions options;
  options.client_settings.tcp_retries2 = 3;
  Pair pair(options);
  ASSERT_TRUE(pair.establish());
  start(pair, kBytes);
  pair.net.run_for(5s);
  pair.server.vanish();
  EXPECT_TRUE(pair.net.run_until([&] { return source->error() != 0; }, 1200s));
  // As on Linux, what ARP has found out meanwhile is told instead of the bare time-out.
  EXPECT_TRUE(source->error() == ETIMEDOUT || source->error() == EHOSTUNREACH) << source->error();
  pair.client.clear_applications();
  pair.server.clear_applications();
}

TEST_F(Window, SmallReceiveBufferWorksWithoutSillyWindows) {
  PairOptions options;
  Pair pair(options);
  pair.listener = pair.server.listen(80);
  ASSERT_TRUE(pair.listener.set(SOL_SOCKET, SO_RCVBUF, 8192).ok());
  ASSERT_TRUE(pair.establish());
  int tiny = 0, segments = 0;
  pair.cable.forward->add_rule(count_in(segments, [](const TcpView& t) { return t.payload > 0; }));
  pair.cable.forward->add_rule(
      count_in(tiny, [](const TcpView& t) { return t.payload > 0 && t.payload < 200; }));
  constexpr uint64_t kSmall = 1 << 20;
  start(pair, kSmall);
  sink->paused = false;
  expect_all(pair, kSmall, 600s);
  EXPECT_LT(tiny, segments / 4);
}

}  // namespace
}  // namespace ustack::test
