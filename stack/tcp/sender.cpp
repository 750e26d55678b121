#include "stack/tcp/sender.h"

#include <algorithm>

#include "stack/tcp/window.h"
#include "stack/time/timer.h"

namespace ustack::tcp {

void Sender::start(uint32_t mss, bool syn_lost, std::optional<Duration> handshake_rtt, Instant now) {
  mss_ = mss;
  congestion->on_connected(mss, syn_lost, now);
  if (handshake_rtt)
    rtt.sample(*handshake_rtt);
  else
    rtt.fall_back();
  last_sent_ = now;
  usage_end_ = snd_nxt;
}

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

uint64_t Sender::pacing_rate() const {
  uint64_t rate = congestion->pacing_rate();
  if (rate == 0) {
    if (rtt.srtt() <= Duration(0)) return max_pacing_rate;
    // net.ipv4.tcp_pacing_ss_ratio and tcp_pacing_ca_ratio, in percent.
    constexpr uint64_t kSlowStart = 200, kAvoidance = 120;
    uint64_t ratio = cwnd() < congestion->ssthresh() / 2 ? kSlowStart : kAvoidance;
    uint64_t window = std::max(cwnd(), flight_.outstanding());
    rate = window * ratio / 100 * 1'000'000 / static_cast<uint64_t>(std::max<int64_t>(to_us(rtt.srtt()), 1));
  }
  return std::min(rate, max_pacing_rate);
}

std::optional<Transmission> Sender::next(const SendLimits& limits, Instant now) {
  pacing_deadline = kNever;
  if (!paced()) [[likely]]
    return next_unpaced(limits, now);
  // No more than a millisecond's worth at once (Linux's tcp_tso_autosize).
  SendLimits burst = limits;
  burst.more_comes = false;
  uint64_t most = std::max<uint64_t>(pacing_rate() / 1000, 2 * mss_) + limits.header_length;
  burst.max_superframe = static_cast<uint32_t>(std::min<uint64_t>(limits.max_superframe, most));
  std::optional<Transmission> next = next_unpaced(burst, now);
  if (!next || next->length == 0 || paced_until_ <= now) return next;
  pacing_deadline = paced_until_;
  return std::nullopt;
}

std::optional<Transmission> Sender::next_unpaced(const SendLimits& limits, Instant now) {
  // RFC 6675, 5, (C): what is lost goes before new data.
  if (flight_.next_lost() != nullptr && !recovery_.holds_retransmissions())
    return next_retransmission(limits);
  if (flight_.empty() && !buffer.empty() && now - last_sent_ > rtt.rto()) {
    // RFC 5681, 4.1: the ACK clock has stopped.
    congestion->on_idle_restart(now - last_sent_, rtt.rto(), now);
    last_sent_ = now;
  }
  return next_new(limits, now);
}

std::optional<Transmission> Sender::next_retransmission(const SendLimits& limits) {
  const SentSegment& lost = *flight_.next_lost();
  uint32_t data = lost.length - (lost.fin ? 1 : 0);
  uint32_t room = cwnd_room();
  if (in_flight() == 0) room = std::max(room, mss_);
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

/// A bigger superframe is worth waiting for the next ACK, if that comes soon: segments were sent within the
/// last millisecond, and the head has been on its way for half a round trip at least. Else what is held back
/// would only be missing from the network (Linux's tcp_tso_should_defer, tcp_tso_win_divisor 3).
bool Sender::deferred(uint32_t usable, const SendLimits& limits, Instant now) {
  if (limits.max_superframe <= mss_ + limits.header_length || recovery_.state() >= CongestionState::recovery)
    return false;
  if (in_flight() < 4 * mss_ || now - last_sent_ > 1ms) return false;
  if (now - flight_.front()->sent_at < rtt.srtt() / 2) return false;
  uint32_t chunk =
      std::min({std::min(cwnd(), snd_wnd) / 3, limits.max_superframe - limits.header_length, unsent()});
  return usable < chunk;
}

/// A program that streams in one direction has more for a superframe that isn't full soon. Nagle's rule as in
/// RFC 896, for superframes: it waits for an acknowledgment of what is under way, but no longer than a
/// millisecond. Not what a program has asked to go at once (TCP_NODELAY), and not where it waits for room.
bool Sender::gathers(uint32_t pending, const SendLimits& limits, Instant now) {
  constexpr Duration kMost = 1ms;
  constexpr uint64_t kStream = 1 << 20;  // bytes to which the peer has said nothing
  if (bytes_sent_ - sent_before_answer_ < kStream) return false;
  if (!limits.more_comes || nodelay || fin_queued_ || urgent) return false;
  if (pending + limits.header_length >= limits.max_superframe || in_flight() < 4 * mss_) return false;
  if (recovery_.state() != CongestionState::open || now - last_sent_ >= kMost) return false;
  pacing_deadline = last_sent_ + kMost;
  return true;
}

std::optional<Transmission> Sender::next_new(const SendLimits& limits, Instant now) {
  uint32_t pending = unsent();
  if (pending == 0 && (!fin_queued_ || fin_sent_)) {
    if (cwnd_room() > 0) flight_.rate().set_app_limited(in_flight());
    return std::nullopt;
  }
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
  if (usable < pending ? deferred(usable, limits, now) : gathers(pending, limits, now)) return std::nullopt;
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

bool Sender::record_retransmission(const Transmission& t, Instant now) {
  uint32_t length = t.length + (t.fin ? 1 : 0);
  SentSegment* segment = t.probe ? flight_.last(mss_) : flight_.next_lost();
  if (segment->length > length && !flight_.split(*segment, length)) return false;
  uint32_t segments = std::max((t.length + mss_ - 1) / mss_, 1u);
  if (t.probe) {
    flight_.mark_probed(*segment, now);
  } else {
    flight_.mark_retransmitted(*segment, mss_, now);
    recovery_.on_retransmitted(segments, now);
    if (segment == flight_.front()) rto_deadline = now + rtt.rto();
  }
  retransmitted_segments_ += segments;
  bytes_retransmitted_ += t.length;
  return true;
}

bool Sender::record(const Transmission& t, Instant now) {
  uint32_t length = t.length + (t.fin ? 1 : 0);
  bool idle = flight_.empty();
  if (!flight_.append(t.seq, length, t.fin, mss_, now)) return false;
  if (idle) congestion->on_transmit_start(now - last_sent_, now);
  snd_nxt += length;
  if (t.fin) fin_sent_ = true;
  if (t.length % mss_ != 0) {
    small_end_ = snd_nxt;
    small_sent_ = true;
  }
  bytes_sent_ += t.length;
  return true;
}

bool Sender::sent(const Transmission& t, Instant now) {
  if (t.retransmission ? !record_retransmission(t, now) : !record(t, now)) return false;
  recovery_.on_sent(t.length);
  // RFC 6298, 5.1.
  if (rto_deadline == kNever) rto_deadline = now + rtt.rto();
  if (t.probe) {
    recovery_.on_probe_sent(snd_nxt, t.retransmission);
    rto_deadline = now + rtt.rto();
  }
  schedule_probe(now);
  last_sent_ = now;
  note_usage();
  // The first window's worth goes as it comes (tcp_update_skb_after_send); so does all at a rate of zero.
  if (uint64_t rate = paced() ? pacing_rate() : kUnpaced;
      rate != kUnpaced && rate != 0 && bytes_sent_ > 10 * uint64_t{mss_}) {
    // A timer that fires late doesn't lower the rate: so much is made up for.
    constexpr Duration kCredit = 4 * TimerWheel::kTick;
    auto takes = Duration(
        static_cast<int64_t>(std::min<uint64_t>(uint64_t{t.length} * 1'000'000'000 / rate, 10'000'000'000)));
    paced_until_ = std::max(paced_until_, now - kCredit) + takes;
  }
  return true;
}

void Sender::on_mss_change(uint32_t mss, bool retransmit) {
  if (mss == mss_) return;
  mss_ = mss;
  congestion->set_mss(mss);
  if (retransmit) recovery_.repair_too_long(position(last_sent_));
}

Duration Sender::probe_interval() const {
  Duration interval = std::max(rtt.base_rto(), kMinRto);
  for (uint32_t i = 0; i < probe_back_off_ && interval < rtt.bounds.most; ++i) interval *= 2;
  return std::min(interval, rtt.bounds.most);
}

void Sender::update_persist(Instant now) {
  if (pacing_deadline != kNever) {
    persist_deadline = kNever;
    return;
  }
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
  rto_deadline = persist_deadline = pacing_deadline = kNever;
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
