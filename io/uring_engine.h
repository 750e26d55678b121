// The engine over io_uring: frames out, the link's poll and read, and the sleep in one io_uring_enter.
//
// The ring has SINGLE_ISSUER | DEFER_TASKRUN: what is left armed when wait() returns does nothing until this
// thread waits again, so that a chain needs no cancelling and a frame is never taken by a thread that
// computes. Kernels that refuse these flags get the plain engine.
#pragma once

#include <liburing.h>

#include <array>

#include "io/engine.h"
#include "io/link_reader.h"
#include "io/link_writer.h"

namespace ustack::io {

class UringEngine final : public Engine {
 public:
  /// `only`: waits use the ring even when there is no batch to send.
  UringEngine(Link& link, Host& host, Duration spin, bool only, uint32_t queue)
      : link_(link), host_(host), reader_(link, host), spin_(spin), only_(only), queue_(queue) {}

  /// Makes the ring. A negative errno where the kernel refuses one. Unless `only`, the first batch does it:
  /// most programs never send one.
  int start();

  EngineKind kind() const override;
  void transmit() override;
  WaitResult wait(const WaitRequest& request) override;
  void deliver(Instant now) override;
  void forget(int kernel_fd) override;

 private:
  /// Frames that one wait() sends at most; more are written before it.
  static constexpr uint32_t kTransmitSlots = Holdings::kMostFrames;
  /// Fewer than this are written at once: for a lone frame a plain write is quicker (see the README's
  /// figures).
  static constexpr uint32_t kRingFrom = 4;

  /// A frame that the ring writes; it is ours until its completion was seen.
  struct Transmission {
    TxFrame* frame;
    long result;
    bool done;
    std::array<iovec, kMaxFrameParts> parts;
  };
  /// A one-shot poll of another descriptor that stays armed from wait to wait.
  struct Watch {
    int fd = -1;  // armed for this one; -1: not armed
    uint32_t serial = 0;
  };
  /// What a completion belongs to: the lower byte of its user data.
  enum Tag : uint64_t { kTransmission, kLinkPoll, kLinkRead, kLinkRoom, kWake, kKernel, kCancel };

  void tear_down(bool owner) override;
  void note(Holdings& holdings) const override;
  void stage(TxFrame* frame);
  void finish_transmissions();
  void arm_link();
  void arm_watch(Watch& watch, Tag tag, int fd);
  /// What came out of the ring.
  struct Harvest {
    bool any = false;   // a completion that isn't a transmission's
    bool link = false;  // a frame, or the link was lost
  };
  void complete(const io_uring_cqe& cqe, Instant at, Harvest& harvest, WaitResult& result);
  /// Takes all completions that are there.
  Harvest reap(Instant at, WaitResult& result);
  io_uring_sqe* entry();
  static void tag(io_uring_sqe* sqe, Tag which, uint64_t detail = 0);
  void cancel(Tag tag, uint64_t detail = 0);
  bool ring_ready();
  void unmap_ring();

  Link& link_;
  Host& host_;
  LinkReader reader_;
  Duration spin_;
  bool only_;
  const uint32_t queue_;
  io_uring ring_{};
  bool started_ = false;
  /// The kernel won't have a ring: plain calls from now on.
  bool refused_ = false;
  long owner_thread_ = 0;

  /// What the armed read reads into; the ring's until its completion was seen.
  BlockRef read_block_;
  bool link_armed_ = false;
  bool read_armed_ = false;
  bool room_armed_ = false;
  bool blocked_ = false;
  Watch wake_, kernel_;
  /// Seen between waits; the next one reports it.
  WaitResult early_;

  uint32_t staged_ = 0;  // transmissions [0, staged_) are the ring's
  uint32_t written_ = 0;
  std::array<Transmission, kTransmitSlots> transmissions_;
};

}  // namespace ustack::io
