// How connections end: shutdown, close, reset, time-out, TIME-WAIT.
#include "stack/host.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/listener.h"

namespace ustack::tcp {

Status Endpoint::shutdown(ShutdownHow how) {
  if (!ensure_awake()) return Error{ENOBUFS};
  Change change(*this);
  bool reading = how != ShutdownHow::write;
  bool writing = how != ShutdownHow::read;
  switch (awake_->tcb.state) {
    case State::closed:
      return Error{ENOTCONN};
    case State::listen:
      if (reading) {
        close_listener();
        wake(ready::kIn | ready::kHup);
      }
      return {};
    case State::syn_sent:
    case State::syn_received:
      if (early_) {
        // RFC 9293, 3.10.4: "queue for processing after entering ESTABLISHED".
        if (reading) awake_->tcb.receive_shut = true;
        if (writing) close_pending_ = send_shut_ = true;
        wake(ready::kIn | ready::kRdNorm | ready::kRdHup | ready::kOut | ready::kWrNorm);
        return {};
      }
      // As Linux: the attempt is given up, and the socket can be used again.
      disconnect();
      return {};
    default:
      break;
  }
  if (reading) awake_->tcb.receive_shut = true;
  if (writing) {
    close_send();
    settle();
  }
  uint32_t events = ready::kIn | ready::kRdNorm | ready::kRdHup;
  if (writing) events |= ready::kOut | ready::kWrNorm;
  if (reading && writing) events |= ready::kHup;
  wake(events);
  return {};
}

/// RFC 9293, 3.10.4: CLOSE: "queue this until all preceding SENDs have been segmentized, then form a FIN
/// segment and send it."
void Endpoint::close_send() {
  State before = awake_->tcb.state;
  if (before == State::established)
    awake_->tcb.state = State::fin_wait_1;
  else if (before == State::close_wait)
    awake_->tcb.state = State::last_ack;
  else
    return;
  send_shut_ = true;
  awake_->tcb.snd.close();
  on_state_change(before);
}

void Endpoint::release() {
  if (!ensure_awake()) {
    // The peer learns of it when it next sends something.
    ++protocol_.counters().TcpExtTCPAbortOnMemory;
    ++protocol_.counters().TcpEstabResets;
    --protocol_.counters().TcpCurrEstab;
    return protocol_.destroy_endpoint(*this);
  }
  Change change(*this);
  released_ = true;
  // Nobody will be told when the program's memory isn't needed any more.
  settle_loans();
  if (awake_->listener != nullptr)
    close_listener();
  else if (early_)
    update_closing();  // the handshake's end closes it
  else if (handshaking())
    notify(kNotifyClose);
  else if (is_synchronized(awake_->tcb.state))
    orphan();
  try_free();
}

/// close(2) of a connection (Linux's __tcp_close).
void Endpoint::orphan() {
  Counters& counters = protocol_.counters();
  awake_->tcb.orphaned = awake_->tcb.receive_shut = true;
  receive_ended_ = true;
  update_closing();
  // RFC 2525, 2.17: the peer has to know that what it sent was never read.
  if (!awake_->tcb.rcv.buffer.empty()) {
    ++counters.TcpExtTCPAbortOnClose;
    send_reset();
    done(0);
    return;
  }
  // SO_LINGER with no time: an abort, RFC 9293, 3.10.5.
  if (awake_->options.linger && awake_->options.linger_seconds == 0) {
    ++counters.TcpExtTCPAbortOnData;
    if (awake_->tcb.state != State::closing && awake_->tcb.state != State::last_ack) send_reset();
    done(0);
    return;
  }
  // Linux's tcp_check_oom: nobody pays for orphans, so they are counted.
  if (protocol_.closing() > static_cast<uint32_t>(protocol_.settings().tcp_max_orphans) ||
      (protocol_.out_of_memory() && awake_->tcb.snd.buffer.true_size() > kLeastSendBuffer)) {
    ++counters.TcpExtTCPAbortOnMemory;
    send_reset();
    done(0);
    return;
  }
  close_send();
  if (awake_->tcb.state == State::fin_wait_2) {
    if (awake_->options.fin_wait_2 < Duration(0)) {
      ++counters.TcpExtTCPAbortOnLinger;
      send_reset();
      done(0);
      return;
    }
    start_fin_wait(awake_->options.fin_wait_2);
  }
  settle();
}

bool Endpoint::lingering_done() const {
  if (!awake()) return true;
  if (!awake_->options.linger || awake_->options.linger_seconds == 0 || !is_synchronized(awake_->tcb.state))
    return true;
  // Unread data makes close(2) a reset, which waits for nothing.
  if (!awake_->tcb.rcv.buffer.empty()) return true;
  return !awake_->tcb.snd.busy();
}

/// The connection is gone (Linux's tcp_done): nothing is sent or received any more. What was received can
/// still be read.
void Endpoint::done(int error) {
  State before = awake_->tcb.state;
  if (before != State::closed) {
    awake_->tcb.state = State::closed;
    on_state_change(before);
  }
  update_closing();
  if (connected()) {
    protocol_.context().log(LogLevel::info, [&](LogLine& line) {
      line << id() << ": closed";
      if (error != 0) line << ", errno " << error;
    });
  }
  protocol_.connections().remove(*this);
  if (!port_chosen_by_user_) protocol_.ports().release(port_);
  keepalive_deadline_ = awake_->fin_wait_deadline = kNever;
  awake_->tcb.snd.clear();
  if (awake_->reports != nullptr) [[unlikely]]
    while (std::optional<uint32_t> number = awake_->reports->take_returned()) report_return(*number, false);
  awake_->tcb.rcv.ack_deadline = kNever;
  awake_->tcb.rcv.reassembly().clear();
  sync_timers();
  if (released_) awake_->tcb.rcv.clear();
  if (error != 0 && !released_) error_ = error;
  send_shut_ = receive_ended_ = true;
  uint32_t events = ready::kIn | ready::kRdNorm | ready::kRdHup | ready::kOut | ready::kWrNorm | ready::kHup;
  if (error_ != 0) events |= ready::kErr;
  wake(events);
}

/// Gave up on the peer.
void Endpoint::abort(int error) { done(error); }

void Endpoint::enter_time_wait() {
  protocol_.enter_time_wait(*this);
  done(0);
}

bool Endpoint::free_now() const {
  if (!awake() || !released_ || awake_->tcb.state != State::closed || handshake_pending_) return false;
  if (awake_->tcb.snd.buffer.reserved() || awake_->tcb.rcv.buffer.viewed()) return false;
  return !awake_->holds_stack();
}

void Endpoint::try_free() {
  if (free_now()) protocol_.destroy_endpoint(*this);
}

}  // namespace ustack::tcp
