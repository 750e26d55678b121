#include "stack/net/ipv4.h"

#include "stack/base/checksum.h"

namespace ustack {

Ipv4Error Ipv4Header::parse(Bytes packet, Ipv4Header& out) {
  if (packet.size() < kLength) return Ipv4Error::short_header;
  Ipv4View view(packet.data());
  if (view.version() != 4) return Ipv4Error::version;
  uint32_t header_length = view.header_length();
  if (header_length < kLength) return Ipv4Error::header_length;
  if (packet.size() < header_length) return Ipv4Error::short_header;
  const bool plain = header_length == kLength;
  if ((plain ? checksum_of_20(packet.data()) : checksum_of(packet.first(header_length))) != 0)
    return Ipv4Error::checksum;
  if (view.total_length() < header_length) return Ipv4Error::total_length;
  if (packet.size() < view.total_length()) return Ipv4Error::truncated;

  out.header_length = static_cast<uint8_t>(header_length);
  out.tos = view.tos();
  out.total_length = view.total_length();
  out.id = view.id();
  out.dont_fragment = view.dont_fragment();
  out.more_fragments = view.more_fragments();
  out.fragment_offset = view.fragment_offset();
  out.ttl = view.ttl();
  out.protocol = view.protocol();
  out.source = view.source();
  out.destination = view.destination();
  return Ipv4Error::none;
}

void Ipv4Header::emit(std::byte* out) const {
  out[0] = std::byte{0x45};
  out[1] = std::byte{tos};
  store_be16(out + 2, total_length);
  store_be16(out + 4, id);
  uint32_t flags_and_offset =
      (dont_fragment ? 0x4000u : 0u) | (more_fragments ? 0x2000u : 0u) | fragment_offset / 8u;
  store_be16(out + 6, static_cast<uint16_t>(flags_and_offset));
  out[8] = std::byte{ttl};
  out[9] = std::byte{protocol};
  store_be16(out + 10, 0);
  std::memcpy(out + 12, source.data(), 4);
  std::memcpy(out + 16, destination.data(), 4);
  store_be16(out + 10, checksum_of_20(out));
}

namespace {

// Option types with the copied bit, as on the wire (RFC 791, section 3.1; RFC 2113).
constexpr uint8_t kEndOfOptions = 0, kNoOperation = 1, kRecordRoute = 7, kTimestamp = 68, kLooseRoute = 131,
                  kStrictRoute = 137, kRouterAlert = 148;

/// Checks one option of `length` bytes at `at`. Returns 0, or 1 + the offset in it of the byte that is wrong.
uint32_t check_option(const std::byte* at, uint32_t length) {
  auto byte = [at](uint32_t i) { return std::to_integer<uint32_t>(at[i]); };
  switch (byte(0)) {
    case kLooseRoute:
    case kStrictRoute:
    case kRecordRoute:
      if (length < 3) return 1 + 1;
      // The pointer starts at 4; either there is room for one more address or it is past the end.
      if (byte(2) < 4) return 1 + 2;
      if (byte(2) <= length && byte(2) + 3 > length) return 1 + 2;
      return 0;
    case kTimestamp: {
      if (length < 4) return 1 + 1;
      if (byte(2) < 5) return 1 + 2;
      bool with_address = (byte(3) & 15) == 1 || (byte(3) & 15) == 3;
      if (byte(2) <= length && byte(2) + (with_address ? 7 : 3) > length) return 1 + 2;
      return 0;
    }
    case kRouterAlert:
      return length < 4 ? 1 + 1 : 0;
    default:
      return 0;  // RFC 1122, 3.2.1.8: options not understood are ignored
  }
}

}  // namespace

Ipv4Options Ipv4Options::check(Bytes header) {
  auto malformed = [](uint32_t at) { return Ipv4Options{Verdict::malformed, static_cast<uint8_t>(at)}; };
  bool source_routed = false, recorded = false, stamped = false;
  uint32_t end = static_cast<uint32_t>(header.size());
  uint32_t at = Ipv4View::kHeaderLength;
  while (at < end) {
    uint8_t type = std::to_integer<uint8_t>(header[at]);
    if (type == kEndOfOptions) break;
    if (type == kNoOperation) {
      ++at;
      continue;
    }
    if (end - at < 2) return malformed(at);
    uint32_t length = std::to_integer<uint32_t>(header[at + 1]);
    if (length < 2 || length > end - at) return malformed(at);
    // RFC 1122, 3.2.1.8(c): not more than one source route; Linux holds the others to that too.
    bool route = type == kLooseRoute || type == kStrictRoute;
    bool& seen = route ? source_routed : type == kRecordRoute ? recorded : stamped;
    if (route || type == kRecordRoute || type == kTimestamp) {
      if (seen) return malformed(at);
      seen = true;
    }
    uint32_t wrong = check_option(&header[at], length);
    if (wrong != 0) return malformed(at + wrong - 1);
    at += length;
  }
  return Ipv4Options{source_routed ? Verdict::source_routed : Verdict::ok, 0};
}

}  // namespace ustack
