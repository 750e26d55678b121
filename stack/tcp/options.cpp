#include "stack/tcp/options.h"

#include <algorithm>

namespace ustack::tcp {

namespace {

enum Kind : uint8_t {
  kEnd = 0,
  kNop = 1,
  kMss = 2,
  kWindowScale = 3,
  kSackPermitted = 4,
  kSack = 5,
  kTimestamp = 8,
  kFastOpen = 34,
  kExperiment = 254,
};
constexpr uint16_t kFastOpenMagic = 0xF989;

/// Calls visit(kind, content) for each option that is whole.
template <typename Visit>
void for_each_option(Bytes options, Visit&& visit) {
  while (!options.empty()) {
    auto kind = static_cast<uint8_t>(options[0]);
    if (kind == kEnd) return;
    if (kind == kNop) {
      options = options.subspan(1);
      continue;
    }
    if (options.size() < 2) return;
    auto length = static_cast<uint8_t>(options[1]);
    // RFC 9293, 3.1 MUST-7: "be prepared to handle an illegal option length (e.g., zero)". As Linux: what was
    // read counts, the rest does not.
    if (length < 2 || length > options.size()) return;
    visit(kind, options.subspan(2, length - 2));
    options = options.subspan(length);
  }
}

Timestamps load_timestamps(const std::byte* p) { return Timestamps{load_be32(p), load_be32(p + 4)}; }

std::optional<FastOpenCookie> load_cookie(Bytes content, bool experimental) {
  // RFC 7413, 4.1.1: 4 to 16 bytes, even; empty asks for one. Anything else is ignored.
  if (content.size() > 16 || content.size() % 2 != 0 || content.size() == 2) return std::nullopt;
  FastOpenCookie cookie;
  cookie.length = static_cast<uint8_t>(content.size());
  cookie.experimental = experimental;
  std::copy(content.begin(), content.end(), cookie.bytes.begin());
  return cookie;
}

/// Appends to an option area; what does not fit is the caller's mistake.
class Writer {
 public:
  explicit Writer(std::span<std::byte, kMaxOptions> out) : out_(out) {}
  Writer& u8(uint8_t value) {
    out_[length_++] = std::byte{value};
    return *this;
  }
  Writer& u16(uint16_t value) {
    store_be16(out_.data() + length_, value);
    length_ += 2;
    return *this;
  }
  Writer& u32(uint32_t value) {
    store_be32(out_.data() + length_, value);
    length_ += 4;
    return *this;
  }
  Writer& nops(uint32_t count) {
    while (count-- > 0) u8(kNop);
    return *this;
  }
  Writer& timestamps(const Timestamps& ts) { return u8(kTimestamp).u8(10).u32(ts.value).u32(ts.echo); }
  uint32_t length() const { return length_; }
  uint32_t room() const { return kMaxOptions - length_; }

