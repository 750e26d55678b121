// Streams of bytes between two hosts, over networks of every kind of badness, with the content checked.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "stack/base/checksum.h"
#include "stack/base/sanitizers.h"
#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

/// `full` where the build is fast, less of it in debug and sanitizer builds; USTACK_TEST_BYTES overrides the
/// large ones.
uint64_t amount(uint64_t full) {
#ifdef NDEBUG
  constexpr uint64_t kPart = kAddressSanitizer || kThreadSanitizer ? 64 : 1;
#else
  constexpr uint64_t kPart = kAddressSanitizer || kThreadSanitizer ? 64 : 16;
#endif
  if (const char* text = std::getenv("USTACK_TEST_BYTES"); text != nullptr && full >= (1 << 30))
    return std::strtoull(text, nullptr, 10);
  return full / kPart;
}

/// Sends `bytes` from one end to the other and expects them whole, in order, followed by the end of the
/// stream. Returns the virtual time that it took.
Duration transfer(Pair& pair, TestSocket& from, TestHost& sender, TestSocket& to, TestHost& receiver,
                  uint64_t bytes, Duration limit) {
  Pattern pattern(bytes);
  auto source = std::make_unique<PatternSender>(sender, *from.get(), pattern, bytes);
  auto sink = std::make_unique<PatternReceiver>(receiver, *to.get(), pattern);
  Instant start = pair.net.now();
  pair.net.run_until([&] { return sink->at_end() || sink->error() != 0 || source->error() != 0; }, limit);
  EXPECT_TRUE(sink->intact());
  EXPECT_EQ(sink->received(), bytes);
  EXPECT_TRUE(sink->at_end());
  EXPECT_EQ(sink->error(), 0);
  EXPECT_EQ(source->error(), 0);
  pair.client.clear_applications();
  pair.server.clear_applications();
  return pair.net.now() - start;
}

void report(const char* what, uint64_t bytes, Duration time) {
  double seconds = std::chrono::duration<double>(time).count();
  std::printf("    %s: %.1f MB in %.3f s of virtual time, %.1f Mbit/s\n", what,
              static_cast<double>(bytes) / 1e6, seconds, static_cast<double>(bytes) * 8 / 1e6 / seconds);
}

TEST(Transfer, OneGigabyteUnderFivePercentLossAndReordering) {
  Impairments bad{.loss = 0.05, .reorder = 0.02, .reorder_by = 2ms, .delay = 1ms, .jitter = 200us};
  Pair pair({.seed = 5, .forward = bad, .backward = bad});
  ASSERT_TRUE(pair.establish(80, 60s));
  uint64_t bytes = amount(1 << 30);
  Duration time =
      transfer(pair, pair.near, pair.client, pair.far, pair.server, bytes, std::chrono::hours(24));
  report("5 % loss, reordering", bytes, time);
  EXPECT_GT(pair.client.counters().TcpRetransSegs, 0u);
  EXPECT_GT(pair.server.counters().TcpExtTCPOFOQueue, 0u);
}

struct Badness {
  const char* name;
  Impairments impairments;
  uint64_t bytes = 16 << 20;
};
void PrintTo(const Badness& badness, std::ostream* out) { *out << badness.name; }

class TransferOver : public testing::TestWithParam<Badness> {};

