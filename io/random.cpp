#include "io/random.h"

#include <cerrno>

#include "io/syscalls.h"

namespace ustack::io {

void GetrandomSource::fill(MutableBytes out) {
  while (!out.empty()) {
    long got = sys::getrandom(out.data(), out.size(), 0);
    if (got == -EINTR) continue;
    // Without the system call (a sandbox) there is nothing to be had that a peer could not guess.
    if (got <= 0) __builtin_trap();
    out = out.subspan(static_cast<size_t>(got));
  }
}

}  // namespace ustack::io
