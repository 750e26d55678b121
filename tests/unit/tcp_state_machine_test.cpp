// RFC 9293, 3.10.7.4 as a table: in each synchronized state, each kind of segment, the state after it and the
// answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
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

constexpr State kSynchronized[] = {State::established, State::fin_wait_1, State::fin_wait_2,
                                   State::close_wait,  State::closing,    State::last_ack,
                                   State::time_wait};

/// A column's cell: the state afterwards ("=": as before, "0": CLOSED) and the answer's flags, if any.
struct Row {
  Kind kind;
  const char* cells[std::size(kSynchronized)];
};

/// One cell of the table.
struct Cell {
  State before;
  Kind kind;
  State after;
  std::string answer;
};

State state_of(std::string_view name, State before) {
  if (name == "=") return before;
  if (name == "0") return State::closed;
  if (name == "FW2") return State::fin_wait_2;
  if (name == "CW") return State::close_wait;
  if (name == "SYN-RCVD") return State::syn_received;
  if (name == "ESTAB") return State::established;
  if (name == "CLOSING") return State::closing;
  if (name == "TW") return State::time_wait;
  ADD_FAILURE() << name;
  return before;
}

Cell cell_of(State before, Kind kind, std::string_view text) {
  size_t gap = text.find(' ');
  return {before, kind, state_of(text.substr(0, gap), before),
          gap == std::string_view::npos ? std::string() : std::string(text.substr(gap + 1))};
}

