// The path's MTU where nobody tells it (RFC 4821, tcp_mtu_probing).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <map>

#include "stack/tcp/mtu_probing.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::MtuProber;

TEST(MtuProber, SearchesByHalves) {
  Settings settings;
  settings.tcp_mtu_probing = 2;
  MtuProber prober;
  prober.start(settings, 1500, 40);
  Instant now{1h};
  EXPECT_EQ(prober.limit(), 1064u) << "tcp_base_mss";
  for (uint32_t path = 1300; uint32_t mtu = prober.next_probe(settings, 1500, now);) {
    prober.on_sent(mtu, SeqNum(1), SeqNum(2));
    EXPECT_EQ(prober.next_probe(settings, 1500, now), 0u) << "one at a time";
    mtu <= path ? prober.on_success() : prober.on_failure();
  }
  EXPECT_LE(prober.limit(), 1300u);
  EXPECT_GT(prober.limit(), 1300u - 8) << "tcp_probe_threshold";
  // tcp_probe_interval later it looks again.
  EXPECT_EQ(prober.next_probe(settings, 1500, now + 599s), 0u);
  EXPECT_GT(prober.next_probe(settings, 1500, now + 600s), 1300u);
}

TEST(MtuProber, BlackHole) {
  Settings settings;
  MtuProber prober;
  prober.start(settings, 1500, 40);
  EXPECT_FALSE(prober.on_black_hole(settings)) << "off";
  EXPECT_EQ(prober.limit(), MtuProber::kNoLimit);
  settings.tcp_mtu_probing = 1;
  prober.start(settings, 1500, 40);
  EXPECT_EQ(prober.limit(), MtuProber::kNoLimit) << "until a black hole is met";
  uint32_t expected[] = {1024, 512, 256, 128, 64, 48};
  for (uint32_t mss : expected) {
    EXPECT_TRUE(prober.on_black_hole(settings));
    EXPECT_EQ(prober.limit(), mss + 40);
  }
  EXPECT_FALSE(prober.on_black_hole(settings)) << "tcp_mtu_probe_floor";
}

/// A peer behind a path that lets through packets of at most `mtu` bytes and says nothing of others.
class Path {
 public:
  Path(TcpPeer& peer, uint32_t mtu) : peer_(peer), mtu_(mtu), next_(peer.iss + 1) {}
  /// Takes what was sent and acknowledges it; the largest packet that came through.
  uint32_t exchange() {
    uint32_t largest = 0;
    for (const CapturedFrame& frame : peer_.take()) {
      auto size = static_cast<uint32_t>(frame.bytes.size());
      if (!frame.tcp || frame.payload.empty() || size > mtu_) continue;
      largest = std::max(largest, size);
      auto length = static_cast<uint32_t>(frame.payload.size());
      held_[frame.tcp->seq] = std::max(held_[frame.tcp->seq], length);
      while (!held_.empty() && held_.begin()->first <= next_) {
        next_ = std::max(next_, held_.begin()->first + held_.begin()->second);
        held_.erase(held_.begin());
      }
      ByteVector options;
      if (!held_.empty()) options = sack_option({{frame.tcp->seq, frame.tcp->seq + length}});
      peer_.send({.seq = peer_.peer_iss + 1, .ack = next_, .options = options});
    }
    return largest;
  }

 private:
  TcpPeer& peer_;
  uint32_t mtu_;
  uint32_t next_;
  std::map<uint32_t, uint32_t> held_;
};

/// Sends for a while; the largest packet that has come through.
uint32_t largest_through(TcpPeer& peer, TestSocket& socket, uint32_t path_mtu, int rounds) {
  Path path(peer, path_mtu);
  uint32_t largest = 0;
  std::string data(100000, 'x');
  for (int i = 0; i < rounds; ++i) {
    socket.send(data);
    peer.run();
    largest = std::max(largest, path.exchange());
    peer.advance(20ms);
  }
  return largest;
}

