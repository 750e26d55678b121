#include "stack/net/steering.h"

#include <utility>

#include "stack/net/icmp.h"
#include "stack/net/icmpv6.h"
#include "stack/net/ipv4.h"
#include "stack/net/ipv6.h"

namespace ustack {

Steering::Steering(uint32_t shards, RandomSource& random) : shards_(shards) {
  random.fill(std::as_writable_bytes(std::span(key_)));
  for (uint32_t& factor : key_) factor |= 1;
}

uint32_t Steering::fold(Bytes address) {
  uint32_t folded = 0;
  for (size_t at = 0; at < address.size(); at += 4) folded ^= load_be32(&address[at]);
  return folded;
}

uint32_t Steering::fold(const IpAddress& address) {
  return fold(Bytes(address.data(), address.is_v4() ? 4 : 16));
}

uint8_t Steering::shard_of(uint32_t local, uint32_t remote, uint32_t ports) const {
  uint32_t hash = remote * key_[0] + local * key_[1] + ports * key_[2];
  // The ports of Linux's connect(2) are all odd or all even.
  hash = (hash ^ hash >> kFirstShift) * kSpread;
  return static_cast<uint8_t>((hash >> kSecondShift) % shards_);
}

/// `sent`: the packet is one of ours, quoted by an error.
uint8_t Steering::shard_of_segment(Bytes source, Bytes destination, Bytes segment, bool sent) const {
  if (segment.size() < 4) return kAnyShard;
  uint32_t local = fold(destination), remote = fold(source);
  uint32_t ports = load_be32(segment.data());
  if (sent) {
    std::swap(local, remote);
    ports = ports << 16 | ports >> 16;
  }
  return shard_of(local, remote, ports);
}

uint8_t Steering::shard_of_ipv4(Bytes packet, bool sent) const {
  if (packet.size() < Ipv4Header::kLength) return kAnyShard;
  const Ipv4View header(packet.data());
  if (header.header_length() < Ipv4Header::kLength || packet.size() < header.header_length())
    return kAnyShard;
  if (header.fragment_offset() != 0 || (header.more_fragments() && !sent)) return 0;
  const Bytes payload = packet.subspan(header.header_length());
  switch (header.protocol()) {
    case ip_protocol::kTcp:
      return shard_of_segment(packet.subspan(12, 4), packet.subspan(16, 4), payload, sent);
    case ip_protocol::kUdp:
      return 0;
    case ip_protocol::kIcmp:
      if (sent || payload.size() < IcmpHeader::kLength ||
          !icmp::is_error(std::to_integer<uint8_t>(payload[0])))
        return kAnyShard;
      return shard_of_ipv4(payload.subspan(IcmpHeader::kLength), true);
    default:
      return kAnyShard;
  }
}

uint8_t Steering::shard_of_ipv6(Bytes packet, bool sent) const {
  if (packet.size() < Ipv6Header::kLength) return kAnyShard;
  uint8_t protocol = 0;
  Bytes payload;
  if (sent) {
    payload = Ipv6Chain::skip(packet, protocol);
  } else {
    const Ipv6Chain chain = Ipv6Chain::walk(packet, false);
    if (chain.verdict == Ipv6Chain::Verdict::fragment) return 0;
    if (chain.verdict != Ipv6Chain::Verdict::ok) return kAnyShard;
    protocol = chain.protocol;
    payload = packet.subspan(chain.offset);
  }
  switch (protocol) {
    case ip_protocol::kTcp:
      return shard_of_segment(packet.subspan(8, 16), packet.subspan(24, 16), payload, sent);
    case ip_protocol::kUdp:
      return 0;
    case ip_protocol::kIcmpV6:
      if (sent || payload.size() < IcmpHeader::kLength ||
          !icmpv6::is_error(std::to_integer<uint8_t>(payload[0])))
        return kAnyShard;
      return shard_of_ipv6(payload.subspan(IcmpHeader::kLength), true);
    default:
      return kAnyShard;
  }
}

uint8_t Steering::shard_of_packet(Bytes packet) const {
  if (packet.empty()) return kAnyShard;
  return (packet[0] >> 4) == std::byte{6} ? shard_of_ipv6(packet, false) : shard_of_ipv4(packet, false);
}

}  // namespace ustack
