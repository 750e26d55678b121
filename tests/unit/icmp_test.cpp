#include "stack/net/icmp.h"

#include <gtest/gtest.h>

#include "tests/support/network_harness.h"
#include "tests/support/packet_matchers.h"

namespace ustack::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Ipv4Fields kToUs{.source = kPeer, .destination = kOurs, .protocol = 1};

std::string text(const ByteVector& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// --- wire formats

TEST(IcmpHeader, EmitsWhatItParses) {
  IcmpHeader header{3, 4, 0x12345678};
  std::byte bytes[8];
  header.emit(bytes);
  EXPECT_EQ(IcmpHeader::parse(Bytes(bytes)), header);
  EXPECT_EQ(header.next_hop_mtu(), 0x5678);
  for (size_t n = 0; n < 8; ++n) EXPECT_FALSE(IcmpHeader::parse(Bytes(bytes).first(n)));
}

TEST(IcmpQuote, NeedsAHeaderAndEightBytes) {
  ByteVector quote =
      ipv4_packet({.source = kOurs, .destination = kFar, .options = ByteVector(4)}, bytes_of("12345678"));
  for (size_t n = 0; n < quote.size(); ++n) EXPECT_FALSE(IcmpQuote::parse(Bytes(quote).first(n))) << n;
  auto parsed = IcmpQuote::parse(quote);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->source, kOurs);
  EXPECT_EQ(parsed->destination, kFar);
  EXPECT_EQ(parsed->payload.size(), 8u);
  quote[0] = std::byte{0x66};
  EXPECT_FALSE(IcmpQuote::parse(quote));
  quote[0] = std::byte{0x44};
  EXPECT_FALSE(IcmpQuote::parse(quote));
}

class IcmpTest : public ::testing::Test {
 protected:
  explicit IcmpTest(const NetworkHarness::Options& options = {}) : net(options) {
    net.learn(kPeer, kPeerMac);
    net.learn(kGateway, kGatewayMac);
  }
  NetworkHarness net;
};

// --- echo

TEST_F(IcmpTest, AnswersEchoes) {
  Ipv4Fields fields = kToUs;
  fields.tos = 0x28;
  net.receive_ip(fields, icmp_message(8, 0, 0xabcd0001, bytes_of("are you there?!")));
  EXPECT_THAT(
      net.take(),
      ElementsAre(Ipv4(SrcIs(kOurs), DstIs(kPeer), Ttl(64), Tos(0x28), DontFragment(false),
                       Icmp(IcmpType(0), IcmpCode(0), IcmpInfo(0xabcd0001), Payload("are you there?!")))));
  EXPECT_EQ(net.take_counters(),
            "Ip.InDelivers=1 Icmp.InMsgs=1 Icmp.InEchos=1 Icmp.OutMsgs=1 Icmp.OutEchoReps=1");
  EXPECT_EQ(net.blocks.live(), 0u);
}

TEST_F(IcmpTest, AnswersFromTheAddressThatWasAsked) {
  Ipv4Fields fields = kToUs;
  fields.destination = kOurSecond;
  net.receive_ip(fields, icmp_message(8, 0, 1, {}));
  EXPECT_THAT(net.take(), ElementsAre(Ipv4(SrcIs(kOurSecond), DstIs(kPeer), Icmp(IcmpType(0)))));
}

TEST_F(IcmpTest, AnswersFarHostsThroughTheGateway) {
  Ipv4Fields fields = kToUs;
  fields.source = kFar;
  net.receive_ip(fields, icmp_message(8, 0, 1, {}));
  EXPECT_THAT(net.take(), ElementsAre(Ethernet(EthDst(kGatewayMac), Ipv4(DstIs(kFar), Icmp(IcmpType(0))))));
}

TEST_F(IcmpTest, EchoesOfEverySize) {
  for (size_t n : {0, 1, 2, 1000, 1471, 1472}) {
    ByteVector data = pattern_bytes(n, 5);
    net.receive_ip(kToUs, icmp_message(8, 0, 7, data));
    EXPECT_THAT(net.take(), ElementsAre(Ipv4(Icmp(IcmpType(0), Payload(text(data)))))) << n;
  }
}

