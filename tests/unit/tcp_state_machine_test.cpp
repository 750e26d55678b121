// RFC 9293, 3.10.7.4 as a table: in each synchronized state, each kind of segment, the state after it and the
// answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstring>
#include <ostream>

#include "stack/tcp/time_wait.h"
#include "tests/support/packet_matchers.h"
#include "tests/support/tcp_peer.h"

namespace ustack::test {
namespace {

using tcp::State;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// What the peer sends. Numbers are relative: `next` is what we expect next, `una` our first unacknowledged
// number.
enum class Kind {
  ack,         // next, acknowledges nothing new
  ack_of_fin,  // acknowledges our FIN (or all that was sent)
  data,        // a byte in order
  data_out_of_order,
  old_data,  // a byte before the window
  beyond_window,
  fin,
  fin_acking_fin,
  rst_exact,
  rst_in_window,
  rst_out_of_window,
  syn,
  syn_ack,
  ack_of_unsent,
  ancient_ack,
  no_flags,
};

struct Answer {
  std::string flags;  // "" for none
};
const Answer kNothing{""}, kAck{"A"}, kReset{"R"}, kResetAck{"RA"};

struct Row {
  State before;
  Kind kind;
  State after;
  Answer answer;
};

std::ostream& operator<<(std::ostream& out, const Row& row) {
  return out << tcp::name_of(row.before) << " + segment " << static_cast<int>(row.kind);
}

/// A connection in any state, reached by what the program and the peer do.
class Connection {
 public:
  /// FIN-WAIT states and the like can be those of a socket that is still open (shutdown) or closed.
  explicit Connection(State state, bool closed) {
    socket_ = peer.connected();
    rcv = 5001;
    snd = peer.iss + 1;
    auto finish = [&] {
      if (closed)
        socket_.close();
      else
        ASSERT_TRUE(socket_->shutdown(ShutdownHow::write).ok());
      peer.run();
    };
    switch (state) {
      case State::established:
        break;
      case State::fin_wait_1:
        finish();
        break;
      case State::fin_wait_2:
        finish();
        peer.send({.seq = rcv, .ack = ++snd});
        break;
      case State::close_wait:
        peer.send({.seq = rcv++, .ack = snd, .flags = "FA"});
        break;
      case State::closing:
        finish();
        peer.send({.seq = rcv++, .ack = snd, .flags = "FA"});
        break;
      case State::last_ack:
        peer.send({.seq = rcv++, .ack = snd, .flags = "FA"});
        finish();
        break;
      default:
        ADD_FAILURE();
    }
    peer.take();
    EXPECT_EQ(now(), state);
    // Out-of-window segments are answered at most every 500 ms.
    peer.advance(600ms);
    peer.take();
  }

  State now() {
    State state = State::closed;
    peer.host().tcp().for_each_endpoint([&](tcp::Endpoint& endpoint) { state = endpoint.tcp_state(); });
    if (peer.host().tcp().time_wait_count() > 0) state = State::time_wait;
    return state;
  }

  void send(Kind kind) {
    uint32_t all = fin_sent() ? unacknowledged() + 1 : unacknowledged();
    switch (kind) {
      case Kind::ack:
        return peer.send({.seq = rcv, .ack = snd});
      case Kind::ack_of_fin:
        return peer.send({.seq = rcv, .ack = all});
      case Kind::data:
        return peer.send({.seq = rcv, .ack = snd, .flags = "PA", .payload = "x"});
      case Kind::data_out_of_order:
        return peer.send({.seq = rcv + 1, .ack = snd, .flags = "PA", .payload = "x"});
      case Kind::old_data:
        return peer.send({.seq = rcv - 10, .ack = snd, .flags = "PA", .payload = "x"});
      case Kind::beyond_window:
        return peer.send({.seq = rcv + 1000000, .ack = snd, .flags = "PA", .payload = "x"});
      case Kind::fin:
        return peer.send({.seq = rcv, .ack = snd, .flags = "FA"});
      case Kind::fin_acking_fin:
        return peer.send({.seq = rcv, .ack = all, .flags = "FA"});
      case Kind::rst_exact:
        return peer.send({.seq = rcv, .ack = snd, .flags = "RA"});
      case Kind::rst_in_window:
        return peer.send({.seq = rcv + 5, .ack = snd, .flags = "RA"});
      case Kind::rst_out_of_window:
        return peer.send({.seq = rcv - 5, .ack = snd, .flags = "RA"});
      case Kind::syn:
        return peer.send({.seq = rcv + 5, .flags = "S"});
      case Kind::syn_ack:
        return peer.send({.seq = rcv - 1, .ack = snd, .flags = "SA"});
      case Kind::ack_of_unsent:
        return peer.send({.seq = rcv, .ack = all + 100});
      case Kind::ancient_ack:
        return peer.send({.seq = rcv, .ack = snd - 200000});
      case Kind::no_flags:
        return peer.send({.seq = rcv, .flags = ""});
    }
  }

