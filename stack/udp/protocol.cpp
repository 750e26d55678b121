#include "stack/udp/protocol.h"

#include <cerrno>

#include "stack/base/checksum.h"
#include "stack/host.h"
#include "stack/net/checksum.h"
#include "stack/net/icmp.h"
#include "stack/udp/endpoint.h"

namespace ustack::udp {

namespace {

bool overlap(const IpAddress& a, const IpAddress& b) {
  return a.is_unspecified() || b.is_unspecified() || a == b;
}

}  // namespace

Protocol::Protocol(Host& host, const HostContext& context, Network& network)
    : host_(host),
      context_(context),
      network_(network),
      selector_(context.random),
      key_(SipKey::random(context.random)),
      datagrams_(context.arena),
      endpoints_(context.arena) {
  network_.set_transport(kProtocolNumber, this);
}

Protocol::~Protocol() { network_.set_transport(kProtocolNumber, nullptr); }

Result<Socket*> Protocol::open_socket() {
  Endpoint* endpoint = endpoints_.create(*this);
  return endpoint != nullptr ? Result<Socket*>(endpoint) : Error{ENOBUFS};
}

void Protocol::destroy(Endpoint& endpoint) { endpoints_.destroy(&endpoint); }

// --- ports ---

bool Protocol::conflicts(const Endpoint& endpoint, const SocketAddress& local) {
  for (Endpoint& other : chain(local.port)) {
    if (&other == &endpoint || other.local_.port != local.port) continue;
    if (!overlap(other.local_.address, local.address)) continue;
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
            if (other.local_.port == candidate && overlap(other.local_.address, local.address)) return false;
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
    if (candidate.local_.port != local.port) continue;
    uint32_t score = 1;
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
        std::byte peer[6];
        store_be32(peer, remote.address.v4_host_order());
        store_be16(peer + 4, remote.port);
        hash = static_cast<uint32_t>(siphash(key_, peer));
      }
      ++equals;
      // One of n, each with the same probability, decided by the hash alone.
      if (hash % equals == 0) best = &candidate;
      hash = hash / equals * 2654435761u;
    }
  }
  return best;
}

// --- arrivals ---

void Protocol::on_packet(Packet&& packet, Instant) {
  auto wrong = [this] { ++counters().UdpInErrors; };
  Bytes bytes = packet.data.bytes();
  if (bytes.size() < kHeader) return wrong();
  const uint32_t length = load_be16(bytes.data() + 4);
  if (length < kHeader || length > bytes.size()) return wrong();
  packet.data.truncate(length);
  // RFC 768: zero means that there is none.
  if (!packet.checksum_trusted && load_be16(bytes.data() + 6) != 0) {
    uint32_t sum = pseudo_header_sum(packet.source, packet.destination, kProtocolNumber, length);
    if (checksum_finish(checksum_add(packet.data.bytes(), sum)) != 0) {
      ++counters().UdpInCsumErrors;
      return wrong();
    }
  }
  Datagram what;
  what.source = {packet.source, load_be16(bytes.data())};
  what.destination = {packet.destination, load_be16(bytes.data() + 2)};
  what.ttl = packet.ttl;
  what.tos = packet.tos;
  what.arrived = packet.arrived;
  what.data = packet.data;
  what.data.trim_front(kHeader);
  if (network_.is_broadcast(packet.destination)) {
    deliver_to_all(packet, what);
    return;
  }
  if (Endpoint* owner = find(what.destination, what.source)) {
    owner->receive(what);
    return;
  }
  ++counters().UdpNoPorts;
  what.data = {};
  network_.send_icmp_error(packet, icmp::kUnreachable, icmp::kPortUnreachable, 0);
}

/// A broadcast is everybody's whom it fits (__udp4_lib_mcast_deliver).
void Protocol::deliver_to_all(const Packet& packet, const Datagram& what) {
  bool anybody = false;
  for (Endpoint& each : chain(what.destination.port)) {
    if (each.local_.port != what.destination.port) continue;
    if (!overlap(each.local_.address, packet.destination)) continue;
    if (!overlap(each.remote_.address, packet.source)) continue;
    if (each.remote_.port != 0 && each.remote_.port != what.source.port) continue;
    if (!each.reaches(false)) continue;
    anybody = true;
    each.receive(what);
  }
  if (!anybody) ++counters().UdpNoPorts;
}

void Protocol::on_icmp_error(const IcmpError& error, Instant) {
  if (error.quoted.size() < kHeader) return;
  const SocketAddress local{error.local, load_be16(error.quoted.data())};
  const SocketAddress remote{error.remote, load_be16(error.quoted.data() + 2)};
  Endpoint* owner = find(local, remote);
  if (owner == nullptr) {
    ++counters().IcmpInErrors;
    return;
  }
  icmp::Meaning meaning = icmp::meaning_of(error);
  if (meaning.error == 0) return;
  if (icmp::is_too_big(error)) {
    network_.update_path_mtu(error.remote, error.mtu);
    if (owner->pmtu_discovery_ == PmtuDiscovery::dont) return;
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
