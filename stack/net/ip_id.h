// The identification field of IPv4 (RFC 791; RFC 6864).
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/random.h"
#include "stack/base/siphash.h"
#include "stack/net/address.h"

namespace ustack {

/// Counts per destination (several may share a counter) from random starts, as Linux's ip_idents does: one
/// destination's numbers repeat as late as they can, and tell nobody how much goes to another. Lock: the
/// host's.
class IpIds {
 public:
  explicit IpIds(RandomSource& random) : key_(SipKey::random(random)) {
    random.fill(std::as_writable_bytes(std::span(next_)));
  }

  /// Which counter a destination has.
  uint8_t counter_of(const IpAddress& destination) const {
    return static_cast<uint8_t>(siphash(key_, Bytes(destination.data(), destination.size())));
  }
  /// The first of `count` consecutive numbers of a counter: a superframe takes one for each segment it will
  /// be cut into.
  uint16_t take(uint8_t counter, uint32_t count = 1) {
    uint16_t& next = next_[counter];
    uint16_t first = next;
    next = static_cast<uint16_t>(next + count);
    return first;
  }

 private:
  SipKey key_;
  std::array<uint16_t, 256> next_;
};

}  // namespace ustack
