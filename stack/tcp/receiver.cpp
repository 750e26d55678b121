#include "stack/tcp/receiver.h"

#include <algorithm>
#include <utility>

#include "stack/net/ipv4.h"

namespace ustack::tcp {

namespace {
/// SACK blocks that fit beside timestamps (RFC 2018, section 3).
constexpr uint32_t kToldRanges = 3;
}  // namespace

void Receiver::start(uint32_t mss, Instant now) {
  advertised_mss_ = mss;
  mss_estimate_ = std::min(mss, 536u);
  last_acked_ = rcv_nxt;
  last_window_ = rcv_wnd();
  window_rtt_end_ = rcv_nxt;
  tune_since_ = now;
  // Linux begins with ten segments. Where the first window holds fewer, silly window avoidance keeps one or
  // two of them from ever being read in the same round trip; then half of it is a reason to grow.
  uint32_t whole = rcv_wnd() / mss;
  tune_space_ = (whole >= 10 ? 10 : whole / 2) * mss;
  set_quick_ack(true);
}

void Receiver::set_quick_ack(bool on) {
  interactive_ = !on;
  quick_ = on ? quick_acks(kMaxQuickAcks) : 0;
  if (on && ack_deadline != kNever) ack_now_ = true;
}

/// Linux's tcp_incr_quickack: no more than half a window's worth, but two.
uint32_t Receiver::quick_acks(uint32_t most) const {
  return std::clamp(rcv_wnd() / (2 * std::max(mss_estimate_, 1u)), 2u, most);
}

/// Linux's tcp_enter_quickack_mode.
void Receiver::enter_quick_ack(uint32_t most) {
  quick_ = std::max(quick_, quick_acks(most));
  interactive_ = false;
  ack_timeout_ = kMinAckDelay;
}

/// RFC 3168, 6.1.3: ECE on all ACKs from a marked packet until CWR. Linux's tcp_ecn_accept_cwr and
/// tcp_ecn_check_ce.
void Receiver::note_ecn(const Segment& segment) {
  if (segment.flags.cwr) {
    echoing_ = false;
    // Its window may be as small as one segment.
    acknowledge_now();
  }
  constexpr uint32_t kAtOnce = 2;
  switch (segment.tos & ecn::kMask) {
    case ecn::kNotEct:
      // After others that were ECN-capable it is probably a retransmission.
      if (ecn_seen_) enter_quick_ack(kAtOnce);
      break;
    case ecn::kCe:
      if (!echoing_) enter_quick_ack(kAtOnce);
      echoing_ = ecn_seen_ = true;
      break;
    default:
      ecn_seen_ = true;
  }
}

/// Linux's tcp_event_data_recv: how long the ACK may wait follows the gaps between arrivals.
void Receiver::note_arrival(const Segment& segment, Instant now) {
  uint32_t size = segment.segment_size != 0 ? segment.segment_size : segment.payload_size();
  if (size > mss_estimate_) mss_estimate_ = std::min(size, std::max(advertised_mss_, 536u));
  if (segment.flags.psh) pushed_ = true;
  if (ack_timeout_ == Duration(0)) {
    ack_timeout_ = kMinAckDelay;
  } else {
    Duration gap = now - last_data_;
    if (gap <= kMinAckDelay / 2) {
      ack_timeout_ = ack_timeout_ / 2 + kMinAckDelay / 2;
    } else if (gap < ack_timeout_) {
      ack_timeout_ = ack_timeout_ / 2 + gap;
    } else if (gap > kMaxAckDelay) {
      // A sender that starts anew has no use for a delayed ACK: it is in slow start.
      interactive_ = false;
      quick_ = quick_acks(kMaxQuickAcks);
    }
  }
  last_data_ = now;
}

void Receiver::measure_rtt(Instant now) {
  // tcp_rcv_rtt_measure: a window's worth arrives in one round trip at least.
  if (window_rtt_since_ == Instant{}) {
    window_rtt_since_ = now;
    window_rtt_end_ = rcv_nxt + rcv_wnd();
    return;
  }
  if (rcv_nxt < window_rtt_end_) return;
  Duration sample = now - window_rtt_since_;
  if (window_rtt_ == Duration(0) || sample < window_rtt_)
    window_rtt_ = sample;
  else
    window_rtt_ += (sample - window_rtt_) / 8;
  window_rtt_since_ = now;
  window_rtt_end_ = rcv_nxt + rcv_wnd();
}

Receiver::Outcome Receiver::on_segment(Segment& segment, Instant now) {
  Outcome outcome;
  if (segment.seq_length() == 0) return outcome;
  if (segment.seq < rcv_nxt) {
    // Some of it has arrived before.
    report_duplicate(segment.seq, min(segment.end_seq(), rcv_nxt));
    if (segment.end_seq() <= rcv_nxt) {
      outcome.duplicate = true;
      acknowledge_now();
      return outcome;
    }
  }
  // RFC 9293, 3.10.7.4: "tailored to start at RCV.NXT and be within the window".
  // A FIN needs no room, so it is taken even where the window is closed (Linux's tcp_data_queue).
  bool bare_fin = segment.flags.fin && segment.payload_size() == 0 && segment.seq == rcv_nxt;
  segment.trim_to_window(rcv_nxt, bare_fin ? std::max(rcv_wnd(), 1u) : rcv_wnd());
  if (segment.seq_length() == 0) {
    outcome.dropped = true;
    acknowledge_now();
    return outcome;
  }
  note_arrival(segment, now);
  if (ecn && segment.payload_size() > 0) note_ecn(segment);
  bool fin = segment.flags.fin;
  uint32_t length = segment.payload_size();
  SeqNum before = rcv_nxt;

  bool in_order = segment.seq == rcv_nxt;
  if (in_order && !buffer.append(std::move(segment.payload))) {
    outcome.dropped = true;
    acknowledge_now();
    return outcome;
  }
  if (in_order) {
    rcv_nxt += length;
    bytes_received_ += length;
    outcome.readable = length;
    outcome.fin = fin;
    if (!reassembly_.empty()) {
      Reassembly::Extracted extracted = reassembly_.extract(rcv_nxt, buffer);
      rcv_nxt += extracted.bytes;
      bytes_received_ += extracted.bytes;
      outcome.readable += extracted.bytes;
      outcome.fin |= extracted.fin;
      // RFC 5681, 4.2: an ACK at once when a gap is filled.
      if (reassembly_.empty()) acknowledge_now();
    }
    if (outcome.fin) {
      ++rcv_nxt;
      fin_received_ = true;
      reassembly_.clear();
      acknowledge_soon(now);
    }
    measure_rtt(now);
  } else {
    // RFC 9293, 3.10.7.4 lets us hold it; RFC 5681, 4.2: a duplicate ACK at once, or one for several.
    outcome.out_of_order = true;
    last_disorder_ = now;
    uint32_t ranges = reassembly_.range_count();
    Reassembly::Inserted inserted = reassembly_.insert(segment.seq, std::move(segment.payload), fin,
                                                       {.true_size = std::max(limit, 4096u)});
    outcome.dropped = inserted.dropped;
    outcome.pruned = inserted.pruned;
    if (inserted.duplicate) report_duplicate(inserted.duplicate->start, inserted.duplicate->end);
    // What the next ACK could not tell beside the rest must not wait for it.
    bool crowded = compressed_ > 0 && reassembly_.range_count() > std::max(ranges, kToldRanges);
    if (outcome.dropped || inserted.duplicate || crowded) acknowledge_now();
  }
  if (rcv_nxt != before || outcome.out_of_order) schedule_ack(now);
  return outcome;
}

void Receiver::acknowledge_soon(Instant now) {
  if (!acks_wait) return acknowledge_now();
  ack_soon_ = true;
  // For a program that is busy.
  if (ack_deadline == kNever) ack_deadline = now + kMinAckDelay;
}

/// Linux's __tcp_ack_snd_check.
void Receiver::schedule_ack(Instant now) {
  uint32_t unacknowledged = rcv_nxt - last_acked_;
  // RFC 9293, 3.8.6.3 (SHLD-18): an ACK for at least every second full-sized segment; and only if the window
  // can move with it, else the reader's own update comes soon.
  if (unacknowledged > mss_estimate_ && offer() >= rcv_wnd()) ack_now_ = true;
  if (quick_ack()) acknowledge_soon(now);
  if (ack_now_) return;
  if (!reassembly_.empty()) {
    if (!compress_ack(now)) ack_now_ = true;
    return;
  }
  if (ack_deadline != kNever) return;
  // RFC 9293, 3.8.6.3 (MUST-40): less than 0.5 s.
  Duration delay = std::min(std::max(ack_timeout_, kMinAckDelay), max_ack_delay);
  ack_deadline = now + delay;
}

/// Linux's SACK compression (__tcp_ack_snd_check): three duplicate ACKs start the peer's recovery; of the
/// rest, one for many says as much. False: this one has to go at once.
bool Receiver::compress_ack(Instant now) {
  if (compressed_ >= compress_most) return false;
  if (duplicated_ != rcv_nxt) {
    duplicated_ = rcv_nxt;
    duplicate_acks_ = 0;
  }
  constexpr uint8_t kRecoveryThreshold = 3;
  if (duplicate_acks_ < kRecoveryThreshold) {
    ++duplicate_acks_;
    return false;
  }
  ++compressed_;
  ack_deadline = std::min(ack_deadline, now + std::min(compress_delay, round_trip() / 20));
  return true;
}

/// The smaller of both sides' estimates; zero: unknown.
Duration Receiver::round_trip() const {
  if (srtt == Duration(0) || window_rtt_ == Duration(0)) return std::max(srtt, window_rtt_);
  return std::min(srtt, window_rtt_);
}

bool Receiver::on_ack_timer() {
  ack_deadline = kNever;
  ack_now_ = true;
  if (compressed_ > 0) return false;
  if (!interactive_) {
    ack_timeout_ = std::min(ack_timeout_ * 2, kMaxAckDelay);
  } else {
    // The answer that should have carried it has not come.
    interactive_ = false;
    ack_timeout_ = kMinAckDelay;
  }
  return true;
}

uint32_t Receiver::offer() const {
  uint32_t free = free_window(limit, true_size());
  uint32_t whole = free_window(limit, 0);
  // Linux's __tcp_select_window.
  if (pressed && free < whole / 2) free = std::min(free, 4 * advertised_mss_);
  return select_receive_window({.free = free,
                                .buffer = whole,
                                .mss = mss_estimate_,
                                .promised = rcv_wnd(),
                                .scale = rcv_wscale,
                                .clamp = window_clamp});
}

uint32_t Receiver::window_to_send() {
  uint32_t window = offer();
  // After a FIN nothing more can come; the promise stands as it is.
  if (rcv_nxt + window > rcv_adv) rcv_adv = rcv_nxt + window;
  last_window_ = window;
  return window;
}

uint8_t Receiver::on_ack_sent(Instant) {
  uint32_t segments = std::max((rcv_nxt - last_acked_) / std::max(mss_estimate_, 1u), 1u);
  quick_ -= std::min(quick_, segments);
  if (quick_ == 0 && ack_timeout_ == Duration(0)) ack_timeout_ = kMinAckDelay;
  last_acked_ = rcv_nxt;
  ack_now_ = ack_soon_ = false;
  ack_deadline = kNever;
  pushed_ = false;
  duplicate_.reset();
  return std::exchange(compressed_, uint8_t{0});
}

void Receiver::on_data_sent(Instant now) {
  // Linux's tcp_event_data_sent: an answer within the time that its ACK may wait.
  if (last_data_ != Instant{} && now - last_data_ < std::max(ack_timeout_, kMinAckDelay)) interactive_ = true;
}

uint8_t Receiver::sack_blocks(std::span<SackBlock> out) {
  uint8_t count = 0;
  if (duplicate_ && !out.empty()) out[count++] = *duplicate_;
  return static_cast<uint8_t>(count + reassembly_.sack_blocks(out.subspan(count)));
}

bool Receiver::on_read(uint32_t n, Instant) {
  tune_read_ += n;
  if (fin_received_) return false;
  if (ack_deadline != kNever && !ack_soon_) {
    // More than a segment's worth is not acknowledged, or the peer has pushed and all of it is read.
    if (rcv_nxt - last_acked_ > mss_estimate_) return true;
    if (n > 0 && pushed_ && !interactive_ && buffer.empty()) return true;
  }
  // RFC 9293, 3.8.6.2.2; Linux's rule: the window at least doubles, and is not large anyway.
  uint32_t now_offered = rcv_wnd();
  if (n == 0 || 2 * uint64_t{now_offered} > std::min(window_clamp, free_window(limit, 0))) return false;
  uint32_t window = offer();
  return window > 0 && window >= 2 * now_offered;
}

void Receiver::tune(uint32_t largest, Instant now) {
  Duration rtt = round_trip();
  if (rtt == Duration(0) || now - tune_since_ < rtt) return;
  if (tune_read_ > tune_space_) {
    if (!limit_locked) {
      // Twice what was read, so that the sender's slow start is not held back, some more for bursts, and more
      // still when it grows (Linux's tcp_rcv_space_adjust).
      uint64_t window = 2 * uint64_t{tune_read_} + 16 * uint64_t{advertised_mss_};
      if (tune_space_ > 0) window += 2 * window * (tune_read_ - tune_space_) / tune_space_;
      auto wanted = static_cast<uint32_t>(std::min<uint64_t>(window * 2, largest));
      if (wanted > limit) limit = wanted;
    }
    tune_space_ = tune_read_;
  }
  tune_read_ = 0;
  tune_since_ = now;
}

void Receiver::clear() {
  buffer.clear();
  reassembly_.clear();
  ack_deadline = kNever;
  ack_now_ = ack_soon_ = false;
}

LogLine& operator<<(LogLine& line, const Receiver& receiver) {
  return line << "nxt " << receiver.rcv_nxt.value() << " wnd " << receiver.rcv_wnd() << " buffered "
              << receiver.buffer.size();
}

}  // namespace ustack::tcp
