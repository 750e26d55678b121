// What an engine has of the host's while its thread is outside the lock, noted where whoever buries the
// process finds it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "stack/host.h"

namespace ustack::io {

/// In the arena, with the thread's waiter. Written by the engine, under the host's lock: empty while it
/// changes what it has, so that of a process that is killed in the middle none is given back twice; those
/// that nobody has then are found by the census.
class Holdings {
 public:
  /// Read slots and the ring's, and what a ring writes at once.
  static constexpr uint32_t kMostBlocks = 10, kMostFrames = 64;

  void clear() {
    blocks_ = frames_ = 0;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  void add(const BlockRef& block) {
    if (block && blocks_ < kMostBlocks) block_[blocks_++] = block.get();
  }
  void add(TxFrame* frame) {
    if (frames_ < kMostFrames) frame_[frames_++] = frame;
  }
  /// Shows it to a census.
  void show(Census& census) const {
    for (uint32_t i = 0; i < blocks_; ++i) census.see(block_[i]);
    for (uint32_t i = 0; i < frames_; ++i) census.see(*frame_[i]);
  }
  /// Its thread is dead: all of it is the host's again. Lock held.
  void give_back(Host& host) {
    for (uint32_t i = 0; i < blocks_; ++i) BlockRef::adopt(block_[i]).reset();
    for (uint32_t i = 0; i < frames_; ++i) host.frames().release(frame_[i]);
    clear();
  }

 private:
  uint32_t blocks_ = 0, frames_ = 0;
  std::array<Block*, kMostBlocks> block_;
  std::array<TxFrame*, kMostFrames> frame_;
};

}  // namespace ustack::io
