#include "stack/tcp/protocol.h"

#include <algorithm>

#include "stack/host.h"
#include "stack/net/icmp.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/flight.h"
#include "stack/tcp/listener.h"
#include "stack/tcp/output.h"
#include "stack/tcp/time_wait.h"

namespace ustack::tcp {

Protocol::Protocol(Host& host, const HostContext& context, Network& network)
    : host_(host),
      context_(context),
      network_(network),
      segments_(context.arena),
      pieces_(context.arena, context.blocks),
      sent_segments_(context.arena),
      connections_(context.arena, context.random),
      ports_(context.arena),
      selector_(context.random),
      iss_(context.random),
      syn_cookies_(context.random),
      fast_open_(context),
      time_waits_(context.arena),
      awakes_(context.arena),
      endpoints_(context.arena) {
  network_.set_transport(kProtocolNumber, this);
  last_cookie = uint64_t{context.shard} << 48;
  if (context.shard != 0) {
    // What outsiders see is one host's.
    const Protocol& first = of_shard(0);
    iss_ = first.iss_;
    fast_open_keys_ = first.fast_open_keys_;
    return;
  }
  if (settings().tcp_fastopen_keys != 0) {
    (void)fast_open_keys_.set(
        Bytes(settings().tcp_fastopen_key).first(settings().tcp_fastopen_keys * FastOpenKeys::kKeyBytes));
  } else {
    fast_open_keys_.count = 1;
    context.random.fill(MutableBytes(fast_open_keys_.bytes).first(FastOpenKeys::kKeyBytes));
  }
}

Protocol::~Protocol() {
  network_.set_transport(kProtocolNumber, nullptr);
  ending_ = true;
  // Fibers that wait in the middle of a handshake have to come back before their endpoints can go.
  endpoints_.for_each([](Endpoint& endpoint) { endpoint.on_host_ending(); });
  context_.scheduler.run();
}

Result<Socket*> Protocol::open_socket(Family family) {
  if (family == Family::ipv6 && !network_.has_ipv6()) return Error{EAFNOSUPPORT};
  Endpoint* endpoint = create_endpoint(family);
  if (endpoint == nullptr) return Error{ENOBUFS};
  return static_cast<Socket*>(endpoint);
}

Endpoint* Protocol::create_endpoint(Family family) {
  Endpoint* endpoint = endpoints_.create(*this, family);
  if (endpoint == nullptr || endpoint->awake()) return endpoint;
  destroy_endpoint(*endpoint);
  return nullptr;
}

void Protocol::destroy_endpoint(Endpoint& endpoint) { endpoints_.destroy(&endpoint); }

void Protocol::destroy_time_wait(TimeWait& time_wait) { time_waits_.destroy(&time_wait); }

// --- ports and four-tuples ---

Protocol& Protocol::of_shard(uint8_t shard) {
  return shard == context_.shard ? *this : context_.shards->hosts[shard]->tcp();
}

/// Whether is(ports) of some shard. They are one space.
template <typename Is>
bool Protocol::in_any_shard(Is&& is) const {
  if (is(ports_)) return true;
  if (context_.shards == nullptr) return false;
  for (uint32_t i = 0; i < context_.shards->count(); ++i)
    if (i != context_.shard && is(context_.shards->hosts[i]->tcp().ports_)) return true;
  return false;
}

bool Protocol::conflicts_listening(const PortHolder& holder, uint16_t port) const {
  return in_any_shard(
      [&](const PortTable& ports) { return ports.conflicts(holder, holder.bound_address(), port); });
}

Result<uint16_t> Protocol::bind_port(PortHolder& holder, const IpAddress& address, uint16_t port,
                                     int32_t range) {
  holder.by_connect = false;
  if (port == 0) {
    Result<uint16_t> chosen = selector_.select(
        settings(), address, SocketAddress{},
        [&](uint16_t candidate) {
          return !in_any_shard([=](const PortTable& ports) { return !ports.free_for_bind(candidate); });
        },
        range);
    if (!chosen.ok()) return Error{EADDRINUSE};
    port = *chosen;
  } else if (in_any_shard([&](const PortTable& ports) { return ports.conflicts(holder, address, port); })) {
    return Error{EADDRINUSE};
  }
  if (Status status = ports_.claim(holder, address, port); !status.ok()) return status.error();
  return port;
}

Result<uint16_t> Protocol::ephemeral_port(PortHolder& holder, const IpAddress& local,
                                          const SocketAddress& remote, int32_t range) {
  bool loopback = network_.is_own_address(remote.address);
  Result<uint16_t> port = selector_.select(
      settings(), local, remote,
      [&](uint16_t candidate) {
        if (in_any_shard([=](const PortTable& ports) { return !ports.free_for_connect(candidate); }))
          return false;
        if (context_.shards != nullptr &&
            context_.shards->steering.shard_of({local, candidate}, remote) != context_.shard)
          return false;
        Connection* owner = connections_.find({{local, candidate}, remote});
        return owner == nullptr || reusable(*owner, loopback);
      },
      range);
  if (!port.ok()) return port;
  holder.by_connect = true;
  if (Status status = ports_.claim(holder, local, *port); !status.ok()) return status.error();
  return port;
}

/// tcp_tw_reuse: a new connection may take a TIME-WAIT's place when timestamps tell the two apart (RFC 6191).
bool Protocol::reusable(Connection& owner, bool loopback) const {
  if (owner.kind() != Connection::Kind::time_wait) return false;
  int32_t reuse = settings().tcp_tw_reuse;
  if (reuse == 0 || (reuse == 2 && !loopback)) return false;
  const TimeWaitState& state = static_cast<TimeWait&>(owner).time_wait_state();
  return state.timestamps && now() - state.ts_recent_at > 1s;
}

bool Protocol::acquire_tuple(const ConnectionId& id, bool loopback, std::optional<SeqNum>& resume_at) {
  Connection* owner = connections_.find(id);
  if (owner == nullptr) return true;
  if (!reusable(*owner, loopback)) return false;
  auto& time_wait = static_cast<TimeWait&>(*owner);
  resume_at = time_wait.time_wait_state().snd_nxt + 65535 + 2;
  ++counters().TcpExtTWRecycled;
  destroy_time_wait(time_wait);
  return true;
}

void Protocol::enter_time_wait(Endpoint& endpoint) {
  const Tcb& tcb = endpoint.tcb();
  ConnectionId id = endpoint.id();
  connections_.remove(endpoint);
  if (time_waits_.live() >= static_cast<uint64_t>(settings().tcp_max_tw_buckets)) {
    ++counters().TcpExtTCPTimeWaitOverflow;
    return;
  }
  TimeWaitState state{.snd_nxt = tcb.snd.snd_nxt,
                      .rcv_nxt = tcb.rcv.rcv_nxt,
                      .rcv_wnd = tcb.rcv.rcv_wnd(),
                      .rcv_wscale = tcb.rcv.rcv_wscale,
                      .timestamps = tcb.timestamps,
                      .ts_recent = tcb.ts_recent,
                      .ts_recent_at = tcb.ts_recent_at,
                      .ts_offset = tcb.ts_offset};
  TimeWait* time_wait = time_waits_.create(*this, endpoint.route(), endpoint.ip_options(), state);
  if (time_wait == nullptr) return;
  PortHolder& port = time_wait->port();
  port.reuse_address = endpoint.port().reuse_address;
  port.reuse_port = endpoint.port().reuse_port;
  port.by_connect = endpoint.port().by_connect;
  if (!connections_.insert(*time_wait, id).ok() ||
      !ports_.claim(port, id.local.address, id.local.port).ok()) {
    destroy_time_wait(*time_wait);
    return;
  }
  time_wait->restart();
}

// --- listeners ---

void Protocol::add_listener(Endpoint& endpoint) {
  listeners_[endpoint.awake_->local.port % kListenerChains].push_back(endpoint);
}

void Protocol::remove_listener(Endpoint& endpoint) { static_cast<ListHook<ListenerTag>&>(endpoint).unlink(); }

/// The listener for a SYN: bound to the address rather than to the wildcard; among several with SO_REUSEPORT
/// one by the four-tuple's hash, as Linux (inet_lookup_listener).
Endpoint* Protocol::find_listener(const ConnectionId& id) const {
  Endpoint* best = nullptr;
  uint32_t best_score = 0, equals = 0;
  uint32_t hash = 0;
  for (Endpoint& candidate : listeners_[id.local.port % kListenerChains]) {
    if (candidate.awake_->local.port != id.local.port) continue;
    const IpAddress& address = candidate.awake_->local.address;
    const bool any = address.is_unspecified();
    if (!any && !(address == id.local.address)) continue;
    if (any && address.family() != id.local.address.family() && !candidate.takes_ipv4_on_any()) continue;
    const bool bound = candidate.awake_->options.device != BoundDevice::any;
    if (bound && !candidate.awake_->options.reaches(network_.is_own_address(id.remote.address))) continue;
    // Linux's compute_score: the address counts for more than the device, a socket of IPv4 for IPv4 as much.
    const bool of_ipv4 = candidate.family() == Family::ipv4;
    uint32_t score = (any ? 1 : 4) + (bound ? 1 : 0) + (of_ipv4 ? 1 : 0);
    if (score > best_score) {
      best = &candidate;
      best_score = score;
      equals = 1;
    } else if (score == best_score && candidate.port_.reuse_port) {
      if (equals == 1) hash = connections_.hash(id);
      ++equals;
      // One of n, each with the same probability, decided by the hash alone.
      if (hash % equals == 0) best = &candidate;
      hash = hash / equals * 2654435761u;
    }
  }
  return best;
}

bool Protocol::has_listener(const ConnectionId& id) const { return find_listener(id) != nullptr; }

// --- arrivals ---

void Protocol::on_packet(Packet&& packet, Instant) {
  ++counters().TcpInSegs;
  Result<Segment*> segment = segments_.receive(std::move(packet));
  if (!segment.ok()) {
    if (segment.code() == ENOBUFS) {
      ++counters().UstackRxNoMemory;
    } else {
      ++counters().TcpInErrs;
      if (segment.code() == EBADMSG) ++counters().TcpInCsumErrors;
    }
    return;
  }
  dispatch(*segment);
}

void Protocol::dispatch(Segment* segment) {
  if (Connection* owner = connections_.find(segment->id)) {
    if (owner->kind() == Connection::Kind::time_wait)
      static_cast<TimeWait*>(owner)->on_segment(segment);
    else
      static_cast<Endpoint*>(owner)->enqueue(segment);
    return;
  }
  if (Endpoint* listener = find_listener(segment->id)) {
    listener->enqueue(segment);
    return;
  }
  // RFC 9293, 3.10.7.1: CLOSED.
  reset_stranger(*segment);
  segments_.release(segment);
}

void Protocol::reset_stranger(const Segment& segment) {
  ResetAnswer answer = reset_answer(segment.flags, segment.seq, segment.ack, segment.seq_length());
  if (!answer.send || ending_) return;
  if (!resets_.allow(settings().tcp_reset_limit, now())) {
    ++counters().UstackTcpResetsSuppressed;
    return;
  }
  Result<Route> route = network_.find_route(segment.id.local.address, segment.id.remote.address);
  if (!route.ok()) return;
  IpOptionsOut ip;
  ip.ttl = static_cast<uint8_t>(settings().ip_default_ttl);
  SegmentOut rst{.id = segment.id,
                 .flags = {.rst = true, .ack = answer.with_ack},
                 .seq = answer.seq,
                 .ack = answer.ack,

                 .ip = ip};
  (void)send_segment(*this, *route, rst);
}

bool Protocol::crowded() const { return awakes_.live() > static_cast<uint64_t>(settings().tcp_awake); }

bool Protocol::under_memory_pressure() {
  const bool pressed = pressed_since_ != kNever;
  if (over(settings().tcp_mem[pressed ? 0 : 1]) == pressed) return pressed;
  if (pressed) {
    counters().TcpExtTCPMemoryPressuresChrono += static_cast<uint64_t>(to_ms(now() - pressed_since_));
    pressed_since_ = kNever;
  } else {
    ++counters().TcpExtTCPMemoryPressures;
    pressed_since_ = now();
  }
  return !pressed;
}

void Protocol::owe_ack(Endpoint& endpoint) {
  ListHook<OwesAck>& hook = *endpoint.awake_;
  if (!hook.linked()) owe_acks_.push_back(*endpoint.awake_);
}

void Protocol::send_owed_acks() {
  while (Awake* awake = owe_acks_.pop_front()) awake->endpoint.send_owed_ack();
}

bool Protocol::allow_challenge_ack() {
  if (!challenge_acks_.allow_unpredictably(settings().tcp_challenge_ack_limit, now(), context_.random))
    return false;
  ++counters().TcpExtTCPChallengeACK;
  return true;
}

// --- ICMP errors ---

void Protocol::on_icmp_error(const IcmpError& error, Instant) {
  if (error.quoted.size() < 8) return;
  ConnectionId id{{error.local, load_be16(error.quoted.data())},
                  {error.remote, load_be16(error.quoted.data() + 2)}};
  SeqNum seq(load_be32(error.quoted.data() + 4));
  Connection* owner = connections_.find(id);
  if (owner == nullptr || owner->kind() != Connection::Kind::endpoint) return;
  auto& endpoint = static_cast<Endpoint&>(*owner);
  // RFC 5927, section 4: only about what is in flight, which in a handshake is the SYN.
  const Sender* snd = endpoint.awake() ? &endpoint.tcb().snd : nullptr;  // at rest, nothing is
  if (snd == nullptr || endpoint.tcp_state() == State::closed ||
      !(snd->snd_una <= seq && seq <= snd->snd_nxt)) {
    ++counters().TcpExtOutOfWindowIcmps;
    return;
  }
  if (icmp::is_too_big(error)) {
    const PmtuDiscovery how = endpoint.pmtu_discovery();
    if (how == PmtuDiscovery::dont || how == PmtuDiscovery::omit) return;
    endpoint.on_path_mtu(network_.update_path_mtu(error.remote, error.mtu));
    return;
  }
  if (int code = icmp::meaning_of(error).error) endpoint.on_icmp_error(code, seq, error);
}

/// Linux's tcp_v4_err: an attempt ends with it, a connection only remembers it, for when it gives up - unless
/// the program wants to know at once (IP_RECVERR). `seq`: of the segment that has met it.
void Endpoint::on_icmp_error(int error, SeqNum seq, const IcmpError& icmp) {
  if (handshaking()) {
    if (!passive_) report_icmp(error, icmp);
    awake_->notified_error = error;
    notify(kNotifyError);
    return;
  }
  if (icmp::is_way_lost(icmp) && awake_->tcb.snd.on_unreachable(seq, protocol_.now())) sync_timers();
  if (receives_errors() && is_synchronized(awake_->tcb.state)) {
    error_ = error;
    wake(ready::kErr);
  } else {
    awake_->soft_error = error;
  }
}

}  // namespace ustack::tcp
