// The receiving half against a raw peer: ACKs, reassembly and SACK, windows, urgent data, reading.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::State;
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr uint32_t kFirst = 5001;

class TcpReceiver : public ::testing::Test {
 protected:
  void connect(const ByteVector& more = {}) { socket = peer->connected(mss_option(1460) + more); }
  void restart(const TcpPeer::Options& options) {
    socket.close();
    peer = std::make_unique<TcpPeer>(options);
  }
  ~TcpReceiver() override { socket.close(); }
  /// Bytes [offset, offset + length) of a stream whose every byte tells its place.
  static std::string stream(uint32_t offset, uint32_t length) {
    std::string text;
    for (uint32_t i = offset; i < offset + length; ++i) text += static_cast<char>('a' + i % 23);
    return text;
  }
  void data(uint32_t offset, uint32_t length, std::string_view flags = "A") {
    peer->send(
        {.seq = kFirst + offset, .ack = peer->iss + 1, .flags = flags, .payload = stream(offset, length)});
  }
  /// The peer sends until the window is closed; how many bytes.
  uint32_t fill_window() {
    uint32_t offset = 0;
    while (rcv().rcv_wnd() > 0) {
      uint32_t n = std::min(rcv().rcv_wnd(), 1460u);
      data(offset, n);
      offset += n;
    }
    return offset;
  }
  /// Uses up the ACKs that a fresh connection sends at once.
  void end_quick_acks() {
    ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_QUICKACK, 0).ok());
    peer->take();
  }
  const tcp::Receiver& rcv() { return TcpPeer::endpoint(socket).tcb().rcv; }
  std::unique_ptr<TcpPeer> peer = std::make_unique<TcpPeer>();
  TestSocket socket;
};

TEST_F(TcpReceiver, FirstSegmentsAreAcknowledgedAtOnce) {
  connect();
  for (uint32_t i = 0; i < 5; ++i) {
    data(i * 100, 100);
    EXPECT_THAT(peer->take(), ElementsAre(Tcp(FlagsAre("A"), Ack(kFirst + (i + 1) * 100))));
  }
}

TEST_F(TcpReceiver, LaterAckIsDelayed) {
  connect();
  end_quick_acks();
  data(0, 100);
  EXPECT_THAT(peer->take(), IsEmpty());
  Instant arrived = peer->now();
  ASSERT_TRUE(peer->advance_until_sent(1s));
  EXPECT_EQ((peer->now() - arrived) / 1ms, 40);
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(FlagsAre("A"), Ack(kFirst + 100))));
  EXPECT_EQ(peer->counters().TcpExtDelayedACKs, 1u);
}

TEST_F(TcpReceiver, EverySecondFullSegmentIsAcknowledged) {
  connect();
  end_quick_acks();
  data(0, 1460);
  EXPECT_THAT(peer->take(), IsEmpty());
  data(1460, 1460);
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(Ack(kFirst + 2920))));
  data(2920, 1460);
  EXPECT_THAT(peer->take(), IsEmpty());
}

TEST_F(TcpReceiver, AnswerCarriesTheAck) {
  connect();
  end_quick_acks();
  data(0, 100, "PA");
  socket.send("answer");
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(FlagsAre("PA"), Ack(kFirst + 100), Payload("answer"))));
  peer->advance(1s);
  for (const CapturedFrame& frame : peer->take()) EXPECT_GT(frame.payload.size(), 0u) << "no ACK of its own";
}

TEST_F(TcpReceiver, QuickAckSetsOwedAckFree) {
  connect();
  end_quick_acks();
  data(0, 10);
  EXPECT_THAT(peer->take(), IsEmpty());
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_QUICKACK, 1).ok());
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(Ack(kFirst + 10))));
  EXPECT_EQ(socket.get_int(IPPROTO_TCP, TCP_QUICKACK), 1);
}

// RFC 5681, 4.2 and RFC 2018.
TEST_F(TcpReceiver, OutOfOrderDataIsHeldAndSacked) {
  connect(sack_permitted_option());
  end_quick_acks();
  data(100, 100);
  EXPECT_THAT(peer->take(),
              ElementsAre(Tcp(Ack(kFirst), SackBlocks(ElementsAre(Pair(kFirst + 100, kFirst + 200))))));
  data(300, 100);
  EXPECT_THAT(peer->take(),
              ElementsAre(Tcp(Ack(kFirst), SackBlocks(ElementsAre(Pair(kFirst + 300, kFirst + 400),
                                                                  Pair(kFirst + 100, kFirst + 200))))));
  EXPECT_FALSE(socket.readable());
  data(0, 100);
  EXPECT_THAT(peer->take(),
              ElementsAre(Tcp(Ack(kFirst + 200), SackBlocks(ElementsAre(Pair(kFirst + 300, kFirst + 400))))));
  EXPECT_EQ(socket.receive(), stream(0, 200));
  data(200, 100);
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(Ack(kFirst + 400), SackBlocks(IsEmpty()))));
  EXPECT_EQ(socket.receive(), stream(200, 200));
  EXPECT_EQ(peer->counters().TcpExtTCPOFOQueue, 2u);
}

