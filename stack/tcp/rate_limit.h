// So many a second, and no more.
#pragma once

#include <cstdint>

#include "stack/base/random.h"
#include "stack/base/time.h"

namespace ustack::tcp {

/// What is left of a second's allowance. Lock: the host's.
class RateLimit {
 public:
  /// Whether one more may be had at `now`. `limit` a second; INT32_MAX: as many as you like.
  bool allow(int32_t limit, Instant now) {
    return take(limit, now, [&] { return static_cast<uint32_t>(limit); });
  }
  /// The same, but a second's allowance is between half of `limit` and one and a half times as much, so that
  /// nobody learns from what is left what others have had (CVE-2016-5696; Linux's tcp_send_challenge_ack).
  bool allow_unpredictably(int32_t limit, Instant now, RandomSource& random) {
    return take(limit, now, [&] {
      auto wanted = static_cast<uint32_t>(limit);
      return wanted == 0 ? 0 : (wanted + 1) / 2 + random.u32() % wanted;
    });
  }

 private:
  template <typename Allowance>
  bool take(int32_t limit, Instant now, Allowance&& allowance) {
    if (limit == INT32_MAX) return true;
    if (!started_ || now - since_ >= 1s) {
      started_ = true;
      since_ = now;
      left_ = allowance();
    }
    if (left_ == 0) return false;
    --left_;
    return true;
  }

  Instant since_{};
  uint32_t left_ = 0;
  bool started_ = false;
};

}  // namespace ustack::tcp
