#include "stack/tcp/header.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

std::string text(Flags flags) {
  LogLine line;
  line << flags;
  return std::string(line.text());
}

TEST(TcpFlags, PrintAsTcpdumpDoes) {
  EXPECT_EQ(text({.syn = true}), "[S]");
  EXPECT_EQ(text({.syn = true, .ack = true}), "[S.]");
  EXPECT_EQ(text({.psh = true, .ack = true}), "[P.]");
  EXPECT_EQ(text({.fin = true, .ack = true}), "[F.]");
  EXPECT_EQ(text({.rst = true}), "[R]");
  EXPECT_EQ(text({.syn = true, .ece = true, .cwr = true}), "[SEW]");
  EXPECT_EQ(text({}), "[none]");
  EXPECT_EQ(text(Flags::from_bits(0xff)), "[FSRP.UEW]");
}

TEST(TcpFlags, BitsAreThoseOfTheHeader) {
  EXPECT_EQ((Flags{.fin = true}.bits()), 0x01);
  EXPECT_EQ((Flags{.syn = true}.bits()), 0x02);
  EXPECT_EQ((Flags{.rst = true}.bits()), 0x04);
  EXPECT_EQ((Flags{.psh = true}.bits()), 0x08);
  EXPECT_EQ((Flags{.ack = true}.bits()), 0x10);
  EXPECT_EQ((Flags{.urg = true}.bits()), 0x20);
  EXPECT_EQ((Flags{.ece = true}.bits()), 0x40);
  EXPECT_EQ((Flags{.cwr = true}.bits()), 0x80);
  for (unsigned bits = 0; bits < 256; ++bits)
    EXPECT_EQ(Flags::from_bits(static_cast<uint8_t>(bits)).bits(), bits);
}

// A SYN as tcpdump -x shows it, with four option words.
constexpr uint8_t kSyn[] = {0x9c, 0x40, 0x00, 0x50, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0,
                            0x90, 0xc2, 0xfa, 0xf0, 0xab, 0xcd, 0x00, 0x07, 1,    2,    3,    4,
                            5,    6,    7,    8,    9,    10,   11,   12,   13,   14,   15,   16};

TEST(TcpHeader, ParsesEachField) {
  Bytes bytes = std::as_bytes(std::span(kSyn));
  Result<Header> header = Header::parse(bytes);
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->source_port, 40000);
  EXPECT_EQ(header->destination_port, 80);
  EXPECT_EQ(header->seq, SeqNum(0x12345678));
  EXPECT_EQ(header->ack, SeqNum(0x9abcdef0));
  EXPECT_EQ(header->flags, (Flags{.syn = true, .ece = true, .cwr = true}));
  EXPECT_EQ(header->window, 0xfaf0);
  EXPECT_EQ(header->urgent_pointer, 7);
  EXPECT_EQ(header->header_length, 36u);
  EXPECT_EQ(HeaderView(bytes.data()).checksum(), 0xabcd);
  Bytes options = header->options(bytes);
  ASSERT_EQ(options.size(), 16u);
  EXPECT_EQ(options.data(), bytes.data() + 20);
}

TEST(TcpHeader, RefusesWhatIsMalformed) {
  struct Row {
    size_t length;
    uint8_t data_offset;
    bool ok;
  };
  for (Row row : {Row{0, 5, false}, Row{1, 5, false}, Row{19, 5, false}, Row{20, 5, true}, Row{20, 4, false},
                  Row{20, 0, false}, Row{20, 6, false}, Row{23, 6, false}, Row{24, 6, true},
                  Row{60, 15, true}, Row{59, 15, false}, Row{1500, 15, true}, Row{1500, 1, false}}) {
    // A heap block of exactly this length, so that a sanitizer sees each byte too far.
    auto bytes = std::make_unique<std::byte[]>(row.length);
    if (row.length > 12) bytes[12] = static_cast<std::byte>(row.data_offset << 4);
    Result<Header> header = Header::parse(Bytes(bytes.get(), row.length));
    EXPECT_EQ(header.ok(), row.ok) << row.length << " bytes, data offset " << int{row.data_offset};
    if (!row.ok) {
      EXPECT_EQ(header.code(), EINVAL);
    }
  }
}

TEST(TcpHeader, WhatIsEmittedParsesBack) {
  test::SeededRandom random(1);
  for (int i = 0; i < 1000; ++i) {
    Header header{.source_port = static_cast<uint16_t>(random.next()),
                  .destination_port = static_cast<uint16_t>(random.next()),
                  .seq = SeqNum(static_cast<uint32_t>(random.next())),
                  .ack = SeqNum(static_cast<uint32_t>(random.next())),
                  .flags = Flags::from_bits(static_cast<uint8_t>(random.next())),
                  .window = static_cast<uint16_t>(random.next()),
                  .urgent_pointer = static_cast<uint16_t>(random.next()),
                  .header_length = static_cast<uint32_t>(20 + 4 * random.below(11))};
    std::vector<std::byte> bytes(header.header_length, std::byte{0xee});
    header.emit(bytes.data());
    EXPECT_EQ(HeaderView(bytes.data()).checksum(), 0);
    if (bytes.size() > 20) {
      EXPECT_EQ(bytes[20], std::byte{0xee}) << "options are the caller's";
    }
    Result<Header> parsed = Header::parse(bytes);
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, header);
  }
}

}  // namespace
}  // namespace ustack::tcp