TcpPeer::Options probing(int32_t mode) {
  TcpPeer::Options options;
  options.settings.tcp_mtu_probing = mode;
  return options;
}

const ByteVector kOptions = mss_option(1460) + sack_permitted_option();

TEST(TcpMtuProbing, FindsTheWholePath) {
  TcpPeer peer(probing(2));
  TestSocket socket = peer.connected(kOptions);
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.mss(), 1024u);
  EXPECT_GT(largest_through(peer, socket, 1500, 300), 1500u - 9);
  EXPECT_GT(TcpPeer::endpoint(socket).tcb().snd.mss(), 1460u - 9);
  EXPECT_GT(peer.counters().TcpExtTCPMTUPSuccess, 3u);
  EXPECT_EQ(peer.counters().TcpExtTCPMTUPFail, 0u);
}

// RFC 4821, 7.4: not while something is known to be lost, nor without enough to send behind it.
TEST(TcpMtuProbing, WaitsForDataAndForTheEndOfLosses) {
  TcpPeer peer(probing(2));
  TestSocket socket = peer.connected(kOptions);
  uint32_t next = peer.iss + 1;
  auto largest = [&] {
    size_t bytes = 0;
    for (const CapturedFrame& frame : peer.take()) {
      bytes = std::max(bytes, frame.payload.size());
      next = std::max(next, frame.tcp->seq + static_cast<uint32_t>(frame.payload.size()));
    }
    return bytes;
  };
  for (int i = 0; i < 20; ++i) {
    socket.send(std::string(1500, 'x'));
    peer.run();
    EXPECT_LE(largest(), 1024u) << "too little";
    peer.send({.seq = peer.peer_iss + 1, .ack = next});
  }
  largest();
  uint32_t una = next;
  socket.send(std::string(4096, 'x'));
  peer.run();
  largest();
  // The first is lost.
  peer.send({.seq = peer.peer_iss + 1, .ack = una, .options = sack_option({{una + 1024, una + 2048}})});
  socket.send(std::string(60000, 'x'));
  peer.run();
  EXPECT_LE(largest(), 1024u);
  size_t later = 0;
  for (int i = 0; i < 40 && later <= 1024; ++i) {
    peer.send({.seq = peer.peer_iss + 1, .ack = next});
    socket.send(std::string(30000, 'x'));
    peer.advance(10ms);
    later = std::max(later, largest());
  }
  EXPECT_GT(later, 1024u) << "now it probes";
}

TEST(TcpMtuProbing, FindsWhatASilentPathTakes) {
  TcpPeer peer(probing(2));
  TestSocket socket = peer.connected(kOptions);
  uint32_t largest = largest_through(peer, socket, 1300, 300);
  EXPECT_LE(largest, 1300u);
  EXPECT_GT(largest, 1300u - 9);
  EXPECT_GT(peer.counters().TcpExtTCPMTUPFail, 0u);
}

// tcp_mtu_probing 1: segments that never arrive, no ICMP: smaller ones get through.
TEST(TcpMtuProbing, LeavesABlackHole) {
  TcpPeer peer(probing(1));
  TestSocket socket = peer.connected(kOptions);
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.mss(), 1460u);
  EXPECT_EQ(largest_through(peer, socket, 1100, 20), 0u);
  Path path(peer, 1100);
  uint32_t largest = 0;
  for (int i = 0; i < 60 && largest == 0; ++i) {
    peer.advance(500ms);
    largest = path.exchange();
  }
  EXPECT_EQ(largest, 1064u) << "tcp_base_mss";
}

TEST(TcpMtuProbing, OffMeansNoSmallerSegments) {
  TcpPeer peer(probing(0));
  TestSocket socket = peer.connected(kOptions);
  socket.send(std::string(20000, 'x'));
  peer.advance(60s);
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().snd.mss(), 1460u);
}

}  // namespace
}  // namespace ustack::test
