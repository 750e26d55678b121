// Who is on the link, and under which address: the neighbour cache of RFC 4861 as Linux uses it for ARP too.
//
//                    a frame to send                 answered
//      (no entry) -----------------> incomplete ------------------> reachable <---------------------.
//                                      |    ^                        |  base_reachable_time         |
//          mcast_solicit unanswered    |    | a frame to send        v  without confirmation        |
//          confirmed by
//                                      v    |                      stale                            | an
//                                      answer or
//                                     failed                         |  a frame to send             | a
//                                     transport
//                                      ^                             v                              |
//                                      |                           delay ---------------------------|
//                                      |                             |  5 s                         |
//                                      '------- unanswered ------- probe ---------------------------'
//                                               ucast_solicit
//
// Frames wait in their neighbour's queue while it is incomplete. An entry's age is looked at when it is used,
// so that an idle host has no timer running.
#pragma once

#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/base/result.h"
#include "stack/base/time.h"
#include "stack/census.h"
#include "stack/fiber/task.h"
#include "stack/net/address.h"
#include "stack/net/address_table.h"
#include "stack/net/context.h"
#include "stack/net/frame.h"
#include "stack/time/timer.h"

namespace ustack {

class NeighbourCache;

enum class NeighbourState : uint8_t { incomplete, reachable, stale, delay, probe, failed };

/// One host (or router) on the link. Belongs to the cache.
class Neighbour : public AddressTableEntry {
 public:
  Neighbour(const IpAddress& address, NeighbourCache& cache);
  const MacAddress& mac() const { return mac_; }

 private:
  friend class NeighbourCache;
  NeighbourCache& cache_;
  MacAddress mac_;
  NeighbourState state_ = NeighbourState::incomplete;
  bool retrying_ = false;      // incomplete again after it had failed
  int32_t probes_ = 0;         // sent in this state
  uint32_t queued_bytes_ = 0;  // true size of queue_
  Instant confirmed_{};        // last sign that our frames arrive
  Instant updated_{};          // last change of mac_
  Instant failed_{};           // last failure
  Timer timer_;
  FrameQueue queue_;
  IntrusiveList<Waker, ResolutionWaiter> waiters_;
};

/// What the cache needs from the interface that it belongs to. What differs between ARP and NDP is behind it.
class NeighbourPort {
 public:
  /// Asks for `target`'s link address: everybody, or only `known` whether it is still there.
  virtual void solicit(const IpAddress& target, const MacAddress* known) = 0;
  /// Sends an IP packet of `family` to `mac`; takes the frame over.
  virtual void transmit_to(TxFrame* frame, const MacAddress& mac, Family family) = 0;
  /// An IP packet can't be delivered since its next hop didn't answer; takes the frame over. May call the
  /// cache.
  virtual void report_unreachable(TxFrame* frame) = 0;

 protected:
  ~NeighbourPort() = default;
};

/// Remembers an entry between look-ups; default-constructed it remembers nothing. Copied freely.
struct NeighbourHint {
  Neighbour* entry = nullptr;
  uint64_t generation = 0;
};

/// Keyed by address, so that IPv4's and IPv6's neighbours live in one cache. Settings:
/// net.ipv4.neigh.default.* as in arp(7). Lock: the host's.
class NeighbourCache {
 public:
  /// A frame sent to a stale neighbour is given this time to be confirmed before we ask
  /// (DELAY_FIRST_PROBE_TIME, RFC 4861, section 10).
  static constexpr Duration kDelayFirstProbe = 5s;
  /// A link address that has just changed isn't changed again: the first of several answers holds (arp(7),
  /// locktime).
  static constexpr Duration kLockTime = 1s;
  /// How long a gateway that didn't answer is left alone before it is asked again in the background.
  static constexpr Duration kRevive = 30s;

  /// What a message from the link tells about its sender.
  enum class Evidence : uint8_t {
    answer,    ///< an answer sent to us: if we had asked, our frames arrive there
    mention,   ///< anything else that names the sender's link address
    announce,  ///< the sender says that its link address is new (gratuitous ARP): no lock time
  };

