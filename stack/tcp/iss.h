// Initial sequence numbers and timestamp offsets that an outsider can't guess.
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/random.h"
#include "stack/base/seqnum.h"
#include "stack/base/siphash.h"
#include "stack/base/time.h"
#include "stack/net/address.h"

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

}  // namespace ustack::tcp
