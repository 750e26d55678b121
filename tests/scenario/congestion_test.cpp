// What the congestion controls do with a bottleneck of 20 Mbit/s and 40 ms, beyond how much gets through
// (sweep_test.cpp).
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <memory>
#include <set>
#include <string>

#include "stack/tcp/bbr.h"
#include "stack/tcp/cubic.h"
#include "stack/tcp/endpoint.h"
#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

constexpr uint64_t kRate = 20'000'000;
constexpr Duration kRtt = 40ms;
constexpr uint32_t kBdp = kRate / 8 / 25;
/// What the bottleneck carries of TCP's bytes.
constexpr uint64_t kPayloadRate = kRate / 8 * 1448 / 1514;

struct Options {
  std::string_view congestion = "bbr";
  double loss = 0;
  /// In bandwidth-delay products.
  double buffer = 1;
  /// Of the ACKs, which keep their order: those behind a late one come together with it.
  Duration jitter{};
};

/// One flow through the bottleneck.
class Flow {
 public:
  explicit Flow(const Options& options)
      : pair_({.seed = 7,
               .forward = {.loss = options.loss,
                           .delay = kRtt / 2,
                           .rate_bps = kRate,
                           .queue_bytes = static_cast<uint32_t>(kBdp * options.buffer)},
               .backward = {.delay = kRtt / 2, .jitter = options.jitter},
               .client_settings = with(options.congestion)}) {
    EXPECT_TRUE(pair_.establish());
    receiver_ = std::make_unique<PatternReceiver>(pair_.server, *pair_.far.get(), Pattern(1));
  }
  ~Flow() {
    pair_.client.clear_applications();
    pair_.server.clear_applications();
  }

  void send(uint64_t bytes = uint64_t{1} << 40) {
    sender_ = std::make_unique<PatternSender>(pair_.client, *pair_.near.get(), Pattern(1), bytes, false);
  }
  /// Calls look() every millisecond.
  template <typename Look>
  void watch(Duration time, Look&& look) {
    for (Instant end = now() + time; now() < end;) {
      pair_.net.run_for(1ms);
      look();
    }
  }
  /// Bytes a second that arrive meanwhile.
  double rate_over(Duration time) {
    uint64_t before = receiver_->received();
    pair_.net.run_for(time);
    return static_cast<double>(receiver_->received() - before) / std::chrono::duration<double>(time).count();
  }
  void run_for(Duration time) { pair_.net.run_for(time); }
  /// Nothing gets through for a while from now on.
  void black_out(Duration time) {
    Instant end = now() + time;
    pair_.cable.forward->add_rule(
        [this, end](WireFrame&) { return now() < end ? Verdict::drop : Verdict::pass; });
  }
  Instant now() const { return pair_.net.now(); }
  Pair& pair() { return pair_; }
  const tcp::Sender& sender() { return static_cast<tcp::Endpoint&>(*pair_.near.get()).tcb().snd; }
  const tcp::Bbr& bbr() { return static_cast<const tcp::Bbr&>(*sender().congestion); }

 private:
  static Settings with(std::string_view congestion) {
    Settings settings;
    settings.tcp_congestion_control = congestion;
    return settings;
  }
  Pair pair_;
  std::unique_ptr<PatternReceiver> receiver_;
  std::unique_ptr<PatternSender> sender_;
};

using State = tcp::Bbr::State;

TEST(BbrScenario, StartupFindsTheBandwidthAndDrainsTheQueue) {
  Flow flow({.buffer = 10});
  flow.send();
  EXPECT_EQ(flow.bbr().state(), State::startup);
  flow.watch(1s, [] {});
  EXPECT_GE(flow.bbr().state(), State::down) << "startup and drain are over";
  EXPECT_NEAR(static_cast<double>(flow.bbr().bandwidth()), kPayloadRate, kPayloadRate * 0.05);
  EXPECT_NEAR(static_cast<double>(flow.bbr().min_rtt().count()), kRtt.count(), 2e6);
  EXPECT_LT(flow.sender().rtt.srtt(), 2 * kRtt) << "where there is room for a queue of 400 ms";
}