std::ostream& operator<<(std::ostream& out, const Cell& cell) {
  return out << tcp::name_of(cell.before) << " + segment " << static_cast<int>(cell.kind);
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
      case State::time_wait:
        finish();
        peer.send({.seq = rcv++, .ack = ++snd, .flags = "FA"});
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

// RFC 9293, 3.10.7.4 over all synchronized states and all kinds of segments, with RFC 5961's challenge ACKs,
// and data in TIME-WAIT as Linux answers it.
// clang-format off
const Row kTable[] = {
    //                        ESTAB    FIN-WAIT-1   FIN-WAIT-2  CLOSE-WAIT  CLOSING   LAST-ACK  TIME-WAIT
    {Kind::ack,               {"=",    "=",         "=",        "=",        "=",      "=",      "="}},
    {Kind::ack_of_fin,        {"=",    "FW2",       "=",        "=",        "TW A",   "0",      "="}},
    {Kind::data, {"= A", "= A", "= A", "=", "=", "=", "= A"}},
    {Kind::data_out_of_order, {"= A", "= A", "= A", "=", "=", "=", "= A"}},
    {Kind::old_data,          {"= A",  "= A",       "= A",      "= A",      "= A",    "= A",    "= A"}},
    {Kind::beyond_window,     {"= A",  "= A",       "= A",      "= A",      "= A",    "= A",    "= A"}},
    {Kind::fin, {"CW A", "CLOSING A", "TW A", "=", "=", "=", "= A"}},
    {Kind::fin_acking_fin, {"CW A", "TW A", "TW A", "=", "TW A", "0", "= A"}},
    {Kind::rst_exact,         {"0",    "0",         "0",        "0",        "0",      "0",      "0"}},
    {Kind::rst_in_window,     {"= A",  "= A",       "= A",      "= A",      "= A",    "= A",    "="}},
    {Kind::rst_out_of_window, {"=",    "=",         "=",        "=",        "=",      "=",      "="}},
    {Kind::syn,               {"= A",  "= A",       "= A",      "= A",      "= A",    "= A",    "= A"}},
    {Kind::syn_ack,           {"= A",  "= A",       "= A",      "= A",      "= A",    "= A",    "= A"}},
    {Kind::ack_of_unsent,     {"= A",  "= A",       "= A",      "= A",      "= A",    "= A",    "="}},
    {Kind::ancient_ack,       {"= A",  "= A",       "= A",      "= A",      "= A",    "= A",    "="}},
    {Kind::no_flags,          {"=",    "=",         "=",        "=",        "=",      "=",      "="}},
};
// clang-format on

std::vector<Cell> cells() {
  std::vector<Cell> all;
  for (const Row& row : kTable)
    for (size_t i = 0; i < std::size(kSynchronized); ++i)
      all.push_back(cell_of(kSynchronized[i], row.kind, row.cells[i]));
  return all;
}

class TcpStateMachine : public ::testing::TestWithParam<Cell> {};
INSTANTIATE_TEST_SUITE_P(Table, TcpStateMachine, ::testing::ValuesIn(cells()));

TEST_P(TcpStateMachine, SocketOpen) {
  Connection connection(GetParam().before, false);
  connection.send(GetParam().kind);
  EXPECT_EQ(tcp::name_of(connection.now()), tcp::name_of(GetParam().after));
  if (GetParam().answer.empty())
    EXPECT_THAT(connection.peer.take(), IsEmpty());
  else
    EXPECT_THAT(connection.peer.take(), ElementsAre(Tcp(FlagsAre(GetParam().answer))));
}

TEST_P(TcpStateMachine, SocketClosed) {
  Cell row = GetParam();
  // An open socket's states; nothing more to see.
  if (row.before == State::established || row.before == State::close_wait) return;
  // RFC 1122, 4.2.2.13: data that nobody will read resets the connection.
  if ((row.kind == Kind::data || row.kind == Kind::data_out_of_order) &&
      (row.before == State::fin_wait_1 || row.before == State::fin_wait_2)) {
    row.after = State::closed;
    row.answer = "R";
  }
  Connection connection(row.before, true);
  connection.send(row.kind);
  EXPECT_EQ(tcp::name_of(connection.now()), tcp::name_of(row.after));
  if (row.answer.empty())
    EXPECT_THAT(connection.peer.take(), IsEmpty());
  else
    EXPECT_THAT(connection.peer.take(), ElementsAre(Tcp(FlagsAre(row.answer))));
  if (row.after == State::closed || row.after == State::time_wait) {
    EXPECT_EQ(connection.peer.host().tcp().endpoint_count(), 0u) << "an endpoint frees itself";
  }
}

// --- RFC 9293, 3.10.7.1 to 3.10.7.3, and SYN-RECEIVED of 3.10.7.4: before both sides know each other ---

constexpr State kOpening[] = {State::closed, State::listen, State::syn_sent, State::syn_received};

/// `ack`: whether the segment acknowledges our SYN (or, where there is none, anything); wrongly; or nothing.
enum class Acks { nothing, our_syn, something_else };
struct OpeningRow {
  const char* flags;
  Acks acks;
  bool data;
  const char* cells[std::size(kOpening)];
};

// clang-format off
const OpeningRow kOpeningTable[] = {
    //                                     CLOSED  LISTEN         SYN-SENT       SYN-RECEIVED
    {"S",  Acks::nothing,        false, {"= RA", "SYN-RCVD SA", "SYN-RCVD SA", "= SA"}},
    {"SA", Acks::our_syn,        false, {"= R",  "= R",         "ESTAB A",     "= A"}},
    {"SA", Acks::something_else, false, {"= R",  "= R",         "= R",         "= A"}},
    {"A",  Acks::our_syn,        false, {"= R",  "= R",         "=",           "ESTAB"}},
    {"A",  Acks::something_else, false, {"= R",  "= R",         "= R",         "= R"}},
    {"A",  Acks::our_syn,        true,  {"= R",  "= R",         "=",           "ESTAB A"}},
    {"A",  Acks::something_else, true,  {"= R",  "= R",         "= R",         "= R"}},
    {"FA", Acks::our_syn,        false, {"= R",  "= R",         "=",           "CW A"}},
    {"R",  Acks::nothing,        false, {"=",    "=",           "=",           "0"}},
    {"RA", Acks::our_syn,        false, {"=",    "=",           "0",           "0"}},
    {"RA", Acks::something_else, false, {"=",    "=",           "=",           "0"}},
    {"F",  Acks::nothing,        false, {"= RA", "=",           "=",           "="}},
    {"P",  Acks::nothing,        true,  {"= RA", "=",           "=",           "="}},
    {"",   Acks::nothing,        false, {"= RA", "=",           "=",           "="}},
    {"SR", Acks::nothing,        false, {"=",    "=",           "=",           "="}},
};
// clang-format on

class TcpOpening : public ::testing::TestWithParam<std::tuple<size_t, size_t>> {};
INSTANTIATE_TEST_SUITE_P(Table, TcpOpening,
                         ::testing::Combine(::testing::Range(size_t{0}, std::size(kOpeningTable)),
                                            ::testing::Range(size_t{0}, std::size(kOpening))));

TEST_P(TcpOpening, Cell) {
  const OpeningRow& row = kOpeningTable[std::get<0>(GetParam())];
  State before = kOpening[std::get<1>(GetParam())];
  SCOPED_TRACE(std::string(tcp::name_of(before)) + " + " + row.flags);
  TcpPeer peer;
  TestSocket socket;
  peer.port = 4000;
  peer.host_port = 80;
  if (before == State::listen || before == State::syn_received) socket = peer.listen();
  if (before == State::syn_sent) {
    peer.port = 80;
    socket = peer.connect();
  }
  if (before == State::syn_received) {
    peer.send({.seq = 5000, .flags = "S"});
    peer.iss = peer.take()[0].tcp->seq;
  }
  peer.take();
  bool begins = row.flags[0] == 'S';
  uint32_t ack = row.acks == Acks::nothing ? 0 : peer.iss + (row.acks == Acks::our_syn ? 1 : 1000);
  peer.send({.seq = before == State::syn_received && !begins ? 5001u : 5000u,
             .ack = ack,
             .flags = row.flags,
             .payload = row.data ? "x" : ""});

  State after = before == State::listen ? State::listen : State::closed;
  peer.host().tcp().for_each_endpoint([&](tcp::Endpoint& endpoint) {
    if (endpoint.tcp_state() != State::listen) after = endpoint.tcp_state();
  });
  Cell cell = cell_of(before, Kind::ack, row.cells[std::get<1>(GetParam())]);
  EXPECT_EQ(tcp::name_of(after), tcp::name_of(cell.after));
  if (cell.answer.empty())
    EXPECT_THAT(peer.take(), IsEmpty());
  else
    EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre(cell.answer))));
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

