// IPv6, ICMPv6 and neighbour discovery: wire formats, and a Network that speaks them.
#include "stack/net/ipv6.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "stack/net/checksum.h"
#include "stack/net/neighbour_discovery.h"
#include "stack/net/segmentation.h"
#include "tests/support/network_harness.h"
#include "tests/support/v6_address.h"

namespace ustack::test {
namespace {

const IpAddress kOurs6 = v6(0x2001, 0xdb8, 2), kPeer6 = v6(0x2001, 0xdb8, 1), kFar6 = v6(0x2001, 0xdb9, 9),
                kOurLocal = v6(0xfe80, 0, 2), kRouter6 = v6(0xfe80, 0, 0xfe),
                kNone6 = IpAddress::any(Family::ipv6);

struct Ipv6Fields {
  IpAddress source, destination;
  uint8_t next_header = ip_protocol::kIcmpV6;
  uint8_t hop_limit = 64;
  uint8_t traffic_class = 0;
};

ByteVector ipv6_packet(const Ipv6Fields& fields, const ByteVector& payload) {
  Ipv6Header header;
  header.traffic_class = fields.traffic_class;
  header.payload_length = static_cast<uint16_t>(payload.size());
  header.next_header = fields.next_header;
  header.hop_limit = fields.hop_limit;
  header.source = fields.source;
  header.destination = fields.destination;
  ByteVector packet(Ipv6Header::kLength);
  header.emit(packet.data());
  return packet + payload;
}

ByteVector icmpv6_message(const Ipv6Fields& fields, uint8_t type, uint8_t code, uint32_t info,
                          const ByteVector& rest = {}) {
  ByteVector message(8);
  IcmpHeader{type, code, info}.emit(message.data());
  message = message + rest;
  store_be16(&message[2], icmpv6::checksum(fields.source, fields.destination, message));
  return message;
}

ByteVector neighbour_message(const Ipv6Fields& fields, const NeighbourMessage& message) {
  ByteVector bytes(NeighbourMessage::kWhole);
  bytes.resize(message.emit(bytes.data()));
  store_be16(&bytes[2], icmpv6::checksum(fields.source, fields.destination, bytes));
  return bytes;
}

ByteVector extension(uint8_t next, const ByteVector& rest) {
  ByteVector header{std::byte{next}, std::byte{0}};
  header = header + rest;
  header.resize((header.size() + 7) / 8 * 8);
  header[1] = static_cast<std::byte>(header.size() / 8 - 1);
  return header;
}

ByteVector fragment_header(uint8_t next, uint16_t offset, bool more, uint32_t id) {
  ByteVector header(Ipv6Fragment::kLength);
  Ipv6Fragment{.next_header = next, .offset = offset, .more = more, .id = id}.emit(header.data());
  return header;
}

/// What came out: an IPv6 packet behind its Ethernet header.
struct Sent {
  MacAddress to;
  Ipv6Header ip;
  ByteVector payload;

  uint8_t type() const { return payload.empty() ? 0 : std::to_integer<uint8_t>(payload[0]); }
  uint8_t code() const { return payload.size() < 2 ? 0 : std::to_integer<uint8_t>(payload[1]); }
  uint32_t info() const { return payload.size() < 8 ? 0 : load_be32(&payload[4]); }
  bool sound() const { return icmpv6::checksum(ip.source, ip.destination, payload) == 0; }
};

class Ipv6Test : public ::testing::Test {
 protected:
  explicit Ipv6Test(const NetworkHarness::Options& options =
                        {.addresses = {{kOurs, 24}, {kOurs6, 64}, {kOurLocal, 64}}, .gateways = {kRouter6}})
      : net(options) {}

  void receive(const ByteVector& packet, const MacAddress& to = kOurMac) {
    net.receive(ethernet_frame(to, kPeerMac, 0x86dd, packet));
  }
  void receive(const Ipv6Fields& fields, const ByteVector& payload) {
    const bool group = fields.destination.is_multicast();
    receive(ipv6_packet(fields, payload), group ? group_mac(fields.destination) : kOurMac);
  }
  std::vector<Sent> take() {
    std::vector<Sent> all;
    for (const CapturedFrame& frame : net.take()) {
      Sent sent;
      const auto& bytes = frame.bytes;
      if (bytes.size() < 14 || load_be16(&bytes[12]) != 0x86dd) continue;
      std::memcpy(sent.to.bytes.data(), bytes.data(), 6);
      EXPECT_EQ(Ipv6Header::parse(Bytes(bytes).subspan(14), sent.ip), Ipv6Error::none);
      sent.payload.assign(bytes.begin() + 54, bytes.end());
      all.push_back(std::move(sent));
    }
    return all;
  }
  /// The peer's address is known, and taken as confirmed.
  void learn(const IpAddress& address, const MacAddress& mac) { net.learn(address, mac); }

