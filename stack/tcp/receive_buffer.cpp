#include "stack/tcp/receive_buffer.h"

#include <algorithm>

namespace ustack::tcp {

Extents ReceiveBuffer::view(size_t want, size_t offset) {
  Extents result;
  if (viewed_) return result;
  for (Piece& piece : queue_.pieces()) {
    if (want == 0 || result.full()) break;
    MutableBytes run(piece.slice.data(), piece.slice.length);
    if (offset >= run.size()) {
      offset -= run.size();
      continue;
    }
    run = run.subspan(offset, std::min(want, run.size() - offset));
    offset = 0;
    want -= run.size();
    result.add(run);
  }
  viewed_ = result.count > 0;
  return result;
}

uint32_t ReceiveBuffer::consume(size_t n) {
  viewed_ = false;
  if (cleared_) {
    cleared_ = false;
    held_.clear();
    return 0;
  }
  auto taken = static_cast<uint32_t>(std::min<size_t>(n, size()));
  queue_.trim_front(taken);
  return taken;
}

void ReceiveBuffer::clear() {
  if (viewed_) {
    cleared_ = true;
    held_.splice_back(queue_);
  }
  queue_.clear();
}

}  // namespace ustack::tcp
