// Neighbour discovery as a host speaks it (RFC 4861): answering, asking, announcing; and the groups that it
// listens to, told to whoever forwards groups' frames (RFC 3810). Addresses are the user's and used at once,
// without the second's wait of RFC 4862's duplicate detection; who else has one is found out, as in IPv4.
#include "stack/net/neighbour_discovery.h"

#include <algorithm>

#include "stack/net/network.h"

namespace ustack {

namespace {

// Options (RFC 4861, 4.6), in units of 8 bytes.
constexpr uint8_t kSourceLinkAddress = 1, kTargetLinkAddress = 2;
// Flags of an advertisement.
constexpr std::byte kRouter{0x80}, kSolicited{0x40}, kOverride{0x20};

IpAddress group(uint16_t scope, uint16_t number) {
  std::byte bytes[16] = {};
  store_be16(bytes, scope);
  store_be16(bytes + 14, number);
  return IpAddress::from_bytes(Family::ipv6, bytes);
}

void put_checksum(std::byte* message, uint32_t length, const Ipv6Header& header) {
  store_be16(message + 2, icmpv6::checksum(header.source, header.destination, Bytes(message, length)));
}

}  // namespace

IpAddress all_nodes() { return group(0xff02, 1); }

IpAddress solicited_node(const IpAddress& address) {
  std::byte bytes[16] = {};
  store_be16(bytes, 0xff02);
  bytes[11] = std::byte{1};
  bytes[12] = std::byte{0xff};
  std::memcpy(bytes + 13, address.data() + 13, 3);
  return IpAddress::from_bytes(Family::ipv6, bytes);
}

MacAddress group_mac(const IpAddress& group) {
  MacAddress mac;
  mac.bytes[0] = mac.bytes[1] = std::byte{0x33};
  std::memcpy(mac.bytes.data() + 2, group.data() + 12, 4);
  return mac;
}

std::optional<NeighbourMessage> NeighbourMessage::parse(Bytes message) {
  if (message.size() < kLength) return std::nullopt;
  NeighbourMessage parsed;
  parsed.type = std::to_integer<uint8_t>(message[0]);
  const bool asks = parsed.type == icmpv6::kNeighbourSolicitation;
  if (!asks && parsed.type != icmpv6::kNeighbourAdvertisement) return std::nullopt;
  if (message[1] != std::byte{0}) return std::nullopt;  // the code
  if (!asks) {
    parsed.router = (message[4] & kRouter) != std::byte{0};
    parsed.solicited = (message[4] & kSolicited) != std::byte{0};
    parsed.override_known = (message[4] & kOverride) != std::byte{0};
  }
  parsed.target = IpAddress::from_bytes(Family::ipv6, &message[8]);
  if (parsed.target.is_multicast()) return std::nullopt;
  for (size_t at = kLength; at < message.size();) {
    if (message.size() - at < 2) return std::nullopt;
    const size_t length = 8 * std::to_integer<size_t>(message[at + 1]);
    if (length == 0 || length > message.size() - at) return std::nullopt;
    if (std::to_integer<uint8_t>(message[at]) == (asks ? kSourceLinkAddress : kTargetLinkAddress)) {
      parsed.mac.emplace();
      std::memcpy(parsed.mac->bytes.data(), &message[at + 2], 6);
      if (parsed.mac->is_multicast() || parsed.mac->is_zero()) return std::nullopt;
    }
    at += length;
  }
  return parsed;
}

uint32_t NeighbourMessage::emit(std::byte* out) const {
  std::memset(out, 0, kLength);
  out[0] = std::byte{type};
  const bool asks = type == icmpv6::kNeighbourSolicitation;
  if (!asks)
    out[4] = (router ? kRouter : std::byte{}) | (solicited ? kSolicited : std::byte{}) |
             (override_known ? kOverride : std::byte{});
  std::memcpy(out + 8, target.data(), 16);
  if (!mac) return kLength;
  out[kLength] = std::byte{asks ? kSourceLinkAddress : kTargetLinkAddress};
  out[kLength + 1] = std::byte{1};
  std::memcpy(out + kLength + 2, mac->bytes.data(), 6);
  return kWhole;
}

void Network::learn_from_solicitation(const IpAddress& sender, const NeighbourMessage& message) {
  if (message.mac)
    neighbours_.learn(sender, *message.mac, NeighbourCache::Evidence::mention, prefix_of(sender) != nullptr);
}

/// Of a message that another shard has received and found to be sound, and answered where it had to.
void Network::learn_by_discovery(ReceivedV6&& received) {
  if (Ipv6Header::parse(received.packet.bytes(), received.header) != Ipv6Error::none) return;
  received.chain = Ipv6Chain::walk(received.packet.bytes(), received.header.destination.is_multicast());
  auto message = NeighbourMessage::parse(received.packet.bytes().subspan(received.chain.offset));
  if (!message) return;
  if (message->type == icmpv6::kNeighbourAdvertisement) return receive_advertisement(*message, false);
  const IpAddress& sender = received.header.source;
  if (!is_own_address(message->target) || message->target.is_loopback() || sender.is_unspecified() ||
      (message->mac && *message->mac == link().mac))
    return;
  learn_from_solicitation(sender, *message);
}

/// RFC 4861, 7.2.3 and 7.2.4.
void Network::receive_solicitation(const ReceivedV6& received, const NeighbourMessage& message) {
  const IpAddress& sender = received.header.source;
  if (!is_own_address(message.target) || message.target.is_loopback()) return;
  NeighbourMessage answer{.type = icmpv6::kNeighbourAdvertisement,
                          .override_known = true,
                          .target = message.target,
                          .mac = link().mac};
  if (sender.is_unspecified()) {
    // Somebody looks whether the address is free (RFC 4862, 5.4). To answer is to defend it.
    if (message.mac || !received.header.destination.is_multicast()) return;
    send_neighbour_message(answer, message.target, all_nodes(), group_mac(all_nodes()));
    return;
  }
  if (message.mac && *message.mac == link().mac) return;  // our own, come back
  learn_from_solicitation(sender, message);
  answer.solicited = true;
  NeighbourHint hint;
  const Neighbour* known = message.mac ? nullptr : neighbours_.find(sender);
  // One that asks without saying where it is has asked us alone, and we know it or have to ask in turn.
  if (!message.mac && (known == nullptr || !neighbours_.is_resolved(sender, hint))) return;
  send_neighbour_message(answer, message.target, sender, message.mac ? *message.mac : known->mac());
}

/// RFC 4861, 7.2.5.
void Network::receive_advertisement(const NeighbourMessage& message, bool answers) {
  const IpAddress& target = message.target;
  if (is_own_address(target)) {
    if (answers && message.mac && !(*message.mac == link().mac)) conflict(target, *message.mac);
    return;
  }
  NeighbourHint hint;
  const bool resolved = neighbours_.is_resolved(target, hint);
  const Neighbour* known = neighbours_.find(target);
  if (known == nullptr) return;
  // One that was asked by its link address needn't repeat it.
  if (!message.mac && !resolved) return;
  const MacAddress mac = message.mac ? *message.mac : known->mac();
  // "The Override flag being clear": what is known is believed rather.
  if (resolved && !message.override_known && !(mac == known->mac())) return;
  const auto evidence = message.solicited        ? NeighbourCache::Evidence::answer
                        : message.override_known ? NeighbourCache::Evidence::announce
                                                 : NeighbourCache::Evidence::mention;
  neighbours_.learn(target, mac, evidence, false);
}

/// RFC 4861, 7.2.6.
void Network::advertise(const IpAddress& address) {
  send_neighbour_message(
      {.type = icmpv6::kNeighbourAdvertisement, .override_known = true, .target = address, .mac = link().mac},
      address, all_nodes(), group_mac(all_nodes()));
}

void Network::solicit_by_discovery(const IpAddress& target, const MacAddress* known) {
  const NeighbourMessage message{.target = target, .mac = link().mac};
  const IpAddress to = known != nullptr ? target : solicited_node(target);
  const MacAddress mac = known != nullptr ? *known : group_mac(to);
  send_neighbour_message(message, choose_ipv6_source(target), to, mac);
}

/// False when there is no memory for it, which is counted; what matters is asked again.
bool Network::send_neighbour_message(const NeighbourMessage& message, const IpAddress& source,
                                     const IpAddress& destination, const MacAddress& mac) {
  if (link().kind != LinkInfo::Kind::ethernet) return false;
  TxFrame* frame = context_.frames.allocate();
  if (frame == nullptr) {
    ++context_.counters.UstackTxNoMemory;
    return false;
  }
  const uint32_t length = message.mac ? NeighbourMessage::kWhole : NeighbourMessage::kLength;
  std::byte* out = frame->prepend(length);
  message.emit(out);
  Ipv6Header header;
  header.payload_length = static_cast<uint16_t>(length);
  header.next_header = ip_protocol::kIcmpV6;
  header.hop_limit = NeighbourMessage::kHopLimit;
  header.source = source;
  header.destination = destination;
  put_checksum(out, length, header);
  Counters& counters = context_.counters;
  ++(message.type == icmpv6::kNeighbourSolicitation ? counters.Icmp6OutNeighborSolicits
                                                    : counters.Icmp6OutNeighborAdvertisements);
  send_on_link(frame, header, mac);
  return true;
}

/// A report of all groups that we are in but for ff02::1, which everybody is (RFC 3810, 5.2 and 6).
void Network::send_group_report(bool joins) {
  if (link().kind != LinkInfo::Kind::ethernet) return;
  constexpr uint8_t kModeIsExclude = 2, kChangeToExclude = 4;
  constexpr uint32_t kHeader = 8, kRecord = 20, kHopByHop = 8;
  // With what a frame has room for in its headers.
  constexpr uint32_t kMost = (TxFrame::kHeaderRoom - 60 - kHeader - kHopByHop) / kRecord;
  std::array<IpAddress, NetworkConfig::kMaxAddresses> groups;
  uint32_t count = 0;
  for (const Prefix& own : addresses()) {
    if (!own.address.is_v6() || own.address.is_loopback()) continue;
    const IpAddress each = solicited_node(own.address);
    if (std::find(groups.begin(), groups.begin() + count, each) == groups.begin() + count)
      groups[count++] = each;
  }
  for (uint32_t from = 0; from < count; from += kMost) {
    const uint32_t records = std::min(kMost, count - from);
    TxFrame* frame = context_.frames.allocate();
    if (frame == nullptr) {
      ++context_.counters.UstackTxNoMemory;
      return;
    }
    const uint32_t length = kHeader + records * kRecord;
    std::byte* out = frame->prepend(length);
    std::memset(out, 0, length);
    out[0] = std::byte{icmpv6::kGroupReport};
    store_be16(out + 6, static_cast<uint16_t>(records));
    for (uint32_t i = 0; i < records; ++i) {
      std::byte* record = out + kHeader + i * kRecord;
      record[0] = std::byte{joins ? kChangeToExclude : kModeIsExclude};
      std::memcpy(record + 4, groups[from + i].data(), 16);
    }
    Ipv6Header header;
    header.next_header = ip_protocol::kHopByHop;
    header.hop_limit = 1;
    header.destination = group(0xff02, 0x16);
    header.source = choose_ipv6_source(header.destination);
    put_checksum(out, length, header);
    // A router alert, so that routers look at it (RFC 2711), and padding.
    std::byte* options = frame->prepend(kHopByHop);
    constexpr uint8_t kRouterAlert[kHopByHop] = {ip_protocol::kIcmpV6, 0, 5, 2, 0, 0, 1, 0};
    std::memcpy(options, kRouterAlert, kHopByHop);
    header.payload_length = static_cast<uint16_t>(kHopByHop + length);
    ++context_.counters.Icmp6OutMLDv2Reports;
    send_on_link(frame, header, group_mac(header.destination));
  }
}

void Network::send_on_link(TxFrame* frame, const Ipv6Header& header, const MacAddress& mac) {
  ++context_.counters.Icmp6OutMsgs;
  ++context_.counters.Ip6OutRequests;
  header.emit(frame->prepend(Ipv6Header::kLength));
  transmit_to(frame, mac, Family::ipv6);
}

}  // namespace ustack
