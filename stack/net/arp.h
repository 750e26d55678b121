// ARP for IPv4 over Ethernet (RFC 826): a byte view and the parsed packet.
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/bytes.h"
#include "stack/net/address.h"

namespace ustack {

/// The fields of an ARP packet where they lie. Unchecked: the bytes must hold kLength.
class ArpView {
 public:
  static constexpr uint32_t kLength = 28;
  explicit ArpView(const std::byte* packet) : at_(packet) {}

  uint16_t hardware_type() const { return load_be16(at_); }
  uint16_t protocol_type() const { return load_be16(at_ + 2); }
  uint8_t hardware_length() const { return std::to_integer<uint8_t>(at_[4]); }
  uint8_t protocol_length() const { return std::to_integer<uint8_t>(at_[5]); }
  uint16_t operation() const { return load_be16(at_ + 6); }
  MacAddress sender_mac() const { return mac_at(8); }
  IpAddress sender_address() const { return IpAddress::from_bytes(Family::ipv4, at_ + 14); }
  MacAddress target_mac() const { return mac_at(18); }
  IpAddress target_address() const { return IpAddress::from_bytes(Family::ipv4, at_ + 24); }

 private:
  MacAddress mac_at(uint32_t offset) const {
    MacAddress mac;
    std::memcpy(mac.bytes.data(), at_ + offset, mac.bytes.size());
    return mac;
  }
  const std::byte* at_;
};

/// A parsed ARP packet. parse() takes any bytes whatever.
struct ArpPacket {
  static constexpr uint32_t kLength = ArpView::kLength;
  enum class Operation : uint16_t { request = 1, reply = 2 };
  Operation operation = Operation::request;
  MacAddress sender_mac;
  IpAddress sender_address;
  MacAddress target_mac;
  IpAddress target_address;

  /// Nothing unless it is a complete request or reply for IPv4 over Ethernet; bytes after it are padding.
  static std::optional<ArpPacket> parse(Bytes bytes) {
    if (bytes.size() < kLength) return std::nullopt;
    ArpView view(bytes.data());
    if (view.hardware_type() != 1 || view.protocol_type() != 0x0800) return std::nullopt;
    if (view.hardware_length() != 6 || view.protocol_length() != 4) return std::nullopt;
    if (view.operation() != 1 && view.operation() != 2) return std::nullopt;
    return ArpPacket{static_cast<Operation>(view.operation()), view.sender_mac(), view.sender_address(),
                     view.target_mac(), view.target_address()};
  }
  /// Writes kLength bytes.
  void emit(std::byte* out) const {
    store_be16(out, 1);
    store_be16(out + 2, 0x0800);
    out[4] = std::byte{6};
    out[5] = std::byte{4};
    store_be16(out + 6, static_cast<uint16_t>(operation));
    std::memcpy(out + 8, sender_mac.bytes.data(), 6);
    std::memcpy(out + 14, sender_address.data(), 4);
    std::memcpy(out + 18, target_mac.bytes.data(), 6);
    std::memcpy(out + 24, target_address.data(), 4);
  }
  friend bool operator==(const ArpPacket&, const ArpPacket&) = default;
};

}  // namespace ustack
