// A short text that lies where it is, without a pointer: tables of names then need nothing of the dynamic
// linker, which would have to write each of their pages before the program starts.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace ustack {

/// Up to N - 1 characters, ended by a zero. A longer literal doesn't compile.
template <size_t N>
class FixedText {
 public:
  template <size_t Length>
  requires(Length <= N)
      // NOLINTNEXTLINE(google-explicit-constructor): a literal, as for string_view
      constexpr FixedText(const char (&text)[Length])
      : length_(Length - 1) {
    for (size_t i = 0; i < Length; ++i) text_[i] = text[i];
  }
  // NOLINTNEXTLINE(google-explicit-constructor)
  constexpr operator std::string_view() const { return {text_.data(), length_}; }
  friend constexpr bool operator==(const FixedText& a, std::string_view b) {
    return std::string_view(a) == b;
  }

 private:
  std::array<char, N> text_{};
  unsigned char length_;
};

}  // namespace ustack
