#include "tests/support/captured_frame.h"

#include <ostream>
#include <sstream>

namespace ustack {

void PrintTo(const IpAddress& address, std::ostream* out) {
  LogLine line;
  line << address;
  *out << line.text();
}

void PrintTo(const MacAddress& mac, std::ostream* out) {
  LogLine line;
  line << mac;
  *out << line.text();
}

}  // namespace ustack

namespace ustack::test {

namespace {

/// Reads big-endian fields; past the end it reads zeros.
class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}
  uint32_t u8(size_t at) const { return at < bytes_.size() ? std::to_integer<uint32_t>(bytes_[at]) : 0; }
  uint32_t u16(size_t at) const { return u8(at) << 8 | u8(at + 1); }
  uint32_t u32(size_t at) const { return u16(at) << 16 | u16(at + 2); }
  MacAddress mac(size_t at) const {
    MacAddress mac;
    for (size_t i = 0; i < 6; ++i) mac.bytes[i] = static_cast<std::byte>(u8(at + i));
    return mac;
  }
  IpAddress address(size_t at) const { return IpAddress::v4(u32(at)); }

 private:
  Bytes bytes_;
};

/// The ones' complement sum in the plainest way, folded.
uint32_t plain_sum(Bytes bytes, uint32_t start = 0) {
  uint64_t sum = start;
  for (size_t i = 0; i < bytes.size(); i += 2)
    sum += std::to_integer<uint64_t>(bytes[i]) << 8 |
           (i + 1 < bytes.size() ? std::to_integer<uint64_t>(bytes[i + 1]) : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint32_t>(sum);
}

uint32_t plain_pseudo_header(const CapturedIpv4& ip, size_t length) {
  uint32_t sum = plain_sum(Bytes(ip.source.data(), 4));
  sum = plain_sum(Bytes(ip.destination.data(), 4), sum);
  std::byte tail[4] = {std::byte{0}, std::byte{ip.protocol}, static_cast<std::byte>(length >> 8),
                       static_cast<std::byte>(length)};
  return plain_sum(Bytes(tail), sum);
}

void parse_tcp_options(Bytes options, CapturedTcp& tcp) {
  Reader in(options);
  for (size_t at = 0; at < options.size();) {
    uint32_t kind = in.u8(at);
    tcp.option_kinds.push_back(static_cast<uint8_t>(kind));
    if (kind == 0) return;
    if (kind == 1) {
      ++at;
      continue;
    }
    uint32_t length = in.u8(at + 1);
    if (length < 2 || at + length > options.size()) {
      tcp.good_options = false;
      return;
    }
    if (kind == 2 && length == 4) tcp.mss = static_cast<uint16_t>(in.u16(at + 2));
    if (kind == 3 && length == 3) tcp.window_scale = static_cast<uint8_t>(in.u8(at + 2));
    if (kind == 4 && length == 2) tcp.sack_permitted = true;
    if (kind == 8 && length == 10) tcp.timestamps.emplace(in.u32(at + 2), in.u32(at + 6));
    if (kind == 34) {
      Bytes cookie = options.subspan(at + 2, length - 2);
      tcp.fast_open.emplace(cookie.begin(), cookie.end());
    }
    if (kind == 5)
      for (size_t block = at + 2; block + 8 <= at + length; block += 8)
        tcp.sack_blocks.emplace_back(in.u32(block), in.u32(block + 4));
    at += length;
  }
}

std::string text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

}  // namespace

std::string CapturedTcp::flag_letters() const {
  std::string letters;
  for (int bit = 0; bit < 8; ++bit)
    if ((flags >> bit & 1) != 0) letters += "FSRPAUEC"[bit];
  return letters;
}

