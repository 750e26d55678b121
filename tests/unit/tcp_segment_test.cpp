#include "stack/tcp/segment.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "stack/base/checksum.h"
#include "stack/net/checksum.h"
#include "tests/support/heap_arena.h"
#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

const IpAddress kPeer = IpAddress::v4(192, 0, 2, 1);
const IpAddress kHost = IpAddress::v4(192, 0, 2, 2);

class TcpSegment : public ::testing::Test {
 protected:
  /// A packet from kPeer:80 to kHost:4000 with a right checksum.
  Packet packet(Header header, std::string_view payload, Bytes options = {}) {
    header.source_port = 80;
    header.destination_port = 4000;
    header.header_length = static_cast<uint32_t>(kMinHeader + options.size());
    std::vector<std::byte> bytes(header.header_length + payload.size());
    header.emit(bytes.data());
    std::copy(options.begin(), options.end(), bytes.begin() + kMinHeader);
    std::memcpy(bytes.data() + header.header_length, payload.data(), payload.size());
    auto length = static_cast<uint32_t>(bytes.size());
    uint32_t sum = pseudo_header_sum(kPeer, kHost, kProtocolNumber, length);
    store_be16(bytes.data() + kChecksumOffset, checksum_finish(checksum_add(bytes, sum)));
    return raw(bytes);
  }
  Packet raw(Bytes bytes) {
    BlockRef block = blocks_.allocate(static_cast<uint32_t>(bytes.size()));
    std::copy(bytes.begin(), bytes.end(), block->data());
    Packet packet;
    packet.source = kPeer;
    packet.destination = kHost;
    packet.data = Slice{std::move(block), 0, static_cast<uint32_t>(bytes.size())};
    packet.protocol = kProtocolNumber;
    packet.ttl = 61;
    packet.tos = 2;
    packet.arrived = Instant(5s);
    return packet;
  }
  /// A segment of `length` payload bytes that counts them: 0, 1, 2, ...
  Segment make(uint32_t seq, Flags flags, uint32_t length) {
    std::string payload;
    for (uint32_t i = 0; i < length; ++i) payload += static_cast<char>('a' + i);
    Segment segment;
    Status status = segment.parse(packet({.seq = SeqNum(seq), .flags = flags}, payload));
    EXPECT_TRUE(status.ok());
    return segment;
  }
  static std::string payload(const Segment& segment) {
    Bytes bytes = segment.payload.bytes();
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  test::HeapArena arena_;
  BlockPool blocks_{arena_};
};

TEST_F(TcpSegment, TakesAllFromThePacket) {
  SegmentOptions options;
  options.timestamps = Timestamps{11, 12};
  std::array<std::byte, kMaxOptions> area;
  uint32_t length = encode_segment_options(options, area);
  Packet in = packet({.seq = SeqNum(1000),
                      .ack = SeqNum(2000),
                      .flags = {.psh = true, .ack = true, .urg = true},
                      .window = 321,
                      .urgent_pointer = 4},
                     "hello", Bytes(area).first(length));
  in.segment_size = 1460;
  Segment segment;
  ASSERT_TRUE(segment.parse(std::move(in)).ok());
  EXPECT_EQ(segment.id, (ConnectionId{{kHost, 4000}, {kPeer, 80}}));
  EXPECT_EQ(segment.seq, SeqNum(1000));
  EXPECT_EQ(segment.ack, SeqNum(2000));
  EXPECT_EQ(segment.flags, (Flags{.psh = true, .ack = true, .urg = true}));
  EXPECT_EQ(segment.window, 321);
  EXPECT_EQ(segment.urgent_end, SeqNum(1004));
  EXPECT_EQ(segment.options, options);
  EXPECT_EQ(payload(segment), "hello");
  EXPECT_EQ(segment.segment_size, 1460);
  EXPECT_EQ(segment.ttl, 61);
  EXPECT_EQ(segment.tos, 2);
  EXPECT_EQ(segment.arrived, Instant(5s));
  EXPECT_EQ(segment.seq_length(), 5u);
  EXPECT_EQ(segment.end_seq(), SeqNum(1005));
}

TEST_F(TcpSegment, ReadsASynsOptions) {
  SynOptions options{.mss = 1400, .window_scale = 9, .sack_permitted = true, .timestamps = Timestamps{1, 0}};
  std::array<std::byte, kMaxOptions> area;
  uint32_t length = encode_syn_options(options, area);
  Segment segment;
  ASSERT_TRUE(
      segment.parse(packet({.seq = SeqNum(7), .flags = {.syn = true}}, "", Bytes(area).first(length))).ok());
  EXPECT_EQ(segment.syn_options, options);
  EXPECT_EQ(segment.seq_length(), 1u);
  EXPECT_EQ(segment.data_seq(), SeqNum(8));
  LogLine line;
  line << segment;
  EXPECT_EQ(
      line.text(),
      "192.0.2.1:80 > 192.0.2.2:4000 [S] seq 7 win 0 <mss 1400 wscale 9 sackOK TS val 1 ecr 0> length 0");
}

TEST_F(TcpSegment, VerifiesTheChecksum) {
  Packet whole = packet({.seq = SeqNum(1), .flags = {.ack = true}}, "odd");
  std::vector<std::byte> bytes(whole.data.bytes().begin(), whole.data.bytes().end());
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<std::byte> damaged = bytes;
    damaged[i] ^= std::byte{0x10};
    Segment segment;
    int code = segment.parse(raw(damaged)).code();
    // A damaged data offset is malformed before it is wrong.
    EXPECT_TRUE(code == EBADMSG || (i == 12 && code == EINVAL)) << "byte " << i << ": " << code;
  }
  Packet other_source = raw(bytes);
  other_source.source = IpAddress::v4(192, 0, 2, 9);
  Segment segment;
  EXPECT_EQ(segment.parse(std::move(other_source)).code(), EBADMSG);
}