TEST_F(IcmpTest, LargeEchoesComeAndGoInFragments) {
  ByteVector data = pattern_bytes(60000);
  ByteVector message = icmp_message(8, 0, 7, data);
  for (size_t at = 0; at < message.size(); at += 1480) {
    Ipv4Fields fields = kToUs;
    size_t end = std::min(message.size(), at + 1480);
    fields.fragment_offset = static_cast<uint32_t>(at);
    fields.more_fragments = end < message.size();
    net.receive_ip(fields, {message.begin() + static_cast<ptrdiff_t>(at),
                            message.begin() + static_cast<ptrdiff_t>(end)});
  }
  std::string joined;
  for (const CapturedFrame& frame : net.take()) joined += frame.payload;
  ByteVector whole = ipv4_packet({.source = kOurs, .destination = kPeer, .protocol = 1}, bytes_of(joined));
  EXPECT_THAT(CapturedFrame::parse(whole, LinkInfo::Kind::ip),
              Ipv4(Icmp(IcmpType(0), IcmpInfo(7), Payload(text(data)))));
}

TEST_F(IcmpTest, EchoesAreNotRateLimited) {
  for (int i = 0; i < 5000; ++i) net.receive_ip(kToUs, icmp_message(8, 0, static_cast<uint32_t>(i), {}));
  EXPECT_EQ(net.take().size(), 5000u);
}

TEST_F(IcmpTest, NeverAnswersBroadcastEchoes) {
  for (const IpAddress& broadcast : {IpAddress::broadcast_v4(), IpAddress::v4(192, 0, 2, 255)}) {
    Ipv4Fields fields = kToUs;
    fields.destination = broadcast;
    net.receive(ethernet_frame(MacAddress::broadcast(), kPeerMac, 0x0800,
                               ipv4_packet(fields, icmp_message(8, 0, 1, {}))));
  }
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.counters.IcmpInEchos, 2u);
}

TEST_F(IcmpTest, EchoesCanBeIgnored) {
  net.settings.icmp_echo_ignore_all = 1;
  net.receive_ip(kToUs, icmp_message(8, 0, 1, {}));
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.take_counters(), "Ip.InDelivers=1 Icmp.InMsgs=1 Icmp.InEchos=1");
}

TEST_F(IcmpTest, WithoutMemoryThereIsNoAnswer) {
  ByteVector frame = ethernet_frame(kOurMac, kPeerMac, 0x0800, ipv4_packet(kToUs, icmp_message(8, 0, 1, {})));
  BlockRef block = net.blocks.allocate(128);
  std::memcpy(block->data(), frame.data(), frame.size());
  net.arena.fail_after(0);
  net.network->receive(RxFrame{Slice{block, 0, static_cast<uint32_t>(frame.size())}, {}, net.now});
  net.arena.never_fail();
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_EQ(net.take_counters(),
            "Ip.InDelivers=1 Icmp.InMsgs=1 Icmp.InEchos=1 Icmp.OutMsgs=1 Icmp.OutErrors=1 Icmp.OutEchoReps=1 "
            "Ustack.TxNoMemory=1");
}

struct IcmpCase {
  const char* name;
  ByteVector message;
  const char* counters;
};
std::ostream& operator<<(std::ostream& out, const IcmpCase& c) { return out << c.name; }
class IcmpSilent : public ::testing::TestWithParam<IcmpCase> {};

TEST_P(IcmpSilent, IsCountedAndNotAnswered) {
  NetworkHarness net;
  net.receive_ip(kToUs, GetParam().message);
  EXPECT_THAT(net.take(), IsEmpty());
  EXPECT_THAT(net.tcp.errors, IsEmpty());
  EXPECT_EQ(net.take_counters(), std::string("Ip.InDelivers=1 Icmp.InMsgs=1 ") + GetParam().counters);
}

ByteVector quoted(const IpAddress& source, const IpAddress& destination, uint32_t offset = 0,
                  uint8_t protocol = 6) {
  return ipv4_packet(
      {.source = source, .destination = destination, .protocol = protocol, .fragment_offset = offset},
      bytes_of("8 bytes."));
}

