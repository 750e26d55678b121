#include "stack/tcp/syn_cookies.h"

#include <array>
#include <cstring>

#include "stack/tcp/iss.h"

namespace ustack::tcp {

namespace {

// Linux's msstab: what is common on the net, so that little is lost by rounding down.
constexpr std::array<uint16_t, 4> kMssTable{536, 1300, 1440, 1460};
constexpr uint32_t kDataBits = 24, kDataMask = (1u << kDataBits) - 1;

// The timestamp's low bits: the window scale, 15 for none; SACK; ECN.
constexpr uint32_t kScaleMask = 15, kNoScale = 15, kSackBit = 1u << 4, kEcnBit = 1u << 5;
constexpr uint32_t kOptionBits = 6, kOptionMask = (1u << kOptionBits) - 1;

uint32_t minute_of(Instant now) { return static_cast<uint32_t>(now.time_since_epoch() / 60s); }

}  // namespace

SynCookies::SynCookies(RandomSource& random)
    : base_secret_(SipKey::random(random)), data_secret_(SipKey::random(random)) {}

uint32_t SynCookies::hash(const ConnectionId& id, const SipKey& key, uint32_t minute) const {
  std::array<std::byte, sizeof(TupleBytes) + 4> bytes;
  TupleBytes tuple = tuple_bytes(id);
  std::memcpy(bytes.data(), tuple.data(), tuple.size());
  store_be32(bytes.data() + tuple.size(), minute);
  return static_cast<uint32_t>(siphash(key, bytes));
}

SeqNum SynCookies::make(const ConnectionId& id, SeqNum irs, uint16_t mss, Instant now) const {
  uint32_t index = kMssTable.size() - 1;
  while (index > 0 && kMssTable[index] > mss) --index;
  uint32_t minute = minute_of(now);
  return irs + hash(id, base_secret_, 0) + (minute << kDataBits) +
         ((hash(id, data_secret_, minute) + index) & kDataMask);
}

std::optional<uint16_t> SynCookies::check(const ConnectionId& id, SeqNum irs, SeqNum cookie,
                                          Instant now) const {
  uint32_t minute = minute_of(now);
  uint32_t rest = cookie - (irs + hash(id, base_secret_, 0));
  uint32_t age = (minute - (rest >> kDataBits)) & (0xffffffff >> kDataBits);
  if (age >= kMaxAge) return std::nullopt;
  uint32_t index = (rest - hash(id, data_secret_, minute - age)) & kDataMask;
  if (index >= kMssTable.size()) return std::nullopt;
  return kMssTable[index];
}

uint32_t encode_cookie_timestamp(uint32_t clock, const CookieOptions& options) {
  uint32_t bits = options.window_scale < 0 ? kNoScale : static_cast<uint32_t>(options.window_scale);
  if (options.sack_permitted) bits |= kSackBit;
  if (options.ecn) bits |= kEcnBit;
  uint32_t stamp = (clock & ~kOptionMask) | bits;
  return stamp > clock ? stamp - (1u << kOptionBits) : stamp;
}

CookieOptions decode_cookie_timestamp(uint32_t echo) {
  CookieOptions options;
  uint32_t scale = echo & kScaleMask;
  if (scale != kNoScale) options.window_scale = static_cast<int8_t>(scale);
  options.sack_permitted = (echo & kSackBit) != 0;
  options.ecn = (echo & kEcnBit) != 0;
  return options;
}

}  // namespace ustack::tcp
