#include "stack/tcp/time_wait.h"

#include "stack/tcp/iss.h"
#include "stack/tcp/output.h"
#include "stack/tcp/protocol.h"
#include "stack/tcp/window.h"

namespace ustack::tcp {

namespace {

/// Older than that a timestamp may be from before a wrap of the peer's clock (RFC 7323, 5.5).
constexpr Duration kPawsIdle = 24h * 24;

}  // namespace

TimeWaitAnswer segment_in_time_wait(TimeWaitState& state, const Segment& segment, bool rfc1337, Instant now) {
  TimeWaitAnswer answer;
  const std::optional<Timestamps>& timestamps =
      segment.flags.syn ? segment.syn_options.timestamps : segment.options.timestamps;
  bool paws_reject = false;
  if (state.timestamps && timestamps) {
    auto age = static_cast<int32_t>(timestamps->value - state.ts_recent);
    paws_reject = age < 0 && !segment.flags.rst && now - state.ts_recent_at < kPawsIdle;
  }
  // An empty segment that is exactly next: an ACK, or a RST.
  if (!paws_reject && segment.seq == state.rcv_nxt && (segment.seq_length() == 0 || segment.flags.rst)) {
    if (segment.flags.rst) {
      // RFC 1337, section 3: such a RST may be an old duplicate; net.ipv4.tcp_rfc1337 says whether to heed
      // that.
      if (!rfc1337) {
        answer.verdict = TimeWaitVerdict::end;
        return answer;
      }
    } else if (timestamps && state.timestamps) {
      state.ts_recent = timestamps->value;
      state.ts_recent_at = now;
    }
    answer.restart = true;
    return answer;
  }
  // RFC 9293, 3.6.1 and RFC 6191, section 2: a SYN beyond what was there, by its number or its timestamp, may
  // open the connection again.
  if (segment.flags.syn && !segment.flags.rst && !segment.flags.ack && !paws_reject) {
    bool newer =
        state.timestamps && timestamps && static_cast<int32_t>(timestamps->value - state.ts_recent) > 0;
    if (segment.seq > state.rcv_nxt || newer) {
      answer.verdict = TimeWaitVerdict::reopen;
      return answer;
    }
  }
  answer.old_timestamp = paws_reject;
  if (segment.flags.rst) return answer;
  // "Acknowledge it, and restart the 2 MSL timeout": a retransmitted FIN means that our ACK was lost.
  answer.restart = paws_reject || segment.flags.ack;
  answer.verdict = TimeWaitVerdict::acknowledge;
  return answer;
}

TimeWait::TimeWait(Protocol& protocol, const Route& route, const IpOptionsOut& ip, const TimeWaitState& state)
    : Connection(Kind::time_wait),
      protocol_(protocol),
      route_(route),
      ip_(ip),
      state_(state),
      timer_(
          [](Timer&, void* context, Instant) {
            auto* self = static_cast<TimeWait*>(context);
            ++self->protocol_.counters().TcpExtTW;
            self->protocol_.destroy_time_wait(*self);
          },
          this) {}

void TimeWait::retire() {
  timer_.cancel();
  protocol_.connections().remove(*this);
  protocol_.ports().release(port_);
}

void TimeWait::restart() { protocol_.context().timers.arm(timer_, protocol_.now() + kTimeWait); }

void TimeWait::on_segment(Segment* segment) {
  Protocol& protocol = protocol_;
  TimeWaitAnswer answer =
      segment_in_time_wait(state_, *segment, protocol.settings().tcp_rfc1337 != 0, protocol.now());
  if (answer.old_timestamp) ++protocol.counters().TcpExtPAWSEstab;
  if (answer.restart) restart();
  switch (answer.verdict) {
    case TimeWaitVerdict::drop:
      break;
    case TimeWaitVerdict::acknowledge:
      send_ack();
      break;
    case TimeWaitVerdict::end:
      protocol.segments().release(segment);
      protocol.destroy_time_wait(*this);
      return;
    case TimeWaitVerdict::reopen:
      // Above all numbers that the old connection may have sent (RFC 9293, 3.6.1; Linux's tw_snd_nxt + 65535
      // + 2).
      segment->iss_floor = state_.snd_nxt + 65535 + 2;
      if (!protocol.has_listener(segment->id)) {
        send_ack();
        break;
      }
      ++protocol.counters().TcpExtTWRecycled;
      protocol.destroy_time_wait(*this);
      protocol.dispatch(segment);
      return;
  }
  protocol.segments().release(segment);
}

void TimeWait::send_ack() {
  // tcp_invalid_ratelimit, so that two that are confused don't keep each other busy.
  Instant now = protocol_.now();
  if (last_ack_ != Instant{} &&
      now - last_ack_ < std::chrono::milliseconds(protocol_.settings().tcp_invalid_ratelimit)) {
    ++protocol_.counters().TcpExtTCPACKSkippedTimeWait;
    return;
  }
  last_ack_ = now;
  SegmentOptions options;
  if (state_.timestamps)
    options.timestamps = Timestamps{timestamp_clock(now, state_.ts_offset), state_.ts_recent};
  std::array<std::byte, kMaxOptions> buffer;
  uint32_t length = encode_segment_options(options, buffer);
  SegmentOut ack{.id = id(),
                 .flags = {.ack = true},
                 .seq = state_.snd_nxt,
                 .ack = state_.rcv_nxt,
                 .window = window_field(state_.rcv_wnd, state_.rcv_wscale),
                 .options = Bytes(buffer).first(length),
                 .ip = ip_};
  (void)send_segment(protocol_, route_, ack);
}

}  // namespace ustack::tcp
