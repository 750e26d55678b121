// What the endpoint sends, and how it is put into frames.
#include <algorithm>

#include "stack/tcp/endpoint.h"
#include "stack/tcp/window.h"

namespace ustack::tcp {

IpOptionsOut Endpoint::ip_options() const {
  IpOptionsOut ip;
  if (over_ipv6()) {
    const Ipv6Options& options = awake_->options.ipv6;
    ip.ttl = static_cast<uint8_t>(options.hop_limit >= 0 ? options.hop_limit
                                                         : protocol_.settings().ipv6_hop_limit);
    ip.tos = options.traffic_class;
    // Always the same of a connection, and of no other as a rule (RFC 6437).
    if (options.flow_label) ip.flow_label = tuple_hash() & 0xfffff;
    return ip;
  }
  ip.ttl = awake_->options.ttl != 0 ? awake_->options.ttl
                                    : static_cast<uint8_t>(protocol_.settings().ip_default_ttl);
  ip.tos = awake_->options.tos;
  ip.dont_fragment = awake_->options.pmtu_discovery != PmtuDiscovery::dont &&
                     awake_->options.pmtu_discovery != PmtuDiscovery::omit;
  return ip;
}

SendLimits Endpoint::send_limits() const {
  const LinkInfo& link = awake_->route.link();
  uint32_t headers = header_bytes() + (awake_->tcb.timestamps ? 12u : 0u);
  bool cuts = link.checksum_offload && (over_ipv6() ? link.tcp_segmentation_v6 : link.tcp_segmentation_v4);
  return {.max_superframe = cuts ? std::min(link.max_superframe, 65535u) : 0,
          .header_length = headers,
          .more_comes = can_write()};
}

/// Sends all that the sender lets go.
void Endpoint::output() {
  if (!is_synchronized(awake_->tcb.state) && !early_) return;
  SendLimits limits = send_limits();
  Instant now = protocol_.now();
  if (send_mtu_probe()) return;
  while (std::optional<Transmission> next = awake_->tcb.snd.next(limits, now))
    if (!transmit(*next)) break;
  if (awake_->reports != nullptr) [[unlikely]] {
    report_times();
    report_returns();
  }
  awake_->tcb.snd.update_persist(now);
  awake_->tcb.send_times.set(holding_up(), now);
}

/// Linux's tcp_chrono_start.
SendTimes::What Endpoint::holding_up() const {
  const Sender& snd = awake_->tcb.snd;
  if (snd.buffer.empty()) return SendTimes::What::idle;
  if (snd.window_limited()) return SendTimes::What::window_limited;
  if (snd.unsent() == 0 && send_starved_ && !can_write()) return SendTimes::What::buffer_limited;
  return SendTimes::What::busy;
}

/// One segment or superframe, whose segments have `segment_size` bytes (0: the MSS). False when memory is
/// out: a timer tries again.
bool Endpoint::transmit(const Transmission& wanted, uint32_t segment_size) {
  Sender& snd = awake_->tcb.snd;
  Counters& counters = protocol_.counters();
  FramePool& frames = protocol_.context().frames;
  TxFrame* frame = frames.allocate();
  if (frame == nullptr) {
    ++counters.UstackTxNoMemory;
    return false;
  }
  Transmission t = wanted;
  if (t.length > 0) {
    uint32_t taken = snd.buffer.slices(t.seq - snd.snd_una, t.length, *frame);
    if (taken < t.length) {
      // Too many small pieces for one frame: whole segments now, the rest is next.
      t.length = taken;
      t.fin = t.push = false;
    }
  }
  bool loss = snd.congestion_state() == CongestionState::loss;
  Instant now = protocol_.now();
  if ((t.length == 0 && !t.fin) || !snd.sent(t, now)) {
    ++counters.UstackTxNoMemory;
    frames.release(frame);
    return false;
  }
  uint32_t segments = std::max((t.length + snd.mss() - 1) / snd.mss(), 1u);
  if (t.retransmission) {
    counters.TcpRetransSegs += segments;
    if (!t.probe) (loss ? counters.TcpExtTCPSlowStartRetrans : counters.TcpExtTCPFastRetrans) += segments;
  } else {
    counters.TcpExtTCPOrigDataSent += segments;
  }
  SegmentOut segment{.flags = {.fin = t.fin, .psh = t.push, .ack = true}, .seq = t.seq};
  if (snd.urgent && snd.snd_up > t.seq) {
    segment.flags.urg = true;
    segment.urgent_pointer = static_cast<uint16_t>(std::min<uint32_t>(snd.snd_up - t.seq, 0xffff));
  }
  // RFC 3168, 6.1.2, 6.1.4 and 6.1.5: neither pure ACKs nor retransmissions.
  if (snd.ecn && t.length > 0 && !t.retransmission) {
    segment.ecn_capable = true;
    segment.flags.cwr = snd.recovery().take_reduced();
  }
  segment.segment_size = static_cast<uint16_t>(segment_size != 0 ? segment_size : snd.mss());
  if (!t.retransmission) awake_->tcb.rcv.on_data_sent(now);
  // SACK blocks ride on data only where they fit.
  bool room =
      t.length + segment_options_length(awake_->tcb.timestamps, 1) - (awake_->tcb.timestamps ? 12u : 0u) <=
      snd.mss();
  Status status = send(frame, segment, room);
  if (status.code() == EMSGSIZE) on_path_mtu(awake_->route.mtu());
  return true;
}

/// Fills in what all segments of a connection have in common, and sends it. Carries the ACK that is owed.
Status Endpoint::send(TxFrame* frame, SegmentOut& segment, bool with_sacks) {
  Instant now = protocol_.now();
  Receiver& rcv = awake_->tcb.rcv;
  SegmentOptions options;
  if (awake_->tcb.timestamps)
    options.timestamps = Timestamps{awake_->tcb.timestamp(now), awake_->tcb.ts_recent};
  if (awake_->tcb.sack && with_sacks) {
    uint32_t fit = awake_->tcb.timestamps ? 3 : 4;
    if (frame->payload_bytes() > 0)
      fit = std::min(fit, (awake_->tcb.snd.mss() - frame->payload_bytes() - 4) / 8);
    options.sack_count = rcv.sack_blocks(std::span(options.sack_blocks).first(fit));
    if (rcv.reported_duplicate() && options.sack_count > 0) {
      Counters& counters = protocol_.counters();
      bool old = rcv.reported_duplicate()->start < rcv.rcv_nxt;
      ++(old ? counters.TcpExtTCPDSACKOldSent : counters.TcpExtTCPDSACKOfoSent);
    }
  }
  std::array<std::byte, kMaxOptions> buffer;
  uint32_t length = encode_segment_options(options, buffer);

  rcv.pressed = protocol_.under_memory_pressure();
  bool was_open = rcv.last_window() > 0;
  uint32_t window = rcv.window_to_send();
  if (was_open && window == 0) ++protocol_.counters().TcpExtTCPToZeroWindowAdv;
  if (!was_open && window > 0) ++protocol_.counters().TcpExtTCPFromZeroWindowAdv;
  segment.id = id();
  segment.ack = rcv.rcv_nxt;
  segment.window = window_field(window, rcv.rcv_wscale);
  segment.options = Bytes(buffer).first(length);
  segment.ip = ip_options();
  if (segment.ecn_capable) segment.ip.tos |= ecn::kEct0;
  segment.flags.ece = rcv.echoes_congestion() && !segment.flags.rst;
  uint32_t size = std::max<uint32_t>(segment.segment_size, 1), payload = frame->payload_bytes();
  awake_->tcb.traffic.send(payload > size ? (payload + size - 1) / size : 1, payload > 0);
  Status status = send_segment(protocol_, awake_->route, frame, segment);
  protocol_.counters().TcpExtTCPAckCompressed += rcv.on_ack_sent(now);
  return status;
}

/// What was owed may have been sent with data meanwhile.
void Endpoint::send_owed_ack() {
  Change change(*this);
  if (is_synchronized(awake_->tcb.state) && awake_->tcb.rcv.ack_owed() && !drained_) send_ack();
}

/// SND.NXT, but where the peer has taken window back no number past its edge, which would be dropped (Linux's
/// tcp_acceptable_seq).
SeqNum Endpoint::acceptable_seq() const {
  const Sender& snd = awake_->tcb.snd;
  return snd.snd_nxt > snd.window_end() ? max(snd.window_end(), snd.snd_una) : snd.snd_nxt;
}

void Endpoint::send_ack() {
  TxFrame* frame = protocol_.context().frames.allocate();
  if (frame == nullptr) {
    ++protocol_.counters().UstackTxNoMemory;
    // It stays owed; the delayed ACK's timer tries again.
    awake_->tcb.rcv.ack_deadline = protocol_.now() + kMinAckDelay;
    return;
  }
  SegmentOut segment{.flags = {.ack = true}, .seq = acceptable_seq()};
  (void)send(frame, segment, true);
}

void Endpoint::send_challenge_ack() {
  // Linux's tcp_send_challenge_ack: so often for each connection, and for the whole host.
  Counters& counters = protocol_.counters();
  Instant now = protocol_.now();
  if (awake_->tcb.last_out_of_window != Instant{} &&
      now - awake_->tcb.last_out_of_window <
          std::chrono::milliseconds(protocol_.settings().tcp_invalid_ratelimit)) {
    ++counters.TcpExtTCPACKSkippedChallenge;
    return;
  }
  awake_->tcb.last_out_of_window = now;
  if (protocol_.allow_challenge_ack()) send_ack();
}

/// A window probe or keepalive: nothing, with a number that the peer has acknowledged already, so that it
/// must answer (RFC 9293, 3.8.4; Linux's tcp_xmit_probe_skb).
void Endpoint::send_probe() {
  TxFrame* frame = protocol_.context().frames.allocate();
  if (frame == nullptr) {
    ++protocol_.counters().UstackTxNoMemory;
    return;
  }
  SegmentOut segment{.flags = {.ack = true}, .seq = awake_->tcb.snd.snd_una - 1};
  (void)send(frame, segment, false);
}

/// RFC 9293, 3.10.5: <SEQ=SND.NXT><CTL=RST>, with an ACK as Linux.
void Endpoint::send_reset() { send_reset(acceptable_seq()); }

void Endpoint::send_reset(SeqNum at) {
  if (protocol_.ending()) return;
  TxFrame* frame = protocol_.context().frames.allocate();
  if (frame == nullptr) {
    ++protocol_.counters().TcpExtTCPAbortFailed;
    return;
  }
  SegmentOut segment{.flags = {.rst = true, .ack = true}, .seq = at};
  (void)send(frame, segment, false);
}

/// Bytes that the program had lent can't be had: it has unmapped them or was killed. The peer must not take
/// what it has for all.
void Endpoint::abort_what_is_lost() {
  // Where the peer is isn't known, and this host may not be there any more to answer what it says to a reset
  // that isn't exactly there (RFC 5961, 3.2).
  if (awake_->tcb.snd.snd_una != awake_->tcb.snd.snd_nxt) send_reset(awake_->tcb.snd.snd_una);
  send_reset();
  done(EFAULT);
}

void Endpoint::answer_with_reset(const Segment& segment) {
  ResetAnswer answer = reset_answer(segment.flags, segment.seq, segment.ack, segment.seq_length());
  if (!answer.send) return;
  SegmentOut rst{.id = id(),
                 .flags = {.rst = true, .ack = answer.with_ack},
                 .seq = answer.seq,
                 .ack = answer.ack,

                 .ip = ip_options()};
  (void)send_segment(protocol_, awake_->route, rst);
}

/// Linux's tcp_sndbuf_expand: room for two windows, so that the program can refill one while the other flies.
void Endpoint::grow_send_buffer() {
  if (awake_->options.send_limit_locked || protocol_.under_memory_pressure()) return;
  constexpr uint64_t kLeast = 46080;  // what Linux gives a fresh connection over Ethernet
  uint64_t window = std::max(awake_->tcb.snd.cwnd(), 10 * awake_->tcb.snd.mss());
  uint64_t wanted = std::min<uint64_t>(std::max(window * 2 + window / 4, kLeast),
                                       static_cast<uint32_t>(protocol_.settings().tcp_wmem[2]));
  if (wanted > awake_->options.send_limit) awake_->options.send_limit = static_cast<uint32_t>(wanted);
}

}  // namespace ustack::tcp
