#include "stack/net/reassembly.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/network_harness.h"
#include "tests/support/packet_matchers.h"

namespace ustack::test {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

std::string text(const ByteVector& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// On an `ip` link with UDP above, so that whole datagrams show as net.udp.packets.
class ReassemblyTest : public ::testing::Test {
 protected:
  /// Bytes [from, to) of `data` as a fragment; MF unless it reaches the end.
  void fragment(const ByteVector& data, size_t from, size_t to, uint16_t id = 1, uint8_t tos = 0) {
    raw({data.begin() + static_cast<ptrdiff_t>(from), data.begin() + static_cast<ptrdiff_t>(to)}, from,
        to < data.size(), id, tos);
  }
  void raw(const ByteVector& payload, size_t offset, bool more, uint16_t id = 1, uint8_t tos = 0) {
    net.receive_ip({.source = kPeer,
                    .destination = kOurs,
                    .protocol = 17,
                    .tos = tos,
                    .id = id,
                    .more_fragments = more,
                    .fragment_offset = static_cast<uint32_t>(offset)},
                   payload);
  }
  /// Sends `count` fragments of 8 bytes that will never be whole, each of its own datagram.
  void lone_fragments(uint16_t first_id, uint16_t count) {
    for (uint16_t i = 0; i < count; ++i) raw(pattern_bytes(8), 0, true, static_cast<uint16_t>(first_id + i));
  }
  std::vector<std::string> delivered() {
    std::vector<std::string> out;
    for (DeliveredPacket& packet : net.udp.packets) out.push_back(std::move(packet.data));
    net.udp.packets.clear();
    return out;
  }
  const Reassembler& reassembler() { return net.network->reassembler(); }
  void expect_nothing_left() {
    EXPECT_EQ(reassembler().size(), 0u);
    EXPECT_EQ(reassembler().memory(), 0u);
    EXPECT_EQ(net.blocks.live(), 0u);
    EXPECT_EQ(net.timers.armed(), 0u);
  }

  NetworkHarness net{{.link = {.kind = LinkInfo::Kind::ip}}};
};

TEST_F(ReassemblyTest, InEveryOrder) {
  ByteVector data = pattern_bytes(100);
  std::vector<size_t> cuts{0, 8, 32, 56, 100}, order{0, 1, 2, 3};
  uint16_t id = 0;
  do {
    ++id;
    for (size_t i : order) {
      EXPECT_THAT(delivered(), IsEmpty());
      fragment(data, cuts[i], cuts[i + 1], id);
    }
    EXPECT_THAT(delivered(), ElementsAre(text(data))) << ::testing::PrintToString(order);
  } while (std::next_permutation(order.begin(), order.end()));
  expect_nothing_left();
  EXPECT_EQ(net.take_counters(), "Ip.InDelivers=24 Ip.ReasmReqds=96 Ip.ReasmOKs=24");
}

TEST_F(ReassemblyTest, DatagramsAreKeptApart) {
  ByteVector one = pattern_bytes(40, 1), two = pattern_bytes(40, 2);
  fragment(one, 0, 16, 1);
  fragment(two, 0, 16, 2);
  Ipv4Fields other{.source = kFar, .destination = kOurs, .protocol = 17, .id = 1, .more_fragments = true};
  net.receive_ip(other, pattern_bytes(16, 3));
  other.source = kPeer;
  other.protocol = 6;
  net.receive_ip(other, pattern_bytes(16, 4));
  other.protocol = 17;
  other.destination = kOurSecond;
  net.receive_ip(other, pattern_bytes(16, 5));
  EXPECT_EQ(reassembler().size(), 5u);
  fragment(two, 16, 40, 2);
  fragment(one, 16, 40, 1);
  EXPECT_THAT(delivered(), ElementsAre(text(two), text(one)));
  EXPECT_EQ(reassembler().size(), 3u);
}

TEST_F(ReassemblyTest, TheLargestPacketThereIs) {
  ByteVector data = pattern_bytes(65515);
  for (size_t at = 0; at < data.size(); at += 1480) fragment(data, at, std::min(data.size(), at + 1480));
  EXPECT_THAT(delivered(), ElementsAre(text(data)));
  expect_nothing_left();
}

TEST_F(ReassemblyTest, EightBytesAtATime) {
  net.settings.ipfrag_high_thresh = 1 << 30;
  ByteVector data = pattern_bytes(20001);
  std::vector<size_t> starts;
  for (size_t at = 0; at < data.size(); at += 8) starts.push_back(at);
  SeededRandom random(5);
  for (size_t i = starts.size(); i > 1; --i) std::swap(starts[i - 1], starts[random.below(i)]);
  for (size_t at : starts) fragment(data, at, std::min(data.size(), at + 8));
  EXPECT_THAT(delivered(), ElementsAre(text(data)));
  expect_nothing_left();
}

TEST_F(ReassemblyTest, TheWholeIsAPacketOfItsOwn) {
  ByteVector data = pattern_bytes(48);
  Ipv4Fields fields{.source = kPeer, .destination = kOurs, .protocol = 17, .ttl = 7, .id = 9};
  fields.options = ByteVector(8, std::byte{1});
  fields.fragment_offset = 24;
  net.receive_ip(fields, {data.begin() + 24, data.end()});
  fields.fragment_offset = 0;
  fields.more_fragments = true;
  fields.ttl = 5;
  net.receive_ip(fields, {data.begin(), data.begin() + 24});
  ASSERT_EQ(net.udp.packets.size(), 1u);
  const Packet& packet = net.udp.packets[0].packet;
  EXPECT_EQ(packet.ttl, 5);  // the first fragment's header
  EXPECT_EQ(packet.network_length, 76u);
  EXPECT_FALSE(packet.checksum_trusted);
  std::vector<std::byte> whole(packet.data.block->data() + packet.network_offset,
                               packet.data.block->data() + packet.network_offset + packet.network_length);
  EXPECT_THAT(CapturedFrame::parse(whole, LinkInfo::Kind::ip),
              Ipv4(TotalLength(76u), MoreFragments(false), FragmentOffset(0u), IpId(9), Payload(text(data))));
}

TEST_F(ReassemblyTest, TrustInFragmentsEndsWithThem) {
  Offload trusted{.partial_checksum = true, .checksum_valid = true};
  ByteVector data = pattern_bytes(24);
  Ipv4Fields fields{.source = kPeer, .destination = kOurs, .protocol = 17, .more_fragments = true};
  net.receive_ip(fields, {data.begin(), data.begin() + 16}, trusted);
  fields.more_fragments = false;
  fields.fragment_offset = 16;
  net.receive_ip(fields, {data.begin() + 16, data.end()}, trusted);
  ASSERT_EQ(net.udp.packets.size(), 1u);
  EXPECT_FALSE(net.udp.packets[0].packet.checksum_trusted);
}

TEST_F(ReassemblyTest, DuplicatesAreIgnored) {
  ByteVector data = pattern_bytes(64);
  fragment(data, 0, 32);
  fragment(data, 0, 32);
  fragment(data, 8, 24);  // within what is there
  fragment(data, 48, 64);
  fragment(data, 48, 64);
  fragment(data, 32, 48);
  EXPECT_THAT(delivered(), ElementsAre(text(data)));
  EXPECT_EQ(net.take_counters(), "Ip.InDelivers=1 Ip.ReasmReqds=6 Ip.ReasmOKs=1");
  expect_nothing_left();
}

TEST_F(ReassemblyTest, OverlapsDropTheWholeDatagram) {
  ByteVector data = pattern_bytes(64);
  const std::pair<size_t, size_t> kOverlapping[] = {{16, 40}, {0, 40}, {24, 48}, {8, 56}, {16, 64}};
  for (auto [from, to] : kOverlapping) {
    fragment(data, 8, 16);
    fragment(data, 24, 40);
    fragment(data, 16 == from ? 0 : 48, 16 == from ? 8 : 56);
    net.take_counters();
    if (from == 24)
      raw(pattern_bytes(24), 32, true);
    else
      fragment(data, from, to);
    EXPECT_EQ(net.take_counters(), "Ip.ReasmReqds=1 Ip.ReasmFails=1 IpExt.ReasmOverlaps=1")
        << from << ' ' << to;
    expect_nothing_left();
  }
}

TEST_F(ReassemblyTest, AfterAnOverlapTheRestIsNotWhole) {
  ByteVector data = pattern_bytes(48);
  fragment(data, 0, 24);
  fragment(data, 16, 32);  // overlap
  fragment(data, 24, 48);
  EXPECT_THAT(delivered(), IsEmpty());
}

TEST_F(ReassemblyTest, EndsThatContradictDropTheDatagram) {
  // Another end, beyond and before; data beyond the end; an end before what is there.
  ByteVector data = pattern_bytes(64);
  struct {
    size_t from, to;
    bool more;
  } const kSecond[] = {{56, 72, false}, {16, 32, false}, {40, 56, true}, {48, 56, true}};
  for (const auto& second : kSecond) {
    raw(pattern_bytes(8), 32, false);  // ends at 40
    net.take_counters();
    raw(pattern_bytes(second.to - second.from), second.from, second.more);
    EXPECT_EQ(net.take_counters(), "Ip.ReasmReqds=1 Ip.ReasmFails=1") << second.from;
    expect_nothing_left();
  }
  raw(pattern_bytes(8), 32, true);
  raw(pattern_bytes(8), 16, false);
  EXPECT_EQ(net.take_counters(), "Ip.ReasmReqds=2 Ip.ReasmFails=1");
  expect_nothing_left();
}

TEST_F(ReassemblyTest, WrongFragmentsAreDropped) {
  struct {
    const char* what;
    size_t length, offset;
    bool more;
  } const kWrong[] = {
      {"empty first", 0, 0, true},          {"empty last", 0, 64, false},
      {"not a multiple of 8", 12, 0, true}, {"past 64 KB: ping of death", 1480, 65528, false},
      {"by one byte", 12, 65504, false},    {"middle past 64 KB", 8, 65528, true},
  };
  for (const auto& wrong : kWrong) {
    raw(pattern_bytes(wrong.length), wrong.offset, wrong.more);
    EXPECT_EQ(reassembler().size(), 0u) << wrong.what;
    EXPECT_EQ(net.take_counters(), "Ip.ReasmReqds=1 Ip.ReasmFails=1") << wrong.what;
  }
}

TEST_F(ReassemblyTest, OptionsCountForTheLargestPacket) {
  // The last fragment fits behind a header of 20 bytes, but not behind the first fragment's 28.
  Ipv4Fields fields{.source = kPeer, .destination = kOurs, .protocol = 17};
  ByteVector data = pattern_bytes(65512);
  for (size_t at = 0; at < data.size(); at += 1480) {
    size_t end = std::min(data.size(), at + 1480);
    fields.fragment_offset = static_cast<uint32_t>(at);
    fields.more_fragments = end < data.size();
    fields.options = at == 0 ? ByteVector(8, std::byte{1}) : ByteVector();
    net.receive_ip(fields,
                   {data.begin() + static_cast<ptrdiff_t>(at), data.begin() + static_cast<ptrdiff_t>(end)});
  }
  EXPECT_THAT(delivered(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ip.ReasmReqds=45 Ip.ReasmFails=1");
  expect_nothing_left();
}

// --- time

TEST_F(ReassemblyTest, ExpiresAndSaysSo) {
  ByteVector data = pattern_bytes(100);
  fragment(data, 0, 48);
  net.advance(20s);
  fragment(data, 56, 72);  // does not prolong it
  net.advance(9900ms);
  EXPECT_EQ(reassembler().size(), 1u);
  EXPECT_THAT(net.take(), IsEmpty());
  net.advance(200ms);
  ByteVector first =
      ipv4_packet({.source = kPeer, .destination = kOurs, .protocol = 17, .more_fragments = true},
                  {data.begin(), data.begin() + 48});
  EXPECT_THAT(net.take(),
              ElementsAre(Ipv4(SrcIs(kOurs), DstIs(kPeer),
                               Icmp(IcmpType(11), IcmpCode(1), IcmpInfo(0u), Payload(text(first))))));
  EXPECT_EQ(net.take_counters(),
            "Ip.ReasmTimeout=1 Ip.ReasmReqds=2 Ip.ReasmFails=1 Icmp.OutMsgs=1 Icmp.OutTimeExcds=1");
  expect_nothing_left();
}

TEST_F(ReassemblyTest, ExpiresInSilenceWithoutTheFirstFragment) {
  net.settings.ipfrag_time = 5;
  fragment(pattern_bytes(100), 48, 100);
  net.advance(5s + 1ms);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ip.ReasmTimeout=1 Ip.ReasmReqds=1 Ip.ReasmFails=1");
  expect_nothing_left();
}

TEST_F(ReassemblyTest, ExpiresInSilenceForBroadcasts) {
  net.receive_ip(
      {.source = kPeer, .destination = IpAddress::broadcast_v4(), .protocol = 17, .more_fragments = true},
      pattern_bytes(8));
  net.advance(31s);
  EXPECT_THAT(net.take(), IsEmpty());
  expect_nothing_left();
}

// --- memory

TEST_F(ReassemblyTest, MemoryIsChargedByTrueSize) {
  raw(pattern_bytes(8), 0, true);
  uint64_t one = reassembler().memory();
  EXPECT_GE(one, 256u + 1024u);  // the block, and the bookkeeping
  EXPECT_LE(one, net.arena.in_use());
  raw(pattern_bytes(8), 16, true);
  EXPECT_GE(reassembler().memory(), one + 256);
}

TEST_F(ReassemblyTest, TheOldestGoesWhenMemoryIsShort) {
  lone_fragments(1, 10);
  net.settings.ipfrag_high_thresh = static_cast<int32_t>(reassembler().memory());
  net.take_counters();
  lone_fragments(100, 1);
  EXPECT_EQ(net.take_counters(), "Ip.ReasmReqds=1 Ip.ReasmFails=1");
  EXPECT_EQ(reassembler().size(), 10u);
  // The second oldest is still there, the oldest begins anew.
  raw(pattern_bytes(8, 9), 8, false, 2);
  EXPECT_EQ(delivered().size(), 1u);
  raw(pattern_bytes(8, 9), 8, false, 1);
  EXPECT_EQ(delivered().size(), 0u);
  EXPECT_LE(reassembler().memory(), static_cast<uint64_t>(net.settings.ipfrag_high_thresh));
}

TEST_F(ReassemblyTest, AFloodStaysWithinTheLimit) {
  net.settings.ipfrag_high_thresh = 100000;
  for (int round = 0; round < 20; ++round) {
    lone_fragments(static_cast<uint16_t>(round * 200), 200);
    EXPECT_LE(reassembler().memory(), 100000u);
  }
  EXPECT_EQ(net.counters.IpReasmFails, 4000u - reassembler().size());
  net.advance(31s);
  EXPECT_EQ(net.take().size(), 6u);  // time exceeded, rate limited
  expect_nothing_left();
}

TEST_F(ReassemblyTest, OneDatagramCanNotTakeMoreThanTheLimit) {
  net.settings.ipfrag_high_thresh = 20000;
  for (size_t at = 0; at < 8000; at += 8) raw(pattern_bytes(8), at, true);
  EXPECT_LE(reassembler().memory(), 20000u);
}

TEST_F(ReassemblyTest, ZeroSwitchesItOff) {
  net.settings.ipfrag_high_thresh = 0;
  fragment(pattern_bytes(64), 0, 32);
  fragment(pattern_bytes(64), 32, 64);
  EXPECT_THAT(delivered(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ip.ReasmReqds=2 Ip.ReasmFails=2");
  expect_nothing_left();
}

TEST_F(ReassemblyTest, OutOfMemoryDropsTheDatagram) {
  ByteVector data = pattern_bytes(2000);
  std::vector<ByteVector> frames;
  for (size_t at : {0, 1000}) {
    frames.push_back(ipv4_packet(
        {.source = kPeer,
         .destination = kOurs,
         .protocol = 17,
         .more_fragments = at == 0,
         .fragment_offset = static_cast<uint32_t>(at)},
        {data.begin() + static_cast<ptrdiff_t>(at), data.begin() + static_cast<ptrdiff_t>(at) + 1000}));
  }
  bool whole = false;
  for (uint64_t allowed = 0; !whole; ++allowed) {
    ASSERT_LT(allowed, 20u);
    std::vector<RxFrame> received;
    for (const ByteVector& frame : frames) {
      RxFrame rx{Slice{net.blocks.allocate(1100), 0, static_cast<uint32_t>(frame.size())}, {}, net.now};
      std::memcpy(rx.data.data(), frame.data(), frame.size());
      received.push_back(std::move(rx));
    }
    net.arena.fail_after(allowed);
    for (RxFrame& frame : received) net.network->receive(std::move(frame));
    net.arena.never_fail();
    whole = !delivered().empty();
    received.clear();
    net.advance(31s);
    expect_nothing_left();
    EXPECT_GE(net.counters.IpReasmFails + net.counters.IpReasmOKs, 1u) << allowed;
    net.counters = {};
    net.take();
  }
}

// --- ECN

TEST_F(ReassemblyTest, CongestionOfAFragmentIsThePackets) {
  struct {
    uint8_t first, second;
    int whole;  // -1: dropped
  } const kCases[] = {{0, 0, 0}, {2, 2, 2}, {1, 1, 1},  {2, 3, 3},  {3, 1, 3},
                      {3, 3, 3}, {2, 1, 2}, {0, 3, -1}, {2, 0, -1}, {0, 1, -1}};
  ByteVector data = pattern_bytes(32);
  for (const auto& c : kCases) {
    fragment(data, 0, 16, 1, static_cast<uint8_t>(0x20 | c.first));
    fragment(data, 16, 32, 1, static_cast<uint8_t>(0x20 | c.second));
    if (c.whole < 0) {
      EXPECT_THAT(net.udp.packets, IsEmpty());
    } else {
      ASSERT_EQ(net.udp.packets.size(), 1u);
      EXPECT_EQ(net.udp.packets[0].packet.tos, 0x20 | c.whole);
    }
    net.udp.packets.clear();
    expect_nothing_left();
  }
}

// --- against a model

TEST_F(ReassemblyTest, RandomCutsAlwaysGiveTheDatagramBack) {
  SeededRandom random(11);
  for (uint16_t id = 1; id < 400; ++id) {
    ByteVector data = pattern_bytes(1 + random.below(5000), static_cast<uint8_t>(id));
    std::vector<std::pair<size_t, size_t>> parts;
    for (size_t at = 0; at < data.size();) {
      size_t end = std::min(data.size(), at + 8 * (1 + random.below(40)));
      parts.emplace_back(at, end);
      if (random.chance(0.2)) parts.emplace_back(at, end);
      at = end;
    }
    if (parts.size() == 1) parts.clear(), fragment(data, 0, data.size(), id);  // not a fragment at all
    for (size_t i = parts.size(); i > 1; --i) std::swap(parts[i - 1], parts[random.below(i)]);
    for (auto [from, to] : parts) fragment(data, from, to, id);
    // Twice when each part came twice after the first time that it was whole.
    EXPECT_THAT(delivered(), AllOf(Not(IsEmpty()), Each(text(data)))) << id;
    net.advance(31s);  // what duplicates have begun after the end
    net.take();
  }
  expect_nothing_left();
}

}  // namespace
}  // namespace ustack::test