 private:
  std::span<std::byte, kMaxOptions> out_;
  uint32_t length_ = 0;
};

}  // namespace

SynOptions parse_syn_options(Bytes options) {
  SynOptions result;
  for_each_option(options, [&](uint8_t kind, Bytes content) {
    switch (kind) {
      case kMss:
        if (content.size() == 2) result.mss = load_be16(content.data());
        break;
      case kWindowScale:
        // RFC 7323, 2.3: "If a Window Scale option is received with a shift.cnt value larger than 14, the TCP
        // SHOULD log the error but MUST use 14 instead of the specified value."
        if (content.size() == 1)
          result.window_scale =
              static_cast<int8_t>(std::min(static_cast<uint8_t>(content[0]), kMaxWindowScale));
        break;
      case kSackPermitted:
        if (content.empty()) result.sack_permitted = true;
        break;
      case kTimestamp:
        if (content.size() == 8) result.timestamps = load_timestamps(content.data());
        break;
      case kFastOpen:
        if (auto cookie = load_cookie(content, false)) result.fast_open = cookie;
        break;
      case kExperiment:
        if (content.size() >= 2 && load_be16(content.data()) == kFastOpenMagic)
          if (auto cookie = load_cookie(content.subspan(2), true)) result.fast_open = cookie;
        break;
      default:
        break;
    }
  });
  return result;
}

SegmentOptions parse_segment_options(Bytes options) {
  SegmentOptions result;
  if (options.empty()) return result;
  // What nearly every segment carries (RFC 7323, appendix A): NOP NOP TIMESTAMP 10.
  if (options.size() == 12 && load_be32(options.data()) == (kNop << 24 | kNop << 16 | kTimestamp << 8 | 10)) {
    result.timestamps = load_timestamps(options.data() + 4);
    return result;
  }
  for_each_option(options, [&](uint8_t kind, Bytes content) {
    if (kind == kTimestamp && content.size() == 8) {
      result.timestamps = load_timestamps(content.data());
    } else if (kind == kSack && !content.empty() && content.size() % 8 == 0) {
      // At most 4, as the header has no room for more.
      result.sack_count = 0;
      for (; !content.empty() && result.sack_count < SegmentOptions::kMaxSackBlocks;
           content = content.subspan(8)) {
        result.sack_blocks[result.sack_count++] =
            SackBlock{SeqNum(load_be32(content.data())), SeqNum(load_be32(content.data() + 4))};
      }
    }
  });
  return result;
}

uint32_t encode_syn_options(const SynOptions& options, std::span<std::byte, kMaxOptions> out) {
  Writer writer(out);
  if (options.mss != 0) writer.u8(kMss).u8(4).u16(options.mss);
  // With timestamps SACK-permitted takes the place of their two NOPs.
  if (options.timestamps && options.sack_permitted)
    writer.u8(kSackPermitted).u8(2).timestamps(*options.timestamps);
  else if (options.timestamps)
    writer.nops(2).timestamps(*options.timestamps);
  else if (options.sack_permitted)
    writer.nops(2).u8(kSackPermitted).u8(2);
  if (options.window_scale >= 0)
    writer.nops(1)
        .u8(kWindowScale)
        .u8(3)
        .u8(std::min(static_cast<uint8_t>(options.window_scale), kMaxWindowScale));
  if (options.fast_open) {
    const FastOpenCookie& cookie = *options.fast_open;
    auto length = static_cast<uint8_t>((cookie.experimental ? 4 : 2) + cookie.length);
    if (cookie.experimental)
      writer.u8(kExperiment).u8(length).u16(kFastOpenMagic);
    else
      writer.u8(kFastOpen).u8(length);
    for (std::byte b : cookie.view()) writer.u8(static_cast<uint8_t>(b));
    writer.nops((4 - writer.length() % 4) % 4);
  }
  return writer.length();
}

uint32_t encode_segment_options(const SegmentOptions& options, std::span<std::byte, kMaxOptions> out) {
  Writer writer(out);
  if (options.timestamps) writer.nops(2).timestamps(*options.timestamps);
  uint32_t count = std::min<uint32_t>(options.sack_count, (writer.room() - 4) / 8);
  if (count > 0) {
    writer.nops(2).u8(kSack).u8(static_cast<uint8_t>(2 + 8 * count));
    for (const SackBlock& block : options.sacks().first(count))
      writer.u32(block.start.value()).u32(block.end.value());
  }
  return writer.length();
}

LogLine& operator<<(LogLine& line, const SynOptions& options) {
  const char* gap = "";
  auto next = [&]() -> LogLine& {
    line << gap;
    gap = " ";
    return line;
  };
  if (options.mss != 0) next() << "mss " << options.mss;
  if (options.window_scale >= 0) next() << "wscale " << options.window_scale;
  if (options.sack_permitted) next() << "sackOK";
  if (options.timestamps)
    next() << "TS val " << options.timestamps->value << " ecr " << options.timestamps->echo;
  if (options.fast_open) next() << "tfo " << options.fast_open->length << " bytes";
  return line;
}

}  // namespace ustack::tcp