// RFC 9293, 3.5.3 (SHLD-2): its text may say why.
TEST(TcpReset, MayCarryData) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  peer.send({.seq = 5001, .flags = "R", .payload = "no such process"});
  EXPECT_THAT(peer.take(), IsEmpty());
  int code = 0;
  EXPECT_EQ(socket.receive(100, &code), "") << "it is not of the stream";
  EXPECT_EQ(code, ECONNRESET);
}

// Linux's tcp_reset_check: where the FIN stood, in the states behind it.
TEST(TcpReset, MayRepeatTheFinsNumber) {
  for (State state : kSynchronized) {
    Connection connection(state, false);
    connection.peer.send({.seq = connection.rcv - 1, .flags = "R"});
    bool behind_fin = state == State::close_wait || state == State::closing || state == State::last_ack;
    EXPECT_EQ(connection.now(), behind_fin ? State::closed : state) << tcp::name_of(state);
    EXPECT_THAT(connection.peer.take(), IsEmpty());
  }
}

// Linux's tcp_validate_incoming: the peer had sent more than has arrived.
TEST(TcpReset, MayFollowWhatIsSacked) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460) + sack_permitted_option());
  peer.send({.seq = 5101, .ack = peer.iss + 1, .payload = std::string(100, 'x')});
  peer.send({.seq = 5301, .ack = peer.iss + 1, .payload = std::string(100, 'x')});
  peer.take();
  peer.send({.seq = 5201, .flags = "R"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A")))) << "not the last block's end: a challenge";
  peer.send({.seq = 5401, .flags = "R"});
  EXPECT_EQ(TcpPeer::state(socket), State::closed);
}

// RFC 9293, 3.5.1, figures 8 and 9, with RFC 5961's challenge: a peer that has lost its memory and connects
// anew.
TEST(TcpHalfOpen, IsDiscoveredByThePeersNewSyn) {
  TcpPeer peer;
  TestSocket listener = peer.listen();
  TestSocket old = peer.accepted(listener);
  peer.send({.seq = 777000, .flags = "S"});
  auto answer = peer.take();
  ASSERT_THAT(answer, ElementsAre(Tcp(FlagsAre("A"), Ack(5001u))));
  EXPECT_EQ(TcpPeer::state(old), State::established) << "the SYN alone may be anybody's";
  peer.send({.seq = answer[0].tcp->ack, .flags = "R"});
  int code = 0;
  old.receive(1, &code);
  EXPECT_EQ(code, ECONNRESET);
  peer.send({.seq = 777000, .flags = "S"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("SA"), Ack(777001u))));
}

