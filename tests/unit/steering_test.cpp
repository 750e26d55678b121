// Which shard a packet is for.
#include "stack/net/steering.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "stack/net/icmp.h"
#include "stack/net/ipv4.h"
#include "tests/support/seeded_random.h"

namespace ustack::test {
namespace {

constexpr uint32_t kShards = 3;

SocketAddress at(uint8_t host, uint16_t port) { return {IpAddress::v4(192, 0, 2, host), port}; }

/// A packet of IPv4 from its header on, with the first bytes of a transport's.
std::vector<std::byte> packet(const SocketAddress& from, const SocketAddress& to, uint8_t protocol,
                              bool more_fragments = false, uint16_t fragment_offset = 0) {
  std::vector<std::byte> bytes(Ipv4Header::kLength + 20);
  Ipv4Header header;
  header.total_length = static_cast<uint16_t>(bytes.size());
  header.protocol = protocol;
  header.source = from.address;
  header.destination = to.address;
  header.more_fragments = more_fragments;
  header.fragment_offset = fragment_offset;
  header.emit(bytes.data());
  store_be16(&bytes[20], from.port);
  store_be16(&bytes[22], to.port);
  return bytes;
}

class SteeringTest : public ::testing::Test {
 protected:
  SeededRandom random{1};
  Steering steering{kShards, random};
};

TEST_F(SteeringTest, SpreadsEvenlyAlsoWherePortsAreAllEven) {
  for (int step : {1, 2}) {
    std::array<int, kShards> counts{};
    for (int i = 0; i < 3000; ++i)
      ++counts[steering.shard_of(at(2, 80), at(1, static_cast<uint16_t>(32768 + i * step)))];
    for (int count : counts) EXPECT_NEAR(count, 1000, 150) << "step " << step;
  }
}

TEST_F(SteeringTest, SpreadsClientsOfOnePort) {
  std::array<int, kShards> counts{};
  for (uint32_t i = 0; i < 3000; ++i)
    ++counts[steering.shard_of(
        at(2, 80), {IpAddress::v4(10, static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i), 1), 40000})];
  for (int count : counts) EXPECT_NEAR(count, 1000, 150);
}

TEST_F(SteeringTest, ASegmentIsItsConnections) {
  for (uint16_t port = 1000; port < 1040; ++port)
    EXPECT_EQ(steering.shard_of_packet(packet(at(1, port), at(2, 80), ip_protocol::kTcp)),
              steering.shard_of(at(2, 80), at(1, port)));
}

TEST_F(SteeringTest, AnErrorIsTheConnectionsThatItIsAbout) {
  for (uint16_t port = 1000; port < 1040; ++port) {
    std::vector<std::byte> about = packet(at(2, 80), at(1, port), ip_protocol::kTcp);
    std::vector<std::byte> error = packet(at(9, 0), at(2, 0), ip_protocol::kIcmp);
    error.resize(Ipv4Header::kLength + IcmpHeader::kLength);
    IcmpHeader{icmp::kUnreachable, icmp::kHostUnreachable, 0}.emit(&error[Ipv4Header::kLength]);
    error.insert(error.end(), about.begin(), about.end());
    EXPECT_EQ(steering.shard_of_packet(error), steering.shard_of(at(2, 80), at(1, port)));
  }
}

TEST_F(SteeringTest, FragmentsAndDatagramsAreTheFirstsAndTheRestAnybodys) {
  for (uint16_t port = 1000; port < 1040; ++port) {
    EXPECT_EQ(steering.shard_of_packet(packet(at(1, port), at(2, 53), ip_protocol::kUdp)), 0);
    EXPECT_EQ(steering.shard_of_packet(packet(at(1, port), at(2, 80), ip_protocol::kTcp, true)), 0);
    EXPECT_EQ(steering.shard_of_packet(packet(at(1, port), at(2, 80), ip_protocol::kTcp, false, 800)), 0);
  }
  std::vector<std::byte> echo = packet(at(1, 0), at(2, 0), ip_protocol::kIcmp);
  IcmpHeader{icmp::kEchoRequest, 0, 1}.emit(&echo[Ipv4Header::kLength]);
  EXPECT_EQ(steering.shard_of_packet(echo), Steering::kAnyShard);
}

TEST_F(SteeringTest, TakesAnyBytes) {
  std::vector<std::byte> whole = packet(at(1, 1000), at(2, 80), ip_protocol::kTcp);
  for (size_t length = 0; length < 24; ++length)
    EXPECT_EQ(steering.shard_of_packet(Bytes(whole).first(length)), Steering::kAnyShard) << length;
  whole[0] = std::byte{0x4f};  // a header longer than the packet
  EXPECT_EQ(steering.shard_of_packet(whole), Steering::kAnyShard);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> junk(static_cast<size_t>(i % 90));
    random.fill(junk);
    const uint8_t shard = steering.shard_of_packet(junk);
    EXPECT_TRUE(shard < kShards || shard == Steering::kAnyShard);
  }
}

TEST_F(SteeringTest, OneShardHasAll) { EXPECT_EQ(Steering().shard_of(at(2, 80), at(1, 1234)), 0); }

}  // namespace
}  // namespace ustack::test
