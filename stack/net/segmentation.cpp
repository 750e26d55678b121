#include "stack/net/segmentation.h"

#include <algorithm>
#include <cstring>

#include "stack/base/checksum.h"
#include "stack/net/checksum.h"

namespace ustack {

namespace {
constexpr uint32_t kIpMinimum = 20, kTcpMinimum = 20;
constexpr uint8_t kTcp = 6;
// Positions inside the headers (RFC 791, section 3.1; RFC 9293, section 3.1).
constexpr uint32_t kIpTotalLength = 2, kIpIdentification = 4, kIpProtocol = 9, kIpChecksum = 10,
                   kIpSource = 12, kIpDestination = 16;
constexpr uint32_t kTcpSequence = 4, kTcpDataOffset = 12, kTcpFlags = 13, kTcpChecksum = 16;
constexpr std::byte kFin{0x01}, kPsh{0x08}, kCwr{0x80};
}  // namespace

bool complete_checksum(MutableBytes frame, const Offload& offload) {
  if (!offload.partial_checksum) return true;
  size_t field = size_t{offload.checksum_start} + offload.checksum_offset;
  if (field + 2 > frame.size()) return false;
  // The field holds the pseudo-header's sum, which thereby counts as part of the data.
  uint16_t checksum = checksum_of(frame.subspan(offload.checksum_start));
  store_be16(frame.data() + field, checksum);
  return true;
}

TcpSegmenter::TcpSegmenter(Bytes frame, const Offload& offload, uint32_t ip_offset) : ip_offset_(ip_offset) {
  if (offload.segmentation != Offload::Segmentation::tcp_v4 || offload.segment_size == 0) return;
  if (frame.size() < ip_offset + kIpMinimum + kTcpMinimum) return;
  const std::byte* ip = frame.data() + ip_offset;
  uint32_t ip_header = std::to_integer<uint32_t>(ip[0] & std::byte{0x0f}) * 4;
  if ((ip[0] >> 4) != std::byte{4} || ip_header < kIpMinimum ||
      std::to_integer<uint8_t>(ip[kIpProtocol]) != kTcp)
    return;
  if (frame.size() < ip_offset + ip_header + kTcpMinimum) return;
  tcp_offset_ = ip_offset + ip_header;
  uint32_t tcp_header = std::to_integer<uint32_t>(frame[tcp_offset_ + kTcpDataOffset] >> 4) * 4;
  if (tcp_header < kTcpMinimum || tcp_offset_ + tcp_header >= frame.size()) return;
  headers_ = frame.first(tcp_offset_ + tcp_header);
  payload_ = frame.subspan(headers_.size());
  segment_size_ = offload.segment_size;
  valid_ = true;
}

size_t TcpSegmenter::next(MutableBytes out) {
  size_t length = std::min<size_t>(segment_size_, payload_.size() - sent_);
  bool first = sent_ == 0, last = sent_ + length == payload_.size();
  size_t size = headers_.size() + length;
  std::memcpy(out.data(), headers_.data(), headers_.size());
  std::memcpy(out.data() + headers_.size(), payload_.data() + sent_, length);

  std::byte* ip = out.data() + ip_offset_;
  std::byte* tcp = out.data() + tcp_offset_;
  store_be16(ip + kIpTotalLength, static_cast<uint16_t>(size - ip_offset_));
  store_be16(ip + kIpIdentification, static_cast<uint16_t>(load_be16(ip + kIpIdentification) + index_));
  store_be16(ip + kIpChecksum, 0);
  store_be16(ip + kIpChecksum, checksum_of(Bytes(ip, tcp_offset_ - ip_offset_)));

  store_be32(tcp + kTcpSequence, load_be32(tcp + kTcpSequence) + static_cast<uint32_t>(sent_));
  if (!last) tcp[kTcpFlags] &= ~(kFin | kPsh);
  if (!first) tcp[kTcpFlags] &= ~kCwr;
  store_be16(tcp + kTcpChecksum, 0);
  auto tcp_length = static_cast<uint32_t>(size - tcp_offset_);
  uint32_t sum =
      pseudo_header_sum(IpAddress::from_bytes(Family::ipv4, ip + kIpSource),
                        IpAddress::from_bytes(Family::ipv4, ip + kIpDestination), kTcp, tcp_length);
  store_be16(tcp + kTcpChecksum, checksum_finish(checksum_add(Bytes(tcp, tcp_length), sum)));

  sent_ += length;
  ++index_;
  return size;
}

}  // namespace ustack
