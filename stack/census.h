// Who has what of a host's memory, asked holder by holder: after a process was killed in the middle of a
// change, what it had on its way from one place to another is found by nobody's having it.
#pragma once

#include "stack/mem/block.h"
#include "stack/net/frame.h"

namespace ustack {

/// One count. Holders show what they have by see(); each reference to a block is shown once.
class Census {
 public:
  static void see(const BlockRef& block) { BlockPool::see(block); }
  /// A reference that is written down as a pointer.
  static void see(Block* block) { BlockPool::see(block); }
  static void see(const Slice& slice) { BlockPool::see(slice.block); }
  static void see(TxFrame& frame) { FramePool::see(frame); }
  static void see(FrameQueue& queue) {
    queue.for_each([](TxFrame& frame) { FramePool::see(frame); });
  }
};

/// Shows what is outside of the host: of engines, of calls under way.
using SeeOutside = void (*)(Census& census);

}  // namespace ustack
