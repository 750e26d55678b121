#include "stack/socket/option_values.h"

#include <netinet/in.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>

#include "stack/net/network.h"

namespace ustack {

Result<int> read_number(int level, Bytes value) {
  int number = 0;
  if (value.size() >= sizeof number)
    std::memcpy(&number, value.data(), sizeof number);
  else if (level != IPPROTO_IP)
    return Error{EINVAL};
  else if (!value.empty())
    number = std::to_integer<int>(value[0]);
  return number;
}

size_t write_number(int level, int number, MutableBytes out) {
  if (level == IPPROTO_IP && !out.empty() && out.size() < sizeof number && number >= 0 && number <= 255) {
    out[0] = static_cast<std::byte>(number);
    return 1;
  }
  return copy_out(&number, sizeof number, out);
}

Result<Duration> read_timeout(Bytes value) {
  timeval tv;
  if (value.size() < sizeof tv) return Error{EINVAL};
  std::memcpy(&tv, value.data(), sizeof tv);
  if (tv.tv_usec < 0 || tv.tv_usec >= 1000000) return Error{EDOM};
  // A negative time has passed already.
  if (tv.tv_sec < 0) return Duration(1);
  constexpr int64_t kLongest = 100 * 365 * 86400LL;
  return Duration(std::chrono::seconds(std::min<int64_t>(tv.tv_sec, kLongest))) +
         std::chrono::microseconds(tv.tv_usec);
}

size_t write_timeout(Duration timeout, MutableBytes out) {
  timeval tv{};
  tv.tv_sec = timeout / 1s;
  tv.tv_usec = (timeout % 1s) / 1us;
  return copy_out(&tv, sizeof tv, out);
}

uint32_t buffer_limit(int value, int most, int least) {
  // sock_setsockopt: min_t(u32, ...).
  if (value < 0) value = INT_MAX;
  return static_cast<uint32_t>(std::max(std::min(value, std::min(most, INT_MAX / 2)) * 2, least));
}

Result<BoundDevice> read_device(const Network& network, Bytes value) {
  constexpr size_t kLongest = 15;  // IFNAMSIZ without the zero
  auto* text = reinterpret_cast<const char*>(value.data());
  const std::string_view name(text, value.empty() ? 0 : strnlen(text, std::min(value.size(), kLongest)));
  if (name.empty()) return BoundDevice::any;
  if (name == network.device()) return BoundDevice::link;
  if (name == "lo" && network.has_loopback()) return BoundDevice::loopback;
  return Error{ENODEV};
}

Result<size_t> write_device(const Network& network, BoundDevice device, MutableBytes out) {
  std::array<char, 16> name{};
  const std::string_view text = device == BoundDevice::any    ? std::string_view()
                                : device == BoundDevice::link ? network.device()
                                                              : std::string_view("lo");
  if (text.empty()) return size_t{0};
  if (out.size() < name.size()) return Error{EINVAL};
  // Not string_view::copy, which may throw.
  std::memcpy(name.data(), text.data(), std::min(text.size(), name.size() - 1));
  return copy_out(name.data(), text.size() + 1, out);
}

}  // namespace ustack
