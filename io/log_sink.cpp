#include "io/log_sink.h"

#include <cerrno>
#include <cstring>
#include <ctime>

#include "io/syscalls.h"

namespace ustack::io {

namespace {

/// Zero-padded decimal.
void put_number(LogLine& line, long value, int digits) {
  char text[20];
  for (int i = digits - 1; i >= 0; --i, value /= 10) text[i] = static_cast<char>('0' + value % 10);
  line << std::string_view(text, static_cast<size_t>(digits));
}

}  // namespace

const char* log_level_name(LogLevel level) {
  switch (level) {
    case LogLevel::off:
      return "off";
    case LogLevel::error:
      return "error";
    case LogLevel::warning:
      return "warning";
    case LogLevel::info:
      return "info";
    case LogLevel::debug:
      return "debug";
    case LogLevel::trace:
      return "trace";
  }
  return "?";
}

std::optional<OpenError> FdLogSink::open(const std::string& path, FdLogSink* sink) {
  long fd = sys::openat(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
  if (fd < 0) {
    return OpenError{static_cast<int>(-fd),
                     "can't open the log file " + path + ": " + std::strerror(static_cast<int>(-fd))};
  }
  sink->fd_ = Descriptor(static_cast<int>(fd));
  return std::nullopt;
}

void FdLogSink::write(LogLevel level, std::string_view text) {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  // UTC: local time would need the C library's time zone code, which allocates and locks.
  long seconds = time.tv_sec % 86400;
  LogLine line;
  put_number(line, seconds / 3600, 2);
  line << ':';
  put_number(line, seconds / 60 % 60, 2);
  line << ':';
  put_number(line, seconds % 60, 2);
  line << '.';
  put_number(line, time.tv_nsec / 1000, 6);
  line << " ustack[" << sys::getpid() << "] " << log_level_name(level) << ": ";

  std::string_view prefix = line.text();
  char newline = '\n';
  iovec parts[3] = {{const_cast<char*>(prefix.data()), prefix.size()},
                    {const_cast<char*>(text.data()), text.size()},
                    {&newline, 1}};
  int fd = fd_ ? fd_.get() : 2;
  while (sys::writev(fd, parts, 3) == -EINTR) {
  }
}

}  // namespace ustack::io
