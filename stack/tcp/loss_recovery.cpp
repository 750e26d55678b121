#include "stack/tcp/loss_recovery.h"

#include <algorithm>

namespace ustack::tcp {

std::string_view name_of(CongestionState state) {
  constexpr std::string_view kNames[] = {"open", "disorder", "cwr", "recovery", "loss"};
  return kNames[static_cast<size_t>(state)];
}

LossRecovery::Rules LossRecovery::Rules::from(const Settings& settings) {
  // ip-sysctl, tcp_recovery: 0x1 RACK, 0x2 its window is static, 0x4 without the duplicate threshold.
  return {.rack = (settings.tcp_recovery & 1) != 0,
          .static_window = (settings.tcp_recovery & 2) != 0,
          .no_threshold = (settings.tcp_recovery & 4) != 0,
          .loss_probes = settings.tcp_early_retrans >= 3,
          .frto = settings.tcp_frto != 0,
          .reordering = static_cast<uint32_t>(settings.tcp_reordering),
          .max_reordering = static_cast<uint32_t>(settings.tcp_max_reordering)};
}

void LossRecovery::set_rules(const Rules& rules) {
  rules_ = rules;
  reordering_ = rules.reordering;
}

void LossRecovery::enter(CongestionState state, SeqNum nxt) {
  state_ = state;
  recover_ = nxt;
}

bool LossRecovery::anything_retransmitted() const {
  const SentSegment* head = flight_.front();
  return flight_.retransmitted() > 0 || (head != nullptr && head->transmissions > 1);
}

bool LossRecovery::wants_probe(bool sack) const {
  return rules_.loss_probes && sack && !flight_.empty() &&
         (state_ == CongestionState::open || state_ == CongestionState::cwr);
}

void LossRecovery::on_retransmitted(uint32_t segments, Instant now) {
  total_retransmitted_ += segments;
  if (!first_retransmitted_) first_retransmitted_ = now;
  undo_left_ = std::max(undo_left_, 0) + static_cast<int32_t>(segments);
}

void LossRecovery::on_probe_sent(SeqNum nxt, bool retransmission) {
  probe_end_ = nxt;
  probe_retransmission_ = retransmission;
  if (retransmission) ++total_retransmitted_;
}

/// The first time in a window that congestion is found.
void LossRecovery::reduce(CongestionCause cause, const Position& at) {
  // Linux takes cwnd for RFC 5681's FlightSize: it grows only while it is used, and a tail's flight says
  // little.
  uint32_t cwnd = congestion_->cwnd();
  congestion_->on_congestion_event(cause, cwnd, at.now);
  reduction_.start(cwnd);
  reduced_ = untold_ = true;
  probe_end_.reset();
}

void LossRecovery::end_reduction(const Position& at) {
  if (reduced_) congestion_->on_recovery_exit(in_flight(), at.now);
  reduced_ = false;
}

void LossRecovery::apply_reduction(uint32_t delivered, bool safe, bool force, uint32_t mss) {
  if (!reducing() || !reduced_ || delivered == 0 || congestion_->controls_cwnd()) return;
  congestion_->set_cwnd(reduction_.cwnd({.delivered = delivered,
                                         .in_flight = in_flight(),
                                         .ssthresh = congestion_->ssthresh(),
                                         .mss = mss,
                                         .safe = safe,
                                         .force = force}));
}

/// RFC 5681, 3.2; RFC 6675, 5, step 4; RFC 8985, 6.2.
void LossRecovery::enter_recovery(bool ece, const Position& at, RecoveryEvents& events) {
  events.add(at.sack ? RecoveryEvent::sack_recovery : RecoveryEvent::reno_recovery);
  if (!anything_retransmitted()) first_retransmitted_.reset();
  undo_restores_ = false;
  begin_undo(at.una);
  if (!reducing()) {
    undo_restores_ = !ece;
    reduce(CongestionCause::loss, at);
  }
  enter(CongestionState::recovery, at.nxt);
  no_recovery_before_ = at.nxt;
  hold_ = frto_ = false;
}

/// Linux's tcp_try_keep_open.
void LossRecovery::keep_open(const Position& at) {
  bool left = flight_.sacked() + flight_.lost() + reno_sacked_ > 0 || anything_retransmitted();
  CongestionState state = left ? CongestionState::disorder : CongestionState::open;
  if (state != state_) enter(state, at.nxt);
}

// --- Taking it back ---

void LossRecovery::begin_undo(SeqNum una) {
  undo_from_ = una;
  bool probed = probe_end_ && probe_retransmission_;
  undo_left_ = static_cast<int32_t>(flight_.retransmitted_segments()) + (probed ? 1 : 0);
  if (undo_left_ == 0) undo_left_ = -1;
}

/// Eifel (RFC 3522): what was acknowledged was sent before anything was retransmitted, so the original has
/// arrived. Linux's tcp_packet_delayed.
bool LossRecovery::original_arrived(const AckTally& tally) const {
  if (!first_retransmitted_) return true;
  constexpr Duration kTick = 1ms;
  return tally.echoed && *tally.echoed + kTick <= *first_retransmitted_;
}

/// Or D-SACK (RFC 3708): all that was retransmitted had arrived before.
bool LossRecovery::may_undo(const AckTally& tally) const {
  return undo_from_ && (undo_left_ == 0 || original_arrived(tally));
}

/// RFC 4015: cwnd, ssthresh and RTO as before.
void LossRecovery::undo(bool unmark, const Position& at) {
  if (unmark) flight_.unmark_lost();
  if (undo_restores_) {
    congestion_->on_undo(at.now);
    reduced_ = false;
  }
  undo_from_.reset();
  rack_.look_again();
}

bool LossRecovery::undo_by_dsack(const Position& at, RecoveryEvents& events) {
  if (!undo_from_ || undo_left_ != 0) return false;
  rack_.on_needless_recovery();
  undo(false, at);
  events.add(RecoveryEvent::dsack_undo);
  return true;
}

/// A partial ACK by the original: "plain luck" (Linux's tcp_try_undo_partial). True: nothing more is to be
/// retransmitted as long as retransmissions are out.
bool LossRecovery::undo_partial(const Arrival& arrival, RecoveryEvents& events) {
  if (!undo_from_ || !original_arrived(arrival.tally)) return false;
  note_reordering(arrival.prior_una, true, arrival.at, events);
  if (flight_.retransmitted() > 0) return true;
  if (!anything_retransmitted()) first_retransmitted_.reset();
  undo(true, arrival.at);
  events.add(RecoveryEvent::partial_undo);
  keep_open(arrival.at);
  return false;
}

bool LossRecovery::undo_loss(const Arrival& arrival, bool by_frto, RecoveryEvents& events) {
  if (!by_frto && !may_undo(arrival.tally)) return false;
  undo(true, arrival.at);
  rtt_.undo_back_off();
  events.add(RecoveryEvent::loss_undo);
  if (by_frto) events.add(RecoveryEvent::spurious_rto);
  if (by_frto || arrival.at.sack) {
    end_reduction(arrival.at);
    enter(CongestionState::open, arrival.at.nxt);
  }
  return true;
}

/// All that was sent before the loss was found has been acknowledged. Linux's tcp_try_undo_recovery.
void LossRecovery::end_recovery(const Arrival& arrival, RecoveryEvents& events) {
  if (may_undo(arrival.tally)) {
    undo(false, arrival.at);
    bool loss = state_ == CongestionState::loss;
    if (loss) rtt_.undo_back_off();
    events.add(loss ? RecoveryEvent::loss_undo : RecoveryEvent::full_undo);
  } else {
    rack_.on_recovery_end();
  }
  end_reduction(arrival.at);
  enter(CongestionState::open, arrival.at.nxt);
  duplicate_acks_ = reno_sacked_ = 0;
}

// --- Finding losses ---

/// Linux's tcp_check_sack_reordering: `low` has arrived after what lies `highest_sacked` above it.
void LossRecovery::note_reordering(SeqNum low, bool by_timestamp, const Position& at,
                                   RecoveryEvents& events) {
  SeqNum high = flight_.highest_sacked(at.una);
  if (low >= high) return;
  uint32_t metric = (high - low + at.mss - 1) / at.mss;
  if (metric > reordering_) reordering_ = std::min(metric, std::max(rules_.max_reordering, reordering_));
  rack_.on_reordering();
  events.add(by_timestamp ? RecoveryEvent::timestamp_reorder : RecoveryEvent::sack_reorder);
}

/// Without SACK each duplicate ACK stands for a segment that has arrived (RFC 6582, 3.2, steps 3 and 5 in
/// terms of what is in flight instead of an inflated cwnd).
uint32_t LossRecovery::count_without_sack(const Arrival& arrival, RecoveryEvents& events) {
  uint32_t delivered = arrival.tally.bytes;
  uint32_t outstanding = flight_.outstanding();
  uint32_t unit = std::max(outstanding / std::max(flight_.outstanding_segments(), 1u), 1u);
  uint32_t before = reno_sacked_;
  bool repairing_loss = state_ == CongestionState::loss;
  if (arrival.advanced) {
    // The hole that was filled was never counted.
    uint32_t counted = delivered > arrival.at.mss ? delivered - arrival.at.mss : 0;
    delivered = std::max(delivered > before ? delivered - before : 0, std::min(delivered, arrival.at.mss));
    reno_sacked_ -= state_ == CongestionState::recovery ? std::min(counted, before) : before;
  } else if (arrival.duplicate && (!repairing_loss || arrival.at.nxt > recover_)) {
    reno_sacked_ += unit;
    delivered = unit;
  }
  // More duplicates than there are segments that could cause them: the network reorders or duplicates
  // (tcp_check_reno_reordering).
  uint32_t holes = std::min(std::max(flight_.lost(), unit), outstanding);
  if (reno_sacked_ + holes > outstanding && !flight_.empty()) {
    reno_sacked_ = outstanding - holes;
    reordering_ =
        std::clamp(flight_.outstanding_segments(), reordering_, std::max(rules_.max_reordering, reordering_));
    events.add(RecoveryEvent::reno_reorder);
    if (!arrival.advanced) delivered = reno_sacked_ > before ? reno_sacked_ - before : 0;
  }
  if (flight_.empty()) reno_sacked_ = 0;
  return delivered;
}

void LossRecovery::find_losses(const Arrival& arrival) {
  const Position& at = arrival.at;
  if (flight_.empty()) return;
  if (!at.sack) {
    // RFC 6582, 3.2, step 2: not for duplicates that the last recovery's own retransmissions have caused.
    bool fresh = !no_recovery_before_ || at.una > *no_recovery_before_;
    bool third = state_ < CongestionState::recovery && duplicate_acks_ >= reordering_ && fresh;
    // Step 4: a partial acknowledgment, the next hole is lost too.
    bool partial = state_ == CongestionState::recovery && arrival.advanced;
    if (third || partial) flight_.mark_head_lost(at.mss);
  } else if (rules_.rack) {
    find_by_time(at);
  } else {
    flight_.mark_lost_by_sack(reordering_);
    // What was sent a quarter of a round trip after a retransmission has overtaken it.
    if (flight_.retransmitted() > 0) flight_.mark_lost_retransmissions(rack_.newest().at - rtt_.srtt() / 4);
  }
}

/// RFC 8985, 6.2, steps 4 and 5.
void LossRecovery::find_by_time(const Position& at) {
  if (!rack_.take_advanced()) return;
  Duration window =
      rack_.window({.repairing = state_ >= CongestionState::recovery,
                    .threshold_reached = !rules_.no_threshold && flight_.sacked_segments() >= reordering_,
                    .min_rtt = rtt_.minimum(),
                    .srtt = rtt_.srtt()});
  Duration wait = flight_.mark_lost_by_time(rack_.newest(), rack_.rtt() + window, at.now);
  // What falls due within a millisecond is found in one go.
  constexpr Duration kSlack = 1ms;
  reordering_deadline_ = wait > Duration(0) ? at.now + wait + kSlack : kNever;
}

// --- What comes in ---

std::span<const SackBlock> LossRecovery::check_dsack(std::span<const SackBlock> blocks, SeqNum ack,
                                                     uint32_t max_window, Arrival& arrival,
                                                     RecoveryEvents& events) {
  const SackBlock& first = blocks[0];
  // RFC 2883, section 4: it lies below the ACK, or within the block after it.
  bool below = first.start < ack;
  bool inside = !below && blocks.size() > 1 && blocks[1].start <= first.start && first.end <= blocks[1].end;
  auto rest = below || inside ? blocks.subspan(1) : blocks;
  for (const SackBlock& block : rest)
    if (block.start >= block.end || block.end > arrival.at.nxt) events.add(RecoveryEvent::sack_discarded);
  if (!below && !inside) return rest;

  events.add(below ? RecoveryEvent::dsack_received : RecoveryEvent::dsack_out_of_order_received);
  uint32_t mss = arrival.at.mss;
  uint32_t length = first.start < first.end ? first.end - first.start : 0;
  uint32_t segments = (length + mss - 1) / mss;
  bool of_probe = probe_end_ && length <= mss && *probe_end_ == first.end;
  dsack_duplicates_ += segments;
  // RFC 3708: more duplicates than retransmissions are the network's, or an attack's.
  if (segments == 0 || length > max_window || dsack_duplicates_ > total_retransmitted_) {
    events.add(RecoveryEvent::dsack_dubious);
    return rest;
  }
  if (!of_probe) rack_.on_dsack();
  arrival.dsack = true;
  arrival.dsack_of_probe = of_probe;
  arrival.duplicate_segments = segments;
  events.duplicate_segments += segments;
  if (!undo_from_) {
    if (below) events.add(RecoveryEvent::dsack_ignored_no_undo);
  } else if (first.end <= *undo_from_) {
    events.add(RecoveryEvent::dsack_ignored_old);
  } else if (undo_left_ > 0) {
    // What is acknowledged is forgotten; what is not must have been retransmitted.
    if (first.end > arrival.prior_una) segments = flight_.repeated_segments(first.start, first.end);
    undo_left_ = std::max(undo_left_ - static_cast<int32_t>(segments), 0);
  }
  return rest;
}

/// RFC 8985, 7.4.
void LossRecovery::process_probe(const Arrival& arrival, RecoveryEvents& events) {
  if (!probe_end_ || arrival.at.una < *probe_end_) return;
  if (!probe_retransmission_ || arrival.dsack_of_probe) {
    // New data was acknowledged; or the original has arrived, and the probe too.
    probe_end_.reset();
  } else if (arrival.at.una > *probe_end_) {
    // Nothing but the probe can have filled the gap: the tail was lost, and that is congestion.
    if (!reducing()) {
      reduce(CongestionCause::loss, arrival.at);
      end_reduction(arrival.at);
      keep_open(arrival.at);
    }
    probe_end_.reset();
    events.add(RecoveryEvent::loss_probe_recovery);
  } else if (arrival.duplicate && !arrival.tally.sacked) {
    // Both have arrived.
    probe_end_.reset();
  }
}

/// RFC 5682 after a time-out, and its end. Linux's tcp_process_loss.
void LossRecovery::repair_timeout(const Arrival& arrival, RecoveryEvents& events) {
  const Position& at = arrival.at;
  bool recovered = at.una >= recover_;
  if (arrival.advanced && undo_loss(arrival, false, events)) return;
  if (frto_) {
    // Step 3.b: something that was never sent again has arrived, so not all was lost.
    if (arrival.tally.original && undo_loss(arrival, true, events)) return;
    if (at.nxt > recover_) {
      // Step 3.a: what was sent since arrives, what was sent before doesn't: the loss is real.
      if (arrival.tally.sacked || arrival.duplicate) frto_ = false;
    } else if (arrival.advanced && !recovered) {
      // Step 2.b: new data tells.
      if (arrival.more) {
        hold_ = true;
        return;
      }
      frto_ = false;
    }
  }
  if (recovered) end_recovery(arrival, events);
}

/// Linux's tcp_fastretrans_alert.
void LossRecovery::process(const Arrival& arrival, RecoveryEvents& events) {
  const Position& at = arrival.at;
  if (arrival.ece) undo_restores_ = false;
  // RFC 2018, section 8: what was SACKed isn't acknowledged when its turn has come.
  const SentSegment* head = flight_.front();
  reneged_ = arrival.advanced && head != nullptr && head->sacked;
  if (reneged_) return;

  if (state_ == CongestionState::open) {
    first_retransmitted_.reset();
  } else if (at.una >= recover_) {
    if (state_ == CongestionState::recovery) {
      end_recovery(arrival, events);
    } else if (state_ == CongestionState::cwr && at.una > recover_) {
      // Something above must have been acknowledged, so that the peer has seen our CWR (RFC 3168, 6.1.2).
      end_reduction(at);
      enter(CongestionState::open, at.nxt);
    }
  }

  if (state_ == CongestionState::recovery) {
    if (arrival.advanced && undo_partial(arrival, events)) {
      hold_ = true;
      return;
    }
    if (undo_by_dsack(at, events)) keep_open(at);
    find_losses(arrival);
    if (state_ != CongestionState::recovery && flight_.lost() > 0) enter_recovery(arrival.ece, at, events);
    return;
  }
  if (state_ == CongestionState::loss) {
    uint64_t lost_before = flight_.lost_retransmissions();
    repair_timeout(arrival, events);
    find_losses(arrival);
    bool lost_again = flight_.lost_retransmissions() != lost_before;
    if (state_ == CongestionState::loss && !lost_again) return;
  }
  if (state_ <= CongestionState::disorder) undo_by_dsack(at, events);
  find_losses(arrival);
  if (flight_.lost() > 0) {
    enter_recovery(arrival.ece, at, events);
    return;
  }
  if (!anything_retransmitted()) first_retransmitted_.reset();
  if (arrival.ece) on_congestion_echo(at);
  if (state_ <= CongestionState::disorder) keep_open(at);
}

uint32_t LossRecovery::on_ack(const Arrival& arrival, RecoveryEvents& events) {
  const AckTally& tally = arrival.tally;
  uint64_t lost_before = flight_.rate().lost();
  uint64_t lost_again_before = flight_.lost_retransmissions();
  uint32_t delivered = tally.bytes;
  hold_ = false;
  if (arrival.at.sack) {
    rack_.on_delivered(tally);
    if (tally.overtaken && (state_ != CongestionState::loss || undo_from_))
      note_reordering(*tally.overtaken, false, arrival.at, events);
    if (!rules_.static_window && tally.rate.valid)
      rack_.adapt_window(tally.rate.stamp.delivered, flight_.rate().delivered());
    delivered += arrival.duplicate_segments * arrival.at.mss;
  } else {
    delivered = count_without_sack(arrival, events);
  }
  bool duplicate = arrival.duplicate && !arrival.dsack;
  if (duplicate) ++duplicate_acks_;
  if (arrival.advanced) duplicate_acks_ = 0;

  process_probe(arrival, events);
  if (state_ != CongestionState::open || duplicate || tally.sacked || arrival.dsack || arrival.ece)
    process(arrival, events);
  if (flight_.empty()) reordering_deadline_ = kNever;
  bool safe = arrival.advanced && flight_.rate().lost() == lost_before;
  bool partial = !arrival.at.sack && arrival.advanced && state_ == CongestionState::recovery;
  apply_reduction(delivered, safe, partial, arrival.at.mss);
  events.lost_retransmissions += static_cast<uint32_t>(flight_.lost_retransmissions() - lost_again_before);
  return delivered;
}

void LossRecovery::on_timeout(const Position& at, bool again, RecoveryEvents& events) {
  bool disordered = state_ == CongestionState::disorder || flight_.sacked() + reno_sacked_ > 0;
  if (!again) {
    if (state_ == CongestionState::recovery)
      events.add(at.sack ? RecoveryEvent::sack_recovery_failed : RecoveryEvent::reno_recovery_failed);
    else if (state_ == CongestionState::loss)
      events.add(RecoveryEvent::loss_failed);
    else if (disordered)
      events.add(at.sack ? RecoveryEvent::sack_failed : RecoveryEvent::reno_failed);
  }
  uint64_t lost_again_before = flight_.lost_retransmissions();
  // Linux's tcp_enter_loss: the degree of reordering was over-estimated.
  if (state_ <= CongestionState::disorder && flight_.sacked_segments() >= rules_.reordering)
    reordering_ = std::min(reordering_, rules_.reordering);
  // What was sent less than a round trip ago may well arrive (RFC 8985, 6.3: RACK_mark_losses_on_RTO).
  Duration patience = rules_.rack && at.sack ? rack_.rtt() : Duration(0);
  if (flight_.front()->sacked) {
    // RFC 2018, section 8: the data receiver has discarded what it had SACKed, if the first is among it.
    events.add(RecoveryEvent::sack_reneging);
    flight_.forget_sacks();
    patience = Duration(0);
  }
  flight_.mark_timed_out(patience, at.now);
  duplicate_acks_ = reno_sacked_ = 0;

  bool fresh = state_ < CongestionState::recovery;
  bool counted =
      state_ > CongestionState::disorder && recover_ > at.una && !(state_ == CongestionState::loss && !again);
  if (!counted) {
    undo_restores_ = true;
    begin_undo(at.una);
  }
  probe_end_.reset();
  congestion_->on_rto(congestion_->cwnd(), counted, at.now);
  // RFC 5681, 3.1: the loss window.
  congestion_->set_cwnd(in_flight() + at.mss);
  reduced_ = untold_ = true;
  enter(CongestionState::loss, at.nxt);
  no_recovery_before_ = at.nxt;
  // RFC 5682, 2.1, step 1.
  frto_ = rules_.frto && (fresh || again);
  hold_ = reneged_ = false;
  reordering_deadline_ = kNever;
  events.lost_retransmissions += static_cast<uint32_t>(flight_.lost_retransmissions() - lost_again_before);
}

void LossRecovery::on_reordering_timer(const Position& at, RecoveryEvents& events) {
  reordering_deadline_ = kNever;
  uint64_t lost_before = flight_.rate().lost();
  uint64_t lost_again_before = flight_.lost_retransmissions();
  rack_.look_again();
  find_by_time(at);
  if (flight_.rate().lost() == lost_before) return;
  events.lost_retransmissions += static_cast<uint32_t>(flight_.lost_retransmissions() - lost_again_before);
  if (state_ == CongestionState::recovery) return;
  enter_recovery(false, at, events);
  apply_reduction(1, false, false, at.mss);
}

void LossRecovery::repair_too_long(const Position& at) {
  flight_.mark_longer_lost(at.mss);
  if (flight_.lost() == 0) return;
  // No congestion: cwnd stays (tcp_simple_retransmit).
  if (state_ == CongestionState::loss) return;
  end_reduction(at);
  enter(CongestionState::loss, at.nxt);
  undo_from_.reset();
  frto_ = hold_ = false;
}

void LossRecovery::on_congestion_echo(const Position& at) {
  if (state_ >= CongestionState::cwr) return;
  undo_restores_ = false;
  undo_from_.reset();
  reduce(CongestionCause::ecn, at);
  enter(CongestionState::cwr, at.nxt);
}

}  // namespace ustack::tcp
