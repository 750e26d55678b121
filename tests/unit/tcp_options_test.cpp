#include "stack/tcp/options.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

using OptionArea = std::array<std::byte, kMaxOptions>;

std::string hex(Bytes bytes) {
  std::string out;
  for (std::byte b : bytes) {
    out += "0123456789abcdef"[static_cast<unsigned>(b) >> 4];
    out += "0123456789abcdef"[static_cast<unsigned>(b) & 15];
  }
  return out;
}

std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> out;
  std::string digits;
  for (char c : text)
    if (c != ' ') digits += c;
  for (size_t i = 0; i + 1 < digits.size(); i += 2)
    out.push_back(static_cast<std::byte>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  return out;
}

SynOptions parse_syn(std::string_view text) { return parse_syn_options(from_hex(text)); }
SegmentOptions parse_segment(std::string_view text) { return parse_segment_options(from_hex(text)); }

std::string encode(const SynOptions& options) {
  OptionArea area;
  area.fill(std::byte{0xee});
  uint32_t length = encode_syn_options(options, area);
  return hex(Bytes(area).first(length));
}

std::string without_spaces(std::string text) {
  std::erase(text, ' ');
  return text;
}

TEST(TcpSynOptions, EveryCombinationIsLaidOutAsLinuxDoes) {
  struct Row {
    bool mss, sack, ts, ws;
    const char* bytes;
  };
  // MSS 1460, TSval 0x01020304, TSecr 0x05060708, shift 7.
  const Row rows[] = {
      {0, 0, 0, 0, ""},
      {0, 0, 0, 1, "01 030307"},
      {0, 0, 1, 0, "0101 080a 01020304 05060708"},
      {0, 0, 1, 1, "0101 080a 01020304 05060708 01 030307"},
      {0, 1, 0, 0, "0101 0402"},
      {0, 1, 0, 1, "0101 0402 01 030307"},
      {0, 1, 1, 0, "0402 080a 01020304 05060708"},
      {0, 1, 1, 1, "0402 080a 01020304 05060708 01 030307"},
      {1, 0, 0, 0, "020405b4"},
      {1, 0, 0, 1, "020405b4 01 030307"},
      {1, 0, 1, 0, "020405b4 0101 080a 01020304 05060708"},
      {1, 0, 1, 1, "020405b4 0101 080a 01020304 05060708 01 030307"},
      {1, 1, 0, 0, "020405b4 0101 0402"},
      {1, 1, 0, 1, "020405b4 0101 0402 01 030307"},
      {1, 1, 1, 0, "020405b4 0402 080a 01020304 05060708"},
      {1, 1, 1, 1, "020405b4 0402 080a 01020304 05060708 01 030307"},
  };
  for (const Row& row : rows) {
    SynOptions options;
    if (row.mss) options.mss = 1460;
    options.sack_permitted = row.sack;
    if (row.ts) options.timestamps = Timestamps{0x01020304, 0x05060708};
    if (row.ws) options.window_scale = 7;
    EXPECT_EQ(encode(options), without_spaces(row.bytes));
    EXPECT_EQ(parse_syn(row.bytes), options) << row.bytes;
  }
}

TEST(TcpSynOptions, FastOpenComesLastAndIsPadded) {
  struct Row {
    uint8_t length;
    bool experimental;
    const char* bytes;
  };
  const Row rows[] = {
      {0, false, "2202 0101"},
      {4, false, "2206 a1a2a3a4 0101"},
      {8, false, "220a a1a2a3a4a5a6a7a8 0101"},
      {6, false, "2208 a1a2a3a4a5a6"},
      {16, false, "2212 a1a2a3a4a5a6a7a8a9aaabacadaeafb0 0101"},
      {0, true, "fe04f989"},
      {8, true, "fe0cf989 a1a2a3a4a5a6a7a8"},
      {16, true, "fe14f989 a1a2a3a4a5a6a7a8a9aaabacadaeafb0"},
  };
  for (const Row& row : rows) {
    FastOpenCookie cookie;
    cookie.length = row.length;
    cookie.experimental = row.experimental;
    for (uint8_t i = 0; i < row.length; ++i) cookie.bytes[i] = static_cast<std::byte>(0xa1 + i);
    SynOptions options{
        .mss = 1460, .window_scale = 7, .sack_permitted = true, .timestamps = Timestamps{1, 2}};
    std::string before = encode(options);
    options.fast_open = cookie;
    std::string bytes = encode(options);
    EXPECT_EQ(bytes, before + without_spaces(row.bytes));
    EXPECT_LE(bytes.size(), 2 * kMaxOptions);
    EXPECT_EQ(bytes.size() % 8, 0u);
    EXPECT_EQ(parse_syn(bytes), options);
  }
}

