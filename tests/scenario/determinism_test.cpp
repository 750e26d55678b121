// The same seed gives the same trace, to the nanosecond and the byte.
#include <gtest/gtest.h>

#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

struct Outcome {
  uint64_t hash, frames, received;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome life(uint64_t seed) {
  Impairments bad{
      .loss = 0.05, .duplicate = 0.02, .corrupt = 0.01, .reorder = 0.05, .delay = 3ms, .jitter = 2ms};
  Pair pair({.seed = seed, .forward = bad, .backward = bad});
  EXPECT_TRUE(pair.establish(80, 60s));
  PatternSender source(pair.client, *pair.near.get(), Pattern(1), 2 << 20);
  PatternReceiver sink(pair.server, *pair.far.get(), Pattern(1));
  EXPECT_TRUE(pair.net.run_until([&] { return sink.at_end(); }, 3600s));
  EXPECT_TRUE(sink.intact());
  Outcome outcome{pair.net.trace_hash(), pair.net.frames(), sink.received()};
  pair.client.clear_applications();
  pair.server.clear_applications();
  return outcome;
}

TEST(Determinism, SameSeedSameTrace) {
  Outcome first = life(42);
  EXPECT_EQ(life(42), first);
  EXPECT_GT(first.frames, 1000u);
}

TEST(Determinism, AnotherSeedAnotherTrace) { EXPECT_NE(life(42).hash, life(43).hash); }

}  // namespace
}  // namespace ustack::test
