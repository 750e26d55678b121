// One host with TCP, and opposite it a raw peer that sends any segment and sees every answer, in virtual
// time.
//
//   TcpPeer peer;
//   TestSocket socket = peer.connect();                       // our SYN goes out
//   EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("S"))));
//   peer.send({.seq = 5000, .ack = peer.iss + 1, .flags = "SA"});
//   EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Ack(5001u))));
//   EXPECT_EQ(peer.state(socket), tcp::State::established);
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "stack/host.h"
#include "stack/tcp/endpoint.h"
#include "tests/support/captured_frame.h"
#include "tests/support/heap_arena.h"
#include "tests/support/packet_builder.h"
#include "tests/support/seeded_random.h"
#include "tests/support/simulator.h"

namespace ustack::test {

/// A segment from the peer; ports are peer.port and peer.host_port unless given.
struct PeerSegment {
  uint32_t seq = 0, ack = 0;
  std::string_view flags = "A";
  std::string payload{};
  uint16_t window = 65535;
  uint16_t urgent = 0;
  /// IP's, with ECN in its low two bits.
  uint8_t tos = 0;
  ByteVector options{};
  std::optional<uint16_t> source_port{}, destination_port{};
};

/// A bare IP link that cuts superframes and completes checksums.
constexpr LinkInfo superframe_link() {
  return {.kind = LinkInfo::Kind::ip,
          .mtu = 1500,
          .checksum_offload = true,
          .tcp_segmentation_v4 = true,
          .max_superframe = 65535};
}

/// Options as bytes, to be added up.
ByteVector mss_option(uint16_t mss);
ByteVector window_scale_option(uint8_t shift);
ByteVector sack_permitted_option();
ByteVector timestamps_option(uint32_t value, uint32_t echo);
/// Fast Open (RFC 7413): a cookie; none asks for one.
ByteVector fast_open_option(const ByteVector& cookie = {});
ByteVector sack_option(const std::vector<std::pair<uint32_t, uint32_t>>& blocks);

class TcpPeer final : LogSink {
 public:
  struct Options {
    Settings settings{};
    /// Bare IP by default, so that nothing but TCP is seen.
    LinkInfo link{.kind = LinkInfo::Kind::ip, .mtu = 1500};
    IpAddress gateway{};
    uint64_t seed = 1;
    /// Pools keep what they get back; off, every object is an allocation that can fail.
    bool recycle = true;
  };
  static constexpr IpAddress kHost = IpAddress::v4(192, 0, 2, 2), kPeer = IpAddress::v4(192, 0, 2, 1);

  TcpPeer() : TcpPeer(Options()) {}
  explicit TcpPeer(const Options& options);
  ~TcpPeer();

  Host& host() { return *host_; }
  HeapArena& arena() { return arena_; }
  Instant now() const { return now_; }
  Counters& counters() { return host_->counters(); }
  TestSocket socket();
  TestSocket listen(int backlog = 8, uint16_t at = 80);
  /// A connection under way to kPeer:80; notes its port and, from the SYN that it leaves in take()'s queue,
  /// iss.
  TestSocket connect();
  /// connect() and the rest of the handshake; nothing is left to take(). `options` are those of the peer's
  /// SYN-ACK.
  TestSocket connected(const ByteVector& options = mss_option(1460), uint16_t window = 65535);
  /// The same from the other side: the peer connects to a listener's port 80.
  TestSocket accepted(TestSocket& listener, const ByteVector& options = mss_option(1460),
                      uint16_t window = 65535);

  /// The peer sends it, and the host runs. A frame that there is no memory for is lost, as on a real link.
  void send(const PeerSegment& segment);
  /// Several at once: the host runs only after the last.
  void send_all(const std::vector<PeerSegment>& segments);
  /// Any IP packet.
  void send_packet(const ByteVector& packet);
  /// An ICMP error about a segment of ours with this sequence number.
  void send_icmp(uint8_t type, uint8_t code, uint32_t info, uint32_t quoted_seq);
  /// What a call on a socket has made ready.
  void run();
  /// Lets time pass, firing timers at their times.
  void advance(Duration duration);
  /// Until something is sent, but not longer; whether something was.
  bool advance_until_sent(Duration limit);
  /// All that was sent since the last call.
  std::vector<CapturedFrame> take();
  /// Looks at what take() will give.
  const std::vector<CapturedFrame>& sent() const { return sent_; }

  static tcp::Endpoint& endpoint(const TestSocket& socket) {
    return static_cast<tcp::Endpoint&>(*socket.get());
  }
  static tcp::State state(const TestSocket& socket) { return endpoint(socket).tcp_state(); }

  /// The peer's port and the host's in send().
  uint16_t port = 80, host_port = 0;
  /// Our initial sequence number as its SYN or SYN-ACK told, and the peer's next and what it has
  /// acknowledged.
  uint32_t iss = 0;
  uint32_t peer_iss = 5000;

 private:
  void write(LogLevel level, std::string_view line) override;
  void collect();
  void receive(const ByteVector& packet);
  void deliver(const PeerSegment& segment);
  HeapArena arena_;
  SeededRandom random_;
  Instant now_{Duration(1h)};
  Host* host_ = nullptr;
  std::vector<CapturedFrame> sent_;
};

}  // namespace ustack::test
