// A TCP/IP host without a machine: frames and time go in, frames come out.
//
//            receive(frame, now)                     transmit_queue()
//   io/ ------------------------> [ Host: run(now) ] ------------------> io/
//                                   ^  sockets, settings, counters
//                                   '-- shim/, tests
//
// One lock protects a host (the caller's; tests need none). No call blocks, reads a clock or makes a system
// call.
#pragma once

#include "stack/base/log.h"
#include "stack/base/random.h"
#include "stack/base/result.h"
#include "stack/base/time.h"
#include "stack/census.h"
#include "stack/counters.h"
#include "stack/fiber/task.h"
#include "stack/mem/block.h"
#include "stack/net/network.h"
#include "stack/settings.h"
#include "stack/shards.h"
#include "stack/socket/socket.h"
#include "stack/time/timer.h"

namespace ustack {

namespace tcp {
class Protocol;
}
namespace udp {
class Protocol;
}

struct HostConfig {
  NetworkConfig network;
  Settings settings;
  Log log;
  /// Bytes of a fiber's stack and how many are carved at once (Scheduler).
  size_t fiber_stack_bytes = Scheduler::kDefaultStackBytes;
  uint32_t fiber_stacks_carved = 4;
  /// Whoever runs the host calls send_owed_acks() before it waits.
  bool acks_wait = false;
  /// It is `shard` of these, of which it becomes a part; number 0 is made first and destroyed last. nullptr:
  /// it is a whole host.
  Shards* shards = nullptr;
  uint8_t shard = 0;
};

class Host {
 public:
  /// Everything is placed in `arena`, which outlives the host, as do `random` and the log's sink. nullptr
  /// when memory is out. `now` is where the host's time begins.
  static Host* create(Arena& arena, RandomSource& random, const HostConfig& config, Instant now);
  static void destroy(Host* host);

  /// A frame came in; it is processed at once up to the endpoint's queue. Follow a batch by run().
  void receive(RxFrame&& frame, Instant now);
  /// Fires timers and runs what became ready, until nothing is. Time never goes back: an earlier `now` than
  /// before counts as that.
  void run(Instant now);
  /// Something has come that is another shard's: hand_over().
  bool has_strays() const { return network_.has_strays(); }
  /// With all locks held: gives each shard what has come to another one. True: there was something; run()
  /// them all.
  static bool hand_over(Shards& shards);
  /// run() has nothing to do before next_deadline(), unless something comes in.
  bool idle() const { return scheduler_.idle() && !network_.has_local(); }
  /// When run() is next due if nothing comes in; kNever if nothing is pending.
  Instant next_deadline() const;
  /// With HostConfig::acks_wait, before whoever runs the host waits: queues the ACKs that were left for the
  /// program's answers to carry, where none has come. So a program that answers at once saves the peer and
  /// itself a frame for each request, and no ACK is later than the program's next wait (or a delayed ACK).
  void send_owed_acks();
  bool acks_wait() const { return acks_wait_; }
  /// Where the link has several queues: that of the thread which calls from here on. A connection's frames
  /// leave by the queue of the thread that has used it last, so that links that follow their senders (TAP)
  /// bring its segments to the thread that reads that queue. Not for one of several shards.
  void set_queue(uint8_t queue) { queue_ = queue; }
  /// Frames to be handed to the link, in order; the caller takes them out and gives each back to frames().
  FrameQueue& transmit_queue() { return transmit_; }

  /// socket(2): AF_INET, SOCK_STREAM or SOCK_DGRAM. EAFNOSUPPORT, ESOCKTNOSUPPORT (another type),
  /// EPROTONOSUPPORT, ENOBUFS. Type without SOCK_NONBLOCK and SOCK_CLOEXEC, which are the descriptor's.
  Result<Socket*> open_socket(int domain, int type, int protocol);

  /// Of which it is one; nullptr: it is whole.
  const Shards* shards() const { return shards_; }
  uint8_t shard() const { return queue_; }
  Arena& arena() { return arena_; }
  BlockPool& blocks() { return blocks_; }
  FramePool& frames() { return frames_; }
  Scheduler& scheduler() { return scheduler_; }
  TimerWheel& timers() { return timers_; }
  Network& network() { return network_; }
  tcp::Protocol& tcp() { return *tcp_; }
  udp::Protocol& udp() { return *udp_; }
  Counters& counters() { return counters_; }
  Settings& settings() { return settings_; }
  const Log& log() const { return log_; }
  /// Time of the last receive() or run().
  Instant now() const { return now_; }
  /// No connection is left that still has something to deliver or a FIN to exchange (TIME-WAIT and listeners
  /// don't count), and no datagram whose next hop is being looked for: what an exiting program lingers for.
  bool drained();
  /// A process was killed while it changed the host (its lists are whole again: ListJournal::finish). Counts
  /// and tables are rebuilt from the endpoints; one that was being changed is reset, all others go on. Memory
  /// that was on its way from one place to another is free; `outside` shows what is rightly elsewhere.
  void mend(SeeOutside outside);
  /// Releases all sockets that are not `owned`, but for those that wait to be accepted.
  void release_lost();
  /// How much of the host's memory isn't accounted for: blocks, frames and connections' parts that nobody
  /// has, or that somebody has more or less often than is counted. 0, but for faults of ours. `outside` shows
  /// what is elsewhere.
  uint64_t unaccounted(SeeOutside outside = nullptr);

 private:
  friend class Arena;
  /// How soon tasks that lacked memory for a stack are tried again.
  static constexpr Duration kStarvedRetry = 10ms;
  Host(Arena& arena, RandomSource& random, const HostConfig& config, Instant now);
  ~Host();
  HostContext context(RandomSource& random);
  void take_census(SeeOutside outside);

  Arena& arena_;
  Settings settings_;
  Counters counters_;
  Log log_;
  Instant now_;
  const bool acks_wait_;
  /// Whose queue its frames leave by; a shard's own.
  uint8_t queue_ = 0;
  Shards* const shards_;
  BlockPool blocks_;
  FramePool frames_;
  Scheduler scheduler_;
  TimerWheel timers_;
  FrameQueue transmit_;
  Network network_;
  tcp::Protocol* tcp_ = nullptr;
  udp::Protocol* udp_ = nullptr;
};

}  // namespace ustack
