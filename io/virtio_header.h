// struct virtio_net_hdr (virtio 1.2, 5.1.6). <linux/virtio_net.h> can't be included: it names a member
// "class".
#pragma once

#include <cstdint>

namespace ustack::io {

struct VirtioHeader {
  uint8_t flags;
  uint8_t gso_type;
  /// Of the host's byte order, little-endian here, as TAP and PACKET_VNET_HDR have it by default.
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;

  static constexpr uint8_t kNeedsChecksum = 1, kDataValid = 2;          // flags
  static constexpr uint8_t kGsoNone = 0, kGsoTcpV4 = 1, kGsoTcpV6 = 4;  // gso_type
  static constexpr uint8_t kGsoEcn = 0x80;                              // or'ed to gso_type
};
static_assert(sizeof(VirtioHeader) == 10);

}  // namespace ustack::io
