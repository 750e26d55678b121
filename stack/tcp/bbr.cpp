#include "stack/tcp/bbr.h"

#include <algorithm>

namespace ustack::tcp {

namespace {

// Section 2.4, in 256ths.
constexpr uint32_t kUnit = 256;
constexpr uint32_t kStartupPacing = 709;  // 4 ln 2
constexpr uint32_t kStartupCwnd = 2 * kUnit;
constexpr uint32_t kDrainPacing = kUnit / 2;
constexpr uint32_t kDownPacing = kUnit * 90 / 100, kUpPacing = kUnit * 125 / 100;
constexpr uint32_t kCwnd = 2 * kUnit, kUpCwnd = kUnit * 225 / 100, kProbeRttCwnd = kUnit / 2;
// In hundredths.
constexpr uint32_t kPacingMargin = 1, kLossThreshold = 2, kBeta = 70, kHeadroom = 15;

constexpr uint8_t kFullBwRounds = 3, kLossEvents = 6, kDrainRounds = 3, kAggregationRounds = 5;
constexpr Duration kMinRttWindow = 10s, kProbeRttInterval = 5s, kProbeRttTime = 200ms;
constexpr Duration kUnknownRtt = 1ms, kLeastRtt = 1us;
constexpr uint32_t kMostProbeRounds = 63;

uint64_t part(uint64_t whole, uint32_t hundredths) {
  return whole / 100 * hundredths + whole % 100 * hundredths / 100;
}
uint64_t gained(uint64_t value, uint32_t gain) { return value / kUnit * gain + value % kUnit * gain / kUnit; }

/// Bytes that a rate moves in a time; 64 bits hold each step for rates up to 10^13.
uint64_t moved(uint64_t rate, Duration time) {
  constexpr uint64_t kSecond = 1'000'000'000, kThousand = 1000;
  if (time <= Duration(0)) return 0;
  auto ns = static_cast<uint64_t>(time.count());
  uint64_t rest = ns % kSecond;
  return rate * (ns / kSecond) + rate / kThousand * rest / (kSecond / kThousand) +
         rate % kThousand * rest / kSecond;
}

uint32_t saturated(uint64_t bytes) { return static_cast<uint32_t>(std::min<uint64_t>(bytes, 0x7fffffff)); }

uint64_t rate_of(const AckSample& sample) { return sample.rate.bytes_per_second(); }

/// 5.5.10.2, IsInflightTooHigh: of what was in flight when this sample's segment was sent.
bool too_much_lost(const AckSample& sample) {
  if (sample.ece) return true;
  uint64_t lost = sample.total_lost - std::min(sample.rate.prior_lost, sample.total_lost);
  return sample.rate.delivered > 0 && lost * 100 > uint64_t{sample.rate.tx_in_flight} * kLossThreshold;
}

}  // namespace

void Bbr::on_connected(uint32_t mss, bool syn_lost, Instant now) {
  mss_ = mss;
  ssthresh_ = kUnlimited;
  set_cwnd(syn_lost ? mss : CongestionControl::initial_window());
  pacing_rate_ = startup_rate(cwnd_, kUnknownRtt);
  aggregation_since_ = cycle_began_ = min_rtt_at_ = probe_rtt_min_at_ = now;
  random_ = static_cast<uint32_t>(now.time_since_epoch().count()) | 1;
  started_ = true;
}

uint64_t Bbr::bandwidth() const { return std::min(max_bw(), bw_shortterm_); }

uint32_t Bbr::pacing_gain() const {
  switch (state_) {
    case State::startup:
      return kStartupPacing;
    case State::drain:
      return kDrainPacing;
    case State::down:
      return kDownPacing;
    case State::up:
      return kUpPacing;
    default:
      return kUnit;
  }
}

uint32_t Bbr::cwnd_gain() const {
  switch (state_) {
    case State::up:
      return kUpCwnd;
    case State::probe_rtt:
      return kProbeRttCwnd;
    case State::startup:
    case State::drain:
      return kStartupCwnd;
    default:
      return kCwnd;
  }
}

uint32_t Bbr::random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  return random_;
}