  NetworkHarness net;
};

// --- wire formats

TEST(Ipv6Header, EmitsWhatItParses) {
  Ipv6Header header{.traffic_class = 0xb9,
                    .flow_label = 0x12345,
                    .payload_length = 3,
                    .next_header = 6,
                    .hop_limit = 7,
                    .source = kOurs6,
                    .destination = kPeer6};
  ByteVector bytes(Ipv6Header::kLength + 3);
  header.emit(bytes.data());
  Ipv6Header parsed;
  EXPECT_EQ(Ipv6Header::parse(bytes, parsed), Ipv6Error::none);
  EXPECT_EQ(parsed, header);
  EXPECT_EQ(parsed.total_length(), 43u);
  for (size_t n = 0; n < 40; ++n)
    EXPECT_EQ(Ipv6Header::parse(Bytes(bytes).first(n), parsed), Ipv6Error::short_header);
  for (size_t n = 40; n < 43; ++n)
    EXPECT_EQ(Ipv6Header::parse(Bytes(bytes).first(n), parsed), Ipv6Error::truncated);
  bytes[0] = std::byte{0x45};
  EXPECT_EQ(Ipv6Header::parse(bytes, parsed), Ipv6Error::version);
}

TEST(Ipv6Chain, FindsTheTransportBehindExtensionHeaders) {
  ByteVector rest = extension(ip_protocol::kRouting, {std::byte{5}, std::byte{2}}) +
                    extension(ip_protocol::kDestinationOptions, {std::byte{0}, std::byte{0}}) +
                    extension(6, {std::byte{0x1e}, std::byte{3}, std::byte{1}, std::byte{2}, std::byte{3}}) +
                    ByteVector(20);
  ByteVector packet = ipv6_packet({kPeer6, kOurs6, ip_protocol::kHopByHop}, rest);
  Ipv6Chain chain = Ipv6Chain::walk(packet, false);
  EXPECT_EQ(chain.verdict, Ipv6Chain::Verdict::ok);
  EXPECT_EQ(chain.protocol, 6);
  EXPECT_EQ(chain.offset, packet.size() - 20);
  EXPECT_EQ(chain.named_at, packet.size() - 20 - 8);
  // Cut anywhere in its headers it is nothing.
  for (size_t n = 40; n < packet.size() - 20; ++n)
    EXPECT_EQ(Ipv6Chain::walk(Bytes(packet).first(n), false).verdict, Ipv6Chain::Verdict::discard) << n;
}

struct ChainCase {
  const char* name;
  uint8_t first;
  ByteVector rest;
  Ipv6Chain::Verdict alone, in_group;
  uint8_t code = 0;
  uint32_t pointer = 0;
};
std::ostream& operator<<(std::ostream& out, const ChainCase& c) { return out << c.name; }
class Ipv6ChainCases : public ::testing::TestWithParam<ChainCase> {};

TEST_P(Ipv6ChainCases, IsJudged) {
  const ChainCase& c = GetParam();
  ByteVector packet = ipv6_packet({kPeer6, kOurs6, c.first}, c.rest + ByteVector(8));
  Ipv6Chain chain = Ipv6Chain::walk(packet, false);
  EXPECT_EQ(chain.verdict, c.alone);
  if (c.alone == Ipv6Chain::Verdict::problem) {
    EXPECT_EQ(chain.code, c.code);
    EXPECT_EQ(chain.pointer, c.pointer);
  }
  EXPECT_EQ(Ipv6Chain::walk(packet, true).verdict, c.in_group);
}

using enum Ipv6Chain::Verdict;
constexpr uint8_t kOptions = ip_protocol::kDestinationOptions;
INSTANTIATE_TEST_SUITE_P(
    All, Ipv6ChainCases,
    testing::Values(
        ChainCase{"unknown, skipped", kOptions, extension(6, {std::byte{0x1e}, std::byte{0}}), ok, ok},
        ChainCase{"unknown, discarded", kOptions, extension(6, {std::byte{0x5e}, std::byte{0}}), discard,
                  discard},
        ChainCase{"unknown, always told", kOptions, extension(6, {std::byte{0x9e}, std::byte{0}}), problem,
                  problem, 2, 42},
        ChainCase{"unknown, told to one", kOptions,
                  extension(6, {std::byte{0}, std::byte{0xde}, std::byte{0}}), problem, discard, 2, 43},
        ChainCase{"longer than its header", kOptions, extension(6, {std::byte{1}, std::byte{9}}), discard,
                  discard},
        ChainCase{"source routed", ip_protocol::kRouting, extension(6, {std::byte{0}, std::byte{1}}), problem,
                  problem, 0, 42},
        ChainCase{"hop-by-hop in second place", kOptions,
                  extension(ip_protocol::kHopByHop, {}) + extension(6, {}), problem, problem, 1, 40},
        ChainCase{"an atomic fragment", ip_protocol::kFragment, fragment_header(6, 0, false, 1), ok, ok},
        ChainCase{"a fragment", ip_protocol::kFragment, fragment_header(6, 8, false, 1), fragment,
                  fragment}));

TEST(NeighbourMessage, EmitsWhatItParses) {
  NeighbourMessage message{.type = icmpv6::kNeighbourAdvertisement,
                           .router = true,
                           .solicited = true,
                           .override_known = true,
                           .target = kPeer6,
                           .mac = kPeerMac};
  ByteVector bytes(NeighbourMessage::kWhole);
  ASSERT_EQ(message.emit(bytes.data()), NeighbourMessage::kWhole);
  EXPECT_EQ(NeighbourMessage::parse(bytes), message);
  for (size_t n = 0; n < bytes.size(); ++n) {
    // Without its option it is whole.
    EXPECT_EQ(NeighbourMessage::parse(Bytes(bytes).first(n)).has_value(), n == NeighbourMessage::kLength)
        << n;
  }
  bytes[25] = std::byte{0};
  EXPECT_FALSE(NeighbourMessage::parse(bytes)) << "an option without length";
  NeighbourMessage bare{.type = icmpv6::kNeighbourSolicitation, .target = kPeer6, .mac = std::nullopt};
  bytes.resize(bare.emit(bytes.data()));
  EXPECT_EQ(NeighbourMessage::parse(bytes), bare);
  bytes[8] = std::byte{0xff};
  EXPECT_FALSE(NeighbourMessage::parse(bytes)) << "of a group";
}

TEST(Groups, HaveTheirAddresses) {
  std::byte bytes[16] = {std::byte{0x20}, std::byte{1}};
  bytes[13] = std::byte{0xab};
  bytes[14] = std::byte{0xcd};
  bytes[15] = std::byte{0xef};
  const IpAddress group = solicited_node(IpAddress::from_bytes(Family::ipv6, bytes));
  EXPECT_EQ(group.data()[0], std::byte{0xff});
  EXPECT_EQ(load_be32(group.data() + 12), 0xffabcdefu);
  EXPECT_EQ(group.data()[11], std::byte{1});
  EXPECT_EQ(group_mac(group), (MacAddress{{std::byte{0x33}, std::byte{0x33}, std::byte{0xff}, std::byte{0xab},
                                           std::byte{0xcd}, std::byte{0xef}}}));
}

TEST(Icmpv6, ErrorsMeanWhatLinuxSays) {
  EXPECT_EQ(icmpv6::meaning_of(1, 0).error, ENETUNREACH);
  EXPECT_EQ(icmpv6::meaning_of(1, 1).error, EACCES);
  EXPECT_EQ(icmpv6::meaning_of(1, 3).error, EHOSTUNREACH);
  EXPECT_EQ(icmpv6::meaning_of(1, 4).error, ECONNREFUSED);
  EXPECT_TRUE(icmpv6::meaning_of(1, 4).fatal);
  EXPECT_EQ(icmpv6::meaning_of(1, 7).error, 0);
  EXPECT_EQ(icmpv6::meaning_of(2, 0).error, EMSGSIZE);
  EXPECT_EQ(icmpv6::meaning_of(3, 0).error, EHOSTUNREACH);
  EXPECT_EQ(icmpv6::meaning_of(4, 0).error, EPROTO);
  EXPECT_EQ(icmpv6::meaning_of(128, 0).error, 0);
}

// --- segmentation

TEST(TcpSegmenterV6, CutsAsALinkWould) {
  ByteVector tcp =
      tcp_segment(kOurs6, kPeer6, {.source_port = 1, .destination_port = 2, .seq = 100, .flags = "PA"},
                  pattern_bytes(2500));
  ByteVector frame =
      ethernet_frame(kPeerMac, kOurMac, 0x86dd, ipv6_packet({kOurs6, kPeer6, ip_protocol::kTcp}, tcp));
  const Offload offload{.partial_checksum = true,
                        .segmentation = Offload::Segmentation::tcp_v6,
                        .checksum_start = 54,
                        .checksum_offset = 16,
                        .segment_size = 1000};
  TcpSegmenter cut(frame, offload, 14);
  ASSERT_TRUE(cut.valid());
  ByteVector out(cut.largest());
  size_t payload = 0;
  for (int i = 0; !cut.done(); ++i) {
    const size_t size = cut.next(out);
    Ipv6Header header;
    Bytes packet = Bytes(out).first(size).subspan(14);
    ASSERT_EQ(Ipv6Header::parse(packet, header), Ipv6Error::none);
    ASSERT_EQ(header.total_length(), packet.size());
    Bytes segment = packet.subspan(40);
    EXPECT_EQ(load_be32(&segment[4]), 100 + payload);
    const auto length = static_cast<uint32_t>(segment.size());
    EXPECT_EQ(checksum_finish(checksum_add(segment, pseudo_header_sum(kOurs6, kPeer6, 6, length))), 0);
    payload += segment.size() - 20;
  }
  EXPECT_EQ(payload, 2500u);
  EXPECT_FALSE(
      TcpSegmenter(frame, {.segmentation = Offload::Segmentation::tcp_v4, .segment_size = 1000}, 14).valid());
  EXPECT_FALSE(TcpSegmenter(Bytes(frame).first(60), offload, 14).valid());
}

// --- echo and errors

TEST_F(Ipv6Test, AnswersEchoes) {
  learn(kPeer6, kPeerMac);
  const Ipv6Fields fields{.source = kPeer6, .destination = kOurs6, .traffic_class = 0x28};
  receive(fields, icmpv6_message(fields, icmpv6::kEchoRequest, 0, 0xabcd0001, bytes_of("are you there?")));
  auto sent = take();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].to, kPeerMac);
  EXPECT_EQ(sent[0].ip.source, kOurs6);
  EXPECT_EQ(sent[0].ip.destination, kPeer6);
  EXPECT_EQ(sent[0].ip.traffic_class, 0x28);
  EXPECT_EQ(sent[0].type(), icmpv6::kEchoReply);
  EXPECT_EQ(sent[0].info(), 0xabcd0001u);
  EXPECT_TRUE(sent[0].sound());
  EXPECT_EQ(net.counters.Icmp6OutEchoReplies, 1u);
  EXPECT_EQ(net.blocks.live(), 0u);
}