// RFC 9293, 3.5.1, figure 10: we have lost ours, the peer sends.
TEST(TcpHalfOpen, IsDiscoveredByThePeersData) {
  TcpPeer peer;
  peer.host_port = 80;
  peer.send({.seq = 5001, .ack = 9000, .flags = "PA", .payload = "x"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("R"), Seq(9000u))));
}

// RFC 5961, 5.2, and what Linux adds to it: nothing from before the first byte.
TEST(TcpAckRange, BeginsALargestWindowBelowWhatIsAcknowledged) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000), 8000);
  uint32_t una = peer.iss + 1, next = 5001;
  auto takes = [&](uint32_t ack) {
    peer.take();
    peer.send({.seq = next, .ack = ack, .flags = "PA", .payload = "x", .window = 500});
    bool taken = socket.receive() == "x";
    if (taken) ++next;
    EXPECT_EQ(peer.counters().TcpExtTCPChallengeACK, taken ? 0u : 1u) << ack - una;
    peer.counters().TcpExtTCPChallengeACK = 0;
    peer.advance(1s);
    return taken;
  };
  EXPECT_TRUE(takes(una));
  EXPECT_FALSE(takes(una - 1)) << "never sent";
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(socket.send(std::string(500, 'd')), 500);
    peer.run();
    peer.send({.seq = next, .ack = una += 500, .window = 500});
  }
  EXPECT_TRUE(takes(una - 8000)) << "the window was so large once";
  EXPECT_FALSE(takes(una - 8001));
  EXPECT_FALSE(takes(una + 1));
}

// RFC 5961, section 7.
TEST(TcpChallenge, IsLimited) {
  TcpPeer::Options options;
  options.settings.tcp_challenge_ack_limit = 3;
  options.settings.tcp_invalid_ratelimit = 0;
  TcpPeer peer(options);
  TestSocket socket = peer.connected();
  for (int i = 0; i < 10; ++i) peer.send({.seq = 5100, .ack = peer.iss + 1, .flags = "R"});
  size_t sent = peer.take().size();
  EXPECT_GE(sent, 2u) << "half of the limit at least";
  EXPECT_LE(sent, 4u);
  EXPECT_EQ(peer.counters().TcpExtTCPChallengeACK, sent);
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
// RFC 9293, 3.10.7.4, seventh: nothing follows a FIN. (Found by endpoint_fuzz.)
TEST(TcpReset, NothingIsReadBehindAFin) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "FPA", .payload = "last"});
  peer.send({.seq = 5006, .ack = peer.iss + 1, .flags = "PA", .payload = "behind"});
  peer.send({.seq = 5010, .ack = peer.iss + 1, .flags = "PA", .payload = "far behind"});
  peer.send({.seq = 5003, .ack = peer.iss + 1, .flags = "PA", .payload = "st and behind"});
  EXPECT_EQ(socket.receive(), "last");
  EXPECT_EQ(TcpPeer::state(socket), State::close_wait);
  peer.advance(1s);
  peer.take();
  // A FIN that comes again is acknowledged again.
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "FPA", .payload = "last"});
  EXPECT_THAT(peer.take(), ElementsAre(Tcp(FlagsAre("A"), Ack(5006u))));
}

// RFC 7323, 3.2 would drop them silently; Linux takes them, since some middle boxes take the option away.
TEST(TcpPaws, SegmentsWithoutTimestampsAreTaken) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460) + timestamps_option(1000, 0));
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "a"});
  EXPECT_EQ(socket.receive(), "a");
  socket.send("b");
  peer.send({.seq = 5002, .ack = peer.iss + 2});
  EXPECT_EQ(*socket->ioctl_value(SIOCOUTQ), 0);
}

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

// RFC 7323, 3.2: where they were not agreed on in the handshake they are to be ignored.
TEST(TcpPaws, WithoutAgreementTimestampsMeanNothing) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460));
  auto ts = [](uint32_t value) { return timestamps_option(value, 77); };
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "a", .options = ts(1010)});
  peer.send({.seq = 5002, .ack = peer.iss + 1, .flags = "PA", .payload = "b", .options = ts(1)});
  EXPECT_EQ(socket.receive(), "ab");
  for (const auto& sent : peer.take()) EXPECT_FALSE(sent.tcp->timestamps);
  EXPECT_EQ(peer.counters().TcpExtPAWSEstab, 0u);
}

