// The kernel's copy of Steering, run by the kernel.
#include "io/steering_program.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "stack/net/ethernet.h"
#include "stack/net/ipv4.h"
#include "stack/net/ipv6.h"
#include "tests/support/seeded_random.h"

namespace ustack::test {
namespace {

using Packet = std::vector<std::byte>;

/// What the program says of a frame; a negative errno.
long ask(const io::Descriptor& program, const Packet& packet) {
  Packet frame(EthernetHeader::kLength);
  EthernetHeader header;
  header.type = (packet[0] >> 4) == std::byte{6} ? ethertype::kIpv6 : ethertype::kIpv4;
  header.emit(frame.data());
  frame.insert(frame.end(), packet.begin(), packet.end());
  bpf_attr attributes;
  std::memset(&attributes, 0, sizeof attributes);
  attributes.test.prog_fd = static_cast<uint32_t>(program.get());
  attributes.test.data_in = reinterpret_cast<uint64_t>(frame.data());
  attributes.test.data_size_in = static_cast<uint32_t>(frame.size());
  if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof attributes) != 0) return -errno;
  return attributes.test.retval;
}

class SteeringProgramTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  void SetUp() override {
    Result<io::Descriptor> loaded = io::SteeringProgram(steering).load();
    if (loaded.code() == EPERM || loaded.code() == ENOSYS) GTEST_SKIP() << "not allowed to load programs";
    ASSERT_TRUE(loaded.ok()) << loaded.code();
    program = std::move(*loaded);
  }
  void fill(Packet& packet, size_t from) { random.fill(MutableBytes(packet).subspan(from)); }
  Packet ipv4(uint8_t protocol, uint16_t fragment = 0, uint8_t options = 0) {
    Packet packet(60 + options);
    Ipv4Header header;
    header.total_length = static_cast<uint16_t>(packet.size());
    header.protocol = protocol;
    header.emit(packet.data());
    packet[0] = static_cast<std::byte>(0x45 + options / 4);
    store_be16(&packet[6], fragment);
    fill(packet, 12);
    return packet;
  }
  Packet ipv6(uint8_t protocol) {
    Packet packet(80);
    packet[0] = std::byte{0x60};
    store_be16(&packet[4], 40);
    packet[6] = std::byte{protocol};
    fill(packet, 8);
    return packet;
  }

  SeededRandom random{7};
  Steering steering{GetParam(), random};
  io::Descriptor program;
};

TEST_P(SteeringProgramTest, AgreesWithTheStackOnSegments) {
  for (int i = 0; i < 200; ++i) {
    for (uint8_t options : {uint8_t{0}, uint8_t{8}, uint8_t{40}}) {
      const Packet packet = ipv4(IPPROTO_TCP, 0x4000, options);
      ASSERT_EQ(ask(program, packet), steering.shard_of_packet(packet)) << i;
    }
    const Packet packet = ipv6(IPPROTO_TCP);
    ASSERT_EQ(ask(program, packet), steering.shard_of_packet(packet)) << i;
  }
}

TEST_P(SteeringProgramTest, LeavesTheRestToTheFirst) {
  for (const Packet& packet :
       {ipv4(IPPROTO_UDP), ipv4(IPPROTO_ICMP), ipv4(IPPROTO_TCP, 0x2000), ipv4(IPPROTO_TCP, 7),
        ipv6(IPPROTO_UDP), ipv6(IPPROTO_ICMPV6), ipv6(IPPROTO_FRAGMENT)})
    EXPECT_EQ(ask(program, packet), 0);
}

TEST_P(SteeringProgramTest, AShortPacketIsTheFirsts) {
  const Packet whole = ipv4(IPPROTO_TCP);
  for (size_t length = 20; length < 24; ++length)
    EXPECT_EQ(ask(program, Packet(whole.begin(), whole.begin() + static_cast<long>(length))), 0) << length;
}

INSTANTIATE_TEST_SUITE_P(Shards, SteeringProgramTest, ::testing::Values(1u, 2u, 3u, 8u));

}  // namespace
}  // namespace ustack::test