TEST_F(TcpSegment, TrustsALinkThatHasVerified) {
  Packet in = packet({.flags = {.ack = true}}, "data");
  in.data.data()[22] ^= std::byte{1};
  in.checksum_trusted = true;
  Segment segment;
  EXPECT_TRUE(segment.parse(std::move(in)).ok());
}

TEST_F(TcpSegment, CountsTheSegmentsOfASuperframe) {
  struct Row {
    uint32_t length;
    uint16_t size;
    uint32_t segments;
  };
  for (Row row : {Row{0, 0, 1}, Row{9, 0, 1}, Row{9, 10, 1}, Row{10, 10, 1}, Row{11, 10, 2}, Row{20, 10, 2},
                  Row{0, 10, 1}}) {
    Segment segment = make(1, {.ack = true}, row.length);
    segment.segment_size = row.size;
    EXPECT_EQ(segment.segments(), row.segments) << row.length << " in " << row.size;
  }
}

TEST_F(TcpSegment, IsAcceptableWhenPartOfItIsInTheWindow) {
  constexpr uint32_t kNxt = 100;
  // Against the definition, number by number; also where sequence numbers wrap.
  for (uint32_t origin : {0u, 0xffffff9cu, 0x7fffff9cu}) {
    for (uint32_t window : {0u, 1u, 5u, 10u}) {
      for (uint32_t length = 0; length < 20; ++length) {
        Segment segment = make(0, {.ack = true}, length);
        for (uint32_t seq = kNxt - 25; seq < kNxt + 20; ++seq) {
          bool expected = false;
          for (uint32_t s = seq; s < seq + length; ++s) expected |= s >= kNxt && s < kNxt + window;
          if (length == 0) expected = window == 0 ? seq == kNxt : seq >= kNxt && seq < kNxt + window;
          segment.seq = SeqNum(origin + seq);
          EXPECT_EQ(segment.is_acceptable(SeqNum(origin + kNxt), window), expected)
              << "seq " << seq << " length " << length << " window " << window;
        }
      }
    }
  }
}

TEST_F(TcpSegment, TrimsSynThenPayloadThenFin) {
  Flags all{.fin = true, .syn = true};
  for (uint32_t n = 0; n <= 5; ++n) {
    Segment segment = make(1000, all, 3);  // SYN a b c FIN
    segment.trim_front(n);
    EXPECT_EQ(segment.seq, SeqNum(1000 + n));
    EXPECT_EQ(segment.seq_length(), 5 - n);
    EXPECT_EQ(segment.flags.syn, n < 1);
    EXPECT_EQ(payload(segment), std::string("abc").substr(n < 1 ? 0 : n > 4 ? 3 : n - 1));
    EXPECT_EQ(segment.flags.fin, n < 5);
  }
}

TEST_F(TcpSegment, TruncatesFinThenPayloadThenSyn) {
  Flags all{.fin = true, .syn = true};
  for (uint32_t n = 0; n <= 5; ++n) {
    Segment segment = make(1000, all, 3);
    segment.truncate(n);
    EXPECT_EQ(segment.seq, SeqNum(1000));
    EXPECT_EQ(segment.seq_length(), n);
    EXPECT_EQ(segment.flags.fin, n == 5);
    EXPECT_EQ(payload(segment), std::string("abc").substr(0, n < 1 ? 0 : n - 1));
    EXPECT_EQ(segment.flags.syn, n > 0);
  }
}