TEST_F(Ipv6Test, AnswersEchoesToAllNodesFromAnAddressOfItsOwn) {
  const IpAddress local = v6(0xfe80, 0, 1);
  learn(local, kPeerMac);
  const Ipv6Fields fields{.source = local, .destination = all_nodes()};
  receive(fields, icmpv6_message(fields, icmpv6::kEchoRequest, 0, 1));
  auto sent = take();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].ip.source, kOurLocal);
}

TEST_F(Ipv6Test, LargeEchoesAreAnsweredInFragments) {
  learn(kPeer6, kPeerMac);
  const Ipv6Fields fields{.source = kPeer6, .destination = kOurs6};
  ByteVector message = icmpv6_message(fields, icmpv6::kEchoRequest, 0, 7, pattern_bytes(3000));
  // Which comes in fragments, too, the last one first.
  for (size_t at : {size_t{2400}, size_t{1200}, size_t{0}}) {
    const bool more = at < 2400;
    ByteVector part(message.begin() + static_cast<long>(at),
                    more ? message.begin() + static_cast<long>(at) + 1200 : message.end());
    Ipv6Fields own = fields;
    own.next_header = ip_protocol::kFragment;
    receive(own, fragment_header(ip_protocol::kIcmpV6, static_cast<uint16_t>(at), more, 99) + part);
  }
  EXPECT_EQ(net.counters.Ip6ReasmOKs, 1u);
  auto sent = take();
  ASSERT_EQ(sent.size(), 3u);
  ByteVector whole;
  for (size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(sent[i].ip.next_header, ip_protocol::kFragment);
    EXPECT_LE(sent[i].ip.total_length(), 1500u);
    EXPECT_EQ(load_be16(&sent[i].payload[2]) & 0xfff8, whole.size());
    EXPECT_EQ(load_be16(&sent[i].payload[2]) & 1, i < 2 ? 1 : 0);
    EXPECT_EQ(load_be32(&sent[i].payload[4]), load_be32(&sent[0].payload[4]));
    whole.insert(whole.end(), sent[i].payload.begin() + 8, sent[i].payload.end());
  }
  EXPECT_EQ(whole.size(), message.size());
  EXPECT_EQ(icmpv6::checksum(kOurs6, kPeer6, whole), 0);
  EXPECT_EQ(net.blocks.live(), 0u);
}