  TcpPeer peer;
  uint32_t rcv = 0, snd = 0;

 private:
  uint32_t unacknowledged() const { return snd; }
  bool fin_sent() {
    State state = now();
    return state == State::fin_wait_1 || state == State::closing || state == State::last_ack;
  }
  TestSocket socket_;
};

class TcpStateMachine : public ::testing::TestWithParam<Row> {};

constexpr State kEst = State::established, kFw1 = State::fin_wait_1, kFw2 = State::fin_wait_2,
                kCw = State::close_wait, kClosing = State::closing, kLast = State::last_ack,
                kTw = State::time_wait, kClosed = State::closed;

INSTANTIATE_TEST_SUITE_P(
    Table, TcpStateMachine,
    ::testing::Values(
        Row{kEst, Kind::ack, kEst, kNothing}, Row{kEst, Kind::data, kEst, kAck},  // quick ACKs at first
        Row{kEst, Kind::data_out_of_order, kEst, kAck}, Row{kEst, Kind::old_data, kEst, kAck},
        Row{kEst, Kind::beyond_window, kEst, kAck}, Row{kEst, Kind::fin, kCw, kAck},
        Row{kEst, Kind::rst_exact, kClosed, kNothing}, Row{kEst, Kind::rst_in_window, kEst, kAck},
        Row{kEst, Kind::rst_out_of_window, kEst, kNothing}, Row{kEst, Kind::syn, kEst, kAck},
        Row{kEst, Kind::syn_ack, kEst, kAck}, Row{kEst, Kind::ack_of_unsent, kEst, kAck},
        Row{kEst, Kind::ancient_ack, kEst, kAck}, Row{kEst, Kind::no_flags, kEst, kNothing},

        Row{kFw1, Kind::ack, kFw1, kNothing}, Row{kFw1, Kind::ack_of_fin, kFw2, kNothing},
        Row{kFw1, Kind::data, kFw1, kAck}, Row{kFw1, Kind::fin, kClosing, kAck},
        Row{kFw1, Kind::fin_acking_fin, kTw, kAck}, Row{kFw1, Kind::rst_exact, kClosed, kNothing},
        Row{kFw1, Kind::rst_in_window, kFw1, kAck}, Row{kFw1, Kind::syn, kFw1, kAck},
        Row{kFw1, Kind::beyond_window, kFw1, kAck}, Row{kFw1, Kind::ack_of_unsent, kFw1, kAck},

        Row{kFw2, Kind::ack, kFw2, kNothing}, Row{kFw2, Kind::data, kFw2, kAck},
        Row{kFw2, Kind::fin, kTw, kAck}, Row{kFw2, Kind::rst_exact, kClosed, kNothing},
        Row{kFw2, Kind::rst_in_window, kFw2, kAck}, Row{kFw2, Kind::syn, kFw2, kAck},
        Row{kFw2, Kind::old_data, kFw2, kAck},

        Row{kCw, Kind::ack, kCw, kNothing}, Row{kCw, Kind::data, kCw, kAck},
        Row{kCw, Kind::old_data, kCw, kAck}, Row{kCw, Kind::fin, kCw, kAck},
        Row{kCw, Kind::rst_exact, kClosed, kNothing}, Row{kCw, Kind::rst_in_window, kCw, kAck},
        Row{kCw, Kind::syn, kCw, kAck},

        Row{kClosing, Kind::ack, kClosing, kNothing}, Row{kClosing, Kind::ack_of_fin, kTw, kAck},
        Row{kClosing, Kind::fin, kClosing, kAck}, Row{kClosing, Kind::rst_exact, kClosed, kNothing},
        Row{kClosing, Kind::syn, kClosing, kAck}, Row{kClosing, Kind::rst_in_window, kClosing, kAck},

        Row{kLast, Kind::ack, kLast, kNothing}, Row{kLast, Kind::ack_of_fin, kClosed, kNothing},
        Row{kLast, Kind::old_data, kLast, kAck}, Row{kLast, Kind::rst_exact, kClosed, kNothing},
        Row{kLast, Kind::rst_in_window, kLast, kAck}, Row{kLast, Kind::syn, kLast, kAck}));

TEST_P(TcpStateMachine, SocketOpen) {
  Connection connection(GetParam().before, false);
  connection.send(GetParam().kind);
  EXPECT_EQ(tcp::name_of(connection.now()), tcp::name_of(GetParam().after));
  if (GetParam().answer.flags.empty())
    EXPECT_THAT(connection.peer.take(), IsEmpty());
  else
    EXPECT_THAT(connection.peer.take(), ElementsAre(Tcp(FlagsAre(GetParam().answer.flags))));
}

TEST_P(TcpStateMachine, SocketClosed) {
  Row row = GetParam();
  // An open socket's states; nothing more to see.
  if (row.before == kEst || row.before == kCw) return;
  // RFC 1122, 4.2.2.13: data that nobody will read resets the connection.
  if (row.kind == Kind::data && (row.before == kFw1 || row.before == kFw2)) {
    row.after = kClosed;
    row.answer = kReset;
  }
  Connection connection(row.before, true);
  connection.send(row.kind);
  EXPECT_EQ(tcp::name_of(connection.now()), tcp::name_of(row.after));
  if (row.answer.flags.empty())
    EXPECT_THAT(connection.peer.take(), IsEmpty());
  else
    EXPECT_THAT(connection.peer.take(), ElementsAre(Tcp(FlagsAre(row.answer.flags))));
  if (row.after == kClosed || row.after == kTw) {
    EXPECT_EQ(connection.peer.host().tcp().endpoint_count(), 0u) << "an endpoint frees itself";
  }
}

// RFC 9293, 3.10.7.1: nobody's segments.
TEST(TcpClosed, AnswersWithAReset) {
  TcpPeer peer;
  peer.host_port = 1234;
  peer.send({.seq = 10, .flags = "S"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("RA"), Seq(0u), Ack(11u), SrcPort(1234), Window(0))));
  peer.send({.seq = 10, .flags = "", .payload = "abc"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("RA"), Seq(0u), Ack(13u))));
  peer.send({.seq = 10, .ack = 99, .flags = "PA", .payload = "abc"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(99u), Ack(0u))));
  peer.send({.seq = 10, .ack = 99, .flags = "R"});
  peer.send({.seq = 10, .ack = 99, .flags = "RA"});
  EXPECT_THAT(peer.take(), IsEmpty());
  EXPECT_EQ(peer.counters().TcpOutRsts, 3u);
}

