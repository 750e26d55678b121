#include "stack/net/segmentation.h"

#include <algorithm>
#include <cstring>

#include "stack/base/checksum.h"
#include "stack/net/checksum.h"
#include "stack/net/ipv4.h"
#include "stack/net/ipv6.h"

namespace ustack {

namespace {
constexpr uint32_t kTcpMinimum = 20;
// Positions inside the headers (RFC 791, section 3.1; RFC 9293, section 3.1).
constexpr uint32_t kIpTotalLength = 2, kIpIdentification = 4, kIpChecksum = 10;
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

/// Where TCP's header begins, if what is before it is what it should be.
bool TcpSegmenter::find_tcp(Bytes frame) {
  if (frame.size() < ip_offset_ + Ipv4View::kHeaderLength) return false;
  const std::byte* ip = frame.data() + ip_offset_;
  uint32_t ip_header = Ipv6View::kHeaderLength;
  if (v6_) {
    if (frame.size() < ip_offset_ + ip_header) return false;
    if (Ipv6View(ip).version() != 6 || Ipv6View(ip).next_header() != ip_protocol::kTcp) return false;
  } else {
    ip_header = Ipv4View(ip).header_length();
    if (Ipv4View(ip).version() != 4 || ip_header < Ipv4View::kHeaderLength ||
        Ipv4View(ip).protocol() != ip_protocol::kTcp)
      return false;
  }
  tcp_offset_ = ip_offset_ + ip_header;
  return frame.size() >= tcp_offset_ + kTcpMinimum;
}

TcpSegmenter::TcpSegmenter(Bytes frame, const Offload& offload, uint32_t ip_offset)
    : ip_offset_(ip_offset), v6_(offload.segmentation == Offload::Segmentation::tcp_v6) {
  if (offload.segmentation == Offload::Segmentation::none || offload.segment_size == 0) return;
  if (!find_tcp(frame)) return;
  uint32_t tcp_header = std::to_integer<uint32_t>(frame[tcp_offset_ + kTcpDataOffset] >> 4) * 4;
  if (tcp_header < kTcpMinimum || tcp_offset_ + tcp_header >= frame.size()) return;
  headers_ = frame.first(tcp_offset_ + tcp_header);
  payload_ = frame.subspan(headers_.size());
  segment_size_ = offload.segment_size;
  valid_ = true;
}

void TcpSegmenter::finish_ip(std::byte* ip, uint32_t length) const {
  if (v6_) {
    store_be16(ip + Ipv6Header::kPayloadLengthAt, static_cast<uint16_t>(length - Ipv6Header::kLength));
    return;
  }
  store_be16(ip + kIpTotalLength, static_cast<uint16_t>(length));
  store_be16(ip + kIpIdentification, static_cast<uint16_t>(load_be16(ip + kIpIdentification) + index_));
  store_be16(ip + kIpChecksum, 0);
  store_be16(ip + kIpChecksum, checksum_of(Bytes(ip, tcp_offset_ - ip_offset_)));
}

size_t TcpSegmenter::next(MutableBytes out) {
  size_t length = std::min<size_t>(segment_size_, payload_.size() - sent_);
  bool first = sent_ == 0, last = sent_ + length == payload_.size();
  size_t size = headers_.size() + length;
  std::memcpy(out.data(), headers_.data(), headers_.size());
  std::memcpy(out.data() + headers_.size(), payload_.data() + sent_, length);

  std::byte* ip = out.data() + ip_offset_;
  std::byte* tcp = out.data() + tcp_offset_;
  finish_ip(ip, static_cast<uint32_t>(size - ip_offset_));
  store_be32(tcp + kTcpSequence, load_be32(tcp + kTcpSequence) + static_cast<uint32_t>(sent_));
  if (!last) tcp[kTcpFlags] &= ~(kFin | kPsh);
  if (!first) tcp[kTcpFlags] &= ~kCwr;
  store_be16(tcp + kTcpChecksum, 0);
  auto tcp_length = static_cast<uint32_t>(size - tcp_offset_);
  uint32_t sum = pseudo_header_sum(v6_ ? Ipv6View(ip).source() : Ipv4View(ip).source(),
                                   v6_ ? Ipv6View(ip).destination() : Ipv4View(ip).destination(),
                                   ip_protocol::kTcp, tcp_length);
  store_be16(tcp + kTcpChecksum, checksum_finish(checksum_add(Bytes(tcp, tcp_length), sum)));

  sent_ += length;
  ++index_;
  return size;
}

}  // namespace ustack