TEST(BbrScenario, TheCycleProbesForMore) {
  Flow flow({});
  flow.send();
  flow.run_for(1s);
  std::set<State> seen;
  uint64_t highest = 0;
  flow.watch(10s, [&] {
    seen.insert(flow.bbr().state());
    highest = std::max(highest, flow.bbr().pacing_rate());
  });
  EXPECT_EQ(seen, (std::set<State>{State::down, State::cruise, State::refill, State::up, State::probe_rtt}));
  EXPECT_GT(highest, kPayloadRate * 115 / 100);
}

TEST(BbrScenario, ARoundTripIsLookedForEveryFiveSeconds) {
  Flow flow({.buffer = 4});
  flow.send();
  flow.run_for(1s);
  int visits = 0;
  bool inside = false;
  uint32_t least = ~0U;
  Duration time{0};
  flow.watch(21s, [&] {
    bool now_inside = flow.bbr().state() == State::probe_rtt;
    visits += now_inside && !inside;
    inside = now_inside;
    if (!inside) return;
    time += 1ms;
    least = std::min(least, flow.sender().in_flight());
  });
  EXPECT_GE(visits, 3);
  EXPECT_LE(visits, 5);
  EXPECT_LE(least, kBdp * 6 / 10) << "half of a bandwidth-delay product";
  EXPECT_LT(time, visits * 400ms);
}

TEST(BbrScenario, RandomLossIsNotCongestion) {
  Flow bbr({.loss = 0.01}), cubic({.congestion = "cubic", .loss = 0.01});
  bbr.send();
  cubic.send();
  bbr.run_for(2s);
  cubic.run_for(2s);
  EXPECT_GT(bbr.rate_over(20s), kPayloadRate * 0.7);
  EXPECT_LT(cubic.rate_over(20s), kPayloadRate * 0.5) << "else this shows nothing";
}

// draft-ietf-ccwg-bbr, 5.5.9: what comes at once beyond the bandwidth is more to have in flight.
TEST(BbrScenario, BurstsOfAcksDoNotHoldItBack) {
  Flow flow({.buffer = 4, .jitter = 80ms});
  flow.send();
  flow.run_for(5s);
  EXPECT_GT(flow.rate_over(20s), kPayloadRate * 0.8);
}

TEST(BbrScenario, AShallowBufferIsNotKeptFull) {
  Flow flow({.buffer = 0.2});
  flow.send();
  flow.run_for(3s);
  uint32_t before = flow.sender().retransmitted_segments();
  uint64_t sent_before = flow.sender().bytes_sent();
  EXPECT_GT(flow.rate_over(20s), kPayloadRate * 0.75);
  double segments = static_cast<double>(flow.sender().bytes_sent() - sent_before) / 1448;
  EXPECT_LT((flow.sender().retransmitted_segments() - before) / segments, 0.02) << "the loss threshold";
}

TEST(BbrScenario, ATimeOutIsGotOver) {
  Flow flow({});
  flow.send();
  flow.run_for(5s);
  flow.black_out(1500ms);
  flow.run_for(1500ms);
  EXPECT_GT(flow.sender().timeouts(), 0u);
  EXPECT_LE(flow.sender().cwnd(), 4 * flow.sender().mss());
  flow.run_for(4s);
  EXPECT_GT(flow.rate_over(3s), kPayloadRate * 0.85);
}

TEST(BbrScenario, WhatTheProgramLimitsIsNotTheNetworks) {
  Flow flow({});
  flow.send(8'000'000);
  flow.run_for(4s);
  uint64_t before = flow.bbr().bandwidth();
  EXPECT_GT(before, kPayloadRate * 9 / 10);
  // 5 kB every 100 ms.
  const std::string piece(5000, 'p');
  for (int i = 0; i < 100; ++i) {
    flow.pair().near.send(piece);
    flow.run_for(100ms);
  }
  EXPECT_GT(flow.bbr().bandwidth(), before * 9 / 10);
}

