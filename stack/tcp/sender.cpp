#include "stack/tcp/sender.h"

#include <algorithm>

#include "stack/tcp/window.h"

namespace ustack::tcp {

void Sender::start(uint32_t mss, bool syn_lost, std::optional<Duration> handshake_rtt, Instant now) {
  mss_ = mss;
  congestion->on_connected(mss, syn_lost, now);
  if (handshake_rtt)
    rtt.sample(*handshake_rtt);
  else if (syn_lost)
    rtt.fall_back();
  last_sent_ = now;
  usage_end_ = snd_nxt;
}

uint32_t Sender::in_flight() const {
  uint32_t pipe = flight_.in_flight();
  return pipe > reno_sacked_ ? pipe - reno_sacked_ : 0;
}

uint32_t Sender::flight_size() const { return std::min(flight_.outstanding(), cwnd()); }

uint32_t Sender::cwnd_room() const {
  uint32_t used = in_flight();
  return cwnd() > used ? cwnd() - used : 0;
}

void Sender::note_usage() {
  uint32_t used = in_flight();
  if (snd_una >= usage_end_ || used > max_in_flight_) {
    max_in_flight_ = used;
    usage_end_ = snd_nxt;
  }
}

std::optional<Transmission> Sender::next(const SendLimits& limits, Instant now) {
  // RFC 6675, 5, (C): what is lost goes before new data.
  if (flight_.next_lost() != nullptr) return next_retransmission(limits);
  if (flight_.empty() && !buffer.empty() && now - last_sent_ > rtt.rto()) {
    // RFC 5681, 4.1: the ACK clock has stopped.
    congestion->on_idle_restart(now - last_sent_, rtt.rto(), now);
    last_sent_ = now;
  }
  return next_new(limits);
}

std::optional<Transmission> Sender::next_retransmission(const SendLimits& limits) {
  const SentSegment& lost = *flight_.next_lost();
  uint32_t data = lost.length - (lost.fin ? 1 : 0);
  uint32_t room = cwnd_room();
  if (retransmit_now_ || in_flight() == 0) room = std::max(room, mss_);
  if (room < std::min(data, mss_)) return std::nullopt;
  uint32_t most = superframe_payload({.unsent = data,
                                      .usable = std::max(room / mss_ * mss_, mss_),
                                      .mss = mss_,
                                      .max_superframe = limits.max_superframe,
                                      .header_length = limits.header_length});
  // A peer that has shrunk its window gets only the head again, as a probe (tcp_retransmit_timer).
  if (lost.seq >= window_end()) {
    if (lost.seq != snd_una) return std::nullopt;
    most = std::min(most, mss_);
  } else {
    most = std::min(most, window_end() - lost.seq);
  }
  uint32_t length = std::min(data, most);
  bool whole = length == data;
  return Transmission{.seq = lost.seq,
                      .length = length,
                      .fin = whole && lost.fin,
                      .push = whole && lost.end() == snd_nxt,
                      .retransmission = true};
}

/// A bigger superframe is worth waiting for the next ACK: it comes, since most of the window is in flight
/// (Linux's tcp_tso_should_defer, tcp_tso_win_divisor 3).
bool Sender::deferred(uint32_t usable, const SendLimits& limits) const {
  if (limits.max_superframe <= mss_ + limits.header_length || repair_ != Repair::none) return false;
  if (in_flight() < 4 * mss_) return false;
  uint32_t chunk =
      std::min({std::min(cwnd(), snd_wnd) / 3, limits.max_superframe - limits.header_length, unsent()});
  return usable < chunk;
}

std::optional<Transmission> Sender::next_new(const SendLimits& limits) {
  uint32_t pending = unsent();
  if (pending == 0 && (!fin_queued_ || fin_sent_)) return std::nullopt;
  uint32_t window = window_room();
  // A FIN takes a sequence number of the window, but needs no cwnd (Linux: "don't be strict about it").
  if (pending == 0) {
    if (window == 0) return std::nullopt;
    return Transmission{.seq = snd_nxt, .fin = true};
  }
  uint32_t usable = std::min(window, cwnd_room());
  bool held = cork || more;
  SendDecisionInput decision{.unsent = pending,
                             .usable = usable,
                             .mss = mss_,
                             .max_window = max_snd_wnd,
                             .in_flight = !flight_.empty(),
                             .small_in_flight = small_in_flight(),
                             .nodelay = nodelay,
                             .cork = held,
                             .fin = fin_queued_};
  if (usable == 0 || !should_send(decision)) return std::nullopt;
  if (usable < pending && deferred(usable, limits)) return std::nullopt;
  uint32_t length = superframe_payload({.unsent = pending,
                                        .usable = usable,
                                        .mss = mss_,
                                        .max_superframe = limits.max_superframe,
                                        .header_length = limits.header_length});
  // The short end of a superframe is a segment of its own to Nagle and cork.
  uint32_t tail = length % mss_;
  if (length == pending && length > mss_ && tail != 0 && !fin_queued_ &&
      (held || (!nodelay && small_in_flight())))
    length -= tail;
  bool last = length == pending;
  return Transmission{
      .seq = snd_nxt, .length = length, .fin = last && fin_queued_ && window > length, .push = last};
}

std::optional<Transmission> Sender::forced() {
  uint32_t pending = unsent();
  if (!flight_.empty() || (pending == 0 && (!fin_queued_ || fin_sent_))) return std::nullopt;
  uint32_t window = window_room();
  if (window == 0) return std::nullopt;
  uint32_t length = std::min({pending, mss_, window});
  return Transmission{.seq = snd_nxt,
                      .length = length,
                      .fin = length == pending && fin_queued_ && window > length,
                      .push = true};
}

bool Sender::sent(const Transmission& t, Instant now) {
  uint32_t length = t.length + (t.fin ? 1 : 0);
  if (t.retransmission) {
    SentSegment* segment = flight_.next_lost();
    if (segment->length > length && !flight_.split(*segment, length)) return false;
    bool head = segment == flight_.front();
    flight_.mark_retransmitted(*segment, now);
    retransmit_now_ = false;
    retransmitted_segments_ += std::max((t.length + mss_ - 1) / mss_, 1u);
    bytes_retransmitted_ += t.length;
    if (head) rto_deadline = now + rtt.rto();
  } else {
    if (!flight_.append(t.seq, length, t.fin, now)) return false;
    snd_nxt += length;
    if (t.fin) fin_sent_ = true;
    if (t.length % mss_ != 0) {
      small_end_ = snd_nxt;
      small_sent_ = true;
    }
    bytes_sent_ += t.length;
  }
  // RFC 6298, 5.1.
  if (rto_deadline == kNever) rto_deadline = now + rtt.rto();
  last_sent_ = now;
  note_usage();
  return true;
}

/// Linux's tcp_may_update_window, which differs from RFC 9293, 3.10.7.4 (SND.WL1, SND.WL2) in that a
/// reordered ACK of the same numbers can't shrink the window. Returns whether the right edge has moved right.
bool Sender::take_window(const Segment& segment) {
  uint32_t window = uint32_t{segment.window} << snd_wscale;
  SeqNum edge = window_end();
  if (segment.ack > snd_una || segment.seq > snd_wl1 || (segment.seq == snd_wl1 && window > snd_wnd)) {
    snd_wnd = window;
    snd_wl1 = segment.seq;
    snd_wl2 = segment.ack;
    max_snd_wnd = std::max(max_snd_wnd, window);
  }
  return segment.ack + snd_wnd > edge;
}

void Sender::take_cumulative(SeqNum ack, uint32_t advanced, Flight::Delivered& delivered) {
  flight_.acknowledge(ack, delivered);
  uint32_t data = advanced;
  if (fin_sent_ && !fin_acknowledged_ && ack == snd_nxt) {
    fin_acknowledged_ = true;
    --data;
  }
  buffer.acknowledge(data);
  bytes_acknowledged_ += data;
  snd_una = ack;
  timeouts_ = 0;
  first_retransmit_ = kNever;
  if (small_sent_ && small_end_ <= snd_una) small_sent_ = false;
  if (urgent && snd_up <= snd_una) urgent = false;
}

/// Returns the latest sample for congestion control, zero if there is none.
Duration Sender::take_rtt(const Flight::Delivered& delivered, Instant arrived,
                          std::optional<Duration> timestamp_rtt) {
  uint32_t expected = std::max(std::min(flight_.outstanding() / (2 * mss_), flight_.count()), 1u);
  // Karn: nothing can be learned from the ACK of what was sent twice, but for its timestamp (RFC 7323, 4).
  if (delivered.first_sent && !delivered.retransmitted) {
    rtt.sample(arrived - *delivered.first_sent, expected);
    return arrived - *delivered.last_sent;
  }
  if (timestamp_rtt && delivered.bytes > 0) {
    rtt.sample(*timestamp_rtt, expected);
    return *timestamp_rtt;
  }
  return Duration(0);
}

Sender::AckOutcome Sender::on_ack(const Segment& segment, bool sack_permitted,
                                  std::optional<Duration> timestamp_rtt, Instant now) {
  AckOutcome outcome;
  Flight::Delivered delivered;
  uint32_t prior_in_flight = in_flight();
  uint32_t prior_flight = flight_size();
  bool outstanding = !flight_.empty();
  uint32_t old_window = snd_wnd;
  outcome.advanced = segment.ack - snd_una;
  outcome.window_opened = take_window(segment);
  probes_ = 0;
  probing_since_ = kNever;
  if (outcome.window_opened) probe_back_off_ = 0;

  if (sack_permitted && segment.options.sack_count > 0) flight_.sack(segment.options.sacks(), delivered);
  if (outcome.advanced > 0) {
    take_cumulative(segment.ack, outcome.advanced, delivered);
  } else {
    // RFC 5681, section 2: (a) to (e).
    outcome.duplicate =
        outstanding && segment.payload_size() == 0 && !segment.flags.fin && snd_wnd == old_window;
    if (outcome.duplicate) ++duplicate_acks_;
  }
  Duration sample_rtt = take_rtt(delivered, segment.arrived, timestamp_rtt);
  if (!sack_permitted) count_duplicates(outcome);
  bool repairing = repair_ == Repair::recovery;
  repair_losses(delivered, sack_permitted, segment.arrived, prior_flight, outcome, now);
  if (outcome.advanced > 0 && repair_ == Repair::none) duplicate_acks_ = 0;

  if (delivered.bytes > 0) {
    congestion->on_ack({.now = now,
                        .acked = delivered.bytes,
                        .prior_in_flight = prior_in_flight,
                        .in_flight = in_flight(),
                        .rtt = sample_rtt,
                        .srtt = rtt.srtt(),
                        .in_recovery = repairing || repair_ == Repair::recovery,
                        .cwnd_limited = is_cwnd_limited(*congestion, max_in_flight_)});
  }
  // RFC 6298, 5.2 and 5.3.
  if (flight_.empty())
    rto_deadline = kNever;
  else if (outcome.advanced > 0)
    rto_deadline = now + rtt.rto();
  return outcome;
}

/// Without SACK each duplicate ACK stands for a segment that has arrived (RFC 6582, 3.2, steps 3 and 5 in
/// terms of what is in flight instead of an inflated cwnd).
void Sender::count_duplicates(const AckOutcome& outcome) {
  if (outcome.duplicate && repair_ != Repair::loss) {
    reno_sacked_ = std::min(reno_sacked_ + mss_, flight_.outstanding());
  } else if (outcome.advanced > 0) {
    // The hole that was filled was never counted.
    uint32_t counted = outcome.advanced > mss_ ? outcome.advanced - mss_ : 0;
    reno_sacked_ -= repair_ == Repair::recovery ? std::min(counted, reno_sacked_) : reno_sacked_;
  }
}

void Sender::repair_losses(const Flight::Delivered& delivered, bool sack_permitted, Instant arrived,
                           uint32_t prior_flight, AckOutcome& outcome, Instant now) {
  if (repair_ != Repair::none && snd_una >= recover_) {
    end_repair(now);
    outcome.left_recovery = true;
  }
  // The ACK of a retransmission that comes sooner than any round trip was the original's (RFC 8985, 6.2, step
  // 2).
  if (!delivered.retransmitted || arrived - delivered.newest >= rtt.minimum())
    newest_delivered_ = std::max(newest_delivered_, delivered.newest);

  bool found = false;
  if (sack_permitted) {
    flight_.mark_lost_by_sack(mss_);
    // What was sent a quarter of a round trip after a retransmission has overtaken it (RFC 8985's rule).
    if (flight_.retransmitted() > 0)
      outcome.lost_retransmission = flight_.mark_lost_retransmissions(newest_delivered_ - rtt.srtt() / 4) > 0;
    found = flight_.lost() > 0;
  } else if (repair_ == Repair::none) {
    // RFC 6582, 3.2, step 2: not for duplicates that the last recovery's own retransmissions have caused.
    found = duplicate_acks_ >= 3 && (!recover_valid_ || snd_una > recover_);
    if (found) flight_.mark_head_lost(mss_);
  } else if (repair_ == Repair::recovery && outcome.advanced > 0) {
    // RFC 6582, 3.2, step 4: a partial acknowledgment, the next hole is lost too.
    flight_.mark_head_lost(mss_);
    retransmit_now_ = true;
  }
  if (!found || repair_ != Repair::none) return;

  // RFC 5681, 3.2; RFC 6675, 5, step 4.
  repair_ = Repair::recovery;
  recover_ = snd_nxt;
  recover_valid_ = true;
  retransmit_now_ = true;
  reduced_ = true;
  outcome.entered_recovery = true;
  congestion->on_congestion_event(CongestionCause::loss, prior_flight, now);
  congestion->set_cwnd(congestion->ssthresh());
}

void Sender::end_repair(Instant now) {
  if (reduced_) congestion->on_recovery_exit(in_flight(), now);
  repair_ = Repair::none;
  reduced_ = false;
  retransmit_now_ = false;
  duplicate_acks_ = 0;
  reno_sacked_ = 0;
}

void Sender::on_rto(Instant now) {
  rto_deadline = kNever;
  if (flight_.empty()) return;
  uint32_t in_flight_before = flight_size();
  // RFC 2018, section 8: the data receiver has discarded what it had SACKed, if the first is among it.
  if (flight_.front()->sacked) flight_.forget_sacks();
  flight_.mark_all_lost();
  congestion->on_rto(in_flight_before, timeouts_ > 0, now);
  congestion->set_cwnd(mss_);
  repair_ = Repair::loss;
  reduced_ = true;
  recover_ = snd_nxt;
  recover_valid_ = true;
  duplicate_acks_ = 0;
  reno_sacked_ = 0;
  ++timeouts_;
  if (first_retransmit_ == kNever) first_retransmit_ = now;
  rtt.back_off();
  rto_deadline = now + rtt.rto();
}

void Sender::on_mss_change(uint32_t mss, bool retransmit) {
  if (mss == mss_) return;
  mss_ = mss;
  congestion->set_mss(mss);
  if (!retransmit) return;
  flight_.mark_longer_lost(mss);
  if (flight_.lost() == 0) return;
  retransmit_now_ = true;
  if (repair_ != Repair::none) return;
  // No congestion: cwnd stays (tcp_simple_retransmit).
  repair_ = Repair::recovery;
  reduced_ = false;
  recover_ = snd_nxt;
  recover_valid_ = true;
}

Duration Sender::probe_interval() const {
  Duration interval = std::max(rtt.base_rto(), kMinRto);
  for (uint32_t i = 0; i < probe_back_off_ && interval < kMaxRto; ++i) interval *= 2;
  return std::min(interval, kMaxRto);
}

void Sender::update_persist(Instant now) {
  if (!flight_.empty() || (unsent() == 0 && (!fin_queued_ || fin_sent_))) {
    persist_deadline = kNever;
    probe_back_off_ = 0;
    return;
  }
  if (persist_deadline == kNever) persist_deadline = now + probe_interval();
}

void Sender::on_probe_sent(Instant now) {
  if (probing_since_ == kNever) probing_since_ = now;
  ++probes_;
  ++probe_back_off_;
  persist_deadline = now + probe_interval();
}

void Sender::clear() {
  flight_.clear();
  buffer.clear();
  rto_deadline = persist_deadline = kNever;
  // Nothing is left to be sent, a FIN neither.
  snd_una = snd_nxt;
  fin_sent_ = fin_queued_ = true;
}

LogLine& operator<<(LogLine& line, const Sender& sender) {
  return line << "una " << sender.snd_una.value() << " nxt " << sender.snd_nxt.value() << " wnd "
              << sender.snd_wnd << " cwnd " << sender.cwnd() << " in flight " << sender.in_flight()
              << " unsent " << sender.unsent();
}

}  // namespace ustack::tcp
