// The transmission control block (RFC 9293, 3.3.1): all that the protocol knows about one connection, as
// plain state. No fiber, no frame, no socket.
#pragma once

#include <cstdint>

#include "stack/base/log.h"
#include "stack/base/time.h"
#include "stack/net/address.h"
#include "stack/tcp/receiver.h"
#include "stack/tcp/sender.h"
#include "stack/tcp/state.h"
#include "stack/tcp/traffic.h"
#include "stack/tcp/urgent.h"

namespace ustack::tcp {

/// Lock: the host's.
struct Tcb {
  Tcb(BlockPool& blocks, PiecePool& pieces, Slab<SentSegment>& sent) : snd(blocks, sent), rcv(pieces) {}
  Tcb(const Tcb&) = delete;
  Tcb& operator=(const Tcb&) = delete;

  State state = State::closed;
  Sender snd;
  Receiver rcv;
  /// The peer's urgent data.
  UrgentMark urgent;

  // --- negotiated in the handshake ---
  /// RFC 7323, section 3.
  bool timestamps = false;
  /// RFC 2018.
  bool sack = false;
  /// RFC 7323, section 2.
  bool window_scaling = false;

  // --- RFC 7323, sections 4 and 5 ---
  uint32_t ts_offset = 0;
  /// TS.Recent and when it was set.
  uint32_t ts_recent = 0;
  Instant ts_recent_at{};

  /// No descriptor refers to the connection any more.
  bool orphaned = false;
  /// Nobody will read: close(2) or shutdown(SHUT_RD).
  bool receive_shut = false;
  /// When something last came from the peer (rcv_tstamp).
  Instant last_heard{};
  Traffic traffic;
  SendTimes send_times;
  /// When an out-of-window segment was last answered (tcp_invalid_ratelimit).
  Instant last_out_of_window{};

  /// TSval now (RFC 7323, 5.4).
  uint32_t timestamp(Instant now) const;
};

}  // namespace ustack::tcp