TEST(BbrScenario, CanBeChosenInTheMiddle) {
  Flow flow({.congestion = "reno"});
  flow.send();
  flow.run_for(2s);
  std::string name = "bbr";
  ASSERT_TRUE(flow.pair().near->set_option(IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(name))).ok());
  flow.run_for(5s);
  EXPECT_GT(flow.rate_over(5s), kPayloadRate * 0.85);
  EXPECT_GE(flow.bbr().state(), State::down);
  name = "cubic";
  ASSERT_TRUE(flow.pair().near->set_option(IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(name))).ok());
  EXPECT_GT(flow.rate_over(5s), kPayloadRate * 0.85);
}

TEST(BbrScenario, SharesWithCubic) {
  Flow flow({});
  flow.send();
  TestSocket near = flow.pair().client.connect(flow.pair().server, 80), far;
  std::string name = "cubic";
  ASSERT_TRUE(near->set_option(IPPROTO_TCP, TCP_CONGESTION, std::as_bytes(std::span(name))).ok());
  flow.pair().net.run_until(
      [&] { return (far || (far = flow.pair().listener.accept())) && near.connected(); }, 10s);
  ASSERT_TRUE(far);
  PatternReceiver receiver(flow.pair().server, *far.get(), Pattern(2));
  PatternSender sender(flow.pair().client, *near.get(), Pattern(2), uint64_t{1} << 40);
  flow.run_for(5s);
  uint64_t before = receiver.received();
  double bbr = flow.rate_over(40s), cubic = static_cast<double>(receiver.received() - before) / 40;
  EXPECT_GT(bbr / (bbr + cubic), 0.15);
  EXPECT_LT(bbr / (bbr + cubic), 0.85);
  flow.pair().client.clear_applications();
  flow.pair().server.clear_applications();
}

// RFC 9438, 4.2: cwnd is back at W_max after K, and hardly moves there.
TEST(CubicScenario, ComesBackToWhereItWas) {
  Flow flow({.congestion = "cubic"});
  flow.send();
  auto cubic = [&]() -> const tcp::Cubic& {
    return static_cast<const tcp::Cubic&>(*flow.sender().congestion);
  };
  // The queue overflows again and again; slow start's overshoot is past.
  flow.run_for(20s);
  uint32_t known = cubic().w_max();
  ASSERT_TRUE(flow.pair().net.run_until(
      [&] { return cubic().w_max() != known && !flow.sender().recovery().reducing() && cubic().k() > 0; },
      60s));
  uint32_t w_max = cubic().w_max();
  uint32_t after_loss = flow.sender().cwnd();
  EXPECT_NEAR(after_loss, w_max * 0.7, w_max * 0.1);
  auto k = std::chrono::milliseconds(cubic().k());
  // Where the queue is full again, the next reduction follows.
  uint32_t highest = 0, half_way = 0;
  Instant begin = flow.now(), highest_at = begin;
  flow.watch(k * 3 / 2, [&] {
    uint32_t cwnd = flow.sender().cwnd();
    if (half_way == 0 && flow.now() >= begin + k / 2) half_way = cwnd;
    if (cwnd > highest) highest = cwnd, highest_at = flow.now();
  });
  EXPECT_GT(half_way, after_loss + (w_max - after_loss) * 0.6) << "first fast, then slowly";
  EXPECT_NEAR(highest, w_max, w_max * 0.05);
  EXPECT_GT(highest_at - begin, k / 2);
}

// RFC 9406: slow start ends before the queue overflows.
TEST(CubicScenario, SlowStartEndsWithoutLoss) {
  Flow cubic({.congestion = "cubic", .buffer = 10}), reno({.congestion = "reno", .buffer = 10});
  for (Flow* flow : {&cubic, &reno}) {
    flow->send();
    flow->pair().net.run_until([&] { return !flow->sender().congestion->in_slow_start(); }, 10s);
  }
  EXPECT_EQ(cubic.sender().retransmitted_segments(), 0u);
  EXPECT_GT(cubic.sender().cwnd(), kBdp);
  EXPECT_LT(cubic.sender().cwnd(), reno.sender().cwnd() * 0.8) << "Reno fills the queue";
}

}  // namespace
}  // namespace ustack::test