// Linux's SACK compression: the fourth duplicate ACK and those after it wait for each other.
class CompressedAcks : public TcpReceiver {
 protected:
  void open(Duration rtt = 20ms, const ByteVector& more = sack_permitted_option()) {
    socket = peer->connect();
    peer->take();
    peer->advance(rtt);
    peer->send({.seq = kFirst - 1, .ack = peer->iss + 1, .flags = "SA", .options = mss_option(1460) + more});
    peer->take();
    end_quick_acks();
  }
  /// Segments of 100 bytes, each behind the one before, with a hole in front; and how many ACKs they got.
  size_t duplicates(uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) data(next_ += 100, 100);
    return peer->take().size();
  }
  uint32_t next_ = 0;
};

TEST_F(CompressedAcks, OneStandsForMany) {
  open();
  EXPECT_EQ(duplicates(3), 3u) << "the peer's recovery must not wait";
  EXPECT_EQ(duplicates(20), 0u);
  peer->advance(900us);
  EXPECT_THAT(peer->take(), IsEmpty());
  peer->advance(200us);
  EXPECT_THAT(peer->take(),
              ElementsAre(Tcp(Ack(kFirst), SackBlocks(ElementsAre(Pair(kFirst + 100, kFirst + 2400))))));
  EXPECT_EQ(peer->counters().TcpExtTCPAckCompressed, 20u);
  EXPECT_EQ(peer->counters().TcpExtDelayedACKs, 0u);
}

TEST_F(CompressedAcks, TheWaitIsATwentiethOfTheRoundTrip) {
  open(4ms);
  EXPECT_EQ(duplicates(4), 3u);
  peer->advance(150us);
  EXPECT_THAT(peer->take(), IsEmpty());
  peer->advance(100us);
  EXPECT_EQ(peer->take().size(), 1u);
}

TEST_F(CompressedAcks, FillingTheHoleDoesNotWait) {
  open();
  EXPECT_EQ(duplicates(10), 3u);
  data(0, 100);
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(Ack(kFirst + 1100), SackBlocks(IsEmpty()))));
  peer->advance(10ms);
  EXPECT_THAT(peer->take(), IsEmpty());
}

TEST_F(CompressedAcks, TheyHaveALimit) {
  open();
  EXPECT_EQ(duplicates(3 + 44), 3u);
  EXPECT_EQ(duplicates(1), 1u);
}

TEST_F(CompressedAcks, WhatNoLaterAckCouldTellGoesAtOnce) {
  open();
  EXPECT_EQ(duplicates(5), 3u);
  // New ranges, more than fit into one ACK.
  for (uint32_t i = 0; i < 2; ++i) data(2000 + i * 200, 100);
  EXPECT_THAT(peer->take(), IsEmpty());
  data(2400, 100);
  EXPECT_EQ(peer->take().size(), 1u);
  // A duplicate, for D-SACK.
  EXPECT_EQ(duplicates(1), 0u);
  data(2400, 100);
  EXPECT_THAT(peer->take(),
              ElementsAre(Tcp(SackBlocks(ElementsAre(Pair(kFirst + 2400, kFirst + 2500), _, _, _)))));
}

TEST_F(CompressedAcks, NotWithoutSackOrWhenSwitchedOff) {
  open(20ms, {});
  EXPECT_EQ(duplicates(10), 10u);
  Settings settings;
  settings.tcp_comp_sack_nr = 0;
  restart({.settings = settings});
  next_ = 0;
  open();
  EXPECT_EQ(duplicates(10), 10u);
}

TEST_F(TcpReceiver, WithoutSackThereAreOnlyDuplicateAcks) {
  connect();
  data(100, 100);
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(Ack(kFirst), SackBlocks(IsEmpty()))));
}

TEST_F(TcpReceiver, ThreeBlocksFitBesideTimestamps) {
  connect(sack_permitted_option() + timestamps_option(1, 0));
  for (uint32_t i = 1; i <= 5; ++i)
    peer->send({.seq = kFirst + i * 200,
                .ack = peer->iss + 1,
                .payload = stream(0, 100),
                .options = timestamps_option(2, 0)});
  auto acks = peer->take();
  EXPECT_THAT(acks.back(),
              Tcp(SackBlocks(ElementsAre(Pair(kFirst + 1000, kFirst + 1100), Pair(kFirst + 800, kFirst + 900),
                                         Pair(kFirst + 600, kFirst + 700)))));
}

