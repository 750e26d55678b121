#include "tests/support/packet_builder.h"

#include "stack/base/bytes.h"

namespace ustack::test {

namespace {

/// The Internet checksum in the plainest way.
uint16_t plain_checksum(const ByteVector& bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2)
    sum += std::to_integer<uint64_t>(bytes[i]) << 8 |
           (i + 1 < bytes.size() ? std::to_integer<uint64_t>(bytes[i + 1]) : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

ByteVector padded(ByteVector options) {
  while (options.size() % 4 != 0) options.push_back(std::byte{0});
  return options;
}

template <size_t N>
ByteVector vector_of(const std::array<std::byte, N>& bytes) {
  return {bytes.begin(), bytes.end()};
}

}  // namespace

ByteVector bytes_of(std::string_view text) {
  auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

ByteVector pattern_bytes(size_t n, uint8_t seed) {
  ByteVector bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>(seed + i * 7 + (i >> 8) * 13);
  return bytes;
}

ByteVector operator+(ByteVector left, const ByteVector& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

ByteVector ipv4_packet(const Ipv4Fields& fields, const ByteVector& payload) {
  ByteVector options = padded(fields.options);
  size_t header_length = 20 + options.size();
  ByteVector header(20);
  unsigned ihl = fields.ihl.value_or(static_cast<uint8_t>(header_length / 4));
  header[0] = static_cast<std::byte>(fields.version << 4 | ihl);
  header[1] = std::byte{fields.tos};
  size_t total = header_length + payload.size();
  store_be16(&header[2], fields.total_length.value_or(static_cast<uint16_t>(total)));
  store_be16(&header[4], fields.id);
  unsigned flags = (fields.dont_fragment ? 0x4000u : 0) | (fields.more_fragments ? 0x2000u : 0);
  store_be16(&header[6], static_cast<uint16_t>(flags | fields.fragment_offset / 8));
  header[8] = std::byte{fields.ttl};
  header[9] = std::byte{fields.protocol};
  std::memcpy(&header[12], fields.source.data(), 4);
  std::memcpy(&header[16], fields.destination.data(), 4);
  header = header + options;
  store_be16(&header[10], static_cast<uint16_t>(plain_checksum(header) + fields.checksum_error));
  return header + payload;
}

ByteVector ethernet_frame(const MacAddress& destination, const MacAddress& source, uint16_t type,
                          const ByteVector& payload) {
  ByteVector tail(2);
  store_be16(tail.data(), type);
  return vector_of(destination.bytes) + vector_of(source.bytes) + tail + payload;
}

ByteVector arp_packet(uint16_t operation, const MacAddress& sender_mac, const IpAddress& sender,
                      const MacAddress& target_mac, const IpAddress& target) {
  ByteVector packet(28);
  store_be16(&packet[0], 1);
  store_be16(&packet[2], 0x0800);
  packet[4] = std::byte{6};
  packet[5] = std::byte{4};
  store_be16(&packet[6], operation);
  std::memcpy(&packet[8], sender_mac.bytes.data(), 6);
  std::memcpy(&packet[14], sender.data(), 4);
  std::memcpy(&packet[18], target_mac.bytes.data(), 6);
  std::memcpy(&packet[24], target.data(), 4);
  return packet;
}

ByteVector icmp_message(uint8_t type, uint8_t code, uint32_t info, const ByteVector& payload,
                        uint16_t checksum_error) {
  ByteVector header(8);
  header[0] = std::byte{type};
  header[1] = std::byte{code};
  store_be32(&header[4], info);
  ByteVector message = header + payload;
  store_be16(&message[2], static_cast<uint16_t>(plain_checksum(message) + checksum_error));
  return message;
}

ByteVector tcp_segment(const IpAddress& source, const IpAddress& destination, const TcpFields& fields,
                       const ByteVector& payload) {
  ByteVector options = padded(fields.options);
  ByteVector header(20);
  store_be16(&header[0], fields.source_port);
  store_be16(&header[2], fields.destination_port);
  store_be32(&header[4], fields.seq);
  store_be32(&header[8], fields.ack);
  unsigned words = fields.data_offset.value_or(static_cast<uint8_t>(5 + options.size() / 4));
  header[12] = static_cast<std::byte>(words << 4);
  unsigned flags = 0;
  for (char c : fields.flags) flags |= 1u << std::string_view("FSRPAUEC").find(c);
  header[13] = static_cast<std::byte>(flags);
  store_be16(&header[14], fields.window);
  store_be16(&header[18], fields.urgent);
  ByteVector segment = header + options + payload;

  ByteVector pseudo(12);
  std::memcpy(&pseudo[0], source.data(), 4);
  std::memcpy(&pseudo[4], destination.data(), 4);
  pseudo[9] = std::byte{6};
  store_be16(&pseudo[10], static_cast<uint16_t>(segment.size()));
  uint16_t checksum = plain_checksum(pseudo + segment);
  store_be16(&segment[16], static_cast<uint16_t>(checksum + fields.checksum_error));
  return segment;
}

}  // namespace ustack::test
