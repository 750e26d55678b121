// The endpoint's fiber: main loop, arrivals, and what a verdict means.
#include "stack/tcp/endpoint.h"

#include <algorithm>

#include "stack/host.h"
#include "stack/tcp/handshake.h"
#include "stack/tcp/listener.h"

namespace ustack::tcp {

Endpoint::Endpoint(Protocol& protocol, Family family)
    : Socket(protocol.host()),
      Connection(Kind::endpoint),
      protocol_(protocol),
      awake_(protocol.awakes().create(protocol, *this, SocketAddress{IpAddress::any(family), 0})),
      family_(family) {
  if (awake_ == nullptr) return;
  awake_->tcb.rcv.limit = static_cast<uint32_t>(protocol.settings().tcp_rmem[1]);
  awake_->options.send_limit = static_cast<uint32_t>(protocol.settings().tcp_wmem[1]);
  (void)awake_->tcb.snd.congestion.select(protocol.settings().tcp_congestion_control);
  awake_->tcb.snd.rtt.bounds = {.least = std::chrono::microseconds(protocol.settings().tcp_rto_min_us),
                                .most = std::chrono::milliseconds(protocol.settings().tcp_rto_max_ms)};
}

void Endpoint::retire() {
  released_ = true;
  protocol_.remove_listener(*this);
  if (awake_ != nullptr) {
    protocol_.context().arena.destroy(std::exchange(awake_->listener, nullptr));
    drop_queue();
    protocol_.segments().release(std::exchange(awake_->early_syn, nullptr));
    for (Waker* waker : awake_->wakers()) waker->forsake();
    awake_->ListHook<OwesAck>::unlink();
    awake_->ListHook<Task>::unlink();
  }
  protocol_.connections().remove(*this);
  protocol_.ports().release(port_);
  if (std::exchange(counted_closing_, false)) protocol_.count_closing(-1);
  timer_.cancel();
}

void Awake::run() { endpoint.run(); }
void Awake::after_run() { endpoint.try_free(); }

void Endpoint::run() {
  if (handshake_pending_) run_handshake();
  main_loop();
}

void Endpoint::run_handshake() {
  handshake_pending_ = false;
  Status status;
  if ((awake_->notifications & kNotifyClose) != 0) {
    awake_->notifications = 0;
    status = Error{ECONNABORTED};
  } else {
    Handshake handshake(*this);
    if (passive_) {
      SeqNum iss = awake_->iss_floor ? *awake_->iss_floor : protocol_.iss().iss(id(), protocol_.now());
      handshake.reset_to_syn_rcvd(iss, awake_->peer_iss, awake_->peer_syn, awake_->peer_window);
      if (peer_ecn_) handshake.accept_ecn();
      if (early_) {
        handshake.open_early(*awake_->early_syn);
        protocol_.segments().release(std::exchange(awake_->early_syn, nullptr));
      }
    } else {
      handshake.reset_state();
    }
    status = handshake.execute();
  }
  handshake_done(status, passive_);
}

/// protocolMainLoop: handles what has happened and returns when nothing is left; the next wake-up starts it
/// anew.
void Endpoint::main_loop() {
  for (int waker = awake_->idle.fetch(false); waker != -1; waker = awake_->idle.fetch(false)) {
    bool more = false;
    switch (waker) {
      case Awake::kNotification: {
        uint32_t what = fetch_notifications();
        if ((what & kNotifyDrain) != 0) {
          while (awake_->listener != nullptr ? handle_listen_segments() : handle_segments()) {
          }
          settle();
          park();
        }
        // Closed while the handshake was just being completed.
        if ((what & kNotifyClose) != 0 && released_ && is_synchronized(awake_->tcb.state) &&
            !awake_->tcb.orphaned)
          orphan();
        break;
      }
      case Awake::kNewSegment:
        more = awake_->listener != nullptr ? handle_listen_segments() : handle_segments();
        break;
      case Awake::kResend:
        on_timer();
        break;
    }
    settle();
    if (more) {
      // The rest has to wait until others have had their turn.
      awake_->new_segment.wake();
      return;
    }
  }
}

/// Sends what may be sent and brings the timers up to date; the end of everything that changes the Tcb.
void Endpoint::settle() {
  if (drained_) return;
  // RFC 7413, 4.2.2: data may answer the SYN; its retransmission has to wait for the handshake.
  if (early_) output();
  if (!is_synchronized(awake_->tcb.state)) return;
  output();
  if (awake_->tcb.snd.buffer.lost()) [[unlikely]]
    return abort_what_is_lost();
  if (awake_->tcb.rcv.ack_due())
    send_ack();
  else if (awake_->tcb.rcv.ack_owed())
    protocol_.owe_ack(*this);
  sync_timers();
}

void Endpoint::park() {
  drained_ = true;
  Sleeper sleeper(*awake_);
  sleeper.add(awake_->undrain, 0);
  sleeper.fetch(true);
  drained_ = false;
}

void Endpoint::undrain() { awake_->undrain.wake(); }

void Endpoint::notify(uint32_t what) {
  if (!ensure_awake()) return;  // nothing that could be told would change it
  awake_->notifications |= what;
  awake_->notification.wake();
}

uint32_t Endpoint::fetch_notifications() { return std::exchange(awake_->notifications, 0); }

void Endpoint::on_host_ending() {
  if (!awake()) return;
  notify(kNotifyClose);
  awake_->undrain.wake();
}

void Endpoint::enqueue(Segment* segment) {
  if (!ensure_awake()) {
    ++protocol_.counters().UstackRxNoMemory;
    protocol_.segments().release(segment);
    return;
  }
  // What waits is not yet in the receive buffer, but it is memory (Linux's limit of the backlog).
  uint32_t cost = segment->payload_size() + static_cast<uint32_t>(sizeof(Segment));
  uint32_t limit = awake_->tcb.rcv.limit + awake_->options.send_limit + 64 * 1024;
  if (awake_->listener != nullptr)
    limit = std::max(limit, awake_->listener->backlog * static_cast<uint32_t>(sizeof(Segment)));
  // IP_MINTTL, IPV6_MINHOPCOUNT (RFC 5082).
  const int32_t least = segment->id.local.address.is_v6() ? int32_t{awake_->options.ipv6.least_hops}
                                                          : awake_->options.plain.min_ttl;
  if (segment->ttl < least) [[unlikely]] {
    ++protocol_.counters().TcpExtTCPMinTTLDrop;
    protocol_.segments().release(segment);
    return;
  }
  if (awake_->queue_bytes + cost > limit) {
    ++protocol_.counters().TcpExtTCPBacklogDrop;
    protocol_.segments().release(segment);
    return;
  }
  awake_->queue_bytes += cost;
  awake_->queue.push_back(*segment);
  awake_->new_segment.wake();
}

Segment* Endpoint::dequeue() {
  Segment* segment = awake_->queue.pop_front();
  if (segment != nullptr)
    awake_->queue_bytes -= segment->payload_size() + static_cast<uint32_t>(sizeof(Segment));
  return segment;
}

void Endpoint::requeue_front(Segment* segment) {
  awake_->queue_bytes += segment->payload_size() + static_cast<uint32_t>(sizeof(Segment));
  awake_->queue.push_front(*segment);
  awake_->new_segment.wake();
}

void Endpoint::drop_queue() {
  while (Segment* segment = dequeue()) protocol_.segments().release(segment);
}

/// Handles at most kMaxSegmentsPerWake; true if more are waiting.
bool Endpoint::handle_segments() {
  for (int i = 0; i < kMaxSegmentsPerWake; ++i) {
    Segment* segment = dequeue();
    if (segment == nullptr) return false;
    // The connection has ended before this one's turn: TIME-WAIT answers, or nobody.
    if (!is_synchronized(awake_->tcb.state)) {
      protocol_.dispatch(segment);
      continue;
    }
    if (segment->payload_size() > 0 && !has_memory()) segment->truncate(0);
    handle_segment(*segment);
    protocol_.segments().release(segment);
  }
  return !awake_->queue.empty();
}

/// Whether a segment's text may be kept. Linux's tcp_try_rmem_schedule: everybody may have a little; then
/// what came out of order makes room.
bool Endpoint::has_memory() {
  auto little = static_cast<uint32_t>(protocol_.settings().tcp_rmem[0]);
  Receiver& rcv = awake_->tcb.rcv;
  if (!protocol_.out_of_memory() || rcv.true_size() < little) [[likely]]
    return true;
  if (rcv.prune()) ++protocol_.counters().TcpExtOfoPruned;
  if (!protocol_.out_of_memory() || rcv.true_size() < little) return true;
  ++protocol_.counters().TcpExtTCPRcvQDrop;
  rcv.acknowledge_now();
  return false;
}

void Endpoint::handle_segment(Segment& segment) {
  protocol_.context().log(
      LogLevel::trace, [&](LogLine& line) { line << name_of(awake_->tcb.state) << " received " << segment; });
  State before = awake_->tcb.state;
  bool could_write = can_write();
  ArrivalRules rules{.invalid_rate_limit =
                         std::chrono::milliseconds(protocol_.settings().tcp_invalid_ratelimit)};
  awake_->tcb.traffic.receive(segment.segments(), segment.payload_size() > 0);
  if (segment.payload_size() > 0) awake_->tcb.snd.on_data_received();
  if (awake_->options.times.wants_arrivals()) [[unlikely]]
    note_arrival(segment);
  Verdict verdict = segment_arrives(awake_->tcb, segment, rules, protocol_.now());
  log_verdict(verdict, segment);
  judge_mtu_probe();
  apply(verdict, segment, before);
  if (verdict.acknowledged && may_send(awake_->tcb.state)) {
    grow_send_buffer();
    if (!could_write && can_write()) wake(ready::kOut | ready::kWrNorm);
  }
}

void Endpoint::apply(const Verdict& verdict, const Segment& segment, State before) {
  Counters& counters = protocol_.counters();
  switch (verdict.cause) {
    case Verdict::Cause::old_timestamp:
      ++counters.TcpExtPAWSEstab;
      if (verdict.limited) ++counters.TcpExtTCPACKSkippedPAWS;
      break;
    case Verdict::Cause::out_of_window:
      if (verdict.limited) ++counters.TcpExtTCPACKSkippedSeq;
      break;
    case Verdict::Cause::syn_in_window:
      ++counters.TcpExtTCPSYNChallenge;
      break;
    case Verdict::Cause::data_after_close:
      ++counters.TcpExtTCPAbortOnData;
      break;
    default:
      break;
  }
  if (verdict.ack.advanced > 0) {
    awake_->keepalive_probes = 0;
    awake_->soft_error = 0;
    if (awake_->reports != nullptr) [[unlikely]]
      report_times();
    awake_->route.confirm_reachable();
    if (segment.payload_size() == 0) ++counters.TcpExtTCPPureAcks;
  }
  count_recovery(verdict.ack.recovery);
  if (uint32_t marked = verdict.ack.delivered_marked; marked > 0) [[unlikely]]
    counters.TcpExtTCPDeliveredCE += (marked + awake_->tcb.snd.mss() - 1) / awake_->tcb.snd.mss();
  if (verdict.text.out_of_order) {
    ++counters.TcpExtTCPOFOQueue;
    ++awake_->tcb.traffic.out_of_order;
  }
  if (verdict.text.pruned) ++counters.TcpExtOfoPruned;
  if (verdict.text.dropped)
    ++(verdict.text.out_of_order ? counters.TcpExtTCPOFODrop : counters.TcpExtTCPRcvQDrop);

  switch (verdict.reply) {
    case Verdict::Reply::none:
      break;
    case Verdict::Reply::acknowledge:
      send_ack();
      break;
    case Verdict::Reply::challenge:
      send_challenge_ack();
      break;
    case Verdict::Reply::reset:
      answer_with_reset(segment);
      break;
  }
  if (verdict.ended) {
    on_state_change(before);
    done(verdict.error);
    return;
  }
  if (awake_->tcb.state != before) on_state_change(before);
  if (verdict.fin) {
    receive_ended_ = true;
    wake(ready::kIn | ready::kRdNorm | ready::kRdHup);
  } else if (verdict.readable && awake_->tcb.rcv.buffer.size() >= awake_->tcb.rcv.low_water) {
    wake(ready::kIn | ready::kRdNorm);
  }
  if (verdict.urgent) wake(ready::kPri | ready::kRdBand);
  if (verdict.time_wait) {
    send_ack();
    enter_time_wait();
    return;
  }
  if (verdict.fin_acknowledged) {
    // Whoever lingers in close(2) has nothing to wait for any more.
    wake(ready::kOut | ready::kHup);
    if (awake_->tcb.state == State::fin_wait_2 && awake_->tcb.orphaned) {
      if (awake_->options.fin_wait_2 < Duration(0)) {
        ++counters.TcpExtTCPAbortOnLinger;
        send_reset();
        done(0);
        return;
      }
      start_fin_wait(awake_->options.fin_wait_2);
    }
  }
  if (ack_can_wait(verdict)) return;
  // An ACK that is due may ride on data.
  if (awake_->tcb.rcv.ack_due() && verdict.may_transmit) output();
  if (awake_->tcb.rcv.ack_due()) send_ack();
}

/// RFC 9293, 3.10.7 (MUST-59): what is here already and follows in order shares one ACK, up to a superframe's
/// worth, as on Linux by GRO. settle() sends it at the latest. Where segments get lost ACKs do, too: then
/// every second segment keeps its own.
bool Endpoint::ack_can_wait(const Verdict& verdict) const {
  constexpr uint32_t kMost = 64 * 1024;
  constexpr Duration kOrderly = 1s;
  const Receiver& rcv = awake_->tcb.rcv;
  if (verdict.text.readable == 0 || verdict.fin || !rcv.reassembly().empty()) return false;
  if (rcv.rcv_nxt - rcv.last_acknowledged() >= kMost) return false;
  if (protocol_.now() - rcv.last_disorder() < kOrderly) return false;
  const Segment* next = awake_->queue.front();
  return next != nullptr && next->payload_size() > 0 && next->seq == rcv.rcv_nxt;
}

void Endpoint::log_verdict(const Verdict& verdict, const Segment& segment) const {
  if (verdict.cause == Verdict::Cause::none && !verdict.ack.entered_recovery) [[likely]]
    return;
  protocol_.context().log(LogLevel::debug, [&](LogLine& line) {
    if (verdict.ack.entered_recovery) {
      line << id() << ": loss, fast recovery: " << awake_->tcb.snd;
      return;
    }
    constexpr std::string_view kWhy[] = {"",
                                         "out of window",
                                         "old timestamp (PAWS)",
                                         "reset by the peer",
                                         "SYN in an open connection",
                                         "RST with an inexact number",
                                         "unacceptable ACK",
                                         "data after close"};
    line << id() << ": " << kWhy[static_cast<size_t>(verdict.cause)] << " in " << name_of(awake_->tcb.state)
         << ": " << segment;
  });
}

void Endpoint::on_state_change(State before) {
  State now = awake_->tcb.state;
  Counters& counters = protocol_.counters();
  if (now == State::established) {
    ++counters.TcpCurrEstab;
    awake_->established_at = protocol_.now();
  }
  if (before == State::established) --counters.TcpCurrEstab;
  if (now == State::closed && (before == State::established || before == State::close_wait))
    ++counters.TcpEstabResets;
  protocol_.context().log(LogLevel::debug, [&](LogLine& line) {
    if (connected())
      line << id();
    else
      line << awake_->local;
    line << ": " << name_of(before) << " -> " << name_of(now);
  });
  update_closing();
}

/// Host::drained() waits for connections that nobody holds any more and that have something to say yet.
void Endpoint::update_closing() {
  bool closing = released_ && awake_->tcb.state != State::closed && awake_->tcb.state != State::listen;
  if (closing != counted_closing_) {
    counted_closing_ = closing;
    protocol_.count_closing(closing ? 1 : -1);
  }
}

bool Endpoint::can_write() const { return awake_->tcb.snd.writable(awake_->options.send_limit); }

int Endpoint::take_error() { return std::exchange(error_, 0); }

}  // namespace ustack::tcp