// RFC 2883.
TEST_F(TcpReceiver, DuplicatesAreReported) {
  connect(sack_permitted_option());
  data(0, 200);
  peer->take();
  data(0, 200);
  EXPECT_THAT(peer->take(),
              ElementsAre(Tcp(Ack(kFirst + 200), SackBlocks(ElementsAre(Pair(kFirst, kFirst + 200))))));
  data(100, 200);
  EXPECT_THAT(peer->take(),
              ElementsAre(Tcp(Ack(kFirst + 300), SackBlocks(ElementsAre(Pair(kFirst + 100, kFirst + 200))))));
  EXPECT_EQ(socket.receive(), stream(0, 300));
}

TEST_F(TcpReceiver, OverlapsAreTrimmed) {
  connect();
  data(50, 100);
  data(0, 80);
  data(120, 100);
  EXPECT_EQ(socket.receive(), stream(0, 220));
}

TEST_F(TcpReceiver, FinOutOfOrderWaitsForItsTurn) {
  connect();
  data(100, 100, "FA");
  EXPECT_EQ(TcpPeer::state(socket), State::established);
  data(0, 100);
  EXPECT_EQ(TcpPeer::state(socket), State::close_wait);
  EXPECT_THAT(peer->take().back(), Tcp(Ack(kFirst + 201)));
  EXPECT_EQ(socket.receive(), stream(0, 200));
}

TEST_F(TcpReceiver, WindowClosesAsDataPilesUpAndItsEdgeStays) {
  connect();
  uint32_t offset = 0, edge = 0;
  for (int i = 0; i < 1000; ++i) {
    data(offset, 1460);
    offset += 1460;
    for (const CapturedFrame& frame : peer->take()) {
      uint32_t new_edge = frame.tcp->ack + frame.tcp->window;
      EXPECT_GE(static_cast<int32_t>(new_edge - edge), 0) << "it never moves left";
      edge = new_edge;
    }
    if (rcv().rcv_wnd() == 0) break;
  }
  EXPECT_EQ(rcv().rcv_wnd(), 0u);
  EXPECT_GE(rcv().buffer.size(), 60000u) << "what was promised was taken";
  EXPECT_EQ(peer->counters().TcpExtTCPToZeroWindowAdv, 1u);
  EXPECT_EQ(peer->counters().TcpExtTCPRcvQDrop, 0u);
  // What comes now has no room: it is refused, with an ACK.
  uint32_t held = rcv().buffer.size();
  peer->send({.seq = edge, .ack = peer->iss + 1, .payload = "x"});
  EXPECT_THAT(peer->take(), ElementsAre(Tcp(Ack(edge), Window(0))));
  EXPECT_EQ(rcv().buffer.size(), held);
  // Reading opens it, in a step worth telling.
  EXPECT_EQ(socket.receive(500).size(), 500u);
  EXPECT_THAT(peer->take(), IsEmpty()) << "RFC 9293, 3.8.6.2.2: no silly window";
  EXPECT_EQ(socket.receive(40000).size(), 40000u);
  auto updates = peer->take();
  ASSERT_FALSE(updates.empty());
  EXPECT_GE(updates.back().tcp->window, 1460);
  EXPECT_EQ(peer->counters().TcpExtTCPFromZeroWindowAdv, 1u);
}

TEST_F(TcpReceiver, FinIsTakenWhereTheWindowIsClosed) {
  connect();
  uint32_t offset = fill_window();
  data(offset, 0, "FA");
  EXPECT_EQ(TcpPeer::state(socket), State::close_wait);
  EXPECT_EQ(socket.receive(), stream(0, offset));
}

// RFC 9293, 3.10.7.4 (MUST-66).
TEST_F(TcpReceiver, UrgAndRstCountWhereTheWindowIsClosed) {
  connect();
  uint32_t offset = fill_window();
  EXPECT_EQ(socket->receive_urgent(false).code(), EINVAL);
  peer->send({.seq = kFirst + offset, .ack = peer->iss + 1, .flags = "AU", .urgent = 1});
  EXPECT_EQ(socket->receive_urgent(false).code(), EAGAIN) << "it is announced";
  peer->send({.seq = kFirst + offset, .flags = "R"});
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
}

