#include "stack/net/network.h"

#include <algorithm>

namespace ustack {

Network::Network(const HostContext& context, const NetworkConfig& config, FrameQueue& transmit)
    : context_(context),
      config_(config),
      transmit_(transmit),
      neighbours_(context, *this),
      path_mtus_(context),
      reassembler_(context, &Network::on_reassembly_expired, this),
      icmp_limiter_(context),
      ip_ids_(context.random) {}

void Network::mend() {
  neighbours_.mend();
  path_mtus_.mend();
  reassembler_.mend();
  icmp_limiter_.mend();
  mend_strays();
}

Network::~Network() {
  while (TxFrame* frame = local_.pop_front()) context_.frames.release(frame);
}

bool Network::is_own_address(const IpAddress& address) const {
  for (const Prefix& own : addresses()) {
    if (own.address == address) return true;
    if (own.address.is_loopback() && own.contains(address)) return !own.is_broadcast(address);
  }
  return false;
}

bool Network::is_broadcast(const IpAddress& address) const {
  return address.is_limited_broadcast() ||
         std::ranges::any_of(addresses(), [&](const Prefix& own) { return own.is_broadcast(address); });
}

bool Network::has_ipv6() const {
  return std::ranges::any_of(addresses(), [](const Prefix& own) { return own.address.is_v6(); });
}

void Network::start() {
  if (context_.shard != 0) return;
  // Before the rest, so that bridges that watch over groups let through what is asked for by them.
  if (has_ipv6()) send_group_report(true);
  for (const Prefix& own : addresses()) {
    if (own.address.is_loopback()) continue;
    if (own.address.is_v4())
      announce(own.address);
    else
      advertise(own.address);
  }
}

void Network::set_transport(uint8_t protocol, TransportProtocol* handler) { transports_[protocol] = handler; }

uint32_t Network::update_path_mtu(const IpAddress& remote, uint32_t mtu) {
  return path_mtus_.update(remote, mtu, link().mtu);
}

void Network::receive(RxFrame&& frame) {
  Counters& counters = context_.counters;
  ++counters.UstackRxFrames;
  if (link().kind == LinkInfo::Kind::ip) {
    Bytes bytes = frame.data.bytes();
    if (bytes.empty()) {
      ++counters.UstackRxMalformed;
    } else if ((bytes[0] >> 4) == std::byte{6}) {
      receive_ipv6({{std::move(frame.data), frame.offload, frame.arrived}, {}, {}});
    } else {
      receive_ipv4({{std::move(frame.data), frame.offload, frame.arrived}, {}});
    }
    return;
  }

  auto header = EthernetHeader::parse(frame.data.bytes());
  if (!header) {
    ++counters.UstackRxMalformed;
    return;
  }
  bool broadcast = header->destination == MacAddress::broadcast();
  // RFC 2464, section 7.
  bool group = header->type == ethertype::kIpv6 && header->destination.bytes[0] == std::byte{0x33} &&
               header->destination.bytes[1] == std::byte{0x33};
  if (!broadcast && !group && header->destination != link().mac) {
    ++counters.UstackRxNotForUs;
    return;
  }
  frame.data.trim_front(EthernetHeader::kLength);
  switch (header->type) {
    case ethertype::kIpv4:
      receive_ipv4({{std::move(frame.data), frame.offload, frame.arrived, false, broadcast}, {}});
      return;
    case ethertype::kIpv6:
      receive_ipv6(
          {{std::move(frame.data), frame.offload, frame.arrived, false, broadcast || group}, {}, {}});
      return;
    case ethertype::kArp:
      if (context_.shards != nullptr)
        hand_to_all(Stray::Kind::arp, {frame.data, frame.offload, frame.arrived});
      receive_arp(frame.data.bytes());
      return;
    default:
      ++counters.UstackRxNotForUs;
  }
}

}  // namespace ustack
