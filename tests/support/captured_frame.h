// A frame as a test sees it: taken apart down to TCP options, by code that shares nothing with the stack's
// own.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stack/net/address.h"
#include "stack/net/frame.h"

namespace ustack {
/// For GoogleTest's messages.
void PrintTo(const IpAddress& address, std::ostream* out);
void PrintTo(const MacAddress& mac, std::ostream* out);
}  // namespace ustack

namespace ustack::test {

struct CapturedEthernet {
  MacAddress source, destination;
  uint16_t type = 0;
};

struct CapturedArp {
  uint16_t operation = 0;
  MacAddress sender_mac, target_mac;
  IpAddress sender_address, target_address;
};

struct CapturedIpv4 {
  IpAddress source, destination;
  uint32_t header_length = 0, total_length = 0;
  uint16_t id = 0;
  uint8_t tos = 0, ttl = 0, protocol = 0;
  bool dont_fragment = false, more_fragments = false;
  uint32_t fragment_offset = 0;
  bool good_checksum = false;
};

struct CapturedIcmp {
  uint8_t type = 0, code = 0;
  uint32_t info = 0;
  bool good_checksum = false;
};

struct CapturedTcp {
  uint16_t source_port = 0, destination_port = 0;
  uint32_t seq = 0, ack = 0;
  uint32_t header_length = 0;
  uint8_t flags = 0;  // as in byte 13 of the header
  uint16_t window = 0, urgent = 0;
  /// The checksum is right, or is the pseudo-header's where the frame leaves it to the link.
  bool good_checksum = false;

  std::vector<uint8_t> option_kinds;  // in order, each NOP too
  bool good_options = true;           // no length runs over the header's end
  std::optional<uint16_t> mss;
  std::optional<uint8_t> window_scale;
  bool sack_permitted = false;
  std::optional<std::pair<uint32_t, uint32_t>> timestamps;  // TSval, TSecr
  std::vector<std::pair<uint32_t, uint32_t>> sack_blocks;
  std::optional<std::vector<std::byte>> fast_open;  // the cookie, empty for the request of one
  /// "SA", in the order FSRPAUEC: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
  std::string flag_letters() const;
};

/// What parse() found, from the outside in; a layer that isn't there or is cut short is absent.
struct CapturedFrame {
  std::vector<std::byte> bytes;
  Offload offload;
  /// Which of the link's it leaves by.
  uint8_t queue = kAnyQueue;
  std::optional<CapturedEthernet> ethernet;
  std::optional<CapturedArp> arp;
  std::optional<CapturedIpv4> ipv4;
  std::optional<CapturedIcmp> icmp;
  std::optional<CapturedTcp> tcp;
  /// What the innermost layer found carries: TCP's data, what follows ICMP's 8 bytes, a fragment's bytes.
  std::string payload;

  static CapturedFrame parse(std::vector<std::byte> bytes, LinkInfo::Kind kind, const Offload& offload = {});
  /// A copy of a frame in the transmit queue.
  static CapturedFrame of(TxFrame& frame, LinkInfo::Kind kind);
  /// What the frame holds from its IP header on.
  Bytes ip_packet() const;
};

/// Text as tcpdump would print it, for GoogleTest's messages.
std::ostream& operator<<(std::ostream& out, const CapturedFrame& frame);
std::string to_string(const IpAddress& address);

/// Takes all frames out of a transmit queue and gives them back to their pool.
std::vector<CapturedFrame> take_frames(FrameQueue& queue, FramePool& pool, LinkInfo::Kind kind);

}  // namespace ustack::test
