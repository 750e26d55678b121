// RFC 9293, 3.10.7.4: a segment arrives in a synchronized state. The functional core: state in, state and
// verdict out; the endpoint acts.
#pragma once

#include <cstdint>

#include "stack/tcp/segment.h"
#include "stack/tcp/tcb.h"

namespace ustack::tcp {

/// What is to be done about a segment, beyond what the Tcb itself says (ACKs owed, data to send).
struct Verdict {
  enum class Reply : uint8_t {
    none,
    /// An ACK at once that answers an out-of-window segment: rate limited by tcp_invalid_ratelimit already.
    acknowledge,
    /// RFC 5961; rate limited by the whole host.
    challenge,
    /// <SEQ=SND.NXT><ACK=RCV.NXT><CTL=RST,ACK>, and the connection is gone.
    reset,
  };
  enum class Cause : uint8_t {
    none,
    out_of_window,
    old_timestamp,     ///< PAWS
    reset,             ///< an acceptable RST
    syn_in_window,     ///< RFC 5961, section 4
    reset_not_exact,   ///< RFC 5961, section 3
    unacceptable_ack,  ///< RFC 5961, section 5, or an ACK of what was not sent
    data_after_close,  ///< RFC 1122, 4.2.2.13
  };
  Reply reply = Reply::none;
  /// An answer was due, but tcp_invalid_ratelimit has withheld it.
  bool limited = false;
  Cause cause = Cause::none;
  /// The connection has ended: state is closed. With an errno for the program, or 0.
  bool ended = false;
  int error = 0;
  /// It ended in TIME-WAIT (state says so; the endpoint hands it over).
  bool time_wait = false;
  /// Something to read, or the end of the stream.
  bool readable = false;
  bool urgent = false;
  /// The peer will send no more.
  bool fin = false;
  /// Our FIN was acknowledged now.
  bool fin_acknowledged = false;
  /// Something was acknowledged, so that there is room in the send buffer.
  bool acknowledged = false;
  /// What was held back may be sent.
  bool may_transmit = false;
  Sender::AckOutcome ack;
  Receiver::Outcome text;
};

struct ArrivalRules {
  /// tcp_invalid_ratelimit.
  Duration invalid_rate_limit{500ms};
};

/// Takes the segment (its payload is moved out). `tcb.state` is ESTABLISHED or later, not TIME-WAIT.
Verdict segment_arrives(Tcb& tcb, Segment& segment, const ArrivalRules& rules, Instant now);

/// RFC 7323, 5.3: the segment's timestamp is older than one that was seen, so it is an old duplicate. True
/// also if timestamps are on and the segment has none (RFC 7323, 3.2: it should be dropped silently).
bool fails_paws(const Tcb& tcb, const Segment& segment, Instant now);

}  // namespace ustack::tcp
