// What libFuzzer gives, as numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ustack::test {

/// The input as a source of numbers; zeroes when it has run out.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  bool empty() const { return left_ == 0; }
  uint8_t u8() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  uint16_t u16() {
    auto high = static_cast<unsigned>(u8());
    return static_cast<uint16_t>(high << 8 | u8());
  }
  uint32_t u32() { return static_cast<uint32_t>(u16()) << 16 | u16(); }
  void append(std::vector<std::byte>& out, size_t n) {
    for (size_t i = 0; i < n; ++i) out.push_back(std::byte{u8()});
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace ustack::test
