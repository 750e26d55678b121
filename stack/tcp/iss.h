// Initial sequence numbers and timestamp offsets that an outsider can't guess.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "stack/base/random.h"
#include "stack/base/seqnum.h"
#include "stack/base/siphash.h"
#include "stack/base/time.h"
#include "stack/net/address.h"
#include "stack/tcp/options.h"

namespace ustack::tcp {

/// Both addresses and both ports as bytes, to be hashed.
using TupleBytes = std::array<std::byte, 36>;
TupleBytes tuple_bytes(const ConnectionId& id);

/// ISN = M + F(localip, localport, remoteip, remoteport, secret) (RFC 6528, section 3).
class IssGenerator {
 public:
  /// Draws the secrets.
  explicit IssGenerator(RandomSource& random);
  /// M is a clock of 4 us a tick: a later connection of the same four-tuple starts above an earlier one.
  SeqNum iss(const ConnectionId& id, Instant now) const;
  /// What is added to the timestamp clock (RFC 7323, 5.4). The same for all connections between two
  /// addresses, as in Linux, so that timestamps of a later connection are above an earlier one's (RFC 6191).
  uint32_t timestamp_offset(const IpAddress& local, const IpAddress& remote) const;

 private:
  SipKey secret_;
  SipKey timestamp_secret_;
};

/// TSval of a connection with this offset: a clock of 1 ms a tick (RFC 7323, 5.4).
inline uint32_t timestamp_clock(Instant now, uint32_t offset) {
  return static_cast<uint32_t>(to_ms(now.time_since_epoch())) + offset;
}

/// When the timestamp that a segment echoes was sent, as the start of its tick; nothing if it is not one of
/// ours (RFC 7323, section 4).
inline std::optional<Instant> echoed_instant(const std::optional<Timestamps>& timestamps, Instant arrived,
                                             uint32_t offset) {
  if (!timestamps || timestamps->echo == 0) return std::nullopt;
  auto ticks = static_cast<int32_t>(timestamp_clock(arrived, offset) - timestamps->echo);
  if (ticks < 0) return std::nullopt;
  return std::chrono::floor<std::chrono::milliseconds>(arrived) - std::chrono::milliseconds(ticks);
}

}  // namespace ustack::tcp