TEST(TcpSynOptions, AbsentMssMeansTheFamilysDefault) {
  EXPECT_EQ(parse_syn("").mss_or_default(Family::ipv4), 536);
  EXPECT_EQ(parse_syn("").mss_or_default(Family::ipv6), 1220);
  EXPECT_EQ(parse_syn("02040000").mss_or_default(Family::ipv4), 536);
  EXPECT_EQ(parse_syn("020405b4").mss_or_default(Family::ipv6), 1460);
}

TEST(TcpSynOptions, WindowScaleAboveFourteenIsFourteen) {
  EXPECT_EQ(parse_syn("01 03030e").window_scale, 14);
  EXPECT_EQ(parse_syn("01 03030f").window_scale, 14);
  EXPECT_EQ(parse_syn("01 0303ff").window_scale, 14);
  EXPECT_EQ(parse_syn("01 030300").window_scale, 0);
  EXPECT_EQ(parse_syn("").window_scale, -1);
}

TEST(TcpSynOptions, OddLayoutsAreTolerated) {
  SynOptions mss_and_sack{.mss = 1460, .sack_permitted = true};
  struct Row {
    const char* what;
    const char* bytes;
    SynOptions expected;
  };
  const Row rows[] = {
      {"no padding", "020405b40402", mss_and_sack},
      {"another order", "0402020405b4", mss_and_sack},
      {"many NOPs", "01010101010101020405b4010101010402", mss_and_sack},
      {"what follows the end is not read", "020405b400040208", {.mss = 1460}},
      {"an unknown option is skipped", "020405b4 fd05aabbcc 0402", mss_and_sack},
      {"MD5 is skipped", "020405b4 1312 000102030405060708090a0b0c0d0e0f 0402", mss_and_sack},
      {"the last of a repeated option counts", "02040218 020405b4 0402 0402", mss_and_sack},
      {"length 0 ends it", "0402 0200 05b4", {.sack_permitted = true}},
      {"length 1 ends it", "0402 0201 05b4", {.sack_permitted = true}},
      {"an unknown option of length 0 ends it", "0402 fd00 020405b4", {.sack_permitted = true}},
      {"past the end", "0402 020405", {.sack_permitted = true}},
      {"a kind without length", "0402 02", {.sack_permitted = true}},
      {"MSS of a wrong length is skipped", "02050505b4 0402", {.sack_permitted = true}},
      {"MSS too short", "020305 0402", {.sack_permitted = true}},
      {"window scale of a wrong length", "03040707 0402", {.sack_permitted = true}},
      {"SACK-permitted of a wrong length", "040300 020405b4", {.mss = 1460}},
      {"timestamps of a wrong length", "0809 00000001000000 020405b4", {.mss = 1460}},
      {"SACK blocks mean nothing in a SYN", "050a0000000100000002 020405b4", {.mss = 1460}},
      {"a cookie of 2 bytes is none", "2204aabb 020405b4", {.mss = 1460}},
      {"a cookie of an odd length is none", "2207aabbccddee 020405b4", {.mss = 1460}},
      {"a cookie of 18 bytes is none", "2214 000102030405060708090a0b0c0d0e0f1011 020405b4", {.mss = 1460}},
      {"another experiment", "fe041234 020405b4", {.mss = 1460}},
      {"an experiment without magic", "fe02 fe03f9 020405b4", {.mss = 1460}},
  };
  for (const Row& row : rows) EXPECT_EQ(parse_syn(row.bytes), row.expected) << row.what;
}

TEST(TcpSynOptions, Print) {
  LogLine line;
  line << SynOptions{.mss = 1460, .window_scale = 7, .sack_permitted = true, .timestamps = Timestamps{1, 0}};
  EXPECT_EQ(line.text(), "mss 1460 wscale 7 sackOK TS val 1 ecr 0");
  LogLine none;
  none << SynOptions{};
  EXPECT_EQ(none.text(), "");
}

SackBlock block(uint32_t start, uint32_t end) { return {SeqNum(start), SeqNum(end)}; }