INSTANTIATE_TEST_SUITE_P(
    Messages, IcmpSilent,
    ::testing::Values(
        IcmpCase{"Empty", {}, "Icmp.InErrors=1"}, IcmpCase{"Short", ByteVector(7), "Icmp.InErrors=1"},
        IcmpCase{"Checksum", icmp_message(8, 0, 1, bytes_of("x"), 1), "Icmp.InErrors=1 Icmp.InCsumErrors=1"},
        IcmpCase{"EchoReply", icmp_message(0, 0, 1, {}), "Icmp.InEchoReps=1"},
        IcmpCase{"Redirect", icmp_message(5, 1, 1, quoted(kOurs, kFar)), "Icmp.InRedirects=1"},
        IcmpCase{"Timestamp", icmp_message(13, 0, 1, ByteVector(12)), "Icmp.InTimestamps=1"},
        IcmpCase{"UnknownType", icmp_message(40, 0, 1, {}), "Icmp.InErrors=1"},
        IcmpCase{"UnreachableWithoutQuote", icmp_message(3, 1, 0, {}),
                 "Icmp.InErrors=1 Icmp.InDestUnreachs=1"},
        IcmpCase{"QuoteTooShort", icmp_message(3, 1, 0, ByteVector(27)),
                 "Icmp.InErrors=1 Icmp.InDestUnreachs=1"},
        IcmpCase{"QuoteNotIpv4", icmp_message(3, 1, 0, ByteVector(28)),
                 "Icmp.InErrors=1 Icmp.InDestUnreachs=1"},
        IcmpCase{"QuoteNotOurs", icmp_message(3, 1, 0, quoted(kFar, kOurs)), "Icmp.InDestUnreachs=1"},
        IcmpCase{"QuoteOfALaterFragment", icmp_message(3, 1, 0, quoted(kOurs, kFar, 8)),
                 "Icmp.InDestUnreachs=1"},
        IcmpCase{"QuoteOfABroadcast", icmp_message(3, 1, 0, quoted(kOurs, IpAddress::broadcast_v4())),
                 "Icmp.InDestUnreachs=1"},
        IcmpCase{"QuoteOfUnknownProtocol", icmp_message(11, 0, 0, quoted(kOurs, kFar, 0, 99)),
                 "Icmp.InTimeExcds=1"},
        IcmpCase{"UnknownCode", icmp_message(3, 16, 0, quoted(kOurs, kFar)), "Icmp.InDestUnreachs=1"}),
    [](const auto& test) { return std::string(test.param.name); });

// --- errors that come in

TEST_F(IcmpTest, ErrorsReachTheTransport) {
  struct {
    uint8_t type, code;
    uint32_t info;
    uint16_t mtu;
    uint64_t Counters::*counter;
  } const kCases[] = {
      {3, 0, 0, 0, &Counters::IcmpInDestUnreachs},       {3, 1, 0, 0, &Counters::IcmpInDestUnreachs},
      {3, 3, 0, 0, &Counters::IcmpInDestUnreachs},       {3, 4, 1400, 1400, &Counters::IcmpInDestUnreachs},
      {3, 4, 0, 0, &Counters::IcmpInDestUnreachs},       {3, 1, 1400, 0, &Counters::IcmpInDestUnreachs},
      {4, 0, 0, 0, &Counters::IcmpInSrcQuenchs},         {11, 0, 0, 0, &Counters::IcmpInTimeExcds},
      {12, 0, 20u << 24, 0, &Counters::IcmpInParmProbs},
  };
  for (const auto& c : kCases) {
    net.tcp.errors.clear();
    net.counters = {};
    Ipv4Fields fields = kToUs;
    fields.source = kGateway;
    net.receive_ip(fields, icmp_message(c.type, c.code, c.info, quoted(kOurs, kFar)));
    ASSERT_EQ(net.tcp.errors.size(), 1u) << int{c.type} << ' ' << int{c.code};
    const DeliveredError& got = net.tcp.errors[0];
    EXPECT_EQ(got.error.type, c.type);
    EXPECT_EQ(got.error.code, c.code);
    EXPECT_EQ(got.error.mtu, c.mtu);
    EXPECT_EQ(got.error.reporter, kGateway);
    EXPECT_EQ(got.error.local, kOurs);
    EXPECT_EQ(got.error.remote, kFar);
    EXPECT_EQ(got.error.protocol, 6);
    EXPECT_EQ(got.quoted, "8 bytes.");
    EXPECT_EQ(net.counters.*c.counter, 1u);
  }
}

