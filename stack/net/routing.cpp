// Where packets go: connected prefixes, then the default gateways; and from which of our addresses.
#include "stack/net/network.h"

namespace ustack {

namespace {

/// What the way to ourselves can do: nothing is copied to a wire, so nothing needs to be checked or cut.
constexpr LinkInfo kLoopback{.kind = LinkInfo::Kind::ip,
                             .mtu = 65535,
                             .mac = {},
                             .checksum_offload = true,
                             .tcp_segmentation_v4 = true,
                             .tcp_segmentation_v6 = true,
                             .max_superframe = 65535};

}  // namespace

/// The longest of our prefixes that holds it; nullptr when it isn't on the link.
const Prefix* Network::prefix_of(const IpAddress& neighbour) const {
  const Prefix* best = nullptr;
  for (const Prefix& own : addresses())
    if (!own.address.is_loopback() && own.contains(neighbour) &&
        (best == nullptr || own.length > best->length))
      best = &own;
  return best;
}

/// 127.0.0.1/8, if the loopback is this host's; else nullptr.
const Prefix* Network::loopback() const {
  for (const Prefix& own : addresses())
    if (own.address.is_loopback()) return &own;
  return nullptr;
}

/// Where packets to one of our addresses come from: that address itself, but 127.0.0.1 for all of 127.0.0.0/8
/// (the preferred sources of Linux's local table).
IpAddress Network::source_to_self(const IpAddress& own) const {
  const Prefix* prefix = own.is_loopback() ? loopback() : nullptr;
  return prefix != nullptr ? prefix->address : own;
}

/// The address in the next hop's prefix, else our first of its family; "no address" if there is none.
IpAddress Network::choose_source(const IpAddress& next_hop) const {
  if (const Prefix* prefix = prefix_of(next_hop)) return prefix->address;
  for (const Prefix& own : addresses())
    if (own.address.family() == next_hop.family() && !own.address.is_loopback()) return own.address;
  return {};
}

/// The first that isn't known to be dead (RFC 1122, 3.3.1.5 and 3.3.1.6); dead ones are asked again now and
/// then. If all are dead, the first gets another chance. "No address" if none is configured.
IpAddress Network::choose_gateway(Family family) {
  IpAddress last_resort;
  for (size_t i = 0; i < config_.gateway_count; ++i) {
    const IpAddress& gateway = config_.gateways[i];
    if (gateway.family() != family || is_own_address(gateway)) continue;
    NeighbourHint hint;
    if (link().kind == LinkInfo::Kind::ip || !neighbours_.is_dead(gateway, hint)) return gateway;
    neighbours_.revive(gateway);
    if (last_resort.is_unspecified()) last_resort = gateway;
  }
  return last_resort;
}

Result<Route> Network::find_route(const IpAddress& local, const IpAddress& remote) {
  bool any_local = local.is_unspecified();
  if (!any_local && !is_own_address(local)) return Error{EADDRNOTAVAIL};
  auto no_route = [this] {
    ++context_.counters.IpOutNoRoutes;
    return Error{ENETUNREACH};
  };
  if (!remote.is_v4() || (!any_local && local.family() != remote.family())) return no_route();

  Route route;
  route.network_ = this;
  route.remote_ = remote;
  if (remote.is_unspecified()) {
    // ip_route_output_key: this host, over the loopback if it has one.
    route.remote_ = !any_local ? local : loopback() != nullptr ? loopback()->address : choose_source(remote);
  }
  if (is_own_address(route.remote_)) {
    route.local_ = any_local ? source_to_self(route.remote_) : local;
    route.next_hop_ = route.remote_;
    route.local_delivery_ = true;
    return route;
  }

  if (is_broadcast(remote)) return Error{EACCES};
  if (remote.is_unspecified() || remote.is_multicast() || remote.is_loopback()) return no_route();
  if (local.is_loopback()) return Error{EINVAL};  // as Linux: it would not be understood on the wire
  if (prefix_of(remote) != nullptr) {
    route.next_hop_ = remote;
  } else {
    route.next_hop_ = choose_gateway(remote.family());
    route.via_gateway_ = true;
    if (route.next_hop_.is_unspecified()) return no_route();
  }
  route.local_ = any_local ? choose_source(route.next_hop_) : local;
  if (route.local_.is_unspecified()) return no_route();
  return route;
}

void Network::avoid_dead_gateway(Route& route) {
  if (!route.via_gateway_ || !neighbours_.is_dead(route.next_hop_, route.hint_)) return;
  IpAddress gateway = choose_gateway(route.remote_.family());
  if (gateway == route.next_hop_) return;
  route.next_hop_ = gateway;
  route.hint_ = {};
}

/// The next hop of a packet didn't answer. If another gateway may do better, it gets the packet; else the
/// sender is told as a router would tell it (Linux's arp_error_report).
void Network::report_unreachable(TxFrame* frame) {
  Bytes bytes = frame->header();
  Ipv4View header(bytes.data());
  IpAddress source = header.source(), destination = header.destination();
  Result<Route> route = find_route(source, destination);
  if (route.ok() && route->needs_neighbour() && !neighbours_.is_dead(route->next_hop_, route->hint_)) {
    (void)neighbours_.send(route->next_hop_, route->hint_, frame);
    return;
  }
  TransportProtocol* transport = transports_[header.protocol()];
  if (transport != nullptr && header.fragment_offset() == 0) {
    IcmpError error;
    error.type = icmp::kUnreachable;
    error.code = icmp::kHostUnreachable;
    error.reporter = source;
    error.local = source;
    error.remote = destination;
    error.protocol = header.protocol();
    error.quoted = bytes.subspan(Ipv4Header::kLength);
    if (error.quoted.size() >= IcmpQuote::kLeastPayload) transport->on_icmp_error(error, context_.now);
  }
  context_.frames.release(frame);
}

// --- Route

bool Route::needs_neighbour() const {
  return !local_delivery_ && network_->link().kind == LinkInfo::Kind::ethernet;
}

uint32_t Route::mtu() const {
  if (local_delivery_) return kLoopback.mtu;
  return network_->path_mtus_.find(remote_, network_->link().mtu);
}

const LinkInfo& Route::link() const { return local_delivery_ ? kLoopback : network_->link(); }

bool Route::is_resolution_required() const {
  return needs_neighbour() && !network_->neighbours_.is_resolved(next_hop_, hint_);
}

Status Route::resolve(Waker& waker) {
  if (!needs_neighbour()) return {};
  network_->avoid_dead_gateway(*this);
  return network_->neighbours_.resolve(next_hop_, hint_, waker);
}

void Route::remove_waker(Waker& waker) { NeighbourCache::remove_waker(waker); }

void Route::confirm_reachable() {
  if (needs_neighbour()) network_->neighbours_.confirm(next_hop_, hint_);
}

Status Route::send(TxFrame* frame, uint8_t protocol, const IpOptionsOut& options) {
  frame->queue = queue;
  return network_->send_ipv4(*this, frame, protocol, options);
}

}  // namespace ustack
