#include "stack/udp/protocol.h"

#include <array>
#include <cerrno>
#include <cstring>

#include "stack/base/checksum.h"
#include "stack/host.h"
#include "stack/net/checksum.h"
#include "stack/net/icmp.h"
#include "stack/net/icmpv6.h"
#include "stack/udp/endpoint.h"

namespace ustack::udp {

namespace {

UdpCounters ipv4_counters(Counters& all) {
  return {all.UdpInDatagrams,  all.UdpNoPorts,      all.UdpInErrors,    all.UdpOutDatagrams,
          all.UdpRcvbufErrors, all.UdpSndbufErrors, all.UdpInCsumErrors};
}

UdpCounters ipv6_counters(Counters& all) {
  return {all.Udp6InDatagrams,  all.Udp6NoPorts,      all.Udp6InErrors,    all.Udp6OutDatagrams,
          all.Udp6RcvbufErrors, all.Udp6SndbufErrors, all.Udp6InCsumErrors};
}

}  // namespace

Protocol::Protocol(Host& host, const HostContext& context, Network& network)
    : host_(host),
      context_(context),
      network_(network),
      ipv4_(ipv4_counters(context.counters)),
      ipv6_(ipv6_counters(context.counters)),
      selector_(context.random),
      key_(SipKey::random(context.random)),
      datagrams_(context.arena),
      endpoints_(context.arena) {
  network_.set_transport(kProtocolNumber, this);
}

Protocol::~Protocol() { network_.set_transport(kProtocolNumber, nullptr); }

Result<Socket*> Protocol::open_socket(Family family) {
  if (family == Family::ipv6 && !network_.has_ipv6()) return Error{EAFNOSUPPORT};
  Endpoint* endpoint = endpoints_.create(*this, family);
  return endpoint != nullptr ? Result<Socket*>(endpoint) : Error{ENOBUFS};
}

void Protocol::destroy(Endpoint& endpoint) { endpoints_.destroy(&endpoint); }

// --- ports ---

/// Linux's inet_rcv_saddr_equal, of one that is to be bound.
bool Protocol::share_addresses(const Endpoint& endpoint, const IpAddress& address, const Endpoint& other) {
  return addresses_overlap(address, endpoint.ipv6_.v6_only, other.local_.address, other.ipv6_.v6_only);
}

bool Protocol::conflicts(const Endpoint& endpoint, const SocketAddress& local) {
  for (Endpoint& other : chain(local.port)) {
    if (&other == &endpoint || other.local_.port != local.port) continue;
    if (!share_addresses(endpoint, local.address, other)) continue;
    if (other.device_ != endpoint.device_ && other.device_ != BoundDevice::any &&
        endpoint.device_ != BoundDevice::any)
      continue;
    if (endpoint.reuse_address_ && other.reuse_address_) continue;
    if (endpoint.reuse_port_ && other.reuse_port_) continue;
    return true;
  }
  return false;
}

Status Protocol::bind_port(Endpoint& endpoint, const SocketAddress& local, const SocketAddress& remote,
                           int32_t range) {
  uint16_t port = local.port;
  if (port == 0) {
    Result<uint16_t> chosen = selector_.select(
        settings(), local.address, remote,
        [&](uint16_t candidate) {
          for (Endpoint& other : chain(candidate))
            if (other.local_.port == candidate && share_addresses(endpoint, local.address, other))
              return false;
          return true;
        },
        range);
    if (!chosen.ok()) return Error{EADDRINUSE};
    port = *chosen;
  } else if (conflicts(endpoint, local)) {
    return Error{EADDRINUSE};
  }
  endpoint.local_.port = port;
  chain(port).push_back(endpoint);
  return {};
}

Endpoint* Protocol::find(const SocketAddress& local, const SocketAddress& remote) {
  Endpoint* best = nullptr;
  uint32_t best_score = 0, equals = 0;
  uint32_t hash = 0;
  for (Endpoint& candidate : chain(local.port)) {
    if (candidate.local_.port != local.port || !candidate.takes(local.address.family())) continue;
    // One of IPv4 goes before one that has both.
    uint32_t score = candidate.family_ == Family::ipv4 ? 2 : 1;
    if (!candidate.local_.address.is_unspecified()) {
      if (!(candidate.local_.address == local.address)) continue;
      score += 4;
    }
    if (!candidate.remote_.address.is_unspecified()) {
      if (!(candidate.remote_.address == remote.address)) continue;
      score += 4;
    }
    if (candidate.remote_.port != 0) {
      if (candidate.remote_.port != remote.port) continue;
      score += 4;
    }
    if (candidate.device_ != BoundDevice::any) {
      if (!candidate.reaches(network_.is_own_address(remote.address))) continue;
      score += 4;
    }
    if (score > best_score) {
      best = &candidate;
      best_score = score;
      equals = 1;
    } else if (score == best_score && candidate.reuse_port_ && best->reuse_port_ && !candidate.connected()) {
      if (equals == 1) {
        std::array<std::byte, 18> peer;
        std::memcpy(peer.data(), remote.address.data(), remote.address.size());
        store_be16(peer.data() + remote.address.size(), remote.port);
        hash = static_cast<uint32_t>(siphash(key_, Bytes(peer).first(remote.address.size() + 2)));
      }
      ++equals;
      // One of n, each with the same probability, decided by the hash alone.
      if (hash % equals == 0) best = &candidate;
      hash = hash / equals * 2654435761u;
    }
  }
  return best;
}

uint32_t Protocol::flow_label(const SocketAddress& local, const SocketAddress& remote) const {
  std::array<std::byte, 36> flow;
  std::memcpy(flow.data(), local.address.data(), 16);
  std::memcpy(flow.data() + 16, remote.address.data(), 16);
  store_be16(flow.data() + 32, local.port);
  store_be16(flow.data() + 34, remote.port);
  return static_cast<uint32_t>(siphash(key_, flow)) & 0xfffff;
}

// --- arrivals ---

/// RFC 768: over IPv4 zero means that there is none; over IPv6 there is always one (RFC 8200, 8.1).
bool Protocol::checksum_is_right(const Packet& packet) const {
  if (packet.checksum_trusted) return true;
  const Bytes bytes = packet.data.bytes();
  if (load_be16(bytes.data() + 6) == 0) return packet.destination.is_v4();
  const uint32_t sum = pseudo_header_sum(packet.source, packet.destination, kProtocolNumber,
                                         static_cast<uint32_t>(bytes.size()));
  return checksum_finish(checksum_add(bytes, sum)) == 0;
}

void Protocol::on_packet(Packet&& packet, Instant) {
  const UdpCounters& counted = counters(packet.destination);
  auto wrong = [&] { ++counted.in_errors; };
  Bytes bytes = packet.data.bytes();
  if (bytes.size() < kHeader) return wrong();
  const uint32_t length = load_be16(bytes.data() + 4);
  if (length < kHeader || length > bytes.size()) return wrong();
  packet.data.truncate(length);
  if (!checksum_is_right(packet)) {
    ++counted.checksum_errors;
    return wrong();
  }
  Datagram what;
  what.source = {packet.source, load_be16(bytes.data())};
  what.destination = {packet.destination, load_be16(bytes.data() + 2)};
  what.ttl = packet.ttl;
  what.tos = packet.tos;
  what.arrived = packet.arrived;
  what.data = packet.data;
  what.data.trim_front(kHeader);
  if (network_.is_broadcast(packet.destination) || packet.destination.is_multicast()) {
    deliver_to_all(packet, what);
    return;
  }
  if (Endpoint* owner = find(what.destination, what.source)) {
    owner->receive(what);
    return;
  }
  ++counted.no_ports;
  what.data = {};
  if (packet.destination.is_v6())
    network_.send_icmpv6_error(packet, icmpv6::kUnreachable, icmpv6::kPortUnreachable, 0);
  else
    network_.send_icmp_error(packet, icmp::kUnreachable, icmp::kPortUnreachable, 0);
}

/// What is for everybody, or a group of hosts, is everybody's whom it fits (__udp4_lib_mcast_deliver).
void Protocol::deliver_to_all(const Packet& packet, const Datagram& what) {
  bool anybody = false;
  for (Endpoint& each : chain(what.destination.port)) {
    if (each.local_.port != what.destination.port) continue;
    if (!addresses_overlap(each.local_.address, each.ipv6_.v6_only, packet.destination, false)) continue;
    if (!addresses_overlap(each.remote_.address, false, packet.source, false)) continue;
    if (each.remote_.port != 0 && each.remote_.port != what.source.port) continue;
    if (!each.reaches(false)) continue;
    anybody = true;
    each.receive(what);
  }
  if (!anybody) ++counters(packet.destination).no_ports;
}

void Protocol::on_icmp_error(const IcmpError& error, Instant) {
  if (error.quoted.size() < kHeader) return;
  const SocketAddress local{error.local, load_be16(error.quoted.data())};
  const SocketAddress remote{error.remote, load_be16(error.quoted.data() + 2)};
  Endpoint* owner = find(local, remote);
  if (owner == nullptr) {
    ++(local.address.is_v6() ? counters().Icmp6InErrors : counters().IcmpInErrors);
    return;
  }
  icmp::Meaning meaning = icmp::meaning_of(error);
  if (meaning.error == 0) return;
  if (icmp::is_too_big(error)) {
    network_.update_path_mtu(error.remote, error.mtu);
    if (owner->pmtu_discovery(local.address) == PmtuDiscovery::dont) return;
    meaning.fatal = true;
  }
  owner->on_error(meaning.error, meaning.fatal, error);
}

// --- after a process was killed ---

void Protocol::mend() {
  endpoints_.mend();
  endpoints_.for_each([this](Endpoint& endpoint) {
    if (endpoint.local_.port != 0 && !static_cast<ListHook<OfPort>&>(endpoint).linked())
      chain(endpoint.local_.port).push_back(endpoint);
    endpoint.queue_bytes_ = 0;
    for (Datagram& each : endpoint.queue_) endpoint.queue_bytes_ += each.data.block->true_size();
  });
}

void Protocol::show(Census& census) {
  endpoints_.for_each([&](Endpoint& endpoint) {
    auto see = [&](Datagram& datagram) {
      Slab<Datagram>::see(datagram);
      census.see(datagram.data);
    };
    endpoint.queue_.for_each(see);
    endpoint.taken_.for_each(see);
    census.see(endpoint.filling_);
    if (endpoint.reports_ != nullptr) endpoint.reports_->show(census);
  });
}

void Protocol::release_lost() {
  endpoints_.for_each([](Endpoint& endpoint) {
    if (!endpoint.owned) endpoint.release();
  });
}

}  // namespace ustack::udp