TEST_F(Ipv6Test, OverlappingFragmentsTakeTheirDatagramWithThem) {
  const Ipv6Fields fields{.source = kPeer6, .destination = kOurs6, .next_header = ip_protocol::kFragment};
  receive(fields, fragment_header(6, 0, true, 5) + ByteVector(16));
  receive(fields, fragment_header(6, 8, true, 5) + ByteVector(16));
  EXPECT_EQ(net.counters.Ip6ReasmFails, 1u);
  EXPECT_EQ(net.network->reassembler().size(), 0u);
}

TEST_F(Ipv6Test, AnUnfinishedDatagramIsToldOf) {
  learn(kPeer6, kPeerMac);
  const Ipv6Fields fields{.source = kPeer6, .destination = kOurs6, .next_header = ip_protocol::kFragment};
  receive(fields, fragment_header(6, 0, true, 5) + ByteVector(16));
  net.advance(59s);
  EXPECT_EQ(net.counters.Ip6ReasmTimeout, 0u);
  learn(kPeer6, kPeerMac);
  net.advance(2s);
  auto sent = take();
  ASSERT_GE(sent.size(), 1u);
  EXPECT_EQ(sent.front().type(), icmpv6::kTimeExceeded);
  EXPECT_EQ(sent.front().code(), icmpv6::kReassemblyExceeded);
  EXPECT_EQ(net.counters.Ip6ReasmTimeout, 1u);
}

