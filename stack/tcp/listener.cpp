#include "stack/tcp/listener.h"

#include <algorithm>
#include <utility>

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
    for_each_sibling([=](Endpoint& sibling) { sibling.awake_->listener->backlog = wanted; });
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
  if (protocol_.conflicts_listening(port_, awake_->local.port)) {
    port_.listening = false;
    return Error{EADDRINUSE};
  }
  if (!start_listening(wanted)) {
    port_.listening = false;
    return Error{ENOBUFS};
  }
  if (protocol_.shards() != nullptr && !open_siblings()) {
    close_listener();
    return Error{ENOBUFS};
  }
  protocol_.context().log(LogLevel::info, [&](LogLine& line) {
    line << "listening on " << awake_->local << ", backlog " << wanted;
  });
  return {};
}

/// False: there is no memory for it.
bool Endpoint::start_listening(uint32_t backlog) {
  awake_->listener = protocol_.context().arena.create<Listener>();
  if (awake_->listener == nullptr) return false;
  awake_->listener->backlog = backlog;
  connecting_ = Connecting::idle;
  error_ = 0;
  send_shut_ = receive_ended_ = false;
  awake_->tcb.state = State::listen;
  protocol_.add_listener(*this);
  return true;
}

template <typename Visit>
void Endpoint::for_each_sibling(Visit&& visit) const {
  for (Endpoint* sibling : awake_->listener->siblings)
    if (sibling != nullptr) visit(*sibling);
}

bool Endpoint::is_sibling() const {
  return awake() && awake_->listener != nullptr && awake_->listener->eldest != nullptr;
}

/// In each other shard one that listens as this one does. False: there is no memory for it.
bool Endpoint::open_siblings() {
  const Shards& shards = *protocol_.shards();
  for (uint8_t i = 0; i < shards.count(); ++i) {
    Protocol& other = protocol_.of_shard(i);
    if (&other == &protocol_) continue;
    Endpoint* sibling = other.create_endpoint(family_);
    if (sibling == nullptr) return false;
    Change change(*sibling);
    sibling->be_sibling_of(*this);
    if (!sibling->start_listening(awake_->listener->backlog) ||
        !other.ports().claim(sibling->port_, port_.bound_address(), awake_->local.port).ok()) {
      sibling->release();
      return false;
    }
    sibling->awake_->listener->eldest = this;
    awake_->listener->siblings[i] = sibling;
  }
  return true;
}

/// What it has of the program's wishes.
void Endpoint::be_sibling_of(const Endpoint& eldest) {
  take_options(eldest);
  awake_->bound_address = eldest.awake_->bound_address;
  awake_->local = eldest.awake_->local;
  port_.reuse_address = eldest.port_.reuse_address;
  port_.reuse_port = eldest.port_.reuse_port;
  port_.v6_only = eldest.port_.v6_only;
  port_.by_connect = false;
  port_.listening = true;
  port_chosen_by_user_ = true;
}

void Endpoint::tell_siblings_options() {
  for_each_sibling([this](Endpoint& sibling) { sibling.take_options(*this); });
}

/// A connection waits for accept(2), which somebody may wait for.
void Endpoint::tell_acceptors() {
  ToOtherShards telling(protocol_.shards());
  Endpoint* eldest = awake_->listener->eldest;
  (eldest != nullptr ? eldest : this)->wake(ready::kIn | ready::kRdNorm);
}

void Listener::add_ready(Endpoint& endpoint) {
  ready.push_back(endpoint);
  count_ready(1);
  note_first();
}

void Listener::remove_ready(Endpoint& endpoint) {
  ready.remove(endpoint);
  count_ready(-1u);
  note_first();
}

void Listener::note_first() {
  const Endpoint* first = ready.front();
  waiting_since.store(first != nullptr ? first->established_at() : kNever, std::memory_order_relaxed);
}

Instant Endpoint::established_at() const { return awake_->established_at; }

/// It or a sibling of its own has a connection for accept(2).
bool Endpoint::acceptable() const {
  auto has_one = [](const Endpoint& endpoint) {
    return endpoint.awake_->listener->ready_count.load(std::memory_order_relaxed) != 0;
  };
  bool found = has_one(*this);
  for_each_sibling([&](const Endpoint& sibling) { found |= has_one(sibling); });
  return found;
}

/// How long a connection may wait for accept(2) while others are preferred.
constexpr Duration kMayWait = 1ms;

/// The oldest, or where the link has several queues one of the calling thread's among the oldest: what is on
/// its way for that one comes to this thread. Not for long at the expense of another.
Endpoint* Endpoint::next_to_accept() const {
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

/// The one of a listener and its siblings from which accept(2) takes a connection: that of `preferred`,
/// unless it has none or another's waits for long.
Endpoint& Endpoint::acceptor(uint8_t preferred) {
  auto since = [](const Endpoint& endpoint) {
    return endpoint.awake_->listener->waiting_since.load(std::memory_order_relaxed);
  };
  Endpoint* sibling = awake_->listener->siblings[preferred];
  Endpoint* chosen = sibling != nullptr ? sibling : this;
  Endpoint* oldest = this;
  for_each_sibling([&](Endpoint& other) {
    if (since(other) < since(*oldest)) oldest = &other;
  });
  const bool for_long = since(*oldest) < chosen->protocol_.now() - kMayWait;
  return since(*chosen) == kNever || for_long ? *oldest : *chosen;
}

Result<Socket*> Endpoint::accept_in_shard(uint8_t shard) {
  if (!awake() || awake_->listener == nullptr) return Error{EINVAL};
  Endpoint& from = acceptor(shard);
  return from.protocol_.context().shard == shard ? from.accept_own() : Error{EAGAIN};
}

Result<Socket*> Endpoint::accept() {
  if (!awake() || awake_->listener == nullptr) return Error{EINVAL};
  return protocol_.shards() != nullptr ? acceptor(protocol_.shards()->callers).accept_own() : accept_own();
}

Result<Socket*> Endpoint::accept_own() {
  Endpoint* child = next_to_accept();
  if (child == nullptr) return Error{EAGAIN};
  awake_->listener->remove_ready(*child);
  child->just_accepted_ = child->accepted_ = true;
  child->awake_->route.queue = protocol_.context().queue;
  if (child->early_)
    awake_->listener->early.push_back(*child);
  else
    child->awake_->parent = nullptr;
  return static_cast<Socket*>(child);
}

/// Its siblings' included.
uint32_t Endpoint::accept_queue_length() const {
  if (awake_->listener == nullptr) return 0;
  const Endpoint& eldest = awake_->listener->eldest != nullptr ? *awake_->listener->eldest : *this;
  uint32_t count = 0;
  auto add = [&count](const Endpoint& endpoint) {
    count += endpoint.awake_->listener->ready_count.load(std::memory_order_relaxed);
  };
  add(eldest);
  eldest.for_each_sibling(add);
  return count;
}
/// Linux's sk_acceptq_is_full: one more than the backlog fits.
bool Endpoint::accept_queue_full() const { return accept_queue_length() > awake_->listener->backlog; }
uint32_t Endpoint::accept_queue_limit() const {
  return awake_->listener != nullptr ? awake_->listener->backlog : 0;
}

/// shutdown(SHUT_RD) or close(2) of a listener: connections that nobody has accepted are reset, those not yet
/// made are forgotten (Linux's inet_csk_listen_stop).
void Endpoint::close_listener() {
  for (Endpoint*& sibling : awake_->listener->siblings)
    if (sibling != nullptr) std::exchange(sibling, nullptr)->release();
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
