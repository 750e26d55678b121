// Which shard of a host a packet is for (stack/shards.h).
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/bytes.h"
#include "stack/base/random.h"
#include "stack/net/address.h"

namespace ustack {

/// A function of a connection's four-tuple that links can be told, too (io/steering_program.h), so that
/// packets arrive where they belong. Keyed, so that peers can't aim at one shard by accident; it isn't made
/// to resist one that tries.
class Steering {
 public:
  /// A packet that whoever has it may keep.
  static constexpr uint8_t kAnyShard = 0xff;

  /// One shard.
  Steering() = default;
  /// `shards`: 1 to 255.
  Steering(uint32_t shards, RandomSource& random);

  uint32_t shards() const { return shards_; }
  /// Odd factors of the remote address, the local one and both ports.
  const std::array<uint32_t, 3>& key() const { return key_; }
  /// The shard of a TCP connection. An address counts by its words' exclusive or.
  uint8_t shard_of(const SocketAddress& local, const SocketAddress& remote) const {
    return shard_of(fold(local.address), fold(remote.address), uint32_t{remote.port} << 16 | local.port);
  }
  /// The shard of a packet that came in, from its IP header on: a TCP segment's connection's, also of one
  /// that an ICMP error is about. UDP's is 0, and that of fragments, which are put together there.
  uint8_t shard_of_packet(Bytes packet) const;

  // What links compute.
  static constexpr uint32_t kSpread = 0x9e3779b1;
  static constexpr uint32_t kFirstShift = 15, kSecondShift = 16;

 private:
  static uint32_t fold(const IpAddress& address);
  static uint32_t fold(Bytes address);
  uint8_t shard_of(uint32_t local, uint32_t remote, uint32_t ports) const;
  uint8_t shard_of_ipv4(Bytes packet, bool sent) const;
  uint8_t shard_of_ipv6(Bytes packet, bool sent) const;
  uint8_t shard_of_segment(Bytes source, Bytes destination, Bytes segment, bool sent) const;

  uint32_t shards_ = 1;
  std::array<uint32_t, 3> key_{1, 1, 1};
};

}  // namespace ustack
