// Where the log's lines go.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "io/descriptor.h"
#include "io/open_error.h"
#include "stack/base/log.h"

namespace ustack::io {

/// Writes each line with one write(2), so that lines of several processes don't mix:
/// "12:34:56.789012 ustack[4711] info: line". Process-private; valid in children.
class FdLogSink final : public LogSink {
 public:
  /// stderr, as descriptor 2 is at the time of each line.
  FdLogSink() = default;
  /// Appends to a file, made if needed. On failure `*sink` is untouched.
  static std::optional<OpenError> open(const std::string& path, FdLogSink* sink);

  void write(LogLevel level, std::string_view line) override;
  Descriptor& descriptor() { return fd_; }

 private:
  Descriptor fd_;
};

/// "off", "error", "warning", "info", "debug", "trace".
const char* log_level_name(LogLevel level);

}  // namespace ustack::io
