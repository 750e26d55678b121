// Pieces of a socket's buffer for a system call that takes several.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "stack/socket/socket.h"

namespace ustack::shim {

/// The first `limit` bytes of `extents`; how many of `parts`, which has room for Extents::kMax, they fill.
inline uint32_t to_iovec(const Extents& extents, size_t limit, iovec* parts) {
  uint32_t count = 0;
  for (; count < extents.count && limit > 0; ++count) {
    size_t n = std::min(extents.runs[count].size(), limit);
    parts[count] = {extents.runs[count].data(), n};
    limit -= n;
  }
  return count;
}

}  // namespace ustack::shim
