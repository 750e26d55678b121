// What the parts of the configuration's parser share. Internal to io/.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "io/config.h"
#include "io/log_sink.h"

namespace ustack::io {

inline std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// Applies "net.ipv4.name = value" (or net/ipv4/name, as sysctl(8) takes it too). What is wrong otherwise.
std::optional<std::string> set_sysctl(std::string_view assignment, Settings& settings);

}  // namespace ustack::io