TEST_F(IcmpTest, ErrorsAboutTheOtherAddressAndProtocol) {
  net.receive_ip(kToUs, icmp_message(3, 3, 0, quoted(kOurSecond, kPeer, 0, 17)));
  ASSERT_EQ(net.udp.errors.size(), 1u);
  EXPECT_EQ(net.udp.errors[0].error.local, kOurSecond);
  EXPECT_THAT(net.tcp.errors, IsEmpty());
}

TEST_F(IcmpTest, BroadcastErrorsAreIgnored) {
  Ipv4Fields fields = kToUs;
  fields.destination = IpAddress::v4(192, 0, 2, 255);
  net.receive_ip(fields, icmp_message(3, 1, 0, quoted(kOurs, kFar)));
  EXPECT_THAT(net.tcp.errors, IsEmpty());
}

// --- errors that go out

class IcmpErrors : public IcmpTest {
 protected:
  using IcmpTest::IcmpTest;
  /// Receives a packet to UDP, then complains about it.
  void complain(const Ipv4Fields& fields, const ByteVector& payload = bytes_of("12345678")) {
    net.udp.packets.clear();
    Ipv4Fields packet = fields;
    net.receive_ip(packet, payload);
    for (const DeliveredPacket& got : net.udp.packets) net.network->send_icmp_error(got.packet, 3, 3, 0);
  }
  static constexpr Ipv4Fields udp_from(const IpAddress& source) {
    return {.source = source, .destination = kOurs, .protocol = 17, .options = {}};
  }
};

TEST_F(IcmpErrors, QuoteThePacket) {
  Ipv4Fields fields = udp_from(kPeer);
  fields.options = ByteVector(8);
  fields.tos = 0x1f;
  complain(fields);
  auto frames = net.take();
  EXPECT_THAT(frames, ElementsAre(Ipv4(SrcIs(kOurs), DstIs(kPeer), Tos(0xdc), Ttl(64),
                                       Icmp(IcmpType(3), IcmpCode(3), IcmpInfo(0),
                                            Payload(text(ipv4_packet(fields, bytes_of("12345678"))))))));
  EXPECT_EQ(net.take_counters(true),
            "Ip.InReceives=1 Ip.InDelivers=1 Ip.OutRequests=1 Icmp.OutMsgs=1 Icmp.OutDestUnreachs=1 "
            "IpExt.InOctets=36 IpExt.OutOctets=64 IpExt.InCEPkts=1 Ustack.RxFrames=1 Ustack.TxFrames=1");
}

TEST_F(IcmpErrors, QuoteAsMuchAsFits576Bytes) {
  complain(udp_from(kPeer), pattern_bytes(1000));
  EXPECT_THAT(net.take(), ElementsAre(AllOf(Ipv4(TotalLength(576u), Icmp()), PayloadSize(548u))));
  complain(udp_from(kPeer), pattern_bytes(528));
  EXPECT_THAT(net.take(), ElementsAre(PayloadSize(548u)));
  complain(udp_from(kPeer), pattern_bytes(527));
  EXPECT_THAT(net.take(), ElementsAre(PayloadSize(547u)));
}

TEST_F(IcmpErrors, QuoteWhatTheTransportHasTrimmed) {
  net.receive_ip(udp_from(kPeer), bytes_of("0123456789"));
  Packet packet = net.udp.packets.at(0).packet;
  packet.data.trim_front(8);
  net.network->send_icmp_error(packet, 3, 3, 0);
  EXPECT_THAT(net.take(), ElementsAre(Payload(text(ipv4_packet(udp_from(kPeer), bytes_of("0123456789"))))));
}

TEST_F(IcmpErrors, NeedAPacketThatCameIn) {
  net.network->send_icmp_error(Packet{}, 3, 3, 0);
  Packet made;
  made.source = kPeer;
  made.destination = kOurs;
  made.data = Slice{net.blocks.allocate(64), 0, 8};
  net.network->send_icmp_error(made, 3, 3, 0);
  EXPECT_THAT(net.take(), IsEmpty());
}

