#include "stack/tcp/rtt.h"

#include <algorithm>

namespace ustack::tcp {

namespace {

/// RFC 6298, 2: alpha = 1/8, beta = 1/4, K = 4.
constexpr int64_t kAlpha = 8, kBeta = 4, kK = 4;

void put_ms(LogLine& line, Duration d) {
  int64_t tenths = to_us(d) / 100;
  line << tenths / 10 << '.' << tenths % 10 << "ms";
}

}  // namespace

void RttEstimator::sample(Duration rtt, uint32_t expected_samples, Instant now) {
  rtt = std::max(rtt, Duration(1));
  latest_ = rtt;
  minimum_.add(rtt, now, minimum_window_);
  if (!has_sample()) {
    // RFC 6298, 2.2.
    srtt_ = rtt;
    rttvar_ = rtt / 2;
  } else {
    // RFC 6298, 2.3, with the weights of RFC 7323, appendix G.
    int64_t n = std::max<uint32_t>(expected_samples, 1);
    Duration deviation = srtt_ > rtt ? srtt_ - rtt : rtt - srtt_;
    rttvar_ += (deviation - rttvar_) / (kBeta * n);
    srtt_ += (rtt - srtt_) / (kAlpha * n);
  }
  rto_ = std::min(srtt_ + std::max(bounds.least, kK * rttvar_), bounds.most);
  back_off_ = 0;
}

Duration RttEstimator::rto() const {
  // 2 ms doubled 16 times is past every bound.
  uint32_t doublings = std::min(back_off_, 16u);
  return std::min(rto_ * (int64_t{1} << doublings), bounds.most);
}

void RttEstimator::fall_back() {
  if (has_sample()) return;
  rto_ = kFallbackRto;
  back_off_ = 0;
}

LogLine& operator<<(LogLine& line, const RttEstimator& rtt) {
  line << "srtt ";
  put_ms(line, rtt.srtt());
  line << " rttvar ";
  put_ms(line, rtt.rttvar());
  line << " rto ";
  put_ms(line, rtt.rto());
  return line;
}

}  // namespace ustack::tcp
