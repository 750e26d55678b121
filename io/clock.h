// The machine's clock, read where io/ and shim/ hand time to the host.
#pragma once

#include <ctime>

#include "stack/base/time.h"

namespace ustack::io {

/// CLOCK_MONOTONIC, through the vdso: some 25 ns and no system call. The same in all processes of the
/// machine.
inline Instant now() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return Instant(std::chrono::seconds(ts.tv_sec) + Duration(ts.tv_nsec));
}

}  // namespace ustack::io
