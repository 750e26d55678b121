#include "io/descriptor.h"

#include <sys/resource.h>

#include <algorithm>

namespace ustack::io {

namespace {

/// Room kept below the limit for the few descriptors of ours, and the number from which they lie when the
/// limit allows more.
constexpr long kRoom = 48, kUsualLowest = 1000;

}  // namespace

Status move_high(Descriptor& descriptor) {
  rlimit limit{};
  long highest = 1024;
  if (sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, sys::arg(&limit)) == 0 && limit.rlim_cur < 1u << 30)
    highest = static_cast<long>(limit.rlim_cur);
  // With a small limit the upper part is as high as it gets; the lowest free number from there on is taken,
  // so the search goes downwards only when that part is full.
  long lowest = std::min(kUsualLowest, std::max(highest - kRoom, highest / 2));
  for (;; lowest /= 2) {
    long moved = sys::fcntl(descriptor.get(), F_DUPFD_CLOEXEC, lowest);
    if (moved >= 0) {
      descriptor = Descriptor(static_cast<int>(moved));
      add_own_descriptor(descriptor.get());
      return {};
    }
    if (lowest == 0 || (moved != -EMFILE && moved != -EINVAL)) return Error{static_cast<int>(-moved)};
  }
}

}  // namespace ustack::io
