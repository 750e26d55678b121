#include "stack/net/ipv6.h"

#include "stack/net/icmpv6.h"

namespace ustack {

Ipv6Error Ipv6Header::parse(Bytes packet, Ipv6Header& out) {
  if (packet.size() < kLength) return Ipv6Error::short_header;
  Ipv6View view(packet.data());
  if (view.version() != 6) return Ipv6Error::version;
  if (packet.size() < kLength + uint32_t{view.payload_length()}) return Ipv6Error::truncated;
  out.traffic_class = view.traffic_class();
  out.flow_label = view.flow_label();
  out.payload_length = view.payload_length();
  out.next_header = view.next_header();
  out.hop_limit = view.hop_limit();
  out.source = view.source();
  out.destination = view.destination();
  return Ipv6Error::none;
}

void Ipv6Header::emit(std::byte* out) const {
  store_be32(out, 6u << 28 | uint32_t{traffic_class} << 20 | (flow_label & 0xfffff));
  store_be16(out + kPayloadLengthAt, payload_length);
  out[kNextHeaderAt] = std::byte{next_header};
  out[7] = std::byte{hop_limit};
  std::memcpy(out + 8, source.data(), 16);
  std::memcpy(out + 24, destination.data(), 16);
}

void Ipv6Fragment::emit(std::byte* out) const {
  out[0] = std::byte{next_header};
  out[1] = std::byte{0};
  store_be16(out + 2, static_cast<uint16_t>(offset | (more ? 1 : 0)));
  store_be32(out + 4, id);
}

namespace {

// Options of any header (RFC 8200, section 4.2).
constexpr uint8_t kPad1 = 0, kPadN = 1, kRouterAlert = 5;

using Verdict = Ipv6Chain::Verdict;

/// The options of a hop-by-hop or destination options header of `end - at` bytes in all.
Verdict check_options(Bytes packet, uint32_t at, uint32_t end, bool group, uint32_t& pointer) {
  at += 2;
  while (at < end) {
    const auto type = std::to_integer<uint8_t>(packet[at]);
    if (type == kPad1) {
      ++at;
      continue;
    }
    pointer = at;
    if (end - at < 2) return Verdict::discard;
    const uint32_t length = 2 + std::to_integer<uint32_t>(packet[at + 1]);
    if (length > end - at) return Verdict::discard;
    if (type != kPadN && type != kRouterAlert) {
      switch (type >> 6) {
        case 0:
          break;
        case 1:
          return Verdict::discard;
        case 2:
          return Verdict::problem;
        default:
          return group ? Verdict::discard : Verdict::problem;
      }
    }
    at += length;
  }
  return Verdict::ok;
}

bool is_extension(uint8_t protocol) {
  return protocol == ip_protocol::kHopByHop || protocol == ip_protocol::kRouting ||
         protocol == ip_protocol::kFragment || protocol == ip_protocol::kDestinationOptions;
}

/// Of the extension header `protocol` that `rest` begins with; 0: it isn't all there.
uint32_t extension_length(uint8_t protocol, Bytes rest) {
  if (rest.size() < 8) return 0;
  const uint32_t length =
      protocol == ip_protocol::kFragment ? Ipv6Fragment::kLength : 8 + 8 * std::to_integer<uint32_t>(rest[1]);
  return length <= rest.size() ? length : 0;
}

}  // namespace

Bytes Ipv6Chain::skip(Bytes packet, uint8_t& protocol) {
  protocol = Ipv6View(packet.data()).next_header();
  Bytes rest = packet.subspan(Ipv6Header::kLength);
  while (is_extension(protocol)) {
    const uint32_t length = extension_length(protocol, rest);
    if (length == 0) return {};
    protocol = std::to_integer<uint8_t>(rest[0]);
    rest = rest.subspan(length);
  }
  return rest;
}

Ipv6Chain Ipv6Chain::walk(Bytes packet, bool group) {
  Ipv6Chain chain;
  chain.protocol = Ipv6View(packet.data()).next_header();
  chain.offset = Ipv6Header::kLength;
  chain.named_at = Ipv6Header::kNextHeaderAt;
  auto problem = [&chain](uint8_t what, uint32_t where) {
    chain.verdict = Verdict::problem;
    chain.code = what;
    chain.pointer = where;
    return chain;
  };
  auto discard = [&chain] {
    chain.verdict = Verdict::discard;
    return chain;
  };
  while (is_extension(chain.protocol)) {
    // RFC 8200, 4.3: only right behind the IPv6 header.
    if (chain.protocol == ip_protocol::kHopByHop && chain.offset != Ipv6Header::kLength)
      return problem(icmpv6::kUnknownNextHeader, chain.named_at);
    const uint32_t at = chain.offset;
    const uint32_t length = extension_length(chain.protocol, packet.subspan(at));
    if (length == 0) return discard();
    const std::byte* header = &packet[at];
    const auto next = std::to_integer<uint8_t>(header[0]);
    if (chain.protocol == ip_protocol::kHopByHop || chain.protocol == ip_protocol::kDestinationOptions) {
      uint32_t where = 0;
      const Verdict judged = check_options(packet, at, at + length, group, where);
      if (judged == Verdict::discard) return discard();
      if (judged == Verdict::problem) return problem(icmpv6::kUnknownOption, where);
    } else if (chain.protocol == ip_protocol::kFragment) {
      const uint16_t field = load_be16(header + 2);
      chain.part = {.at = at,
                    .named_at = chain.named_at,
                    .next_header = next,
                    .offset = static_cast<uint16_t>(field & 0xfff8),
                    .more = (field & 1) != 0,
                    .id = load_be32(header + 4)};
      // One that is the whole packet is none (RFC 6946).
      if (chain.part.more || chain.part.offset != 0) {
        chain.verdict = Verdict::fragment;
        chain.protocol = next;
        chain.offset = at + length;
        return chain;
      }
    } else if (header[3] != std::byte{0}) {
      // RFC 8200, 4.4 and RFC 5095: this host is nobody's intermediate node.
      return problem(icmpv6::kErroneousField, at + 2);
    }
    chain.named_at = at;
    chain.protocol = next;
    chain.offset = at + length;
  }
  return chain;
}

}  // namespace ustack
