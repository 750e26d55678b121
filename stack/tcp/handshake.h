// The three-way handshake, for active and passive opens alike. The seed's `handshake`.
//
//            SYN_SENT ----SYN----> SYN_RCVD        active: reset_state(), execute()
//               |                     |            passive: reset_to_syn_rcvd(), execute()
//               |<-----SYN,ACK--------|            simultaneous: SYN_SENT gets a SYN and becomes SYN_RCVD
//            COMPLETED ---ACK---> COMPLETED
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/result.h"
#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/tcp/header.h"
#include "stack/tcp/options.h"
#include "stack/tcp/window.h"

namespace ustack {
class TxFrame;
}

namespace ustack::tcp {

class Endpoint;
class Segment;

/// State of one handshake; lives on its endpoint's fiber while that runs execute(). It waits by the
/// endpoint's own sleeper, wakers and retransmission timer, so that nothing refers to what is on the fiber's
/// stack.
class Handshake {
 public:
  enum class State : uint8_t { syn_sent, syn_rcvd, completed };
  /// The time-out of a SYN or SYN-ACK starts at 1 s (RFC 6298, 2.1) and doubles. When it would pass 60 s the
  /// attempt has failed: after 1 + 2 + 4 + 8 + 16 + 32 = 63 s and six SYNs. tcp_syn_retries (6 more than the
  /// first, of which that leaves five), tcp_synack_retries (5) and TCP_SYNCNT end it sooner if they are less;
  /// a larger TCP_SYNCNT, which a program has asked for, goes on with 60 s each.
  static constexpr Duration kFirstTimeout = 1s, kLastTimeout = 60s;

  /// An active open by default. Takes MSS and window from the endpoint's route and options.
  explicit Handshake(Endpoint& endpoint);
  Handshake(const Handshake&) = delete;
  Handshake& operator=(const Handshake&) = delete;

  /// Back to SYN-SENT with a new initial sequence number.
  void reset_state();
  /// To SYN-RCVD: the peer's SYN has come, with these options and this (never scaled) window.
  void reset_to_syn_rcvd(SeqNum iss, SeqNum irs, const SynOptions& options, uint32_t window);
  /// After reset_to_syn_rcvd(): the SYN was an ECN-setup SYN (RFC 3168, 6.1.1).
  void accept_ecn();
  /// Sends the SYN-ACK of a SYN cookie, once, after reset_to_syn_rcvd(cookie, ...).
  void send_cookie();
  /// The ACK that has brought the cookie back completes the handshake, after reset_to_syn_rcvd(cookie, ...).
  void take_cookie(Segment& ack);
  /// After reset_to_syn_rcvd(): the SYN had a good Fast Open cookie, so its data is taken and answered before
  /// the handshake is complete (RFC 7413, 4.2.2).
  void open_early(Segment& syn);
  /// Waits until the next hop's link address is known. EHOSTUNREACH, ECONNABORTED (closed meanwhile), ...
  Status resolve_route();
  /// Runs the handshake to its end; waits on the endpoint's fiber. On success the endpoint's Tcb is
  /// ESTABLISHED, and what the last segment carried besides is first in its queue again. Active: ETIMEDOUT,
  /// ECONNREFUSED (RST), an ICMP error's errno, ECONNABORTED (closed meanwhile). Passive: the same; nobody is
  /// told.
  Status execute();

  State state() const { return state_; }
  bool active() const { return active_; }

 private:
  Status on_resend();
  Status on_notification();
  Status process_segments();
  Status process(Segment& segment);
  Status syn_sent_state(Segment& segment);
  Status syn_rcvd_state(Segment& segment);
  bool unacceptable_in_syn_rcvd(const Segment& segment);
  Status ask_listener(const Segment& segment);
  void choose_window(uint32_t mss);
  void negotiate(const SynOptions& peer);
  void fill_tcb(const Segment& segment);
  std::optional<Duration> round_trip(const Segment& segment) const;
  void complete(Segment& segment);
  bool acknowledges_syn(const Segment& segment) const;
  bool limited_answer();

  // handshake_fast_open.cpp
  void add_syn_data(SynOptions& options, TxFrame& frame);
  void take_fast_open_answer(const Segment& segment);
  void note_fast_open_timeout(bool expired);

  void send_syn();
  void send_ack();
  void send_reset(const Segment& segment);
  SynOptions syn_options() const;
  void enter(State state);
  uint32_t retry_limit() const;

  Endpoint& ep_;
  State state_ = State::syn_sent;
  bool active_ = true;
  Flags flags_;
  /// The peer's initial sequence number + 1: RCV.NXT.
  SeqNum ack_num_;
  SeqNum iss_;
  SeqNum irs_;
  /// What we offer: the window field of the SYN (never scaled) and the shift count.
  InitialWindow rcv_window_;
  /// The peer's window, in bytes.
  uint32_t snd_wnd_ = 0;
  /// The peer's MSS option or the default.
  uint16_t mss_ = 0;
  /// What we announce: from the route's MTU.
  uint16_t own_mss_ = 0;
  /// The peer's shift count; negative: it doesn't scale.
  int snd_wnd_scale_ = -1;
  /// Ours; negative: not announced.
  int rcv_wnd_scale_ = -1;
  bool timestamps_ = true;
  bool sack_ = true;
  /// We ask for ECN, or grant it.
  bool ecn_ = false;
  uint32_t ts_offset_ = 0;
  uint32_t ts_recent_ = 0;

  Duration time_out_ = kFirstTimeout;
  uint32_t resends_ = 0;
  Instant deadline_ = kNever;
  Instant sent_at_{};
  /// The SYN-ACK's ISS is a SYN cookie: its timestamp says what the ISS can't.
  bool cookie_ = false;
  /// Bytes of data in our SYN (RFC 7413).
  uint32_t syn_data_ = 0;
  Instant last_answer_{};
  /// TCP_DEFER_ACCEPT: the ACK has come, data is still awaited.
  bool acknowledged_ = false;
};

}  // namespace ustack::tcp
