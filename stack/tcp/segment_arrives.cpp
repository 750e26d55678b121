#include "stack/tcp/segment_arrives.h"

#include <algorithm>
#include <cerrno>

#include "stack/tcp/iss.h"

namespace ustack::tcp {

uint32_t Tcb::timestamp(Instant now) const { return timestamp_clock(now, ts_offset); }

namespace {

/// A timestamp that old may be from before a wrap of the clock (RFC 7323, 5.5).
constexpr Duration kPawsIdle = 24h * 24;

using Reply = Verdict::Reply;
using Cause = Verdict::Cause;

/// RFC 9293, 3.10.7.4, first: sequence number. As Linux (tcp_sequence) it takes what ends where the last ACK
/// stood or later, so that the ACK field of a segment that a retransmission has overtaken still counts (the
/// RFC's "special allowance" for a closed window included).
bool acceptable(const Tcb& tcb, const Segment& segment) {
  return segment.end_seq() >= tcb.rcv.last_acknowledged() &&
         segment.seq <= tcb.rcv.rcv_nxt + tcb.rcv.rcv_wnd();
}

/// "If an incoming segment is not acceptable, an acknowledgment should be sent in reply" - not more often
/// than Linux does, lest two confused peers keep each other busy.
void answer_out_of_window(Tcb& tcb, const Segment& segment, const ArrivalRules& rules, Instant now,
                          Verdict& verdict) {
  bool limited = segment.payload_size() == 0 || segment.flags.syn;
  if (limited && tcb.last_out_of_window != Instant{} &&
      now - tcb.last_out_of_window < rules.invalid_rate_limit) {
    verdict.limited = true;
    return;
  }
  if (limited) tcb.last_out_of_window = now;
  if (segment.seq < tcb.rcv.rcv_nxt && segment.payload_size() > 0)
    tcb.rcv.report_duplicate(segment.seq, min(segment.end_seq(), tcb.rcv.rcv_nxt));
  verdict.reply = Reply::acknowledge;
}

void end(Tcb& tcb, int error, Verdict& verdict) {
  tcb.state = State::closed;
  verdict.ended = true;
  verdict.error = error;
}

/// RFC 7323, 4.3 (3): TS.Recent follows segments that don't lie beyond the last ACK.
void take_timestamp(Tcb& tcb, const Segment& segment, Instant now) {
  if (!tcb.timestamps || !segment.options.timestamps) return;
  if (segment.seq > tcb.rcv.last_acknowledged()) return;
  uint32_t value = segment.options.timestamps->value;
  if (static_cast<int32_t>(value - tcb.ts_recent) < 0 && now - tcb.ts_recent_at < kPawsIdle) return;
  tcb.ts_recent = value;
  tcb.ts_recent_at = now;
}

std::optional<Instant> echoed(const Tcb& tcb, const Segment& segment) {
  if (!tcb.timestamps) return std::nullopt;
  return echoed_instant(segment.options.timestamps, segment.arrived, tcb.ts_offset);
}

/// Some stacks number the RST behind their FIN as the FIN (Linux's tcp_reset_check).
bool repeats_fin(const Tcb& tcb, const Segment& rst) {
  return tcb.rcv.fin_received() && tcb.state != State::time_wait && rst.seq == tcb.rcv.rcv_nxt - 1;
}

/// Second: check the RST bit. RFC 5961, 3.2 (RFC 9293, 3.10.7.4 second, 2 and 3): only the exact number
/// resets. As Linux it knows two more that are as hard to guess: the FIN's, and where the last SACK block
/// ends, since a peer's RST follows all that it has sent.
void check_reset(Tcb& tcb, const Segment& segment, Verdict& verdict) {
  bool behind_sacks = tcb.sack && tcb.rcv.reassembly().end() == segment.seq;
  if (segment.seq != tcb.rcv.rcv_nxt && !repeats_fin(tcb, segment) && !behind_sacks) {
    verdict.reply = Reply::challenge;
    verdict.cause = Cause::reset_not_exact;
    return;
  }
  verdict.cause = Cause::reset;
  // Linux (tcp_reset): who has seen the peer's FIN gets EPIPE.
  end(tcb, tcb.state == State::close_wait ? EPIPE : ECONNRESET, verdict);
}

/// Fifth: check the ACK field. False: the segment is dropped.
bool check_ack(Tcb& tcb, const Segment& segment, Verdict& verdict, Instant now) {
  Sender& snd = tcb.snd;
  // RFC 9293, 3.10.7.4 fifth; RFC 5961, 5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT. As Linux not what
  // was never sent either, before the first byte.
  uint64_t sent_before = snd.bytes_acknowledged() + (snd.fin_acknowledged() ? 1 : 0);
  auto oldest = static_cast<uint32_t>(std::min<uint64_t>(snd.max_snd_wnd, sent_before));
  if (segment.ack > snd.snd_nxt || segment.ack < snd.snd_una - oldest) {
    verdict.reply = Reply::challenge;
    verdict.cause = Cause::unacceptable_ack;
    return false;
  }
  // "If the ACK is a duplicate (SEG.ACK =< SND.UNA), it can be ignored" - if it is old; the text still
  // counts.
  if (segment.ack < snd.snd_una) return true;

  bool had_fin = snd.fin_acknowledged();
  verdict.ack = snd.on_ack(segment, echoed(tcb, segment), now);
  verdict.acknowledged = verdict.ack.advanced > 0;
  verdict.may_transmit = true;
  verdict.fin_acknowledged = snd.fin_acknowledged() && !had_fin;
  return true;
}

/// What the acknowledgment of our FIN means; still "fifth".
void on_fin_acknowledged(Tcb& tcb, Verdict& verdict) {
  switch (tcb.state) {
    case State::fin_wait_1:  // "then enter FIN-WAIT-2 and continue processing in that state"
      tcb.state = State::fin_wait_2;
      break;
    case State::closing:  // "then enter the TIME-WAIT state"
      tcb.state = State::time_wait;
      verdict.time_wait = true;
      break;
    case State::last_ack:  // "delete the TCB, enter the CLOSED state, and return"
      end(tcb, 0, verdict);
      break;
    default:
      break;
  }
}

/// Sixth: check the URG bit.
void check_urgent(Tcb& tcb, const Segment& segment, Verdict& verdict) {
  if (tcb.rcv.fin_received()) return;
  SeqNum read = tcb.rcv.rcv_nxt - tcb.rcv.buffer.size();
  if (segment.flags.urg) verdict.urgent = tcb.urgent.announce(segment.urgent_end, read, tcb.rcv.rcv_nxt);
  if (tcb.urgent.phase() != UrgentMark::Phase::announced) return;
  if (!tcb.urgent.seq().in_window(segment.data_seq(), segment.payload_size())) return;
  tcb.urgent.arrive(segment.payload.bytes()[tcb.urgent.seq() - segment.data_seq()]);
  verdict.urgent = true;
}

/// Seventh and eighth: the segment text, and the FIN bit.
void take_text(Tcb& tcb, Segment& segment, Verdict& verdict, Instant now) {
  if (segment.seq_length() == 0) return;
  // "This should not occur since a FIN has been received from the remote side. Ignore the segment text." But
  // what comes again may have to be acknowledged again.
  if (tcb.rcv.fin_received()) {
    if (segment.seq >= tcb.rcv.rcv_nxt) return;
    segment.truncate(tcb.rcv.rcv_nxt - segment.seq);
  }
  SeqNum data_end = segment.end_seq() - (segment.flags.fin ? 1u : 0u);
  bool new_data = segment.payload_size() > 0 && data_end > tcb.rcv.rcv_nxt;
  // RFC 1122, 4.2.2.13: data that nobody can read any more is answered by a RST, so that the peer learns of
  // it. In the FIN-WAITs only, as Linux: a reader that was merely shut down may be opened to what is on its
  // way.
  if (new_data && tcb.receive_shut && (tcb.state == State::fin_wait_1 || tcb.state == State::fin_wait_2)) {
    verdict.reply = Reply::reset;
    verdict.cause = Cause::data_after_close;
    end(tcb, ECONNRESET, verdict);
    return;
  }
  tcb.rcv.srtt = tcb.snd.rtt.srtt();
  verdict.text = tcb.rcv.on_segment(segment, now);
  verdict.readable = verdict.text.readable > 0 || verdict.text.fin;
  if (!verdict.text.fin) return;

  // "If the FIN bit is set": signal "connection closing", advance RCV.NXT over the FIN, acknowledge it.
  verdict.fin = true;
  switch (tcb.state) {
    case State::established:
      tcb.state = State::close_wait;
      break;
    case State::fin_wait_1:
      // Our FIN is not acknowledged, else this were FIN-WAIT-2 by now.
      tcb.state = State::closing;
      break;
    case State::fin_wait_2:
      tcb.state = State::time_wait;
      verdict.time_wait = true;
      break;
    default:  // CLOSE-WAIT, CLOSING, LAST-ACK: remain.
      break;
  }
}

}  // namespace

bool fails_paws(const Tcb& tcb, const Segment& segment, Instant now) {
  if (!tcb.timestamps || !segment.options.timestamps) return false;
  if (static_cast<int32_t>(segment.options.timestamps->value - tcb.ts_recent) >= 0) return false;
  return now - tcb.ts_recent_at < kPawsIdle;
}

Verdict segment_arrives(Tcb& tcb, Segment& segment, const ArrivalRules& rules, Instant now) {
  Verdict verdict;
  // RFC 7323, 5.3 (R1): "If SEG.TSval < TS.Recent and the segment is not a RST, drop it and send an ACK." An
  // ACK that was merely reordered brings nothing new and needs no answer (Linux's tcp_disordered_ack).
  if (!segment.flags.rst && fails_paws(tcb, segment, now)) {
    verdict.cause = Cause::old_timestamp;
    bool reordered_ack = segment.seq_length() == 0 && segment.seq == tcb.rcv.rcv_nxt;
    if (!reordered_ack) answer_out_of_window(tcb, segment, rules, now, verdict);
    return verdict;
  }
  // First: check sequence number.
  if (!acceptable(tcb, segment) && !(segment.flags.rst && repeats_fin(tcb, segment))) {
    verdict.cause = Cause::out_of_window;
    if (segment.flags.rst) return verdict;
    if (segment.flags.syn) {
      verdict.cause = Cause::syn_in_window;
      verdict.reply = Reply::challenge;
      return verdict;
    }
    answer_out_of_window(tcb, segment, rules, now, verdict);
    return verdict;
  }
  if (segment.flags.rst) {
    check_reset(tcb, segment, verdict);
    return verdict;
  }
  // Fourth: check the SYN bit. RFC 5961, 4.2: "MUST send an ACK", whatever its number.
  if (segment.flags.syn) {
    verdict.reply = Reply::challenge;
    verdict.cause = Cause::syn_in_window;
    return verdict;
  }
  // "If the ACK bit is off, drop the segment and return."
  if (!segment.flags.ack) return verdict;
  tcb.last_heard = now;
  if (!check_ack(tcb, segment, verdict, now)) return verdict;
  take_timestamp(tcb, segment, now);
  if (verdict.fin_acknowledged) on_fin_acknowledged(tcb, verdict);
  if (verdict.ended || verdict.time_wait) return verdict;
  check_urgent(tcb, segment, verdict);
  take_text(tcb, segment, verdict, now);
  return verdict;
}

}  // namespace ustack::tcp
