#include "stack/udp/endpoint.h"

#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "stack/base/checksum.h"
#include "stack/host.h"
#include "stack/net/checksum.h"

namespace ustack::udp {

namespace {

/// net.core.rmem_default and wmem_default of Linux.
constexpr uint32_t kDefaultBuffer = 212992;
/// Frames of the whole host beyond which it takes no more datagrams: the link doesn't take them.
constexpr uint64_t kMostFrames = 4096;
/// What packets of IPv6 have room for, and those of IPv4.
constexpr size_t kLargestOverIpv6 = Ipv6Header::kLargestPayload - Protocol::kHeader;
constexpr size_t kLargestOverIpv4 = Ipv4Header::kLargestPacket - Ipv4Header::kLength - Protocol::kHeader;

}  // namespace

Endpoint::Endpoint(Protocol& protocol, Family family)
    : DatagramSocket(protocol.host()),
      protocol_(protocol),
      family_(family),
      any_(IpAddress::any(family)),
      local_{any_, 0},
      remote_{any_, 0},
      receive_limit_(kDefaultBuffer),
      send_limit_(kDefaultBuffer) {}

void Endpoint::retire() { static_cast<ListHook<OfPort>&>(*this).unlink(); }

Endpoint::~Endpoint() {
  while (Datagram* datagram = queue_.pop_front()) free(datagram);
  while (Datagram* datagram = taken_.pop_front()) free(datagram);
  while (TxFrame* frame = filling_.pop_front()) protocol_.context().frames.release(frame);
  protocol_.context().arena.destroy(std::exchange(reports_, nullptr));
}

int Endpoint::protocol() const { return IPPROTO_UDP; }

void Endpoint::release() { protocol_.destroy(*this); }

// --- names ---

Status Endpoint::bind(const SocketAddress& local) {
  if (local_.port != 0) return Error{EINVAL};
  if (!local.address.is_unspecified() && !protocol_.network().is_own_address(local.address) &&
      !protocol_.network().is_broadcast(local.address) && !plain_.free_bind())
    return Error{EADDRNOTAVAIL};
  const bool has_family = local.address.family() != Family::unspecified;
  SocketAddress wanted{has_family ? local.address : any_, local.port};
  if (Status s = protocol_.bind_port(*this, wanted, {}, plain_.port_range); !s.ok()) return s;
  local_.address = wanted.address;
  address_bound_ = !wanted.address.is_unspecified();
  if (!address_bound_) any_ = wanted.address;
  port_bound_ = local.port != 0;
  return {};
}

Result<SocketAddress> Endpoint::remote_address() const {
  // inet_getname: one that has no port is none.
  if (remote_.port == 0) return Error{ENOTCONN};
  return remote_;
}

/// __udp_disconnect.
void Endpoint::dissolve() {
  remote_ = {any_, 0};
  if (!address_bound_) local_.address = any_;
  if (!port_bound_) {
    retire();
    local_.port = 0;
  }
}

IpAddress Endpoint::source() const {
  const bool usable = address_bound_ || connected();
  return usable && !protocol_.network().is_broadcast(local_.address) ? local_.address : any_;
}

/// EAFNOSUPPORT: to IPv6 from an address of IPv4 (ip6_dst_lookup_tail); and what Network::find_route() says.
Result<Route> Endpoint::route_to(const IpAddress& from, const IpAddress& to) {
  if (to.is_v6() && from.is_v4()) return Error{EAFNOSUPPORT};
  return protocol_.network().find_route(from, to);
}

Status Endpoint::connect(const SocketAddress& remote) {
  if (remote.address.family() == Family::unspecified) {
    dissolve();
    return {};
  }
  Result<Route> route = route_to(source(), remote.address);
  if (!route.ok()) return route.error();
  if (local_.port == 0) {
    Status s = protocol_.bind_port(*this, {route->local(), 0}, remote, plain_.port_range);
    if (!s.ok()) return Error{EAGAIN};  // inet_autobind
  }
  if (!address_bound_) local_.address = route->local();
  remote_ = {route->remote(), remote.port};
  return {};
}

Status Endpoint::shutdown(ShutdownHow how) {
  // inet_shutdown: what isn't connected is told so, and is shut down all the same.
  if (how != ShutdownHow::write) read_shut_ = true;
  if (how != ShutdownHow::read) write_shut_ = true;
  waiters.notify_all(readiness());
  return connected() ? Status() : Error{ENOTCONN};
}

/// datagram_poll.
uint32_t Endpoint::readiness() const {
  uint32_t events = ready::kOut | ready::kWrNorm | ready::kWrBand;
  if (error_ != 0 || (reports_ != nullptr && !reports_->empty())) events |= ready::kErr;
  if (read_shut_) events |= ready::kIn | ready::kRdNorm | ready::kRdHup;
  if (read_shut_ && write_shut_) events |= ready::kHup;
  if (!queue_.empty()) events |= ready::kIn | ready::kRdNorm;
  return events;
}

Result<int> Endpoint::ioctl_value(unsigned long request) {
  constexpr unsigned long kInq = 0x541b, kOutq = 0x5411;
  switch (request) {
    case kInq:
      return queue_.empty() ? 0 : static_cast<int>(queue_.front()->data.length);
    case kOutq:
      return 0;
    default:
      return Error{EINVAL};
  }
}

// --- sending ---

Result<TxFrame*> Endpoint::reserve(size_t bytes) {
  if (bytes > (family_ == Family::ipv4 ? kLargestOverIpv4 : kLargestOverIpv6)) return Error{EMSGSIZE};
  if (int error = std::exchange(error_, 0)) return Error{error};
  if (write_shut_) return Error{EPIPE};
  const HostContext& context = protocol_.context();
  TxFrame* frame = context.frames.live() < kMostFrames ? context.frames.allocate() : nullptr;
  if (frame == nullptr) {
    ++protocol_.counters(any_).send_buffer_errors;
    return Error{ENOBUFS};
  }
  if (bytes > 0) {
    const auto length = static_cast<uint32_t>(bytes);
    Slice room{context.blocks.allocate(length), 0, length};
    if (!room.block || !frame->append(std::move(room))) {
      context.frames.release(frame);
      ++protocol_.counters().UstackTxNoMemory;
      return Error{ENOBUFS};
    }
  }
  filling_.push_back(*frame);
  return frame;
}

void Endpoint::abandon(TxFrame* frame) {
  filling_.remove(*frame);
  protocol_.context().frames.release(frame);
}

Status Endpoint::send(TxFrame* frame, const DatagramOut& how) {
  filling_.remove(*frame);
  auto refuse = [&](int error) {
    protocol_.context().frames.release(frame);
    return Error{error};
  };
  const bool given = how.to.address.family() != Family::unspecified;
  if (!given && !connected()) return refuse(EDESTADDRREQ);
  const SocketAddress to = given ? how.to : remote_;
  if (to.port == 0) return refuse(EINVAL);
  Result<Route> route = route_to(how.from.is_unspecified() ? source() : how.from, to.address);
  if (!route.ok()) {
    // ip_route_output_key, ip6_datagram_send_ctl.
    const bool wrong_source = !how.from.is_unspecified() && route.code() == EADDRNOTAVAIL;
    return refuse(wrong_source ? EINVAL : route.code());
  }
  const bool by_gateway = !route->is_local() && !(route->next_hop() == route->remote());
  if (!reaches(route->is_local()) || (dont_route_ && by_gateway)) return refuse(ENETUNREACH);
  if (local_.port == 0) {
    // inet_autobind.
    Status s = protocol_.bind_port(*this, {any_, 0}, to, plain_.port_range);
    if (!s.ok()) return refuse(EAGAIN);
  }

  write_header(*frame, *route, to.port);
  Status s = route->send(
      frame, Protocol::kProtocolNumber,
      to.address.is_v6() ? ipv6_options(how, to.port, *route) : ip_options(how, frame->size(), *route));
  const UdpCounters& counted = protocol_.counters(to.address);
  if (s.ok())
    ++counted.out_datagrams;
  else if (s.code() == ENOBUFS)
    ++counted.send_buffer_errors;
  else if (s.code() == EMSGSIZE && receives_errors(to.address))
    report_too_long(to, route->mtu());
  return s;
}

/// The checksum's field holds the pseudo-header's sum; whoever can do it best adds the rest.
void Endpoint::write_header(TxFrame& frame, const Route& route, uint16_t to) {
  std::byte* header = frame.prepend(Protocol::kHeader);
  const uint32_t length = frame.size();
  store_be16(header, local_.port);
  store_be16(header + 2, to);
  store_be16(header + 4, static_cast<uint16_t>(length));
  store_be16(header + 6, 0);
  if (no_checksum_ && route.remote().is_v4()) return;
  Checksum sum(pseudo_header_sum(route.local(), route.remote(), Protocol::kProtocolNumber, length));
  store_be16(header + 6, sum.folded());
  frame.offload.partial_checksum = true;
  frame.offload.checksum_offset = 6;
}

IpOptionsOut Endpoint::ip_options(const DatagramOut& how, uint32_t bytes, const Route& route) const {
  const int ttl = ttl_ > 0 ? int{ttl_} : protocol_.settings().ip_default_ttl;
  IpOptionsOut ip;
  ip.ttl = how.ttl.value_or(static_cast<uint8_t>(ttl));
  ip.tos = how.tos.value_or(tos_);
  switch (pmtu_discovery_) {
    case PmtuDiscovery::always:
    case PmtuDiscovery::probe:
      ip.dont_fragment = true;
      break;
    case PmtuDiscovery::want:
      // What doesn't fit is cut here, and further on if need be (__ip_make_skb).
      ip.dont_fragment = Ipv4Header::kLength + bytes <= route.mtu();
      break;
    case PmtuDiscovery::dont:
    case PmtuDiscovery::interface:
    case PmtuDiscovery::omit:
      ip.dont_fragment = false;
      break;
  }
  return ip;
}

IpOptionsOut Endpoint::ipv6_options(const DatagramOut& how, uint16_t to, const Route& route) const {
  const int hops = ipv6_.hop_limit >= 0 ? int{ipv6_.hop_limit} : int{protocol_.settings().ipv6_hop_limit};
  IpOptionsOut ip;
  ip.ttl = how.ttl.value_or(static_cast<uint8_t>(hops));
  ip.tos = how.tos.value_or(ipv6_.traffic_class);
  ip.mtu = fragment_mtu_;
  switch (ipv6_.pmtu_discovery) {
    case PmtuDiscovery::always:
    case PmtuDiscovery::probe:
    case PmtuDiscovery::interface:
      // ip6_sk_ignore_df.
      ip.dont_fragment = true;
      break;
    case PmtuDiscovery::want:
    case PmtuDiscovery::dont:
    case PmtuDiscovery::omit:
      ip.dont_fragment = how.dont_fragment.value_or(dont_fragment_);
      break;
  }
  if (ipv6_.flow_label)
    ip.flow_label = protocol_.flow_label({route.local(), local_.port}, {route.remote(), to});
  return ip;
}

// --- receiving ---

void Endpoint::free(Datagram* datagram) { protocol_.datagrams().destroy(datagram); }

void Endpoint::receive(const Datagram& what) {
  const UdpCounters& counted = protocol_.counters(what.destination.address);
  const uint32_t cost = what.data.block->true_size();
  // __udp_enqueue_schedule_skb: one more than fits is taken.
  if (queue_bytes_ > receive_limit_) {
    ++counted.receive_buffer_errors;
    ++counted.in_errors;
    return;
  }
  if (what.destination.address.is_v4() && what.ttl < plain_.min_ttl) return;
  Datagram* datagram = protocol_.datagrams().create();
  if (datagram == nullptr) {
    ++protocol_.counters().UstackRxNoMemory;
    return;
  }
  datagram->data = what.data;
  datagram->source = what.source;
  datagram->destination = what.destination;
  datagram->ttl = what.ttl;
  datagram->tos = what.tos;
  datagram->arrived = what.arrived;
  queue_bytes_ += cost;
  queue_.push_back(*datagram);
  ++counted.in_datagrams;
  wake(ready::kIn | ready::kRdNorm);
}

Result<Datagram*> Endpoint::take(bool peek) {
  if (int error = std::exchange(error_, 0)) return Error{error};
  Datagram* datagram = queue_.front();
  if (datagram == nullptr) return Error{EAGAIN};
  ++datagram->readers;
  if (peek) return datagram;
  queue_bytes_ -= datagram->data.block->true_size();
  datagram->queued = false;
  queue_.remove(*datagram);
  taken_.push_back(*datagram);
  return datagram;
}

void Endpoint::done(Datagram* datagram) {
  if (--datagram->readers == 0 && !datagram->queued) free(datagram);
}

DatagramWishes Endpoint::wishes() const {
  return {.packet_info = plain_.is_on(tcp::PlainOptions::kPacketInfo),
          .ttl = plain_.is_on(tcp::PlainOptions::kReceiveTtl),
          .tos = plain_.is_on(tcp::PlainOptions::kReceiveTos),
          .original_destination = plain_.is_on(tcp::PlainOptions::kOriginalDestination)};
}

// --- errors ---

/// __udp4_lib_err.
void Endpoint::on_error(int error, bool fatal, const IcmpError& icmp) {
  if (receives_errors(icmp.remote))
    report_icmp(error, icmp);
  else if (!fatal || !connected())
    return;
  error_ = error;
  wake(ready::kErr);
}

void Endpoint::push(Report&& report) {
  if (reports_ == nullptr)
    reports_ = protocol_.context().arena.create<tcp::Reports>(protocol_.context().arena);
  if (reports_ == nullptr || reports_->true_size() + queue_bytes_ >= receive_limit_) return;
  if (reports_->push(std::move(report))) wake(ready::kErr);
}

void Endpoint::report_icmp(int error, const IcmpError& icmp) {
  Report told = icmp_report(protocol_.context().blocks, error, icmp, load_be16(icmp.quoted.data() + 2),
                            icmp.quoted.subspan(Protocol::kHeader));
  if (told.payload.block) push(std::move(told));
}

/// ip_local_error.
void Endpoint::report_too_long(const SocketAddress& to, uint32_t mtu) {
  Report told;
  told.what.ee_errno = EMSGSIZE;
  told.what.ee_origin = SO_EE_ORIGIN_LOCAL;
  told.what.ee_info = mtu;
  told.about = to;
  push(std::move(told));
}

std::optional<Report> Endpoint::take_report() {
  if (reports_ == nullptr) return std::nullopt;
  std::optional<Report> report = reports_->pop();
  if (!report) return std::nullopt;
  const Report* next = reports_->front();
  const bool next_is_icmp = next != nullptr && next->is_icmp();
  if (next_is_icmp) error_ = static_cast<int>(next->what.ee_errno);
  if (report->is_icmp() && !next_is_icmp) error_ = 0;
  if (next != nullptr) wake(ready::kErr);
  return report;
}

}  // namespace ustack::udp
