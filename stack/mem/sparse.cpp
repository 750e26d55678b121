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
  /// The low `count` bytes; there is room for all.
  void bytes(uint64_t value, uint32_t count) {
    std::memcpy(out_.data() + used_, &value, kWord);
    used_ += count;
  }
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
  /// The next `count` (1 to 8) as the low bytes of a word.
  uint64_t bytes(uint32_t count) {
    uint64_t word = 0;
    if (in_.size() - at_ >= kWord) {  // all at once, and what is too many away again
      std::memcpy(&word, in_.data() + at_, kWord);
      word &= ~uint64_t{0} >> (8 * (kWord - count));
    } else {
      std::memcpy(&word, in_.data() + at_, count);
    }
    at_ += count;
    return word;
  }
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

/// So many words are looked at together first: most are the same.
constexpr size_t kStride = 4;

bool same_stride(const void* object, const void* fresh, size_t i) {
  const uint64_t first =
      (word_at(object, i) ^ word_at(fresh, i)) | (word_at(object, i + 1) ^ word_at(fresh, i + 1));
  const uint64_t second =
      (word_at(object, i + 2) ^ word_at(fresh, i + 2)) | (word_at(object, i + 3) ^ word_at(fresh, i + 3));
  return (first | second) == 0;
}

}  // namespace

size_t write_sparse(const void* object, const void* fresh, size_t bytes, MutableBytes out) {
  const auto begin = reinterpret_cast<uintptr_t>(object), fresh_begin = reinterpret_cast<uintptr_t>(fresh);
  const size_t words = bytes / kWord;
  Writer to(out);
  uint32_t same = 0;
  for (size_t i = 0; i < words; ++i) {
    if (i % kStride == 0 && i + kStride <= words && same + kStride <= kMostSame &&
        same_stride(object, fresh, i)) {
      same += kStride;
      i += kStride - 1;
      continue;
    }
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
      to.bytes(offset, 2);
    } else {
      const uint64_t difference = equal ? 0 : word ^ before;
      const auto last = static_cast<uint32_t>(63 - std::countl_zero(difference | 1)) / 8;
      const auto first = std::min(static_cast<uint32_t>(std::countr_zero(difference)) / 8, last);
      to.heading({same, first, last});
      to.bytes(difference >> (8 * first), last - first + 1);
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
    uint64_t word;
    if (heading.inward()) {
      word = reinterpret_cast<uintptr_t>(object) + from.bytes(2);
    } else {
      std::memcpy(&word, at, kWord);
      word ^= from.bytes(heading.last - heading.first + 1) << (8 * heading.first);
    }
    std::memcpy(at, &word, kWord);
  }
}

}  // namespace ustack
