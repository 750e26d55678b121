#include "stack/tcp/fast_open.h"

#include <algorithm>
#include <cstring>

namespace ustack::tcp {

namespace {

uint64_t load_le64(const std::byte* p) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | std::to_integer<uint64_t>(p[i]);
  return value;
}

}  // namespace

bool FastOpenKeys::set(Bytes keys) {
  if (keys.size() != kKeyBytes && keys.size() != 2 * kKeyBytes) return false;
  std::copy(keys.begin(), keys.end(), bytes.begin());
  count = static_cast<uint8_t>(keys.size() / kKeyBytes);
  return true;
}

FastOpenCookie FastOpenKeys::make(const IpAddress& client, const IpAddress& server, uint32_t key) const {
  std::array<std::byte, 32> addresses;
  uint32_t size = client.size();
  std::memcpy(addresses.data(), client.data(), size);
  std::memcpy(addresses.data() + size, server.data(), size);
  const std::byte* secret = bytes.data() + key * kKeyBytes;
  uint64_t hash = siphash(SipKey{load_le64(secret), load_le64(secret + 8)}, Bytes(addresses).first(2 * size));
  FastOpenCookie cookie;
  cookie.length = 8;
  for (uint32_t i = 0; i < 8; ++i) cookie.bytes[i] = static_cast<std::byte>(hash >> (8 * i));
  return cookie;
}

FastOpenKeys::Match FastOpenKeys::check(const FastOpenCookie& cookie, const IpAddress& client,
                                        const IpAddress& server) const {
  for (uint32_t key = 0; key < count; ++key) {
    FastOpenCookie ours = make(client, server, key);
    if (cookie.length == ours.length && std::ranges::equal(cookie.view(), ours.view()))
      return key == 0 ? Match::primary : Match::backup;
  }
  return Match::none;
}

bool FastOpenCache::usable(const IpAddress& server) const {
  if (context_.now < disabled_until_) return false;
  const Entry* entry = table_.find(server);
  // Linux's tcp_fastopen_cookie_check: after a second loss in a row, for a minute doubled by each.
  if (entry == nullptr || entry->syn_losses < 2) return true;
  return context_.now - entry->last_loss >= 60s * (int64_t{1} << std::min(entry->syn_losses, 16u));
}

void FastOpenCache::learn(const IpAddress& server, const std::optional<FastOpenCookie>& cookie, uint16_t mss,
                          bool syn_lost) {
  Entry* entry = table_.find(server);
  if (entry == nullptr) {
    if (table_.size() >= kMaxEntries) table_.erase(*table_.oldest());
    entry = table_.insert(server);
    if (entry == nullptr) return;
  }
  table_.touch(*entry);
  entry->mss = mss;
  if (cookie && cookie->length > 0) entry->cookie = *cookie;
  if (syn_lost) {
    ++entry->syn_losses;
    entry->last_loss = context_.now;
  } else {
    entry->syn_losses = 0;
  }
}

void FastOpenCache::note_black_hole() {
  ++context_.counters.TcpExtTCPFastOpenBlackhole;
  Duration pause = std::chrono::seconds(context_.settings.tcp_fastopen_blackhole_timeout_sec);
  if (pause == Duration(0)) return;
  // Linux's tcp_fastopen_active_should_disable: doubled up to 64 times.
  disabled_until_ = context_.now + pause * (int64_t{1} << std::min(black_holes_, 6u));
  ++black_holes_;
}

}  // namespace ustack::tcp
