// BBR, version 3 (draft-ietf-ccwg-bbr): a model of the path, its bandwidth and its round trip, instead of
// loss, says how fast to send and how much may be in flight.
//
//   startup --full bandwidth--> drain --queue is gone--> probe_bw: down -> cruise -> refill -> up -.
//                                                                   ^                              |
//      probe_rtt <--no smaller round trip for 5 s-- any             '------------------------------'
//
// As Linux's version it judges loss by the samples of ACKs, not by each lost segment (the draft's 5.5.10.2),
// and keeps cwnd in fast recovery, where the model's bounds hold. An echo of congestion (RFC 3168), which the
// draft leaves open, counts like too much loss in the round trip.
#pragma once

#include <array>

#include "stack/tcp/congestion.h"

namespace ustack::tcp {

class Bbr final : public CongestionControl {
 public:
  enum class State : uint8_t { startup, drain, down, cruise, refill, up, probe_rtt };

  std::string_view name() const override { return "bbr"; }
  void on_connected(uint32_t mss, bool syn_lost, Instant now) override;
  void on_ack(const AckSample& sample) override;
  void on_congestion_event(CongestionCause cause, uint32_t in_flight, Instant now) override;
  void on_rto(uint32_t in_flight, bool repeated, Instant now) override;
  void on_recovery_exit(uint32_t in_flight, Instant now) override;
  void on_undo(Instant now) override;
  void on_idle_restart(Duration idle, Duration rto, Instant now) override;
  void on_transmit_start(Duration idle, Instant now) override;
  uint64_t pacing_rate() const override { return pacing_rate_; }
  bool controls_cwnd() const override { return true; }

  /// For people, tests and TCP_CC_INFO. Bytes a second; gains in 256ths.
  State state() const { return state_; }
  uint64_t bandwidth() const;
  Duration min_rtt() const { return min_rtt_; }
  uint32_t pacing_gain() const;
  uint32_t cwnd_gain() const;
  uint32_t inflight_longterm() const { return inflight_longterm_; }

 private:
  // 5.5: the model.
  void update_model(const AckSample& sample);
  void update_round(const AckSample& sample);
  void update_latest(const AckSample& sample);
  void update_congestion(const AckSample& sample);
  void adapt_shortterm();
  void update_aggregation(const AckSample& sample);
  void check_full_bandwidth(const AckSample& sample);
  void reset_full_bandwidth(uint64_t from);
  void reset_shortterm();
  void reset_signals();

  // 5.3: the states.
  void update_cycle(const AckSample& sample);
  bool adapt_longterm(const AckSample& sample);
  void raise_longterm(const AckSample& sample);
  void raise_slope();
  void inflight_too_high(const AckSample& sample);
  void start_down(Instant now);
  void start_refill();
  void start_up(const AckSample& sample);
  bool time_to_probe(Instant now);
  void update_min_rtt(const AckSample& sample);
  void check_probe_rtt(const AckSample& sample);
  void exit_probe_rtt(Instant now);
  bool probing_up() const {
    return state_ == State::startup || state_ == State::refill || state_ == State::up;
  }
  bool in_probe_bw() const { return state_ >= State::down && state_ <= State::up; }

  // 5.6: what follows from it.
  void set_pacing_rate(uint32_t gain);
  void set_cwnd_for(const AckSample& sample);
  uint64_t bdp(uint32_t gain) const;
  uint64_t inflight(uint32_t gain) const;
  uint32_t with_headroom() const;
  uint32_t probe_rtt_cwnd() const;
  uint32_t least_cwnd() const { return 4 * mss_; }
  void save_cwnd();
  uint32_t random();
  uint64_t max_bw() const { return max_bw_[0] > max_bw_[1] ? max_bw_[0] : max_bw_[1]; }
  /// 5.6.2: until there is a bandwidth, what the first window makes of a round trip.
  uint64_t startup_rate(uint32_t window, Duration rtt) const;
  /// cwnd limits what is sent, and the long-term bound that.
  bool bound_limits(const AckSample& sample) const {
    return sample.prior_in_flight + mss_ >= cwnd_ && cwnd_ >= inflight_longterm_;
  }

  // Bytes a second.
  std::array<uint64_t, 2> max_bw_{};  // of this cycle and of the one before
  uint64_t bw_shortterm_ = ~uint64_t{0};
  uint64_t bw_latest_ = 0;
  uint64_t full_bw_ = 0;
  uint64_t pacing_rate_ = 0;
  // Counts of delivered bytes.
  uint64_t next_round_ = 0;
  uint64_t loss_round_ = 0;
  uint64_t lost_at_round_ = 0;

  Instant cycle_began_{};
  Instant min_rtt_at_{};
  Instant probe_rtt_min_at_{};
  Instant probe_rtt_done_at_{};  // zero: not known yet
  Instant aggregation_since_{};
  Duration min_rtt_{0};
  Duration probe_rtt_min_{0};
  Duration probe_wait_{0};

  // Bytes.
  uint32_t inflight_latest_ = 0;
  uint32_t inflight_longterm_ = kUnlimited;
  uint32_t inflight_shortterm_ = kUnlimited;
  uint32_t undo_longterm_ = kUnlimited;
  uint32_t saved_cwnd_ = 0;
  std::array<uint32_t, 2> extra_acked_{};  // the most of these rounds and of those before
  uint32_t aggregation_ = 0;
  uint32_t probe_up_each_ = 0;  // acknowledged for one MSS more of inflight_longterm_
  uint32_t probe_up_acked_ = 0;

  uint32_t random_ = 0;
  uint16_t rounds_since_probe_ = 0;
  uint8_t rounds_of_aggregation_ = 0;
  uint8_t drain_rounds_ = 0;
  uint8_t full_bw_count_ = 0;
  uint8_t probe_up_rounds_ = 0;
  uint8_t loss_events_ = 0;

  State state_ = State::startup;
  bool started_ : 1 = false;
  bool seen_rtt_ : 1 = false;
  bool round_start_ : 1 = false;
  bool loss_round_start_ : 1 = false;
  bool loss_in_round_ : 1 = false;
  bool full_bw_now_ : 1 = false;
  bool full_bw_reached_ : 1 = false;
  bool probe_samples_ : 1 = false;
  bool probe_stopping_ : 1 = false;  // ACKs of what was sent before the probe's end still come
  bool idle_restart_ : 1 = false;
  bool probe_rtt_expired_ : 1 = false;
  bool probe_rtt_round_done_ : 1 = false;
  bool after_rto_ : 1 = false;
};

}  // namespace ustack::tcp
