// Addresses as people write them.
#include <arpa/inet.h>

#include <charconv>

#include "io/config.h"

namespace ustack::io {

std::optional<IpAddress> parse_address(std::string_view text) {
  char copy[INET6_ADDRSTRLEN + 1];
  if (text.size() >= sizeof copy) return std::nullopt;
  copy[text.copy(copy, text.size())] = '\0';
  std::byte bytes[16];
  if (inet_pton(AF_INET, copy, bytes) == 1) return IpAddress::from_bytes(Family::ipv4, bytes);
  if (inet_pton(AF_INET6, copy, bytes) == 1) return IpAddress::from_bytes(Family::ipv6, bytes);
  return std::nullopt;
}

std::optional<Prefix> parse_prefix(std::string_view text) {
  size_t slash = text.find('/');
  auto address = parse_address(text.substr(0, slash));
  if (!address) return std::nullopt;
  auto whole = static_cast<uint8_t>(address->size() * 8);
  Prefix prefix{*address, whole};
  if (slash == std::string_view::npos) return prefix;
  std::string_view digits = text.substr(slash + 1);
  unsigned length = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (error != std::errc() || end != digits.data() + digits.size() || length > whole) return std::nullopt;
  prefix.length = static_cast<uint8_t>(length);
  return prefix;
}

std::optional<MacAddress> parse_mac(std::string_view text) {
  MacAddress mac;
  if (text.size() != 17) return std::nullopt;
  for (size_t i = 0; i < 6; ++i) {
    const char* at = text.data() + 3 * i;
    unsigned value = 0;
    auto [end, error] = std::from_chars(at, at + 2, value, 16);
    if (error != std::errc() || end != at + 2 || (i < 5 && at[2] != ':')) return std::nullopt;
    mac.bytes[i] = static_cast<std::byte>(value);
  }
  return mac;
}

std::string to_string(const IpAddress& address) {
  if (address.family() == Family::unspecified) return "(no address)";
  char text[INET6_ADDRSTRLEN];
  inet_ntop(address.is_v4() ? AF_INET : AF_INET6, address.data(), text, sizeof text);
  return text;
}

std::string to_string(const Prefix& prefix) {
  return to_string(prefix.address) + "/" + std::to_string(prefix.length);
}

std::string to_string(const MacAddress& mac) {
  LogLine line;
  for (size_t i = 0; i < 6; ++i) {
    if (i > 0) line << ':';
    line.hex(static_cast<uint64_t>(mac.bytes[i]), 2);
  }
  return std::string(line.text());
}

}  // namespace ustack::io
