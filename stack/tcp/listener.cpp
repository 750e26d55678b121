#include "stack/tcp/listener.h"

#include <algorithm>

#include "stack/tcp/endpoint.h"

namespace ustack::tcp {

Status Endpoint::listen(int backlog) {
  if (tcb_.state != State::closed && tcb_.state != State::listen) return Error{EINVAL};
  // Linux takes a negative backlog as a large one.
  uint32_t most = static_cast<uint32_t>(protocol_.settings().somaxconn);
  uint32_t wanted = std::min(static_cast<uint32_t>(backlog), most);
  if (listener_ != nullptr) {
    listener_->backlog = wanted;
    return {};
  }
  if (!port_.bound()) {
    port_.reuse_address = options_.reuse_address;
    port_.reuse_port = options_.reuse_port;
    Result<uint16_t> port = protocol_.bind_port(port_, bound_address_, 0);
    if (!port.ok()) return port.error();
    local_ = {bound_address_, *port};
  }
  // Two sockets with SO_REUSEADDR may share a port until one of them listens (inet_csk_listen_start).
  port_.listening = true;
  if (protocol_.ports().conflicts_listening(port_)) {
    port_.listening = false;
    return Error{EADDRINUSE};
  }
  listener_ = protocol_.context().arena.create<Listener>();
  if (listener_ == nullptr) {
    port_.listening = false;
    return Error{ENOBUFS};
  }
  listener_->backlog = wanted;
  connecting_ = Connecting::idle;
  error_ = 0;
  send_shut_ = receive_ended_ = false;
  tcb_.state = State::listen;
  protocol_.add_listener(*this);
  protocol_.context().log(
      LogLevel::info, [&](LogLine& line) { line << "listening on " << local_ << ", backlog " << wanted; });
  return {};
}

Result<Socket*> Endpoint::accept() {
  if (listener_ == nullptr) return Error{EINVAL};
  Endpoint* child = listener_->ready.pop_front();
  if (child == nullptr) return Error{EAGAIN};
  --listener_->ready_count;
  child->parent_ = nullptr;
  child->just_accepted_ = true;
  return static_cast<Socket*>(child);
}

uint32_t Endpoint::accept_queue_length() const { return listener_ != nullptr ? listener_->ready_count : 0; }
uint32_t Endpoint::accept_queue_limit() const { return listener_ != nullptr ? listener_->backlog : 0; }

/// Handles at most kMaxSegmentsPerWake; true if more are waiting.
bool Endpoint::handle_listen_segments() {
  for (int i = 0; i < kMaxSegmentsPerWake; ++i) {
    Segment* segment = dequeue();
    if (segment == nullptr) return false;
    handle_listen_segment(segment);
  }
  return !queue_.empty();
}

/// RFC 9293, 3.10.7.2: LISTEN.
void Endpoint::handle_listen_segment(Segment* segment) {
  // What was queued for us may by now have a connection of its own.
  if (protocol_.connections().find(segment->id) != nullptr) {
    protocol_.dispatch(segment);
    return;
  }
  Counters& counters = protocol_.counters();
  auto drop = [&] { protocol_.segments().release(segment); };
  // First: "An incoming RST should be ignored."
  if (segment->flags.rst) return drop();
  // Second: "Any acknowledgment is bad if it arrives on a connection still in the LISTEN state."
  if (segment->flags.ack) {
    protocol_.reset_stranger(*segment);
    return drop();
  }
  // Third: check for a SYN; a segment without control bits is dropped. So is one with SYN and FIN (Linux).
  if (!segment->flags.syn || segment->flags.fin) return drop();

  if (listener_->full()) {
    ++counters.TcpExtListenOverflows;
    ++counters.TcpExtListenDrops;
    return drop();
  }
  if (listener_->half_open_count >= listener_->half_open_limit(protocol_.settings())) {
    // Here a SYN cookie would be the answer (RFC 4987, 3.6): neither endpoint nor fiber for it.
    ++counters.TcpExtTCPReqQFullDrop;
    ++counters.TcpExtListenDrops;
    return drop();
  }
  Endpoint* child = protocol_.create_endpoint(family_);
  if (child == nullptr || !child->start_passive(*this, *segment)) {
    ++counters.TcpExtListenDrops;
    if (child != nullptr) protocol_.destroy_endpoint(*child);
  }
  drop();
}

/// A half-open connection of `listener`, or false when it can't be had; then the caller destroys it.
bool Endpoint::start_passive(Endpoint& listener, const Segment& syn) {
  Result<Route> route = protocol_.network().find_route(syn.id.local.address, syn.id.remote.address);
  if (!route.ok()) return false;
  options_ = listener.options_;
  tcb_.snd.nodelay = listener.tcb_.snd.nodelay;
  tcb_.snd.cork = listener.tcb_.snd.cork;
  tcb_.snd.notsent_lowat = listener.tcb_.snd.notsent_lowat;
  tcb_.rcv.limit = listener.tcb_.rcv.limit;
  tcb_.rcv.limit_locked = listener.tcb_.rcv.limit_locked;
  tcb_.rcv.low_water = listener.tcb_.rcv.low_water;
  (void)tcb_.snd.congestion.select(listener.tcb_.snd.congestion->name());
  route_ = *route;
  local_ = syn.id.local;
  port_.reuse_address = listener.options_.reuse_address;
  port_.reuse_port = listener.options_.reuse_port;
  if (!protocol_.ports().claim(port_, local_.address, local_.port).ok()) return false;
  if (!protocol_.connections().insert(*this, syn.id).ok()) return false;

  iss_floor_ = syn.iss_floor;
  peer_syn_ = syn.syn_options;
  peer_iss_ = syn.seq;
  peer_window_ = syn.window;
  passive_ = true;
  handshake_pending_ = true;
  parent_ = &listener;
  listener.listener_->half_open.push_back(*this);
  ++listener.listener_->half_open_count;
  State before = tcb_.state;
  tcb_.state = State::syn_received;
  on_state_change(before);
  make_ready();
  return true;
}

/// shutdown(SHUT_RD) or close(2) of a listener: connections that nobody has accepted are reset, those not yet
/// made are forgotten (Linux's inet_csk_listen_stop).
void Endpoint::close_listener() {
  Listener* listener = std::exchange(listener_, nullptr);
  protocol_.remove_listener(*this);
  port_.listening = false;
  State before = tcb_.state;
  tcb_.state = State::closed;
  on_state_change(before);
  drop_queue();
  while (Endpoint* child = listener->half_open.pop_front()) {
    child->parent_ = nullptr;
    child->released_ = true;
    child->notify(kNotifyClose);
  }
  while (Endpoint* child = listener->ready.pop_front()) {
    child->parent_ = nullptr;
    child->released_ = true;
    if (child->tcb_.state != State::closed) {
      child->send_reset();
      child->done(ECONNABORTED);
    }
    child->try_free();
  }
  protocol_.context().arena.destroy(listener);
  if (!port_chosen_by_user_) {
    protocol_.ports().release(port_);
    local_.port = 0;
  }
}

}  // namespace ustack::tcp
