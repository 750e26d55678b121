#include "stack/tcp/handshake.h"

#include <algorithm>

#include "stack/host.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/listener.h"
#include "stack/tcp/output.h"

namespace ustack::tcp {

Handshake::Handshake(Endpoint& endpoint) : ep_(endpoint) {
  const Settings& settings = ep_.protocol_.settings();
  // RFC 9293, 3.7.1: MSS = MMS_R - 20, of what the link can receive, whatever PMTUD has learned of the other
  // direction (RFC 1191, 3.1); TCP_MAXSEG may make it less.
  uint32_t mss = std::min<uint32_t>(ep_.awake_->route.link().mtu, 65535u) - ep_.header_bytes();
  if (ep_.awake_->options.max_segment != 0) mss = std::min<uint32_t>(mss, ep_.awake_->options.max_segment);
  own_mss_ = static_cast<uint16_t>(mss);
  choose_window(mss);
  rcv_wnd_scale_ = settings.tcp_window_scaling != 0 ? rcv_window_.scale : -1;
  timestamps_ = settings.tcp_timestamps != 0;
  sack_ = settings.tcp_sack != 0;
  ts_offset_ = ep_.protocol_.timestamp_offset(ep_.id());
}

void Handshake::choose_window(uint32_t mss) {
  const Settings& settings = ep_.protocol_.settings();
  rcv_window_ = select_initial_window(
      {.space = window_from_space(ep_.awake_->tcb.rcv.limit),
       .mss = mss,
       .clamp = ep_.awake_->options.window_clamp,
       .scaling = settings.tcp_window_scaling != 0,
       .largest_buffer = static_cast<uint32_t>(std::max(settings.tcp_rmem[2], settings.rmem_max))});
}

void Handshake::reset_state() {
  active_ = true;
  // RFC 3168, 6.1.1: an ECN-setup SYN.
  ecn_ = ep_.protocol_.settings().tcp_ecn == 1;
  flags_ = Flags{.syn = true, .ece = ecn_, .cwr = ecn_};
  ack_num_ = SeqNum();
  mss_ = 0;
  iss_ =
      ep_.awake_->iss_floor ? *ep_.awake_->iss_floor : ep_.protocol_.iss().iss(ep_.id(), ep_.protocol_.now());
  enter(State::syn_sent);
}

void Handshake::reset_to_syn_rcvd(SeqNum iss, SeqNum irs, const SynOptions& options, uint32_t window) {
  active_ = false;
  flags_ = Flags{.syn = true, .ack = true};
  iss_ = iss;
  irs_ = irs;
  ack_num_ = irs + 1;
  snd_wnd_ = window;
  negotiate(options);
  // A whole number of the segments that the peer will send.
  if (timestamps_) choose_window(own_mss_ - 12u);
  enter(State::syn_rcvd);
}

void Handshake::accept_ecn() { ecn_ = flags_.ece = true; }

void Handshake::enter(State state) {
  state_ = state;
  // What ICMP errors are checked against.
  ep_.awake_->tcb.snd.iss = ep_.awake_->tcb.snd.snd_una = iss_;
  ep_.awake_->tcb.snd.snd_nxt = iss_ + 1;
  tcp::State before = ep_.awake_->tcb.state;
  ep_.awake_->tcb.state = state == State::syn_sent ? tcp::State::syn_sent : tcp::State::syn_received;
  if (ep_.awake_->tcb.state != before) ep_.on_state_change(before);
}

/// What both sides have offered holds (RFC 7323, 2.2 and 3.2; RFC 2018, section 2).
void Handshake::negotiate(const SynOptions& peer) {
  mss_ = peer.mss_or_default(ep_.id().local.address.family());
  timestamps_ = timestamps_ && peer.timestamps.has_value();
  if (timestamps_) ts_recent_ = peer.timestamps->value;
  sack_ = sack_ && peer.sack_permitted;
  if (peer.window_scale < 0 || rcv_wnd_scale_ < 0) {
    snd_wnd_scale_ = rcv_wnd_scale_ = -1;
  } else {
    snd_wnd_scale_ = peer.window_scale;
  }
}

Status Handshake::resolve_route() {
  // Initial action is to resolve the route.
  Status status;
  for (int event = Awake::kResend;; event = ep_.awake_->idle.fetch(true)) {
    if (event == Awake::kResend) {
      status = ep_.awake_->route.resolve(ep_.awake_->resend);
      if (status.code() != EWOULDBLOCK) break;
    } else if (event == Awake::kNotification) {
      status = on_notification();
      if (!status.ok()) break;
    }
  }
  ep_.awake_->route.remove_waker(ep_.awake_->resend);
  ep_.awake_->resend.clear();
  // What came meanwhile was told to this loop.
  if (!ep_.awake_->queue.empty()) ep_.awake_->new_segment.wake();
  return status;
}

Status Handshake::execute() {
  if (ep_.awake_->route.is_resolution_required()) {
    if (Status status = resolve_route(); !status.ok()) return status;
  }

  // An active open sends its SYN, a passive one the SYN-ACK.
  send_syn();
  if (ep_.early_) ep_.show_early();
  TimerWheel& timers = ep_.protocol_.context().timers;
  Status status;
  while (state_ != State::completed && status.ok()) {
    if (ep_.timer_.deadline() != deadline_) timers.arm(ep_.timer_, deadline_);
    switch (ep_.awake_->idle.fetch(true)) {
      case Awake::kResend:
        status = on_resend();
        break;
      case Awake::kNotification:
        status = on_notification();
        break;
      case Awake::kNewSegment:
        status = process_segments();
        break;
    }
  }
  ep_.timer_.cancel();
  ep_.awake_->resend.clear();
  return status;
}

uint32_t Handshake::retry_limit() const {
  const Settings& settings = ep_.protocol_.settings();
  if (!active_) return static_cast<uint32_t>(settings.tcp_synack_retries);
  return ep_.awake_->options.syn_retries != 0 ? ep_.awake_->options.syn_retries
                                              : static_cast<uint32_t>(settings.tcp_syn_retries);
}

Status Handshake::on_resend() {
  bool counted = active_ && ep_.awake_->options.syn_retries != 0;
  time_out_ *= 2;
  if (resends_ >= retry_limit() || (time_out_ > kLastTimeout && !counted)) {
    ++ep_.protocol_.counters().TcpExtTCPTimeouts;
    note_fast_open_timeout(true);
    return Error{ETIMEDOUT};
  }
  if (ep_.awake_->options.user_timeout > Duration(0) && active_ &&
      ep_.protocol_.now() - sent_at_ >= ep_.awake_->options.user_timeout)
    return Error{ETIMEDOUT};
  time_out_ = std::min({time_out_, kLastTimeout, ep_.awake_->tcb.snd.rtt.bounds.most});
  note_fast_open_timeout(false);
  ++resends_;
  // RFC 3168, 6.1.1.1: perhaps the first was dropped for what it has asked.
  if (state_ == State::syn_sent && ep_.protocol_.settings().tcp_ecn_fallback != 0)
    flags_.ece = flags_.cwr = false;
  // With TCP_DEFER_ACCEPT a peer that has acknowledged is left alone until it is time to give up waiting for
  // its data (Linux's syn_ack_recalc).
  if (acknowledged_ && resends_ < ep_.awake_->options.defer_accept) {
    deadline_ = ep_.protocol_.now() + time_out_;
    return {};
  }
  ++ep_.protocol_.counters().TcpExtTCPSynRetrans;
  ++ep_.protocol_.counters().TcpRetransSegs;
  send_syn();
  return {};
}

Status Handshake::on_notification() {
  uint32_t what = ep_.fetch_notifications();
  if (what & Endpoint::kNotifyClose) {
    // RFC 9293, 3.10.4: CLOSE in SYN-SENT deletes the TCB; in SYN-RECEIVED the peer hears of it.
    if (state_ == State::syn_rcvd && !ep_.protocol_.ending()) {
      SegmentOut rst{.id = ep_.id(),
                     .flags = {.rst = true, .ack = true},
                     .seq = iss_ + 1,
                     .ack = ack_num_,

                     .ip = ep_.ip_options()};
      (void)send_segment(ep_.protocol_, ep_.awake_->route, rst);
    }
    return Error{ECONNABORTED};
  }
  if (what & Endpoint::kNotifyError) return Error{ep_.awake_->notified_error};
  if (what & Endpoint::kNotifyDrain) {
    if (state_ != State::completed && flags_ != Flags{} && ep_.awake_->tcb.state != tcp::State::closed) {
      if (Status status = process_segments(); !status.ok()) return status;
    }
    ep_.park();
  }
  return {};
}

Status Handshake::process_segments() {
  for (int i = 0; i < Endpoint::kMaxSegmentsPerWake && state_ != State::completed; ++i) {
    Segment* segment = ep_.dequeue();
    if (segment == nullptr) return {};
    Status status = process(*segment);
    if (state_ == State::completed && (segment->payload_size() > 0 || segment->flags.fin ||
                                       segment->flags.urg || (!active_ && segment->ack != iss_ + 1))) {
      // It carried more than the handshake: the main loop's.
      ep_.requeue_front(segment);
    } else {
      ep_.protocol_.segments().release(segment);
    }
    if (!status.ok()) return status;
  }
  // Others have their turn first.
  if (!ep_.awake_->queue.empty()) ep_.awake_->new_segment.wake();
  return {};
}

Status Handshake::process(Segment& segment) {
  ep_.awake_->tcb.traffic.receive(1, segment.payload_size() > 0);
  ep_.protocol_.context().log(LogLevel::trace, [&](LogLine& line) { line << "handshake: " << segment; });
  switch (state_) {
    case State::syn_sent:
      return syn_sent_state(segment);
    case State::syn_rcvd:
      return syn_rcvd_state(segment);
    case State::completed:
      break;
  }
  return {};
}

/// RFC 9293, 3.10.7.3: SYN-SENT.
Status Handshake::syn_sent_state(Segment& segment) {
  // First: "If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit is set)".
  if (segment.flags.ack && !acknowledges_syn(segment)) {
    send_reset(segment);
    return {};
  }
  // Second: "If the ACK was acceptable, signal to the user 'error: connection reset'"; without an ACK drop
  // it.
  if (segment.flags.rst) {
    if (segment.flags.ack) return Error{ECONNREFUSED};
    return {};
  }
  // Fourth and fifth: "if neither of the SYN or RST bits is set, then drop the segment and return".
  if (!segment.flags.syn) return {};
  if (segment.flags.ack) {
    irs_ = segment.seq;
    ack_num_ = irs_ + 1;
    snd_wnd_ = segment.window;
    negotiate(segment.syn_options);
    // RFC 3168, 6.1.1: only ECE is an ECN-setup SYN-ACK; both is what echoes a SYN's reserved bits.
    ecn_ = ecn_ && segment.flags.ece && !segment.flags.cwr;
    take_fast_open_answer(segment);
    // "If SND.UNA > ISS (our SYN has been ACKed), change the connection state to ESTABLISHED, form an ACK".
    complete(segment);
    ep_.awake_->tcb.rcv.acknowledge_soon(ep_.protocol_.now());
    return {};
  }
  // "Otherwise, enter SYN-RECEIVED, form a SYN,ACK segment and send it." Simultaneous open.
  ecn_ = ecn_ && segment.flags.ece && segment.flags.cwr;
  flags_ = Flags{.syn = true, .ack = true, .ece = ecn_};
  irs_ = segment.seq;
  ack_num_ = irs_ + 1;
  snd_wnd_ = segment.window;
  negotiate(segment.syn_options);
  enter(State::syn_rcvd);
  send_syn();
  return {};
}

/// RFC 9293, 3.10.7.4, first: sequence number check, in SYN-RECEIVED. True if the segment is done with.
bool Handshake::unacceptable_in_syn_rcvd(const Segment& segment) {
  // The other's SYN-ACK in a simultaneous open carries its SYN once more.
  if (active_ && segment.flags.syn && segment.flags.ack && segment.seq == irs_ && acknowledges_syn(segment))
    return false;
  // A repeated SYN wants a repeated SYN-ACK.
  if (segment.flags.syn && !segment.flags.ack && !segment.flags.rst && segment.seq == irs_) {
    if (!acknowledged_ && limited_answer()) send_syn();
    return true;
  }
  uint32_t window = rcv_window_.window;
  bool old_timestamp = timestamps_ && segment.options.timestamps && !segment.flags.syn &&
                       static_cast<int32_t>(segment.options.timestamps->value - ts_recent_) < 0;
  if (segment.is_acceptable(ack_num_, window) && !old_timestamp) return false;
  if (!segment.flags.rst && limited_answer()) send_ack();
  return true;
}

/// tcp_invalid_ratelimit, so that a flood of wrong segments isn't answered by another.
bool Handshake::limited_answer() {
  Instant now = ep_.protocol_.now();
  Duration least = std::chrono::milliseconds(ep_.protocol_.settings().tcp_invalid_ratelimit);
  if (last_answer_ != Instant{} && now - last_answer_ < least) {
    ++ep_.protocol_.counters().TcpExtTCPACKSkippedSynRecv;
    return false;
  }
  last_answer_ = now;
  return true;
}

/// SND.UNA < SEG.ACK =< SND.NXT, where data that the SYN or Fast Open has carried counts too.
bool Handshake::acknowledges_syn(const Segment& segment) const {
  SeqNum end = ep_.early_ ? ep_.awake_->tcb.snd.snd_nxt : iss_ + 1 + syn_data_;
  return iss_ < segment.ack && segment.ack <= end;
}

/// RFC 9293, 3.10.7.4 in SYN-RECEIVED.
Status Handshake::syn_rcvd_state(Segment& segment) {
  if (unacceptable_in_syn_rcvd(segment)) return {};
  // Second: "If this connection was initiated with a passive OPEN, then return to LISTEN; ... with an active
  // OPEN, then the connection was refused". RFC 5961, 3.2: only by the exact number.
  if (segment.flags.rst) {
    if (segment.seq == ack_num_) return Error{ECONNREFUSED};
    if (limited_answer() && ep_.protocol_.allow_challenge_ack()) send_ack();
    return {};
  }
  // Fourth: a SYN in the window. RFC 5961, 4.2: a challenge ACK. But for the SYN-ACK of a simultaneous open.
  bool crossing = active_ && segment.flags.syn && segment.flags.ack && segment.seq == irs_;
  if (segment.flags.syn && !crossing) {
    if (limited_answer() && ep_.protocol_.allow_challenge_ack()) send_ack();
    return {};
  }
  // Fifth: "if the ACK bit is off, drop the segment"; "If SND.UNA < SEG.ACK =< SND.NXT, then enter
  // ESTABLISHED"; else "form a reset segment <SEQ=SEG.ACK><CTL=RST> and send it".
  if (!segment.flags.ack) return {};
  if (!acknowledges_syn(segment)) {
    send_reset(segment);
    return {};
  }
  if (Status status = ask_listener(segment); !status.ok()) return status.code() == EAGAIN ? Status() : status;
  snd_wnd_ = crossing ? segment.window : uint32_t{segment.window} << std::max(snd_wnd_scale_, 0);
  complete(segment);
  return {};
}

/// Whether a passive open may complete now: its listener has room, and data has come if it waits for that.
/// EAGAIN: not yet; ECONNABORTED: never.
Status Handshake::ask_listener(const Segment& segment) {
  if (active_ || ep_.awake_->parent == nullptr || ep_.early_) return {};
  if (segment.payload_size() == 0 && !segment.flags.fin && resends_ < ep_.awake_->options.defer_accept) {
    acknowledged_ = true;
    return Error{EAGAIN};
  }
  if (!ep_.awake_->parent->accept_queue_full()) return {};
  // Linux drops the ACK: the SYN-ACK is sent again, and its answer may find room.
  ++ep_.protocol_.counters().TcpExtListenOverflows;
  ++ep_.protocol_.counters().TcpExtListenDrops;
  if (ep_.protocol_.settings().tcp_abort_on_overflow == 0) return Error{EAGAIN};
  send_reset(segment);
  return Error{ECONNABORTED};
}

/// Fills the Tcb in; `segment` is the peer's latest.
void Handshake::fill_tcb(const Segment& segment) {
  Instant now = ep_.protocol_.now();
  Tcb& tcb = ep_.awake_->tcb;
  tcb.timestamps = timestamps_;
  tcb.sack = sack_;
  tcb.window_scaling = snd_wnd_scale_ >= 0;
  tcb.ts_offset = ts_offset_;
  if (timestamps_) {
    if (segment.options.timestamps && !segment.flags.syn) ts_recent_ = segment.options.timestamps->value;
    tcb.ts_recent = ts_recent_;
    tcb.ts_recent_at = now;
  }
  tcb.last_heard = now;

  Sender& snd = tcb.snd;
  snd.iss = iss_;
  snd.snd_una = snd.snd_nxt = iss_ + 1;
  if (segment.flags.ack && segment.ack > snd.snd_una && !ep_.early_) {
    // RFC 7413, 4.1.3: data of the SYN has arrived.
    snd.buffer.acknowledge(std::min(segment.ack - snd.snd_una, syn_data_));
    snd.snd_una = snd.snd_nxt = segment.ack;
  }
  snd.snd_up = snd.snd_una;
  snd.snd_wscale = static_cast<uint8_t>(std::max(snd_wnd_scale_, 0));
  snd.snd_wnd = snd.max_snd_wnd = snd_wnd_;
  snd.snd_wl1 = segment.seq;
  snd.snd_wl2 = segment.ack;
  const Settings& settings = ep_.protocol_.settings();
  snd.sack = sack_;
  snd.ecn = tcb.rcv.ecn = ecn_;
  snd.recovery().set_rules(LossRecovery::Rules::from(settings));
  snd.rtt.set_minimum_window(std::chrono::seconds(settings.tcp_min_rtt_wlen));

  Receiver& rcv = tcb.rcv;
  rcv.acks_wait = ep_.protocol_.host().acks_wait();
  rcv.irs = irs_;
  rcv.rcv_nxt = ack_num_;
  rcv.dsack = settings.tcp_dsack != 0;
  rcv.compress_most = static_cast<uint8_t>(sack_ ? settings.tcp_comp_sack_nr : 0);
  rcv.compress_delay = std::chrono::nanoseconds(settings.tcp_comp_sack_delay_ns);
  rcv.rcv_wscale = static_cast<uint8_t>(std::max(rcv_wnd_scale_, 0));
  rcv.rcv_adv = ack_num_ + rcv_window_.window;
  rcv.window_clamp = std::min(rcv_window_.clamp, kMaxUnscaledWindow << rcv.rcv_wscale);
  rcv.start(own_mss_ - (timestamps_ ? 12u : 0u), now);

  ep_.awake_->peer_mss = mss_;
  ep_.start_mtu_probing();
  snd.start(ep_.path_payload(), resends_ > 1, round_trip(segment), now);
}

/// Karn: a SYN that was sent twice gives no sample, unless a timestamp tells which of them is answered
/// (RFC 7323, 4.1). Nor does a SYN cookie, of which nothing is known.
std::optional<Duration> Handshake::round_trip(const Segment& segment) const {
  if (sent_at_ == Instant{}) return std::nullopt;
  if (resends_ == 0) return segment.arrived - sent_at_;
  if (!timestamps_) return std::nullopt;
  std::optional<Instant> sent =
      echoed_instant(segment.flags.syn ? segment.syn_options.timestamps : segment.options.timestamps,
                     segment.arrived, ts_offset_);
  if (!sent) return std::nullopt;
  return std::max<Duration>(segment.arrived - *sent, 1ms);
}

/// `segment` has completed the handshake; its SYN is taken off.
void Handshake::complete(Segment& segment) {
  Tcb& tcb = ep_.awake_->tcb;
  if (ep_.early_) {
    // All but what only this segment could tell is there already.
    tcb.snd.snd_wnd = tcb.snd.max_snd_wnd = snd_wnd_;
    tcb.snd.snd_wl1 = segment.seq;
    tcb.snd.snd_wl2 = iss_ + 1;
    if (std::optional<Duration> rtt = round_trip(segment)) tcb.snd.rtt.sample(*rtt);
  } else {
    fill_tcb(segment);
  }
  state_ = State::completed;
  tcp::State before = tcb.state;
  tcb.state = tcp::State::established;
  ep_.on_state_change(before);
  if (segment.flags.syn) segment.trim_front(1);
}

void Handshake::take_cookie(Segment& ack) {
  snd_wnd_ = uint32_t{ack.window} << std::max(snd_wnd_scale_, 0);
  complete(ack);
}

SynOptions Handshake::syn_options() const {
  SynOptions options;
  options.mss = own_mss_;
  // A SYN-ACK offers only what the SYN has offered (negotiate() has seen to it).
  options.sack_permitted = sack_;
  if (rcv_wnd_scale_ >= 0) options.window_scale = static_cast<int8_t>(rcv_wnd_scale_);
  if (timestamps_)
    options.timestamps =
        Timestamps{timestamp_clock(ep_.protocol_.now(), ts_offset_), flags_.ack ? ts_recent_ : 0};
  if (timestamps_ && cookie_) {
    CookieOptions hidden{
        .window_scale = static_cast<int8_t>(snd_wnd_scale_), .sack_permitted = sack_, .ecn = ecn_};
    options.timestamps->value =
        encode_cookie_timestamp(options.timestamps->value - ts_offset_, hidden) + ts_offset_;
  }
  if (flags_.ack) options.fast_open = ep_.awake_->granted_cookie;
  return options;
}

void Handshake::send_cookie() {
  cookie_ = true;
  send_syn();
}

void Handshake::send_syn() {
  Instant now = ep_.protocol_.now();
  if (sent_at_ == Instant{}) sent_at_ = now;
  deadline_ = now + time_out_;
  TxFrame* frame = ep_.protocol_.context().frames.allocate();
  if (frame == nullptr) {
    ++ep_.protocol_.counters().UstackTxNoMemory;
    return;
  }
  SynOptions options = syn_options();
  // RFC 7413, 4.1.3: a SYN that is sent again goes without, in case that is why the first got lost.
  if (state_ == State::syn_sent && resends_ == 0 && ep_.fast_open_) add_syn_data(options, *frame);
  std::array<std::byte, kMaxOptions> buffer;
  uint32_t length = encode_syn_options(options, buffer);
  SegmentOut syn{.id = ep_.id(),
                 .flags = flags_,
                 .seq = iss_,
                 .ack = ack_num_,
                 .window = window_field(rcv_window_.window, 0),
                 .options = Bytes(buffer).first(length),
                 .ip = ep_.ip_options()};
  // Linux doesn't count a SYN-ACK: the connection begins with what completes it.
  if (!flags_.ack) ep_.awake_->tcb.traffic.send(1, frame->payload_bytes() > 0);
  (void)send_segment(ep_.protocol_, ep_.awake_->route, frame, syn);
}

void Handshake::send_ack() {
  std::array<std::byte, kMaxOptions> buffer;
  SegmentOptions options;
  if (timestamps_)
    options.timestamps = Timestamps{timestamp_clock(ep_.protocol_.now(), ts_offset_), ts_recent_};
  uint32_t length = encode_segment_options(options, buffer);
  SegmentOut ack{
      .id = ep_.id(),
      .flags = {.ack = true},
      .seq = iss_ + 1,
      .ack = ack_num_,
      .window = window_field(rcv_window_.window, static_cast<uint8_t>(std::max(rcv_wnd_scale_, 0))),
      .options = Bytes(buffer).first(length),
      .ip = ep_.ip_options()};
  ep_.awake_->tcb.traffic.send(1, false);
  (void)send_segment(ep_.protocol_, ep_.awake_->route, ack);
}

void Handshake::send_reset(const Segment& segment) {
  ResetAnswer answer = reset_answer(segment.flags, segment.seq, segment.ack, segment.seq_length());
  if (!answer.send) return;
  SegmentOut rst{.id = ep_.id(),
                 .flags = {.rst = true, .ack = answer.with_ack},
                 .seq = answer.seq,
                 .ack = answer.ack,

                 .ip = ep_.ip_options()};
  (void)send_segment(ep_.protocol_, ep_.awake_->route, rst);
}

}  // namespace ustack::tcp
