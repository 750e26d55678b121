// What a listener does with a SYN: a connection in SYN-RECEIVED, a SYN cookie, or Fast Open. RFC
// 9293, 3.10.7.2; RFC 4987; RFC 7413.
#include "stack/net/ipv4.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/handshake.h"
#include "stack/tcp/listener.h"

namespace ustack::tcp {

/// Handles at most kMaxSegmentsPerWake; true if more are waiting.
bool Endpoint::handle_listen_segments() {
  for (int i = 0; i < kMaxSegmentsPerWake; ++i) {
    Segment* segment = dequeue();
    if (segment == nullptr) return false;
    handle_listen_segment(segment);
  }
  return !awake_->queue.empty();
}

/// RFC 9293, 3.10.7.2: LISTEN. Takes the segment over.
void Endpoint::handle_listen_segment(Segment* segment) {
  // What was queued for us may by now have a connection of its own.
  if (protocol_.connections().find(segment->id) != nullptr) {
    protocol_.dispatch(segment);
    return;
  }
  auto drop = [&] { protocol_.segments().release(segment); };
  // First: "An incoming RST should be ignored."
  if (segment->flags.rst) return drop();
  // Second: "Any acknowledgment is bad if it arrives on a connection still in the LISTEN state." But for the
  // answer to a SYN cookie.
  if (segment->flags.ack) {
    if (accept_cookie(segment)) return;
    protocol_.reset_stranger(*segment);
    return drop();
  }
  // Third: check for a SYN; a segment without control bits is dropped. So is one with SYN and FIN (Linux).
  if (!segment->flags.syn || segment->flags.fin) return drop();
  handle_syn(segment);
}

/// Takes the SYN over. As Linux's tcp_conn_request.
void Endpoint::handle_syn(Segment* syn) {
  Counters& counters = protocol_.counters();
  auto drop = [&] { protocol_.segments().release(syn); };
  if (accept_queue_full()) {
    ++counters.TcpExtListenOverflows;
    ++counters.TcpExtListenDrops;
    return drop();
  }
  int32_t cookies = protocol_.settings().tcp_syncookies;
  bool queue_full =
      awake_->listener->half_open_count >= awake_->listener->half_open_limit(protocol_.settings());
  if (queue_full) {
    if (awake_->listener->last_overflow == Instant{}) {
      protocol_.context().log(LogLevel::warning, [&](LogLine& line) {
        line << "possible SYN flooding on " << awake_->local
             << (cookies != 0 ? ", sending cookies" : ", dropping SYNs");
      });
    }
    awake_->listener->last_overflow = protocol_.now();
    ++(cookies != 0 ? counters.TcpExtTCPReqQFullDoCookies : counters.TcpExtTCPReqQFullDrop);
  }
  if (queue_full && cookies == 0) {
    ++counters.TcpExtListenDrops;
    return drop();
  }
  if (queue_full || cookies == 2) {
    answer_with_cookie(*syn);
    return drop();
  }
  Endpoint* child = protocol_.create_endpoint(family_);
  if (child == nullptr || !child->start_passive(*this, syn)) {
    ++counters.TcpExtListenDrops;
    if (child != nullptr) protocol_.destroy_endpoint(*child);
    drop();
  }
}

/// What a connection has of its listener's, and a listener of its sibling's.
void Endpoint::take_options(const Endpoint& from) {
  awake_->options = from.awake_->options;
  update_telling();
  awake_->tcb.snd.thin_linear = from.awake_->tcb.snd.thin_linear;
  awake_->tcb.snd.nodelay = from.awake_->tcb.snd.nodelay;
  awake_->tcb.snd.max_pacing_rate = from.awake_->tcb.snd.max_pacing_rate;
  awake_->tcb.snd.cork = from.awake_->tcb.snd.cork;
  awake_->tcb.snd.notsent_lowat = from.awake_->tcb.snd.notsent_lowat;
  awake_->tcb.rcv.limit = from.awake_->tcb.rcv.limit;
  awake_->tcb.rcv.limit_locked = from.awake_->tcb.rcv.limit_locked;
  awake_->tcb.rcv.low_water = from.awake_->tcb.rcv.low_water;
  awake_->tcb.rcv.max_ack_delay = from.awake_->tcb.rcv.max_ack_delay;
  awake_->tcb.snd.rtt.bounds = from.awake_->tcb.snd.rtt.bounds;
  (void)awake_->tcb.snd.congestion.select(from.awake_->tcb.snd.congestion->name());
}

/// A fresh endpoint becomes the connection that `segment` asks `listener` for; false when it can't be had.
bool Endpoint::adopt(Endpoint& listener, const Segment& segment) {
  awake_->tcb.traffic.receive(1, false);  // its SYN
  released_ = true;                       // nobody has it; until it is whole
  Result<Route> route = protocol_.network().find_route(segment.id.local.address, segment.id.remote.address);
  if (!route.ok()) return false;
  take_options(listener);
  awake_->route = *route;
  awake_->route.queue = protocol_.context().queue;
  awake_->local = segment.id.local;
  port_.reuse_address = listener.awake_->options.reuse_address;
  port_.reuse_port = listener.awake_->options.reuse_port;
  if (!protocol_.ports().claim(port_, awake_->local.address, awake_->local.port).ok()) return false;
  if (!protocol_.connections().insert(*this, segment.id).ok()) return false;
  passive_ = true;
  awake_->parent = &listener;
  return true;
}

/// RFC 3168, 6.1.1. A SYN that is itself ECN-capable isn't what that means (Linux's tcp_ecn_create_request).
bool Endpoint::accepts_ecn(const Segment& syn) const {
  return syn.flags.ece && syn.flags.cwr && (syn.tos & ecn::kMask) == ecn::kNotEct &&
         protocol_.settings().tcp_ecn != 0;
}

/// A half-open connection of `listener`, which takes the SYN over; false when it can't be had, then the
/// caller destroys it.
bool Endpoint::start_passive(Endpoint& listener, Segment* syn) {
  Change change(*this);
  if (!adopt(listener, *syn)) return false;
  awake_->iss_floor = syn->iss_floor;
  awake_->peer_syn = syn->syn_options;
  awake_->peer_iss = syn->seq;
  awake_->peer_window = syn->window;
  peer_ecn_ = accepts_ecn(*syn);
  handshake_pending_ = true;
  awake_->granted_cookie.reset();
  if (awake_->options.save_syn && syn->payload.block) {
    uint32_t headers = syn->payload.offset - syn->network_offset;
    awake_->saved_syn = Slice{syn->payload.block, syn->network_offset, headers};
  }
  if (listener.judge_fast_open(*syn, awake_->granted_cookie)) {
    early_ = true;
    awake_->early_syn = syn;
    ++listener.awake_->listener->early_count;
  } else {
    listener.awake_->listener->add_half_open(*this);
    protocol_.segments().release(syn);
  }
  State before = awake_->tcb.state;
  awake_->tcb.state = State::syn_received;
  on_state_change(before);
  released_ = false;
  awake_->make_ready();
  return true;
}

/// RFC 7413, 4.2.2 and Linux's tcp_try_fastopen: whether the SYN's data may be taken at once; and `granted`,
/// the cookie that the SYN-ACK brings, if any.
bool Endpoint::judge_fast_open(const Segment& syn, std::optional<FastOpenCookie>& granted) {
  Counters& counters = protocol_.counters();
  int32_t mode = protocol_.settings().tcp_fastopen;
  const std::optional<FastOpenCookie>& offered = syn.syn_options.fast_open;
  if (offered && offered->length == 0) ++counters.TcpExtTCPFastOpenCookieReqd;
  uint32_t most = awake_->options.fast_open_queue;
  if (most == 0 && (mode & fast_open::kEveryListener) != 0) most = awake_->listener->backlog;
  if ((mode & fast_open::kServer) == 0 || most == 0 || (!offered && syn.payload_size() == 0)) return false;
  if (awake_->listener->early_count >= most) {
    ++counters.TcpExtTCPFastOpenListenOverflow;
    return false;
  }
  if (awake_->options.fast_open_no_cookie || (mode & fast_open::kServerWithoutCookie) != 0) {
    ++counters.TcpExtTCPFastOpenPassive;
    return true;
  }
  if (!offered) return false;
  const FastOpenKeys& keys =
      awake_->options.fast_open_keys.count != 0 ? awake_->options.fast_open_keys : protocol_.fast_open_keys();
  const IpAddress &client = syn.id.remote.address, &server = syn.id.local.address;
  FastOpenKeys::Match match = keys.check(*offered, client, server);
  if (match != FastOpenKeys::Match::primary) {
    granted = keys.make(client, server);
    granted->experimental = offered->experimental;
  }
  if (match == FastOpenKeys::Match::none) {
    if (offered->length > 0) ++counters.TcpExtTCPFastOpenPassiveFail;
    return false;
  }
  if (match == FastOpenKeys::Match::backup) ++counters.TcpExtTCPFastOpenPassiveAltKey;
  ++counters.TcpExtTCPFastOpenPassive;
  return true;
}

/// The SYN queue is full: a SYN-ACK from which everything can be told again (RFC 4987, 3.6), and nothing is
/// kept.
void Endpoint::answer_with_cookie(const Segment& syn) {
  Endpoint* child = protocol_.create_endpoint(family_);
  if (child == nullptr) return;
  if (child->adopt(*this, syn)) {
    SynOptions options = syn.syn_options;
    // Only a timestamp could bring them back.
    if (!options.timestamps || protocol_.settings().tcp_timestamps == 0) {
      options.window_scale = -1;
      options.sack_permitted = false;
    }
    Handshake handshake(*child);
    SeqNum cookie = protocol_.syn_cookies().make(
        syn.id, syn.seq, options.mss_or_default(syn.id.local.address.family()), protocol_.now());
    handshake.reset_to_syn_rcvd(cookie, syn.seq, options, syn.window);
    if (options.timestamps && protocol_.settings().tcp_timestamps != 0 && accepts_ecn(syn))
      handshake.accept_ecn();
    handshake.send_cookie();
    ++protocol_.counters().TcpExtSyncookiesSent;
  }
  protocol_.destroy_endpoint(*child);
}

/// An ACK that may answer a SYN cookie: then its connection is ESTABLISHED at once. False when it does not;
/// else it is taken over.
bool Endpoint::accept_cookie(Segment* ack) {
  const Settings& settings = protocol_.settings();
  Counters& counters = protocol_.counters();
  if (settings.tcp_syncookies == 0 || ack->flags.syn) return false;
  bool recent = awake_->listener->last_overflow != Instant{} &&
                protocol_.now() - awake_->listener->last_overflow <= SynCookies::kValid;
  if (settings.tcp_syncookies == 1 && !recent) return false;
  SeqNum cookie = ack->ack - 1, irs = ack->seq - 1;
  std::optional<uint16_t> mss = protocol_.syn_cookies().check(ack->id, irs, cookie, protocol_.now());
  if (!mss) {
    ++counters.TcpExtSyncookiesFailed;
    return false;
  }
  SynOptions options{.mss = *mss};
  bool ecn = false;
  if (ack->options.timestamps) {
    uint32_t offset = protocol_.timestamp_offset(ack->id);
    CookieOptions brought = decode_cookie_timestamp(ack->options.timestamps->echo - offset);
    options.timestamps = ack->options.timestamps;
    options.sack_permitted = brought.sack_permitted;
    options.window_scale = brought.window_scale;
    ecn = brought.ecn && settings.tcp_ecn != 0;
  }
  ++counters.TcpExtSyncookiesRecv;
  auto drop = [&] {
    ++counters.TcpExtListenDrops;
    protocol_.segments().release(ack);
    return true;
  };
  if (accept_queue_full()) {
    ++counters.TcpExtListenOverflows;
    return drop();
  }
  Endpoint* child = protocol_.create_endpoint(family_);
  if (child == nullptr || !child->adopt(*this, *ack)) {
    if (child != nullptr) protocol_.destroy_endpoint(*child);
    return drop();
  }
  Change change(*child);
  awake_->listener->add_half_open(*child);
  child->released_ = false;
  Handshake handshake(*child);
  handshake.reset_to_syn_rcvd(cookie, irs, options, 0);
  if (ecn) handshake.accept_ecn();
  handshake.take_cookie(*ack);
  child->handshake_done({}, true);
  if (ack->payload_size() > 0 || ack->flags.fin || ack->flags.urg) {
    child->requeue_front(ack);
  } else {
    child->awake_->tcb.traffic.receive(1, false);
    protocol_.segments().release(ack);
  }
  return true;
}

/// A handshake that has ended well or badly: its listener, if there still is one, counts it no more.
void Endpoint::leave_early() {
  early_ = false;
  if (awake_->parent == nullptr) return;
  --awake_->parent->listener()->early_count;
  if (!accepted_) return;
  awake_->parent->listener()->early.remove(*this);
  awake_->parent = nullptr;
}

/// The handshake of a passive open has failed. One that Fast Open has shown to the program already fails like
/// any connection; another was never heard of.
void Endpoint::passive_open_failed(int error) {
  if (early_) {
    leave_early();
    done(error == ECONNREFUSED ? ECONNRESET : error);
    return;
  }
  if (awake_->parent != nullptr) std::exchange(awake_->parent, nullptr)->listener()->remove_half_open(*this);
  released_ = true;
  done(0);
}

/// The handshake of a passive open is complete: accept(2) may have it.
void Endpoint::passive_open_done() {
  connecting_ = Connecting::connected;
  if (early_) {
    leave_early();
    if (released_)
      orphan();
    else if (std::exchange(close_pending_, false))
      close_send();
    return;
  }
  awake_->parent->listener()->remove_half_open(*this);
  awake_->parent->listener()->add_ready(*this);
  awake_->parent->tell_acceptors();
}

/// RFC 7413, 4.2.2: the SYN's data may be read, and answered, before the handshake is complete.
void Endpoint::show_early() {
  if (awake_->parent == nullptr) return;
  connecting_ = Connecting::connected;
  awake_->parent->listener()->add_ready(*this);
  awake_->parent->tell_acceptors();
}

}  // namespace ustack::tcp