// RFC 7323, 5.6: an old timestamp's ACK doesn't count, however good it is.
TEST(TcpPaws, IsCheckedBeforeTheAck) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460) + timestamps_option(1000, 0));
  socket.send("abc");
  peer.run();
  peer.send({.seq = 5001, .ack = peer.iss + 4, .payload = "x", .options = timestamps_option(999, 0)});
  EXPECT_EQ(*socket->ioctl_value(SIOCOUTQ), 3);
  peer.send({.seq = 5001, .ack = peer.iss + 4, .payload = "x", .options = timestamps_option(1000, 0)});
  EXPECT_EQ(*socket->ioctl_value(SIOCOUTQ), 0);
}

// RFC 7323, 3.2: "TSopt MUST be sent in every non-<RST> segment for the duration of the connection", SHOULD
// in a RST. RFC 9293, 3.7.1 (MUST-65), RFC 2018, 2 and RFC 7323, 2.2: MSS, SACK-permitted and window scale in
// SYNs only.
TEST(TcpTimestamps, AreInEverySegmentAndSynOptionsInNone) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1000) + sack_permitted_option() + timestamps_option(1000, 0) +
                                     window_scale_option(7));
  auto ts = [&](uint32_t value) {
    return timestamps_option(value, TcpPeer::endpoint(socket).tcb().timestamp(peer.now()));
  };
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_KEEPALIVE, 1).ok());
  ASSERT_TRUE(socket.set(IPPROTO_TCP, TCP_KEEPIDLE, 10).ok());
  ASSERT_EQ(socket.send(std::string(2500, 'd')), 2500);
  peer.run();
  peer.advance(300ms);  // a probe, or a retransmission
  peer.send({.seq = 5001, .ack = peer.iss + 2501, .options = ts(1001)});
  peer.send({.seq = 5101, .ack = peer.iss + 2501, .payload = "gap", .options = ts(1002)});
  peer.send({.seq = 9999999, .ack = peer.iss + 2501, .payload = "beyond", .options = ts(1003)});
  peer.send({.seq = 5003, .flags = "S"});
  peer.advance(11s);  // keepalive
  peer.send({.seq = 5001, .ack = peer.iss + 2501, .window = 0, .options = ts(1004)});
  ASSERT_EQ(socket.send("d"), 1);
  peer.advance(1s);  // window probes
  peer.send({.seq = 5001, .ack = peer.iss + 2501, .options = ts(1005)});
  linger reset{1, 0};
  ASSERT_TRUE(socket->shutdown(ShutdownHow::write).ok());
  peer.run();
  ASSERT_TRUE(socket->set_option(SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&reset, 1))).ok());
  socket.close();
  peer.run();
  auto sent = peer.take();
  EXPECT_GT(sent.size(), 10u);
  uint8_t flags = 0;
  for (const CapturedFrame& frame : sent) {
    flags |= frame.tcp->flags;
    EXPECT_THAT(frame, Tcp(::testing::Not(NoTimestamps()), MssOption(std::nullopt), SackPermitted(false),
                           WindowScaleOption(std::nullopt)));
  }
  EXPECT_EQ(flags, 0x1d) << "FIN, RST, PSH and ACK were among them";
}

// RFC 7323, 5.5.
TEST(TcpPaws, AfterTwentyFourDaysAnOldTimestampIsTaken) {
  TcpPeer peer;
  TestSocket socket = peer.connected(mss_option(1460) + timestamps_option(1000, 0));
  auto ts = [](uint32_t value) { return timestamps_option(value, 0); };
  peer.advance(23h * 24);
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "a", .options = ts(999)});
  EXPECT_EQ(peer.counters().TcpExtPAWSEstab, 1u);
  peer.advance(2h * 24);
  peer.send({.seq = 5001, .ack = peer.iss + 1, .flags = "PA", .payload = "b", .options = ts(999)});
  EXPECT_EQ(socket.receive(), "b");
  EXPECT_EQ(peer.counters().TcpExtPAWSEstab, 1u);
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
