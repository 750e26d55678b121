// What the path lets through: ICMP's word (RFC 1191), and our own search (RFC 4821).
#include <algorithm>

#include "stack/tcp/endpoint.h"

namespace ustack::tcp {

/// Eff.snd.MSS (RFC 9293, 3.7.1): what the peer takes and the path lets through, less the options of each
/// segment.
uint32_t Endpoint::path_payload() const {
  uint32_t headers = header_bytes();
  uint32_t mtu = std::min(awake_->route.mtu(), awake_->mtu_prober.limit());
  uint32_t mss = std::min(awake_->peer_mss, mtu > headers ? mtu - headers : 1);
  if (awake_->options.max_segment != 0) mss = std::min<uint32_t>(mss, awake_->options.max_segment);
  uint32_t option_bytes = awake_->tcb.timestamps ? 12 : 0;
  // A peer's absurd MSS must not make segments of nothing but headers (Linux: tcp_min_snd_mss).
  auto least = static_cast<uint32_t>(protocol_.settings().tcp_min_snd_mss);
  return std::max(mss, least) - option_bytes;
}

/// ICMP's "fragmentation needed", validated (Protocol::on_icmp_error).
void Endpoint::on_path_mtu(uint32_t mtu) {
  if (!is_synchronized(awake_->tcb.state)) return;
  uint32_t payload = path_payload();
  if (payload >= awake_->tcb.snd.mss()) return;
  protocol_.context().log(LogLevel::debug, [&](LogLine& line) {
    line << id() << ": path MTU is " << mtu << ", segments of " << payload << " bytes from now on";
  });
  awake_->tcb.snd.on_mss_change(payload, true);
  // Not from within output(): the main loop sends.
  notify(0);
}

void Endpoint::start_mtu_probing() {
  uint32_t headers = header_bytes();
  awake_->mtu_prober = {};
  awake_->mtu_prober.start(protocol_.settings(), std::min(awake_->route.mtu(), awake_->peer_mss + headers),
                           headers);
}

/// A segment in the search for a larger MTU, if there is data for it and behind it, so that its loss is
/// noticed by the duplicate ACKs of what follows (RFC 4821, 7.4; Linux's tcp_mtu_probe). True: output has to
/// wait until windows leave room for it.
bool Endpoint::send_mtu_probe() {
  if (!awake_->mtu_prober.enabled()) [[likely]]
    return false;
  Sender& snd = awake_->tcb.snd;
  const Flight& flight = snd.flight();
  if (awake_->mtu_prober.probing() || flight.sacked() > 0 || flight.lost() > 0) return false;
  uint32_t headers = header_bytes();
  uint32_t path_mtu = std::min(awake_->route.mtu(), awake_->peer_mss + headers);
  uint32_t mtu = awake_->mtu_prober.next_probe(protocol_.settings(), path_mtu, protocol_.now());
  if (mtu == 0) return false;
  uint32_t payload = mtu - headers - (awake_->tcb.timestamps ? 12u : 0u);
  if (payload <= snd.mss()) return false;
  constexpr uint32_t kFollowing = 4;  // enough for three duplicate ACKs
  uint32_t needed = payload + kFollowing * snd.mss();
  if (snd.unsent() < needed || snd.snd_wnd < needed || snd.cwnd() < 11 * snd.mss()) return false;
  bool room = snd.snd_nxt + needed <= snd.window_end() && snd.in_flight() + payload <= snd.cwnd();
  if (!room) return !flight.empty();
  SeqNum start = snd.snd_nxt;
  if (transmit({.seq = start, .length = payload}, payload) && snd.snd_nxt == start + payload)
    awake_->mtu_prober.on_sent(mtu, start, snd.snd_nxt);
  return false;
}

/// After an ACK or a time-out: what became of the probe.
void Endpoint::judge_mtu_probe() {
  if (!awake_->mtu_prober.probing()) [[likely]]
    return;
  Sender& snd = awake_->tcb.snd;
  if (snd.snd_una >= awake_->mtu_prober.end()) {
    awake_->mtu_prober.on_success();
    ++protocol_.counters().TcpExtTCPMTUPSuccess;
    snd.on_mss_change(path_payload(), false);
  } else if (snd.snd_una == awake_->mtu_prober.start() && snd.flight().lost() > 0) {
    awake_->mtu_prober.on_failure();
    ++protocol_.counters().TcpExtTCPMTUPFail;
  } else {
    return;
  }
  protocol_.context().log(LogLevel::debug, [&](LogLine& line) {
    line << id() << ": the path's MTU is from " << awake_->mtu_prober.search_low() << " to "
         << awake_->mtu_prober.search_high();
  });
}

/// The retransmission timer has expired again and again: perhaps segments of this size don't get through, and
/// nobody says so (RFC 2923; RFC 4821, 7.7).
void Endpoint::suspect_black_hole() {
  if (awake_->tcb.snd.timeouts() < static_cast<uint32_t>(protocol_.settings().tcp_retries1)) return;
  if (!awake_->mtu_prober.on_black_hole(protocol_.settings())) return;
  uint32_t payload = path_payload();
  if (payload >= awake_->tcb.snd.mss()) return;
  awake_->tcb.snd.on_mss_change(payload, true);
  protocol_.context().log(LogLevel::info, [&](LogLine& line) {
    line << id() << ": black hole? Segments of " << payload << " bytes from now on";
  });
}

}  // namespace ustack::tcp
