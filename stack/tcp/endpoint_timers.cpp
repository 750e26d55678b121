// Timers of an endpoint: when they are due is in the Tcb; here they are armed, and what happens then.
#include <algorithm>
#include <bit>

#include "stack/tcp/endpoint.h"

namespace ustack::tcp {

namespace {

/// How long a connection with this many time-outs may go unanswered (Linux's tcp_model_timeout): the sum of
/// time-outs that double from 200 ms to `most`.
Duration model_timeout(uint32_t boundary, Duration most) {
  Duration total{0};
  Duration step = kMinRto;
  for (uint32_t i = 0; i <= boundary; ++i) {
    total += step;
    step = std::min(step * 2, most);
  }
  return total;
}

}  // namespace

Instant Endpoint::next_deadline() const {
  return std::min({awake_->tcb.snd.recovery_deadline(), awake_->tcb.snd.pacing_deadline,
                   awake_->tcb.rcv.ack_deadline, awake_->tcb.snd.persist_deadline, keepalive_deadline_,
                   awake_->fin_wait_deadline});
}

/// A timer that is armed too early is left so: it fires, finds nothing due and is armed anew, or not. So an
/// ACK, which moves the deadline away, costs no work on the wheel, and neither does a request that is
/// answered.
void Endpoint::sync_timers() {
  if (awake_->tcb.state == State::closed) return timer_.cancel();
  Instant next = next_deadline();
  // Where many are awake, each is looked at after what it has done: it may have come to rest.
  if (protocol_.crowded()) [[unlikely]]
    next = std::min(next, protocol_.now() + rest_after());
  if (next < timer_.deadline()) protocol_.context().timers.arm(timer_, next);
}

/// The main loop isn't bothered for nothing. A handshake knows its own deadline.
void Endpoint::on_deadline(Timer& timer, void* context, Instant now) {
  auto& endpoint = *static_cast<Endpoint*>(context);
  if (!endpoint.ensure_awake()) {  // keepalive's
    endpoint.protocol_.context().timers.arm(timer, now + 1s);
    return;
  }
  if (endpoint.handshaking() || endpoint.next_deadline() <= now)
    endpoint.awake_->resend.wake();
  else
    endpoint.look_whether_it_may_rest(now);
}

/// The timer was armed for one of them; each looks whether it is due.
void Endpoint::on_timer() {
  on_resend();
  if (awake_->tcb.rcv.ack_deadline <= protocol_.now() && awake_->tcb.rcv.on_ack_timer())
    ++protocol_.counters().TcpExtDelayedACKs;
  on_persist();
  on_keepalive();
  on_fin_wait();
}

/// tcp_orphan_retries: 0 means 8, and none at all for a peer that is known to be unreachable.
uint32_t Endpoint::orphan_retries(bool alive) const {
  auto retries = static_cast<uint32_t>(protocol_.settings().tcp_orphan_retries);
  if (awake_->soft_error != 0 && !alive) return 0;
  return retries == 0 && alive ? 8 : retries;
}

bool Endpoint::retransmission_timed_out() const {
  const Sender& snd = awake_->tcb.snd;
  if (snd.timeouts() == 0) return false;
  Duration waited = protocol_.now() - snd.first_retransmit();
  // RFC 5482, TCP_USER_TIMEOUT.
  if (awake_->options.user_timeout > Duration(0)) return waited >= awake_->options.user_timeout;
  // A peer that has closed its window over what is in flight, but answers, is alive.
  if (snd.snd_wnd == 0 && !awake_->tcb.orphaned &&
      protocol_.now() - awake_->tcb.last_heard < snd.rtt.bounds.most)
    return false;
  // RFC 9293, 3.8.3: R2, as Linux counts it.
  auto retries = static_cast<uint32_t>(protocol_.settings().tcp_retries2);
  if (awake_->tcb.orphaned) retries = std::min(retries, orphan_retries(snd.rtt.rto() < snd.rtt.bounds.most));
  return waited >= model_timeout(retries, snd.rtt.bounds.most);
}

/// The timers of loss recovery, and pacing's: all end in output().
void Endpoint::on_resend() {
  Sender& snd = awake_->tcb.snd;
  Instant now = protocol_.now();
  if (!is_synchronized(awake_->tcb.state)) return;
  if (snd.recovery().reordering_deadline() <= now) count_recovery(snd.on_reordering_timer(now));
  if (snd.probe_deadline <= now)
    send_loss_probe();
  else if (snd.rto_deadline <= now)
    on_retransmission_timeout();
}

/// RFC 8985, section 7: the tail is probed before the time-out.
void Endpoint::send_loss_probe() {
  std::optional<Transmission> probe = awake_->tcb.snd.on_probe_timer();
  if (!probe || !transmit(*probe)) return;
  ++protocol_.counters().TcpExtTCPLossProbes;
  protocol_.context().log(LogLevel::debug,
                          [&](LogLine& line) { line << id() << ": loss probe: " << awake_->tcb.snd; });
}

void Endpoint::on_retransmission_timeout() {
  Sender& snd = awake_->tcb.snd;
  Counters& counters = protocol_.counters();
  if (retransmission_timed_out()) {
    ++counters.TcpExtTCPAbortOnTimeout;
    abort(awake_->soft_error != 0 ? awake_->soft_error : ETIMEDOUT);
    return;
  }
  ++counters.TcpExtTCPTimeouts;
  count_recovery(snd.on_rto(protocol_.now()));
  judge_mtu_probe();
  suspect_black_hole();
  // RFC 9293, 3.8.3: R1, after which IP is asked for another way.
  if (snd.timeouts() == static_cast<uint32_t>(protocol_.settings().tcp_retries1)) {
    Result<Route> route = protocol_.network().find_route(id().local.address, id().remote.address);
    if (route.ok()) {
      route->queue = awake_->route.queue;
      awake_->route = *route;
    }
  }
  protocol_.context().log(LogLevel::debug, [&](LogLine& line) {
    line << id() << ": retransmission time-out " << snd.timeouts() << ", next in " << to_ms(snd.rtt.rto())
         << " ms: " << snd;
  });
}

/// What loss recovery has found and done, under Linux's names.
void Endpoint::count_recovery(const RecoveryEvents& events) {
  if (!events.any()) [[likely]]
    return;
  static constexpr uint64_t Counters::*kCounters[] = {
#define USTACK_RECOVERY_COUNTER(event, counter) &Counters::TcpExt##counter,
      USTACK_RECOVERY_EVENTS(USTACK_RECOVERY_COUNTER)
#undef USTACK_RECOVERY_COUNTER
  };
  Counters& counters = protocol_.counters();
  for (uint32_t bits = events.bits; bits != 0; bits &= bits - 1)
    ++(counters.*kCounters[std::countr_zero(bits)]);
  counters.TcpExtTCPLostRetransmit += events.lost_retransmissions;
  counters.TcpExtTCPDSACKRecvSegs += events.duplicate_segments;
}

bool Endpoint::probing_timed_out() const {
  const Sender& snd = awake_->tcb.snd;
  if (awake_->options.user_timeout > Duration(0) && snd.probing_since() != kNever)
    return protocol_.now() - snd.probing_since() >= awake_->options.user_timeout;
  auto most = static_cast<uint32_t>(protocol_.settings().tcp_retries2);
  if (awake_->tcb.orphaned) {
    bool alive = snd.probe_back_off() < 10;  // 200 ms doubled ten times passes kMaxRto
    most = orphan_retries(alive);
    if (!alive && snd.probe_back_off() >= most) return true;
  }
  return snd.probes() >= most;
}

/// RFC 9293, 3.8.6.1: zero-window probes, which go on as long as the peer answers them. And 3.8.6.2.1: what
/// silly window avoidance, Nagle or cork hold back with nothing in flight has waited long enough.
void Endpoint::on_persist() {
  Sender& snd = awake_->tcb.snd;
  Instant now = protocol_.now();
  if (!is_synchronized(awake_->tcb.state) || snd.persist_deadline > now) return;
  snd.persist_deadline = kNever;
  if (!snd.idle_flight()) return;
  if (std::optional<Transmission> held = snd.forced()) {
    if (!transmit(*held)) snd.on_probe_sent(now);
    return;
  }
  if (snd.unsent() == 0 && (!snd.fin_queued() || snd.fin_sent())) return;
  if (probing_timed_out()) {
    ++protocol_.counters().TcpExtTCPAbortOnTimeout;
    abort(awake_->soft_error != 0 ? awake_->soft_error : ETIMEDOUT);
    return;
  }
  ++protocol_.counters().TcpExtTCPWinProbe;
  send_probe();
  snd.on_probe_sent(now);
}

Duration Endpoint::keepalive_idle() const {
  if (awake_->options.keepalive_idle > Duration(0)) return awake_->options.keepalive_idle;
  return std::chrono::seconds(protocol_.settings().tcp_keepalive_time);
}
Duration Endpoint::keepalive_interval() const {
  if (awake_->options.keepalive_interval > Duration(0)) return awake_->options.keepalive_interval;
  return std::chrono::seconds(protocol_.settings().tcp_keepalive_intvl);
}
uint32_t Endpoint::keepalive_count() const {
  if (awake_->options.keepalive_count > 0) return awake_->options.keepalive_count;
  return static_cast<uint32_t>(protocol_.settings().tcp_keepalive_probes);
}

/// When the peer was last heard of.
Instant Endpoint::heard_at() const {
  return std::max({awake_->tcb.last_heard, awake_->tcb.rcv.last_arrival(), awake_->established_at});
}

/// (Re)starts keepalive as the options now say.
void Endpoint::start_keepalive() {
  keepalive_deadline_ = kNever;
  if (!awake_->options.keepalive || !is_synchronized(awake_->tcb.state)) return;
  keepalive_deadline_ = std::max(heard_at() + keepalive_idle(), protocol_.now());
  sync_timers();
}

/// RFC 9293, 3.8.4; Linux's tcp_keepalive_timer.
void Endpoint::on_keepalive() {
  Instant now = protocol_.now();
  if (!awake_->options.keepalive || !is_synchronized(awake_->tcb.state)) {
    keepalive_deadline_ = kNever;
    return;
  }
  if (keepalive_deadline_ > now) return;
  const Sender& snd = awake_->tcb.snd;
  // What is in flight or waits for a window has timers of its own.
  if (!snd.idle_flight() || snd.unsent() > 0) {
    keepalive_deadline_ = now + keepalive_idle();
    return;
  }
  Duration quiet = now - heard_at();
  if (quiet < keepalive_idle()) {
    awake_->keepalive_probes = 0;
    keepalive_deadline_ = now + (keepalive_idle() - quiet);
    return;
  }
  bool user_timed_out = awake_->options.user_timeout > Duration(0) && quiet >= awake_->options.user_timeout &&
                        awake_->keepalive_probes > 0;
  bool counted_out =
      awake_->options.user_timeout == Duration(0) && awake_->keepalive_probes >= keepalive_count();
  if (user_timed_out || counted_out) {
    ++protocol_.counters().TcpExtTCPAbortOnTimeout;
    send_reset();
    abort(awake_->soft_error != 0 ? awake_->soft_error : ETIMEDOUT);
    return;
  }
  ++awake_->keepalive_probes;
  ++protocol_.counters().TcpExtTCPKeepAlive;
  send_probe();
  keepalive_deadline_ = now + keepalive_interval();
}

/// FIN-WAIT-2 without a reader must not last for ever (RFC 9293, 3.6.1; tcp_fin_timeout, TCP_LINGER2).
void Endpoint::start_fin_wait(Duration time) {
  if (time <= Duration(0)) time = std::chrono::seconds(protocol_.settings().tcp_fin_timeout);
  awake_->fin_wait_deadline = protocol_.now() + time;
  sync_timers();
}

void Endpoint::on_fin_wait() {
  if (awake_->fin_wait_deadline > protocol_.now()) return;
  awake_->fin_wait_deadline = kNever;
  if (awake_->tcb.state != State::fin_wait_2) return;
  protocol_.context().log(LogLevel::debug,
                          [&](LogLine& line) { line << id() << ": FIN-WAIT-2 has lasted too long"; });
  done(0);
}

}  // namespace ustack::tcp
