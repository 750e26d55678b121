// ARP as a host's interface speaks it: answering, asking, announcing, defending (RFC 826, RFC 5227).
#include "stack/net/arp.h"

#include "stack/net/network.h"

namespace ustack {

namespace {
/// RFC 5227, section 1.1: DEFEND_INTERVAL.
constexpr Duration kDefendInterval = 10s;
}  // namespace

void Network::receive_arp(Bytes bytes) {
  Counters& counters = context_.counters;
  ++counters.UstackArpReceived;
  auto packet = ArpPacket::parse(bytes);
  if (!packet || packet->sender_mac.is_multicast() || packet->sender_mac.is_zero()) {
    ++counters.UstackRxMalformed;
    return;
  }
  const IpAddress& sender = packet->sender_address;
  const IpAddress& target = packet->target_address;
  if (packet->sender_mac == link().mac) return;  // our own, come back

  bool request = packet->operation == ArpPacket::Operation::request;
  bool for_us = is_own_address(target) && !target.is_loopback();
  auto reply = [&] {
    if (send_arp({ArpPacket::Operation::reply, link().mac, target, packet->sender_mac, sender},
                 packet->sender_mac))
      ++counters.UstackArpRepliesSent;
  };
  // RFC 5227, 2.1.1: an ARP probe. There is nothing to learn from it, and to answer is to defend the address.
  if (sender.is_unspecified()) {
    if (request && for_us) reply();
    return;
  }
  if (sender.is_multicast() || sender.is_loopback() || is_broadcast(sender)) {
    ++counters.UstackRxMartians;
    return;
  }
  if (is_own_address(sender)) {
    conflict(sender, packet->sender_mac);
    return;
  }

  learn_from(*packet, for_us);
  if (request && for_us) reply();
}

void Network::learn_from(const ArpPacket& packet, bool for_us) {
  const IpAddress& sender = packet.sender_address;
  const bool request = packet.operation == ArpPacket::Operation::request;
  auto evidence = NeighbourCache::Evidence::mention;
  if (sender == packet.target_address)
    evidence = NeighbourCache::Evidence::announce;
  else if (!request && for_us && packet.target_mac == link().mac)
    evidence = NeighbourCache::Evidence::answer;
  // RFC 826: what is known is brought up to date; somebody new is remembered only if we are the target, who
  // will soon answer. One off the link is never our next hop.
  bool may_create = request && for_us && prefix_of(sender) != nullptr;
  neighbours_.learn(sender, packet.sender_mac, evidence, may_create);
}

/// Of a packet that another shard has received, and answered where it had to.
void Network::learn_from_arp(Bytes bytes) {
  auto packet = ArpPacket::parse(bytes);
  if (!packet || packet->sender_mac.is_multicast() || packet->sender_mac.is_zero() ||
      packet->sender_mac == link().mac)
    return;
  const IpAddress& sender = packet->sender_address;
  if (sender.is_unspecified() || sender.is_multicast() || sender.is_loopback() || is_broadcast(sender) ||
      is_own_address(sender))
    return;
  learn_from(*packet, is_own_address(packet->target_address) && !packet->target_address.is_loopback());
}

void Network::conflict(const IpAddress& own, const MacAddress& other) {
  ++context_.counters.UstackArpConflicts;
  context_.log(LogLevel::warning,
               [&](LogLine& line) { line << "address " << own << " is also used by " << other; });
  defend(own);
}

/// RFC 5227, 2.4(c): the address is kept, and defended by one announcement in each interval at most, so that
/// two hosts that both insist don't flood the link. IPv6's too, which RFC 4862 would have us give up.
void Network::defend(const IpAddress& address) {
  for (size_t i = 0; i < config_.address_count; ++i) {
    if (config_.addresses[i].address != address) continue;
    if (context_.now < next_defence_[i]) return;
    next_defence_[i] = context_.now + kDefendInterval;
    if (address.is_v6())
      advertise(address);
    else
      announce(address);
  }
}

/// RFC 5227, section 3: a request whose sender and target are the address itself.
void Network::announce(const IpAddress& address) {
  ArpPacket packet{ArpPacket::Operation::request, link().mac, address, MacAddress{}, address};
  if (send_arp(packet, MacAddress::broadcast())) ++context_.counters.UstackArpRequestsSent;
}

void Network::solicit(const IpAddress& target, const MacAddress* known) {
  if (target.is_v6())
    solicit_by_discovery(target, known);
  else
    solicit_by_arp(target, known);
}

void Network::solicit_by_arp(const IpAddress& target, const MacAddress* known) {
  ArpPacket packet{ArpPacket::Operation::request, link().mac, choose_source(target, target), MacAddress{},
                   target};
  if (send_arp(packet, known != nullptr ? *known : MacAddress::broadcast()))
    ++context_.counters.UstackArpRequestsSent;
}

/// False when there is no memory for it, which is counted; what matters is asked again.
bool Network::send_arp(const ArpPacket& packet, const MacAddress& destination) {
  if (link().kind != LinkInfo::Kind::ethernet) return false;
  TxFrame* frame = context_.frames.allocate();
  if (frame == nullptr) {
    ++context_.counters.UstackTxNoMemory;
    return false;
  }
  packet.emit(frame->prepend(ArpPacket::kLength));
  EthernetHeader{destination, link().mac, ethertype::kArp}.emit(frame->prepend(EthernetHeader::kLength));
  transmit(frame);
  return true;
}

}  // namespace ustack
