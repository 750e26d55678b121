// bind, connect and what the handshake came to.
#include <algorithm>
#include <atomic>
#include <new>

#include "stack/host.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/listener.h"

namespace ustack::tcp {

Status Endpoint::bind(const SocketAddress& local) {
  if (!ensure_awake()) return Error{ENOBUFS};
  if (!takes(local.address.family())) return Error{EAFNOSUPPORT};
  if (awake_->tcb.state != State::closed || port_.bound()) return Error{EINVAL};
  if (!local.address.is_unspecified() && !awake_->options.plain.free_bind() &&
      !protocol_.network().is_own_address(local.address))
    return Error{EADDRNOTAVAIL};
  // IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect(2), which knows more.
  if (local.port == 0 && awake_->options.bind_address_no_port) {
    awake_->bound_address = local.address;
    awake_->local = local;
    return {};
  }
  port_.reuse_address = awake_->options.reuse_address;
  port_.reuse_port = awake_->options.reuse_port;
  port_.v6_only = awake_->options.ipv6.v6_only;
  port_.by_connect = false;
  Result<uint16_t> port =
      protocol_.bind_port(port_, local.address, local.port, awake_->options.plain.port_range);
  if (!port.ok()) return port.error();
  awake_->bound_address = local.address;
  awake_->local = {local.address, *port};
  port_chosen_by_user_ = true;
  return {};
}

Status Endpoint::connect(const SocketAddress& remote) {
  if (!ensure_awake()) return Error{ENOBUFS};
  if (remote.address.family() == Family::unspecified) {
    disconnect();
    return {};
  }
  if (!takes(remote.address.family())) return Error{EAFNOSUPPORT};
  switch (connecting_) {
    case Connecting::under_way:
      return Error{fast_open_deferred_ ? EISCONN : EALREADY};
    case Connecting::established:
      connecting_ = Connecting::connected;
      return {};
    case Connecting::connected:
      return Error{EISCONN};
    case Connecting::failed: {
      // Linux's inet_stream_connect: the failure is told once, then the socket is as new.
      connecting_ = Connecting::idle;
      int error = take_error();
      return Error{error != 0 ? error : ECONNABORTED};
    }
    case Connecting::idle:
      break;
  }
  if (awake_->tcb.state != State::closed) return Error{EISCONN};
  return open_active(remote, awake_->options.fast_open_connect);
}

Status Endpoint::connect_with_data(const SocketAddress& remote) {
  if (!ensure_awake()) return Error{ENOBUFS};
  // Linux's tcp_sendmsg_fastopen.
  if ((protocol_.settings().tcp_fastopen & fast_open::kClient) == 0) return Error{EOPNOTSUPP};
  if (connecting_ != Connecting::idle || awake_->tcb.state != State::closed) return connect(remote);
  if (!takes(remote.address.family())) return Error{EAFNOSUPPORT};
  return open_active(remote, true);
}

/// RFC 7413, 4.1.3: a SYN to this peer may carry data.
bool Endpoint::fast_open_possible() const {
  if (awake_->options.fast_open_no_cookie ||
      (protocol_.settings().tcp_fastopen & fast_open::kClientWithoutCookie) != 0)
    return true;
  FastOpenCache& cache = protocol_.fast_open();
  const FastOpenCache::Entry* known = cache.find(id().remote.address);
  return known != nullptr && known->cookie.length > 0 && cache.usable(id().remote.address);
}

/// A port that was chosen before, by bind(2) or for an earlier connection, may lead to another shard; and
/// where this shard has no port left for the destination, another one may have.
Socket* Endpoint::to_connect(const SocketAddress& remote, bool elsewhere) {
  const Shards* shards = protocol_.shards();
  if (shards == nullptr || !awake() || connecting_ != Connecting::idle ||
      awake_->tcb.state != State::closed || remote.address.family() == Family::unspecified)
    return this;
  auto shard = static_cast<uint8_t>((protocol_.context().shard + (elsewhere ? 1u : 0u)) % shards->count());
  if (port_.bound()) {
    Result<Route> route = protocol_.network().find_route(awake_->bound_address, remote.address);
    if (!route.ok()) return this;  // as connect() will say
    shard = shards->steering.shard_of({route->local(), awake_->local.port}, {route->remote(), remote.port});
  }
  Protocol& other = protocol_.of_shard(shard);
  return &other == &protocol_ ? this : move_to(other);
}

/// All that it has is another's in that shard, and this one is gone. nullptr: no memory, and it is as it was.
Endpoint* Endpoint::move_to(Protocol& other) {
  Endpoint* heir = other.create_endpoint(family_);
  if (heir == nullptr) return nullptr;
  Change change(*heir);
  heir->be_sibling_of(*this);
  heir->port_.listening = false;
  heir->port_chosen_by_user_ = port_chosen_by_user_;
  if (port_.bound() && !other.ports().claim(heir->port_, port_.bound_address(), awake_->local.port).ok()) {
    heir->release();
    return nullptr;
  }
  heir->awake_->cookie = awake_->cookie;
  heir->error_ = error_;
  heir->owned = owned;
  heir->tells_of_sends = tells_of_sends;
  heir->waiters.take_over(waiters);
  owned = false;
  release();
  return heir;
}

/// RFC 9293, 3.10.1: an active OPEN. `with_data`: by Fast Open if that is possible, then the SYN waits for
/// the program's data; if not, a cookie is asked for.
Status Endpoint::open_active(const SocketAddress& remote, bool with_data) {
  if (awake_->tcb.snd.buffer.reserved() || awake_->tcb.rcv.buffer.viewed()) return Error{EALREADY};
  // Linux's ip6_dst_lookup_tail.
  if (remote.address.is_v6() && awake_->bound_address.is_v4()) return Error{EAFNOSUPPORT};
  Change change(*this);
  Result<Route> route = protocol_.network().find_route(awake_->bound_address, remote.address);
  // TCP has no broadcast, whatever SO_BROADCAST says.
  if (!route.ok()) return route.code() == EACCES ? Error{ENETUNREACH} : route.error();
  if (awake_->options.dont_route && !route->is_local() && !(route->next_hop() == route->remote()))
    return Error{ENETUNREACH};
  if (!awake_->options.reaches(route->is_local())) return Error{ENETUNREACH};
  reset_tcb();
  awake_->route = *route;
  awake_->route.queue = protocol_.context().queue;
  ConnectionId id{{awake_->route.local(), awake_->local.port}, {awake_->route.remote(), remote.port}};
  awake_->iss_floor.reset();
  if (!port_.bound()) {
    Result<uint16_t> port =
        protocol_.ephemeral_port(port_, id.local.address, id.remote, awake_->options.plain.port_range);
    if (!port.ok()) return port.error();
    id.local.port = *port;
  }
  // Nothing that is for it would come here: to_connect() was not asked.
  if (const Shards* shards = protocol_.shards();
      shards != nullptr && shards->steering.shard_of(id.local, id.remote) != protocol_.context().shard)
    return Error{EADDRNOTAVAIL};
  auto give_port_back = [&] {
    if (!port_chosen_by_user_) protocol_.ports().release(port_);
  };
  if (!protocol_.acquire_tuple(id, awake_->route.is_local(), awake_->iss_floor)) {
    give_port_back();
    return Error{EADDRNOTAVAIL};
  }
  if (Status status = protocol_.connections().insert(*this, id); !status.ok()) {
    give_port_back();
    return status;
  }
  awake_->local = id.local;
  connecting_ = Connecting::under_way;
  error_ = awake_->soft_error = 0;
  send_shut_ = receive_ended_ = false;
  passive_ = false;
  fast_open_ = with_data;
  syn_data_acknowledged_ = false;
  fast_open_failure_ = FastOpenFailure::none;
  handshake_pending_ = true;
  ++protocol_.counters().TcpActiveOpens;
  State before = awake_->tcb.state;
  awake_->tcb.state = State::syn_sent;
  on_state_change(before);
  if (with_data) {
    fast_open_deferred_ = fast_open_possible();
    if (fast_open_deferred_) return {};
    fast_open_failure_ = FastOpenFailure::cookie_unavailable;
  }
  awake_->make_ready();
  return Error{EINPROGRESS};
}

Status Endpoint::connect_result() {
  switch (connecting_) {
    case Connecting::under_way:
      return Error{EINPROGRESS};
    case Connecting::established:
      connecting_ = Connecting::connected;
      return {};
    case Connecting::failed: {
      connecting_ = Connecting::idle;
      int error = take_error();
      return Error{error != 0 ? error : ECONNABORTED};
    }
    case Connecting::connected:
      return {};
    case Connecting::idle:
      break;
  }
  return Error{ENOTCONN};
}

/// On the fiber, after Handshake::execute().
void Endpoint::handshake_done(Status status, bool passive) {
  Counters& counters = protocol_.counters();
  if (!status.ok()) {
    ++counters.TcpAttemptFails;
    protocol_.context().log(LogLevel::info, [&](LogLine& line) {
      line << id() << ": " << (passive ? "passive" : "active") << " open failed, errno " << status.code();
    });
    if (passive) return passive_open_failed(status.code());
    fast_open_deferred_ = false;
    // disconnect() has asked for it: then there is nothing to tell.
    bool wanted = connecting_ == Connecting::under_way;
    if (wanted) connecting_ = Connecting::failed;
    done(wanted ? status.code() : 0);
    if (!wanted) send_shut_ = receive_ended_ = false;
    return;
  }

  protocol_.context().log(LogLevel::info, [&](LogLine& line) {
    line << id() << ": " << (passive ? "accepted" : "connected") << ", mss " << awake_->tcb.snd.mss()
         << " wscale " << awake_->tcb.snd.snd_wscale << '/' << awake_->tcb.rcv.rcv_wscale
         << (awake_->tcb.timestamps ? " timestamps" : "") << (awake_->tcb.sack ? " sack" : "");
  });
  if (passive) ++counters.TcpPassiveOpens;
  // What nobody asks about any more needn't be in records.
  awake_->peer_syn = {};
  awake_->peer_iss = {};
  awake_->peer_window = 0;
  if (passive && awake_->parent == nullptr && !early_) {
    // The listener was closed meanwhile.
    send_reset();
    done(ECONNABORTED);
    return;
  }
  grow_send_buffer();
  // Our SYN was acknowledged: the next hop is alive.
  awake_->route.confirm_reachable();
  start_keepalive();
  if (passive) {
    passive_open_done();
  } else {
    // With data in the SYN connect(2) has returned long ago.
    connecting_ = fast_open_ && fast_open_failure_ != FastOpenFailure::cookie_unavailable
                      ? Connecting::connected
                      : Connecting::established;
    wake(ready::kOut | ready::kWrNorm);
  }
  settle();
}

/// Where none is, or what is left of one.
void Endpoint::make_tcb() {
  new (&awake_->tcb) Tcb(protocol_.context().blocks, protocol_.pieces(), protocol_.sent_segments());
  std::atomic_signal_fence(std::memory_order_seq_cst);
  tcb_in_making_ = false;
}

/// A socket whose connection has ended, or that never had one, gets a fresh Tcb; what the program has set
/// stays.
void Endpoint::reset_tcb() {
  struct Kept {
    bool nodelay, thin_linear, cork;
    uint32_t notsent_lowat, limit, low_water;
    bool limit_locked;
    uint64_t max_pacing_rate;
    Duration max_ack_delay;
    RttEstimator::Bounds rto;
    std::string_view congestion;
  } kept{awake_->tcb.snd.nodelay,
         awake_->tcb.snd.thin_linear,
         awake_->tcb.snd.cork,
         awake_->tcb.snd.notsent_lowat,
         awake_->tcb.rcv.limit,
         awake_->tcb.rcv.low_water,
         awake_->tcb.rcv.limit_locked,
         awake_->tcb.snd.max_pacing_rate,
         awake_->tcb.rcv.max_ack_delay,
         awake_->tcb.snd.rtt.bounds,
         awake_->tcb.snd.congestion->name()};
  tcb_in_making_ = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  awake_->tcb.~Tcb();
  make_tcb();
  awake_->tcb.snd.nodelay = kept.nodelay;
  awake_->tcb.snd.thin_linear = kept.thin_linear;
  awake_->tcb.snd.cork = kept.cork;
  awake_->tcb.snd.max_pacing_rate = kept.max_pacing_rate;
  awake_->tcb.snd.notsent_lowat = kept.notsent_lowat;
  awake_->tcb.rcv.limit = kept.limit;
  awake_->tcb.rcv.limit_locked = kept.limit_locked;
  awake_->tcb.rcv.low_water = kept.low_water;
  awake_->tcb.rcv.max_ack_delay = kept.max_ack_delay;
  awake_->tcb.snd.rtt.bounds = kept.rto;
  (void)awake_->tcb.snd.congestion.select(kept.congestion);
  awake_->keepalive_probes = 0;
}

/// connect(2) with AF_UNSPEC: the connection is reset, and the socket can be used again (tcp_disconnect).
void Endpoint::disconnect() {
  if (awake_->listener != nullptr) {
    close_listener();
  } else if (handshaking()) {
    connecting_ = Connecting::idle;
    notify(kNotifyClose);
  } else if (is_synchronized(awake_->tcb.state)) {
    send_reset();
    done(0);
  }
  error_ = 0;
  if (!handshaking()) connecting_ = Connecting::idle;
}

}  // namespace ustack::tcp
