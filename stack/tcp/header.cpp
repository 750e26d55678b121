#include "stack/tcp/header.h"

namespace ustack::tcp {

LogLine& operator<<(LogLine& line, Flags flags) {
  line << '[';
  if (flags.bits() == 0) line << "none";
  if (flags.fin) line << 'F';
  if (flags.syn) line << 'S';
  if (flags.rst) line << 'R';
  if (flags.psh) line << 'P';
  if (flags.ack) line << '.';
  if (flags.urg) line << 'U';
  if (flags.ece) line << 'E';
  if (flags.cwr) line << 'W';
  return line << ']';
}

Result<Header> Header::parse(Bytes segment) {
  if (segment.size() < kMinHeader) return Error{EINVAL};
  HeaderView view(segment.data());
  uint32_t length = view.header_length();
  if (length < kMinHeader || length > segment.size()) return Error{EINVAL};
  return Header{.source_port = view.source_port(),
                .destination_port = view.destination_port(),
                .seq = view.seq(),
                .ack = view.ack(),
                .flags = view.flags(),
                .window = view.window(),
                .urgent_pointer = view.urgent_pointer(),
                .header_length = length};
}

void Header::emit(std::byte* out) const {
  store_be16(out, source_port);
  store_be16(out + 2, destination_port);
  store_be32(out + 4, seq.value());
  store_be32(out + 8, ack.value());
  out[12] = static_cast<std::byte>(header_length / 4 << 4);
  out[13] = static_cast<std::byte>(flags.bits());
  store_be16(out + 14, window);
  store_be16(out + kChecksumOffset, 0);
  store_be16(out + 18, urgent_pointer);
}

}  // namespace ustack::tcp
