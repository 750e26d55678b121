// IPv4 packets on their way out: header, checksum offload or its software twin, fragmentation, Ethernet; and
// what IPv6 (ipv6_output.cpp) has in common with it.
#include <algorithm>

#include "stack/base/checksum.h"
#include "stack/net/network.h"

namespace ustack {

namespace {

/// Packets that may turn round inside the host and wait to be received (net.core.netdev_max_backlog).
constexpr uint32_t kMaxLocal = 1000;

constexpr uint32_t kLeastTcpHeader = 20;

constexpr uint32_t ip_header_length(Family family) {
  return family == Family::ipv6 ? Ipv6Header::kLength : Ipv4Header::kLength;
}

/// The TCP header's length by its data offset, 0 if the frame doesn't hold that much of a header.
uint32_t tcp_header_length(Bytes header) {
  if (header.size() < kLeastTcpHeader) return 0;
  uint32_t length = std::to_integer<uint32_t>(header[12] >> 4) * 4;
  return length < kLeastTcpHeader || length > header.size() ? 0 : length;
}

/// What a link with checksum offload does: `field` holds the pseudo-header's sum, the frame starts with the
/// transport header.
void complete_checksum(TxFrame& frame, uint8_t protocol) {
  Checksum sum;
  sum.add(frame.header());
  for (const Slice& slice : frame.payload()) sum.add(slice.bytes());
  uint16_t value = sum.finish();
  // RFC 768: zero means "none".
  if (value == 0 && protocol == ip_protocol::kUdp) value = 0xffff;
  store_be16(frame.header().data() + frame.offload.checksum_offset, value);
  frame.offload.partial_checksum = false;
  frame.offload.checksum_offset = 0;
}

}  // namespace

Status Network::refuse(const Route& route, TxFrame* frame, Error error) {
  Counters& counters = context_.counters;
  const bool v6 = route.remote_.is_v6();
  if (error.code == EMSGSIZE)
    ++(v6 ? counters.Ip6FragFails : counters.IpFragFails);
  else
    ++(v6 ? counters.Ip6OutDiscards : counters.IpOutDiscards);
  context_.frames.release(frame);
  return error;
}

/// Completes the checksum, or leaves it to the link: the frame starts with the transport header.
Status Network::prepare_checksum(const Route& route, TxFrame& frame, uint8_t protocol, bool fragments) {
  Offload& offload = frame.offload;
  if (!offload.partial_checksum) return {};
  if (offload.checksum_offset + 2u > frame.header().size()) return Error{EINVAL};
  if (fragments || !route.link().checksum_offload) {
    if (!frame.settle()) return Error{EFAULT};
    complete_checksum(frame, protocol);
    return {};
  }
  const uint32_t link_header = route.is_local() ? 0 : link_header_length();
  offload.checksum_start = static_cast<uint16_t>(link_header + ip_header_length(route.local_.family()));
  return {};
}

/// Checks a superframe and fills in what the link needs to cut it; a superframe of one segment becomes an
/// ordinary frame.
Status Network::prepare_segmentation(const Route& route, TxFrame& frame, uint8_t protocol,
                                     uint32_t& segments) {
  Offload& offload = frame.offload;
  uint32_t header_length = tcp_header_length(frame.header());
  const bool v6 = route.local_.is_v6();
  if (protocol != ip_protocol::kTcp ||
      offload.segmentation != (v6 ? Offload::Segmentation::tcp_v6 : Offload::Segmentation::tcp_v4) ||
      offload.segment_size == 0 || !offload.partial_checksum || header_length == 0)
    return Error{EINVAL};
  uint32_t payload = frame.size() - header_length;
  if (payload <= offload.segment_size) {
    offload.segmentation = Offload::Segmentation::none;
    offload.segment_size = 0;
    return {};
  }
  const LinkInfo& link = route.link();
  const uint32_t ip_header = ip_header_length(route.local_.family());
  if (!(v6 ? link.tcp_segmentation_v6 : link.tcp_segmentation_v4) || !link.checksum_offload)
    return Error{EINVAL};
  if (ip_header + frame.size() > link.max_superframe ||
      ip_header + header_length + offload.segment_size > route.mtu())
    return Error{EMSGSIZE};
  uint32_t link_header = route.is_local() ? 0 : link_header_length();
  offload.header_length = static_cast<uint16_t>(link_header + ip_header + header_length);
  segments = (payload + offload.segment_size - 1) / offload.segment_size;
  return {};
}

Status Network::send_ipv4(Route& route, TxFrame* frame, uint8_t protocol, const IpOptionsOut& options) {
  Counters& counters = context_.counters;
  ++counters.IpOutRequests;
  uint32_t total = Ipv4Header::kLength + frame->size();
  if (total > Ipv4Header::kLargestPacket) return refuse(route, frame, Error{EMSGSIZE});

  uint32_t segments = 1;
  if (frame->offload.segmentation != Offload::Segmentation::none) {
    Status status = prepare_segmentation(route, *frame, protocol, segments);
    if (!status.ok()) return refuse(route, frame, status.error());
  }
  bool fragments = segments == 1 && total > route.mtu();
  if (fragments && options.dont_fragment) return refuse(route, frame, Error{EMSGSIZE});
  if (Status status = prepare_checksum(route, *frame, protocol, fragments); !status.ok())
    return refuse(route, frame, status.error());

  counters.IpExtOutOctets += total;
  avoid_dead_gateway(route);
  Ipv4Header header;
  header.tos = options.tos;
  header.total_length = static_cast<uint16_t>(total);
  header.id = ip_ids_.take(route.ip_ids_, segments);
  header.dont_fragment = options.dont_fragment;
  header.ttl = options.ttl;
  header.protocol = protocol;
  header.source = route.local_;
  header.destination = route.remote_;
  return fragments ? send_fragments(route, frame, header) : send_packet(route, frame, header);
}

Status Network::send_packet(Route& route, TxFrame* frame, const Ipv4Header& header) {
  header.emit(frame->prepend(Ipv4Header::kLength));
  return send_to_next_hop(route, frame);
}

Status Network::send_to_next_hop(Route& route, TxFrame* frame) {
  if (route.local_delivery_) {
    if (local_count_ >= kMaxLocal) {
      ++context_.counters.UstackTxQueueDrops;
      return refuse(route, frame, Error{ENOBUFS});
    }
    ++local_count_;
    local_.push_back(*frame);
    return {};
  }
  if (route.needs_neighbour()) return neighbours_.send(route.next_hop_, route.hint_, frame);
  transmit(frame);
  return {};
}

/// RFC 791, section 3.2. All fragments are made before the first is sent: part of a packet is of no use.
Status Network::send_fragments(Route& route, TxFrame* frame, const Ipv4Header& header) {
  uint32_t most = (route.mtu() - Ipv4Header::kLength) & ~7u;
  FrameQueue parts;
  if (!cut(*frame, most, parts)) {
    ++context_.counters.IpFragFails;
    return refuse(route, frame, Error{ENOBUFS});
  }
  uint32_t size = frame->size(), at = 0;
  context_.frames.release(frame);
  ++context_.counters.IpFragOKs;

  Status result;
  while (TxFrame* part = parts.pop_front()) {
    Ipv4Header own = header;
    own.fragment_offset = static_cast<uint16_t>(at);
    at += part->size();
    own.more_fragments = at < size;
    own.total_length = static_cast<uint16_t>(Ipv4Header::kLength + part->size());
    ++context_.counters.IpFragCreates;
    Status status = send_packet(route, part, own);
    if (result.ok()) result = status;
  }
  return result;
}

/// Frames with `most` bytes each of what `frame` has. False, and none: no memory.
bool Network::cut(TxFrame& frame, uint32_t most, FrameQueue& parts) {
  for (uint32_t from = 0; from < frame.size(); from += most) {
    TxFrame* part = copy_part(frame, from, std::min(most, frame.size() - from));
    if (part == nullptr) {
      while (TxFrame* made = parts.pop_front()) context_.frames.release(made);
      ++context_.counters.UstackTxNoMemory;
      return false;
    }
    parts.push_back(*part);
  }
  return true;
}

/// A frame with bytes [from, from + count) of `frame`: headers are copied, payload is shared.
TxFrame* Network::copy_part(TxFrame& frame, uint32_t from, uint32_t count) {
  TxFrame* part = context_.frames.allocate();
  if (part == nullptr) return nullptr;
  part->queue = frame.queue;
  Bytes header = frame.header();
  if (from < header.size()) {
    uint32_t n = std::min(count, static_cast<uint32_t>(header.size()) - from);
    std::memcpy(part->prepend(n), header.data() + from, n);
    from += n;
    count -= n;
  }
  uint32_t start = static_cast<uint32_t>(header.size());
  for (const Slice& slice : frame.payload()) {
    if (count == 0) break;
    if (from < start + slice.length) {
      uint32_t n = std::min(count, start + slice.length - from);
      part->append(slice.sub(from - start, n));
      from += n;
      count -= n;
    }
    start += slice.length;
  }
  return part;
}

void Network::transmit_to(TxFrame* frame, const MacAddress& mac, Family family) {
  uint16_t type = family == Family::ipv6 ? ethertype::kIpv6 : ethertype::kIpv4;
  EthernetHeader{mac, link().mac, type}.emit(frame->prepend(EthernetHeader::kLength));
  transmit(frame);
}

void Network::transmit(TxFrame* frame) {
  ++context_.counters.UstackTxFrames;
  transmit_.push_back(*frame);
}

bool Network::deliver_local() {
  if (local_.empty()) return false;
  // Only what is there now: what its receivers send to us waits for the next call.
  const TxFrame* last = local_.back();
  for (TxFrame* frame = nullptr; frame != last;) {
    frame = local_.pop_front();
    if (local_count_ > 0) --local_count_;
    BlockRef block = frame->settle() ? context_.blocks.allocate(frame->size()) : BlockRef();
    if (!block) {
      ++context_.counters.UstackRxNoMemory;
      context_.frames.release(frame);
      continue;
    }
    Arrival arrival{Slice{std::move(block), 0, frame->size()}, frame->offload, context_.now, true, false};
    std::byte* out = arrival.packet.data();
    Bytes header = frame->header();
    std::memcpy(out, header.data(), header.size());
    out += header.size();
    for (const Slice& slice : frame->payload()) {
      std::memcpy(out, slice.data(), slice.length);
      out += slice.length;
    }
    context_.frames.release(frame);
    if (Ipv4View(arrival.packet.data()).version() == 6)
      receive_ipv6({std::move(arrival), {}, {}});
    else
      receive_ipv4({std::move(arrival), {}});
  }
  return true;
}

}  // namespace ustack
