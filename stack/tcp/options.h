// TCP options: what a SYN offers, and what other segments carry. Laid out as Linux does.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "stack/base/bytes.h"
#include "stack/base/log.h"
#include "stack/base/seqnum.h"
#include "stack/net/address.h"
#include "stack/tcp/header.h"

namespace ustack::tcp {

/// Largest shift count of the window scale option (RFC 7323, 2.3).
inline constexpr uint8_t kMaxWindowScale = 14;

/// The MSS of a peer that names none: 536 for IPv4, 1220 for IPv6 (RFC 9293, 3.7.1).
constexpr uint16_t default_mss(Family family) { return family == Family::ipv6 ? 1220 : 536; }

/// TSval and TSecr (RFC 7323, section 3).
struct Timestamps {
  uint32_t value = 0;
  uint32_t echo = 0;
  friend bool operator==(const Timestamps&, const Timestamps&) = default;
};

/// Bytes start..end-1 have arrived (RFC 2018).
struct SackBlock {
  SeqNum start{};
  SeqNum end{};
  friend bool operator==(const SackBlock&, const SackBlock&) = default;
};

/// A Fast Open cookie, or the request for one (RFC 7413, 4.1.1).
struct FastOpenCookie {
  std::array<std::byte, 16> bytes{};
  /// 0 is the request for a cookie; else 4 to 16, even.
  uint8_t length = 0;
  /// In the experimental option 254 with magic 0xF989, as before RFC 7413.
  bool experimental = false;
  Bytes view() const { return Bytes(bytes).first(length); }
  friend bool operator==(const FastOpenCookie&, const FastOpenCookie&) = default;
};

/// Options of a SYN or SYN-ACK.
struct SynOptions {
  /// In bytes; 0: the option is absent (or was sent as 0, which means the same).
  uint16_t mss = 0;
  /// Shift count 0 to 14, or -1: the option is absent.
  int8_t window_scale = -1;
  bool sack_permitted = false;
  std::optional<Timestamps> timestamps{};
  std::optional<FastOpenCookie> fast_open{};

  /// What the peer can take: its MSS option or the family's default.
  uint16_t mss_or_default(Family family) const { return mss != 0 ? mss : default_mss(family); }
  friend bool operator==(const SynOptions&, const SynOptions&) = default;
};

/// Options of all other segments.
struct SegmentOptions {
  /// SACK blocks that fit in 40 bytes: 4, or 3 beside timestamps.
  static constexpr uint8_t kMaxSackBlocks = 4;
  std::optional<Timestamps> timestamps{};
  std::array<SackBlock, kMaxSackBlocks> sack_blocks{};
  uint8_t sack_count = 0;

  std::span<const SackBlock> sacks() const { return {sack_blocks.data(), sack_count}; }
  friend bool operator==(const SegmentOptions&, const SegmentOptions&) = default;
};

/// Reads the options of a SYN. Never fails (RFC 9293, 3.1 MUST-7): unknown options are skipped; at an option
/// whose length is impossible the rest is ignored; of a repeated option the last one counts, as in Linux; a
/// known option of a wrong length is skipped. A window scale above 14 becomes 14 (RFC 7323, 2.3).
SynOptions parse_syn_options(Bytes options);
/// Reads the options of a segment that is no SYN, as tolerantly. SACK blocks are not judged.
SegmentOptions parse_segment_options(Bytes options);

/// Writes what is set, in Linux's order, and returns the length in bytes: a multiple of 4, at most
/// kMaxOptions.
///
///     if mss:                  MSS 4 mss(2)
///     if timestamps and sack:  SACK-PERMITTED 2 TIMESTAMP 10 tsval(4) tsecr(4)
///     elif timestamps:         NOP NOP TIMESTAMP 10 tsval(4) tsecr(4)
///     elif sack:               NOP NOP SACK-PERMITTED 2
///     if window_scale:         NOP WINDOW 3 shift(1)
///     if fast_open:            FASTOPEN 2+n cookie(n), or EXP 4+n F989 cookie(n); NOPs to a multiple of 4
uint32_t encode_syn_options(const SynOptions& options, std::span<std::byte, kMaxOptions> out);
/// Likewise: NOP NOP TIMESTAMP 10 tsval tsecr; NOP NOP SACK 2+8n blocks, as many as fit (3 beside
/// timestamps).
uint32_t encode_segment_options(const SegmentOptions& options, std::span<std::byte, kMaxOptions> out);

/// How many bytes encode_segment_options() writes for these, without doing it.
constexpr uint32_t segment_options_length(bool timestamps, uint32_t sack_count) {
  uint32_t length = timestamps ? 12 : 0;
  uint32_t fit = (kMaxOptions - length - 4) / 8;
  if (sack_count > fit) sack_count = fit;
  return sack_count == 0 ? length : length + 4 + 8 * sack_count;
}

/// mss 1460 wscale 7 sackOK TS val 1 ecr 0.
LogLine& operator<<(LogLine& line, const SynOptions& options);

}  // namespace ustack::tcp
