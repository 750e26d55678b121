// IPv6 packets on their way out (RFC 8200).
#include <algorithm>

#include "stack/net/network.h"

namespace ustack {

Status Network::send_ipv6(Route& route, TxFrame* frame, uint8_t protocol, const IpOptionsOut& options) {
  Counters& counters = context_.counters;
  ++counters.Ip6OutRequests;
  const uint32_t payload = frame->size();
  if (payload > Ipv6Header::kLargestPayload) return refuse(route, frame, Error{EMSGSIZE});

  uint32_t segments = 1;
  if (frame->offload.segmentation != Offload::Segmentation::none) {
    Status status = prepare_segmentation(route, *frame, protocol, segments);
    if (!status.ok()) return refuse(route, frame, status.error());
  }
  const uint32_t mtu = options.mtu != 0 ? std::min(options.mtu, route.mtu()) : route.mtu();
  const bool fragments = segments == 1 && Ipv6Header::kLength + payload > mtu;
  if (fragments && options.dont_fragment) return refuse(route, frame, Error{EMSGSIZE});
  if (Status status = prepare_checksum(route, *frame, protocol, fragments); !status.ok())
    return refuse(route, frame, status.error());

  counters.Ip6OutOctets += Ipv6Header::kLength + payload;
  avoid_dead_gateway(route);
  Ipv6Header header;
  header.traffic_class = options.tos;
  header.flow_label = options.flow_label;
  header.payload_length = static_cast<uint16_t>(payload);
  header.next_header = protocol;
  header.hop_limit = options.ttl;
  header.source = route.local_;
  header.destination = route.remote_;
  if (fragments) return send_fragments(route, frame, header, mtu);
  header.emit(frame->prepend(Ipv6Header::kLength));
  return send_to_next_hop(route, frame);
}

/// RFC 8200, section 4.5. All fragments are made before the first is sent: part of a packet is of no use.
Status Network::send_fragments(Route& route, TxFrame* frame, const Ipv6Header& header, uint32_t mtu) {
  constexpr uint32_t kHeaders = Ipv6Header::kLength + Ipv6Fragment::kLength;
  const uint32_t most = (mtu - kHeaders) & ~7u;
  FrameQueue parts;
  if (!cut(*frame, most, parts)) {
    ++context_.counters.Ip6FragFails;
    return refuse(route, frame, Error{ENOBUFS});
  }
  const uint32_t size = frame->size();
  context_.frames.release(frame);
  ++context_.counters.Ip6FragOKs;

  // RFC 7739: nobody can guess it.
  Ipv6Fragment fragment{.next_header = header.next_header,
                        .id = static_cast<uint32_t>(context_.random.u64())};
  uint32_t at = 0;
  Status result;
  while (TxFrame* part = parts.pop_front()) {
    fragment.offset = static_cast<uint16_t>(at);
    at += part->size();
    fragment.more = at < size;
    fragment.emit(part->prepend(Ipv6Fragment::kLength));
    Ipv6Header own = header;
    own.next_header = ip_protocol::kFragment;
    own.payload_length = static_cast<uint16_t>(part->size());
    own.emit(part->prepend(Ipv6Header::kLength));
    ++context_.counters.Ip6FragCreates;
    Status status = send_to_next_hop(route, part);
    if (result.ok()) result = status;
  }
  return result;
}

}  // namespace ustack
