#include "stack/tcp/window.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

TEST(TcpWindow, PromisesHalfOfTheSpace) {
  EXPECT_EQ(free_window(131072, 0), 65536u);
  EXPECT_EQ(free_window(131072, 131070), 1u);
  EXPECT_EQ(free_window(131072, 131072), 0u);
  EXPECT_EQ(free_window(131072, 200000), 0u);
  EXPECT_EQ(space_from_window(window_from_space(4096)), 4096u);
}

TEST(TcpInitialWindow, AsLinuxSelectsIt) {
  struct Row {
    const char* what;
    InitialWindowInput in;
    InitialWindow expected;
  };
  const Row rows[] = {
      // Seen on Linux 6 with default settings: win 64240, wscale 7.
      {"defaults", {.space = 65536, .mss = 1460, .largest_buffer = 6291456}, {64240, 7, 65535 << 7}},
      {"no scaling",
       {.space = 65536, .mss = 1460, .scaling = false, .largest_buffer = 6291456},
       {64240, 0, 65535}},
      {"a SYN's field isn't scaled",
       {.space = 1 << 20, .mss = 1460, .largest_buffer = 6291456},
       {65535, 7, 65535 << 7}},
      {"a small buffer", {.space = 2000, .mss = 1460, .largest_buffer = 0}, {1460, 0, 65535}},
      {"less than a segment", {.space = 1000, .mss = 1460, .largest_buffer = 0}, {1000, 0, 65535}},
      {"nothing", {}, {0, 0, 65535}},
      {"clamped", {.space = 65536, .mss = 1000, .clamp = 5500, .largest_buffer = 6291456}, {5000, 0, 5500}},
      {"just below the next scale",
       {.space = 65535, .mss = 1460, .largest_buffer = (1 << 17) - 1},
       {64240, 1, 65535 << 1}},
      {"just at the next scale",
       {.space = 65535, .mss = 1460, .largest_buffer = 1 << 17},
       {64240, 2, 65535 << 2}},
      {"no more than 14",
       {.space = 65535, .mss = 1460, .largest_buffer = 0xffffffff},
       {64240, 14, 65535 << 14}},
  };
  for (const Row& row : rows) {
    InitialWindow result = select_initial_window(row.in);
    EXPECT_EQ(result.window, row.expected.window) << row.what;
    EXPECT_EQ(result.scale, row.expected.scale) << row.what;
    EXPECT_EQ(result.clamp, row.expected.clamp) << row.what;
  }
}

TEST(TcpInitialWindow, TheScaleReachesTheLargestBuffer) {
  for (uint32_t largest = 1; largest < kMaxWindow; largest += 1 + largest / 3) {
    InitialWindow result = select_initial_window({.space = 65536, .mss = 1460, .largest_buffer = largest});
    EXPECT_GE(result.clamp, largest / 2) << largest;
    EXPECT_LE(result.scale, 14) << "RFC 7323, 2.3";
  }
}

TEST(TcpReceiveWindow, AvoidsSillyWindows) {
  struct Row {
    const char* what;
    ReceiveWindowInput in;
    uint32_t expected;
  };
  const Row rows[] = {
      {"an empty buffer", {.free = 60000, .buffer = 60000, .mss = 1460}, 60000},
      {"nothing is free", {.free = 0, .buffer = 60000, .mss = 1460}, 0},
      {"less than a segment is free", {.free = 1459, .buffer = 60000, .mss = 1460}, 0},
      {"a segment is free", {.free = 1460, .buffer = 60000, .mss = 1460}, 1460},
      {"half of a small buffer is free", {.free = 500, .buffer = 1000, .mss = 1460}, 500},
      {"less than half of a small buffer", {.free = 499, .buffer = 1000, .mss = 1460}, 0},
      {"the edge would move by less than a segment",
       {.free = 11000, .buffer = 60000, .mss = 1460, .promised = 10000},
       10000},
      {"the edge moves by a segment",
       {.free = 11460, .buffer = 60000, .mss = 1460, .promised = 10000},
       11460},
      {"a promise is kept when nothing is free",
       {.free = 0, .buffer = 60000, .mss = 1460, .promised = 10000},
       10000},
      {"a promise is kept when less is free",
       {.free = 5000, .buffer = 60000, .mss = 1460, .promised = 10000},
       10000},
      {"a kept promise is rounded up",
       {.free = 0, .buffer = 60000, .mss = 1460, .promised = 10001, .scale = 7},
       10112},
      {"an offer is rounded down", {.free = 60001, .buffer = 120000, .mss = 1460, .scale = 7}, 59904},
      {"a unit larger than a segment", {.free = 20000, .buffer = 1 << 30, .mss = 1460, .scale = 14}, 16384},
      {"clamped", {.free = 60000, .buffer = 60000, .mss = 1460, .clamp = 30000}, 30000},
      {"what the field can hold", {.free = 1 << 20, .buffer = 1 << 20, .mss = 1460}, 65535},
      {"a clamp takes no promise back",
       {.free = 60000, .buffer = 60000, .mss = 1460, .promised = 40000, .clamp = 30000},
       40000},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(select_receive_window(row.in), row.expected) << row.what;
  }
}