TEST_F(Ipv6Test, TellsOfWhatItDoesNotUnderstand) {
  learn(kPeer6, kPeerMac);
  Ipv6Fields fields{.source = kPeer6, .destination = kOurs6, .next_header = 200};
  receive(fields, ByteVector(40));
  fields.next_header = ip_protocol::kDestinationOptions;
  receive(fields, extension(6, {std::byte{0x9e}, std::byte{0}}) + ByteVector(20));
  auto sent = take();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].type(), icmpv6::kParameterProblem);
  EXPECT_EQ(sent[0].code(), icmpv6::kUnknownNextHeader);
  EXPECT_EQ(sent[0].info(), 6u);
  EXPECT_EQ(sent[1].code(), icmpv6::kUnknownOption);
  EXPECT_EQ(sent[1].info(), 42u);
  for (const Sent& each : sent) EXPECT_TRUE(each.sound());
}

TEST_F(Ipv6Test, SaysNothingAboutErrorsAndGroups) {
  learn(kPeer6, kPeerMac);
  // An ICMPv6 error whose options we don't know, and a packet to a group for which nobody is there.
  const Ipv6Fields error{
      .source = kPeer6, .destination = kOurs6, .next_header = ip_protocol::kDestinationOptions};
  receive(error, extension(ip_protocol::kIcmpV6, {std::byte{0x9e}, std::byte{0}}) +
                     icmpv6_message(error, icmpv6::kUnreachable, 0, 0, ByteVector(48)));
  receive({.source = kPeer6, .destination = all_nodes(), .next_header = 200}, ByteVector(40));
  EXPECT_TRUE(take().empty());
}

