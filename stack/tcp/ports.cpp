#include "stack/tcp/ports.h"

#include <algorithm>
#include <cstring>

namespace ustack::tcp {

PortSelector::PortSelector(RandomSource& random)
    : offset_secret_(SipKey::random(random)), slot_secret_(SipKey::random(random)) {
  random.fill(std::as_writable_bytes(std::span(table_)));
}

PortSelector::Walk PortSelector::begin(const Settings& settings, const IpAddress& local,
                                       const SocketAddress& remote, int32_t range) const {
  std::array<std::byte, 34> key{};
  std::memcpy(key.data(), local.data(), 16);
  std::memcpy(key.data() + 16, remote.address.data(), 16);
  store_be16(key.data() + 32, remote.port);

  Walk walk{};
  int32_t first = std::clamp(settings.ip_local_port_range[0], 1, 65535);
  int32_t last = std::clamp(settings.ip_local_port_range[1], first, 65535);
  // inet_sk_get_local_port_range
  int32_t lowest = range & 0xffff, highest = static_cast<int32_t>(static_cast<uint32_t>(range) >> 16);
  const int32_t whole_first = first;
  if (lowest >= first && lowest <= last) first = lowest;
  if (highest >= whole_first && highest <= last) last = std::max(highest, first);
  walk.first = static_cast<uint32_t>(first);
  walk.count = static_cast<uint32_t>(last - first + 1);
  // RFC 6056, 3.3.4: offset = F(..., secret_key1), index = G(..., secret_key2).
  walk.offset = static_cast<uint32_t>(siphash(offset_secret_, key) % walk.count);
  walk.slot = static_cast<uint32_t>(siphash(slot_secret_, key) % table_.size());
  walk.counter = table_[walk.slot] % walk.count;
  return walk;
}

}  // namespace ustack::tcp
