// IPv6 packets that came in: checked, reassembled, handed up (RFC 8200; Linux's ipv6_rcv).
#include "stack/net/network.h"

namespace ustack {

/// One of the groups that every node is in, or by which our addresses are asked for (RFC 4291, 2.8).
bool Network::is_own_group(const IpAddress& group) const {
  if (group == all_nodes()) return true;
  for (const Prefix& own : addresses())
    if (own.address.is_v6() && solicited_node(own.address) == group) return true;
  return false;
}

void Network::receive_ipv6(ReceivedV6&& received) {
  Counters& counters = context_.counters;
  if (!has_ipv6()) {
    ++counters.UstackRxNotForUs;
    return;
  }
  if (context_.shards != nullptr && hand_over(received)) return;
  if (!received.counted) {
    ++counters.Ip6InReceives;
    counters.Ip6InOctets += received.packet.length;
  }
  Ipv6Header& header = received.header;
  switch (Ipv6Header::parse(received.packet.bytes(), header)) {
    case Ipv6Error::none:
      break;
    case Ipv6Error::truncated:
      ++counters.Ip6InTruncatedPkts;
      return;
    case Ipv6Error::short_header:
    case Ipv6Error::version:
      ++counters.Ip6InHdrErrors;
      return;
  }
  received.packet.truncate(header.total_length());
  if (!received.counted) count_ecn(header.traffic_class, Family::ipv6);

  const bool group = header.destination.is_multicast();
  if (group ? !is_own_group(header.destination) : !is_own_address(header.destination)) {
    // Groups on an Ethernet reach many who have not asked for them.
    ++(group ? counters.UstackRxNotForUs : counters.Ip6InAddrErrors);
    return;
  }
  // Sources that nobody can have, and packets from ourselves that come over the link; what is for one node
  // only may not be sent to all of the link's (ipv6_rcv_core). An unspecified source is asking for an address
  // (RFC 4862), which ICMPv6 looks at.
  const bool from_ourselves =
      !received.from_self && (header.source.is_loopback() || is_own_address(header.source));
  const bool loopback_on_wire = header.destination.is_loopback() && !received.from_self;
  if (header.source.is_multicast() || from_ourselves || loopback_on_wire ||
      (received.link_broadcast && !group)) {
    ++counters.UstackRxMartians;
    return;
  }
  if (group && !received.counted) ++counters.Ip6InMcastPkts;

  received.chain = Ipv6Chain::walk(received.packet.bytes(), group);
  if (received.chain.verdict == Ipv6Chain::Verdict::fragment) {
    received.packet = reassembler_.add(header, received.chain.part, std::move(received.packet));
    if (!received.packet.block) return;
    if (Ipv6Header::parse(received.packet.bytes(), header) != Ipv6Error::none) return;
    received.chain = Ipv6Chain::walk(received.packet.bytes(), group);
    received.offload = {};
    received.handed_over = false;
    received.counted = true;
    if (context_.shards != nullptr && hand_over(received)) return;
  }
  switch (received.chain.verdict) {
    case Ipv6Chain::Verdict::ok:
      deliver(std::move(received));
      return;
    case Ipv6Chain::Verdict::problem:
      ++counters.Ip6InHdrErrors;
      send_problem(received);
      return;
    case Ipv6Chain::Verdict::discard:
    case Ipv6Chain::Verdict::fragment:  // of fragments
      ++counters.Ip6InDiscards;
      return;
  }
}

Packet Network::make_packet(const ReceivedV6& received) {
  const Ipv6Header& header = received.header;
  Packet packet;
  packet.source = header.source;
  packet.destination = header.destination;
  packet.data = received.packet.sub(received.chain.offset, received.packet.length - received.chain.offset);
  packet.protocol = received.chain.protocol;
  packet.ttl = header.hop_limit;
  packet.tos = header.traffic_class;
  packet.checksum_trusted = received.trusted();
  if (received.offload.segmentation != Offload::Segmentation::none)
    packet.segment_size = received.offload.segment_size;
  packet.arrived = received.arrived;
  packet.network_offset = received.packet.offset;
  packet.network_length = received.packet.length;
  return packet;
}

void Network::send_problem(const ReceivedV6& received) {
  send_icmpv6_error(make_packet(received), icmpv6::kParameterProblem, received.chain.code,
                    received.chain.pointer);
}

void Network::deliver(ReceivedV6&& received) {
  Counters& counters = context_.counters;
  const uint8_t protocol = received.chain.protocol;
  if (protocol == ip_protocol::kIcmpV6) {
    ++counters.Ip6InDelivers;
    receive_icmpv6(received);
    return;
  }
  if (protocol == ip_protocol::kNoNextHeader) return;
  TransportProtocol* transport = transports_[protocol];
  if (transport == nullptr) {
    ++counters.Ip6InUnknownProtos;
    received.chain.code = icmpv6::kUnknownNextHeader;
    received.chain.pointer = received.chain.named_at;
    send_problem(received);
    return;
  }
  ++counters.Ip6InDelivers;
  // RFC 9293, 3.9.2.3: TCP answers nothing that was not sent to one host, or by none.
  const bool group = received.header.destination.is_multicast();
  if ((group && protocol != ip_protocol::kUdp) || received.header.source.is_unspecified()) return;
  Packet packet = make_packet(received);
  received.packet = {};
  transport->on_packet(std::move(packet), context_.now);
}

}  // namespace ustack
