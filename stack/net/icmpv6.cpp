// ICMPv6 as a host speaks it (RFC 4443).
#include "stack/net/icmpv6.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "stack/net/checksum.h"
#include "stack/net/network.h"

namespace ustack {

icmp::Meaning icmpv6::meaning_of(uint8_t type, uint8_t code) {
  static constexpr icmp::Meaning kMeanings[] = {
      {ENETUNREACH, false},   // no route
      {EACCES, true},         // administratively prohibited
      {EHOSTUNREACH, false},  // beyond the source's scope
      {EHOSTUNREACH, false},  // address
      {ECONNREFUSED, true},   // port
      {EACCES, true},         // the source address failed a policy
      {EACCES, true},         // the route rejects
  };
  switch (type) {
    case kUnreachable:
      return code < std::size(kMeanings) ? kMeanings[code] : icmp::Meaning();
    case kPacketTooBig:
      return {EMSGSIZE, false};
    case kTimeExceeded:
      return {EHOSTUNREACH, false};
    case kParameterProblem:
      return {EPROTO, true};
    default:
      return {};
  }
}

uint16_t icmpv6::checksum(const IpAddress& source, const IpAddress& destination, Bytes message) {
  const auto length = static_cast<uint32_t>(message.size());
  return checksum_finish(
      checksum_add(message, pseudo_header_sum(source, destination, ip_protocol::kIcmpV6, length)));
}

std::optional<Icmpv6Quote> Icmpv6Quote::parse(Bytes quote) {
  if (quote.size() < Ipv6Header::kLength) return std::nullopt;
  Ipv6View view(quote.data());
  if (view.version() != 6) return std::nullopt;
  Ipv6Chain chain = Ipv6Chain::walk(quote, false);
  const bool part = chain.verdict == Ipv6Chain::Verdict::fragment;
  if (part && chain.part.offset != 0) return std::nullopt;
  if (!part && chain.verdict != Ipv6Chain::Verdict::ok) return std::nullopt;
  if (quote.size() < chain.offset + IcmpQuote::kLeastPayload) return std::nullopt;
  return Icmpv6Quote{view.source(), view.destination(), chain.protocol, quote.subspan(chain.offset)};
}

void Network::receive_icmpv6(const ReceivedV6& received) {
  Counters& counters = context_.counters;
  ++counters.Icmp6InMsgs;
  const Ipv6Header& ip = received.header;
  Bytes message = received.packet.bytes().subspan(received.chain.offset);
  auto header = IcmpHeader::parse(message);
  if (!header) {
    ++counters.Icmp6InErrors;
    return;
  }
  if (!received.from_self && icmpv6::checksum(ip.source, ip.destination, message) != 0) {
    ++counters.Icmp6InCsumErrors;
    ++counters.Icmp6InErrors;
    return;
  }
  switch (header->type) {
    case icmpv6::kUnreachable:
      ++counters.Icmp6InDestUnreachs;
      return receive_icmpv6_error(received, message);
    case icmpv6::kPacketTooBig:
      ++counters.Icmp6InPktTooBigs;
      return receive_icmpv6_error(received, message);
    case icmpv6::kTimeExceeded:
      ++counters.Icmp6InTimeExcds;
      return receive_icmpv6_error(received, message);
    case icmpv6::kParameterProblem:
      ++counters.Icmp6InParmProblems;
      return receive_icmpv6_error(received, message);
    case icmpv6::kEchoRequest: {
      ++counters.Icmp6InEchos;
      if (context_.settings.icmp_echo_ignore_all != 0 || ip.source.is_unspecified()) return;
      // To a group: from an address of our own (RFC 4443, 4.2).
      const IpAddress from = ip.destination.is_multicast() ? IpAddress() : ip.destination;
      Result<Route> route = find_route(from, ip.source);
      if (!route.ok()) return;
      const uint32_t at = received.chain.offset + IcmpHeader::kLength;
      Slice payload = received.packet.sub(at, received.packet.length - at);
      ++counters.Icmp6OutEchoReplies;
      send_icmp(*route, IcmpHeader{icmpv6::kEchoReply, 0, header->info}, std::move(payload),
                ip.traffic_class);
      return;
    }
    case icmpv6::kEchoReply:
      ++counters.Icmp6InEchoReplies;
      return;  // we ask nobody
    case icmpv6::kNeighbourSolicitation:
    case icmpv6::kNeighbourAdvertisement: {
      const bool asks = header->type == icmpv6::kNeighbourSolicitation;
      ++(asks ? counters.Icmp6InNeighborSolicits : counters.Icmp6InNeighborAdvertisements);
      auto parsed = NeighbourMessage::parse(message);
      if (!parsed || ip.hop_limit != NeighbourMessage::kHopLimit || link().kind != LinkInfo::Kind::ethernet) {
        ++counters.Icmp6InErrors;
        return;
      }
      hand_to_all(Stray::Kind::discovery, received);
      if (asks)
        receive_solicitation(received, *parsed);
      else
        receive_advertisement(*parsed);
      return;
    }
    case icmpv6::kGroupQuery:
      ++counters.Icmp6InGroupMembQueries;
      // RFC 3810, 5.1.14: from the link only.
      if (ip.hop_limit == 1) send_group_report(false);
      return;
    case icmpv6::kRouterAdvertisement:
      // Addresses and routers are the user's to name.
      ++counters.Icmp6InRouterAdvertisements;
      return;
    case icmpv6::kRedirect:
      // Not followed, as in IPv4.
      ++counters.Icmp6InRedirects;
      return;
    default:
      // RFC 4443, 2.4(b): unknown ones are silently discarded, if they tell of no error.
      if (icmpv6::is_error(header->type)) ++counters.Icmp6InErrors;
  }
}

void Network::receive_icmpv6_error(const ReceivedV6& received, Bytes message) {
  if (received.header.destination.is_multicast()) return;
  auto header = IcmpHeader::parse(message);
  auto quote = Icmpv6Quote::parse(message.subspan(IcmpHeader::kLength));
  if (!quote) {
    ++context_.counters.Icmp6InErrors;
    return;
  }
  if (header->type == icmpv6::kUnreachable && header->code > icmpv6::kLargestUnreachable) return;
  // Only what we have sent.
  if (!is_own_address(quote->source) || quote->destination.is_multicast()) return;
  TransportProtocol* transport = transports_[quote->protocol];
  if (transport == nullptr) return;

  IcmpError error;
  error.type = header->type;
  error.code = header->code;
  error.reporter = received.header.source;
  error.local = quote->source;
  error.remote = quote->destination;
  error.protocol = quote->protocol;
  error.quoted = quote->payload;
  if (header->type == icmpv6::kPacketTooBig) error.mtu = header->info;
  transport->on_icmp_error(error, context_.now);
}

void Network::send_icmpv6_error(const Packet& about, uint8_t type, uint8_t code, uint32_t info) {
  if (!about.data.block || about.network_length < Ipv6Header::kLength) return;
  // RFC 4443, 2.4(e): no error about an error, or from no single host; about what went to a group only that
  // an option of it isn't known.
  if (about.source.is_unspecified() || about.source.is_multicast()) return;
  const bool group = about.destination.is_multicast();
  if (group && (type != icmpv6::kParameterProblem || code != icmpv6::kUnknownOption)) return;
  uint8_t protocol = 0;
  Bytes message =
      Ipv6Chain::skip(Bytes(about.data.block->data() + about.network_offset, about.network_length), protocol);
  if (protocol == ip_protocol::kIcmpV6 &&
      (message.empty() || icmpv6::is_error(std::to_integer<uint8_t>(message[0]))))
    return;
  Result<Route> route = find_route(group ? IpAddress() : about.destination, about.source);
  if (!route.ok() || !icmp_limiter_.allow(about.source)) return;

  // 2.4(c): as much as fits in the smallest MTU.
  const uint32_t room = Ipv6Header::kLeastMtu - Ipv6Header::kLength - IcmpHeader::kLength;
  Slice quote{about.data.block, about.network_offset, std::min(room, about.network_length)};
  Counters& counters = context_.counters;
  if (type == icmpv6::kUnreachable) ++counters.Icmp6OutDestUnreachs;
  if (type == icmpv6::kTimeExceeded) ++counters.Icmp6OutTimeExcds;
  if (type == icmpv6::kParameterProblem) ++counters.Icmp6OutParmProblems;
  send_icmp(*route, IcmpHeader{type, code, info}, std::move(quote), 0);
}

}  // namespace ustack
