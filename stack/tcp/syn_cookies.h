// SYN cookies (RFC 4987, section 3.6): a listener under a flood keeps nothing of a SYN. What it would have
// kept is in the numbers that the peer must send back: the MSS in the ISS, the other options in the
// timestamp.
//
//   ISS   = F(four-tuple) + IRS + minute << 24 + ((G(four-tuple, minute) + MSS index) mod 2^24)
//   TSval = the clock, but its low six bits say: ECN, SACK, window scale
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/random.h"
#include "stack/base/seqnum.h"
#include "stack/base/siphash.h"
#include "stack/base/time.h"
#include "stack/net/address.h"
#include "stack/tcp/options.h"

namespace ustack::tcp {

/// Makes cookies and knows its own. Lock: the host's.
class SynCookies {
 public:
  /// A cookie is good for the minute in which it was made and the one after it (Linux's MAX_SYNCOOKIE_AGE).
  static constexpr uint32_t kMaxAge = 2;
  /// How long after the last overflow of its queue a listener looks for cookies (TCP_SYNCOOKIE_VALID).
  static constexpr Duration kValid = 120s;

  /// Draws the secrets.
  explicit SynCookies(RandomSource& random);

  /// The ISS of a SYN-ACK to a peer whose SYN had the number `irs` and this MSS. Of the MSS remains the
  /// largest of 536, 1300, 1440 and 1460 that is not more, as in Linux.
  SeqNum make(const ConnectionId& id, SeqNum irs, uint16_t mss, Instant now) const;
  /// The MSS that is in a cookie, if it is one of ours that is not too old.
  std::optional<uint16_t> check(const ConnectionId& id, SeqNum irs, SeqNum cookie, Instant now) const;

 private:
  uint32_t hash(const ConnectionId& id, const SipKey& key, uint32_t minute) const;
  SipKey base_secret_;
  SipKey data_secret_;
};

/// What of a SYN travels in the timestamp.
struct CookieOptions {
  /// -1: the peer doesn't scale.
  int8_t window_scale = -1;
  bool sack_permitted = false;
  bool ecn = false;
  friend bool operator==(const CookieOptions&, const CookieOptions&) = default;
};
/// The clock's value with the options in its low bits; at most the clock's, so that timestamps don't run
/// ahead. `clock` is without a connection's offset.
uint32_t encode_cookie_timestamp(uint32_t clock, const CookieOptions& options);
/// What the peer's TSecr, less our offset, brings back.
CookieOptions decode_cookie_timestamp(uint32_t echo);

}  // namespace ustack::tcp