TEST_F(TcpSegment, IsTailoredToTheWindow) {
  struct Row {
    const char* what;
    uint32_t seq, length;
    bool fin;
    uint32_t rcv_nxt, rcv_wnd;
    uint32_t expected_seq;
    const char* expected_payload;
    bool expected_fin;
  };
  const Row rows[] = {
      {"all in the window", 100, 5, true, 100, 10, 100, "abcde", true},
      {"old in front", 97, 5, true, 100, 10, 100, "de", true},
      {"only the FIN is new", 95, 5, true, 100, 10, 100, "", true},
      {"all old", 90, 5, true, 100, 10, 96, "", false},
      {"too long", 100, 5, true, 100, 3, 100, "abc", false},
      {"the FIN is past the window", 100, 5, true, 100, 5, 100, "abcde", false},
      {"the FIN is the last in the window", 100, 5, true, 100, 6, 100, "abcde", true},
      {"covers the window", 98, 8, false, 100, 3, 100, "cde", false},
      {"beyond the window", 110, 5, false, 100, 10, 110, "", false},
      {"closed window", 100, 5, true, 100, 0, 100, "", false},
      {"over the wrap", 0xfffffffe, 5, true, 0, 2, 0, "cd", false},
  };
  for (const Row& row : rows) {
    Segment segment = make(row.seq, {.fin = row.fin, .ack = true}, row.length);
    segment.trim_to_window(SeqNum(row.rcv_nxt), row.rcv_wnd);
    EXPECT_EQ(segment.seq, SeqNum(row.expected_seq)) << row.what;
    EXPECT_EQ(payload(segment), row.expected_payload) << row.what;
    EXPECT_EQ(segment.flags.fin, row.expected_fin) << row.what;
  }
}

TEST_F(TcpSegment, PoolGivesBackWhatItTook) {
  {
    SegmentPool pool(arena_);
    SegmentQueue queue;
    for (uint32_t i = 0; i < 3; ++i) {
      Result<Segment*> segment = pool.receive(packet({.seq = SeqNum(i), .flags = {.ack = true}}, "x"));
      ASSERT_TRUE(segment.ok());
      queue.push_back(**segment);
    }
    EXPECT_EQ(pool.live(), 3u);
    EXPECT_EQ(blocks_.live(), 3u);
    EXPECT_EQ(queue.front()->seq, SeqNum(0));
    pool.release(queue.front());
    EXPECT_EQ(queue.front()->seq, SeqNum(1)) << "a released segment has left its queue";
    while (Segment* segment = queue.pop_front()) pool.release(segment);
    EXPECT_EQ(pool.live(), 0u);
    EXPECT_EQ(blocks_.live(), 0u);

    std::byte nothing[4] = {};
    EXPECT_EQ(pool.receive(raw(nothing)).code(), EINVAL);
    Packet damaged = packet({.flags = {.ack = true}}, "x");
    damaged.data.data()[0] ^= std::byte{1};
    EXPECT_EQ(pool.receive(std::move(damaged)).code(), EBADMSG);
    damaged.data = Slice();
    EXPECT_EQ(pool.live(), 0u);
    EXPECT_EQ(blocks_.live(), 0u);
  }
  SegmentPool starved(arena_);
  Packet in = packet({.flags = {.ack = true}}, "x");
  arena_.fail_after(0);
  EXPECT_EQ(starved.receive(std::move(in)).code(), ENOBUFS);
  arena_.never_fail();
}

TEST_F(TcpSegment, NoInputFaults) {
  test::SeededRandom random(3);
  SegmentPool pool(arena_);
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes(random.below(80));
    random.fill(bytes);
    if (bytes.size() > 12 && random.chance(0.8))
      bytes[12] = static_cast<std::byte>((5 + random.below(11)) << 4);
    Packet in = raw(bytes);
    in.checksum_trusted = true;
    in.segment_size = static_cast<uint16_t>(random.below(3));
    Result<Segment*> segment = pool.receive(std::move(in));
    if (!segment.ok()) continue;
    ++accepted;
    Segment& s = **segment;
    auto nxt = SeqNum(s.seq.value() - 20 + static_cast<uint32_t>(random.below(40)));
    auto window = static_cast<uint32_t>(random.below(40));
    bool acceptable = s.is_acceptable(nxt, window);
    bool empty = s.seq_length() == 0;
    s.trim_to_window(nxt, window);
    if (acceptable && !empty) {
      EXPECT_GT(s.seq_length(), 0u);
      EXPECT_TRUE(s.seq >= nxt && s.end_seq() <= nxt + window);
    }
    pool.release(&s);
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace ustack::tcp
