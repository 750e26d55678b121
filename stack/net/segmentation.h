// The software twin of what links do in hardware: completing checksums and cutting TCP superframes (GSO).
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/base/bytes.h"
#include "stack/net/frame.h"

namespace ustack {

/// Adds what a partial checksum lacks, in place: the sum from checksum_start to the end of the frame. Does
/// nothing when offload.partial_checksum is not set. False when the offload's positions lie outside the
/// frame.
bool complete_checksum(MutableBytes frame, const Offload& offload);

/// Cuts one TCP superframe into the frames that a link with TSO would put on the wire: each with its own IP
/// length, identification and checksum (IPv4), sequence number and TCP checksum; FIN and PSH on the last
/// only, CWR on the first only. One of IPv6 has no extension headers. The superframe is one run of bytes and
/// is left as it is.
///
///   for (TcpSegmenter cut(frame, offload, link_header); !cut.done();) size = cut.next(out);
class TcpSegmenter {
 public:
  /// `ip_offset` is where the IP header begins (14 on Ethernet, 0 on a bare IP link). A frame that is not a
  /// sound superframe of the kind its offload says yields nothing: valid() is false and done() true.
  TcpSegmenter(Bytes frame, const Offload& offload, uint32_t ip_offset);

  bool valid() const { return valid_; }
  bool done() const { return !valid_ || sent_ >= payload_.size(); }
  /// Bytes that `out` must hold at least.
  size_t largest() const { return headers_.size() + segment_size_; }
  /// Writes the next frame and returns its length. Not to be called when done().
  size_t next(MutableBytes out);

 private:
  bool find_tcp(Bytes frame);
  void finish_ip(std::byte* ip, uint32_t length) const;

  Bytes headers_, payload_;
  uint32_t ip_offset_, tcp_offset_ = 0;
  uint32_t segment_size_ = 0;
  size_t sent_ = 0;
  uint16_t index_ = 0;
  bool v6_ = false;
  bool valid_ = false;
};

}  // namespace ustack