/// 5.2.3: BBRUpdateOnACK.
void Bbr::on_ack(const AckSample& sample) {
  if (!started_) {  // chosen in the middle of a connection
    uint32_t cwnd = cwnd_;
    on_connected(mss_, false, sample.now);
    set_cwnd(cwnd);
    next_round_ = loss_round_ = sample.total_delivered;
    lost_at_round_ = sample.total_lost;
  }
  update_model(sample);
  set_pacing_rate(pacing_gain());
  set_cwnd_for(sample);
}

void Bbr::update_model(const AckSample& sample) {
  update_latest(sample);
  update_congestion(sample);
  update_aggregation(sample);
  check_full_bandwidth(sample);
  if (state_ == State::startup && full_bw_reached_) {
    state_ = State::drain;
    drain_rounds_ = 0;
  }
  if (state_ == State::drain) {
    if (round_start_) ++drain_rounds_;
    if (sample.in_flight <= inflight(kUnit) || drain_rounds_ > kDrainRounds) start_down(sample.now);
  }
  update_cycle(sample);
  update_min_rtt(sample);
  check_probe_rtt(sample);
  if (loss_round_start_) {
    bw_latest_ = rate_of(sample);
    inflight_latest_ = saturated(sample.rate.delivered);
    lost_at_round_ = sample.total_lost;
  }
}

/// 5.5.1.
void Bbr::update_round(const AckSample& sample) {
  round_start_ = sample.rate.delivered > 0 && sample.rate.prior_delivered >= next_round_;
  if (!round_start_) return;
  next_round_ = sample.total_delivered;
  if (rounds_since_probe_ < 0xffff) ++rounds_since_probe_;
}

void Bbr::update_latest(const AckSample& sample) {
  update_round(sample);
  bw_latest_ = std::max(bw_latest_, rate_of(sample));
  inflight_latest_ = std::max(inflight_latest_, saturated(sample.rate.delivered));
  loss_round_start_ = sample.rate.delivered > 0 && sample.rate.prior_delivered >= loss_round_;
  if (loss_round_start_) loss_round_ = sample.total_delivered;
}

/// 5.5.5 and 5.5.10.3.
void Bbr::update_congestion(const AckSample& sample) {
  uint64_t rate = rate_of(sample);
  if (rate > 0 && (rate >= max_bw() || !sample.rate.app_limited)) max_bw_[0] = std::max(max_bw_[0], rate);
  if (sample.lost > 0 || sample.ece) {
    if (!loss_in_round_) {
      loss_round_ = sample.total_delivered;
      loss_round_start_ = false;
      undo_longterm_ = inflight_longterm_;
    }
    loss_in_round_ = true;
    if (loss_events_ < 0xff) ++loss_events_;
  }
  if (!loss_round_start_) return;
  if (loss_in_round_ && !probing_up()) adapt_shortterm();
  if (state_ == State::startup && loss_in_round_ && loss_events_ >= kLossEvents &&
      (sample.total_lost - lost_at_round_) * 100 > uint64_t{inflight_latest_} * kLossThreshold) {
    // 5.3.1.3: Startup ends when loss persists.
    full_bw_reached_ = true;
    inflight_longterm_ = std::max(saturated(bdp(kUnit)), inflight_latest_);
  }
  loss_in_round_ = false;
  loss_events_ = 0;
}

void Bbr::adapt_shortterm() {
  if (bw_shortterm_ == ~uint64_t{0}) bw_shortterm_ = max_bw();
  if (inflight_shortterm_ == kUnlimited) inflight_shortterm_ = cwnd_;
  bw_shortterm_ = std::max(bw_latest_, part(bw_shortterm_, kBeta));
  inflight_shortterm_ = std::max(inflight_latest_, saturated(part(inflight_shortterm_, kBeta)));
}

void Bbr::reset_shortterm() {
  bw_shortterm_ = ~uint64_t{0};
  inflight_shortterm_ = kUnlimited;
}

void Bbr::reset_signals() {
  loss_in_round_ = false;
  loss_events_ = 0;
  bw_latest_ = 0;
  inflight_latest_ = 0;
}

