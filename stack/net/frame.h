// What crosses the seam between stack/ and io/: frames in, frames out, and what a link can do by itself.
#pragma once

#include <array>
#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/base/time.h"
#include "stack/mem/block.h"
#include "stack/net/address.h"

namespace ustack {

/// Work on a frame that is left to the other side of the link, in virtio-net's terms (virtio 1.2, 5.1.6).
struct Offload {
  enum class Segmentation : uint8_t { none, tcp_v4, tcp_v6 };

  /// The checksum at `checksum_start + checksum_offset` covers only the pseudo-header yet; the rest, from
  /// `checksum_start` (counted from the frame's first byte) to the end, is to be added. On receive: the
  /// sender is on this machine and never computed it, so the content is trusted as it is.
  bool partial_checksum = false;
  /// Receive only: the link has verified the checksum.
  bool checksum_valid = false;
  /// ECN CWR rule of TSO applies (VIRTIO_NET_HDR_GSO_ECN).
  bool ecn = false;
  Segmentation segmentation = Segmentation::none;
  uint16_t checksum_start = 0;
  uint16_t checksum_offset = 0;
  /// Payload bytes in each segment when `segmentation` is set (the MSS).
  uint16_t segment_size = 0;
  /// Length of all headers, Ethernet to TCP, when `segmentation` is set.
  uint16_t header_length = 0;
};

/// What the link is, and what it does for us.
struct LinkInfo {
  enum class Kind : uint8_t { ethernet, ip };
  Kind kind = Kind::ethernet;
  /// Largest IP packet, in bytes; 68 (RFC 791) to 65535.
  uint16_t mtu = 1500;
  MacAddress mac{};
  /// It completes partial checksums; else they are computed here.
  bool checksum_offload = false;
  /// It cuts TCP superframes of up to `max_superframe` bytes of IP packet; else they are never made.
  bool tcp_segmentation_v4 = false;
  bool tcp_segmentation_v6 = false;
  uint32_t max_superframe = 65535;
};

/// A frame that came in. `data` is the whole frame (Ethernet header first, or IP on an `ip` link), without
/// the link's own prefix such as a virtio-net header.
struct RxFrame {
  Slice data;
  Offload offload;
  /// When it was taken from the link, stamped there and not when it is processed (RACK needs that).
  Instant arrived{};
};

class FramePool;

/// A frame on any of the link's queues: whichever the thread that writes it has.
inline constexpr uint8_t kAnyQueue = 0xff;

/// A frame on its way out: headers are prepended into a buffer of its own, payload stays where it is (slices
/// of the send buffer) and meets them in an iovec. Made and freed by its FramePool.
class TxFrame : public ListHook<>, public ListHook<FramePool> {
 public:
  /// Room for headers: a link prefix of 12, Ethernet 14, IPv4 with options 60 or IPv6 40, TCP with
  /// options 60.
  static constexpr uint32_t kHeaderRoom = 160;
  /// A superframe of 64 KB over 16 KB blocks that may start and end anywhere, plus small writes.
  static constexpr uint32_t kMaxSlices = 18;

  /// Grows the header by n bytes at the front and returns them, not cleared. n is what protocols need, never
  /// a peer's wish: past kHeaderRoom it aborts.
  std::byte* prepend(uint32_t n);
  MutableBytes header() { return {header_.data() + header_start_, kHeaderRoom - header_start_}; }
  /// False when kMaxSlices are in use.
  bool append(Slice slice);
  std::span<const Slice> payload() const { return {slices_.data(), slice_count_}; }
  /// Header and payload together, in bytes.
  uint32_t size() const { return kHeaderRoom - header_start_ + payload_bytes_; }
  uint32_t payload_bytes() const { return payload_bytes_; }
  /// Fills in the payload that a program has lent (Block::settle), for who reads it where it is. False: some
  /// of it can't be had, and the frame can't be sent.
  bool settle();

  Offload offload;
  /// Which of the link's queues it leaves by, where there are several.
  uint8_t queue = kAnyQueue;

 private:
  friend class FramePool;
  TxFrame() {}
  std::array<std::byte, kHeaderRoom> header_;
  uint32_t header_start_ = kHeaderRoom;
  uint32_t payload_bytes_ = 0;
  uint32_t slice_count_ = 0;
  bool seen_ = false;
  std::array<Slice, kMaxSlices> slices_;
};

/// Makes and takes back TxFrames, last-in first-out. Lock: the host's.
class FramePool {
 public:
  explicit FramePool(Arena& arena) : arena_(arena) {}
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;
  ~FramePool();
  /// nullptr when memory is out.
  TxFrame* allocate();
  /// Drops the frame's payload references and takes it back.
  void release(TxFrame* frame);
  uint64_t live() const { return live_; }

  // --- a census (stack/census.h) ---
  void begin_census();
  /// Somebody has this frame, and it the blocks of its payload.
  static void see(TxFrame& frame);
  /// Frames that nobody has are free. Their payload counts as not seen. Returns how many of these were not.
  uint64_t end_census();
  /// Frames that count as live but weren't seen, or the other way round.
  uint64_t miscounted();

 private:
  static void clear(TxFrame& frame);

  Arena& arena_;
  /// All that were had from the arena, free or not.
  IntrusiveList<TxFrame, FramePool> all_;
  IntrusiveList<TxFrame> free_;
  uint64_t live_ = 0;
};

using FrameQueue = IntrusiveList<TxFrame>;

}  // namespace ustack
