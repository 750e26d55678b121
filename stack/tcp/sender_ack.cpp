// What an ACK and the timers of loss recovery mean to the sending half.
#include <algorithm>

#include "stack/tcp/sender.h"

namespace ustack::tcp {

namespace {

/// Of the probe's timer beyond two round trips (Linux's TCP_TIMEOUT_MIN); for a lone segment, whose ACK may
/// be delayed, the least RTO is (RFC 8985, 7.2, TLP_max_ack_delay).
constexpr Duration kProbeSlack = 2ms;
/// How soon a peer that seems to have taken SACKs back is asked (tcp_check_sack_reneging), at least.
constexpr Duration kRenegingDelay = 10ms;

}  // namespace

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

void Sender::take_cumulative(SeqNum ack, uint32_t advanced, AckTally& tally) {
  flight_.acknowledge(ack, tally);
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

/// Returns the latest sample for congestion control, zero if there is none. `advanced`: SND.UNA has moved;
/// only then the echo is of what has caused the ACK (RFC 7323, 4.1).
Duration Sender::take_rtt(const AckTally& tally, std::optional<Instant> echoed, bool advanced, Instant now) {
  uint32_t expected = std::max(std::min(flight_.outstanding() / (2 * mss_), flight_.count()), 1u);
  // Karn: nothing can be learned from the ACK of what was sent twice, but for its timestamp (RFC 7323, 4).
  if (tally.first_sent && !tally.retransmitted) {
    rtt.sample(tally.arrived - *tally.first_sent, expected, now);
    return tally.arrived - *tally.last_sent;
  }
  if (echoed && advanced) {
    // At least a tick.
    Duration sample =
        std::max<Duration>(std::chrono::floor<std::chrono::milliseconds>(tally.arrived) - *echoed, 1ms);
    rtt.sample(sample, expected, now);
    return sample;
  }
  return Duration(0);
}

/// Linux's tcp_ld_RTO_revert.
bool Sender::on_unreachable(SeqNum seq, Instant now) {
  const SentSegment* head = flight_.front();
  if (timeouts_ == 0 || rtt.back_off_count() == 0 || seq != snd_una || head == nullptr) return false;
  rtt.revert_back_off();
  rto_deadline = std::max(head->sent_at + rtt.rto(), now);
  return true;
}

Sender::AckOutcome Sender::on_ack(const Segment& segment, std::optional<Instant> echoed, Instant now) {
  AckOutcome outcome;
  AckTally tally{.arrived = segment.arrived,
                 .least_rtt = rtt.minimum(),
                 .echoed = echoed,
                 .recover = recovery_.recover(),
                 .highest = flight_.highest_sacked(snd_una)};
  LossRecovery::Arrival arrival{.at = position(segment.arrived),
                                .tally = tally,
                                .prior_una = snd_una,
                                .prior_in_flight = in_flight(),
                                .ece = ecn && segment.flags.ece};
  arrival.at.una = segment.ack;
  bool outstanding = !flight_.empty();
  uint64_t lost_before = flight_.rate().lost();
  uint32_t old_window = snd_wnd;
  outcome.advanced = segment.ack - snd_una;
  outcome.window_opened = take_window(segment);
  probes_ = 0;
  probing_since_ = kNever;
  if (outcome.window_opened) probe_back_off_ = 0;

  if (sack && segment.options.sack_count > 0) {
    auto blocks =
        recovery_.check_dsack(segment.options.sacks(), segment.ack, max_snd_wnd, arrival, outcome.recovery);
    flight_.sack(blocks, tally);
  }
  arrival.advanced = outcome.advanced > 0;
  if (arrival.advanced) {
    take_cumulative(segment.ack, outcome.advanced, tally);
  } else {
    // RFC 5681, section 2: (a) to (e).
    outcome.duplicate =
        outstanding && segment.payload_size() == 0 && !segment.flags.fin && snd_wnd == old_window;
  }
  arrival.duplicate = outcome.duplicate;
  arrival.more = window_room() > 0 && (unsent() > 0 || (fin_queued_ && !fin_sent_));
  Duration sample = take_rtt(tally, echoed, arrival.advanced, now);

  bool was_recovering = recovery_.state() == CongestionState::recovery;
  bool was_reducing = recovery_.reducing();
  uint32_t delivered = recovery_.on_ack(arrival, outcome.recovery);
  if (arrival.ece) delivered_marked_ += outcome.delivered_marked = delivered;
  outcome.entered_recovery = !was_recovering && recovery_.state() == CongestionState::recovery;
  if (recovery_.state() != CongestionState::loss) timeout_totals_.end(now);
  auto lost = static_cast<uint32_t>(flight_.rate().lost() - lost_before);
  if (delivered > 0 || lost > 0) tell_congestion(arrival, was_reducing, delivered, lost, sample, now);
  restart_timers(arrival, now);
  return outcome;
}

void Sender::tell_congestion(const LossRecovery::Arrival& arrival, bool was_reducing, uint32_t delivered,
                             uint32_t lost, Duration sample, Instant now) {
  const AckTally& tally = arrival.tally;
  DeliveryRate& rate = flight_.rate();
  RateSample measured = rate.sample(tally.rate, tally.bytes, rtt.minimum(), tally.arrived);
  // What the program has limited tells only if it is more than was known.
  if (measured.valid() && (!measured.app_limited || measured.bytes_per_second() >= rate_.bytes_per_second()))
    rate_ = measured;
  // While it is not known how far the network reorders, what lies above a hole doesn't let cwnd grow before
  // that is filled (Linux's tcp_may_raise_cwnd).
  bool may_grow = arrival.advanced || recovery_.reordering() > recovery_.rules().reordering;
  congestion->on_ack({.now = now,
                      .acked = delivered,
                      .lost = lost,
                      .prior_in_flight = arrival.prior_in_flight,
                      .in_flight = in_flight(),
                      .rtt = sample,
                      .srtt = rtt.srtt(),
                      .min_rtt = rtt.minimum(),
                      .in_recovery = was_reducing || recovery_.reducing(),
                      .in_loss = recovery_.state() == CongestionState::loss,
                      .ece = arrival.ece,
                      .cwnd_limited = may_grow && is_cwnd_limited(*congestion, max_in_flight_),
                      .advanced = arrival.advanced,
                      .total_delivered = rate.delivered(),
                      .total_lost = rate.lost(),
                      .rate = measured});
}

/// RFC 6298, 5.2 and 5.3; RFC 8985, 7.2.
void Sender::restart_timers(const LossRecovery::Arrival& arrival, Instant now) {
  if (flight_.empty()) {
    rto_deadline = probe_deadline = kNever;
    return;
  }
  // A SACK of something that was sent before the head's last transmission restarts the timer too: it was set
  // for a head that has been in flight for less than a round trip (Linux's FLAG_SET_XMIT_TIMER).
  const AckTally& tally = arrival.tally;
  bool sacked_older = tally.sacked && tally.first_sent && *tally.first_sent < flight_.front()->sent_at;
  if (arrival.advanced && recovery_.reneged())
    rto_deadline = now + std::max(rtt.srtt() / 2, kRenegingDelay);
  else if (arrival.advanced || sacked_older)
    rto_deadline = now + rtt.rto();
  schedule_probe(now);
}

/// RFC 8985, 7.2: two round trips after the last transmission or ACK, if that is before the time-out.
void Sender::schedule_probe(Instant now) {
  if (!recovery_.wants_probe(sack) || recovery_.probe_outstanding()) {
    probe_deadline = kNever;
    return;
  }
  Duration wait = kInitialRto;
  if (rtt.has_sample())
    wait = 2 * rtt.srtt() + (flight_.outstanding_segments() == 1 ? rtt.bounds.least : kProbeSlack);
  probe_deadline = std::min(now + wait, rto_deadline);
}

/// RFC 8985, 7.3.
std::optional<Transmission> Sender::on_probe_timer() {
  probe_deadline = kNever;
  if (!recovery_.wants_probe(sack) || recovery_.probe_outstanding()) return std::nullopt;
  uint32_t pending = unsent();
  uint32_t length = std::min(pending, mss_);
  if (pending > 0 && window_room() >= length) {
    bool whole = length == pending;
    return Transmission{.seq = snd_nxt,
                        .length = length,
                        .fin = whole && fin_queued_ && window_room() > length,
                        .push = whole,
                        .probe = true};
  }
  SentSegment* tail = flight_.last(mss_);
  if (tail == nullptr || tail->sacked) return std::nullopt;
  return Transmission{.seq = tail->seq,
                      .length = tail->length - (tail->fin ? 1 : 0),
                      .fin = tail->fin,
                      .push = true,
                      .retransmission = true,
                      .probe = true};
}

RecoveryEvents Sender::on_reordering_timer(Instant now) {
  RecoveryEvents events;
  recovery_.on_reordering_timer(position(now), events);
  return events;
}

RecoveryEvents Sender::on_rto(Instant now) {
  RecoveryEvents events;
  rto_deadline = probe_deadline = kNever;
  if (flight_.empty()) return events;
  recovery_.on_timeout(position(now), timeouts_ > 0, events);
  if (timeouts_++ == 0) timeout_totals_.begin(now);
  ++timeout_totals_.count;
  if (first_retransmit_ == kNever) first_retransmit_ = now;
  // tcp_retransmit_timer, tcp_stream_is_thin: a thin stream's time-outs don't double, six times.
  constexpr uint32_t kThinSegments = 4, kThinRetries = 6;
  if (thin_linear && flight_.outstanding_segments() < kThinSegments && timeouts_ <= kThinRetries)
    rtt.undo_back_off();
  else
    rtt.back_off();
  rto_deadline = now + rtt.rto();
  return events;
}

}  // namespace ustack::tcp
