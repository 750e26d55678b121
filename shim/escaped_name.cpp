#include "shim/escaped_name.h"

#include <cstddef>
#include <cstring>
#include <string_view>

namespace ustack::shim {

namespace {

constexpr std::string_view kPrefix{"\0ustack/", 8};
constexpr uint64_t kKeeperMask = 0xffff'ffff'ffff;

/// Appends to sun_path, of which even the longest name leaves a part.
class Writer {
 public:
  explicit Writer(UnixAddress& to) : to_(to) {
    to_.bytes.sun_family = AF_UNIX;
    to_.length = offsetof(sockaddr_un, sun_path);
    text(kPrefix);
  }
  Writer& text(std::string_view piece) {
    std::memcpy(reinterpret_cast<char*>(&to_.bytes) + to_.length, piece.data(), piece.size());
    to_.length += static_cast<socklen_t>(piece.size());
    return *this;
  }
  Writer& number(uint64_t value, unsigned base) {
    char digits[20];
    size_t at = sizeof digits;
    do {
      digits[--at] = "0123456789abcdef"[value % base];
      value /= base;
    } while (value != 0);
    return text({digits + at, sizeof digits - at});
  }
  Writer& address(const SocketAddress& address) {
    if (address.address.is_v4()) {
      for (int i = 0; i < 4; ++i) {
        if (i > 0) text(".");
        number(std::to_integer<uint8_t>(address.address.data()[i]), 10);
      }
    } else if (address.address.is_v6()) {
      for (int i = 0; i < 16; ++i) {
        auto byte = std::to_integer<uint8_t>(address.address.data()[i]);
        number(byte >> 4, 16).number(byte & 15, 16);
      }
    } else {
      return text("-");
    }
    return text(":").number(address.port, 10);
  }

 private:
  UnixAddress& to_;
};

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}
  bool skip(std::string_view piece) {
    if (!rest_.starts_with(piece)) return false;
    rest_.remove_prefix(piece.size());
    return true;
  }
  /// Digits of `base` up to something else; false: none, too many, or more than `most`.
  bool number(unsigned base, uint64_t most, uint64_t& value) {
    value = 0;
    size_t digits = 0;
    for (int digit; !rest_.empty() && (digit = digit_of(rest_[0])) >= 0 && digit < static_cast<int>(base);
         ++digits) {
      if (digits == 12) return false;
      value = value * base + static_cast<unsigned>(digit);
      rest_.remove_prefix(1);
    }
    return digits > 0 && value <= most;
  }
  bool address(SocketAddress& address) {
    if (skip("-")) return true;
    std::byte bytes[16];
    size_t colon = rest_.find(':');
    bool v6 = colon == 32;
    if (!(v6 ? bytes_of_v6(bytes) : bytes_of_v4(bytes))) return false;
    address.address = IpAddress::from_bytes(v6 ? Family::ipv6 : Family::ipv4, bytes);
    uint64_t port;
    if (!skip(":") || !number(10, 65535, port)) return false;
    address.port = static_cast<uint16_t>(port);
    return true;
  }
  bool empty() const { return rest_.empty(); }

 private:
  static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  }
  bool bytes_of_v4(std::byte* bytes) {
    for (int i = 0; i < 4; ++i) {
      uint64_t value;
      if ((i > 0 && !skip(".")) || !number(10, 255, value)) return false;
      bytes[i] = static_cast<std::byte>(value);
    }
    return true;
  }
  bool bytes_of_v6(std::byte* bytes) {
    for (int i = 0; i < 16; ++i) {
      int high = digit_of(rest_[0]), low = digit_of(rest_[1]);
      if (high < 0 || low < 0) return false;
      bytes[i] = static_cast<std::byte>(high * 16 + low);
      rest_.remove_prefix(2);
    }
    return true;
  }

  std::string_view rest_;
};

}  // namespace

UnixAddress format_escaped_name(const EscapedName& name) {
  UnixAddress address;
  Writer(address)
      .number(name.keeper & kKeeperMask, 16)
      .text("/")
      .number(name.number, 16)
      .text("/")
      .address(name.local)
      .text("/")
      .address(name.remote);
  return address;
}

UnixAddress format_keeper_name(uint64_t keeper) {
  UnixAddress address;
  Writer(address).number(keeper & kKeeperMask, 16);
  return address;
}

std::optional<EscapedName> parse_escaped_name(const sockaddr* address, socklen_t length) {
  if (address == nullptr || length <= offsetof(sockaddr_un, sun_path) || length > sizeof(sockaddr_un) ||
      address->sa_family != AF_UNIX)
    return std::nullopt;
  Reader reader({reinterpret_cast<const char*>(address) + offsetof(sockaddr_un, sun_path),
                 length - offsetof(sockaddr_un, sun_path)});
  EscapedName name;
  if (!reader.skip(kPrefix) || !reader.number(16, kKeeperMask, name.keeper) || !reader.skip("/") ||
      !reader.number(16, ~uint64_t{0}, name.number) || !reader.skip("/") || !reader.address(name.local) ||
      !reader.skip("/") || !reader.address(name.remote) || !reader.empty() ||
      name.local.address.family() == Family::unspecified)
    return std::nullopt;
  return name;
}

}  // namespace ustack::shim
