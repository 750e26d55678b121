// Ethernet II frames (IEEE 802.3, 3.2.6): a byte view and the parsed header.
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/bytes.h"
#include "stack/net/address.h"

namespace ustack {

/// EtherTypes that are told apart here (IANA, "IEEE 802 Numbers").
namespace ethertype {
inline constexpr uint16_t kIpv4 = 0x0800, kArp = 0x0806, kVlan = 0x8100, kIpv6 = 0x86dd,
                          kServiceVlan = 0x88a8;
/// Smaller values are the length of an 802.3 frame.
inline constexpr uint16_t kLowest = 0x0600;
}  // namespace ethertype

/// The fields of an Ethernet header where they lie. Unchecked: the bytes must hold kHeaderLength.
class EthernetView {
 public:
  static constexpr uint32_t kHeaderLength = 14;
  explicit EthernetView(const std::byte* header) : at_(header) {}

  MacAddress destination() const { return mac_at(0); }
  MacAddress source() const { return mac_at(6); }
  uint16_t type() const { return load_be16(at_ + 12); }

 private:
  MacAddress mac_at(uint32_t offset) const {
    MacAddress mac;
    std::memcpy(mac.bytes.data(), at_ + offset, mac.bytes.size());
    return mac;
  }
  const std::byte* at_;
};

/// A parsed Ethernet header. parse() takes any bytes whatever.
struct EthernetHeader {
  static constexpr uint32_t kLength = EthernetView::kHeaderLength;
  MacAddress destination, source;
  uint16_t type = 0;

  /// Nothing when the frame is shorter than its header or claims to come from a group address.
  static std::optional<EthernetHeader> parse(Bytes frame) {
    if (frame.size() < kLength) return std::nullopt;
    EthernetView view(frame.data());
    EthernetHeader header{view.destination(), view.source(), view.type()};
    if (header.source.is_multicast()) return std::nullopt;
    return header;
  }
  /// Writes kLength bytes.
  void emit(std::byte* out) const {
    std::memcpy(out, destination.bytes.data(), 6);
    std::memcpy(out + 6, source.bytes.data(), 6);
    store_be16(out + 12, type);
  }
  friend bool operator==(const EthernetHeader&, const EthernetHeader&) = default;
};

}  // namespace ustack
