// The checksum of TCP and its like, which covers the addresses too.
#pragma once

#include "stack/base/checksum.h"
#include "stack/net/address.h"

namespace ustack {

/// The sum over the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1): both addresses, the
/// protocol number and the length of transport header and data. To be passed to Checksum or checksum_add.
inline uint32_t pseudo_header_sum(const IpAddress& source, const IpAddress& destination, uint8_t protocol,
                                  uint32_t length) {
  uint32_t sum = checksum_add(Bytes(source.data(), source.size()), 0);
  sum = checksum_add(Bytes(destination.data(), destination.size()), sum);
  std::byte tail[8] = {};
  store_be32(tail, length);
  tail[7] = std::byte{protocol};
  return checksum_add(Bytes(tail), sum);
}

}  // namespace ustack