TEST_F(Ipv6Test, DropsWhatIsNotForUs) {
  receive({.source = kPeer6, .destination = v6(0x2001, 0xdb8, 77)}, ByteVector(8));
  EXPECT_EQ(net.counters.Ip6InAddrErrors, 1u);
  receive({.source = kPeer6, .destination = v6(0xff02, 0, 0xfb)}, ByteVector(8));
  EXPECT_EQ(net.counters.UstackRxNotForUs, 1u);
  receive({.source = kOurs6, .destination = kOurs6}, ByteVector(8));
  receive({.source = all_nodes(), .destination = kOurs6}, ByteVector(8));
  receive({.source = v6(0, 0, 1), .destination = kOurs6}, ByteVector(8));
  EXPECT_EQ(net.counters.UstackRxMartians, 3u);
  ByteVector cut = ipv6_packet({.source = kPeer6, .destination = kOurs6}, ByteVector(100));
  cut.resize(80);
  receive(cut);
  EXPECT_EQ(net.counters.Ip6InTruncatedPkts, 1u);
  EXPECT_TRUE(take().empty());
}

TEST(Ipv6Off, AHostWithoutAnAddressTakesNoNotice) {
  NetworkHarness net;
  net.receive(ethernet_frame(kOurMac, kPeerMac, 0x86dd, ipv6_packet({kPeer6, kOurs6}, ByteVector(8))));
  EXPECT_EQ(net.counters.UstackRxNotForUs, 1u);
  EXPECT_EQ(net.counters.Ip6InReceives, 0u);
  EXPECT_EQ(net.network->find_route({}, kPeer6).code(), ENETUNREACH);
}

// --- errors that come in

TEST_F(Ipv6Test, HandsErrorsToTheTransport) {
  const Ipv6Fields fields{.source = kRouter6, .destination = kOurs6};
  ByteVector quote =
      ipv6_packet({.source = kOurs6, .destination = kFar6, .next_header = 6}, pattern_bytes(24));
  receive(fields, icmpv6_message(fields, icmpv6::kPacketTooBig, 0, 1280, quote));
  receive(fields, icmpv6_message(fields, icmpv6::kUnreachable, icmpv6::kNoRoute, 0, quote));
  ASSERT_EQ(net.tcp.errors.size(), 2u);
  const IcmpError& big = net.tcp.errors[0].error;
  EXPECT_TRUE(icmp::is_too_big(big));
  EXPECT_EQ(big.mtu, 1280u);
  EXPECT_EQ(big.local, kOurs6);
  EXPECT_EQ(big.remote, kFar6);
  EXPECT_EQ(big.reporter, kRouter6);
  EXPECT_EQ(net.tcp.errors[0].quoted.size(), 24u);
  EXPECT_TRUE(icmp::is_way_lost(net.tcp.errors[1].error));
  EXPECT_EQ(icmp::meaning_of(net.tcp.errors[1].error).error, ENETUNREACH);
  // Cut short, or about a packet of somebody else's.
  ByteVector shorter(quote.begin(), quote.begin() + 47);
  receive(fields, icmpv6_message(fields, icmpv6::kUnreachable, 0, 0, shorter));
  EXPECT_EQ(net.counters.Icmp6InErrors, 1u);
  ByteVector others = ipv6_packet({.source = kPeer6, .destination = kFar6, .next_header = 6}, ByteVector(24));
  receive(fields, icmpv6_message(fields, icmpv6::kUnreachable, 0, 0, others));
  EXPECT_EQ(net.tcp.errors.size(), 2u);
}

TEST_F(Ipv6Test, APathNeverShrinksBelowWhatIpv6Asks) {
  EXPECT_EQ(net.network->update_path_mtu(kFar6, 1400), 1400u);
  EXPECT_EQ(net.network->update_path_mtu(kFar6, 600), 1280u);
  EXPECT_EQ(net.network->update_path_mtu(kFar6, 1500), 1280u);
}

// --- routes

