#include "stack/tcp/iss.h"

#include <array>
#include <cstring>

namespace ustack::tcp {

namespace {

/// Both addresses and, where they matter, both ports as one run of bytes.
using Tuple = std::array<std::byte, 36>;
Tuple tuple(const IpAddress& local, const IpAddress& remote) {
  Tuple bytes{};
  std::memcpy(bytes.data(), local.data(), 16);
  std::memcpy(bytes.data() + 16, remote.data(), 16);
  return bytes;
}

}  // namespace

IssGenerator::IssGenerator(RandomSource& random)
    : secret_(SipKey::random(random)), timestamp_secret_(SipKey::random(random)) {}

SeqNum IssGenerator::iss(const ConnectionId& id, Instant now) const {
  Tuple bytes = tuple(id.local.address, id.remote.address);
  store_be16(bytes.data() + 32, id.local.port);
  store_be16(bytes.data() + 34, id.remote.port);
  // RFC 6528, 3: M is the 4 microsecond timer.
  auto m = static_cast<uint32_t>(now.time_since_epoch() / 4us);
  return SeqNum(m + static_cast<uint32_t>(siphash(secret_, bytes)));
}

uint32_t IssGenerator::timestamp_offset(const IpAddress& local, const IpAddress& remote) const {
  return static_cast<uint32_t>(siphash(timestamp_secret_, tuple(local, remote)));
}

}  // namespace ustack::tcp
