// Sequence numbers: modulo 2^32, compared by signed difference (RFC 9293, section 3.4).
#pragma once

#include <cstdint>

namespace ustack {

/// A TCP sequence number. Arithmetic wraps; `a < b` means that b is at most 2^31-1 ahead of a.
class SeqNum {
 public:
  constexpr SeqNum() = default;
  constexpr explicit SeqNum(uint32_t value) : value_(value) {}

  constexpr uint32_t value() const { return value_; }

  friend constexpr bool operator==(SeqNum, SeqNum) = default;
  friend constexpr bool operator<(SeqNum a, SeqNum b) {
    return static_cast<int32_t>(a.value_ - b.value_) < 0;
  }
  friend constexpr bool operator>(SeqNum a, SeqNum b) { return b < a; }
  friend constexpr bool operator<=(SeqNum a, SeqNum b) { return !(b < a); }
  friend constexpr bool operator>=(SeqNum a, SeqNum b) { return !(a < b); }

  friend constexpr SeqNum operator+(SeqNum a, uint32_t n) { return SeqNum(a.value_ + n); }
  friend constexpr SeqNum operator-(SeqNum a, uint32_t n) { return SeqNum(a.value_ - n); }
  /// How far a is ahead of b; meaningful only where a >= b.
  friend constexpr uint32_t operator-(SeqNum a, SeqNum b) { return a.value_ - b.value_; }
  constexpr SeqNum& operator+=(uint32_t n) {
    value_ += n;
    return *this;
  }
  constexpr SeqNum& operator++() {
    ++value_;
    return *this;
  }

  /// first <= *this < first + size.
  constexpr bool in_window(SeqNum first, uint32_t size) const { return value_ - first.value_ < size; }

 private:
  uint32_t value_ = 0;
};

constexpr SeqNum max(SeqNum a, SeqNum b) { return a < b ? b : a; }
constexpr SeqNum min(SeqNum a, SeqNum b) { return a < b ? a : b; }

}  // namespace ustack
