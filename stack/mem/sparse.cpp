#include "stack/mem/sparse.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace ustack {

namespace {

constexpr size_t kWord = sizeof(uint64_t);
constexpr uint32_t kMostSame = 255;

/// What a changed word is written down behind.
struct Heading {
  uint32_t same, first, last;
  /// Two bytes follow that say where.
  bool inward() const { return last < first; }
};
constexpr uint32_t kInwardFirst = 1, kInwardLast = 0;
/// More words that are the same than a heading has room for.
constexpr uint32_t kSaidBehind = 3;
/// Heading, the byte behind it and a whole word.
constexpr size_t kMostOfWord = 2 + kWord;

class Writer {
 public:
  explicit Writer(MutableBytes out) : out_(out) {}
  bool full() const { return out_.size() - used_ < kMostOfWord; }
  size_t used() const { return used_; }
  void byte(uint64_t value) { out_[used_++] = static_cast<std::byte>(value); }
  void heading(const Heading& h) {
    byte(h.first | h.last << 3 | std::min(h.same, kSaidBehind) << 6);
    if (h.same >= kSaidBehind) byte(h.same);
  }

 private:
  MutableBytes out_;
  size_t used_ = 0;
};

class Reader {
 public:
  explicit Reader(Bytes in) : in_(in) {}
  bool ended() const { return at_ == in_.size(); }
  uint32_t byte() { return std::to_integer<uint32_t>(in_[at_++]); }
  Heading heading() {
    const uint32_t b = byte(), same = b >> 6;
    return {.same = same == kSaidBehind ? byte() : same, .first = b & 7, .last = b >> 3 & 7};
  }

 private:
  Bytes in_;
  size_t at_ = 0;
};

uint64_t word_at(const void* object, size_t index) {
  uint64_t word;
  std::memcpy(&word, static_cast<const std::byte*>(object) + index * kWord, kWord);
  return word;
}

}  // namespace

size_t write_sparse(const void* object, const void* fresh, size_t bytes, MutableBytes out) {
  const auto begin = reinterpret_cast<uintptr_t>(object), fresh_begin = reinterpret_cast<uintptr_t>(fresh);
  Writer to(out);
  uint32_t same = 0;
  for (size_t i = 0; i < bytes / kWord; ++i) {
    const uint64_t word = word_at(object, i), before = word_at(fresh, i), offset = word - begin;
    const bool inward = offset < bytes;
    const bool equal = word == before || (inward && offset == before - fresh_begin);
    if (equal && same < kMostSame) {
      ++same;
      continue;
    }
    if (to.full()) return 0;
    if (inward && !equal) {
      to.heading({same, kInwardFirst, kInwardLast});
      to.byte(offset);
      to.byte(offset >> 8);
    } else {
      const uint64_t difference = equal ? 0 : word ^ before;
      const auto last = static_cast<uint32_t>(63 - std::countl_zero(difference | 1)) / 8;
      const auto first = std::min(static_cast<uint32_t>(std::countr_zero(difference)) / 8, last);
      to.heading({same, first, last});
      for (uint32_t b = first; b <= last; ++b) to.byte(difference >> (8 * b));
    }
    same = 0;
  }
  return to.used();
}

void read_sparse(Bytes in, void* object) {
  auto* at = static_cast<std::byte*>(object);
  for (Reader from(in); !from.ended(); at += kWord) {
    const Heading heading = from.heading();
    at += heading.same * kWord;
    if (heading.inward()) {
      const uint64_t low = from.byte(), word = reinterpret_cast<uintptr_t>(object) + (low | from.byte() << 8);
      std::memcpy(at, &word, kWord);
    } else {
      for (uint32_t b = heading.first; b <= heading.last; ++b) at[b] ^= static_cast<std::byte>(from.byte());
    }
  }
}

}  // namespace ustack