TEST_F(Ipv6Test, ChoosesNextHopAndSource) {
  auto near = net.network->find_route({}, kPeer6);
  ASSERT_TRUE(near.ok());
  EXPECT_EQ(near->next_hop(), kPeer6);
  EXPECT_EQ(near->local(), kOurs6);
  auto far = net.network->find_route({}, kFar6);
  ASSERT_TRUE(far.ok());
  EXPECT_EQ(far->next_hop(), kRouter6);
  EXPECT_EQ(far->local(), kOurs6) << "not the address that the router is reached from";
  auto link = net.network->find_route({}, v6(0xfe80, 0, 1));
  ASSERT_TRUE(link.ok());
  EXPECT_EQ(link->local(), kOurLocal);
  auto own = net.network->find_route({}, kOurs6);
  ASSERT_TRUE(own.ok());
  EXPECT_TRUE(own->is_local());
  EXPECT_EQ(net.network->find_route({}, all_nodes()).code(), ENETUNREACH);
  EXPECT_EQ(net.network->find_route({}, v6(0, 0, 1)).code(), ENETUNREACH);
  EXPECT_EQ(net.network->find_route(v6(0x2001, 0xdb8, 3), kPeer6).code(), EADDRNOTAVAIL);
  EXPECT_EQ(net.network->find_route(kOurs, kPeer6).code(), ENETUNREACH);
}

// --- neighbour discovery

TEST_F(Ipv6Test, AsksForANeighbourAndSendsWhatWaited) {
  EXPECT_TRUE(net.send(kPeer6, pattern_bytes(28), 6).ok());
  auto asked = take();
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].to, group_mac(solicited_node(kPeer6)));
  EXPECT_EQ(asked[0].ip.destination, solicited_node(kPeer6));
  EXPECT_EQ(asked[0].ip.source, kOurs6);
  EXPECT_EQ(asked[0].ip.hop_limit, 255);
  EXPECT_TRUE(asked[0].sound());
  auto question = NeighbourMessage::parse(asked[0].payload);
  ASSERT_TRUE(question);
  EXPECT_EQ(question->target, kPeer6);
  EXPECT_EQ(question->mac, kOurMac);
  const Ipv6Fields fields{.source = kPeer6, .destination = kOurs6, .hop_limit = 255};
  receive(fields, neighbour_message(fields, {.type = icmpv6::kNeighbourAdvertisement,
                                             .solicited = true,
                                             .override_known = true,
                                             .target = kPeer6,
                                             .mac = kPeerMac}));
  auto sent = take();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].to, kPeerMac);
  EXPECT_EQ(sent[0].ip.next_header, 6);
  EXPECT_EQ(net.network->neighbours().state(*net.network->neighbours().find(kPeer6)),
            NeighbourState::reachable);
}

TEST_F(Ipv6Test, ANeighbourThatDoesNotAnswerIsReported) {
  EXPECT_TRUE(net.send(kPeer6, pattern_bytes(28), 6).ok());
  net.advance(4s);
  EXPECT_EQ(take().size(), 3u);
  ASSERT_EQ(net.tcp.errors.size(), 1u);
  EXPECT_EQ(icmp::meaning_of(net.tcp.errors[0].error).error, EHOSTUNREACH);
  EXPECT_TRUE(icmp::is_way_lost(net.tcp.errors[0].error));
  EXPECT_EQ(net.tcp.errors[0].error.remote, kPeer6);
}

TEST_F(Ipv6Test, AnswersWhoAsksForUs) {
  const Ipv6Fields fields{.source = kPeer6, .destination = solicited_node(kOurs6), .hop_limit = 255};
  receive(fields, neighbour_message(fields, {.target = kOurs6, .mac = kPeerMac}));
  auto sent = take();
  ASSERT_EQ(sent.size(), 1u);
  auto answer = NeighbourMessage::parse(sent[0].payload);
  ASSERT_TRUE(answer);
  EXPECT_TRUE(answer->solicited && answer->override_known && !answer->router);
  EXPECT_EQ(answer->target, kOurs6);
  EXPECT_EQ(answer->mac, kOurMac);
  EXPECT_EQ(sent[0].ip.destination, kPeer6);
  EXPECT_EQ(sent[0].to, kPeerMac);
  EXPECT_EQ(sent[0].ip.hop_limit, 255);
  EXPECT_TRUE(sent[0].sound());
  // And knows now where that is, without having seen that its frames arrive there.
  EXPECT_EQ(net.network->neighbours().state(*net.network->neighbours().find(kPeer6)), NeighbourState::stale);
}

