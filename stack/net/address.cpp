#include "stack/net/address.h"

namespace ustack {

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes_[0] == std::byte{127};
  if (!is_v6() || bytes_[15] != std::byte{1}) return false;
  for (size_t i = 0; i < 15; ++i)
    if (bytes_[i] != std::byte{0}) return false;
  return true;
}

bool IpAddress::is_ipv4_mapped() const {
  static constexpr uint8_t kPrefix[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return is_v6() && std::memcmp(bytes_.data(), kPrefix, sizeof kPrefix) == 0;
}

bool IpAddress::is_multicast() const {
  if (is_v4()) return (bytes_[0] & std::byte{0xf0}) == std::byte{0xe0};
  return is_v6() && bytes_[0] == std::byte{0xff};
}

bool Prefix::contains(const IpAddress& other) const {
  if (address.family() != other.family() || length > address.size() * 8) return false;
  size_t whole = length / 8;
  if (std::memcmp(address.data(), other.data(), whole) != 0) return false;
  unsigned rest = length % 8u;
  if (rest == 0) return true;
  auto mask = static_cast<std::byte>(0xff << (8 - rest));
  return ((address.data()[whole] ^ other.data()[whole]) & mask) == std::byte{0};
}

IpAddress Prefix::broadcast() const {
  // A /31 has no broadcast address (RFC 3021), nor has a host route.
  if (!address.is_v4() || length > 30) return {};
  return IpAddress::v4(address.v4_host_order() | host_mask());
}

namespace {

unsigned octet(const IpAddress& address, size_t i) { return static_cast<unsigned>(address.data()[i]); }

void put_dotted(LogLine& line, const IpAddress& address, size_t first) {
  for (size_t i = 0; i < 4; ++i) {
    if (i > 0) line << '.';
    line << octet(address, first + i);
  }
}

int hex_digits(unsigned value) {
  int digits = 1;
  while (value >>= 4) ++digits;
  return digits;
}

/// RFC 5952: lower case, no leading zeroes, the longest run of two or more zero groups as "::", the first one
/// if there are several; IPv4-mapped addresses with a dotted end (section 5).
void put_v6(LogLine& line, const IpAddress& address) {
  unsigned groups[8];
  for (size_t i = 0; i < 8; ++i) groups[i] = load_be16(address.data() + 2 * i);

  bool mapped = groups[5] == 0xffff;
  for (size_t i = 0; i < 5; ++i) mapped = mapped && groups[i] == 0;
  if (mapped) {
    line << "::ffff:";
    put_dotted(line, address, 12);
    return;
  }

  int best = -1, best_length = 1;
  for (int i = 0; i < 8; ++i) {
    int end = i;
    while (end < 8 && groups[end] == 0) ++end;
    if (end - i > best_length) {
      best = i;
      best_length = end - i;
    }
    if (end > i) i = end - 1;
  }
  for (int i = 0; i < 8; ++i) {
    if (i == best) {
      line << "::";
      i += best_length - 1;
      continue;
    }
    if (i > 0 && i != best + (best < 0 ? 0 : best_length)) line << ':';
    line.hex(groups[i], hex_digits(groups[i]));
  }
}

}  // namespace

LogLine& operator<<(LogLine& line, const IpAddress& address) {
  if (address.is_v4())
    put_dotted(line, address, 0);
  else if (address.is_v6())
    put_v6(line, address);
  else
    line << '*';
  return line;
}

LogLine& operator<<(LogLine& line, const SocketAddress& address) {
  if (address.address.is_v6())
    line << '[' << address.address << ']';
  else
    line << address.address;
  return line << ':' << address.port;
}

LogLine& operator<<(LogLine& line, const MacAddress& mac) {
  for (size_t i = 0; i < mac.bytes.size(); ++i) {
    if (i > 0) line << ':';
    line.hex(static_cast<unsigned>(mac.bytes[i]), 2);
  }
  return line;
}

LogLine& operator<<(LogLine& line, const ConnectionId& id) { return line << id.local << " -> " << id.remote; }

bool addresses_overlap(const IpAddress& a, bool a_v6_only, const IpAddress& b, bool b_v6_only) {
  if (a.family() == b.family()) return a.is_unspecified() || b.is_unspecified() || a == b;
  return a.is_v6() ? a.is_unspecified() && !a_v6_only : b.is_unspecified() && !b_v6_only;
}

}  // namespace ustack