/// 5.5.9: what the network acknowledges in bursts beyond its bandwidth needs as much more in flight.
void Bbr::update_aggregation(const AckSample& sample) {
  uint64_t expected = moved(bandwidth(), sample.now - aggregation_since_);
  if (aggregation_ <= expected) {
    aggregation_ = 0;
    aggregation_since_ = sample.now;
    expected = 0;
  }
  aggregation_ = saturated(uint64_t{aggregation_} + sample.acked);
  uint32_t extra = std::min(saturated(aggregation_ - expected), cwnd_);
  if (round_start_ && ++rounds_of_aggregation_ >= (full_bw_reached_ ? kAggregationRounds : 1)) {
    rounds_of_aggregation_ = 0;
    extra_acked_ = {0, extra_acked_[0]};
  }
  extra_acked_[0] = std::max(extra_acked_[0], extra);
}

// --- 5.3.1: Startup ---

void Bbr::reset_full_bandwidth(uint64_t from) {
  full_bw_ = from;
  full_bw_count_ = 0;
  full_bw_now_ = false;
}

void Bbr::check_full_bandwidth(const AckSample& sample) {
  if (full_bw_now_ || !round_start_ || sample.rate.app_limited) return;
  uint64_t rate = rate_of(sample);
  if (rate >= full_bw_ + full_bw_ / 4) {
    reset_full_bandwidth(rate);
    return;
  }
  full_bw_now_ = ++full_bw_count_ >= kFullBwRounds;
  if (full_bw_now_) full_bw_reached_ = true;
}

// --- 5.3.3: ProbeBW ---

void Bbr::update_cycle(const AckSample& sample) {
  if (!full_bw_reached_ || adapt_longterm(sample) || !in_probe_bw()) return;
  switch (state_) {
    case State::down:
      if (time_to_probe(sample.now)) return;
      if (sample.in_flight <= with_headroom() && sample.in_flight <= inflight(kUnit)) state_ = State::cruise;
      break;
    case State::cruise:
      time_to_probe(sample.now);
      break;
    case State::refill:
      if (round_start_) {
        probe_samples_ = true;
        start_up(sample);
      }
      break;
    case State::up:
      if (bound_limits(sample))
        reset_full_bandwidth(rate_of(sample));  // the bound is what limits: it is raised first
      else if (full_bw_now_)
        start_down(sample.now);
      break;
    default:
      break;
  }
}

void Bbr::start_down(Instant now) {
  reset_signals();
  probe_up_each_ = kUnlimited;
  // 5.3.3.5: 2 to 3 seconds, or as many round trips as Reno would take.
  rounds_since_probe_ = random() & 1;
  probe_wait_ = 2s + std::chrono::microseconds(random() % 1'000'000);
  cycle_began_ = now;
  probe_stopping_ = true;
  next_round_ = std::max(next_round_, loss_round_);
  state_ = State::down;
}

bool Bbr::time_to_probe(Instant now) {
  uint64_t reno_rounds = std::min<uint64_t>(bdp(kUnit) / mss_, kMostProbeRounds);
  if (now <= cycle_began_ + probe_wait_ && rounds_since_probe_ < reno_rounds) return false;
  start_refill();
  return true;
}

void Bbr::start_refill() {
  reset_shortterm();
  probe_up_rounds_ = 0;
  probe_up_acked_ = 0;
  probe_stopping_ = false;
  state_ = State::refill;
}

void Bbr::start_up(const AckSample& sample) {
  reset_full_bandwidth(rate_of(sample));
  cycle_began_ = sample.now;
  state_ = State::up;
  raise_slope();
}

/// 5.3.3.6, BBRAdaptLongTermModel. True: the phase has changed.
bool Bbr::adapt_longterm(const AckSample& sample) {
  if (probe_stopping_ && round_start_) {
    probe_stopping_ = probe_samples_ = false;
    if (in_probe_bw() && !sample.rate.app_limited) max_bw_ = {0, max_bw_[0]};
    if (max_bw_[0] == 0) max_bw_[0] = rate_of(sample);
  }
  if (too_much_lost(sample)) {
    if (!probe_samples_) return false;
    State before = state_;
    inflight_too_high(sample);
    return state_ != before;
  }
  if (inflight_longterm_ == kUnlimited) return false;
  inflight_longterm_ = std::max(inflight_longterm_, sample.rate.tx_in_flight);
  if (state_ == State::up) raise_longterm(sample);
  return false;
}

