#include "stack/tcp/output.h"

#include <cstring>

#include "stack/net/checksum.h"
#include "stack/tcp/protocol.h"

namespace ustack::tcp {

Status send_segment(Protocol& protocol, Route& route, TxFrame* frame, const SegmentOut& segment) {
  const HostContext& context = protocol.context();
  uint32_t payload = frame->payload_bytes();
  auto header_length = static_cast<uint32_t>(kMinHeader + segment.options.size());
  std::byte* out = frame->prepend(header_length);
  Header header;
  header.source_port = segment.id.local.port;
  header.destination_port = segment.id.remote.port;
  header.seq = segment.seq;
  header.ack = segment.flags.ack ? segment.ack : SeqNum();
  header.flags = segment.flags;
  header.window = segment.window;
  header.urgent_pointer = segment.urgent_pointer;
  header.header_length = header_length;
  header.emit(out);
  if (!segment.options.empty()) std::memcpy(out + kMinHeader, segment.options.data(), segment.options.size());

  // The pseudo-header's sum; whoever can do it best adds the rest (the link, or Route::send).
  Checksum sum(pseudo_header_sum(segment.id.local.address, segment.id.remote.address, kProtocolNumber,
                                 header_length + payload));
  store_be16(out + kChecksumOffset, sum.folded());
  frame->offload.partial_checksum = true;
  frame->offload.checksum_offset = kChecksumOffset;
  uint32_t segments = 1;
  if (segment.segment_size != 0 && payload > segment.segment_size) {
    frame->offload.segmentation =
        route.local().is_v6() ? Offload::Segmentation::tcp_v6 : Offload::Segmentation::tcp_v4;
    frame->offload.segment_size = segment.segment_size;
    segments = (payload + segment.segment_size - 1) / segment.segment_size;
  }

  context.counters.TcpOutSegs += segments;
  if (segment.flags.rst) ++context.counters.TcpOutRsts;
  context.log(LogLevel::trace, [&](LogLine& line) {
    line << "send tcp " << segment.flags << " segment from " << segment.id.local << " to "
         << segment.id.remote << ", seq: " << segment.seq.value() << ", ack: " << header.ack.value()
         << ", wnd: " << segment.window << ", length: " << payload;
  });
  return route.send(frame, kProtocolNumber, segment.ip);
}

Status send_segment(Protocol& protocol, Route& route, const SegmentOut& segment) {
  TxFrame* frame = protocol.context().frames.allocate();
  if (frame == nullptr) {
    ++protocol.counters().UstackTxNoMemory;
    return Error{ENOBUFS};
  }
  return send_segment(protocol, route, frame, segment);
}

ResetAnswer reset_answer(Flags flags, SeqNum seq, SeqNum ack, uint32_t seq_length) {
  if (flags.rst) return {};
  // RFC 9293, 3.5.2: "If the incoming segment has an ACK field, the reset takes its sequence number from the
  // ACK field of the segment; otherwise, the reset has sequence number zero and the ACK field is set to the
  // sum of the sequence number and segment length of the incoming segment."
  if (flags.ack) return {.send = true, .seq = ack, .ack = SeqNum(), .with_ack = false};
  return {.send = true, .seq = SeqNum(0), .ack = seq + seq_length, .with_ack = true};
}

}  // namespace ustack::tcp
