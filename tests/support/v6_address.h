// Addresses of IPv6 for tests.
#pragma once

#include <cstdint>

#include "stack/net/address.h"

namespace ustack::test {

/// FIRST:SECOND::LAST: v6(0x2001, 0xdb8, 1) is 2001:db8::1.
inline IpAddress v6(uint16_t first, uint16_t second, uint16_t last) {
  std::byte bytes[16] = {};
  store_be16(bytes, first);
  store_be16(bytes + 2, second);
  store_be16(bytes + 14, last);
  return IpAddress::from_bytes(Family::ipv6, bytes);
}

}  // namespace ustack::test