void Bbr::inflight_too_high(const AckSample& sample) {
  probe_samples_ = false;  // only once for each probe
  if (!sample.rate.app_limited) {
    uint64_t target = std::min<uint64_t>(bdp(kUnit), cwnd_);
    inflight_longterm_ = std::max(sample.rate.tx_in_flight, saturated(part(target, kBeta)));
  }
  if (state_ == State::up) start_down(sample.now);
}

/// The slope doubles each round trip.
void Bbr::raise_slope() {
  uint64_t growth = uint64_t{mss_} << probe_up_rounds_;
  probe_up_rounds_ = static_cast<uint8_t>(std::min(probe_up_rounds_ + 1, 30));
  probe_up_each_ = std::max(static_cast<uint32_t>(uint64_t{cwnd_} * mss_ / growth), mss_);
}

void Bbr::raise_longterm(const AckSample& sample) {
  if (!bound_limits(sample)) return;
  probe_up_acked_ += sample.acked;
  if (probe_up_acked_ >= probe_up_each_) {
    uint32_t times = probe_up_acked_ / probe_up_each_;
    probe_up_acked_ -= times * probe_up_each_;
    inflight_longterm_ = saturated(uint64_t{inflight_longterm_} + uint64_t{times} * mss_);
  }
  if (round_start_) raise_slope();
}

// --- 5.3.4: ProbeRTT ---

void Bbr::update_min_rtt(const AckSample& sample) {
  probe_rtt_expired_ = sample.now > probe_rtt_min_at_ + kProbeRttInterval;
  if (sample.rtt > Duration(0) &&
      (sample.rtt < probe_rtt_min_ || probe_rtt_min_ == Duration(0) || probe_rtt_expired_)) {
    probe_rtt_min_ = sample.rtt;
    probe_rtt_min_at_ = sample.now;
  }
  bool expired = sample.now > min_rtt_at_ + kMinRttWindow;
  if (probe_rtt_min_ > Duration(0) && (min_rtt_ == Duration(0) || probe_rtt_min_ < min_rtt_ || expired)) {
    min_rtt_ = probe_rtt_min_;
    min_rtt_at_ = probe_rtt_min_at_;
  }
}

void Bbr::check_probe_rtt(const AckSample& sample) {
  if (state_ != State::probe_rtt && probe_rtt_expired_ && !idle_restart_) {
    save_cwnd();
    state_ = State::probe_rtt;
    probe_rtt_done_at_ = Instant{};
    probe_stopping_ = true;
  }
  if (state_ == State::probe_rtt) {
    if (probe_rtt_done_at_ == Instant{} && sample.in_flight <= probe_rtt_cwnd()) {
      probe_rtt_done_at_ = sample.now + kProbeRttTime;
      probe_rtt_round_done_ = false;
      next_round_ = sample.total_delivered;
    } else if (probe_rtt_done_at_ != Instant{}) {
      if (round_start_) probe_rtt_round_done_ = true;
      if (probe_rtt_round_done_ && sample.now > probe_rtt_done_at_) exit_probe_rtt(sample.now);
    }
  }
  if (sample.acked > 0) idle_restart_ = false;
}

void Bbr::exit_probe_rtt(Instant now) {
  probe_rtt_min_at_ = now;
  set_cwnd(std::max(cwnd_, saved_cwnd_));
  reset_shortterm();
  if (full_bw_reached_) {
    start_down(now);
    state_ = State::cruise;
  } else {
    state_ = State::startup;
  }
}

// --- 5.6: pacing rate and cwnd ---

