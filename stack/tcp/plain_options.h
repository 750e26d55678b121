// Options that are a number or a switch and nothing more, and those that are refused: what Linux takes, tells
// and refuses of them.
#pragma once

#include <climits>
#include <cstdint>

#include "stack/base/result.h"

namespace ustack::tcp {

/// Their values; defaults as a fresh socket of Linux has them. Inherited as a whole.
struct PlainOptions {
  /// Bits in `switches` of those that the stack looks at; the others' are the table's.
  static constexpr int kInq = 11, kPacketInfo = 14, kReceiveTtl = 15, kReceiveTos = 16,
                       kOriginalDestination = 18, kFreeBind = 21;
  /// One bit for each switch.
  uint32_t switches;
  // SOL_SOCKET. What marks or ranks packets for a kernel's queueing disciplines and firewalls, and hints for
  // polling network cards, which a host of ours has none of, is remembered only.
  int32_t priority = 0, mark = 0, incoming_cpu = -1, busy_poll = 0, busy_poll_budget = 0;
  /// SO_PEEK_OFF: where the next peek starts; negative: at the front, always.
  int32_t peek_offset = -1;
  // IPPROTO_IP
  int32_t min_ttl = 0;
  /// IP_LOCAL_PORT_RANGE: lowest port, and highest in the upper half; 0: the host's.
  int32_t port_range = 0;

  PlainOptions();
  bool tells_unread() const { return is_on(kInq); }    // TCP_INQ
  bool free_bind() const { return is_on(kFreeBind); }  // IP_FREEBIND
  bool is_on(int bit) const { return (switches >> bit & 1) != 0; }

  /// setsockopt(2): `bytes` is the value's length. ENOPROTOOPT: not here, or refused.
  Status set(int level, int name, int value, size_t bytes);
  /// getsockopt(2) of one that is an int.
  Result<int> get(int level, int name) const;
};

}  // namespace ustack::tcp
