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

FramePool::~FramePool() {
  while (TxFrame* frame = free_.pop_front()) arena_.destroy(frame);
}

TxFrame* FramePool::allocate() {
  TxFrame* frame = free_.pop_front();
  if (frame == nullptr) {
    void* memory = arena_.allocate(sizeof(TxFrame), alignof(TxFrame));
    if (memory == nullptr) return nullptr;
    frame = new (memory) TxFrame();
  }
  ++live_;
  return frame;
}

void FramePool::release(TxFrame* frame) {
  --live_;
  if (!arena_.recycle()) {
    arena_.destroy(frame);
    return;
  }
  for (uint32_t i = 0; i < frame->slice_count_; ++i) frame->slices_[i] = Slice();
  frame->slice_count_ = 0;
  frame->payload_bytes_ = 0;
  frame->header_start_ = TxFrame::kHeaderRoom;
  frame->offload = Offload();
  free_.push_front(*frame);
}

}  // namespace ustack