// What the program hears of it.
TEST(TcpReset, IsToldOnceAndWhatCameBeforeItCanBeRead) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  peer.send_all({{.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "last words"},
                 {.seq = 5011, .ack = peer.iss + 1, .flags = "RA"}});
  EXPECT_EQ(socket->readiness() & (ready::kIn | ready::kErr | ready::kHup | ready::kRdHup),
            ready::kIn | ready::kErr | ready::kHup | ready::kRdHup);
  EXPECT_EQ(socket.receive(10), "last words");
  int code = 0;
  EXPECT_EQ(socket.receive(10, &code), "");
  EXPECT_EQ(code, ECONNRESET);
  EXPECT_EQ(socket.receive(10, &code), "");
  EXPECT_EQ(code, 0) << "told once, then it is the end of the stream";
  EXPECT_EQ(socket.send("x"), -EPIPE);
  EXPECT_EQ(peer.counters().TcpEstabResets, 1u);
}

TEST(TcpReset, AfterTheirFinIsABrokenPipe) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "FA"});
  socket.send("unheard");
  peer.send({.seq = 5002, .ack = peer.iss + 1, .flags = "R"});
  int code = 0;
  EXPECT_EQ(socket.receive(10, &code), "");
  EXPECT_EQ(code, 0) << "the stream had ended before";
  EXPECT_EQ(socket.send("x"), -EPIPE);
}

TEST(TcpReset, ReservationAndViewOutliveIt) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "seen"});
  auto room = socket->reserve_send(100);
  auto view = socket->view_receive(100, 0);
  ASSERT_TRUE(room.ok() && view.ok());
  peer.send({.seq = 5005, .ack = peer.iss + 1, .flags = "R"});
  Socket* raw = socket.get();
  socket.close();  // another thread closes the descriptor
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u);
  std::memset(room->runs[0].data(), 'x', room->runs[0].size());
  EXPECT_EQ(std::memcmp(view->runs[0].data(), "seen", 4), 0);
  raw->commit_send(100, {});
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u);
  raw->consume(4);
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
}