TEST(TcpReceiveWindow, TheRightEdgeNeverMovesLeft) {
  test::SeededRandom random(8);
  for (uint8_t scale : std::array<uint8_t, 4>{0, 1, 7, 14}) {
    // RCV.NXT and RCV.ADV of a connection that receives and reads at random, as its peer sees them.
    uint64_t rcv_nxt = 0, peer_edge = 0;
    uint32_t buffered = 0, buffer = 200000;
    uint32_t largest_step = 0;
    for (int i = 0; i < 20000; ++i) {
      auto promised = static_cast<uint32_t>(peer_edge - rcv_nxt);
      uint32_t window = select_receive_window({.free = buffer > buffered ? buffer - buffered : 0,
                                               .buffer = buffer,
                                               .mss = 1460,
                                               .promised = promised,
                                               .scale = scale});
      uint16_t field = window_field(window, scale);
      ASSERT_EQ(uint32_t{field} << scale, window) << "what is said is what is meant";
      uint64_t edge = rcv_nxt + (uint64_t{field} << scale);
      ASSERT_GE(edge, peer_edge);
      if (edge > peer_edge && edge - peer_edge >= (uint64_t{1} << scale)) {
        ASSERT_GE(edge - peer_edge, 1460u) << "the edge moves in steps of a segment";
      }
      largest_step = std::max(largest_step, static_cast<uint32_t>(edge - peer_edge));
      peer_edge = edge;
      // The peer uses some of it, the program reads some.
      auto sent = static_cast<uint32_t>(random.below(peer_edge - rcv_nxt + 1));
      rcv_nxt += sent;
      buffered += sent;
      if (random.chance(0.1)) buffer = static_cast<uint32_t>(5000 + random.below(300000));
      buffered -= static_cast<uint32_t>(random.below(buffered + 1));
    }
    EXPECT_GT(largest_step, 1460u);
  }
}

TEST(TcpSendDecision, SillyWindowsNagleAndCork) {
  struct Row {
    const char* what;
    SendDecisionInput in;
    bool expected;
  };
  // D unsent, U usable, MSS 1000, the peer's largest window 60000.
  auto input = [](uint32_t unsent, uint32_t usable) {
    SendDecisionInput in;
    in.unsent = unsent;
    in.usable = usable;
    in.mss = 1000;
    in.max_window = 60000;
    return in;
  };
  auto with = [](SendDecisionInput in, auto change) {
    change(in);
    return in;
  };
  auto in_flight = [](SendDecisionInput& in) { in.in_flight = true; };
  auto small = [](SendDecisionInput& in) { in.in_flight = in.small_in_flight = true; };
  auto nodelay = [](SendDecisionInput& in) { in.in_flight = in.small_in_flight = in.nodelay = true; };
  auto cork = [](SendDecisionInput& in) { in.cork = in.nodelay = true; };
  auto fin = [](SendDecisionInput& in) { in.in_flight = in.small_in_flight = in.cork = in.fin = true; };
  const Row rows[] = {
      {"nothing to send", input(0, 5000), false},
      {"a closed window", input(5000, 0), false},
      {"a whole segment", with(input(1000, 5000), small), true},
      {"more than a segment, corked", with(input(2500, 5000), cork), true},
      {"a small segment, nothing in flight", input(10, 5000), true},
      {"a small segment behind whole ones", with(input(10, 5000), in_flight), true},
      {"a small segment behind a small one", with(input(10, 5000), small), false},
      {"TCP_NODELAY", with(input(10, 5000), nodelay), true},
      {"a small segment, corked", with(input(10, 5000), cork), false},
      {"the last small segment", with(input(10, 5000), fin), true},
      {"a FIN alone", with(input(0, 5000), fin), true},
      {"a FIN alone into a closed window", with(input(0, 0), fin), true},
      {"a FIN behind bytes into a closed window", with(input(10, 0), fin), false},
      {"the window holds less than there is", input(900, 500), false},
      {"the same with TCP_NODELAY", with(input(900, 500), nodelay), false},
      {"half of the largest window",
       with(input(900, 500), [](SendDecisionInput& in) { in.max_window = 1000; }), true},
      {"half of it, but something is in flight",
       with(input(900, 500), [](SendDecisionInput& in) { in.max_window = 1000, in.in_flight = true; }),
       false},
      {"less than half of it", with(input(900, 499), [](SendDecisionInput& in) { in.max_window = 1000; }),
       false},
  };
  for (const Row& row : rows) EXPECT_EQ(should_send(row.in), row.expected) << row.what;
}

TEST(TcpSuperframe, IsMadeOfWholeSegments) {
  constexpr uint32_t kMss = 1448, kHeaders = 52, kLink = 65535;
  constexpr uint32_t kMost = (kLink - kHeaders) / kMss * kMss;
  struct Row {
    const char* what;
    uint32_t unsent, usable, max_superframe;
    bool hold_short;
    uint32_t expected;
  };
  const Row rows[] = {
      {"nothing", 0, 100000, kLink, false, 0},
      {"a closed window", 100000, 0, kLink, false, 0},
      {"less than a segment", 100, 100000, kLink, false, 100},
      {"all that is queued, with a short end", 5000, 100000, kLink, false, 5000},
      {"Nagle holds the short end", 5000, 100000, kLink, true, 3 * kMss},
      {"whole segments have no short end", 3 * kMss, 100000, kLink, true, 3 * kMss},
      {"less than a segment is should_send's", 100, 100000, kLink, true, 100},
      {"the link's limit", 1000000, 1000000, kLink, false, kMost},
      {"exactly the link's limit", kMost, 1000000, kLink, false, kMost},
      {"the window's limit", 1000000, 5000, kLink, false, 3 * kMss},
      {"a window of less than a segment", 1000000, 500, kLink, false, 500},
      {"exactly a segment's window", 1000000, kMss, kLink, false, kMss},
      {"no segmentation by the link", 1000000, 1000000, 1500, false, kMss},
      {"none at all", 1000000, 1000000, 0, false, kMss},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(superframe_payload({.unsent = row.unsent,
                                  .usable = row.usable,
                                  .mss = kMss,
                                  .max_superframe = row.max_superframe,
                                  .header_length = kHeaders,
                                  .hold_short = row.hold_short}),
              row.expected)
        << row.what;
  }
}

}  // namespace
}  // namespace ustack::tcp
