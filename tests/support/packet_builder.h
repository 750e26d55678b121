// Frames for tests to send, right by default and wrong in any field on demand.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "stack/net/address.h"

namespace ustack::test {

using ByteVector = std::vector<std::byte>;

ByteVector bytes_of(std::string_view text);
/// `n` bytes that differ from their neighbours.
ByteVector pattern_bytes(size_t n, uint8_t seed = 0);
/// One run after the other.
ByteVector operator+(ByteVector left, const ByteVector& right);

/// An IPv4 header. What is computed unless given: total length, IHL, checksum.
struct Ipv4Fields {
  IpAddress source, destination;
  uint8_t protocol = 6;
  uint8_t ttl = 64;
  uint8_t tos = 0;
  uint16_t id = 1;
  bool dont_fragment = false;
  bool more_fragments = false;
  uint32_t fragment_offset = 0;  ///< in bytes
  ByteVector options{};          ///< filled up with zeros to a multiple of 4
  uint8_t version = 4;
  std::optional<uint8_t> ihl{};  ///< in 32-bit words
  std::optional<uint16_t> total_length{};
  uint16_t checksum_error = 0;  ///< added to the right checksum
};
ByteVector ipv4_packet(const Ipv4Fields& fields, const ByteVector& payload);

ByteVector ethernet_frame(const MacAddress& destination, const MacAddress& source, uint16_t type,
                          const ByteVector& payload);
/// operation: 1 request, 2 reply.
ByteVector arp_packet(uint16_t operation, const MacAddress& sender_mac, const IpAddress& sender,
                      const MacAddress& target_mac, const IpAddress& target);
ByteVector icmp_message(uint8_t type, uint8_t code, uint32_t info, const ByteVector& payload,
                        uint16_t checksum_error = 0);

struct TcpFields {
  uint16_t source_port = 0, destination_port = 0;
  uint32_t seq = 0, ack = 0;
  std::string_view flags = "A";  ///< letters of FSRPAUEC
  uint16_t window = 65535;
  uint16_t urgent = 0;
  ByteVector options{};                  ///< filled up with zeros to a multiple of 4
  std::optional<uint8_t> data_offset{};  ///< in 32-bit words
  uint16_t checksum_error = 0;
};
/// A TCP segment (without IP header), with the checksum for these addresses.
ByteVector tcp_segment(const IpAddress& source, const IpAddress& destination, const TcpFields& fields,
                       const ByteVector& payload = {});

}  // namespace ustack::test