TEST_F(TcpReceiver, DataBeyondTheWindowIsCutOff) {
  connect();
  uint32_t window = rcv().rcv_wnd();
  // Half in, half out.
  peer->send({.seq = kFirst + window - 50, .ack = peer->iss + 1, .payload = stream(window - 50, 100)});
  data(0, 1460);
  EXPECT_EQ(socket.receive(), stream(0, 1460));
  EXPECT_EQ(TcpPeer::endpoint(socket).tcb().rcv.reassembly().size(), 50u);
}

TEST_F(TcpReceiver, BufferGrowsWithWhatIsRead) {
  connect();
  uint32_t before = rcv().limit;
  uint32_t offset = 0;
  for (int round = 0; round < 30; ++round) {
    uint32_t window = std::min(rcv().rcv_wnd(), 60000u);
    for (uint32_t sent = 0; sent + 1460 <= window; sent += 1460, offset += 1460) data(offset, 1460);
    peer->take();
    socket.receive();
    peer->advance(10ms);
  }
  EXPECT_GT(rcv().limit, before);
}

TEST_F(TcpReceiver, BufferThatWasSetDoesNotGrow) {
  connect();
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_RCVBUF, 50000).ok());
  uint32_t offset = 0;
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 10; ++i, offset += 1460) data(offset, 1460);
    socket.receive();
    peer->advance(10ms);
  }
  EXPECT_EQ(rcv().limit, 100000u);
}

TEST_F(TcpReceiver, PeekLeavesItThere) {
  connect();
  data(0, 100);
  data(100, 100);
  auto view = socket->view_receive(1000, 0);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->bytes, 200u);
  socket->consume(0);
  view = socket->view_receive(10, 150);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->bytes, 10u);
  EXPECT_EQ(std::memcmp(view->runs[0].data(), stream(150, 10).data(), 10), 0);
  socket->consume(0);
  EXPECT_EQ(socket.receive(), stream(0, 200));
}

TEST_F(TcpReceiver, ViewIsExclusive) {
  connect();
  data(0, 100);
  auto view = socket->view_receive(10, 0);
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(socket->view_receive(10, 0).code(), EAGAIN);
  uint32_t woken = 0;
  WaitEntry entry(
      [](WaitEntry& e, uint32_t events) {
        *static_cast<uint32_t*>(e.context()) |= events;
        return true;
      },
      &woken);
  entry.interest = ready::kIn;
  socket->waiters.add(entry);
  socket->consume(10);
  EXPECT_NE(woken & ready::kIn, 0u);
}

TEST_F(TcpReceiver, LowWaterDecidesWhatIsReadable) {
  connect();
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_RCVLOWAT, 150).ok());
  uint32_t woken = 0;
  WaitEntry entry(
      [](WaitEntry& e, uint32_t events) {
        *static_cast<uint32_t*>(e.context()) |= events;
        return true;
      },
      &woken);
  entry.interest = ready::kIn;
  socket->waiters.add(entry);
  data(0, 100);
  EXPECT_FALSE(socket.readable());
  EXPECT_EQ(woken, 0u);
  data(100, 50);
  EXPECT_TRUE(socket.readable());
  EXPECT_NE(woken, 0u);
}

TEST_F(TcpReceiver, AtMostAHundredSegmentsATurn) {
  connect();
  TestSocket other = peer->socket();
  std::vector<PeerSegment> many;
  for (uint32_t i = 0; i < 250; ++i)
    many.push_back({.seq = kFirst + i, .ack = peer->iss + 1, .payload = stream(i, 1)});
  uint64_t before = peer->counters().UstackFiberRuns;
  peer->send_all(many);
  EXPECT_EQ(peer->counters().UstackFiberRuns - before, 3u);
  EXPECT_EQ(socket.receive(), stream(0, 250));
}

// RFC 9293, 3.10.7 (MUST-58, MUST-59): one ACK for what was waiting together, unless ACKs may get lost.
TEST_F(TcpReceiver, WhatWaitsTogetherIsAcknowledgedTogether) {
  connect();
  end_quick_acks();
  uint32_t next = 0;
  auto twenty = [&] {
    std::vector<PeerSegment> many;
    for (int i = 0; i < 20; ++i, next += 1460)
      many.push_back({.seq = kFirst + next, .ack = peer->iss + 1, .payload = stream(next, 1460)});
    peer->send_all(many);
    size_t acks = peer->take().size();
    EXPECT_EQ(socket.receive(100000).size(), 20u * 1460);
    peer->take();
    return acks;
  };
  EXPECT_EQ(twenty(), 1u);
  data(next + 1460, 1460);
  data(next, 1460);
  next += 2920;
  EXPECT_EQ(socket.receive().size(), 2920u);
  peer->take();
  EXPECT_EQ(twenty(), 10u) << "every second one";
  peer->advance(1s);
  EXPECT_EQ(twenty(), 1u);
}