// RFC 5961, section 7.
TEST(TcpChallenge, IsLimited) {
  TcpPeer::Options options;
  options.settings.tcp_challenge_ack_limit = 3;
  TcpPeer peer(options);
  TestSocket socket = peer.connected();
  for (int i = 0; i < 10; ++i) peer.send({.seq = 5100, .ack = peer.iss + 1, .flags = "R"});
  EXPECT_EQ(peer.take().size(), 3u);
  EXPECT_EQ(peer.counters().TcpExtTCPChallengeACK, 3u);
  peer.advance(1s);
  peer.send({.seq = 5100, .ack = peer.iss + 1, .flags = "R"});
  EXPECT_EQ(peer.take().size(), 1u);
  EXPECT_EQ(TcpPeer::state(socket), State::established);
}

TEST(TcpOutOfWindow, IsAnsweredRarely) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  for (int i = 0; i < 10; ++i) peer.send({.seq = 4000, .ack = peer.iss + 1});
  EXPECT_EQ(peer.take().size(), 1u) << "tcp_invalid_ratelimit";
  peer.advance(500ms);
  peer.send({.seq = 4000, .ack = peer.iss + 1});
  EXPECT_EQ(peer.take().size(), 1u);
}

// RFC 7323, section 5.
TEST(TcpPaws, OldTimestampsAreDropped) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460) + timestamps_option(1000, 0));
  auto ts = [](uint32_t value) { return timestamps_option(value, 0); };
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "a", .options = ts(1010)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(TimestampsAre(::testing::_, 1010u), Ack(5002u))));
  peer.send({.seq = 5002, .ack = peer.iss + 1, .flags = "PA", .payload = "b", .options = ts(1009)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(TimestampsAre(::testing::_, 1010u), Ack(5002u))));
  EXPECT_EQ(socket.receive(), "a");
  EXPECT_EQ(peer.counters().TcpExtPAWSEstab, 1u);
  // A RST is taken whatever its timestamp.
  peer.send({.seq = 5002, .ack = peer.iss + 1, .flags = "RA", .options = ts(1)});
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
}

TEST(TcpPaws, TimestampOfDataBeyondAGapIsNotTaken) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460) + timestamps_option(1000, 0));
  // RFC 7323, 4.3: the echo stays that of the last segment in order.
  peer.send({.seq = 5101, .ack = peer.iss + 1, .payload = "late", .options = timestamps_option(2000, 0)});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(TimestampsAre(::testing::_, 1000u), Ack(5001u))));
}

// What was closed by the program.
TEST(TcpClose, UnreadDataResets) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "unread"});
  peer.take();
  socket.close();
  peer.run();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("RA"), Seq(peer.iss + 1), Ack(5007u))));
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
  EXPECT_EQ(peer.counters().TcpExtTCPAbortOnClose, 1u);
}

void set_linger(TestSocket& socket, bool on, int seconds) {
  linger value{on ? 1 : 0, seconds};
  ASSERT_TRUE(socket->set_option(SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&value, 1))).ok());
}

TEST(TcpClose, LingerZeroResets) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  set_linger(socket, true, 0);
  EXPECT_TRUE(socket->lingering_done());
  socket.send("never sent again");
  peer.take();
  socket.close();
  peer.run();
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("RA"))));
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
}

TEST(TcpClose, LingerWaitsForTheLastAck) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  set_linger(socket, true, 5);
  socket.send("x");
  ASSERT_TRUE(socket->shutdown(ShutdownHow::both).ok());
  EXPECT_FALSE(socket->lingering_done());
  peer.send({.seq = 5001, .ack = peer.iss + 2});
  EXPECT_FALSE(socket->lingering_done()) << "the FIN too";
  peer.send({.seq = 5001, .ack = peer.iss + 3});
  EXPECT_TRUE(socket->lingering_done());
}

TEST(TcpClose, DataGoesBeforeTheFin) {
  TcpPeer peer;
  TestSocket socket = peer.connected({}, 1000);
  std::string text(3000, 'd');
  socket.send(text);
  socket.close();
  peer.run();
  EXPECT_FALSE(peer.host().drained()) << "somebody has to wait for it";
  // 536-byte segments, a window of 1000.
  uint32_t seen = 0;
  bool fin = false;
  for (int i = 0; i < 20 && !fin; ++i) {
    for (const CapturedFrame& frame : peer.take()) {
      seen += static_cast<uint32_t>(frame.payload.size());
      fin |= (frame.tcp->flags & 1) != 0;
    }
    peer.send({.seq = 5001, .ack = peer.iss + 1 + seen + (fin ? 1 : 0), .window = 1000});
    if (peer.sent().empty() && !fin) peer.advance(1s);
  }
  EXPECT_EQ(seen, 3000u);
  EXPECT_TRUE(fin);
  peer.send({.seq = 5001, .ack = peer.iss + 3002, .flags = "FA"});
  EXPECT_TRUE(peer.host().drained());
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u);
}

