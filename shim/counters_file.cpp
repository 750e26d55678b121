#include "shim/counters_file.h"

#include <cstring>

#include "io/syscalls.h"
#include "stack/base/log.h"

namespace ustack::shim {

std::optional<io::OpenError> open_counters_file(const std::string& path, io::Descriptor* file) {
  long fd = io::sys::openat(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
  if (fd < 0) {
    return io::OpenError{static_cast<int>(-fd), "can't open the counters file " + path + ": " +
                                                    std::strerror(static_cast<int>(-fd))};
  }
  *file = io::Descriptor(static_cast<int>(fd));
  (void)io::move_high(*file);
  return std::nullopt;
}

void write_counters(const io::Descriptor& file, const Counters& counters) {
  if (!file) return;
  char text[16 * 1024];
  size_t length = 0;
  for (const CounterDescription& row : kCounterTable) {
    LogLine line;
    line << std::string_view(row.group) << std::string_view(row.name) << ' ' << counters.*row.field << '\n';
    std::string_view view = line.text();
    if (length + view.size() > sizeof text) break;
    length += view.copy(text + length, view.size());
  }
  long written = io::sys::call(SYS_pwrite64, file.get(), io::sys::arg(text), static_cast<long>(length), 0);
  if (written > 0) io::sys::call(SYS_ftruncate, file.get(), written);
}

}  // namespace ustack::shim
