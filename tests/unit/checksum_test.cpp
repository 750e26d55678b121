#include "stack/net/checksum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/seeded_random.h"

namespace ustack {
namespace {

std::vector<std::byte> bytes_of(std::initializer_list<unsigned> values) {
  std::vector<std::byte> bytes;
  for (unsigned v : values) bytes.push_back(static_cast<std::byte>(v));
  return bytes;
}

/// The definition, as slow as it is clear (RFC 1071, section 1).
uint16_t reference(Bytes bytes, uint32_t sum = 0) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    auto value = static_cast<uint32_t>(bytes[i]);
    sum += i % 2 == 0 ? value << 8 : value;
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(~sum);
}

TEST(Checksum, ExampleOfRfc1071) {
  auto data = bytes_of({0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7});
  EXPECT_EQ(checksum_of(data), static_cast<uint16_t>(~0xddf2));
}

TEST(Checksum, Ipv4HeaderThatIncludesItsChecksumSumsToZero) {
  auto header = bytes_of({0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11,
                          0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7});
  EXPECT_EQ(checksum_of(header), 0);
  header[10] = header[11] = std::byte{0};
  EXPECT_EQ(checksum_of(header), 0xb861);
}

TEST(Checksum, EmptyAndAllOnes) {
  EXPECT_EQ(checksum_of({}), 0xffff);
  std::vector<std::byte> ones(64 * 1024 + 7, std::byte{0xff});
  EXPECT_EQ(checksum_of(ones), reference(ones));
}

TEST(Checksum, AgreesWithTheDefinitionAtEveryLengthAndAlignment) {
  test::SeededRandom random(1);
  std::vector<std::byte> data(400);
  random.fill(data);
  for (size_t start = 0; start < 9; ++start)
    for (size_t length = 0; length + start <= 300; ++length) {
      Bytes part(data.data() + start, length);
      ASSERT_EQ(checksum_of(part), reference(part)) << start << ' ' << length;
    }
}

TEST(Checksum, AHeadersIsTheSameInLine) {
  test::SeededRandom random(2);
  std::vector<std::byte> header(20);
  EXPECT_EQ(checksum_of_20(header.data()), 0xffff);
  for (int i = 0; i < 10'000; ++i) {
    random.fill(header);
    // Also such as carry from one end to the other.
    if (i % 3 == 1) std::fill_n(header.begin(), 16, std::byte{0xff});
    if (i % 3 == 2) std::fill_n(header.begin(), 18, std::byte{0xff});
    ASSERT_EQ(checksum_of_20(header.data()), reference(header)) << i;
  }
  std::fill(header.begin(), header.end(), std::byte{0xff});
  EXPECT_EQ(checksum_of_20(header.data()), 0);
}

TEST(Checksum, PiecesOfAnyLengthGiveTheSumOfTheWhole) {
  test::SeededRandom random(2);
  std::vector<std::byte> data(70000);
  random.fill(data);
  for (int round = 0; round < 200; ++round) {
    Bytes rest(data.data(), 1 + random.below(data.size()));
    uint16_t expected = reference(rest);
    Checksum sum;
    while (!rest.empty()) {
      size_t n = std::min<size_t>(random.below(random.chance(0.5) ? 5 : 5000), rest.size());
      sum.add(rest.first(n));
      rest = rest.subspan(n);
    }
    ASSERT_EQ(sum.finish(), expected);
  }
}

TEST(Checksum, EvenPiecesChainThroughChecksumAdd) {
  test::SeededRandom random(3);
  std::vector<std::byte> data(1461);
  random.fill(data);
  Bytes all(data);
  uint32_t sum = checksum_add(all.first(20), 0);
  sum = checksum_add(all.subspan(20, 0), sum);
  sum = checksum_add(all.subspan(20), sum);
  EXPECT_EQ(checksum_finish(sum), reference(all));
}

TEST(Checksum, UpdateOfOneFieldEqualsRecomputing) {
  test::SeededRandom random(4);
  std::vector<std::byte> data(20);
  for (int round = 0; round < 1000; ++round) {
    random.fill(data);
    uint16_t before = checksum_of(data);
    uint16_t old_value = load_be16(&data[4]);
    auto new_value = static_cast<uint16_t>(random.next());
    store_be16(&data[4], new_value);
    // 0x0000 and 0xffff are the same number in ones' complement.
    EXPECT_EQ(checksum_update(before, old_value, new_value) % 0xffff, checksum_of(data) % 0xffff);
  }
}

TEST(Checksum, PseudoHeaderOfBothFamilies) {
  auto segment =
      bytes_of({0x04, 0xd2, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0, 0x61});
  auto v4 = bytes_of({192, 0, 2, 1, 198, 51, 100, 7, 0, 6, 0, 21});
  v4.insert(v4.end(), segment.begin(), segment.end());
  uint32_t sum = pseudo_header_sum(IpAddress::v4(192, 0, 2, 1), IpAddress::v4(198, 51, 100, 7), 6, 21);
  EXPECT_EQ(checksum_finish(checksum_add(segment, sum)), reference(v4));
  Checksum in_pieces(sum);
  in_pieces.add(Bytes(segment).first(7));
  in_pieces.add(Bytes(segment).subspan(7));
  EXPECT_EQ(in_pieces.finish(), reference(v4));

  auto address = bytes_of({0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
  auto v6 = address;
  v6.insert(v6.end(), address.begin(), address.end());
  auto tail = bytes_of({0, 0, 0, 21, 0, 0, 0, 6});
  v6.insert(v6.end(), tail.begin(), tail.end());
  v6.insert(v6.end(), segment.begin(), segment.end());
  IpAddress ip = IpAddress::from_bytes(Family::ipv6, address.data());
  EXPECT_EQ(checksum_finish(checksum_add(segment, pseudo_header_sum(ip, ip, 6, 21))), reference(v6));
}

}  // namespace
}  // namespace ustack
