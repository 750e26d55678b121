// Sweeps: how much of a bottleneck one or several flows get, and how fairly, over loss, round trip and
// buffer, for each congestion control. Virtual time, so the numbers are exact: tests/scenario/sweep writes
// them all to tests/scenario/SWEEP.md, where a change shows as a diff. Here some of its corners are bounded.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "stack/tcp/congestion.h"
#include "stack/tcp/endpoint.h"
#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

struct Network {
  double loss;
  Duration rtt;
  /// Of the bottleneck's queue, in bandwidth-delay products.
  double buffer;
};

struct Outcome {
  /// Of what the bottleneck could have carried.
  double goodput = 0;
  /// Jain's index: 1 if all flows got the same.
  double fairness = 0;
  /// The longest time in which a flow's receiver got nothing.
  Duration stall{0};
  /// By how much a sender with something in flight, that heard nothing either, was silent for longer than its
  /// RTO.
  Duration overdue{0};
};

constexpr uint64_t kRate = 20'000'000;
constexpr uint32_t kFrame = 1514, kPayload = 1448;

/// Long enough for the flows to find their shares.
Duration length_of(const Network& network) { return std::max<Duration>(10s, 100 * network.rtt); }

Outcome run(std::string_view congestion, int flows, const Network& network) {
  auto bdp = static_cast<uint32_t>(static_cast<double>(kRate / 8) *
                                   std::chrono::duration<double>(network.rtt).count());
  Impairments forward{.loss = network.loss,
                      .delay = network.rtt / 2,
                      .rate_bps = kRate,
                      .queue_bytes = std::max(static_cast<uint32_t>(bdp * network.buffer), 4 * kFrame)};
  Settings settings;
  settings.tcp_congestion_control = congestion;
  Pair pair(
      {.seed = 3, .forward = forward, .backward = {.delay = network.rtt / 2}, .client_settings = settings});
  TestSocket listener = pair.server.listen(80);
  std::vector<TestSocket> ends;
  std::vector<std::unique_ptr<PatternSender>> senders;
  std::vector<std::unique_ptr<PatternReceiver>> receivers;
  Outcome outcome;
  for (int i = 0; i < flows; ++i) {
    TestSocket near = pair.client.connect(pair.server, 80);
    TestSocket far;
    pair.net.run_until([&] { return (far || (far = listener.accept())) && near.connected(); }, 100s);
    if (!far || !near) {
      ADD_FAILURE() << "no connection";
      return outcome;
    }
    Pattern pattern(i);
    receivers.push_back(std::make_unique<PatternReceiver>(pair.server, *far.get(), pattern));
    senders.push_back(std::make_unique<PatternSender>(pair.client, *near.get(), pattern, uint64_t{1} << 40));
    ends.push_back(std::move(near));
    ends.push_back(std::move(far));
  }
  // A stall is longer than an RTO if the sender doesn't act on that.
  std::vector<TestSocket*> near_ends;
  for (size_t i = 0; i < ends.size(); i += 2) near_ends.push_back(&ends[i]);
  std::vector<uint64_t> before;
  for (auto& receiver : receivers) before.push_back(receiver->received());
  struct Progress {
    uint64_t bytes = 0;
    Instant at{};
  };
  std::vector<Progress> progress(receivers.size());
  Instant start = pair.net.now();
  for (Progress& each : progress) each.at = start;
  Duration length = length_of(network);
  pair.net.run_until(
      [&] {
        for (size_t i = 0; i < receivers.size(); ++i) {
          if (receivers[i]->received() == progress[i].bytes) continue;
          outcome.stall = std::max(outcome.stall, pair.net.now() - progress[i].at);
          progress[i] = {receivers[i]->received(), pair.net.now()};
        }
        for (TestSocket* end : near_ends) {
          const tcp::Tcb& tcb = static_cast<tcp::Endpoint&>(*end->get()).tcb();
          if (tcb.snd.idle_flight()) continue;
          Instant since = std::max(tcb.snd.last_sent(), tcb.last_heard);
          outcome.overdue = std::max(outcome.overdue, pair.net.now() - since - tcb.snd.rtt.rto());
        }
        return false;
      },
      length);
  double sum = 0, squares = 0;
  for (size_t i = 0; i < receivers.size(); ++i) {
    EXPECT_TRUE(receivers[i]->intact());
    outcome.stall = std::max(outcome.stall, pair.net.now() - progress[i].at);
    auto bytes = static_cast<double>(receivers[i]->received() - before[i]);
    sum += bytes;
    squares += bytes * bytes;
  }
  double possible =
      static_cast<double>(kRate) / 8 * kPayload / kFrame * std::chrono::duration<double>(length).count();
  // The timer wheel's tick is 1 ms.
  EXPECT_LE(outcome.overdue, 2ms);
  outcome.goodput = sum / possible;
  outcome.fairness = squares > 0 ? sum * sum / (flows * squares) : 0;
  pair.client.clear_applications();
  pair.server.clear_applications();
  return outcome;
}