CapturedFrame CapturedFrame::parse(std::vector<std::byte> raw, LinkInfo::Kind kind, const Offload& offload) {
  CapturedFrame frame;
  frame.bytes = std::move(raw);
  frame.offload = offload;
  Bytes rest(frame.bytes);
  if (kind == LinkInfo::Kind::ethernet) {
    if (rest.size() < 14) return frame;
    Reader in(rest);
    frame.ethernet = CapturedEthernet{in.mac(6), in.mac(0), static_cast<uint16_t>(in.u16(12))};
    rest = rest.subspan(14);
    if (frame.ethernet->type == 0x0806 && rest.size() >= 28) {
      Reader arp(rest);
      frame.arp = CapturedArp{static_cast<uint16_t>(arp.u16(6)), arp.mac(8), arp.mac(18), arp.address(14),
                              arp.address(24)};
      return frame;
    }
    if (frame.ethernet->type != 0x0800) {
      frame.payload = text_of(rest);
      return frame;
    }
  }

  Reader in(rest);
  uint32_t header_length = (in.u8(0) & 15) * 4, total_length = in.u16(2);
  if (in.u8(0) >> 4 != 4 || header_length < 20 || total_length < header_length || rest.size() < total_length)
    return frame;
  CapturedIpv4 ip;
  ip.source = in.address(12);
  ip.destination = in.address(16);
  ip.header_length = header_length;
  ip.total_length = total_length;
  ip.id = static_cast<uint16_t>(in.u16(4));
  ip.tos = static_cast<uint8_t>(in.u8(1));
  ip.ttl = static_cast<uint8_t>(in.u8(8));
  ip.protocol = static_cast<uint8_t>(in.u8(9));
  ip.dont_fragment = (in.u16(6) & 0x4000) != 0;
  ip.more_fragments = (in.u16(6) & 0x2000) != 0;
  ip.fragment_offset = (in.u16(6) & 0x1fff) * 8;
  ip.good_checksum = plain_sum(rest.first(header_length)) == 0xffff;
  frame.ipv4 = ip;
  rest = rest.subspan(header_length, total_length - header_length);
  frame.payload = text_of(rest);
  if (ip.more_fragments || ip.fragment_offset != 0) return frame;

  Reader inner(rest);
  if (ip.protocol == 1 && rest.size() >= 8) {
    frame.icmp = CapturedIcmp{static_cast<uint8_t>(inner.u8(0)), static_cast<uint8_t>(inner.u8(1)),
                              inner.u32(4), plain_sum(rest) == 0xffff};
    frame.payload = text_of(rest.subspan(8));
  }
  if (ip.protocol == 6 && rest.size() >= 20) {
    CapturedTcp tcp;
    tcp.header_length = (inner.u8(12) >> 4) * 4;
    if (tcp.header_length < 20 || tcp.header_length > rest.size()) return frame;
    tcp.source_port = static_cast<uint16_t>(inner.u16(0));
    tcp.destination_port = static_cast<uint16_t>(inner.u16(2));
    tcp.seq = inner.u32(4);
    tcp.ack = inner.u32(8);
    tcp.flags = static_cast<uint8_t>(inner.u8(13));
    tcp.window = static_cast<uint16_t>(inner.u16(14));
    tcp.urgent = static_cast<uint16_t>(inner.u16(18));
    uint32_t pseudo = plain_pseudo_header(ip, rest.size());
    uint32_t start = static_cast<uint32_t>(rest.data() - frame.bytes.data());
    if (offload.partial_checksum)
      tcp.good_checksum =
          offload.checksum_offset == 16 && offload.checksum_start == start && inner.u16(16) == pseudo;
    else
      tcp.good_checksum = plain_sum(rest, pseudo) == 0xffff;
    parse_tcp_options(rest.subspan(20, tcp.header_length - 20), tcp);
    frame.payload = text_of(rest.subspan(tcp.header_length));
    frame.tcp = std::move(tcp);
  }
  return frame;
}

CapturedFrame CapturedFrame::of(TxFrame& frame, LinkInfo::Kind kind) {
  Bytes header = frame.header();
  std::vector<std::byte> bytes(header.begin(), header.end());
  for (const Slice& slice : frame.payload()) {
    Bytes part(slice.source(), slice.length);
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  CapturedFrame captured = parse(std::move(bytes), kind, frame.offload);
  captured.queue = frame.queue;
  return captured;
}

Bytes CapturedFrame::ip_packet() const { return Bytes(bytes).subspan(ethernet ? 14 : 0); }

std::string to_string(const IpAddress& address) {
  LogLine line;
  line << address;
  return std::string(line.text());
}

std::ostream& operator<<(std::ostream& out, const CapturedFrame& frame) {
  auto mac = [](const MacAddress& address) {
    LogLine line;
    line << address;
    return std::string(line.text());
  };
  if (frame.arp) {
    const CapturedArp& arp = *frame.arp;
    out << (arp.operation == 1 ? "ARP request who-has " : "ARP reply for ") << to_string(arp.target_address)
        << " (" << mac(arp.target_mac) << ") from " << to_string(arp.sender_address) << " ("
        << mac(arp.sender_mac) << ")";
    if (frame.ethernet) out << " to " << mac(frame.ethernet->destination);
    return out;
  }
  if (!frame.ipv4) return out << "a frame of " << frame.bytes.size() << " bytes that is neither ARP nor IPv4";
  const CapturedIpv4& ip = *frame.ipv4;
  out << to_string(ip.source);
  if (frame.tcp) out << ':' << frame.tcp->source_port;
  out << " > " << to_string(ip.destination);
  if (frame.tcp) out << ':' << frame.tcp->destination_port;
  out << (ip.good_checksum ? "" : " BAD-IP-CHECKSUM");
  if (ip.more_fragments || ip.fragment_offset != 0)
    out << " fragment " << ip.fragment_offset << (ip.more_fragments ? "+" : "") << " id " << ip.id;
  if (frame.icmp) {
    out << " ICMP type " << int{frame.icmp->type} << " code " << int{frame.icmp->code} << " info "
        << frame.icmp->info << (frame.icmp->good_checksum ? "" : " BAD-CHECKSUM");
  } else if (frame.tcp) {
    const CapturedTcp& tcp = *frame.tcp;
    out << " [" << tcp.flag_letters() << "] seq " << tcp.seq << " ack " << tcp.ack << " win " << tcp.window;
    if (tcp.mss) out << " mss " << *tcp.mss;
    if (tcp.window_scale) out << " wscale " << int{*tcp.window_scale};
    if (tcp.sack_permitted) out << " sackOK";
    if (tcp.timestamps) out << " TS " << tcp.timestamps->first << '/' << tcp.timestamps->second;
    for (auto [from, to] : tcp.sack_blocks) out << " sack " << from << ':' << to;
    if (!tcp.good_options) out << " BAD-OPTIONS";
    if (!tcp.good_checksum) out << " BAD-CHECKSUM";
    if (frame.offload.segmentation != Offload::Segmentation::none)
      out << " segments of " << frame.offload.segment_size;
  } else {
    out << " protocol " << int{ip.protocol};
  }
  return out << " length " << frame.payload.size();
}

std::vector<CapturedFrame> take_frames(FrameQueue& queue, FramePool& pool, LinkInfo::Kind kind) {
  std::vector<CapturedFrame> frames;
  while (TxFrame* frame = queue.pop_front()) {
    frames.push_back(CapturedFrame::of(*frame, kind));
    pool.release(frame);
  }
  return frames;
}

}  // namespace ustack::test