TEST_F(IcmpErrors, AreNotSentAboutBroadcasts) {
  Ipv4Fields fields = udp_from(kPeer);
  fields.destination = IpAddress::v4(192, 0, 2, 255);
  complain(fields);
  EXPECT_EQ(net.udp.packets.size(), 1u);
  EXPECT_THAT(net.take(), IsEmpty());
}

TEST_F(IcmpErrors, AreNotSentAboutIcmpErrors) {
  auto about = [&](const ByteVector& message) {
    net.receive_ip(udp_from(kPeer), message);
    Packet packet = net.udp.packets.back().packet;
    packet.protocol = 1;  // what was quoted is then taken for ICMP
    net.network->send_icmp_error(packet, 12, 0, 0);
    return net.take().size();
  };
  EXPECT_EQ(about(icmp_message(8, 0, 0, {})), 1u);
  for (uint8_t type : {uint8_t{3}, uint8_t{4}, uint8_t{5}, uint8_t{11}, uint8_t{12}, uint8_t{200}})
    EXPECT_EQ(about(icmp_message(type, 0, 0, {})), 0u) << int{type};
  EXPECT_EQ(about({}), 0u);
}

TEST_F(IcmpErrors, AreNotSentToWhereThereIsNoRoute) {
  NetworkHarness alone({.gateways = {}});
  alone.receive_ip(udp_from(kFar), bytes_of("x"));
  alone.network->send_icmp_error(alone.udp.packets.at(0).packet, 3, 3, 0);
  EXPECT_THAT(alone.take(), IsEmpty());
  EXPECT_EQ(alone.take_counters(), "Ip.InDelivers=1 Ip.OutNoRoutes=1");
}

/// On a link without neighbours, whose ageing would only disturb.
class IcmpLimits : public IcmpErrors {
 protected:
  IcmpLimits() : IcmpErrors({.link = {.kind = LinkInfo::Kind::ip}}) {}
};

TEST_F(IcmpLimits, AreLimitedPerDestination) {
  for (int i = 0; i < 10; ++i) complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 6u);  // the burst
  EXPECT_EQ(net.counters.IcmpOutRateLimitHost, 4u);
  net.advance(999ms);
  complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 0u);
  net.advance(1ms);
  complain(udp_from(kPeer));
  complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 1u);
  // Another destination is not affected.
  complain(udp_from(kGateway));
  EXPECT_EQ(net.take().size(), 1u);
  net.advance(60s);
  for (int i = 0; i < 10; ++i) complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 6u);
}

TEST_F(IcmpLimits, TheDestinationLimitFollowsItsSetting) {
  net.settings.icmp_ratelimit = 100;
  for (int i = 0; i < 10; ++i) complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 6u);
  net.advance(200ms);
  for (int i = 0; i < 10; ++i) complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 2u);
  net.settings.icmp_ratelimit = 0;
  for (int i = 0; i < 10; ++i) complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 10u);
}

TEST_F(IcmpLimits, AreLimitedTogether) {
  net.settings.icmp_ratelimit = 0;
  for (int i = 0; i < 100; ++i) complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 50u);  // icmp_msgs_burst
  EXPECT_EQ(net.counters.IcmpOutRateLimitGlobal, 50u);
  net.advance(10ms);
  for (int i = 0; i < 100; ++i) complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 10u);  // 1000 a second
  net.settings.icmp_msgs_per_sec = 0;
  net.advance(10s);
  complain(udp_from(kPeer));
  EXPECT_EQ(net.take().size(), 0u);
}

TEST_F(IcmpLimits, ManyDestinationsNeedBoundedMemory) {
  net.settings.icmp_msgs_per_sec = 1 << 30;
  net.settings.icmp_msgs_burst = 1 << 30;
  size_t sent = 0, in_use = 0;
  for (uint32_t i = 0; i < 2000; ++i) {
    net.advance(1us);
    complain(udp_from(IpAddress::v4(0xcb007100 + i)));  // through the gateway
    sent += net.take().size();
    net.udp.packets.clear();
    if (i == 1000) in_use = net.arena.in_use();
  }
  EXPECT_EQ(sent, 2000u);
  EXPECT_EQ(net.arena.in_use(), in_use);
}

}  // namespace
}  // namespace ustack::test
