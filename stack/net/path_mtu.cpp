#include "stack/net/path_mtu.h"

#include <algorithm>
#include <array>

#include "stack/net/ipv6.h"

namespace ustack {

namespace {

/// RFC 1191, section 7.1: MTUs that are common, and their plateaus.
constexpr std::array<uint32_t, 11> kPlateaus{65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68};

uint32_t plateau_below(uint32_t mtu) {
  for (uint32_t plateau : kPlateaus)
    if (plateau < mtu) return plateau;
  return kPlateaus.back();
}

}  // namespace

uint32_t PathMtuCache::update(const IpAddress& remote, uint32_t reported, uint32_t link_mtu) {
  uint32_t current = find(remote, link_mtu);
  if (reported == 0) reported = plateau_below(current);
  // A forged report may make us send small packets, but not absurdly small ones.
  const uint32_t least =
      remote.is_v6() ? Ipv6Header::kLeastMtu : static_cast<uint32_t>(context_.settings.route_min_pmtu);
  uint32_t lowest = std::min(least, link_mtu);
  uint32_t mtu = std::max(reported, lowest);
  if (mtu >= current) return current;

  Entry* entry = table_.find(remote);
  if (entry == nullptr) {
    if (table_.size() >= kMaxEntries) table_.erase(*table_.oldest());
    entry = table_.insert(remote);
    if (entry == nullptr) return current;
  }
  table_.touch(*entry);
  entry->mtu = mtu;
  entry->expires = context_.now + std::chrono::seconds(context_.settings.route_mtu_expires);
  context_.log(LogLevel::info, [&](LogLine& line) { line << "path MTU to " << remote << " is " << mtu; });
  return mtu;
}

}  // namespace ustack
