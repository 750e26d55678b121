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

/// 127.0.0.1/8 or ::1, if the loopback is this host's; else nullptr.
const Prefix* Network::loopback(Family family) const {
  for (const Prefix& own : addresses())
    if (own.address.is_loopback() && own.address.family() == family) return &own;
  return nullptr;
}

/// Where packets to one of our addresses come from: that address itself, but 127.0.0.1 for all of 127.0.0.0/8
/// (the preferred sources of Linux's local table).
IpAddress Network::source_to_self(const IpAddress& own) const {
  const Prefix* prefix = own.is_loopback() ? loopback(own.family()) : nullptr;
  return prefix != nullptr ? prefix->address : own;
}

namespace {

uint32_t common_prefix(const IpAddress& a, const IpAddress& b) {
  for (uint32_t i = 0; i < a.size(); ++i)
    if (const auto differs = std::to_integer<unsigned>(a.data()[i] ^ b.data()[i]); differs != 0)
      return 8 * i + static_cast<uint32_t>(__builtin_clz(differs)) - 24;
  return 8u * a.size();
}

}  // namespace

/// RFC 6724, section 5, as far as addresses of ours differ: one that reaches as far as `remote`, then the one
/// that has most in common with it. "No address" if there is none.
IpAddress Network::choose_ipv6_source(const IpAddress& remote) const {
  const bool near = remote.is_link_local() || remote.is_multicast();
  IpAddress best;
  uint32_t best_score = 0;
  for (const Prefix& own : addresses()) {
    if (!own.address.is_v6() || own.address.is_loopback()) continue;
    const uint32_t score =
        1 + (own.address.is_link_local() == near ? 1000 : 0) + common_prefix(own.address, remote);
    if (score <= best_score) continue;
    best = own.address;
    best_score = score;
  }
  return best;
}

/// The address in the next hop's prefix, else our first of its family; "no address" if there is none.
IpAddress Network::choose_source(const IpAddress& remote, const IpAddress& next_hop) const {
  if (remote.is_v6()) return choose_ipv6_source(remote);
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
  auto no_route = [this, &remote] {
    ++(remote.is_v6() ? context_.counters.Ip6OutNoRoutes : context_.counters.IpOutNoRoutes);
    return Error{ENETUNREACH};
  };
  if (!any_local && local.family() != remote.family()) return no_route();

  Route route;
  route.network_ = this;
  route.remote_ = remote;
  if (remote.is_unspecified()) {
    // ip_route_output_key: this host, over the loopback if it has one.
    const Prefix* turned = loopback(remote.family());
    route.remote_ = !any_local ? local : turned != nullptr ? turned->address : choose_source(remote, remote);
  }
  if (route.remote_.is_v4()) route.ip_ids_ = ip_ids_.counter_of(route.remote_);
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
  route.local_ = any_local ? choose_source(remote, route.next_hop_) : local;
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
  const bool v6 = Ipv4View(bytes.data()).version() == 6;
  // Of ours none has extension headers but for fragments, which no transport is told of.
  const Ipv4View v4_header(bytes.data());
  const Ipv6View v6_header(bytes.data());
  IpAddress source = v6 ? v6_header.source() : v4_header.source();
  IpAddress destination = v6 ? v6_header.destination() : v4_header.destination();
  const uint8_t protocol = v6 ? v6_header.next_header() : v4_header.protocol();
  Result<Route> route = find_route(source, destination);
  if (route.ok() && route->needs_neighbour() && !neighbours_.is_dead(route->next_hop_, route->hint_)) {
    (void)neighbours_.send(route->next_hop_, route->hint_, frame);
    return;
  }
  TransportProtocol* transport = transports_[protocol];
  if (transport != nullptr && (v6 || v4_header.fragment_offset() == 0)) {
    IcmpError error;
    error.type = v6 ? icmpv6::kUnreachable : icmp::kUnreachable;
    error.code = v6 ? icmpv6::kAddressUnreachable : icmp::kHostUnreachable;
    error.reporter = source;
    error.local = source;
    error.remote = destination;
    error.protocol = protocol;
    error.quoted = bytes.subspan(v6 ? Ipv6Header::kLength : Ipv4Header::kLength);
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
  return remote_.is_v6() ? network_->send_ipv6(*this, frame, protocol, options)
                         : network_->send_ipv4(*this, frame, protocol, options);
}

}  // namespace ustack
