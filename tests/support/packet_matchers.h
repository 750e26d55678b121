// Matchers for frames, which compose as the layers do:
//
//   EXPECT_THAT(frame, Ipv4(SrcIs(kOurs), DstIs(kPeer), Tcp(DstPort(80), FlagsAre("SA"), Mss(1460))));
//   EXPECT_THAT(frame, Ethernet(EthDst(kPeerMac), Arp(IsReply(), TargetIp(kPeer))));
//
// A layer's matcher (Ethernet, Arp, Ipv4, Icmp, Tcp) also demands that the layer is sound: checksums are
// right (or rightly left to the link, see Offload), options fit. Arguments of field matchers are values or
// matchers of them.
#pragma once

#include <gmock/gmock.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/captured_frame.h"

namespace ustack::test {

namespace detail {

/// A field of a layer that may be missing: its zero value then, and the layer's own matcher has said so
/// already.
template <typename Layer, typename Field>
auto layer_field(std::optional<Layer> CapturedFrame::*layer, Field Layer::*field) {
  return [layer, field](const CapturedFrame& frame) -> Field {
    const std::optional<Layer>& found = frame.*layer;
    return found ? (*found).*field : Field{};
  };
}

template <typename Layer, typename Field, typename M>
auto match_field(const char* what, std::optional<Layer> CapturedFrame::*layer, Field Layer::*field, M&& m) {
  return ::testing::ResultOf(what, layer_field(layer, field), std::forward<M>(m));
}

MATCHER(SoundEthernet, "is an Ethernet frame") { return arg.ethernet.has_value(); }
MATCHER(SoundArp, "is an ARP packet") { return arg.arp.has_value(); }
MATCHER(SoundIpv4, "is an IPv4 packet with a right header checksum") {
  return arg.ipv4.has_value() && arg.ipv4->good_checksum;
}
MATCHER(SoundIcmp, "is an ICMP message with a right checksum") {
  return arg.icmp.has_value() && arg.icmp->good_checksum;
}
MATCHER(SoundTcp, "is a TCP segment with a right checksum and sound options") {
  return arg.tcp.has_value() && arg.tcp->good_checksum && arg.tcp->good_options;
}

}  // namespace detail

// --- layers

template <typename... M>
auto Ethernet(M&&... inner) {
  return ::testing::AllOf(detail::SoundEthernet(), std::forward<M>(inner)...);
}
template <typename... M>
auto Arp(M&&... inner) {
  return ::testing::AllOf(detail::SoundArp(), std::forward<M>(inner)...);
}
template <typename... M>
auto Ipv4(M&&... inner) {
  return ::testing::AllOf(detail::SoundIpv4(), std::forward<M>(inner)...);
}
template <typename... M>
auto Icmp(M&&... inner) {
  return ::testing::AllOf(detail::SoundIcmp(), std::forward<M>(inner)...);
}
template <typename... M>
auto Tcp(M&&... inner) {
  return ::testing::AllOf(detail::SoundTcp(), std::forward<M>(inner)...);
}

// X(Matcher, "what it is called", layer, field)
#define USTACK_FIELD_MATCHERS(X)                                            \
  X(EthSrc, "Ethernet source", ethernet, Ethernet, source)                  \
  X(EthDst, "Ethernet destination", ethernet, Ethernet, destination)        \
  X(EtherType, "EtherType", ethernet, Ethernet, type)                       \
  X(ArpOperation, "ARP operation", arp, Arp, operation)                     \
  X(SenderMac, "ARP sender MAC", arp, Arp, sender_mac)                      \
  X(SenderIp, "ARP sender IP", arp, Arp, sender_address)                    \
  X(TargetMac, "ARP target MAC", arp, Arp, target_mac)                      \
  X(TargetIp, "ARP target IP", arp, Arp, target_address)                    \
  X(SrcIs, "source address", ipv4, Ipv4, source)                            \
  X(DstIs, "destination address", ipv4, Ipv4, destination)                  \
  X(Ttl, "TTL", ipv4, Ipv4, ttl)                                            \
  X(Tos, "TOS", ipv4, Ipv4, tos)                                            \
  X(IpId, "IP identification", ipv4, Ipv4, id)                              \
  X(TotalLength, "IP total length", ipv4, Ipv4, total_length)               \
  X(IpProtocol, "IP protocol", ipv4, Ipv4, protocol)                        \
  X(DontFragment, "DF", ipv4, Ipv4, dont_fragment)                          \
  X(MoreFragments, "MF", ipv4, Ipv4, more_fragments)                        \
  X(FragmentOffset, "fragment offset", ipv4, Ipv4, fragment_offset)         \
  X(IcmpType, "ICMP type", icmp, Icmp, type)                                \
  X(IcmpCode, "ICMP code", icmp, Icmp, code)                                \
  X(IcmpInfo, "ICMP bytes 4 to 7", icmp, Icmp, info)                        \
  X(SrcPort, "source port", tcp, Tcp, source_port)                          \
  X(DstPort, "destination port", tcp, Tcp, destination_port)                \
  X(Seq, "sequence number", tcp, Tcp, seq)                                  \
  X(Ack, "acknowledgment number", tcp, Tcp, ack)                            \
  X(Window, "window", tcp, Tcp, window)                                     \
  X(UrgentPointer, "urgent pointer", tcp, Tcp, urgent)                      \
  X(TcpHeaderLength, "TCP header length", tcp, Tcp, header_length)          \
  X(SackPermitted, "SACK-permitted", tcp, Tcp, sack_permitted)              \
  /** kinds in order, NOPs too: OptionKinds(ElementsAre(2, 4, 8, 1, 3)) */  \
  X(OptionKinds, "option kinds", tcp, Tcp, option_kinds)                    \
  /** pairs (left edge, right edge): SackBlocks(ElementsAre(Pair(1, 2))) */ \
  X(SackBlocks, "SACK blocks", tcp, Tcp, sack_blocks)                       \
  /** Optional(1460) or std::nullopt where an option may be absent */       \
  X(MssOption, "MSS option", tcp, Tcp, mss)                                 \
  X(WindowScaleOption, "window scale option", tcp, Tcp, window_scale)       \
  X(TimestampsOption, "timestamps option", tcp, Tcp, timestamps)            \
  /** Optional(cookie bytes); no bytes ask for a cookie */                  \
  X(FastOpenOption, "Fast Open option", tcp, Tcp, fast_open)

#define USTACK_FIELD_MATCHER(matcher, what, layer, type, field)                                          \
  template <typename M>                                                                                  \
  auto matcher(M&& m) {                                                                                  \
    return detail::match_field(what, &CapturedFrame::layer, &Captured##type::field, std::forward<M>(m)); \
  }
USTACK_FIELD_MATCHERS(USTACK_FIELD_MATCHER)
#undef USTACK_FIELD_MATCHER

inline auto IsRequest() { return ArpOperation(1); }
inline auto IsReply() { return ArpOperation(2); }

/// Exactly these flags, letters of "FSRPAUEC" in any order; "" for none.
inline auto FlagsAre(std::string_view letters) {
  unsigned flags = 0;
  for (char c : letters) flags |= 1u << std::string_view("FSRPAUEC").find(c);
  CapturedTcp wanted;
  wanted.flags = static_cast<uint8_t>(flags);
  return ::testing::ResultOf(
      "flags",
      [](const CapturedFrame& frame) {
        return frame.tcp ? frame.tcp->flag_letters() : std::string("no TCP");
      },
      ::testing::Eq(wanted.flag_letters()));
}
template <typename M>
auto Mss(M&& m) {
  return MssOption(::testing::Optional(std::forward<M>(m)));
}
template <typename M>
auto WindowScale(M&& m) {
  return WindowScaleOption(::testing::Optional(std::forward<M>(m)));
}
/// TSval and TSecr.
template <typename V, typename E>
auto TimestampsAre(V&& value, E&& echo) {
  return TimestampsOption(
      ::testing::Optional(::testing::Pair(std::forward<V>(value), std::forward<E>(echo))));
}
inline auto NoTimestamps() { return TimestampsOption(::testing::Eq(std::nullopt)); }

/// What the innermost layer carries, as a std::string.
template <typename M>
auto Payload(M&& m) {
  return ::testing::Field("payload", &CapturedFrame::payload, std::forward<M>(m));
}
template <typename M>
auto PayloadSize(M&& m) {
  return ::testing::ResultOf(
      "payload size", [](const CapturedFrame& frame) { return frame.payload.size(); }, std::forward<M>(m));
}
/// Left to the link: a partial checksum; segments of this size.
inline auto PartialChecksum() {
  return ::testing::ResultOf(
      "partial checksum", [](const CapturedFrame& frame) { return frame.offload.partial_checksum; }, true);
}
template <typename M>
auto SegmentSize(M&& m) {
  return ::testing::ResultOf(
      "segment size", [](const CapturedFrame& frame) { return frame.offload.segment_size; },
      std::forward<M>(m));
}

}  // namespace ustack::test
