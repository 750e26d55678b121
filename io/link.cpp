#include "io/link.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/capture.h"
#include "io/clock.h"
#include "io/link_writer.h"
#include "io/syscalls.h"
#include "io/virtio_header.h"

namespace ustack::io {

namespace {

constexpr uint32_t kEthernetHeader = 14;

}  // namespace

Link::Link(Descriptor fd, const LinkInfo& info, uint32_t prefix_length, bool is_socket, std::string_view name)
    : info_(info), prefix_length_(prefix_length), is_socket_(is_socket) {
  fds_[0] = std::move(fd);
  name.copy(name_.data(), name_.size() - 1);
}

uint32_t Link::read_padding() const {
  uint32_t before_ip = prefix_length_ + (info_.kind == LinkInfo::Kind::ethernet ? kEthernetHeader : 0);
  return (4 - before_ip % 4) % 4;
}

uint32_t Link::max_frame() const {
  uint32_t packet = prefix_length_ != 0 ? std::max<uint32_t>(info_.max_superframe, info_.mtu) : info_.mtu;
  // A VLAN tag may stand between the Ethernet header and what the MTU counts.
  return packet + (info_.kind == LinkInfo::Kind::ethernet ? kEthernetHeader + 4 : 0);
}

bool Link::decode(const std::byte* prefix, uint32_t length, Offload* out) const {
  *out = Offload{};
  if (prefix_length_ == 0) return true;
  VirtioHeader header;
  std::memcpy(&header, prefix, sizeof header);

  if ((header.flags & VirtioHeader::kNeedsChecksum) != 0) {
    if (uint32_t{header.csum_start} + header.csum_offset + 2 > length) return false;
    out->partial_checksum = true;
    out->checksum_start = header.csum_start;
    out->checksum_offset = header.csum_offset;
  }
  out->checksum_valid = (header.flags & VirtioHeader::kDataValid) != 0;

  switch (header.gso_type & ~VirtioHeader::kGsoEcn) {
    case VirtioHeader::kGsoNone:
      return true;
    case VirtioHeader::kGsoTcpV4:
      out->segmentation = Offload::Segmentation::tcp_v4;
      break;
    case VirtioHeader::kGsoTcpV6:
      out->segmentation = Offload::Segmentation::tcp_v6;
      break;
    default:
      return false;
  }
  // hdr_len is a hint of the kernel's (how much of the frame lies in one piece); TCP finds the true length.
  if (header.gso_size == 0 || header.hdr_len > length) return false;
  out->ecn = (header.gso_type & VirtioHeader::kGsoEcn) != 0;
  out->segment_size = header.gso_size;
  out->header_length = header.hdr_len;
  return true;
}

Bytes Link::encode(TxFrame& frame) const {
  MutableBytes frame_header = frame.header();
  if (prefix_length_ == 0) return frame_header;
  if (frame_header.size() + prefix_length_ > TxFrame::kHeaderRoom) return {};

  const Offload& offload = frame.offload;
  VirtioHeader header{};
  if (offload.partial_checksum) {
    header.flags = VirtioHeader::kNeedsChecksum;
    header.csum_start = offload.checksum_start;
    header.csum_offset = offload.checksum_offset;
  }
  if (offload.segmentation != Offload::Segmentation::none) {
    header.gso_type = offload.segmentation == Offload::Segmentation::tcp_v4 ? VirtioHeader::kGsoTcpV4
                                                                            : VirtioHeader::kGsoTcpV6;
    if (offload.ecn) header.gso_type |= VirtioHeader::kGsoEcn;
    header.gso_size = offload.segment_size;
    header.hdr_len = offload.header_length;
  }
  std::byte* prefix = frame_header.data() - prefix_length_;
  std::memcpy(prefix, &header, sizeof header);
  return {prefix, frame_header.size() + prefix_length_};
}

uint32_t gather(const Link& link, TxFrame& frame, std::span<iovec, kMaxFrameParts> parts) {
  Bytes head = link.encode(frame);
  if (head.empty()) return 0;
  parts[0] = {const_cast<std::byte*>(head.data()), head.size()};
  uint32_t count = 1;
  for (const Slice& slice : frame.payload()) {
    auto* from = const_cast<std::byte*>(slice.source());
    if (from == nullptr) return 0;
    iovec& last = parts[count - 1];
    if (static_cast<std::byte*>(last.iov_base) + last.iov_len == from)
      last.iov_len += slice.length;
    else
      parts[count++] = {from, slice.length};
  }
  return count;
}

bool transmitted(Host& host, TxFrame* frame, long result) {
  if (result == -EAGAIN || result == -EWOULDBLOCK || result == -ECANCELED) return false;
  if (result < 0) ++host.counters().UstackTxLinkErrors;
  // Lent bytes that the program has unmapped, perhaps after they were acknowledged: found out which.
  if (result == -EFAULT) frame->settle();
  host.frames().release(frame);
  return true;
}

bool finish_transmission(Host& host, Link& link, TxFrame* frame, long result) {
  if (result >= 0 && link.capture != nullptr) link.capture->sent(*frame, now());
  if (transmitted(host, frame, result)) return true;
  host.transmit_queue().push_front(*frame);
  return false;
}

namespace {

/// `copies`: parts may be copied here.
long write_message(const Link& link, int fd, std::span<iovec> parts, bool copies) {
  if (link.is_socket()) {
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    return sys::sendmsg(fd, &message, MSG_NOSIGNAL);
  }
  if (parts.size() == 1) return sys::write(fd, parts[0].iov_base, parts[0].iov_len);
  // The kernel takes 0.25 us less for one piece than for two, which is more than a small copy takes.
  std::array<std::byte, 512> whole;
  if (copies && parts.size() == 2 && parts[0].iov_len + parts[1].iov_len <= whole.size()) {
    std::memcpy(whole.data(), parts[0].iov_base, parts[0].iov_len);
    std::memcpy(whole.data() + parts[0].iov_len, parts[1].iov_base, parts[1].iov_len);
    return sys::write(fd, whole.data(), parts[0].iov_len + parts[1].iov_len);
  }
  return sys::writev(fd, parts.data(), parts.size());
}

}  // namespace

long write_frame(const Link& link, uint32_t queue, TxFrame& frame) {
  std::array<iovec, kMaxFrameParts> parts;
  uint32_t count = gather(link, frame, parts);
  if (count == 0) return -EMSGSIZE;
  // Only the kernel may meet a page of the program's that isn't there any more.
  const bool copies = count == 2 && !frame.payload().front().block->lent();
  long result;
  do result = write_message(link, link.fd(queue), std::span(parts).first(count), copies);
  while (result == -EINTR);
  return result;
}

bool transmit(Host& host, Link& link, uint32_t limit) {
  for (; limit > 0; --limit) {
    TxFrame* frame = host.transmit_queue().pop_front();
    if (frame == nullptr) return true;
    if (!finish_transmission(host, link, frame, write_frame(link, 0, *frame))) return false;
  }
  return true;
}

bool transmit(Host& host, Link& link) { return transmit(host, link, UINT32_MAX); }

}  // namespace ustack::io