TEST(TcpSegmentOptions, TimestampsAndSackBlocksFit) {
  for (bool timestamps : {false, true}) {
    for (uint8_t count = 0; count <= 4; ++count) {
      SegmentOptions options;
      if (timestamps) options.timestamps = Timestamps{7, 9};
      options.sack_count = count;
      for (uint8_t i = 0; i < count; ++i)
        options.sack_blocks[i] = block(0xfffffff0u + i * 16u, 0xfffffff8u + i * 16u);
      OptionArea area;
      uint32_t length = encode_segment_options(options, area);
      EXPECT_EQ(length, segment_options_length(timestamps, count));
      EXPECT_LE(length, kMaxOptions);
      EXPECT_EQ(length % 4, 0u);

      SegmentOptions parsed = parse_segment_options(Bytes(area).first(length));
      SegmentOptions expected = options;
      // RFC 7323, 3.1 leaves room for three blocks beside timestamps.
      if (timestamps && count == 4) {
        expected.sack_count = 3;
        expected.sack_blocks[3] = {};
      }
      EXPECT_EQ(parsed, expected) << "timestamps " << timestamps << " blocks " << int{count};
    }
  }
}

TEST(TcpSegmentOptions, LaidOutAsLinuxDoes) {
  SegmentOptions options;
  options.timestamps = Timestamps{0x01020304, 0x05060708};
  options.sack_count = 1;
  options.sack_blocks[0] = block(0x11121314, 0x21222324);
  OptionArea area;
  uint32_t length = encode_segment_options(options, area);
  EXPECT_EQ(hex(Bytes(area).first(length)),
            without_spaces("0101 080a 01020304 05060708 0101 050a 11121314 21222324"));
}

TEST(TcpSegmentOptions, OddLayoutsAreTolerated) {
  SegmentOptions timestamps;
  timestamps.timestamps = Timestamps{1, 2};
  SegmentOptions both = timestamps;
  both.sack_count = 1;
  both.sack_blocks[0] = block(3, 4);
  struct Row {
    const char* what;
    const char* bytes;
    SegmentOptions expected;
  };
  const Row rows[] = {
      {"the usual twelve bytes", "0101 080a 00000001 00000002", timestamps},
      {"not padded in front", "080a 00000001 00000002 0000", timestamps},
      {"twelve bytes that are something else", "0101 0402 0402 0402 0402 0402", {}},
      {"SACK first", "050a 00000003 00000004 080a 00000001 00000002", both},
      {"SACK of a wrong length", "050b 00000003 00000004 00 080a 00000001 00000002", timestamps},
      {"SACK without a block", "0502 080a 00000001 00000002", timestamps},
      {"SYN's options", "020405b4 030307 0402 080a 00000001 00000002", timestamps},
      {"length 0", "080a 00000001 00000002 0500", timestamps},
      {"past the end", "080a 00000001 00000002 0512 00000003 00000004", timestamps},
      {"timestamps cut", "0101 080a 00000001 000000", {}},
  };
  for (const Row& row : rows) EXPECT_EQ(parse_segment(row.bytes), row.expected) << row.what;
}

TEST(TcpOptions, NoInputFaultsOrLoops) {
  test::SeededRandom random(2);
  constexpr uint8_t kKinds[] = {0, 1, 2, 3, 4, 5, 8, 19, 34, 254, 253};
  for (int i = 0; i < 50000; ++i) {
    size_t length = random.below(kMaxOptions + 1);
    auto bytes = std::make_unique<std::byte[]>(length);
    for (size_t k = 0; k < length; ++k) {
      // Mostly plausible kinds and lengths, so that the parser gets far.
      bytes[k] = static_cast<std::byte>(random.chance(0.5)   ? kKinds[random.below(std::size(kKinds))]
                                        : random.chance(0.5) ? random.below(20)
                                                             : random.next());
    }
    SynOptions syn = parse_syn_options(Bytes(bytes.get(), length));
    EXPECT_LE(syn.window_scale, 14);
    OptionArea area;
    // What was understood can be said again.
    uint32_t encoded = encode_syn_options(syn, area);
    ASSERT_LE(encoded, kMaxOptions);
    EXPECT_EQ(parse_syn_options(Bytes(area).first(encoded)), syn);

    SegmentOptions segment = parse_segment_options(Bytes(bytes.get(), length));
    ASSERT_LE(segment.sack_count, SegmentOptions::kMaxSackBlocks);
  }
}

}  // namespace
}  // namespace ustack::tcp
