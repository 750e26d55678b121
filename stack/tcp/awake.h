// The part of an endpoint that is there only while it is awake.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>

#include "stack/fiber/task.h"
#include "stack/net/route.h"
#include "stack/tcp/mtu_probing.h"
#include "stack/tcp/protocol.h"
#include "stack/tcp/socket_options.h"
#include "stack/tcp/tcb.h"

namespace ustack::tcp {

class Reports;
struct Listener;

/// What an endpoint needs only while something happens. A connection on which nothing does gives it up and
/// keeps a record of it (endpoint_rest.cpp), which is made of its bytes: two that are made one after the
/// other must not differ but for pointers into themselves, so what settings say is filled in by the endpoint.
/// Lock: the host's. Lives in Protocol's slab.
struct Awake final : Task, ListHook<OwesAck> {
  Awake(Protocol& protocol, Endpoint& owner, const SocketAddress& at)
      : Task(protocol.context().scheduler),
        endpoint(owner),
        tcb(protocol.context().blocks, protocol.pieces(), protocol.sent_segments()),
        local(at),
        bound_address(IpAddress::any(at.address.family())),
        idle(*this) {
    idle.add(notification, kNotification);
    idle.add(new_segment, kNewSegment);
    idle.add(resend, kResend);
  }
  /// Padding, and what isn't in use of unions, are zero, so that records don't keep what was there before.
  static void* operator new(size_t bytes, void* memory) {
    std::memset(memory, 0, bytes);
    // Before an object's life begins, stores to it would count as dead.
    asm volatile("" : : "r"(memory) : "memory");
    return memory;
  }
  Awake(const Awake&) = delete;
  Awake& operator=(const Awake&) = delete;

  // --- Task: the endpoint's fiber ---
  void run() override;
  void after_run() override;
  using Task::mend_marks;

  Endpoint& endpoint;
  Tcb tcb;
  Route route;
  SocketAddress local;
  /// The address of bind(2), or the wildcard.
  IpAddress bound_address;
  SocketOptions options;
  /// SO_COOKIE; 0 until it is asked for.
  uint64_t cookie = 0;

  // --- arrivals ---
  SegmentQueue queue;
  uint32_t queue_bytes = 0;

  // --- passive open ---
  /// While it listens.
  Listener* listener = nullptr;
  /// The listener in whose queue it is, until it is accepted.
  Endpoint* parent = nullptr;

  // --- for the handshake ---
  /// What the SYN of a passive open said; what an active open must start above.
  SynOptions peer_syn;
  SeqNum peer_iss;
  uint32_t peer_window = 0;
  std::optional<SeqNum> iss_floor;
  /// Passive Fast Open: the SYN that has brought data; the cookie for the SYN-ACK.
  Segment* early_syn = nullptr;
  std::optional<FastOpenCookie> granted_cookie;
  /// IP and TCP header of the SYN, for TCP_SAVED_SYN; empty when not kept or read already.
  Slice saved_syn;
  uint32_t notifications = 0;
  int notified_error = 0;

  /// Linux's sk_err_soft.
  int soft_error = 0;
  /// nullptr: nothing was ever told or asked for.
  Reports* reports = nullptr;
  uint32_t keepalive_probes = 0;

  Instant established_at{};
  Instant fin_wait_deadline = kNever;
  /// MSS of the peer's SYN, without options.
  uint32_t peer_mss = 536;
  MtuProber mtu_prober;

  enum WakerId { kNotification, kNewSegment, kResend };
  Waker notification, new_segment, resend, undrain;
  std::array<Waker*, 4> wakers() { return {&notification, &new_segment, &resend, &undrain}; }
  /// The main loop's, where it waits without a stack, and the handshake's, which waits with one.
  Sleeper idle;
};

}  // namespace ustack::tcp