  NeighbourCache(const HostContext& context, NeighbourPort& port);
  NeighbourCache(const NeighbourCache&) = delete;
  NeighbourCache& operator=(const NeighbourCache&) = delete;
  ~NeighbourCache();

  /// Sends `frame`, which starts with an IP header, to `next_hop`, or queues it while that is being resolved
  /// (at most unres_qlen_bytes, then the oldest is dropped). Takes the frame over in any case. ENOBUFS: the
  /// cache is full of neighbours being resolved, or memory is out.
  Status send(const IpAddress& next_hop, NeighbourHint& hint, TxFrame* frame);
  /// Success when `next_hop` is resolved. EWOULDBLOCK while it is being resolved: `waker` is asserted when
  /// that has ended. EHOSTUNREACH, once, to a waker that was asserted for a failure; asking again starts
  /// again. ENOBUFS as send().
  Status resolve(const IpAddress& next_hop, NeighbourHint& hint, Waker& waker);
  static void remove_waker(Waker& waker);
  bool is_resolved(const IpAddress& next_hop, NeighbourHint& hint);
  /// Our frames arrive there (RFC 4861, 7.3.1). Nothing if it isn't resolved.
  void confirm(const IpAddress& next_hop, NeighbourHint& hint);

  /// A message from the link says that `address` is at `mac`. `create`: it is also news if we don't know
  /// `address` yet (RFC 826: only if the message is meant for us).
  void learn(const IpAddress& address, const MacAddress& mac, Evidence evidence, bool create);

  /// After a process was killed while it changed the host: entries are where they belong, and those that wait
  /// for an answer go on asking.
  void mend();

  /// Some frame waits until its next hop has answered.
  bool has_waiting() {
    for (Neighbour* n = table_.oldest(); n != nullptr; n = table_.newer(*n))
      if (!n->queue_.empty()) return true;
    return false;
  }
  /// What it has of the host's memory (stack/census.h).
  void show(Census& census) {
    for (Neighbour* n = table_.oldest(); n != nullptr; n = table_.newer(*n)) census.see(n->queue_);
  }

  /// It didn't answer when it was asked last.
  bool is_dead(const IpAddress& address, NeighbourHint& hint);
  /// Asks a dead one again, without a frame, if it is time (kRevive).
  void revive(const IpAddress& address);

  /// The entry and its state now; nullptr if there is none.
  const Neighbour* find(const IpAddress& address) const { return table_.find(address); }
  NeighbourState state(const Neighbour& neighbour) const;
  uint32_t size() const { return table_.size(); }
  /// Calls f(const Neighbour&, NeighbourState), least recently used first.
  template <typename F>
  void for_each(F&& f) {
    for (Neighbour* n = table_.oldest(); n != nullptr; n = table_.newer(*n)) f(*n, state(*n));
  }

 private:
  friend class Neighbour;
  Neighbour* look_up(const IpAddress& address, NeighbourHint& hint);
  Neighbour* look_up_or_create(const IpAddress& address, NeighbourHint& hint);
  Neighbour* create(const IpAddress& address, bool for_sending);
  bool make_room(bool for_sending);
  void erase(Neighbour& neighbour);
  void start_resolution(Neighbour& neighbour);
  void enqueue(Neighbour& neighbour, TxFrame* frame);
  void resolved(Neighbour& neighbour);
  void fail(Neighbour& neighbour);
  void arm_retransmit(Neighbour& neighbour, Instant now);
  void on_timer(Neighbour& neighbour, Instant now);
  Duration reachable_time();
  bool expired(const Neighbour& neighbour) const;
  /// state(), written down.
  NeighbourState refresh(Neighbour& neighbour);

  HostContext context_;
  NeighbourPort& port_;
  AddressTable<Neighbour> table_;
  uint64_t generation_ = 1;  // of hints: changes when an entry goes
  Duration reachable_time_{};
  Instant reachable_time_until_{};
  int32_t reachable_time_base_ms_ = 0;
};

}  // namespace ustack
