#include "tests/support/pattern.h"

#include <algorithm>
#include <cstring>

namespace ustack::test {

/// Calls visit(position, bytes of the pattern, count) for runs of at most 8 bytes until one says false.
template <typename Visit>
bool Pattern::words(uint64_t offset, size_t size, Visit visit) const {
  for (size_t done = 0; done < size;) {
    uint64_t value = word((offset + done) / 8);
    size_t skip = (offset + done) % 8;
    size_t count = std::min(8 - skip, size - done);
    if (!visit(done, reinterpret_cast<const std::byte*>(&value) + skip, count)) return false;
    done += count;
  }
  return true;
}

void Pattern::fill(uint64_t offset, MutableBytes out) const {
  words(offset, out.size(), [&](size_t at, const std::byte* bytes, size_t count) {
    std::memcpy(out.data() + at, bytes, count);
    return true;
  });
}

bool Pattern::matches(uint64_t offset, Bytes bytes) const {
  return words(offset, bytes.size(), [&](size_t at, const std::byte* expected, size_t count) {
    return std::memcmp(bytes.data() + at, expected, count) == 0;
  });
}

}  // namespace ustack::test
