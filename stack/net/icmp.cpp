// ICMP as a host speaks it (RFC 792; RFC 1122, section 3.2.2).
#include "stack/net/icmp.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "stack/net/checksum.h"
#include "stack/net/network.h"

namespace ustack {

icmp::Meaning icmp::meaning_of(uint8_t type, uint8_t code) {
  static constexpr Meaning kMeanings[] = {
      {ENETUNREACH, false},   // network
      {EHOSTUNREACH, false},  // host
      {ENOPROTOOPT, true},    // protocol
      {ECONNREFUSED, true},   // port
      {EMSGSIZE, false},      // fragmentation needed
      {EOPNOTSUPP, false},    // source route failed
      {ENETUNREACH, true},    // network unknown
      {EHOSTDOWN, true},      // host unknown
      {ENONET, true},         // source host isolated
      {ENETUNREACH, true},    // network administratively prohibited
      {EHOSTUNREACH, true},   // host administratively prohibited
      {ENETUNREACH, false},   // network unreachable for this TOS
      {EHOSTUNREACH, false},  // host unreachable for this TOS
      {EHOSTUNREACH, true},   // communication administratively prohibited
      {EHOSTUNREACH, true},   // precedence violation
      {EHOSTUNREACH, true},   // precedence cutoff
  };
  switch (type) {
    case kUnreachable:
      return code < std::size(kMeanings) ? kMeanings[code] : Meaning();
    case kTimeExceeded:
      return {EHOSTUNREACH, false};
    case kParameterProblem:
      return {EPROTO, true};
    default:
      return {};
  }
}

icmp::Meaning icmp::meaning_of(const IcmpError& error) {
  return error.local.is_v6() ? icmpv6::meaning_of(error.type, error.code)
                             : meaning_of(error.type, error.code);
}

bool icmp::is_too_big(const IcmpError& error) {
  return error.local.is_v6() ? error.type == icmpv6::kPacketTooBig
                             : error.type == kUnreachable && error.code == kFragmentationNeeded;
}

bool icmp::is_way_lost(const IcmpError& error) {
  if (!error.local.is_v6()) return error.type == kUnreachable && error.code <= kHostUnreachable;
  return error.type == icmpv6::kUnreachable &&
         (error.code == icmpv6::kNoRoute || error.code == icmpv6::kAddressUnreachable);
}

namespace {

/// RFC 1812, 4.3.2.3: an error quotes as much as fits in a packet of this size.
constexpr uint32_t kLargestError = 576;
/// Precedence "internetwork control" (RFC 1812, 4.3.2.5), as Linux sends its errors.
constexpr uint8_t kErrorPrecedence = 0xc0;

}  // namespace

void Network::receive_icmp(const Received& received) {
  Counters& counters = context_.counters;
  ++counters.IcmpInMsgs;
  Bytes message = received.packet.bytes().subspan(received.header.header_length);
  auto header = IcmpHeader::parse(message);
  if (!header) {
    ++counters.IcmpInErrors;
    return;
  }
  if (!received.from_self && checksum_of(message) != 0) {
    ++counters.IcmpInCsumErrors;
    ++counters.IcmpInErrors;
    return;
  }
  switch (header->type) {
    case icmp::kEchoRequest:
      ++counters.IcmpInEchos;
      receive_echo_request(received, *header);
      return;
    case icmp::kEchoReply:
      ++counters.IcmpInEchoReps;
      return;  // we ask nobody
    case icmp::kUnreachable:
      ++counters.IcmpInDestUnreachs;
      receive_icmp_error(received, *header);
      return;
    case icmp::kSourceQuench:
      ++counters.IcmpInSrcQuenchs;
      receive_icmp_error(received, *header);
      return;
    case icmp::kTimeExceeded:
      ++counters.IcmpInTimeExcds;
      receive_icmp_error(received, *header);
      return;
    case icmp::kParameterProblem:
      ++counters.IcmpInParmProbs;
      receive_icmp_error(received, *header);
      return;
    case icmp::kRedirect:
      // Not followed: whoever can forge one would choose our router (net.ipv4.conf.*.accept_redirects=0).
      ++counters.IcmpInRedirects;
      return;
    case icmp::kTimestamp:
      ++counters.IcmpInTimestamps;
      return;
    default:
      // RFC 1122, 3.2.2: unknown types are silently discarded; Linux counts those that can't be known.
      if (header->type > icmp::kLargestType) ++counters.IcmpInErrors;
  }
}

void Network::receive_echo_request(const Received& received, const IcmpHeader& header) {
  // RFC 1122, 3.2.2.6 leaves broadcasts to us; answering them makes us an amplifier.
  if (context_.settings.icmp_echo_ignore_all != 0 || is_broadcast(received.header.destination)) return;
  Result<Route> route = find_route(received.header.destination, received.header.source);
  if (!route.ok()) return;
  uint32_t payload_at = uint32_t{received.header.header_length} + IcmpHeader::kLength;
  Slice payload = received.packet.sub(payload_at, received.packet.length - payload_at);
  ++context_.counters.IcmpOutEchoReps;
  send_icmp(*route, IcmpHeader{icmp::kEchoReply, 0, header.info}, std::move(payload), received.header.tos);
}

void Network::receive_icmp_error(const Received& received, const IcmpHeader& header) {
  if (is_broadcast(received.header.destination)) return;
  uint32_t quote_at = uint32_t{received.header.header_length} + IcmpHeader::kLength;
  auto quote = IcmpQuote::parse(received.packet.bytes().subspan(quote_at));
  if (!quote) {
    ++context_.counters.IcmpInErrors;
    return;
  }
  if (header.type == icmp::kUnreachable && header.code > icmp::kLargestUnreachable) return;
  // Only what we have sent, and only if the quote starts with its transport header.
  if (!is_own_address(quote->source) || quote->fragment_offset != 0) return;
  if (quote->destination.is_multicast() || is_broadcast(quote->destination)) return;
  TransportProtocol* transport = transports_[quote->protocol];
  if (transport == nullptr) return;

  IcmpError error;
  error.type = header.type;
  error.code = header.code;
  error.reporter = received.header.source;
  error.local = quote->source;
  error.remote = quote->destination;
  error.protocol = quote->protocol;
  error.quoted = quote->payload;
  if (header.type == icmp::kUnreachable && header.code == icmp::kFragmentationNeeded)
    error.mtu = header.next_hop_mtu();
  transport->on_icmp_error(error, context_.now);
}

void Network::send_icmp_error(const Packet& about, uint8_t type, uint8_t code, uint32_t info) {
  if (!about.data.block || about.network_length < Ipv4Header::kLength) return;
  Bytes original(about.data.block->data() + about.network_offset, about.network_length);
  Ipv4View header(original.data());
  // RFC 1122, 3.2.2: no error about a broadcast or multicast, from no single host, about a fragment other
  // than the first, or about an ICMP error.
  if (is_broadcast(about.destination) || about.destination.is_multicast()) return;
  if (about.source.is_unspecified() || about.source.is_multicast() || is_broadcast(about.source)) return;
  if (header.fragment_offset() != 0) return;
  if (about.protocol == ip_protocol::kIcmp) {
    Bytes message = original.subspan(std::min<size_t>(header.header_length(), original.size()));
    if (message.empty()) return;
    uint8_t quoted_type = std::to_integer<uint8_t>(message[0]);
    if (icmp::is_error(quoted_type) || quoted_type > icmp::kLargestType) return;
  }
  Result<Route> route = find_route(about.destination, about.source);
  if (!route.ok() || !icmp_limiter_.allow(about.source)) return;

  uint32_t room = std::min(route->mtu(), kLargestError) - Ipv4Header::kLength - IcmpHeader::kLength;
  Slice quote{about.data.block, about.network_offset, std::min(room, about.network_length)};
  Counters& counters = context_.counters;
  if (type == icmp::kUnreachable) ++counters.IcmpOutDestUnreachs;
  if (type == icmp::kTimeExceeded) ++counters.IcmpOutTimeExcds;
  if (type == icmp::kParameterProblem) ++counters.IcmpOutParmProbs;
  auto tos = static_cast<uint8_t>((about.tos & 0x1c) | kErrorPrecedence);
  send_icmp(*route, IcmpHeader{type, code, info}, std::move(quote), tos);
}

/// ICMPv6 where the route is of IPv6.
void Network::send_icmp(Route& route, const IcmpHeader& header, Slice payload, uint8_t tos) {
  Counters& counters = context_.counters;
  const Settings& settings = context_.settings;
  const bool v6 = route.remote_.is_v6();
  const uint8_t protocol = v6 ? ip_protocol::kIcmpV6 : ip_protocol::kIcmp;
  uint64_t& errors = v6 ? counters.Icmp6OutErrors : counters.IcmpOutErrors;
  ++(v6 ? counters.Icmp6OutMsgs : counters.IcmpOutMsgs);
  TxFrame* frame = context_.frames.allocate();
  if (frame == nullptr) {
    ++errors;
    ++counters.UstackTxNoMemory;
    return;
  }
  std::byte* out = frame->prepend(IcmpHeader::kLength);
  header.emit(out);
  Checksum sum(
      v6 ? pseudo_header_sum(route.local_, route.remote_, protocol, IcmpHeader::kLength + payload.length)
         : 0);
  sum.add(Bytes(out, IcmpHeader::kLength));
  sum.add(payload.bytes());
  store_be16(out + 2, sum.finish());
  frame->append(std::move(payload));

  IpOptionsOut options;
  options.ttl = static_cast<uint8_t>(v6 ? settings.ipv6_hop_limit : settings.ip_default_ttl);
  options.tos = tos;
  options.dont_fragment = false;
  if (!route.send(frame, protocol, options).ok()) ++errors;
}

}  // namespace ustack
