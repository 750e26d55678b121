#include "stack/tcp/flight.h"

#include <algorithm>

namespace ustack::tcp {

bool Flight::append(SeqNum seq, uint32_t length, bool fin, Instant now) {
  SentSegment* segment = pool_.create();
  if (segment == nullptr) return false;
  segment->seq = seq;
  segment->length = length;
  segment->fin = fin;
  segment->sent_at = now;
  segments_.push_back(*segment);
  outstanding_ += length;
  ++count_;
  return true;
}

void Flight::mark_retransmitted(SentSegment& segment, Instant now) {
  segment.sent_at = now;
  if (segment.transmissions < 255) ++segment.transmissions;
  segment.retransmitted = true;
  retransmitted_ += segment.length;
  retransmissions_.push_back(segment);
  if (lost_hint_ == &segment) lost_hint_ = segments_.next(segment);
}

bool Flight::split(SentSegment& segment, uint32_t length) {
  SentSegment* rest = pool_.create();
  if (rest == nullptr) return false;
  rest->seq = segment.seq + length;
  rest->length = segment.length - length;
  rest->sent_at = segment.sent_at;
  rest->transmissions = segment.transmissions;
  rest->fin = segment.fin;
  rest->sacked = segment.sacked;
  rest->lost = segment.lost;
  rest->retransmitted = segment.retransmitted;
  segment.length = length;
  segment.fin = false;
  segments_.insert_after(segment, *rest);
  if (segment.retransmitted) retransmissions_.insert_after(segment, *rest);
  if (highest_sacked_ == &segment) highest_sacked_ = rest;
  ++count_;
  return true;
}

void Flight::note(const SentSegment& segment, Delivered& delivered) {
  delivered.bytes += segment.length;
  delivered.newest = std::max(delivered.newest, segment.sent_at);
  if (segment.transmissions > 1) {
    delivered.retransmitted = true;
    return;
  }
  if (!delivered.first_sent || segment.sent_at < *delivered.first_sent)
    delivered.first_sent = segment.sent_at;
  if (!delivered.last_sent || segment.sent_at > *delivered.last_sent) delivered.last_sent = segment.sent_at;
}

void Flight::forget_retransmission(SentSegment& segment) {
  if (!segment.retransmitted) return;
  segment.retransmitted = false;
  retransmitted_ -= segment.length;
  retransmissions_.remove(segment);
}

void Flight::drop(SentSegment& segment) {
  forget_retransmission(segment);
  outstanding_ -= segment.length;
  if (segment.sacked) sacked_ -= segment.length;
  if (segment.lost) lost_ -= segment.length;
  --count_;
  if (hint_ == &segment) hint_ = nullptr;
  if (highest_sacked_ == &segment) highest_sacked_ = nullptr;
  if (lost_hint_ == &segment) lost_hint_ = segments_.next(segment);
  pool_.destroy(&segment);
}

void Flight::acknowledge(SeqNum una, Delivered& delivered) {
  while (SentSegment* segment = segments_.front()) {
    if (segment->seq >= una) break;
    if (segment->end() <= una) {
      if (!segment->sacked) note(*segment, delivered);
      drop(*segment);
      continue;
    }
    uint32_t gone = una - segment->seq;
    if (!segment->sacked) {
      uint32_t before = delivered.bytes;
      note(*segment, delivered);
      delivered.bytes = before + gone;
    }
    segment->seq = una;
    segment->length -= gone;
    outstanding_ -= gone;
    if (segment->sacked) sacked_ -= gone;
    if (segment->lost) lost_ -= gone;
    if (segment->retransmitted) retransmitted_ -= gone;
    break;
  }
}

SentSegment* Flight::find(SeqNum seq) {
  SentSegment* at = hint_ != nullptr ? hint_ : segments_.front();
  while (at != nullptr && at->end() <= seq) at = segments_.next(*at);
  if (at == nullptr) return nullptr;
  for (SentSegment* before = segments_.previous(*at); before != nullptr && before->end() > seq;
       before = segments_.previous(*at))
    at = before;
  hint_ = at;
  return at;
}

void Flight::mark_sacked(SentSegment& segment, Delivered& delivered) {
  note(segment, delivered);
  forget_retransmission(segment);
  if (segment.lost) {
    segment.lost = false;
    lost_ -= segment.length;
    if (lost_hint_ == &segment) lost_hint_ = segments_.next(segment);
  }
  segment.sacked = true;
  sacked_ += segment.length;
  if (highest_sacked_ == nullptr || highest_sacked_->seq < segment.seq) highest_sacked_ = &segment;
}

void Flight::sack_range(SeqNum start, SeqNum end, Delivered& delivered) {
  for (SentSegment* segment = find(start); segment != nullptr && segment->seq < end;
       segment = segments_.next(*segment)) {
    hint_ = segment;
    if (segment->sacked) continue;
    if (segment->seq < start) {
      if (!split(*segment, start - segment->seq)) return;
      continue;  // the second half is next
    }
    if (segment->end() > end && !split(*segment, end - segment->seq)) return;
    mark_sacked(*segment, delivered);
  }
}

void Flight::sack(std::span<const SackBlock> blocks, Delivered& delivered) {
  if (segments_.empty()) return;
  SeqNum una = segments_.front()->seq, nxt = segments_.back()->end();
  std::array<SackBlock, SegmentOptions::kMaxSackBlocks> seen{};
  uint8_t seen_count = 0;
  for (const SackBlock& block : blocks) {
    // A D-SACK (RFC 2883) or a stale block lies below SND.UNA; what was never sent can't have arrived.
    if (block.start >= block.end || block.end > nxt || block.start < una) continue;
    SeqNum start = block.start;
    // What the last SACK has told already is not walked again.
    for (uint8_t i = 0; i < seen_count_; ++i)
      if (seen_[i].start <= start && start < seen_[i].end) start = seen_[i].end;
    if (start < block.end) sack_range(start, block.end, delivered);
    if (seen_count < seen.size()) seen[seen_count++] = block;
  }
  seen_ = seen;
  seen_count_ = seen_count;
}

void Flight::mark_lost(SentSegment& segment) {
  if (segment.sacked) return;
  forget_retransmission(segment);
  if (!segment.lost) {
    segment.lost = true;
    lost_ += segment.length;
  }
  if (lost_hint_ == nullptr || segment.seq < lost_hint_->seq) lost_hint_ = &segment;
}

uint32_t Flight::mark_lost_by_sack(uint32_t mss) {
  if (highest_sacked_ == nullptr || sacked_ == 0) return 0;
  constexpr uint32_t kDupThresh = 3;
  uint32_t before = lost_;
  uint32_t above = 0;
  SentSegment* segment = highest_sacked_;
  for (; segment != nullptr && above < kDupThresh; segment = segments_.previous(*segment))
    if (segment->sacked) above += std::max(segment->length / mss, 1u);
  // Below what was found lost before there is nothing new: all of it was marked, or SACKed since.
  for (; segment != nullptr; segment = segments_.previous(*segment)) {
    if (segment->lost) break;
    mark_lost(*segment);
  }
  return lost_ - before;
}

uint32_t Flight::mark_lost_retransmissions(Instant before) {
  uint32_t marked = 0;
  while (SentSegment* segment = retransmissions_.front()) {
    if (segment->sent_at >= before) break;
    marked += segment->length;
    mark_lost(*segment);
  }
  return marked;
}

void Flight::mark_head_lost(uint32_t mss) {
  SentSegment* head = segments_.front();
  if (head == nullptr) return;
  if (head->length > mss && !split(*head, mss)) return;
  mark_lost(*head);
}

void Flight::mark_all_lost() {
  for (SentSegment& segment : segments_) mark_lost(segment);
  lost_hint_ = segments_.front();
}

void Flight::mark_longer_lost(uint32_t mss) {
  for (SentSegment& segment : segments_)
    if (segment.length > mss) mark_lost(segment);
}

void Flight::forget_sacks() {
  for (SentSegment& segment : segments_) segment.sacked = false;
  sacked_ = 0;
  highest_sacked_ = nullptr;
  seen_count_ = 0;
}

SentSegment* Flight::next_lost() {
  if (lost_ == retransmitted_) return nullptr;
  if (lost_hint_ == nullptr) lost_hint_ = segments_.front();
  while (lost_hint_ != nullptr && (!lost_hint_->lost || lost_hint_->retransmitted))
    lost_hint_ = segments_.next(*lost_hint_);
  return lost_hint_;
}

void Flight::clear() {
  while (SentSegment* segment = segments_.front()) drop(*segment);
  hint_ = highest_sacked_ = lost_hint_ = nullptr;
  seen_count_ = 0;
}

}  // namespace ustack::tcp
