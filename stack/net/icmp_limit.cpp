#include "stack/net/icmp_limit.h"

#include <algorithm>

namespace ustack {

bool IcmpLimiter::allow(const IpAddress& destination) {
  if (!allow_any()) {
    ++context_.counters.IcmpOutRateLimitGlobal;
    return false;
  }
  if (!allow_destination(destination)) {
    ++context_.counters.IcmpOutRateLimitHost;
    return false;
  }
  return true;
}

bool IcmpLimiter::allow_any() {
  int64_t rate = context_.settings.icmp_msgs_per_sec, burst = context_.settings.icmp_msgs_burst;
  if (rate == 0) return false;
  Duration elapsed = started_ ? context_.now - filled_ : Duration(1s);
  started_ = true;
  // Linux saves up one second's worth at most.
  int64_t earned = std::min(elapsed, Duration(1s)).count() * rate / 1'000'000'000;
  credit_ = std::min(credit_ + earned, burst);
  // Only the time that has become whole tokens is used up.
  filled_ = elapsed >= 1s ? context_.now : filled_ + Duration(earned * 1'000'000'000 / rate);
  if (credit_ <= 0) return false;
  --credit_;
  return true;
}

bool IcmpLimiter::allow_destination(const IpAddress& destination) {
  Duration cost = std::chrono::milliseconds(context_.settings.icmp_ratelimit);
  if (cost <= Duration::zero()) return true;
  Bucket* bucket = table_.find(destination);
  if (bucket == nullptr) {
    if (table_.size() >= kMaxDestinations) table_.erase(*table_.oldest());
    bucket = table_.insert(destination);
    if (bucket == nullptr) return false;
    bucket->tokens = cost * kDestinationBurst;
    bucket->filled = context_.now;
  }
  table_.touch(*bucket);
  bucket->tokens = std::min(bucket->tokens + (context_.now - bucket->filled), cost * kDestinationBurst);
  bucket->filled = context_.now;
  if (bucket->tokens < cost) return false;
  bucket->tokens -= cost;
  return true;
}

}  // namespace ustack