TEST_F(Ipv6Test, BelievesNothingThatARouterHasForwarded) {
  const Ipv6Fields fields{.source = kPeer6, .destination = solicited_node(kOurs6), .hop_limit = 254};
  receive(fields, neighbour_message(fields, {.target = kOurs6, .mac = kPeerMac}));
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(net.counters.Icmp6InErrors, 1u);
  Ipv6Fields wrong = fields;
  wrong.hop_limit = 255;
  ByteVector message = neighbour_message(wrong, {.target = kOurs6, .mac = kPeerMac});
  message[20] ^= std::byte{1};
  receive(wrong, message);
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(net.counters.Icmp6InCsumErrors, 1u);
}

TEST_F(Ipv6Test, DefendsItsAddress) {
  // Somebody looks whether it is free (RFC 4862).
  const Ipv6Fields probe{.source = kNone6, .destination = solicited_node(kOurs6), .hop_limit = 255};
  receive(probe, neighbour_message(probe, {.target = kOurs6, .mac = std::nullopt}));
  auto sent = take();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].ip.destination, all_nodes());
  EXPECT_EQ(NeighbourMessage::parse(sent[0].payload)->target, kOurs6);
  // Somebody says that it is his.
  const Ipv6Fields claim{.source = kPeer6, .destination = all_nodes(), .hop_limit = 255};
  const NeighbourMessage message{
      .type = icmpv6::kNeighbourAdvertisement, .override_known = true, .target = kOurs6, .mac = kOtherMac};
  receive(claim, neighbour_message(claim, message));
  receive(claim, neighbour_message(claim, message));
  EXPECT_EQ(net.counters.UstackArpConflicts, 2u);
  EXPECT_EQ(take().size(), 1u) << "not more than once in ten seconds";
}

TEST_F(Ipv6Test, TakesUpANewLinkAddressOnlyWhereTheOtherOneInsists) {
  learn(kPeer6, kPeerMac);
  net.advance(2s);
  const Ipv6Fields claim{.source = kPeer6, .destination = all_nodes(), .hop_limit = 255};
  NeighbourMessage message{.type = icmpv6::kNeighbourAdvertisement, .target = kPeer6, .mac = kOtherMac};
  receive(claim, neighbour_message(claim, message));
  EXPECT_EQ(net.network->neighbours().find(kPeer6)->mac(), kPeerMac);
  message.override_known = true;
  receive(claim, neighbour_message(claim, message));
  EXPECT_EQ(net.network->neighbours().find(kPeer6)->mac(), kOtherMac);
}

TEST_F(Ipv6Test, AnnouncesItselfAndItsGroups) {
  net.network->start();
  auto sent = take();
  ASSERT_EQ(sent.size(), 3u);
  // A report of the groups with a router alert (RFC 3810), then an advertisement for each address.
  EXPECT_EQ(sent[0].ip.next_header, ip_protocol::kHopByHop);
  EXPECT_EQ(sent[0].ip.hop_limit, 1);
  EXPECT_EQ(sent[0].ip.source, kOurLocal);
  EXPECT_EQ(sent[0].ip.destination, v6(0xff02, 0, 0x16));
  Bytes report = Bytes(sent[0].payload).subspan(8);
  EXPECT_EQ(icmpv6::checksum(sent[0].ip.source, sent[0].ip.destination, report), 0);
  EXPECT_EQ(report[0], std::byte{icmpv6::kGroupReport});
  EXPECT_EQ(load_be16(&report[6]), 1) << "both addresses end in the same three bytes";
  EXPECT_EQ(IpAddress::from_bytes(Family::ipv6, &report[12]), solicited_node(kOurs6));
  for (size_t i : {1, 2}) {
    auto message = NeighbourMessage::parse(sent[i].payload);
    ASSERT_TRUE(message);
    EXPECT_EQ(message->type, icmpv6::kNeighbourAdvertisement);
    EXPECT_FALSE(message->solicited);
    EXPECT_EQ(sent[i].ip.destination, all_nodes());
  }
  // Who asks is told again.
  const Ipv6Fields query{.source = v6(0xfe80, 0, 1), .destination = all_nodes(), .hop_limit = 1};
  receive(query, icmpv6_message(query, icmpv6::kGroupQuery, 0, 0, ByteVector(20)));
  EXPECT_EQ(take().size(), 1u);
  EXPECT_EQ(net.counters.Icmp6OutMLDv2Reports, 2u);
}

}  // namespace
}  // namespace ustack::test
