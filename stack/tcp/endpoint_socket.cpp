// Bytes in and out, readiness and names: the socket calls that don't open or close anything.
#include <algorithm>

#include "stack/host.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/listener.h"

namespace ustack::tcp {

/// Whether a send may queue bytes now. Takes the pending error away, if that is why not.
Status Endpoint::may_queue() {
  if (error_ != 0) return Error{take_error()};
  if (handshaking() && !early_ && !fast_open_deferred_) return Error{EAGAIN};
  if (!accepts_data()) return Error{EPIPE};
  return {};
}

Result<Extents> Endpoint::reserve_send(size_t want) {
  if (!ensure_awake()) return Error{ENOBUFS};
  Change change(*this);
  if (Status s = may_queue(); !s.ok()) return s.error();
  // Sending nothing needs no room, and reserves none.
  if (want == 0) return Extents{};
  Sender& snd = awake_->tcb.snd;
  if (snd.buffer.reserved()) {
    send_contended_ = true;
    return Error{EAGAIN};
  }
  if (snd.notsent_lowat != 0 && snd.unsent() >= snd.notsent_lowat) return Error{EAGAIN};
  uint32_t limit = awake_->options.send_limit;
  if (protocol_.out_of_memory())
    limit = std::min(limit, static_cast<uint32_t>(protocol_.settings().tcp_wmem[0]));
  Extents room = snd.buffer.reserve(want, limit);
  send_starved_ = room.bytes < want;
  if (room.bytes > 0) return room;
  // A full buffer is worth waiting for; memory that is out is not.
  return Error{snd.buffer.true_size() >= limit ? EAGAIN : ENOBUFS};
}

void Endpoint::commit_send(size_t n, SendFlags flags) {
  if (!ensure_awake()) return;  // and so without a reservation
  Change change(*this);
  awake_->route.queue = protocol_.context().queue;
  Sender& snd = awake_->tcb.snd;
  uint32_t queued = snd.buffer.reserved() ? snd.buffer.commit(n) : 0;
  if (queued > 0 && accepts_data()) {
    snd.more = flags.more;
    if (flags.out_of_band) {
      // RFC 6093, 3.1, as BSD: the pointer points behind the urgent byte.
      snd.snd_up = snd.data_end();
      snd.urgent = true;
    }
    // The data that the SYN has waited for.
    if (std::exchange(fast_open_deferred_, false)) awake_->make_ready();
    settle();
  }
  if (std::exchange(send_contended_, false)) wake(ready::kOut | ready::kWrNorm);
  try_free();
}

Result<size_t> Endpoint::lend_send(Bytes from, SendFlags flags, uint64_t lender) {
  if (!ensure_awake()) return Error{ENOBUFS};
  Change change(*this);
  if (Status s = may_queue(); !s.ok()) return s.error();
  Sender& snd = awake_->tcb.snd;
  // A link that leaves the checksum to us has us read the bytes; what goes to ourselves is copied anyway.
  if (!awake_->options.zero_copy || !is_synchronized(awake_->tcb.state) || snd.buffer.reserved() ||
      awake_->route.is_local() || send_limits().max_superframe == 0)
    return Error{EOPNOTSUPP};
  if (snd.notsent_lowat != 0 && snd.unsent() >= snd.notsent_lowat) return Error{EAGAIN};
  if (protocol_.out_of_memory()) return Error{EOPNOTSUPP};
  awake_->route.queue = protocol_.context().queue;
  const uint32_t limit = awake_->options.send_limit;
  const size_t lent = snd.buffer.lend(from, limit, lender);
  send_starved_ = lent < from.size();
  if (lent == 0) return Error{snd.buffer.true_size() >= limit ? EAGAIN : ENOBUFS};
  snd.more = flags.more;
  settle();
  return lent;
}

void Endpoint::settle_loans() {
  if (awake()) awake_->tcb.snd.buffer.settle();
}

SeqNum Endpoint::next_to_read() const {
  return awake_->tcb.rcv.rcv_nxt - (awake_->tcb.rcv.fin_received() ? 1u : 0u) - awake_->tcb.rcv.buffer.size();
}

Result<Extents> Endpoint::view_receive(size_t want, size_t offset) {
  // At rest: there is nothing, and not the end either.
  if (!awake()) return Error{error_ != 0 ? take_error() : EAGAIN};
  Change change(*this);
  if (awake_->listener != nullptr) return Error{ENOTCONN};
  Receiver& rcv = awake_->tcb.rcv;
  if (rcv.buffer.viewed()) {
    view_contended_ = true;
    return Error{EAGAIN};
  }
  if (awake_->tcb.urgent.marked() && !awake_->options.out_of_band_inline) {
    // The urgent byte is not part of the stream; a read stops in front of it and the next one goes on behind
    // it.
    SeqNum at = next_to_read();
    if (awake_->tcb.urgent.seq() == at && !rcv.buffer.empty()) {
      rcv.buffer.consume(1);
      awake_->tcb.urgent.on_read(++at);
    } else if (awake_->tcb.urgent.seq() > at) {
      uint32_t before = awake_->tcb.urgent.seq() - at;
      if (offset >= before && offset < rcv.buffer.size()) return Error{EAGAIN};
      if (offset < before) want = std::min<size_t>(want, before - offset);
    }
  }
  if (offset < rcv.buffer.size()) return rcv.buffer.view(want, offset);
  if (rcv.fin_received()) return Extents{};
  if (error_ != 0) return Error{take_error()};
  if (receive_ended_ || awake_->tcb.receive_shut) return Extents{};
  if (awake_->tcb.state == State::closed) return Error{ENOTCONN};
  return Error{EAGAIN};
}

void Endpoint::consume(size_t n) {
  if (!awake()) return;  // without a view
  Change change(*this);
  awake_->route.queue = protocol_.context().queue;
  Receiver& rcv = awake_->tcb.rcv;
  uint32_t taken = rcv.buffer.consume(n);
  if (awake_->tcb.urgent.marked()) awake_->tcb.urgent.on_read(next_to_read());
  if (awake_->reports != nullptr) [[unlikely]]
    awake_->reports->forget_arrivals(next_to_read());
  if (taken > 0 && is_synchronized(awake_->tcb.state)) {
    bool update = rcv.on_read(taken, protocol_.now());
    if (protocol_.settings().tcp_moderate_rcvbuf != 0 && !protocol_.under_memory_pressure())
      rcv.tune(static_cast<uint32_t>(protocol_.settings().tcp_rmem[2]), protocol_.now());
    if (!drained_) {
      if (update) send_ack();
      sync_timers();
    }
  }
  if (std::exchange(view_contended_, false)) wake(ready::kIn | ready::kRdNorm);
  try_free();
}

Result<std::byte> Endpoint::receive_urgent(bool peek) {
  if (!ensure_awake()) return Error{ENOBUFS};
  UrgentMark& urgent = awake_->tcb.urgent;
  using Phase = UrgentMark::Phase;
  if (awake_->options.out_of_band_inline || urgent.phase() == Phase::none || urgent.phase() == Phase::taken)
    return Error{EINVAL};
  if (awake_->tcb.state == State::closed && !awake_->tcb.rcv.fin_received()) return Error{ENOTCONN};
  if (urgent.phase() == Phase::announced) return Error{EAGAIN};
  std::byte byte = urgent.byte();
  if (!peek) urgent.take();
  return byte;
}

/// Linux's tcp_poll.
uint32_t Endpoint::readiness() const {
  if (!awake()) return ready::kOut | ready::kWrNorm | (error_ != 0 ? ready::kErr : 0);
  if (awake_->listener != nullptr) return acceptable() ? ready::kIn | ready::kRdNorm : 0;
  uint32_t bits = 0;
  const Receiver& rcv = awake_->tcb.rcv;
  bool receive_over = receive_ended_ || awake_->tcb.receive_shut;
  if ((receive_over && send_shut_) || awake_->tcb.state == State::closed) bits |= ready::kHup;
  if (receive_over) bits |= ready::kIn | ready::kRdNorm | ready::kRdHup;
  // Linux: what is written now makes the SYN.
  if (fast_open_deferred_) bits |= ready::kOut | ready::kWrNorm;
  if (!handshaking() || early_) {
    uint32_t target = rcv.low_water;
    // The urgent byte at the front can't be read as part of the stream.
    if (awake_->tcb.urgent.marked() && !awake_->options.out_of_band_inline &&
        awake_->tcb.urgent.seq() == next_to_read())
      ++target;
    if (rcv.buffer.size() >= target) bits |= ready::kIn | ready::kRdNorm;
    if (send_shut_ || can_write()) bits |= ready::kOut | ready::kWrNorm;
    if (awake_->tcb.urgent.phase() == UrgentMark::Phase::arrived) bits |= ready::kPri;
  }
  if (error_ != 0 || (awake_->reports != nullptr && !awake_->reports->empty())) bits |= ready::kErr;
  return bits;
}

Result<SocketAddress> Endpoint::local_address() const { return awake() ? awake_->local : id_.local; }

Result<SocketAddress> Endpoint::remote_address() const {
  if (std::exchange(just_accepted_, false)) return id_.remote;
  const State state = tcp_state();
  if (state == State::closed || state == State::listen || state == State::syn_sent) return Error{ENOTCONN};
  return id_.remote;
}

Result<int> Endpoint::ioctl_value(unsigned long request) {
  constexpr unsigned long kInq = 0x541b, kOutq = 0x5411, kOutqNotSent = 0x894b, kAtMark = 0x8905;
  if (!ensure_awake()) return Error{ENOBUFS};
  const Sender& snd = awake_->tcb.snd;
  switch (request) {
    case kInq: {
      if (awake_->listener != nullptr) return Error{EINVAL};
      if (handshaking()) return 0;
      uint32_t size = awake_->tcb.rcv.buffer.size();
      // Linux's tcp_inq: up to the urgent mark.
      SeqNum at = next_to_read();
      if (awake_->tcb.urgent.marked() && !awake_->options.out_of_band_inline && awake_->tcb.urgent.seq() > at)
        size = std::min(size, awake_->tcb.urgent.seq() - at);
      return static_cast<int>(size);
    }
    case kOutq:
    case kOutqNotSent: {
      if (awake_->listener != nullptr) return Error{EINVAL};
      if (handshaking() || awake_->tcb.state == State::closed) return 0;
      uint32_t bytes = request == kOutq ? snd.buffer.size() : snd.unsent();
      bool fin = snd.fin_queued() && !snd.fin_acknowledged() && !(request == kOutqNotSent && snd.fin_sent());
      return static_cast<int>(bytes + (fin ? 1 : 0));
    }
    case kAtMark:
      return awake_->tcb.urgent.marked() && awake_->tcb.urgent.seq() == next_to_read() ? 1 : 0;
    default:
      return Error{ENOTTY};
  }
}

}  // namespace ustack::tcp
