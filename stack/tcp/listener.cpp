#include "stack/tcp/listener.h"

#include <algorithm>

#include "stack/tcp/endpoint.h"

namespace ustack::tcp {

Status Endpoint::listen(int backlog) {
  if (!ensure_awake()) return Error{ENOBUFS};
  if (awake_->tcb.state != State::closed && awake_->tcb.state != State::listen) return Error{EINVAL};
  // Linux takes a negative backlog as a large one.
  uint32_t most = static_cast<uint32_t>(protocol_.settings().somaxconn);
  uint32_t wanted = std::min(static_cast<uint32_t>(backlog), most);
  if (awake_->listener != nullptr) {
    awake_->listener->backlog = wanted;
    return {};
  }
  if (!port_.bound()) {
    port_.reuse_address = awake_->options.reuse_address;
    port_.reuse_port = awake_->options.reuse_port;
    port_.v6_only = awake_->options.ipv6.v6_only;
    Result<uint16_t> port =
        protocol_.bind_port(port_, awake_->bound_address, 0, awake_->options.plain.port_range);
    if (!port.ok()) return port.error();
    awake_->local = {awake_->bound_address, *port};
  }
  // Two sockets with SO_REUSEADDR may share a port until one of them listens (inet_csk_listen_start).
  port_.listening = true;
  if (protocol_.ports().conflicts_listening(port_)) {
    port_.listening = false;
    return Error{EADDRINUSE};
  }
  awake_->listener = protocol_.context().arena.create<Listener>();
  if (awake_->listener == nullptr) {
    port_.listening = false;
    return Error{ENOBUFS};
  }
  awake_->listener->backlog = wanted;
  connecting_ = Connecting::idle;
  error_ = 0;
  send_shut_ = receive_ended_ = false;
  awake_->tcb.state = State::listen;
  protocol_.add_listener(*this);
  protocol_.context().log(LogLevel::info, [&](LogLine& line) {
    line << "listening on " << awake_->local << ", backlog " << wanted;
  });
  return {};
}

/// The oldest, or where the link has several queues one of the calling thread's among the oldest: what is on
/// its way for that one comes to this thread. Not for long at the expense of another.
Endpoint* Endpoint::next_to_accept() const {
  constexpr Duration kMayWait = 1ms;
  constexpr int kLooksAt = 8;
  Endpoint* oldest = awake_->listener->ready.front();
  const uint8_t queue = protocol_.context().queue;
  if (oldest == nullptr || oldest->awake_->route.queue == queue ||
      protocol_.now() - oldest->awake_->established_at > kMayWait)
    return oldest;
  Endpoint* child = oldest;
  for (int i = 1; i < kLooksAt; ++i) {
    child = awake_->listener->ready.next(*child);
    if (child == nullptr) return oldest;
    if (child->awake_->route.queue == queue) return child;
  }
  return oldest;
}

Result<Socket*> Endpoint::accept() {
  if (!awake() || awake_->listener == nullptr) return Error{EINVAL};
  Endpoint* child = next_to_accept();
  if (child == nullptr) return Error{EAGAIN};
  awake_->listener->ready.remove(*child);
  --awake_->listener->ready_count;
  child->just_accepted_ = child->accepted_ = true;
  child->awake_->route.queue = protocol_.context().queue;
  if (child->early_)
    awake_->listener->early.push_back(*child);
  else
    child->awake_->parent = nullptr;
  return static_cast<Socket*>(child);
}

uint32_t Endpoint::accept_queue_length() const {
  return awake_->listener != nullptr ? awake_->listener->ready_count : 0;
}
uint32_t Endpoint::accept_queue_limit() const {
  return awake_->listener != nullptr ? awake_->listener->backlog : 0;
}

/// shutdown(SHUT_RD) or close(2) of a listener: connections that nobody has accepted are reset, those not yet
/// made are forgotten (Linux's inet_csk_listen_stop).
void Endpoint::close_listener() {
  Listener* listener = std::exchange(awake_->listener, nullptr);
  protocol_.remove_listener(*this);
  port_.listening = false;
  State before = awake_->tcb.state;
  awake_->tcb.state = State::closed;
  on_state_change(before);
  drop_queue();
  while (Endpoint* child = listener->half_open.pop_front()) {
    child->awake_->parent = nullptr;
    child->released_ = true;
    child->notify(kNotifyClose);
  }
  while (Endpoint* child = listener->ready.pop_front()) {
    child->awake_->parent = nullptr;
    child->released_ = true;
    if (child->handshaking()) {
      child->notify(kNotifyClose);
      continue;
    }
    if (child->awake_->tcb.state != State::closed) {
      child->send_reset();
      child->done(ECONNABORTED);
    }
    child->try_free();
  }
  while (Endpoint* child = listener->early.pop_front()) child->awake_->parent = nullptr;
  protocol_.context().arena.destroy(listener);
  if (!port_chosen_by_user_) {
    protocol_.ports().release(port_);
    awake_->local.port = 0;
  }
}

}  // namespace ustack::tcp
