#include "stack/tcp/flight.h"

#include <algorithm>

namespace ustack::tcp {

void Flight::count(const SentSegment& segment, int sign) {
  Volume size{segment.length, segment.segments()};
  auto add = [&](Volume& sum) {
    sum.bytes += static_cast<uint32_t>(sign) * size.bytes;
    sum.segments += static_cast<uint32_t>(sign) * size.segments;
  };
  add(outstanding_);
  if (segment.sacked) add(sacked_);
  if (segment.lost) add(lost_);
  if (segment.retransmitted) add(retransmitted_);
  if (segment.awaiting()) awaiting_ += static_cast<uint32_t>(sign);
  count_ += static_cast<uint32_t>(sign);
}

class Flight::Change {
 public:
  Change(Flight& flight, SentSegment& segment) : flight_(flight), segment_(segment) {
    flight_.count(segment_, -1);
  }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;
  ~Change() { flight_.count(segment_, +1); }

 private:
  Flight& flight_;
  SentSegment& segment_;
};

bool Flight::append(SeqNum seq, uint32_t length, bool fin, uint32_t mss, Instant now) {
  SentSegment* segment = pool_.create();
  if (segment == nullptr) return false;
  bool idle = segments_.empty();
  segment->seq = seq;
  segment->length = length;
  segment->mss = mss;
  segment->fin = fin;
  segment->sent_at = now;
  segment->number = ++transmissions_;
  segments_.push_back(*segment);
  in_order_.push_back(*segment);
  count(*segment, +1);
  segment->rate = rate_.on_sent(idle, in_flight(), now);
  return true;
}

void Flight::send_again(SentSegment& segment, Instant now) {
  segment.sent_at = now;
  segment.number = ++transmissions_;
  if (segment.transmissions < 255) ++segment.transmissions;
  in_order_.remove(segment);
  in_order_.push_back(segment);
  segment.rate = rate_.on_sent(false, in_flight(), now);
}

void Flight::mark_retransmitted(SentSegment& segment, uint32_t mss, Instant now) {
  {
    Change change(*this, segment);
    segment.retransmitted = true;
    segment.mss = mss;
  }
  send_again(segment, now);
  if (lost_hint_ == &segment) lost_hint_ = segments_.next(segment);
}

void Flight::mark_probed(SentSegment& segment, Instant now) { send_again(segment, now); }

bool Flight::split(SentSegment& segment, uint32_t length) {
  SentSegment* rest = pool_.create();
  if (rest == nullptr) return false;
  {
    Change change(*this, segment);
    *rest = segment;  // but not its place in the lists
    rest->seq = segment.seq + length;
    rest->length = segment.length - length;
    segment.length = length;
    segment.fin = false;
  }
  segments_.insert_after(segment, *rest);
  if (static_cast<ListHook<TransmissionOrder>&>(segment).linked()) in_order_.insert_after(segment, *rest);
  if (highest_sacked_ == &segment) highest_sacked_ = rest;
  count(*rest, +1);
  return true;
}

/// `segment`, or its first `bytes`, has arrived.
void Flight::note(const SentSegment& segment, uint32_t bytes, bool cumulative, AckTally& tally) {
  bool repeated = segment.transmissions > 1;
  TransmitMark mark{segment.number, segment.seq + bytes, segment.sent_at};
  tally.bytes += bytes;
  rate_.on_delivered(bytes);
  DeliveryRate::offer(tally.rate, mark, segment.rate, repeated);
  if (repeated) {
    tally.retransmitted = true;
  } else {
    if (!tally.first_sent || segment.sent_at < *tally.first_sent) tally.first_sent = segment.sent_at;
    if (!tally.last_sent || segment.sent_at > *tally.last_sent) tally.last_sent = segment.sent_at;
    if (mark.end <= tally.recover) tally.original = true;
    if (segment.seq < tally.highest && (!tally.overtaken || segment.seq < *tally.overtaken))
      tally.overtaken = segment.seq;
  }
  // RFC 8985, 6.2, step 2: which of its transmissions has arrived is ambiguous, unless the timestamp or the
  // time tells. What arrives out of order is not what the timestamp is of (RFC 7323, 4.3).
  Duration rtt = tally.arrived - segment.sent_at;
  constexpr Duration kTick = 1ms;
  bool of_earlier = cumulative && tally.echoed && *tally.echoed + kTick <= segment.sent_at;
  if (repeated && (rtt < tally.least_rtt || of_earlier)) return;
  if (tally.newest && !mark.after(*tally.newest)) return;
  tally.newest = mark;
  tally.newest_rtt = rtt;
}

void Flight::drop(SentSegment& segment) {
  count(segment, -1);
  if (hint_ == &segment) hint_ = nullptr;
  if (highest_sacked_ == &segment) highest_sacked_ = nullptr;
  if (lost_hint_ == &segment) lost_hint_ = segments_.next(segment);
  pool_.destroy(&segment);
}

void Flight::acknowledge(SeqNum una, AckTally& tally) {
  while (SentSegment* segment = segments_.front()) {
    if (segment->seq >= una) break;
    if (segment->end() <= una) {
      if (!segment->sacked) note(*segment, segment->length, true, tally);
      drop(*segment);
      continue;
    }
    uint32_t gone = una - segment->seq;
    if (!segment->sacked) note(*segment, gone, true, tally);
    Change change(*this, *segment);
    segment->seq = una;
    segment->length -= gone;
    break;
  }
}

SentSegment* Flight::find(SeqNum seq) {
  SentSegment* front = segments_.front();
  SentSegment* back = segments_.back();
  if (front == nullptr || back->end() <= seq) return nullptr;
  SentSegment* at = hint_ != nullptr ? hint_ : front;
  // From whichever of the three known places is nearest, if segments are of a size.
  auto distance = [&](const SentSegment& from) {
    int32_t gap = static_cast<int32_t>(from.seq.value() - seq.value());
    return static_cast<uint32_t>(gap < 0 ? -gap : gap);
  };
  if (distance(*front) < distance(*at)) at = front;
  if (distance(*back) < distance(*at)) at = back;
  while (at->end() <= seq) at = segments_.next(*at);
  for (SentSegment* before = segments_.previous(*at); before != nullptr && before->end() > seq;
       before = segments_.previous(*at))
    at = before;
  hint_ = at;
  return at;
}

void Flight::mark_sacked(SentSegment& segment, AckTally& tally) {
  note(segment, segment.length, false, tally);
  tally.sacked = true;
  {
    Change change(*this, segment);
    segment.lost = segment.retransmitted = false;
    segment.sacked = true;
  }
  in_order_.remove(segment);
  if (lost_hint_ == &segment) lost_hint_ = segments_.next(segment);
  if (highest_sacked_ == nullptr || highest_sacked_->seq < segment.seq) highest_sacked_ = &segment;
}

/// Returns where the first segment begins that the range covers only in part, or its end. Segments are cut
/// only between those of a superframe, as Linux does: a peer that SACKs single bytes makes no work.
SeqNum Flight::sack_range(SeqNum start, SeqNum end, AckTally& tally) {
  for (SentSegment* segment = find(start); segment != nullptr && segment->seq < end;
       segment = segments_.next(*segment)) {
    hint_ = segment;
    if (segment->sacked) continue;
    if (segment->seq < start) {
      uint32_t before = (start - segment->seq + segment->mss - 1) / segment->mss * segment->mss;
      // The second half is next.
      if (before < segment->length && !split(*segment, before)) return start;
      continue;
    }
    if (segment->end() > end) {
      uint32_t covered = (end - segment->seq) / segment->mss * segment->mss;
      if (covered == 0 || !split(*segment, covered)) return segment->seq;
    }
    mark_sacked(*segment, tally);
  }
  return end;
}

void Flight::sack(std::span<const SackBlock> blocks, AckTally& tally) {
  if (segments_.empty()) return;
  SeqNum una = segments_.front()->seq, nxt = segments_.back()->end();
  std::array<SackBlock, SegmentOptions::kMaxSackBlocks> seen{};
  uint8_t seen_count = 0;
  for (const SackBlock& block : blocks) {
    // A stale block lies below SND.UNA; what was never sent can't have arrived.
    if (block.start >= block.end || block.end > nxt || block.start < una) continue;
    SeqNum start = block.start;
    // What the last SACK has told already is not walked again.
    for (uint8_t i = 0; i < seen_count_; ++i)
      if (seen_[i].start <= start && start < seen_[i].end) start = seen_[i].end;
    SeqNum taken = block.end;
    if (start < block.end) taken = sack_range(start, block.end, tally);
    if (seen_count < seen.size()) seen[seen_count++] = {block.start, taken};
  }
  seen_ = seen;
  seen_count_ = seen_count;
}

uint32_t Flight::repeated_segments(SeqNum start, SeqNum end) {
  uint32_t repeated = 0;
  for (SentSegment* segment = find(start); segment != nullptr && segment->seq < end;
       segment = segments_.next(*segment))
    if (segment->transmissions > 1) repeated += segment->segments();
  return repeated;
}

void Flight::mark_lost(SentSegment& segment) {
  if (segment.sacked || segment.awaiting()) return;
  if (segment.retransmitted) lost_retransmissions_ += segment.segments();
  {
    Change change(*this, segment);
    segment.lost = true;
    segment.retransmitted = false;
  }
  rate_.on_lost(segment.length);
  in_order_.remove(segment);
  if (lost_hint_ == nullptr || segment.seq < lost_hint_->seq) lost_hint_ = &segment;
}

Duration Flight::mark_lost_by_time(const TransmitMark& newest, Duration patience, Instant now) {
  while (SentSegment* segment = in_order_.front()) {
    if (!newest.after(segment->mark())) break;
    Duration remaining = segment->sent_at + patience - now;
    if (remaining > Duration(0)) return remaining;
    mark_lost(*segment);
  }
  return Duration(0);
}

void Flight::mark_lost_by_sack(uint32_t threshold) {
  if (highest_sacked_ == nullptr || sacked_.segments < threshold) return;
  uint32_t above = 0;
  SentSegment* segment = highest_sacked_;
  for (; segment != nullptr && above < threshold; segment = segments_.previous(*segment))
    if (segment->sacked) above += segment->segments();
  // Below what was found lost before there is nothing new: all of it was marked, or SACKed since.
  for (; segment != nullptr && !segment->lost; segment = segments_.previous(*segment))
    if (!segment->retransmitted) mark_lost(*segment);
}

void Flight::mark_lost_retransmissions(Instant before) {
  for (SentSegment* segment = in_order_.front(); segment != nullptr && segment->sent_at < before;) {
    SentSegment* next = in_order_.next(*segment);
    if (segment->retransmitted) mark_lost(*segment);
    segment = next;
  }
}

void Flight::mark_head_lost(uint32_t mss) {
  SentSegment* head = segments_.front();
  if (head == nullptr || head->lost) return;
  if (head->length > mss && !split(*head, mss)) return;
  mark_lost(*head);
}

void Flight::mark_timed_out(Duration patience, Instant now) {
  for (SentSegment& segment : segments_)
    if (&segment == segments_.front() || segment.sent_at + patience <= now) mark_lost(segment);
}

void Flight::mark_longer_lost(uint32_t mss) {
  for (SentSegment& segment : segments_)
    if (segment.length > mss) mark_lost(segment);
}

void Flight::unmark_lost() {
  SentSegment* place = in_order_.front();  // where the one before went, or might have gone
  for (SentSegment& segment : segments_) {
    if (!segment.lost) continue;
    bool awaited = segment.awaiting();
    {
      Change change(*this, segment);
      segment.lost = false;
    }
    if (!awaited) continue;
    if (place != nullptr && place->number > segment.number) place = in_order_.front();
    while (place != nullptr && place->number <= segment.number) place = in_order_.next(*place);
    if (place != nullptr)
      in_order_.insert_before(*place, segment);
    else
      in_order_.push_back(segment);
    place = &segment;
  }
  lost_hint_ = nullptr;
}

void Flight::forget_sacks() {
  for (SentSegment& segment : segments_) {
    if (!segment.sacked) continue;
    Change change(*this, segment);
    segment.sacked = false;
  }
  highest_sacked_ = nullptr;
  seen_count_ = 0;
}

SentSegment* Flight::next_lost() {
  if (awaiting_ == 0) return nullptr;
  if (lost_hint_ == nullptr) lost_hint_ = segments_.front();
  while (lost_hint_ != nullptr && !lost_hint_->awaiting()) lost_hint_ = segments_.next(*lost_hint_);
  return lost_hint_;
}

SentSegment* Flight::last(uint32_t mss) {
  SentSegment* tail = segments_.back();
  if (tail == nullptr) return nullptr;
  uint32_t data = tail->length - (tail->fin ? 1 : 0);
  if (data > mss && !split(*tail, (data - 1) / mss * mss)) return nullptr;
  return segments_.back();
}

void Flight::clear() {
  while (SentSegment* segment = segments_.front()) drop(*segment);
  hint_ = highest_sacked_ = lost_hint_ = nullptr;
  seen_count_ = 0;
}

}  // namespace ustack::tcp