constexpr double kLosses[] = {0, 0.001, 0.01, 0.03, 0.1};
constexpr Duration kRoundTrips[] = {100us, 1ms, 20ms, 100ms, 300ms};
constexpr double kBuffers[] = {0.1, 1, 10};

/// The whole table, on standard output.
void print_table() {
  std::printf(
      "# Sweeps\n\nGoodput in percent of a bottleneck of 20 Mbit/s over 10 s or 100 round trips, with Jain's "
      "fairness index for\nseveral flows, and the longest time in ms in which a receiver got nothing (of its "
      "stream's next bytes); no sender with\nsomething in flight is silent for longer than its RTO. The "
      "queue "
      "is in bandwidth-delay products (at least four\nframes). Written by tests/scenario/sweep.\n");
  for (const tcp::CongestionAlgorithm& algorithm : tcp::congestion_algorithms()) {
    for (int flows : {1, 4}) {
      std::printf("\n## %s, %d flow%s\n\n| RTT, queue |", std::string(algorithm.name).c_str(), flows,
                  flows > 1 ? "s" : "");
      for (double loss : kLosses) std::printf(" %g %% loss |", loss * 100);
      std::printf("\n| --- | --- | --- | --- | --- | --- |\n");
      for (Duration rtt : kRoundTrips) {
        for (double buffer : kBuffers) {
          std::printf("| %g ms, %g |", std::chrono::duration<double, std::milli>(rtt).count(), buffer);
          for (double loss : kLosses) {
            Outcome outcome = run(algorithm.name, flows, {loss, rtt, buffer});
            std::printf(" %.1f", outcome.goodput * 100);
            if (flows > 1) std::printf(", %.2f", outcome.fairness);
            std::printf(", %ld |", static_cast<long>(outcome.stall / 1ms));
          }
          std::printf("\n");
          std::fflush(stdout);
        }
      }
    }
  }
}

TEST(Sweep, Table) {
  if (std::getenv("USTACK_SWEEP") == nullptr) GTEST_SKIP() << "tests/scenario/sweep runs it";
  print_table();
}

struct Bound {
  std::string_view congestion;
  int flows;
  Network network;
  double goodput, fairness;
};
void PrintTo(const Bound& bound, std::ostream* out) {
  *out << bound.congestion << ", " << bound.flows << " flows, loss " << bound.network.loss << ", "
       << bound.network.rtt / 1us << " us, " << bound.network.buffer << " BDP";
}

class SweepCorner : public testing::TestWithParam<Bound> {};

TEST_P(SweepCorner, IsNotBelowItsBound) {
  const Bound& bound = GetParam();
  Outcome outcome = run(bound.congestion, bound.flows, bound.network);
  std::printf("    goodput %.1f %%, fairness %.3f, longest stall %ld ms\n", outcome.goodput * 100,
              outcome.fairness, static_cast<long>(outcome.stall / 1ms));
  EXPECT_GE(outcome.goodput, bound.goodput);
  EXPECT_GE(outcome.fairness, bound.fairness);
}

INSTANTIATE_TEST_SUITE_P(
    All, SweepCorner,
    testing::Values(Bound{"cubic", 1, {0, 20ms, 1}, 0.9, 1}, Bound{"reno", 1, {0, 20ms, 1}, 0.9, 1},
                    Bound{"bbr", 1, {0, 20ms, 1}, 0.9, 1}, Bound{"bbr", 1, {0, 20ms, 0.1}, 0.7, 1},
                    Bound{"bbr", 1, {0.01, 100ms, 1}, 0.7, 1}, Bound{"bbr", 4, {0, 20ms, 1}, 0.9, 0.9},
                    Bound{"cubic", 4, {0, 20ms, 1}, 0.95, 0.9}));

}  // namespace
}  // namespace ustack::test
