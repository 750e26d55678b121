#include "tests/support/emulator.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "stack/base/checksum.h"
#include "stack/net/checksum.h"
#include "stack/net/segmentation.h"
#include "tests/support/pattern.h"

namespace ustack::test {
namespace {

WireFrame numbered(uint8_t n, size_t size = 100) {
  WireFrame frame;
  frame.bytes.resize(size);
  frame.bytes[20] = std::byte{n};
  return frame;
}

struct Wire {
  explicit Wire(const Impairments& impairments, uint64_t seed = 1)
      : emulator(events, impairments, seed,
                 [this](WireFrame frame) { out.emplace_back(events.now(), std::move(frame)); }) {}
  EventQueue events{Instant(10s)};
  std::vector<std::pair<Instant, WireFrame>> out;
  Emulator emulator;
};

TEST(Emulator, PassesEverythingAtOnceByDefault) {
  Wire wire({});
  for (uint8_t i = 0; i < 100; ++i) wire.emulator.input(numbered(i));
  ASSERT_EQ(wire.out.size(), 100U);
  EXPECT_EQ(wire.out[99].second.bytes[20], std::byte{99});
}

TEST(Emulator, LosesAboutTheShareAskedFor) {
  Wire wire({.loss = 0.1});
  for (int i = 0; i < 10000; ++i) wire.emulator.input(numbered(0));
  EXPECT_EQ(wire.out.size() + wire.emulator.counters().lost, 10000U);
  EXPECT_NEAR(static_cast<double>(wire.emulator.counters().lost), 1000, 120);
}

TEST(Emulator, SameSeedDrawsTheSameLots) {
  auto run = [](uint64_t seed) {
    Wire wire({.loss = 0.3, .duplicate = 0.1, .corrupt = 0.1, .reorder = 0.1, .delay = 1ms, .jitter = 1ms},
              seed);
    for (int i = 0; i < 500; ++i) {
      wire.emulator.input(numbered(static_cast<uint8_t>(i)));
      wire.events.advance_to(wire.events.now() + 100us);
    }
    wire.events.advance_to(wire.events.now() + 1s);
    std::vector<std::pair<Instant, std::byte>> trace;
    for (auto& [when, frame] : wire.out) trace.emplace_back(when, frame.bytes[20]);
    return trace;
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(Emulator, DelaysAndKeepsTheOrderUnderJitter) {
  Wire wire({.delay = 10ms, .jitter = 5ms});
  Instant start = wire.events.now();
  for (uint8_t i = 0; i < 50; ++i) wire.emulator.input(numbered(i));
  EXPECT_TRUE(wire.out.empty());
  wire.events.advance_to(start + 15ms);
  ASSERT_EQ(wire.out.size(), 50U);
  for (uint8_t i = 0; i < 50; ++i) {
    EXPECT_EQ(wire.out[i].second.bytes[20], std::byte{i});
    EXPECT_GE(wire.out[i].first, start + 10ms);
  }
}

TEST(Emulator, ReorderedFramesAreOvertaken) {
  Wire wire({.reorder = 0.2, .reorder_by = 1ms});
  for (uint8_t i = 0; i < 100; ++i) wire.emulator.input(numbered(i));
  wire.events.advance_to(wire.events.now() + 1s);
  ASSERT_EQ(wire.out.size(), 100U);
  int inversions = 0;
  for (size_t i = 1; i < 100; ++i)
    inversions += wire.out[i].second.bytes[20] < wire.out[i - 1].second.bytes[20];
  EXPECT_GT(inversions, 0);
  EXPECT_GT(wire.emulator.counters().reordered, 5U);
}

TEST(Emulator, CorruptionTurnsOneBitOver) {
  Wire wire({.corrupt = 1});
  wire.emulator.input(numbered(0));
  ASSERT_EQ(wire.out.size(), 1U);
  int bits = 0;
  for (std::byte b : wire.out[0].second.bytes) bits += __builtin_popcount(std::to_integer<unsigned>(b));
  EXPECT_EQ(bits, 1);
}

TEST(Emulator, RateLimitSpacesFramesAndTheQueueOverflows) {
  // 100 bytes at 8 Mbit/s take 100 us.
  Wire wire({.rate_bps = 8'000'000, .queue_frames = 5});
  Instant start = wire.events.now();
  for (uint8_t i = 0; i < 10; ++i) wire.emulator.input(numbered(i));
  wire.events.advance_to(start + 1s);
  ASSERT_EQ(wire.out.size(), 5U);
  EXPECT_EQ(wire.emulator.counters().queue_drops, 5U);
  EXPECT_EQ(wire.out[4].first, start + 500us);
}

TEST(Emulator, ArmedRuleDropsExactlyWhatItNames) {
  Wire wire({});
  wire.emulator.add_rule(
      [seen = 0](WireFrame&) mutable { return ++seen == 3 ? Verdict::drop : Verdict::pass; });
  for (uint8_t i = 1; i <= 5; ++i) wire.emulator.input(numbered(i));
  ASSERT_EQ(wire.out.size(), 4U);
  EXPECT_EQ(wire.out[2].second.bytes[20], std::byte{4});
  EXPECT_EQ(wire.emulator.counters().rule_drops, 1U);
}

TEST(Emulator, ImpairmentsAreReadFromText) {
  Impairments impairments;
  set_impairment(impairments, "loss", "2%");
  set_impairment(impairments, "delay", "10ms");
  set_impairment(impairments, "rate", "100mbit");
  EXPECT_DOUBLE_EQ(impairments.loss, 0.02);
  EXPECT_EQ(impairments.delay, Duration(10ms));
  EXPECT_EQ(impairments.rate_bps, 100'000'000U);
  EXPECT_THROW(set_impairment(impairments, "loss", "150%"), std::invalid_argument);
  EXPECT_THROW(set_impairment(impairments, "delay", "10"), std::invalid_argument);
  EXPECT_THROW(set_impairment(impairments, "delay", "soon"), std::invalid_argument);
  EXPECT_THROW(set_impairment(impairments, "colour", "red"), std::invalid_argument);
}

/// An Ethernet/IPv4/TCP superframe with a partial checksum, as a TAP with TSO hands it over.
WireFrame superframe(size_t payload, uint16_t mss, uint8_t flags) {
  WireFrame frame;
  frame.bytes.resize(14 + 20 + 32 + payload);
  std::byte* ip = frame.bytes.data() + 14;
  ip[0] = std::byte{0x45};
  store_be16(ip + 2, static_cast<uint16_t>(20 + 32 + payload));
  store_be16(ip + 4, 0xfffe);
  ip[8] = std::byte{64};
  ip[9] = std::byte{6};
  store_be32(ip + 12, 0xc0000201);
  store_be32(ip + 16, 0xc0000202);
  std::byte* tcp = ip + 20;
  store_be32(tcp + 4, 0xfffffff0);
  tcp[12] = std::byte{0x80};
  tcp[13] = std::byte{flags};
  Pattern(5).fill(0, MutableBytes(tcp + 32, payload));
  frame.offload = {.partial_checksum = true,
                   .segmentation = Offload::Segmentation::tcp_v4,
                   .checksum_start = 34,
                   .checksum_offset = 16,
                   .segment_size = mss,
                   .header_length = 66};
  return frame;
}

TEST(TcpSegmenter, CutsASuperframeAsALinkWould) {
  WireFrame whole = superframe(3500, 1448, 0x19 | 0x80);  // CWR, PSH, ACK, FIN
  TcpSegmenter cut(whole.bytes, whole.offload, 14);
  ASSERT_TRUE(cut.valid());
  std::vector<std::byte> out(cut.largest());
  uint64_t at = 0;
  for (int i = 0; !cut.done(); ++i) {
    size_t size = cut.next(out);
    size_t payload = i < 2 ? 1448 : 604;
    ASSERT_EQ(size, 66 + payload);
    const std::byte* ip = out.data() + 14;
    const std::byte* tcp = ip + 20;
    EXPECT_EQ(load_be16(ip + 2), size - 14);
    EXPECT_EQ(load_be16(ip + 4), static_cast<uint16_t>(0xfffe + i));
    EXPECT_EQ(checksum_of(Bytes(ip, 20)), 0);
    EXPECT_EQ(load_be32(tcp + 4), static_cast<uint32_t>(0xfffffff0 + at));
    uint8_t flags = i == 0 ? 0x90 : i == 1 ? 0x10 : 0x19;
    EXPECT_EQ(std::to_integer<int>(tcp[13]), flags);
    uint32_t sum = pseudo_header_sum(IpAddress::v4(0xc0000201), IpAddress::v4(0xc0000202), 6,
                                     static_cast<uint32_t>(size - 34));
    EXPECT_EQ(checksum_finish(checksum_add(Bytes(tcp, size - 34), sum)), 0);
    EXPECT_TRUE(Pattern(5).matches(at, Bytes(tcp + 32, payload)));
    at += payload;
  }
  EXPECT_EQ(at, 3500U);
}

TEST(TcpSegmenter, RefusesWhatIsNoSuperframe) {
  WireFrame good = superframe(3000, 1448, 0x10);
  auto refused = [](Bytes bytes, const Offload& offload, uint32_t ip_offset = 14) {
    TcpSegmenter cut(bytes, offload, ip_offset);
    return !cut.valid() && cut.done();
  };
  EXPECT_FALSE(refused(good.bytes, good.offload));
  for (size_t size = 0; size <= 66; ++size)
    EXPECT_TRUE(refused(Bytes(good.bytes).first(size), good.offload)) << size;
  Offload no_mss = good.offload;
  no_mss.segment_size = 0;
  EXPECT_TRUE(refused(good.bytes, no_mss));
  WireFrame other = good;
  other.bytes[14] = std::byte{0x65};  // version 6
  EXPECT_TRUE(refused(other.bytes, other.offload));
  other = good;
  other.bytes[23] = std::byte{17};  // UDP
  EXPECT_TRUE(refused(other.bytes, other.offload));
  other = good;
  other.bytes[14 + 20 + 12] = std::byte{0x10};  // data offset 4
  EXPECT_TRUE(refused(other.bytes, other.offload));
}

TEST(CompleteChecksum, RefusesPositionsOutsideTheFrame) {
  std::vector<std::byte> bytes(40);
  Offload offload{.partial_checksum = true, .checksum_start = 34, .checksum_offset = 16};
  EXPECT_FALSE(complete_checksum(bytes, offload));
  offload.checksum_start = 20;
  EXPECT_TRUE(complete_checksum(bytes, offload));
  EXPECT_EQ(load_be16(bytes.data() + 36), 0xffff);
}

}  // namespace
}  // namespace ustack::test
