// From a segment to a packet: header, options, checksum, and the log line. The seed's sendTCP.
#pragma once

#include <cstdint>

#include "stack/net/frame.h"
#include "stack/net/route.h"
#include "stack/tcp/header.h"
#include "stack/tcp/options.h"

namespace ustack::tcp {

class Protocol;

/// What the header says.
struct SegmentOut {
  ConnectionId id{};
  Flags flags{};
  SeqNum seq{};
  /// Sent as 0 without the ACK flag.
  SeqNum ack{};
  /// As it goes on the wire.
  uint16_t window = 0;
  uint16_t urgent_pointer = 0;
  /// Encoded; a multiple of 4, at most kMaxOptions.
  Bytes options{};
  /// Payload bytes of each segment of a superframe; 0: it is none.
  uint16_t segment_size = 0;
  /// It travels as ECN-capable, ECT(0) (RFC 3168, section 5).
  bool ecn_capable = false;
  IpOptionsOut ip{};
};

/// Puts the TCP header in front of `frame`'s payload and sends it by `route`. Takes the frame over. Errors of
/// Route::send.
Status send_segment(Protocol& protocol, Route& route, TxFrame* frame, const SegmentOut& segment);
/// The same for a segment without payload. ENOBUFS.
Status send_segment(Protocol& protocol, Route& route, const SegmentOut& segment);

/// The RST that answers a segment which no connection can take (RFC 9293, 3.5.2 group 1 and 3.10.7.1):
/// nothing if it is a RST itself.
struct ResetAnswer {
  bool send = false;
  SeqNum seq;
  SeqNum ack;
  bool with_ack = false;
};
ResetAnswer reset_answer(Flags flags, SeqNum seq, SeqNum ack, uint32_t seq_length);

}  // namespace ustack::tcp
