// What tests ask about a frame on the wire. Reads the bytes by itself, so that it can judge the library's
// parsers.
#pragma once

#include <cstdint>
#include <optional>

#include "tests/support/emulator.h"

namespace ustack::test {

/// A TCP segment over IPv4 or IPv6 (without extension headers) in a frame, header fields in host order.
struct TcpView {
  IpAddress source, destination;
  uint16_t source_port = 0, destination_port = 0;
  uint32_t seq = 0, ack = 0;
  uint16_t window = 0;
  uint8_t flags = 0;
  size_t payload = 0;
  /// Where in the frame the headers and the payload begin.
  size_t ip_at = 0, tcp_at = 0, payload_at = 0;

  bool fin() const { return (flags & 0x01) != 0; }
  bool syn() const { return (flags & 0x02) != 0; }
  bool rst() const { return (flags & 0x04) != 0; }
  bool ack_flag() const { return (flags & 0x10) != 0; }
  /// Nothing but an acknowledgement.
  bool pure_ack() const { return ack_flag() && payload == 0 && (flags & 0x07) == 0; }

  /// Nothing if the frame is not a whole TCP segment.
  static std::optional<TcpView> parse(const WireFrame& frame, bool ethernet = true) {
    const std::vector<std::byte>& bytes = frame.bytes;
    TcpView view;
    view.ip_at = ethernet ? 14 : 0;
    if (bytes.size() < view.ip_at + 40) return {};
    const std::byte* ip = &bytes[view.ip_at];
    const bool v6 = (ip[0] >> 4) == std::byte{6};
    if (ethernet && load_be16(&bytes[12]) != (v6 ? 0x86dd : 0x0800)) return {};
    size_t end = view.ip_at;
    if (v6) {
      if (ip[6] != std::byte{6}) return {};
      view.tcp_at = view.ip_at + 40;
      end += 40 + size_t{load_be16(ip + 4)};
    } else {
      if ((ip[0] >> 4) != std::byte{4} || ip[9] != std::byte{6}) return {};
      if ((load_be16(ip + 6) & 0x3fff) != 0) return {};
      view.tcp_at = view.ip_at + static_cast<size_t>(ip[0] & std::byte{15}) * 4;
      end += load_be16(ip + 2);
    }
    if (end > bytes.size() || view.tcp_at + 20 > end) return {};
    const std::byte* tcp = &bytes[view.tcp_at];
    view.payload_at = view.tcp_at + static_cast<size_t>(tcp[12] >> 4) * 4;
    if (view.payload_at > end) return {};
    view.source =
        v6 ? IpAddress::from_bytes(Family::ipv6, ip + 8) : IpAddress::from_bytes(Family::ipv4, ip + 12);
    view.destination =
        v6 ? IpAddress::from_bytes(Family::ipv6, ip + 24) : IpAddress::from_bytes(Family::ipv4, ip + 16);
    view.source_port = load_be16(tcp);
    view.destination_port = load_be16(tcp + 2);
    view.seq = load_be32(tcp + 4);
    view.ack = load_be32(tcp + 8);
    view.flags = static_cast<uint8_t>(tcp[13]);
    view.window = load_be16(tcp + 14);
    view.payload = end - view.payload_at;
    return view;
  }
};

/// A rule that drops the first `count` TCP segments that `matches` says yes to.
template <typename Matches>
Rule drop_first(int count, Matches matches) {
  return [count, matches](WireFrame& frame) mutable {
    auto view = TcpView::parse(frame);
    if (count == 0 || !view || !matches(*view)) return Verdict::pass;
    --count;
    return Verdict::drop;
  };
}

/// A rule that counts the TCP segments that `matches` says yes to, and lets everything through.
template <typename Matches>
Rule count_in(int& count, Matches matches) {
  return [&count, matches](WireFrame& frame) {
    auto view = TcpView::parse(frame);
    if (view && matches(*view)) ++count;
    return Verdict::pass;
  };
}

}  // namespace ustack::test
