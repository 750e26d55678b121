#include "stack/tcp/iss.h"

#include <cstring>

namespace ustack::tcp {

TupleBytes tuple_bytes(const ConnectionId& id) {
  TupleBytes bytes{};
  std::memcpy(bytes.data(), id.local.address.data(), 16);
  std::memcpy(bytes.data() + 16, id.remote.address.data(), 16);
  store_be16(bytes.data() + 32, id.local.port);
  store_be16(bytes.data() + 34, id.remote.port);
  return bytes;
}

IssGenerator::IssGenerator(RandomSource& random)
    : secret_(SipKey::random(random)), timestamp_secret_(SipKey::random(random)) {}

SeqNum IssGenerator::iss(const ConnectionId& id, Instant now) const {
  // RFC 6528, 3: M is the 4 microsecond timer.
  auto m = static_cast<uint32_t>(now.time_since_epoch() / 4us);
  return SeqNum(m + static_cast<uint32_t>(siphash(secret_, tuple_bytes(id))));
}

uint32_t IssGenerator::timestamp_offset(const IpAddress& local, const IpAddress& remote) const {
  return static_cast<uint32_t>(siphash(timestamp_secret_, tuple_bytes({{local, 0}, {remote, 0}})));
}

}  // namespace ustack::tcp
