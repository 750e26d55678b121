#include "stack/settings.h"

#include <cstddef>
#include <limits>
#include <span>

#include "stack/base/fixed_text.h"
#include "stack/tcp/congestion.h"

namespace ustack {

namespace {

struct IntegerSetting {
  FixedText<48> name;
  int32_t Settings::*field;
  int32_t lowest, highest;
};

constexpr auto kIntegers = std::to_array<IntegerSetting>({
#define USTACK_SETTING_ROW(field, name, value, lowest, highest) {name, &Settings::field, lowest, highest},
    USTACK_INTEGER_SETTINGS(USTACK_SETTING_ROW)
#undef USTACK_SETTING_ROW
});

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/// Takes a decimal number with an optional sign off the front of `text`, with the white space around it.
Result<int64_t> take_number(std::string_view& text) {
  size_t i = 0;
  while (i < text.size() && is_space(text[i])) ++i;
  bool negative = i < text.size() && text[i] == '-';
  if (negative || (i < text.size() && text[i] == '+')) ++i;
  size_t first_digit = i;
  int64_t value = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
    value = value * 10 + (text[i] - '0');
    if (value > std::numeric_limits<int32_t>::max()) return Error{EINVAL};
  }
  if (i == first_digit) return Error{EINVAL};
  if (i < text.size() && !is_space(text[i])) return Error{EINVAL};
  while (i < text.size() && is_space(text[i])) ++i;
  text.remove_prefix(i);
  return negative ? -value : value;
}

/// Exactly as many numbers as `out` has, each within bounds; `out` is left alone on error.
template <size_t N>
Status parse(std::string_view text, int32_t lowest, int32_t highest, std::array<int32_t, N>& out) {
  std::array<int32_t, N> values{};
  for (int32_t& value : values) {
    Result<int64_t> number = take_number(text);
    if (!number.ok()) return number.error();
    if (*number < lowest || *number > highest) return Error{EINVAL};
    value = static_cast<int32_t>(*number);
  }
  if (!text.empty()) return Error{EINVAL};
  out = values;
  return {};
}

/// A key of net.ipv4.tcp_fastopen_key: four 32-bit words in hexadecimal with dashes between them, whose bytes
/// Linux lays down little-endian. Taken off the front of `text`.
bool take_key(std::string_view& text, std::span<std::byte> out) {
  for (size_t word = 0; word < 4; ++word) {
    uint32_t value = 0;
    size_t digits = 0;
    for (; digits < 8 && digits < text.size(); ++digits) {
      char c = text[digits];
      uint32_t digit = c >= '0' && c <= '9'   ? static_cast<uint32_t>(c - '0')
                       : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
                       : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                              : 16;
      if (digit == 16) break;
      value = value << 4 | digit;
    }
    text.remove_prefix(digits);
    if (digits == 0) return false;
    for (size_t i = 0; i < 4; ++i) out[word * 4 + i] = static_cast<std::byte>(value >> (8 * i));
    if (word < 3) {
      if (text.empty() || text[0] != '-') return false;
      text.remove_prefix(1);
    }
  }
  return true;
}

Status set_fastopen_key(std::string_view text, Settings& settings) {
  std::array<std::byte, 32> key{};
  if (!take_key(text, std::span(key).first(16))) return Error{EINVAL};
  bool backup = !text.empty() && text[0] == ',';
  if (backup) {
    text.remove_prefix(1);
    if (!take_key(text, std::span(key).last(16))) return Error{EINVAL};
  }
  if (!text.empty()) return Error{EINVAL};
  settings.tcp_fastopen_key = key;
  settings.tcp_fastopen_keys = backup ? 2 : 1;
  return {};
}

Status set_congestion_control(std::string_view text, Settings& settings) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  const tcp::CongestionAlgorithm* algorithm = tcp::find_congestion_algorithm(text);
  if (algorithm == nullptr) return Error{EINVAL};
  settings.tcp_congestion_control = algorithm->name;
  return {};
}

template <size_t N>
bool ascending(const std::array<int32_t, N>& values) {
  for (size_t i = 1; i < N; ++i)
    if (values[i - 1] > values[i]) return false;
  return true;
}

template <size_t N>
Status set_ascending(std::string_view text, int32_t lowest, int32_t highest, std::array<int32_t, N>& field) {
  std::array<int32_t, N> values{};
  Status status = parse(text, lowest, highest, values);
  if (!status.ok()) return status;
  if (!ascending(values)) return Error{EINVAL};
  field = values;
  return {};
}

}  // namespace

Status Settings::set(std::string_view name, std::string_view value) {
  for (const IntegerSetting& row : kIntegers) {
    if (row.name != name) continue;
    std::array<int32_t, 1> number{};
    Status status = parse(value, row.lowest, row.highest, number);
    if (status.ok()) this->*row.field = number[0];
    return status;
  }
  constexpr int32_t kLargestBuffer = 1 << 30;
  if (name == "net.ipv4.tcp_rmem") return set_ascending(value, 1, kLargestBuffer, tcp_rmem);
  if (name == "net.ipv4.tcp_mem") return set_ascending(value, 0, 0x7fffffff, tcp_mem);
  if (name == "net.ipv4.tcp_wmem") return set_ascending(value, 1, kLargestBuffer, tcp_wmem);
  // ip-sysctl: the first must be less than the last.
  if (name == "net.ipv4.ip_local_port_range") return set_ascending(value, 1, 65535, ip_local_port_range);
  if (name == "net.ipv4.tcp_fastopen_key") return set_fastopen_key(value, *this);
  if (name == "net.ipv4.tcp_congestion_control") return set_congestion_control(value, *this);
  return Error{ENOENT};
}

}  // namespace ustack
