#include "stack/tcp/reassembly.h"

#include <algorithm>

namespace ustack::tcp {

Reassembly::Range* Reassembly::find_last_starting_at_or_before(SeqNum seq) {
  Range* range = ranges_.back();
  if (range == nullptr || range->start <= seq) return range;
  range = ranges_.front();
  if (range->start > seq) return nullptr;
  if (hint_ != nullptr) {
    if (hint_->start <= seq) {
      range = hint_;
    } else if (hint_->start - seq < seq - range->start) {
      range = hint_;
      while (range->start > seq) range = ranges_.previous(*range);
      return range;
    }
  }
  for (Range* next = ranges_.next(*range); next != nullptr && next->start <= seq; next = ranges_.next(*range))
    range = next;
  return range;
}

Reassembly::Range* Reassembly::new_range(Range* after, SeqNum seq, const Limits& limits, Inserted& result) {
  if (range_count_ >= limits.ranges) {
    // What comes earlier in the stream is worth more.
    Range* last = ranges_.back();
    if (last == nullptr || last->start < seq) return nullptr;
    drop(last);
    result.pruned = true;
  }
  auto* range = pool_.arena().create<Range>(pool_);
  if (range == nullptr) return nullptr;
  range->start = range->end = seq;
  if (after != nullptr)
    ranges_.insert_after(*after, *range);
  else
    ranges_.push_front(*range);
  recent_.push_front(*range);
  ++range_count_;
  return range;
}

bool Reassembly::holds_fin(const Range& range) const { return fin_ && range.end == *fin_ + 1; }

void Reassembly::drop(Range* range) {
  if (holds_fin(*range)) fin_.reset();
  if (hint_ == range) hint_ = nullptr;
  size_ -= range->data.size();
  true_size_ -= range->data.true_size();
  --range_count_;
  pool_.arena().destroy(range);
}

bool Reassembly::make_room(SeqNum seq, uint32_t wanted, const Limits& limits, Inserted& result) {
  while (true_size_ + wanted > limits.true_size) {
    Range* last = ranges_.back();
    if (last == nullptr || last->start <= seq) return false;
    result.pruned = true;
    if (holds_fin(*last)) {
      fin_.reset();
      last->end = last->end - 1;
    }
    uint32_t before = last->data.true_size();
    uint32_t bytes = last->data.drop_last();
    true_size_ -= before - last->data.true_size();
    size_ -= bytes;
    last->end = last->end - bytes;
    if (last->data.empty()) drop(last);
  }
  return true;
}

bool Reassembly::add(Range& range, Slice&& data, bool fin, const Limits& limits, Inserted& result) {
  uint32_t bytes = data.length;
  if (bytes > 0) {
    // What a PieceQueue copies costs about its length.
    uint32_t cost = std::min(data.block->true_size(), 2 * bytes);
    if (!make_room(range.end, cost, limits, result)) return false;
    uint32_t before = range.data.true_size();
    if (!range.data.append(std::move(data))) return false;
    true_size_ += range.data.true_size() - before;
    size_ += bytes;
  }
  range.end += bytes;
  result.added += bytes;
  if (fin) {
    // Nothing follows a FIN; what claims to is not of this stream.
    while (Range* next = ranges_.next(range)) drop(next);
    fin_ = range.end;
    range.end += 1;
    result.added += 1;
  }
  return true;
}

Reassembly::Inserted Reassembly::insert(SeqNum seq, Slice&& data, bool fin, const Limits& limits) {
  Inserted result;
  SeqNum data_end = seq + data.length;
  SeqNum end = data_end + (fin ? 1u : 0u);
  if (fin_) end = min(end, *fin_ + 1);
  if (end <= seq) return result;

  auto duplicate = [&](SeqNum from, SeqNum to) {
    if (!result.duplicate) result.duplicate = SackBlock{from, min(to, end)};
  };
  Range* current = find_last_starting_at_or_before(seq);
  SeqNum at = seq;  // what is before it has been dealt with
  if (current != nullptr && current->end >= seq) {
    if (current->end > seq) duplicate(seq, current->end);
    at = current->end;
  } else {
    current = new_range(current, seq, limits, result);
    if (current == nullptr) {
      result.dropped = true;
      return result;
    }
  }

  while (at < end) {
    Range* next = ranges_.next(*current);
    SeqNum gap_end = next == nullptr ? end : min(end, next->start);
    if (at < gap_end) {
      Slice part;
      if (at < data_end) part = data.sub(at - seq, min(gap_end, data_end) - at);
      if (!add(*current, std::move(part), gap_end > data_end, limits, result)) {
        result.dropped = true;
        break;
      }
      at = current->end;
      next = ranges_.next(*current);  // the one before may have been pruned
    }
    if (next == nullptr || next->start > at) continue;
    // Now they touch, and are one.
    if (at < end) duplicate(at, next->end);
    current->end = at = next->end;
    current->data.splice_back(next->data);
    next->end = next->start;  // its bytes and its FIN have a new owner
    drop(next);
  }

  if (current->start == current->end) {
    drop(current);
    return result;
  }
  // RFC 2018, section 4: the first block is the one that holds the segment that triggered the ACK.
  recent_.remove(*current);
  recent_.push_front(*current);
  hint_ = current;
  return result;
}

Reassembly::Extracted Reassembly::extract(SeqNum rcv_nxt, ReceiveBuffer& buffer) {
  Extracted result;
  for (Range* range = ranges_.front(); range != nullptr && range->start <= rcv_nxt; range = ranges_.front()) {
    if (range->end <= rcv_nxt) {
      drop(range);
      continue;
    }
    uint32_t before = range->data.size();
    uint32_t true_before = range->data.true_size();
    range->data.trim_front(std::min(rcv_nxt - range->start, before));
    uint32_t bytes = range->data.size();
    buffer.append(range->data);
    size_ -= before;
    true_size_ -= true_before;
    result.bytes += bytes;
    rcv_nxt += bytes;
    result.fin = holds_fin(*range);
    drop(range);
    if (result.fin) clear();
  }
  return result;
}

uint8_t Reassembly::sack_blocks(std::span<SackBlock> out) const {
  uint8_t count = 0;
  for (Range& range : recent_) {
    if (count == out.size()) break;
    out[count++] = SackBlock{range.start, range.end};
  }
  return count;
}

void Reassembly::clear() {
  while (Range* range = ranges_.front()) drop(range);
}

}  // namespace ustack::tcp
