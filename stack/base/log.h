// Logging without formatting cost when it is off, and without libc: a line is built in a fixed buffer and
// handed to whoever plugged the host in.
#pragma once

#include <concepts>
#include <cstdint>
#include <string_view>

namespace ustack {

/// Off by default. `info`: what a user asked to know (connections opened and closed); `debug`: what an
/// endpoint did and why; `trace`: every segment.
enum class LogLevel : uint8_t { off, error, warning, info, debug, trace };

/// Receives finished lines. Called under the host's lock; must not call back into the host.
class LogSink {
 public:
  virtual void write(LogLevel level, std::string_view line) = 0;

 protected:
  ~LogSink() = default;
};

/// A line of text in the making; what doesn't fit is cut. `line << "snd_una=" << 17u`.
class LogLine {
 public:
  LogLine& operator<<(std::string_view text) {
    for (char c : text) put(c);
    return *this;
  }
  LogLine& operator<<(const char* text) { return *this << std::string_view(text); }
  LogLine& operator<<(char c) {
    put(c);
    return *this;
  }
  LogLine& operator<<(bool b) { return *this << (b ? "true" : "false"); }
  template <std::integral T>
  LogLine& operator<<(T value) {
    if constexpr (std::signed_integral<T>) {
      if (value < 0) {
        put('-');
        return decimal(0 - static_cast<uint64_t>(value));
      }
    }
    return decimal(static_cast<uint64_t>(value));
  }
  LogLine& hex(uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; --i) put("0123456789abcdef"[(value >> (4 * i)) & 15]);
    return *this;
  }
  std::string_view text() const { return {buffer_, length_}; }

 private:
  void put(char c) {
    if (length_ < sizeof buffer_) buffer_[length_++] = c;
  }
  LogLine& decimal(uint64_t value) {
    char digits[20];
    int n = 0;
    do digits[n++] = static_cast<char>('0' + value % 10);
    while ((value /= 10) != 0);
    while (n > 0) put(digits[--n]);
    return *this;
  }
  char buffer_[400];
  size_t length_ = 0;
};

/// A level and a sink. `if (log.on(LogLevel::debug)) log.write(...)` costs a load and a branch when off.
class Log {
 public:
  Log() = default;
  Log(LogLevel level, LogSink* sink) : level_(sink != nullptr ? level : LogLevel::off), sink_(sink) {}
  bool on(LogLevel level) const { return level <= level_ && level_ != LogLevel::off; }
  /// `build(line)` is called only if the level is on.
  template <typename Build>
  void operator()(LogLevel level, Build&& build) const {
    if (!on(level)) [[likely]]
      return;
    LogLine line;
    build(line);
    sink_->write(level, line.text());
  }

 private:
  LogLevel level_ = LogLevel::off;
  LogSink* sink_ = nullptr;
};

}  // namespace ustack