TEST_P(TransferOver, BothWays) {
  const Impairments& bad = GetParam().impairments;
  for (bool upload : {true, false}) {
    Pair pair({.seed = 11, .forward = bad, .backward = bad});
    ASSERT_TRUE(pair.establish(80, 60s));
    uint64_t bytes = amount(GetParam().bytes);
    Duration time = upload ? transfer(pair, pair.near, pair.client, pair.far, pair.server, bytes, 7200s)
                           : transfer(pair, pair.far, pair.server, pair.near, pair.client, bytes, 7200s);
    report(upload ? "up" : "down", bytes, time);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Badness, TransferOver,
    testing::Values(Badness{"clean", {.delay = 50us}}, Badness{"delay", {.delay = 20ms}},
                    Badness{"jitter", {.delay = 5ms, .jitter = 5ms}},
                    Badness{"loss1", {.loss = 0.01, .delay = 1ms}},
                    Badness{"loss20", {.loss = 0.2, .delay = 1ms}, 2 << 20},
                    Badness{"reorder", {.reorder = 0.1, .reorder_by = 3ms, .delay = 1ms}},
                    Badness{"duplicate", {.duplicate = 0.1, .delay = 1ms}},
                    Badness{"corrupt", {.corrupt = 0.02, .delay = 1ms}},
                    Badness{"rate", {.delay = 10ms, .rate_bps = 50'000'000, .queue_bytes = 64 * 1024}},
                    Badness{"everything",
                            {.loss = 0.03,
                             .duplicate = 0.03,
                             .corrupt = 0.01,
                             .reorder = 0.05,
                             .delay = 5ms,
                             .jitter = 5ms,
                             .rate_bps = 100'000'000,
                             .queue_frames = 100}}),
    [](const auto& instance) { return std::string(instance.param.name); });

/// Links with and without offloads at each end; MTUs from the smallest to the largest.
struct LinkCase {
  const char* name;
  LinkInfo client, server;
};
void PrintTo(const LinkCase& link, std::ostream* out) { *out << link.name; }

LinkInfo link(uint16_t mtu, bool checksum, bool tso, LinkInfo::Kind kind = LinkInfo::Kind::ethernet) {
  return LinkInfo{.kind = kind,
                  .mtu = mtu,
                  .checksum_offload = checksum,
                  .tcp_segmentation_v4 = tso,
                  .tcp_segmentation_v6 = tso};
}

class TransferBetween : public testing::TestWithParam<LinkCase> {};

TEST_P(TransferBetween, WholeSuperframesOrCutByTheWire) {
  // A clean wire carries superframes whole; a cutting one makes of them what a switch would see.
  for (bool cut : {false, true}) {
    Impairments wire{.delay = 500us, .segment = cut};
    Pair pair({.forward = wire,
               .backward = wire,
               .client_link = GetParam().client,
               .server_link = GetParam().server});
    ASSERT_TRUE(pair.establish());
    uint64_t bytes = amount(32 << 20) / (GetParam().client.mtu < 1000 ? 8 : 1);
    size_t largest = 0;
    uint16_t mtu = std::min(GetParam().client.mtu, GetParam().server.mtu);
    uint32_t header = GetParam().client.kind == LinkInfo::Kind::ethernet ? 14 : 0;
    bool oversized = false;
    auto rule = [&](WireFrame& frame) {
      largest = std::max(largest, frame.bytes.size());
      if (frame.offload.segmentation == Offload::Segmentation::none)
        oversized |= frame.bytes.size() > mtu + header;
      else
        oversized |= frame.offload.segment_size + frame.offload.header_length > mtu + header;
      return Verdict::pass;
    };
    pair.cable.forward->add_rule(rule);
    pair.cable.backward->add_rule(rule);
    Duration time = transfer(pair, pair.near, pair.client, pair.far, pair.server, bytes, 600s);
    report(cut ? "cut" : "whole", bytes, time);
    EXPECT_FALSE(oversized);
    // On a round trip of 1 ms the buffers have to grow for this.
    EXPECT_LT(time, 40ms);
    if (!cut && GetParam().client.tcp_segmentation_v4) {
      EXPECT_GT(largest, 16 * 1024u) << "TSO is used where it is offered";
    }
    EXPECT_EQ(pair.server.counters().TcpInCsumErrors, 0u);
    EXPECT_EQ(pair.client.counters().TcpRetransSegs, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Links, TransferBetween,
    testing::Values(LinkCase{"plain", link(1500, false, false), link(1500, false, false)},
                    LinkCase{"checksum", link(1500, true, false), link(1500, true, false)},
                    LinkCase{"tso", link(1500, true, true), link(1500, true, true)},
                    LinkCase{"tso_to_plain", link(1500, true, true), link(1500, false, false)},
                    LinkCase{"small_mtu", link(576, false, false), link(576, false, false)},
                    LinkCase{"smaller_at_server", link(9000, true, true), link(1400, false, false)},
                    LinkCase{"jumbo", link(9000, true, true), link(9000, true, true)},
                    LinkCase{"largest", link(65535, false, false), link(65535, false, false)},
                    LinkCase{"bare_ip", link(1500, false, false, LinkInfo::Kind::ip),
                             link(1500, true, true, LinkInfo::Kind::ip)}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST(Transfer, BothDirectionsAtOnce) {
  Impairments bad{.loss = 0.01, .delay = 2ms};
  Pair pair({.forward = bad, .backward = bad});
  ASSERT_TRUE(pair.establish(80, 60s));
  uint64_t bytes = amount(16 << 20);
  PatternSender up(pair.client, *pair.near.get(), Pattern(1), bytes),
      down(pair.server, *pair.far.get(), Pattern(2), bytes);
  PatternReceiver at_server(pair.server, *pair.far.get(), Pattern(1)),
      at_client(pair.client, *pair.near.get(), Pattern(2));
  ASSERT_TRUE(pair.net.run_until([&] { return at_server.at_end() && at_client.at_end(); }, 3600s));
  EXPECT_TRUE(at_server.intact());
  EXPECT_TRUE(at_client.intact());
  EXPECT_EQ(at_server.received(), bytes);
  EXPECT_EQ(at_client.received(), bytes);
  pair.client.clear_applications();
  pair.server.clear_applications();
}

/// A router that fragments everything larger than `mtu` and ignores DF, as broken ones do, and that IPv6 has
/// none; and delivers the pieces last to first.
void fragment_into(const WireFrame& frame, size_t mtu, const std::function<void(WireFrame)>& deliver) {
  constexpr size_t kEthernet = 14, kFragment = 8;
  const auto& bytes = frame.bytes;
  const bool v6 = load_be16(&bytes[12]) == 0x86dd;
  if (bytes.size() <= kEthernet + mtu || (!v6 && load_be16(&bytes[12]) != 0x0800)) return deliver(frame);
  const size_t header = v6 ? 40 : static_cast<size_t>(bytes[kEthernet] & std::byte{15}) * 4;
  const size_t added = v6 ? kFragment : 0;
  const size_t chunk = (mtu - header - added) / 8 * 8, total = bytes.size() - kEthernet - header;
  // One datagram's identification for all; an atomic datagram (DF) may come with 0, so one is made up.
  const uint32_t id = load_be32(&bytes[kEthernet + header + 4]) | 1;
  std::vector<WireFrame> pieces;
  for (size_t offset = 0; offset < total; offset += chunk) {
    size_t length = std::min(chunk, total - offset);
    const bool more = offset + length < total;
    WireFrame piece;
    piece.bytes.assign(bytes.begin(), bytes.begin() + static_cast<long>(kEthernet + header));
    piece.bytes.resize(kEthernet + header + added);
    auto from = bytes.begin() + static_cast<long>(kEthernet + header + offset);
    piece.bytes.insert(piece.bytes.end(), from, from + static_cast<long>(length));
    std::byte* ip = &piece.bytes[kEthernet];
    if (v6) {
      store_be16(ip + 4, static_cast<uint16_t>(kFragment + length));
      ip[header] = std::exchange(ip[6], std::byte{44});
      store_be16(ip + header + 2, static_cast<uint16_t>(offset | (more ? 1 : 0)));
      store_be32(ip + header + 4, id);
    } else {
      store_be16(ip + 2, static_cast<uint16_t>(header + length));
      store_be16(ip + 4, static_cast<uint16_t>(id));
      store_be16(ip + 6, static_cast<uint16_t>(offset / 8 | (more ? 0x2000 : 0)));
      store_be16(ip + 10, 0);
      store_be16(ip + 10, checksum_of(Bytes(ip, header)));
    }
    pieces.insert(pieces.begin(), std::move(piece));
  }
  for (auto& piece : pieces) deliver(std::move(piece));
}

TEST(Transfer, FragmentsAreReassembled) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  pair.client.set_wire([&](WireFrame frame) {
    fragment_into(frame, 576, [&](WireFrame piece) { pair.cable.forward->input(std::move(piece)); });
  });
  uint64_t bytes = amount(4 << 20);
  transfer(pair, pair.near, pair.client, pair.far, pair.server, bytes, 600s);
  const Counters& counters = pair.server.counters();
  EXPECT_GT(counters.IpReasmOKs + counters.Ip6ReasmOKs, bytes / 1500);
  EXPECT_EQ(counters.IpReasmFails + counters.Ip6ReasmFails, 0u);
}

TEST(Transfer, LostFragmentsCostTheSegmentOnly) {
  Pair pair({.forward = {.loss = 0.01, .delay = 1ms}});
  ASSERT_TRUE(pair.establish());
  pair.client.set_wire([&](WireFrame frame) {
    fragment_into(frame, 576, [&](WireFrame piece) { pair.cable.forward->input(std::move(piece)); });
  });
  transfer(pair, pair.near, pair.client, pair.far, pair.server, amount(4 << 20), 3600s);
}

TEST(Transfer, LargerWritesThanTheSendBufferWaitForRoom) {
  Pair pair;
  ASSERT_TRUE(pair.establish());
  ASSERT_TRUE(pair.near.set(SOL_SOCKET, SO_SNDBUF, 8192).ok());
  std::string text(1 << 20, 'x');
  int64_t sent = pair.near.send(text);
  EXPECT_GT(sent, 0);
  EXPECT_LT(sent, 1 << 20);
  EXPECT_FALSE(pair.near.writable());
  EXPECT_EQ(pair.read(pair.far, static_cast<size_t>(sent)).size(), static_cast<size_t>(sent));
  EXPECT_TRUE(pair.net.run_until([&] { return pair.near.writable(); }, kSoon));
}

}  // namespace
}  // namespace ustack::test
