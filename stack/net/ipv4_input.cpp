// IPv4 packets that came in: checked, reassembled, handed up (RFC 1122, section 3.2.1; Linux's ip_rcv).
#include "stack/net/network.h"

namespace ustack {

Network::Destination Network::classify(const IpAddress& destination) const {
  if (is_own_address(destination)) return Destination::own;
  if (is_broadcast(destination)) return Destination::broadcast;
  return Destination::foreign;
}

/// A source that nobody can have: RFC 1122, 3.2.1.3; Linux's ip_handle_martian_source. A packet from
/// ourselves that comes over the link is somebody else's.
bool Network::is_martian_source(const Received& received) const {
  const IpAddress& source = received.header.source;
  if (source.is_unspecified() || source.is_multicast() || is_broadcast(source)) return true;
  return !received.from_self && (source.is_loopback() || is_own_address(source));
}

void Network::count_ecn(uint8_t tos, Family family) {
  // By codepoint.
  static constexpr uint64_t Counters::*kOfIpv4[] = {&Counters::IpExtInNoECTPkts, &Counters::IpExtInECT1Pkts,
                                                    &Counters::IpExtInECT0Pkts, &Counters::IpExtInCEPkts};
  static constexpr uint64_t Counters::*kOfIpv6[] = {&Counters::Ip6InNoECTPkts, &Counters::Ip6InECT1Pkts,
                                                    &Counters::Ip6InECT0Pkts, &Counters::Ip6InCEPkts};
  ++(context_.counters.*(family == Family::ipv6 ? kOfIpv6 : kOfIpv4)[tos & ecn::kMask]);
}

void Network::receive_ipv4(Received&& received) {
  if (context_.shards != nullptr && hand_over(received)) return;
  Counters& counters = context_.counters;
  if (!received.counted) {
    ++counters.IpInReceives;
    counters.IpExtInOctets += received.packet.length;
  }
  Ipv4Header& header = received.header;
  switch (Ipv4Header::parse(received.packet.bytes(), header)) {
    case Ipv4Error::none:
      break;
    case Ipv4Error::truncated:
      ++counters.IpExtInTruncatedPkts;
      return;
    case Ipv4Error::checksum:
      ++counters.IpExtInCsumErrors;
      [[fallthrough]];
    case Ipv4Error::short_header:
    case Ipv4Error::version:
    case Ipv4Error::header_length:
    case Ipv4Error::total_length:
      ++counters.IpInHdrErrors;
      return;
  }
  received.packet.truncate(header.total_length);
  if (!received.counted) count_ecn(header.tos, Family::ipv4);

  Destination destination = classify(header.destination);
  if (destination == Destination::foreign) {
    ++counters.IpInAddrErrors;
    return;
  }
  // RFC 1122, 3.3.6: a unicast packet in a link-layer broadcast is an error, or an attempt to make many
  // answer.
  bool loopback_on_wire = header.destination.is_loopback() && !received.from_self;
  bool misdirected = received.link_broadcast && destination != Destination::broadcast;
  if (is_martian_source(received) || loopback_on_wire || misdirected) {
    ++counters.UstackRxMartians;
    return;
  }
  if (destination == Destination::broadcast && !received.counted) {
    ++counters.IpExtInBcastPkts;
    counters.IpExtInBcastOctets += header.total_length;
  }
  if (header.header_length > Ipv4Header::kLength) {
    Ipv4Options options = Ipv4Options::check(received.packet.bytes().first(header.header_length));
    if (options.verdict == Ipv4Options::Verdict::malformed) {
      ++counters.IpInHdrErrors;
      send_icmp_error(make_packet(received), icmp::kParameterProblem, 0, uint32_t{options.pointer} << 24);
      return;
    }
    if (options.verdict == Ipv4Options::Verdict::source_routed) {
      ++counters.IpInDiscards;
      return;
    }
  }

  if (header.is_fragment()) {
    received.packet = reassembler_.add(header, std::move(received.packet));
    if (!received.packet.block) return;
    if (Ipv4Header::parse(received.packet.bytes(), header) != Ipv4Error::none) return;
    received.offload = {};
    received.handed_over = false;
    received.counted = true;
    if (context_.shards != nullptr && hand_over(received)) return;
  }
  deliver(std::move(received));
}

Packet Network::make_packet(const Received& received) {
  const Ipv4Header& header = received.header;
  Packet packet;
  packet.source = header.source;
  packet.destination = header.destination;
  packet.data = received.packet.sub(header.header_length, header.payload_length());
  packet.protocol = header.protocol;
  packet.ttl = header.ttl;
  packet.tos = header.tos;
  packet.checksum_trusted = received.trusted();
  if (received.offload.segmentation != Offload::Segmentation::none)
    packet.segment_size = received.offload.segment_size;
  packet.arrived = received.arrived;
  packet.network_offset = received.packet.offset;
  packet.network_length = received.packet.length;
  return packet;
}

void Network::deliver(Received&& received) {
  Counters& counters = context_.counters;
  uint8_t protocol = received.header.protocol;
  if (protocol == ip_protocol::kIcmp) {
    ++counters.IpInDelivers;
    receive_icmp(received);
    return;
  }
  TransportProtocol* transport = transports_[protocol];
  if (transport == nullptr) {
    ++counters.IpInUnknownProtos;
    send_icmp_error(make_packet(received), icmp::kUnreachable, icmp::kProtocolUnreachable, 0);
    return;
  }
  ++counters.IpInDelivers;
  // RFC 9293, 3.9.2.3: TCP answers nothing that was not sent to one host.
  if (protocol == ip_protocol::kTcp && is_broadcast(received.header.destination)) return;
  Packet packet = make_packet(received);
  received.packet = {};
  transport->on_packet(std::move(packet), context_.now);
}

void Network::on_reassembly_expired(void* network, const Slice& first_fragment) {
  auto& self = *static_cast<Network*>(network);
  if (Ipv4View(first_fragment.data()).version() == 6) {
    ReceivedV6 received;
    received.packet = first_fragment;
    if (Ipv6Header::parse(first_fragment.bytes(), received.header) != Ipv6Error::none) return;
    received.chain = Ipv6Chain::walk(first_fragment.bytes(), false);
    self.send_icmpv6_error(make_packet(received), icmpv6::kTimeExceeded, icmpv6::kReassemblyExceeded, 0);
    return;
  }
  Received received;
  received.packet = first_fragment;
  if (Ipv4Header::parse(first_fragment.bytes(), received.header) != Ipv4Error::none) return;
  self.send_icmp_error(make_packet(received), icmp::kTimeExceeded, icmp::kReassemblyExceeded, 0);
}

}  // namespace ustack
