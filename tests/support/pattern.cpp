#include "tests/support/pattern.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace ustack::test {

void Pattern::fill(uint64_t offset, MutableBytes out) const {
  size_t done = 0;
  while (done < out.size()) {
    uint64_t index = (offset + done) / 8;
    size_t skip = (offset + done) % 8;
    if (skip == 0) {
      // Whole words in a loop of their own: gigabytes go through here.
      for (; out.size() - done >= 8; done += 8, ++index) {
        uint64_t value = word(index);
        std::memcpy(out.data() + done, &value, 8);
      }
      if (done == out.size()) return;
    }
    uint64_t value = word(index);
    size_t count = std::min(8 - skip, out.size() - done);
    std::memcpy(out.data() + done, reinterpret_cast<const std::byte*>(&value) + skip, count);
    done += count;
  }
}

bool Pattern::matches(uint64_t offset, Bytes bytes) const {
  std::array<std::byte, 4096> expected;
  for (size_t done = 0; done < bytes.size();) {
    size_t count = std::min(expected.size(), bytes.size() - done);
    fill(offset + done, MutableBytes(expected).first(count));
    if (std::memcmp(expected.data(), bytes.data() + done, count) != 0) return false;
    done += count;
  }
  return true;
}

}  // namespace ustack::test