TEST(TcpClose, FinWait2OfAnOrphanEnds) {
  TcpPeer::Options options;
  options.settings.tcp_fin_timeout = 7;
  TcpPeer peer(options);
  TestSocket socket = peer.connected();
  socket.close();
  peer.run();
  peer.send({.seq = 5001, .ack = peer.iss + 2});
  peer.take();
  peer.advance(6900ms);
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 1u);
  peer.advance(200ms);
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
  EXPECT_THAT(peer.take(), IsEmpty());
}

TEST(TcpClose, FinWait2OfAnOpenSocketLasts) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  peer.send({.seq = 5001, .ack = peer.iss + 2});
  peer.advance(300s);
  EXPECT_EQ(TcpPeer::state(socket), State::fin_wait_2);
  // Until it is closed too.
  socket.close();
  peer.advance(61s);
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
}

TEST(TcpClose, Linger2LeavesFinWait2AtOnce) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_LINGER2, -1).ok());
  socket.close();
  peer.run();
  peer.take();
  peer.send({.seq = 5001, .ack = peer.iss + 2});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("RA"))));
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
}

TEST(TcpClose, OrphansRetryLess) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  Instant start = peer.now();
  socket.close();
  peer.run();
  while (peer.host().tcp().endpoint_count() > 0 && peer.advance_until_sent(1000s)) peer.take();
  // tcp_orphan_retries 0 stands for 8: 200 ms doubled 9 times is 102.2 s since the first retransmission, and
  // the first time-out past that ends it.
  EXPECT_NEAR(static_cast<double>((peer.now() - start) / 1ms), 204600, 1000);
  EXPECT_EQ(peer.host().tcp().endpoint_count(), 0u);
}

TEST(TcpClose, HalfCloseStillReads) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("FA"))));
  EXPECT_EQ(socket.send("x"), -EPIPE);
  peer.send({.seq = 5001, .ack = peer.iss + 2, .flags = "PA", .payload = "still"});
  EXPECT_EQ(socket.receive(), "still");
  peer.send({.seq = 5006, .ack = peer.iss + 2, .flags = "FA"});
  int code = -1;
  EXPECT_EQ(socket.receive(10, &code), "");
  EXPECT_EQ(code, 0);
  EXPECT_EQ(peer.host().tcp().time_wait_count(), 1u);
}

TEST(TcpClose, ShutdownForReadingEndsTheStreamForTheReader) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  ASSERT_TRUE(socket->shutdown(ShutdownHow::read).ok());
  EXPECT_THAT(peer.take(), IsEmpty()) << "the peer hears nothing of it";
  int code = -1;
  EXPECT_EQ(socket.receive(10, &code), "");
  EXPECT_EQ(code, 0);
  EXPECT_EQ(socket.send("still writes"), 12);
  EXPECT_EQ(socket->readiness() & (ready::kIn | ready::kRdHup | ready::kHup), ready::kIn | ready::kRdHup);
}

// One readiness word for each state, as tcp_poll has it.
TEST(TcpReadiness, FollowsTheState) {
  constexpr uint32_t kIn = ready::kIn | ready::kRdNorm, kOut = ready::kOut | ready::kWrNorm;
  TcpPeer peer;
  TestSocket fresh = peer.socket();
  EXPECT_EQ(fresh->readiness(), kOut | ready::kHup);
  TestSocket socket = peer.connected();
  EXPECT_EQ(socket->readiness(), kOut);
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "x"});
  EXPECT_EQ(socket->readiness(), kIn | kOut);
  socket.receive();
  EXPECT_EQ(socket->readiness(), kOut);
  peer.send({.seq = 5002, .ack = peer.iss + 1, .flags = "FA"});
  EXPECT_EQ(socket->readiness(), kIn | kOut | ready::kRdHup);
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  EXPECT_EQ(socket->readiness(), kIn | kOut | ready::kRdHup | ready::kHup);
}

}  // namespace
}  // namespace ustack::test
