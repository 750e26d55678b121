// Reading frames off a link: into blocks, without the lock, and on into the host, with it. Internal to io/;
// what both engines have in common.
#pragma once

#include <array>
#include <cstdint>

#include "io/adaptive_spin.h"
#include "io/engine.h"
#include "io/link.h"
#include "io/wait_set.h"
#include "stack/host.h"

namespace ustack::io {

/// How many frames a turn may take adapts: one while requests and answers alternate, so that no read is tried
/// in vain and an idle thread holds a single block, and Engine::kReadSlots while frames queue up.
class LinkReader {
 public:
  LinkReader(Link& link, Host& host) : link_(link), host_(host) {}
  LinkReader(const LinkReader&) = delete;
  LinkReader& operator=(const LinkReader&) = delete;

  /// Lock held: sees that there are blocks to read into.
  void prepare();
  /// Lock held: gives the host what was read, and back what is not needed.
  void deliver(Instant now);
  /// Lock held: gives all blocks back.
  void release_all();

  /// Lock held: notes the blocks.
  void note(Holdings& holdings) const {
    for (uint32_t i = 0; i < ready_; ++i) holdings.add(slots_[i].block);
  }

  bool lost() const { return lost_; }

  /// No lock: waits and reads what came, looking for up to `spin` before it sleeps, where that isn't in vain
  /// of late. While frames queue up poll is asked only every few turns.
  WaitResult wait(bool link_full, const WaitRequest& request, Duration spin);
  /// No lock: takes what is there if the last turn left something behind and poll need not be asked yet.
  bool read_backlog(Instant arrived);
  /// No lock: reads one frame of a queue, or with `all` as many as there are and fit, stamped `arrived`.
  /// Without a block the frames are dropped, as a card without descriptors would. True if a frame came or the
  /// link was lost by this.
  bool read(uint32_t queue, bool all, Instant arrived);
  /// Whether more than one frame a turn is to be expected.
  bool wants_all() const { return wanted_ > 1; }
  /// It was learned from a wait that didn't have to sleep that more frames are there.
  void expect_more() { wanted_ = Engine::kReadSlots; }
  /// Fills in `frames` and, once, `link_lost`.
  void report(WaitResult& result);

  /// Engine::forget().
  void forget(int kernel_fd) { wait_set_.forget(kernel_fd); }
  /// Of the waits. Also in a child, where they are inherited.
  void close_descriptors() { wait_set_.close(); }

  /// For a read done by somebody else (the ring): a block to read into, at read_padding(); empty: there is
  /// none.
  BlockRef take_block();
  uint32_t buffer_bytes() const;
  /// What that read brought. The block stays with the caller if that was nothing. True as read().
  bool took(uint32_t queue, BlockRef& block, long result, Instant arrived);

 private:
  struct Slot {
    BlockRef block;
    uint32_t bytes = 0;
    Instant arrived{};
  };
  enum class Outcome : uint8_t { frame, nothing, lost };
  Outcome judge(uint32_t queue, long result);
  void deliver_one(Slot& slot, Instant now);

  Link& link_;
  Host& host_;
  WaitSet wait_set_;
  AdaptiveSpin spin_;
  /// One more for the ring's.
  std::array<Slot, Engine::kReadSlots + 1> slots_;
  static_assert(Engine::kReadSlots + 2 <= Holdings::kMostBlocks);
  uint32_t ready_ = 0;   // slots [0, ready_) have a block
  uint32_t filled_ = 0;  // slots [0, filled_) have a frame
  uint32_t wanted_ = 1;
  uint64_t discarded_ = 0;
  bool backlog_ = false;
  uint32_t backlog_queue_ = 0;
  bool lost_ = false;
  bool loss_reported_ = false;
  /// Turns that have read without asking poll, in a row.
  uint32_t unpolled_ = 0;
};

}  // namespace ustack::io