TEST_F(TcpReceiver, QueueOfSegmentsIsBounded) {
  TcpPeer::Options options;
  restart(options);
  connect();
  std::vector<PeerSegment> flood(4000, {.seq = kFirst, .ack = peer->iss + 1});
  peer->send_all(flood);
  EXPECT_GT(peer->counters().TcpExtTCPBacklogDrop, 0u);
  data(0, 10);
  EXPECT_EQ(socket.receive(), stream(0, 10));
}

// RFC 6093; tcp(7), "SIOCATMARK".
TEST_F(TcpReceiver, UrgentByteIsOutOfBand) {
  connect();
  peer->send({.seq = kFirst, .ack = peer->iss + 1, .flags = "PAU", .payload = "abcX", .urgent = 4});
  peer->send({.seq = kFirst + 4, .ack = peer->iss + 1, .flags = "PA", .payload = "def"});
  EXPECT_NE(socket->readiness() & ready::kPri, 0u);
  EXPECT_EQ(*socket->ioctl_value(FIONREAD), 3) << "up to the mark";
  EXPECT_EQ(*socket->ioctl_value(SIOCATMARK), 0);
  EXPECT_EQ(*socket->receive_urgent(true), std::byte{'X'});
  EXPECT_EQ(socket.receive(3), "abc") << "a read stops at the mark";
  EXPECT_EQ(*socket->ioctl_value(SIOCATMARK), 1);
  EXPECT_EQ(*socket->receive_urgent(false), std::byte{'X'});
  EXPECT_EQ(socket->receive_urgent(false).code(), EINVAL) << "taken";
  EXPECT_EQ(socket.receive(), "def") << "the byte is not in the stream";
  EXPECT_EQ(*socket->ioctl_value(SIOCATMARK), 0);
  EXPECT_EQ(socket->readiness() & ready::kPri, 0u);
}

TEST_F(TcpReceiver, UrgentByteInline) {
  connect();
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_OOBINLINE, 1).ok());
  peer->send({.seq = kFirst, .ack = peer->iss + 1, .flags = "PAU", .payload = "abcXdef", .urgent = 4});
  EXPECT_EQ(socket->receive_urgent(false).code(), EINVAL);
  EXPECT_EQ(socket.receive(), "abcXdef");
}

// RFC 9293, 3.8.5 (MUST-31, MUST-32): of any length, and the program learns that there is more.
TEST_F(TcpReceiver, UrgentDataMayBeLongAndGoOn) {
  connect();
  std::string text(3000, 'u');
  peer->send(
      {.seq = kFirst, .ack = peer->iss + 1, .flags = "PAU", .payload = text.substr(0, 1460), .urgent = 3000});
  EXPECT_EQ(socket->receive_urgent(false).code(), EAGAIN) << "known before its last byte is here";
  EXPECT_EQ(*socket->ioctl_value(SIOCATMARK), 0);
  peer->send({.seq = kFirst + 1460,
              .ack = peer->iss + 1,
              .flags = "PAU",
              .payload = text.substr(1460),
              .urgent = 1540});
  EXPECT_EQ(*socket->receive_urgent(false), std::byte{'u'});
  EXPECT_EQ(socket.receive().size(), 2999u) << "up to the mark";
  EXPECT_EQ(socket->readiness() & ready::kPri, 0u);
  peer->send({.seq = kFirst + 3000, .ack = peer->iss + 1, .flags = "PAU", .payload = "moreX", .urgent = 5});
  EXPECT_NE(socket->readiness() & ready::kPri, 0u);
  EXPECT_EQ(*socket->receive_urgent(false), std::byte{'X'});
  EXPECT_EQ(socket.receive(), "more");
}

TEST_F(TcpReceiver, UrgentPointerMayComeBeforeItsByte) {
  connect();
  EXPECT_EQ(socket->receive_urgent(false).code(), EINVAL);
  peer->send({.seq = kFirst, .ack = peer->iss + 1, .flags = "AU", .payload = "ab", .urgent = 5});
  EXPECT_EQ(socket->receive_urgent(false).code(), EAGAIN);
  peer->send({.seq = kFirst + 2, .ack = peer->iss + 1, .flags = "AU", .payload = "cdX", .urgent = 3});
  EXPECT_EQ(*socket->receive_urgent(false), std::byte{'X'});
  EXPECT_EQ(socket.receive(), "abcd");
}

}  // namespace
}  // namespace ustack::test