uint64_t Bbr::startup_rate(uint32_t window, Duration rtt) const {
  return gained(uint64_t{window} * 1'000'000'000 / static_cast<uint64_t>(rtt.count()), kStartupPacing);
}

void Bbr::set_pacing_rate(uint32_t gain) {
  if (!seen_rtt_ && min_rtt_ > Duration(0)) {
    seen_rtt_ = true;
    pacing_rate_ = startup_rate(initial_window(), std::max(min_rtt_, kLeastRtt));
  }
  uint64_t rate = part(gained(bandwidth(), gain), 100 - kPacingMargin);
  if (rate > 0 && (full_bw_reached_ || rate > pacing_rate_)) pacing_rate_ = rate;
}

uint64_t Bbr::bdp(uint32_t gain) const {
  if (min_rtt_ == Duration(0)) return initial_window();
  return gained(moved(bandwidth(), min_rtt_), gain);
}

/// 5.6.4.2, BBRQuantizationBudget: room for three bursts.
uint64_t Bbr::inflight(uint32_t gain) const {
  uint64_t burst = std::clamp<uint64_t>(pacing_rate_ / 1000, 2 * mss_, 64 * 1024);
  uint64_t bytes = std::max({bdp(gain), 3 * burst, uint64_t{least_cwnd()}});
  if (state_ == State::up) bytes += 2 * mss_;
  return bytes;
}

uint32_t Bbr::with_headroom() const {
  if (inflight_longterm_ == kUnlimited) return kUnlimited;
  auto headroom = std::max(mss_, static_cast<uint32_t>(part(inflight_longterm_, kHeadroom)));
  return inflight_longterm_ > headroom + least_cwnd() ? inflight_longterm_ - headroom : least_cwnd();
}

uint32_t Bbr::probe_rtt_cwnd() const { return std::max(saturated(bdp(kProbeRttCwnd)), least_cwnd()); }

void Bbr::set_cwnd_for(const AckSample& sample) {
  uint64_t most = inflight(cwnd_gain()) + std::max(extra_acked_[0], extra_acked_[1]);
  uint64_t cwnd = cwnd_;
  if (sample.in_loss && after_rto_) {
    cwnd += sample.acked;
  } else if (full_bw_reached_) {
    cwnd = std::min(cwnd + sample.acked, most);
  } else if (cwnd < most || sample.total_delivered < initial_window()) {
    cwnd += sample.acked;
  }
  cwnd = std::max<uint64_t>(cwnd, least_cwnd());
  if (state_ == State::probe_rtt) cwnd = std::min<uint64_t>(cwnd, probe_rtt_cwnd());
  // 5.6.4.7, BBRBoundCwndForModel.
  uint32_t cap = kUnlimited;
  if (in_probe_bw() && state_ != State::cruise)
    cap = inflight_longterm_;
  else if (state_ == State::probe_rtt || state_ == State::cruise)
    cap = with_headroom();
  cap = std::max(std::min(cap, inflight_shortterm_), least_cwnd());
  set_cwnd(saturated(std::min<uint64_t>(cwnd, cap)));
}

void Bbr::save_cwnd() {
  saved_cwnd_ = after_rto_ || state_ == State::probe_rtt ? std::max(saved_cwnd_, cwnd_) : cwnd_;
}

// --- what the sender tells besides ---

void Bbr::on_congestion_event(CongestionCause, uint32_t, Instant) { remember(); }

void Bbr::on_rto(uint32_t, bool repeated, Instant) {
  if (!repeated) remember();
  save_cwnd();
  after_rto_ = true;
  if (!probing_up() && inflight_shortterm_ == kUnlimited) inflight_shortterm_ = std::max(cwnd_, saved_cwnd_);
}

void Bbr::on_recovery_exit(uint32_t, Instant) {
  if (after_rto_) set_cwnd(std::max(cwnd_, saved_cwnd_));
  after_rto_ = false;
}

/// 5.5.10.4: the loss was none.
void Bbr::on_undo(Instant) {
  loss_in_round_ = false;
  reset_full_bandwidth(0);
  reset_shortterm();
  inflight_longterm_ = std::max(inflight_longterm_, undo_longterm_);
  set_cwnd(std::max(cwnd_, prior_cwnd_));
  after_rto_ = false;
}

/// The model says how fast to begin again.
void Bbr::on_idle_restart(Duration, Duration, Instant) {}

/// 5.4.1, BBRHandleRestartFromIdle.
void Bbr::on_transmit_start(Duration, Instant now) {
  if (!started_) return;
  idle_restart_ = true;
  aggregation_since_ = now;
  aggregation_ = 0;
  if (in_probe_bw())
    set_pacing_rate(kUnit);
  else if (state_ == State::probe_rtt && probe_rtt_done_at_ != Instant{} && now > probe_rtt_done_at_)
    exit_probe_rtt(now);
}

}  // namespace ustack::tcp
