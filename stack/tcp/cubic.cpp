#include "stack/tcp/cubic.h"

#include <algorithm>

namespace ustack::tcp {

namespace {

/// The largest whole number whose cube is not above `value`.
uint64_t cube_root(uint64_t value) {
  uint64_t root = 0;
  for (int bit = 20; bit >= 0; --bit) {
    uint64_t larger = root | uint64_t{1} << bit;
    if (larger * larger * larger <= value) root = larger;
  }
  return root;
}

// beta_cubic = 0.7 (RFC 9438, 4.6); C = 0.4 segments per second cubed (5.1), here in 1 / (ms^3 * 2.5e9).
constexpr uint64_t kCubesPerSegment = 2'500'000'000;
uint32_t times_beta(uint32_t bytes) { return static_cast<uint32_t>(uint64_t{bytes} * 7 / 10); }

}  // namespace

void Cubic::on_connected(uint32_t mss, bool syn_lost, Instant) {
  start(mss, syn_lost);
  curve_ = before_ = {};
  hystart_ = {};
  owed_ = reno_owed_ = 0;
}

void Cubic::on_ack(const AckSample& sample) {
  if (sample.in_recovery) return;
  uint32_t acked = sample.acked;
  if (in_slow_start()) {
    // HyStart++ is for the initial slow start (RFC 9406, 4.3); later ones know ssthresh. Its limit L (4.2) is
    // left out as slow_start() says.
    bool initial = ssthresh_ == kUnlimited && !after_rto();
    if (sample.cwnd_limited) acked = slow_start(initial ? hystart_.growth(acked) : acked);
    if (initial) {
      hystart_.on_ack(sample);
      if (hystart_.phase() == HyStart::Phase::done) ssthresh_ = cwnd_;
    }
    if (in_slow_start()) return;
  }
  if (acked == 0 || !sample.cwnd_limited) return;
  avoid_congestion(acked, sample);
}

void Cubic::begin_epoch(Instant now) {
  curve_.epoch = now;
  curve_.w_est = cwnd_;
  owed_ = reno_owed_ = 0;
  if (cwnd_ < curve_.w_max) {
    // Equation 2: K = cbrt((W_max - cwnd_epoch) / C).
    curve_.k = static_cast<int64_t>(cube_root(uint64_t{curve_.w_max - cwnd_} * kCubesPerSegment / mss_));
    curve_.origin = curve_.w_max;
  } else {
    // 4.8, 4.10: "K is set to 0, and W_max is set to the congestion window size at the beginning of the
    // current congestion avoidance stage."
    curve_.k = 0;
    curve_.origin = cwnd_;
  }
}

uint64_t Cubic::window_at(Duration since_epoch) const {
  // Equation 1: W_cubic(t) = C * (t - K)^3 + W_max.
  constexpr int64_t kFarthest = 500'000;  // so that nothing overflows; long beyond any clamp
  int64_t from_k = std::clamp(to_ms(since_epoch) - curve_.k, -kFarthest, kFarthest);
  auto distance = static_cast<uint64_t>(from_k < 0 ? -from_k : from_k);
  uint64_t bytes = distance * distance * distance / 2500 * mss_ / (kCubesPerSegment / 2500);
  if (from_k < 0) return bytes < curve_.origin ? curve_.origin - bytes : 0;
  return curve_.origin + bytes;
}

void Cubic::avoid_congestion(uint32_t acked, const AckSample& sample) {
  if (curve_.epoch == kNever) begin_epoch(sample.now);
  Duration t = sample.now - curve_.epoch;

  // 4.3: the window that Reno would have. alpha is 3 * (1 - beta) / (1 + beta) = 9/17 until it has come to
  // where the last reduction was, then 1.
  reno_owed_ += uint64_t{acked} * mss_ * (curve_.w_est < curve_.cwnd_prior ? 9 : 17);
  curve_.w_est += reno_owed_ / (uint64_t{cwnd_} * 17);
  reno_owed_ %= uint64_t{cwnd_} * 17;

  // 4.2: "target" is W_cubic(t + RTT), at least cwnd and at most 1.5 cwnd.
  uint64_t target = std::clamp<uint64_t>(window_at(t + sample.srtt), cwnd_, cwnd_ + uint64_t{cwnd_} / 2);
  owed_ += acked * (target - cwnd_);
  uint64_t larger = cwnd_ + owed_ / cwnd_;
  owed_ %= cwnd_;
  // "When W_cubic(t) is less than W_est, the sender is in the Reno-friendly region and cwnd SHOULD be set to
  // W_est."
  if (window_at(t) < curve_.w_est) larger = std::max(larger, curve_.w_est);
  set_cwnd(static_cast<uint32_t>(std::min<uint64_t>(larger, kUnlimited)));
}

void Cubic::reduce(uint32_t in_flight) {
  remember();
  before_ = curve_;
  // 4.7, fast convergence: who meets congestion below W_max leaves room for newcomers.
  curve_.w_max = cwnd_ < curve_.w_max ? static_cast<uint32_t>(uint64_t{cwnd_} * 17 / 20) : cwnd_;
  curve_.cwnd_prior = cwnd_;
  curve_.epoch = kNever;
  ssthresh_ = std::max(times_beta(in_flight), 2 * mss_);
}

void Cubic::on_congestion_event(CongestionCause, uint32_t in_flight, Instant) { reduce(in_flight); }

void Cubic::on_rto(uint32_t in_flight, bool repeated, Instant) {
  if (!repeated) reduce(in_flight);
  // 4.8: the next stage of congestion avoidance begins with K = 0.
  curve_.w_max = 0;
  curve_.epoch = kNever;
  lose_all();
}

void Cubic::on_undo(Instant now) {
  LossBased::on_undo(now);
  curve_ = before_;
}

void Cubic::on_transmit_start(Duration idle, Instant now) {
  // 5.8: time in which the program had nothing to send must not make the window jump.
  if (curve_.epoch == kNever || idle <= Duration(0)) return;
  curve_.epoch = std::min(curve_.epoch + idle, now);
}

}  // namespace ustack::tcp
