// The endpoint's fiber: main loop, arrivals, and what a verdict means.
#include "stack/tcp/endpoint.h"

#include <algorithm>

#include "stack/host.h"
#include "stack/tcp/handshake.h"
#include "stack/tcp/listener.h"

namespace ustack::tcp {

Endpoint::Endpoint(Protocol& protocol, Family family)
    : Socket(protocol.host()),
      Task(protocol.context().scheduler),
      Connection(Kind::endpoint),
      protocol_(protocol),
      family_(family),
      tcb_(protocol.context().blocks, protocol.pieces(), protocol.sent_segments()),
      local_{IpAddress::any(family), 0},
      bound_address_(IpAddress::any(family)),
      idle_(*this) {
  tcb_.rcv.limit = static_cast<uint32_t>(protocol.settings().tcp_rmem[1]);
  options_.send_limit = static_cast<uint32_t>(protocol.settings().tcp_wmem[1]);
  (void)tcb_.snd.congestion.select(protocol.settings().tcp_congestion_control);
  tcb_.snd.rtt.bounds = {.least = std::chrono::microseconds(protocol.settings().tcp_rto_min_us),
                         .most = std::chrono::milliseconds(protocol.settings().tcp_rto_max_ms)};
  idle_.add(notification_, kNotification);
  idle_.add(new_segment_, kNewSegment);
  idle_.add(resend_, kResend);
}

void Endpoint::retire() {
  released_ = true;
  protocol_.remove_listener(*this);
  protocol_.context().arena.destroy(std::exchange(listener_, nullptr));
  drop_queue();
  protocol_.segments().release(std::exchange(early_syn_, nullptr));
  protocol_.connections().remove(*this);
  protocol_.ports().release(port_);
  if (std::exchange(counted_closing_, false)) protocol_.count_closing(-1);
  timer_.cancel();
  for (Waker* waker : wakers()) waker->forsake();
  static_cast<ListHook<AcceptTag>&>(*this).unlink();
  static_cast<ListHook<OwesAck>&>(*this).unlink();
  static_cast<ListHook<Task>&>(*this).unlink();
}

void Endpoint::run() {
  if (handshake_pending_) run_handshake();
  main_loop();
}

void Endpoint::run_handshake() {
  handshake_pending_ = false;
  Status status;
  if ((notifications_ & kNotifyClose) != 0) {
    notifications_ = 0;
    status = Error{ECONNABORTED};
  } else {
    Handshake handshake(*this);
    if (passive_) {
      SeqNum iss = iss_floor_ ? *iss_floor_ : protocol_.iss().iss(id(), protocol_.now());
      handshake.reset_to_syn_rcvd(iss, peer_iss_, peer_syn_, peer_window_);
      if (peer_ecn_) handshake.accept_ecn();
      if (early_) {
        handshake.open_early(*early_syn_);
        protocol_.segments().release(std::exchange(early_syn_, nullptr));
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
  for (int waker = idle_.fetch(false); waker != -1; waker = idle_.fetch(false)) {
    bool more = false;
    switch (waker) {
      case kNotification: {
        uint32_t what = fetch_notifications();
        if ((what & kNotifyDrain) != 0) {
          while (listener_ != nullptr ? handle_listen_segments() : handle_segments()) {
          }
          settle();
          park();
        }
        // Closed while the handshake was just being completed.
        if ((what & kNotifyClose) != 0 && released_ && is_synchronized(tcb_.state) && !tcb_.orphaned)
          orphan();
        break;
      }
      case kNewSegment:
        more = listener_ != nullptr ? handle_listen_segments() : handle_segments();
        break;
      case kResend:
        on_timer();
        break;
    }
    settle();
    if (more) {
      // The rest has to wait until others have had their turn.
      new_segment_.wake();
      return;
    }
  }
}

/// Sends what may be sent and brings the timers up to date; the end of everything that changes the Tcb.
void Endpoint::settle() {
  if (drained_) return;
  // RFC 7413, 4.2.2: data may answer the SYN; its retransmission has to wait for the handshake.
  if (early_) output();
  if (!is_synchronized(tcb_.state)) return;
  output();
  if (tcb_.rcv.ack_due())
    send_ack();
  else if (tcb_.rcv.ack_owed())
    protocol_.owe_ack(*this);
  sync_timers();
}

void Endpoint::park() {
  drained_ = true;
  Sleeper sleeper(*this);
  sleeper.add(undrain_, 0);
  sleeper.fetch(true);
  drained_ = false;
}

void Endpoint::undrain() { undrain_.wake(); }

void Endpoint::notify(uint32_t what) {
  notifications_ |= what;
  notification_.wake();
}

uint32_t Endpoint::fetch_notifications() { return std::exchange(notifications_, 0); }

void Endpoint::on_host_ending() {
  notify(kNotifyClose);
  undrain_.wake();
}

void Endpoint::enqueue(Segment* segment) {
  // What waits is not yet in the receive buffer, but it is memory (Linux's limit of the backlog).
  uint32_t cost = segment->payload_size() + static_cast<uint32_t>(sizeof(Segment));
  uint32_t limit = tcb_.rcv.limit + options_.send_limit + 64 * 1024;
  if (listener_ != nullptr)
    limit = std::max(limit, listener_->backlog * static_cast<uint32_t>(sizeof(Segment)));
  // IP_MINTTL (RFC 5082).
  if (segment->ttl < options_.plain.min_ttl) [[unlikely]] {
    ++protocol_.counters().TcpExtTCPMinTTLDrop;
    protocol_.segments().release(segment);
    return;
  }
  if (queue_bytes_ + cost > limit) {
    ++protocol_.counters().TcpExtTCPBacklogDrop;
    protocol_.segments().release(segment);
    return;
  }
  queue_bytes_ += cost;
  queue_.push_back(*segment);
  new_segment_.wake();
}

Segment* Endpoint::dequeue() {
  Segment* segment = queue_.pop_front();
  if (segment != nullptr) queue_bytes_ -= segment->payload_size() + static_cast<uint32_t>(sizeof(Segment));
  return segment;
}

void Endpoint::requeue_front(Segment* segment) {
  queue_bytes_ += segment->payload_size() + static_cast<uint32_t>(sizeof(Segment));
  queue_.push_front(*segment);
  new_segment_.wake();
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
    if (!is_synchronized(tcb_.state)) {
      protocol_.dispatch(segment);
      continue;
    }
    if (segment->payload_size() > 0 && !has_memory()) segment->truncate(0);
    handle_segment(*segment);
    protocol_.segments().release(segment);
  }
  return !queue_.empty();
}

/// Whether a segment's text may be kept. Linux's tcp_try_rmem_schedule: everybody may have a little; then
/// what came out of order makes room.
bool Endpoint::has_memory() {
  auto little = static_cast<uint32_t>(protocol_.settings().tcp_rmem[0]);
  Receiver& rcv = tcb_.rcv;
  if (!protocol_.out_of_memory() || rcv.true_size() < little) [[likely]]
    return true;
  if (rcv.prune()) ++protocol_.counters().TcpExtOfoPruned;
  if (!protocol_.out_of_memory() || rcv.true_size() < little) return true;
  ++protocol_.counters().TcpExtTCPRcvQDrop;
  rcv.acknowledge_now();
  return false;
}

void Endpoint::handle_segment(Segment& segment) {
  protocol_.context().log(LogLevel::trace,
                          [&](LogLine& line) { line << name_of(tcb_.state) << " received " << segment; });
  State before = tcb_.state;
  bool could_write = can_write();
  ArrivalRules rules{.invalid_rate_limit =
                         std::chrono::milliseconds(protocol_.settings().tcp_invalid_ratelimit)};
  tcb_.traffic.receive(segment.segments(), segment.payload_size() > 0);
  if (segment.payload_size() > 0) tcb_.snd.on_data_received();
  if (options_.times.wants_arrivals()) [[unlikely]]
    note_arrival(segment);
  Verdict verdict = segment_arrives(tcb_, segment, rules, protocol_.now());
  log_verdict(verdict, segment);
  judge_mtu_probe();
  apply(verdict, segment, before);
  if (verdict.acknowledged && may_send(tcb_.state)) {
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
    keepalive_probes_ = 0;
    soft_error_ = 0;
    if (reports_ != nullptr) [[unlikely]]
      report_times();
    route_.confirm_reachable();
    if (segment.payload_size() == 0) ++counters.TcpExtTCPPureAcks;
  }
  count_recovery(verdict.ack.recovery);
  if (uint32_t marked = verdict.ack.delivered_marked; marked > 0) [[unlikely]]
    counters.TcpExtTCPDeliveredCE += (marked + tcb_.snd.mss() - 1) / tcb_.snd.mss();
  if (verdict.text.out_of_order) {
    ++counters.TcpExtTCPOFOQueue;
    ++tcb_.traffic.out_of_order;
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
  if (tcb_.state != before) on_state_change(before);
  if (verdict.fin) {
    receive_ended_ = true;
    wake(ready::kIn | ready::kRdNorm | ready::kRdHup);
  } else if (verdict.readable && tcb_.rcv.buffer.size() >= tcb_.rcv.low_water) {
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
    if (tcb_.state == State::fin_wait_2 && tcb_.orphaned) {
      if (options_.fin_wait_2 < Duration(0)) {
        ++counters.TcpExtTCPAbortOnLinger;
        send_reset();
        done(0);
        return;
      }
      start_fin_wait(options_.fin_wait_2);
    }
  }
  if (ack_can_wait(verdict)) return;
  // An ACK that is due may ride on data.
  if (tcb_.rcv.ack_due() && verdict.may_transmit) output();
  if (tcb_.rcv.ack_due()) send_ack();
}

/// RFC 9293, 3.10.7 (MUST-59): what is here already and follows in order shares one ACK, up to a superframe's
/// worth, as on Linux by GRO. settle() sends it at the latest. Where segments get lost ACKs do, too: then
/// every second segment keeps its own.
bool Endpoint::ack_can_wait(const Verdict& verdict) const {
  constexpr uint32_t kMost = 64 * 1024;
  constexpr Duration kOrderly = 1s;
  const Receiver& rcv = tcb_.rcv;
  if (verdict.text.readable == 0 || verdict.fin || !rcv.reassembly().empty()) return false;
  if (rcv.rcv_nxt - rcv.last_acknowledged() >= kMost) return false;
  if (protocol_.now() - rcv.last_disorder() < kOrderly) return false;
  const Segment* next = queue_.front();
  return next != nullptr && next->payload_size() > 0 && next->seq == rcv.rcv_nxt;
}

void Endpoint::log_verdict(const Verdict& verdict, const Segment& segment) const {
  if (verdict.cause == Verdict::Cause::none && !verdict.ack.entered_recovery) [[likely]]
    return;
  protocol_.context().log(LogLevel::debug, [&](LogLine& line) {
    if (verdict.ack.entered_recovery) {
      line << id() << ": loss, fast recovery: " << tcb_.snd;
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
    line << id() << ": " << kWhy[static_cast<size_t>(verdict.cause)] << " in " << name_of(tcb_.state) << ": "
         << segment;
  });
}

void Endpoint::on_state_change(State before) {
  State now = tcb_.state;
  Counters& counters = protocol_.counters();
  if (now == State::established) {
    ++counters.TcpCurrEstab;
    established_at_ = protocol_.now();
  }
  if (before == State::established) --counters.TcpCurrEstab;
  if (now == State::closed && (before == State::established || before == State::close_wait))
    ++counters.TcpEstabResets;
  protocol_.context().log(LogLevel::debug, [&](LogLine& line) {
    if (connected())
      line << id();
    else
      line << local_;
    line << ": " << name_of(before) << " -> " << name_of(now);
  });
  update_closing();
}

/// Host::drained() waits for connections that nobody holds any more and that have something to say yet.
void Endpoint::update_closing() {
  bool closing = released_ && tcb_.state != State::closed && tcb_.state != State::listen;
  if (closing != counted_closing_) {
    counted_closing_ = closing;
    protocol_.count_closing(closing ? 1 : -1);
  }
}

bool Endpoint::can_write() const { return tcb_.snd.writable(options_.send_limit); }

int Endpoint::take_error() { return std::exchange(error_, 0); }

}  // namespace ustack::tcp
