#include "stack/tcp/segment.h"

#include <algorithm>

#include "stack/base/checksum.h"
#include "stack/net/checksum.h"

namespace ustack::tcp {

Status Segment::parse(Packet&& packet) {
  Bytes bytes = packet.data.bytes();
  Result<Header> header = Header::parse(bytes);
  if (!header.ok()) return header.error();
  // RFC 9293, 3.1: the checksum covers the pseudo-header, the header and the text.
  if (!packet.checksum_trusted) {
    uint32_t sum = pseudo_header_sum(packet.source, packet.destination, kProtocolNumber, packet.data.length);
    if (checksum_finish(checksum_add(bytes, sum)) != 0) return Error{EBADMSG};
  }
  id = ConnectionId{{packet.destination, header->destination_port}, {packet.source, header->source_port}};
  seq = header->seq;
  ack = header->ack;
  flags = header->flags;
  window = header->window;
  urgent_end = header->seq + header->urgent_pointer;
  if (flags.syn)
    syn_options = parse_syn_options(header->options(bytes));
  else
    options = parse_segment_options(header->options(bytes));
  payload = std::move(packet.data);
  payload.trim_front(header->header_length);
  segment_size = packet.segment_size;
  network_offset = packet.network_offset;
  ttl = packet.ttl;
  tos = packet.tos;
  arrived = packet.arrived;
  return {};
}

uint32_t Segment::segments() const {
  if (segment_size == 0 || payload.length <= segment_size) return 1;
  return (payload.length + segment_size - 1) / segment_size;
}

bool Segment::is_acceptable(SeqNum rcv_nxt, uint32_t rcv_wnd) const {
  // RFC 9293, 3.10.7.4, table 6.
  uint32_t length = seq_length();
  if (length == 0) return rcv_wnd == 0 ? seq == rcv_nxt : seq.in_window(rcv_nxt, rcv_wnd);
  if (rcv_wnd == 0) return false;
  return seq.in_window(rcv_nxt, rcv_wnd) || (seq + (length - 1)).in_window(rcv_nxt, rcv_wnd) ||
         // It covers the whole window, which the table's two tests of its ends can't see.
         (seq < rcv_nxt && end_seq() > rcv_nxt + rcv_wnd);
}

void Segment::trim_front(uint32_t n) {
  seq += n;
  if (n > 0 && flags.syn) {
    flags.syn = false;
    --n;
  }
  uint32_t bytes = std::min(n, payload.length);
  payload.trim_front(bytes);
  if (n > bytes) flags.fin = false;
}

void Segment::truncate(uint32_t n) {
  if (n >= seq_length()) return;
  flags.fin = false;
  if (flags.syn && n == 0) flags.syn = false;
  payload.truncate(std::min(n - (flags.syn ? 1u : 0u), payload.length));
}

void Segment::trim_to_window(SeqNum rcv_nxt, uint32_t rcv_wnd) {
  // RFC 9293, 3.10.7.4: "tailor the segment to fit the window".
  if (seq < rcv_nxt) trim_front(std::min(rcv_nxt - seq, seq_length()));
  SeqNum right = rcv_nxt + rcv_wnd;
  if (end_seq() > right) truncate(seq < right ? right - seq : 0);
}

LogLine& operator<<(LogLine& line, const Segment& segment) {
  line << segment.id.remote << " > " << segment.id.local << ' ' << segment.flags << " seq "
       << segment.seq.value();
  if (segment.flags.ack) line << " ack " << segment.ack.value();
  line << " win " << segment.window;
  if (segment.flags.syn) line << " <" << segment.syn_options << '>';
  for (const SackBlock& block : segment.options.sacks())
    line << " sack " << block.start.value() << ':' << block.end.value();
  return line << " length " << segment.payload.length;
}

Result<Segment*> SegmentPool::receive(Packet&& packet) {
  Segment* segment = segments_.create();
  if (segment == nullptr) return Error{ENOBUFS};
  Status status = segment->parse(std::move(packet));
  if (status.ok()) return segment;
  release(segment);
  return status.error();
}

}  // namespace ustack::tcp
