// Windows as arithmetic: what a receiver offers, when a sender may send. Pure functions, all in bytes.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "stack/tcp/options.h"

namespace ustack::tcp {

/// Largest window without scaling, and with it (RFC 7323, 2.3).
inline constexpr uint32_t kMaxUnscaledWindow = 65535;
inline constexpr uint32_t kMaxWindow = kMaxUnscaledWindow << kMaxWindowScale;

/// How much window `space` bytes of true size can promise: half, since PieceQueue keeps at least half of what
/// it takes filled (Linux's tcp_adv_win_scale 1).
constexpr uint32_t window_from_space(uint32_t space) { return space / 2; }
constexpr uint32_t space_from_window(uint32_t window) { return window * 2; }

/// Free window of a buffer: `limit` (SO_RCVBUF) and what is taken are of true size.
constexpr uint32_t free_window(uint32_t limit, uint32_t true_size) {
  return limit > true_size ? window_from_space(limit - true_size) : 0;
}

/// The window with which a connection starts, and its scale.
struct InitialWindow {
  uint32_t window = 0;
  /// Shift count that we announce; 0 when scaling is not on.
  uint8_t scale = 0;
  /// The window will never be larger.
  uint32_t clamp = 0;
};
struct InitialWindowInput {
  uint32_t space = 0;  // window_from_space(SO_RCVBUF)
  uint32_t mss = 0;
  /// TCP_WINDOW_CLAMP, 0 if there is none.
  uint32_t clamp = 0;
  bool scaling = true;
  /// What the buffer may grow to: the larger of tcp_rmem[2] and rmem_max.
  uint32_t largest_buffer = 0;
};
/// Linux's tcp_select_initial_window: a multiple of the MSS; the scale is the least that can express the
/// largest buffer.
constexpr InitialWindow select_initial_window(const InitialWindowInput& in) {
  uint32_t clamp = in.clamp != 0 ? std::min(in.clamp, kMaxWindow) : kMaxWindow;
  uint32_t space = std::min(in.space, clamp);
  InitialWindow result;
  // The window field of a SYN is never scaled (RFC 7323, 2.2).
  result.window = in.mss != 0 && space > in.mss ? space / in.mss * in.mss : space;
  result.window = std::min(result.window, kMaxUnscaledWindow);
  if (in.scaling) {
    uint32_t largest = std::min(std::max(space, in.largest_buffer), clamp);
    int log2 = largest == 0 ? 0 : std::bit_width(largest) - 1;
    result.scale = static_cast<uint8_t>(std::clamp(log2 - 15, 0, int{kMaxWindowScale}));
  }
  result.clamp = std::min(kMaxUnscaledWindow << result.scale, clamp);
  return result;
}

/// What a receiver looks at when it sends a window.
struct ReceiveWindowInput {
  uint32_t free = 0;    // free_window() now
  uint32_t buffer = 0;  // free_window() of the empty buffer
  uint32_t mss = 0;     // estimate of the peer's segments
  /// What is left of the promise made before: RCV.ADV - RCV.NXT.
  uint32_t promised = 0;
  uint8_t scale = 0;
  uint32_t clamp = kMaxWindow;
};
/// The window to advertise (SEG.WND << scale). Never takes a promise back (RFC 9293, 3.8.6.2.2: the right
/// edge doesn't move left), and moves the right edge only by min(MSS, half the buffer) or more.
constexpr uint32_t select_receive_window(const ReceiveWindowInput& in) {
  uint32_t unit = uint32_t{1} << in.scale;
  uint32_t largest = std::min(in.clamp, kMaxUnscaledWindow << in.scale);
  // What is left of a promise is rounded up: rounded down, the right edge would move left.
  uint32_t kept = std::min((in.promised + unit - 1) & ~(unit - 1), kMaxUnscaledWindow << in.scale);
  uint32_t offer = std::min(in.free, largest) & ~(unit - 1);
  uint32_t step = std::max(std::min(in.mss, in.buffer / 2), uint32_t{1});
  // RFC 9293, 3.8.6.2.2: RCV.BUFF - RCV.USER - RCV.WND >= Fr * min(RCV.BUFF, Eff.snd.MSS).
  if (offer < kept || offer - kept < std::max(step, unit)) return kept;
  return offer;
}

/// The header's field for a window (of a segment without SYN: a SYN's scale is 0).
constexpr uint16_t window_field(uint32_t window, uint8_t scale) {
  return static_cast<uint16_t>(std::min(window >> scale, kMaxUnscaledWindow));
}

/// What a sender looks at to decide about a segment.
struct SendDecisionInput {
  uint32_t unsent = 0;      // D: queued and not sent
  uint32_t usable = 0;      // U: SND.UNA + SND.WND - SND.NXT, cut to what cwnd leaves
  uint32_t mss = 0;         // Eff.snd.MSS
  uint32_t max_window = 0;  // Max(SND.WND): the largest window the peer ever offered
  /// Something is in flight: SND.NXT > SND.UNA.
  bool in_flight = false;
  /// A segment shorter than the MSS is in flight (Minshall's variant of Nagle, as Linux).
  bool small_in_flight = false;
  bool nodelay = false;  // TCP_NODELAY
  bool cork = false;     // TCP_CORK or MSG_MORE
  bool fin = false;      // a FIN follows the unsent bytes
};
/// Whether to send now (RFC 9293, 3.8.6.2.1 sender's SWS avoidance, with 3.7.4 Nagle). What it holds back
/// goes out on the next ACK, or by the override timer (or window probe) of the caller.
constexpr bool should_send(const SendDecisionInput& in) {
  uint32_t sendable = std::min(in.unsent, in.usable);
  if (sendable == 0) return in.fin && in.unsent == 0;
  // (1) a maximum-sized segment can be sent.
  if (sendable >= in.mss) return true;
  // (2) all that is queued can be sent; Nagle: and nothing small is unacknowledged.
  if (in.unsent <= in.usable) {
    if (in.fin) return true;
    if (in.cork) return false;
    return in.nodelay || !in.small_in_flight;
  }
  // (3) at least half of the largest window, with nothing in flight.
  return !in.in_flight && sendable >= std::max(in.max_window / 2, uint32_t{1});
}

/// How a run of bytes is cut into frames.
struct SuperframeInput {
  uint32_t unsent = 0;
  /// What windows (the peer's and cwnd) leave.
  uint32_t usable = 0;
  uint32_t mss = 0;  // payload bytes of a segment with its options, at least 1
  /// Largest IP packet that the link cuts itself; mss + header_length or less: it cuts none.
  uint32_t max_superframe = 0;
  uint32_t header_length = 0;  // IP and TCP with options
  /// Nagle or cork hold a short last segment back: as long as there are whole ones, send only those.
  bool hold_short = false;
};
/// Payload bytes of the next frame. Whole segments, unless it ends what is queued or the window; so a
/// superframe's last segment is short only where a segment of its own would be.
constexpr uint32_t superframe_payload(const SuperframeInput& in) {
  uint32_t room = in.max_superframe > in.header_length ? in.max_superframe - in.header_length : 0;
  uint32_t most = std::max(room / in.mss * in.mss, in.mss);
  uint32_t bytes = std::min(in.unsent, in.usable);
  if (bytes >= most) return most;
  // The window cuts it: send whole segments first, the rest is should_send's decision.
  if ((in.usable < in.unsent || in.hold_short) && bytes > in.mss) return bytes / in.mss * in.mss;
  return bytes;
}

}  // namespace ustack::tcp
