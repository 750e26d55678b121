#include "stack/net/frame.h"

namespace ustack {

std::byte* TxFrame::prepend(uint32_t n) {
  if (n > header_start_) __builtin_trap();
  header_start_ -= n;
  return header_.data() + header_start_;
}

bool TxFrame::append(Slice slice) {
  if (slice_count_ == kMaxSlices) return false;
  payload_bytes_ += slice.length;
  slices_[slice_count_++] = std::move(slice);
  return true;
}

bool TxFrame::settle() {
  bool whole = true;
  for (const Slice& slice : payload())
    if (slice.block->lent()) whole &= slice.block->settle() == Settlement::done;
  return whole;
}

FramePool::~FramePool() {
  while (TxFrame* frame = free_.pop_front()) arena_.destroy(frame);
}

TxFrame* FramePool::allocate() {
  TxFrame* frame = free_.pop_front();
  if (frame == nullptr) {
    void* memory = arena_.allocate(sizeof(TxFrame), alignof(TxFrame));
    if (memory == nullptr) return nullptr;
    frame = new (memory) TxFrame();
    all_.push_back(*frame);
  }
  ++live_;
  return frame;
}

void FramePool::clear(TxFrame& frame) {
  frame.slice_count_ = 0;
  frame.payload_bytes_ = 0;
  frame.queue = kAnyQueue;
  frame.header_start_ = TxFrame::kHeaderRoom;
  frame.offload = Offload();
}

void FramePool::release(TxFrame* frame) {
  --live_;
  if (!arena_.recycle()) {
    arena_.destroy(frame);
    return;
  }
  for (uint32_t i = 0; i < frame->slice_count_; ++i) frame->slices_[i] = Slice();
  clear(*frame);
  free_.push_front(*frame);
}

void FramePool::begin_census() {
  for (TxFrame& frame : all_) frame.seen_ = false;
}

void FramePool::see(TxFrame& frame) {
  if (std::exchange(frame.seen_, true)) return;
  for (const Slice& slice : frame.payload()) BlockPool::see(slice.block);
}

uint64_t FramePool::miscounted() {
  uint64_t seen = 0;
  for (TxFrame& frame : all_) seen += frame.seen_ ? 1 : 0;
  return seen > live_ ? seen - live_ : live_ - seen;
}

uint64_t FramePool::end_census() {
  // Who was killed may have had a frame in the middle of anything, so it is forgotten, not ended.
  uint64_t was_live = live_;
  live_ = 0;
  free_.forsake();
  for (TxFrame& frame : all_) {
    if (frame.seen_) {
      ++live_;
      continue;
    }
    for (Slice& slice : frame.slices_) new (&slice) Slice();
    clear(frame);
    static_cast<ListHook<>&>(frame).forsake();
    free_.push_front(frame);
  }
  return was_live > live_ ? was_live - live_ : 0;
}

}  // namespace ustack
