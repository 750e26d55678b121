// A Network alone in virtual time: raw frames in, captured frames out, a recording transport above it.
//
//   NetworkHarness net;
//   net.receive_ip({.source = kPeer, .destination = kOurs, .protocol = 1}, icmp_message(8, 0, 1, {}));
//   EXPECT_THAT(net.take(), ElementsAre(Ipv4(DstIs(kPeer), Icmp(IcmpType(0)))));
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stack/net/network.h"
#include "tests/support/captured_frame.h"
#include "tests/support/heap_arena.h"
#include "tests/support/packet_builder.h"
#include "tests/support/seeded_random.h"

namespace ustack::test {

/// The harness' world: documentation addresses (RFC 5737), locally administered MACs.
inline constexpr IpAddress kOurs = IpAddress::v4(192, 0, 2, 2), kOurSecond = IpAddress::v4(198, 51, 100, 2),
                           kPeer = IpAddress::v4(192, 0, 2, 1), kSecondPeer = IpAddress::v4(198, 51, 100, 7),
                           kFar = IpAddress::v4(203, 0, 113, 9), kGateway = IpAddress::v4(192, 0, 2, 254),
                           kSecondGateway = IpAddress::v4(192, 0, 2, 253);
constexpr MacAddress test_mac(uint8_t last) {
  return {{std::byte{2}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{last}}};
}
inline constexpr MacAddress kOurMac = test_mac(2), kPeerMac = test_mac(1), kGatewayMac = test_mac(254),
                            kOtherMac = test_mac(99);

/// A packet as a transport got it, with its bytes copied.
struct DeliveredPacket {
  Packet packet;
  std::string data;
};
struct DeliveredError {
  IcmpError error;
  std::string quoted;
};

/// Keeps what it is given.
class RecordingTransport final : public TransportProtocol {
 public:
  void on_packet(Packet&& packet, Instant now) override;
  void on_icmp_error(const IcmpError& error, Instant now) override;
  std::vector<DeliveredPacket> packets;
  std::vector<DeliveredError> errors;
};

class NetworkHarness {
 public:
  struct Options {
    LinkInfo link{.mac = kOurMac};
    std::vector<Prefix> addresses{{kOurs, 24}, {kOurSecond, 24}};
    std::vector<IpAddress> gateways{kGateway};
    uint64_t seed = 1;
  };
  NetworkHarness() : NetworkHarness(Options()) {}
  explicit NetworkHarness(const Options& options);
  ~NetworkHarness();

  /// A frame from the link, as it is.
  void receive(const ByteVector& frame, const Offload& offload = {});
  /// An IPv4 packet in a frame from kPeerMac to us.
  void receive_ip(const Ipv4Fields& fields, const ByteVector& payload, const Offload& offload = {});
  /// An ARP packet, broadcast if it is a request and to us else.
  void receive_arp(uint16_t operation, const MacAddress& sender_mac, const IpAddress& sender,
                   const IpAddress& target, const MacAddress& target_mac = {});
  /// Tells the cache of a neighbour, by an answer that it has asked for or not.
  void learn(const IpAddress& address, const MacAddress& mac);

  /// Sends `payload` (a whole transport segment, of which at most 20 bytes are header) over a route and gives
  /// the route's answer.
  Status send(const IpAddress& remote, const ByteVector& payload, uint8_t protocol = 17,
              const IpOptionsOut& options = {});
  /// A frame whose header() is `header` and whose payload is `payload` in slices of `slice` bytes.
  TxFrame* frame(const ByteVector& header, const ByteVector& payload = {}, size_t slice = 1 << 16);

  /// Lets time pass, firing timers at their times.
  void advance(Duration duration);
  /// Everything that was sent since the last call.
  std::vector<CapturedFrame> take();
  /// The counters that are not zero, as "Ip.InReceives=1 ..." in the table's order, and sets them to zero.
  /// Those of every frame (Ustack.RxFrames and TxFrames, Ip.InReceives and OutRequests, IpExt.*Octets,
  /// IpExt.InNoECTPkts) are left out unless `all`.
  std::string take_counters(bool all = false);

  HeapArena arena;
  BlockPool blocks{arena};
  FramePool frames{arena};
  Scheduler scheduler{arena, Scheduler::kDefaultStackBytes, 0};
  uint8_t queue = 0;
  Instant now{Duration(1h)};
  TimerWheel timers{now};
  SeededRandom random;
  Counters counters;
  Settings settings;
  Log log;
  FrameQueue transmit;
  RecordingTransport tcp, udp;
  std::unique_ptr<Network> network;
};

}  // namespace ustack::test
