// A segment as the state machine sees it.
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/intrusive_list.h"
#include "stack/base/log.h"
#include "stack/base/result.h"
#include "stack/base/seqnum.h"
#include "stack/base/time.h"
#include "stack/mem/arena.h"
#include "stack/mem/block.h"
#include "stack/mem/slab.h"
#include "stack/net/address.h"
#include "stack/net/route.h"
#include "stack/tcp/header.h"
#include "stack/tcp/options.h"

namespace ustack::tcp {

/// An incoming segment, or a superframe of several that were contiguous. Waits in its endpoint's queue
/// through its hook. Made and taken back by a SegmentPool.
class Segment : public ListHook<> {
 public:
  /// local is the packet's destination, remote its source.
  ConnectionId id;
  SeqNum seq;
  SeqNum ack;
  Flags flags;
  /// As on the wire, not scaled.
  uint16_t window = 0;
  /// One past the urgent data (RFC 6093), valid if flags.urg.
  SeqNum urgent_end;
  /// Of a segment without SYN.
  SegmentOptions options;
  /// Of a segment with SYN.
  SynOptions syn_options;
  Slice payload;
  /// Payload bytes of each of the segments in a superframe; 0 if it is one segment.
  uint16_t segment_size = 0;
  /// Where its IP header starts in payload.block, while it holds that.
  uint32_t network_offset = 0;
  /// IP's TTL and TOS (ECN in its low two bits).
  uint8_t ttl = 0;
  uint8_t tos = 0;
  /// When it came from the link.
  Instant arrived{};
  /// Of a SYN that reopens a connection out of TIME-WAIT: our new ISS must be at least this (RFC 6191, RFC
  /// 9293 3.6.1).
  std::optional<SeqNum> iss_floor;

  void retire() { unlink(); }
  /// Fills all fields from the packet. EINVAL: malformed; EBADMSG: the checksum is wrong (RFC 9293, 3.1), not
  /// looked at when the packet's is trusted. The packet is taken only on success. Counting is the caller's.
  Status parse(Packet&& packet);

  uint32_t payload_size() const { return payload.length; }
  /// Sequence numbers it takes up: payload, SYN and FIN.
  uint32_t seq_length() const { return payload.length + (flags.syn ? 1u : 0u) + (flags.fin ? 1u : 0u); }
  SeqNum end_seq() const { return seq + seq_length(); }
  /// Where the payload starts: after the SYN if there is one.
  SeqNum data_seq() const { return seq + (flags.syn ? 1u : 0u); }
  /// How many segments on the wire it stands for, at least 1 (delayed ACKs count them).
  uint32_t segments() const;

  /// RFC 9293, 3.10.7.4: some of it, or its sequence number if it is empty, is in the receive window.
  bool is_acceptable(SeqNum rcv_nxt, uint32_t rcv_wnd) const;
  /// Drops the first n sequence numbers, n <= seq_length(): SYN, then payload, then FIN.
  void trim_front(uint32_t n);
  /// Keeps the first n sequence numbers, n <= seq_length(). A FIN that falls off comes again.
  void truncate(uint32_t n);
  /// RFC 9293, 3.10.7.4 "tailored": drops what is before rcv_nxt and what is past rcv_nxt + rcv_wnd. What is
  /// left may be empty. For segments that are acceptable.
  void trim_to_window(SeqNum rcv_nxt, uint32_t rcv_wnd);
};

/// 192.0.2.1:80 > 192.0.2.2:4000 [S.] seq 1 ack 2 win 64240 length 0.
LogLine& operator<<(LogLine& line, const Segment& segment);

using SegmentQueue = IntrusiveList<Segment>;

/// Makes and takes back Segments, last-in first-out. Lock: the host's.
class SegmentPool {
 public:
  explicit SegmentPool(Arena& arena) : segments_(arena) {}

  /// The packet as a segment, the caller's until release(). Errors of Segment::parse, and ENOBUFS.
  Result<Segment*> receive(Packet&& packet);
  /// Unlinks it, drops its payload reference and takes it back. nullptr is ignored.
  void release(Segment* segment) { segments_.destroy(segment); }
  uint64_t live() const { return segments_.live(); }
  Slab<Segment>& slab() { return segments_; }

 private:
  Slab<Segment> segments_;
};

}  // namespace ustack::tcp
