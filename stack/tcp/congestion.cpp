#include "stack/tcp/congestion.h"

#include <algorithm>
#include <new>

#include "stack/tcp/bbr.h"
#include "stack/tcp/cubic.h"
#include "stack/tcp/reno.h"

namespace ustack::tcp {

namespace {

template <typename Algorithm>
CongestionControl* construct(void* storage) {
  static_assert(sizeof(Algorithm) <= CongestionSlot::kBytes && alignof(Algorithm) <= 16);
  return new (storage) Algorithm();
}

/// The first is the default.
constexpr CongestionAlgorithm kAlgorithms[] = {
    {"cubic", construct<Cubic>},
    {"reno", construct<Reno>},
    {"bbr", construct<Bbr>},
};

}  // namespace

std::span<const CongestionAlgorithm> congestion_algorithms() { return kAlgorithms; }

const CongestionAlgorithm* find_congestion_algorithm(std::string_view name) {
  for (const CongestionAlgorithm& algorithm : kAlgorithms)
    if (algorithm.name == name) return &algorithm;
  return nullptr;
}

void CongestionControl::on_undo(Instant) {
  cwnd_ = std::max(cwnd_, prior_cwnd_);
  ssthresh_ = std::max(ssthresh_, prior_ssthresh_);
}

void CongestionControl::on_idle_restart(Duration idle, Duration rto, Instant) {
  // RFC 2861, 3.1: remember three quarters of what was possible; then halve for each RTO.
  ssthresh_ = std::max(ssthresh_, cwnd_ / 4 * 3);
  // RFC 5681, 4.1: RW = min(IW, cwnd).
  uint32_t restart_window = std::min(initial_window(), cwnd_);
  for (; idle >= rto && cwnd_ > restart_window && rto > Duration(0); idle -= rto) cwnd_ /= 2;
  cwnd_ = std::max(cwnd_, restart_window);
}

void CongestionControl::on_transmit_start(Duration, Instant) {}

void CongestionControl::set_mss(uint32_t mss) {
  // As many segments as before (Linux counts cwnd in segments).
  auto rescale = [&](uint32_t bytes) {
    return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{bytes} * mss / mss_, kUnlimited));
  };
  cwnd_ = std::max(rescale(cwnd_), mss);
  if (ssthresh_ != kUnlimited) ssthresh_ = std::max(rescale(ssthresh_), 2 * mss);
  mss_ = mss;
}

uint32_t CongestionControl::initial_window() const { return tcp::initial_window(mss_); }

CongestionSlot::CongestionSlot() : control_(kAlgorithms[0].construct(storage_.data())) {}

Status CongestionSlot::select(std::string_view name) {
  const CongestionAlgorithm* algorithm = find_congestion_algorithm(name);
  if (algorithm == nullptr) return Error{ENOENT};
  uint32_t mss = control_->mss_, cwnd = control_->cwnd_, ssthresh = control_->ssthresh_;
  uint32_t prior_cwnd = control_->prior_cwnd_, prior_ssthresh = control_->prior_ssthresh_;
  control_ = algorithm->construct(storage_.data());
  control_->mss_ = mss;
  control_->cwnd_ = cwnd;
  control_->ssthresh_ = ssthresh;
  control_->prior_cwnd_ = prior_cwnd;
  control_->prior_ssthresh_ = prior_ssthresh;
  return {};
}

LogLine& operator<<(LogLine& line, const CongestionControl& control) {
  return line << control.name() << " cwnd " << control.cwnd() << " ssthresh " << control.ssthresh();
}

}  // namespace ustack::tcp
