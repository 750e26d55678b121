// A soak in virtual time: many connections, one after the other and side by side, over a network that loses,
// reorders, duplicates, corrupts and at times is not there. Every byte is accounted for, and afterwards
// nothing is left.
//
// The short one is part of the tests. USTACK_SOAK_CONNECTIONS (open at once) and USTACK_SOAK_SECONDS (of
// virtual time) make it longer, as tests/scenario/soak does; USTACK_SOAK_SEED another one.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <list>
#include <random>

#include "stack/base/sanitizers.h"
#include "stack/tcp/flight.h"
#include "stack/tcp/protocol.h"
#include "tests/scenario/pair.h"

namespace ustack::test {
namespace {

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// One end of a connection: sends a pattern in eight portions, with up to `think` before each, reads another,
/// closes when both are through.
class Talker {
 public:
  Talker(TestSocket socket, uint64_t sends, uint64_t receives, Duration think)
      : socket_(std::move(socket)),
        out_(sends),
        in_(receives),
        sends_(sends),
        receives_(receives),
        think_(think),
        dice_(static_cast<unsigned>(sends)) {}

  void step(Instant now) {
    connected_ = connected_ || socket_->remote_address().ok();
    if (!connected_) return;
    if (allowed_ == sent_ && now >= next_) {
      allowed_ = think_ == Duration(0) ? sends_ : std::min(sends_, allowed_ + sends_ / 8 + 1);
      next_ = now + think_ / 1000 * static_cast<int64_t>(dice_() % 1000);
    }
    while (sent_ < allowed_ && error_ == 0) {
      auto room = socket_->reserve_send(std::min<uint64_t>(allowed_ - sent_, 64 * 1024));
      if (!room.ok()) {
        if (room.code() != EAGAIN) error_ = room.code();
        break;
      }
      uint64_t at = sent_;
      for (uint32_t i = 0; i < room->count; ++i) {
        out_.fill(at, room->runs[i]);
        at += room->runs[i].size();
      }
      socket_->commit_send(at - sent_, {});
      sent_ = at;
    }
    if (sent_ == sends_ && !shut_) shut_ = socket_->shutdown(ShutdownHow::write).ok();
    while (!ended_ && error_ == 0) {
      auto view = socket_->view_receive(1 << 20, 0);
      if (!view.ok()) {
        if (view.code() != EAGAIN) error_ = view.code();
        break;
      }
      if (view->bytes == 0) ended_ = true;
      for (uint32_t i = 0; i < view->count; ++i) {
        intact_ = intact_ && in_.matches(received_, view->runs[i]);
        received_ += view->runs[i].size();
      }
      socket_->consume(view->bytes);
    }
  }
  bool done() const { return error_ != 0 || (ended_ && shut_); }
  /// All that it should have, and nothing else.
  bool right() const { return error_ == 0 && intact_ && received_ == receives_ && sent_ == sends_; }
  uint64_t received() const { return received_; }
  int error() const { return error_; }

 private:
  TestSocket socket_;
  Pattern out_, in_;
  uint64_t sends_, receives_;
  Duration think_;
  std::minstd_rand dice_;
  Instant next_{};
  uint64_t allowed_ = 0, sent_ = 0, received_ = 0;
  bool connected_ = false, shut_ = false, ended_ = false, intact_ = true;
  int error_ = 0;
};

/// The server knows from the client's port what to say.
struct Plan {
  uint64_t up = 0, down = 0;
};
Plan plan_of(uint16_t port) {
  std::mt19937 dice(port);
  auto size = [&]() -> uint64_t {
    auto kind = dice() % 10;
    if (kind < 5) return dice() % 2000;
    if (kind < 9) return dice() % 60000;
    return dice() % 400000;
  };
  Plan plan;
  plan.up = size();
  plan.down = size();
  return plan;
}

struct Conversation {
  uint16_t port = 0;
  std::unique_ptr<Talker> near, far;
  Instant begun{}, moved{};
  uint64_t moved_bytes = 0;
};

class Soak {
 public:
  Soak(uint64_t seed, size_t wanted, Duration think)
      : pair_({.seed = seed, .forward = kBad, .backward = kBad, .client_settings = reusing_ports()}),
        dice_(seed),
        wanted_(wanted),
        think_(think) {
    pair_.listener = pair_.server.listen(80, 1024);
  }

  void run(Duration time) {
    Instant end = pair_.net.now() + time;
    next_blackout_ = pair_.net.now() + 5s;
    while (pair_.net.now() < end || !open_.empty()) {
      if (pair_.net.now() < end)
        while (open_.size() < wanted_ && begin()) {
        }
      weather();
      pair_.net.run_for(10ms);
      step();
      ASSERT_LT(pair_.net.now(), end + 600s) << open_.size() << " conversations don't end";
      if (testing::Test::HasFailure()) return;
    }
  }

  /// Everybody has closed: beyond TIME-WAIT nothing is left of it.
  void expect_nothing_left() {
    pair_.listener.close();
    pair_.net.run_for(200s);
    for (TestHost* host : {&pair_.client, &pair_.server}) {
      tcp::Protocol& tcp = host->host().tcp();
      EXPECT_EQ(tcp.endpoint_count(), 0u);
      EXPECT_EQ(tcp.time_wait_count(), 0u);
      EXPECT_EQ(tcp.sent_segments().live(), 0u);
      EXPECT_EQ(tcp.segments().live(), 0u);
      EXPECT_EQ(tcp.pieces().live(), 0u);
      EXPECT_TRUE(tcp.drained());
      EXPECT_EQ(tcp.connections().size(), 0u);
      EXPECT_EQ(tcp.context().scheduler.stacks_in_use(), 0u);
      EXPECT_EQ(host->host().blocks().live(), 0u);
      EXPECT_EQ(host->host().frames().live(), 0u);
      EXPECT_EQ(host->counters().TcpCurrEstab, 0u);
    }
  }

  uint64_t finished() const { return finished_; }
  uint64_t bytes() const { return bytes_; }
  Duration longest_pause() const { return longest_pause_; }
  Pair& pair() { return pair_; }

 private:
  static constexpr Impairments kBad{.loss = 0.02,
                                    .duplicate = 0.01,
                                    .corrupt = 0.005,
                                    .reorder = 0.03,
                                    .reorder_by = 4ms,
                                    .delay = 10ms,
                                    .jitter = 3ms};

  /// A thousand conversations at once use up all ports within a minute, which is as long as TIME-WAIT.
  static Settings reusing_ports() {
    Settings settings;
    settings.tcp_tw_reuse = 1;
    settings.ip_local_port_range = {1024, 65535};
    return settings;
  }

  /// False: there is no port for one more just now.
  bool begin() {
    TestSocket socket = pair_.client.connect(pair_.server, 80);
    if (!socket) return false;
    uint16_t port = (*socket->local_address()).port;
    Plan plan = plan_of(port);
    open_.emplace_back();
    open_.back().port = port;
    open_.back().near = std::make_unique<Talker>(std::move(socket), plan.up, plan.down, think_);
    open_.back().begun = open_.back().moved = pair_.net.now();
    by_port_[port] = &open_.back();
    return true;
  }

  /// Now and then nothing gets through, one way or both, for up to two seconds.
  void weather() {
    Instant now = pair_.net.now();
    if (now < next_blackout_) return;
    Duration length = std::chrono::milliseconds(100 + dice_() % 1900);
    auto which = 1 + dice_() % 3;
    for (uint64_t way : {1u, 2u}) {
      Emulator& wire = way == 1 ? *pair_.cable.forward : *pair_.cable.backward;
      if ((which & way) != 0) wire.add_rule([](WireFrame&) { return Verdict::drop; });
      pair_.net.events().at(now + length, [&wire] { wire.clear_rules(); });
    }
    next_blackout_ = now + length + std::chrono::milliseconds(5000 + dice_() % 20000);
  }

  void step() {
    while (TestSocket accepted = pair_.listener.accept()) {
      auto remote = accepted->remote_address();
      if (!remote.ok()) continue;  // it has ended in the queue
      auto known = by_port_.find(remote->port);
      ASSERT_NE(known, by_port_.end());
      Plan plan = plan_of(remote->port);
      known->second->far = std::make_unique<Talker>(std::move(accepted), plan.down, plan.up, think_);
    }
    Instant now = pair_.net.now();
    for (auto it = open_.begin(); it != open_.end();) {
      Conversation& talk = *it;
      talk.near->step(now);
      if (talk.far) talk.far->step(now);
      uint64_t moved = talk.near->received() + (talk.far ? talk.far->received() : 0);
      if (moved != talk.moved_bytes || !talk.far) {
        talk.moved_bytes = moved;
        talk.moved = now;
      }
      longest_pause_ = std::max(longest_pause_, now - talk.moved);
      EXPECT_EQ(talk.near->error(), 0);
      EXPECT_TRUE(!talk.far || talk.far->error() == 0);
      if (!talk.near->done() || !talk.far || !talk.far->done()) {
        ++it;
        continue;
      }
      EXPECT_TRUE(talk.near->right());
      EXPECT_TRUE(talk.far->right());
      bytes_ += moved;
      ++finished_;
      by_port_.erase(talk.port);
      it = open_.erase(it);
    }
  }

  Pair pair_;
  std::mt19937 dice_;
  size_t wanted_;
  Duration think_;
  std::list<Conversation> open_;
  std::map<uint16_t, Conversation*> by_port_;
  Instant next_blackout_{};
  Duration longest_pause_{};
  uint64_t finished_ = 0, bytes_ = 0;
};

TEST(Soak, EveryByteIsAccountedForAndNothingIsLeft) {
  bool slow = kAddressSanitizer || kThreadSanitizer;
  const Duration think = std::chrono::milliseconds(from_environment("USTACK_SOAK_THINK", 0));
  Soak soak(from_environment("USTACK_SOAK_SEED", 1),
            from_environment("USTACK_SOAK_CONNECTIONS", slow ? 8 : 20), think);
  soak.run(std::chrono::seconds(from_environment("USTACK_SOAK_SECONDS", slow ? 8 : 30)));
  EXPECT_GT(soak.finished(), 20u);
  // Two seconds of nothing, and the time-out that falls into it doubled.
  EXPECT_LT(soak.longest_pause(), 15s + 2 * think);
  soak.expect_nothing_left();
  const Counters& sent = soak.pair().client.counters();
  std::printf(
      "    %lu connections, %.1f MB, longest pause %.1f s; client: %lu retransmissions, %lu time-outs, "
      "%lu probes, %lu spurious\n",
      soak.finished(), static_cast<double>(soak.bytes()) / 1e6,
      std::chrono::duration<double>(soak.longest_pause()).count(), sent.TcpRetransSegs,
      sent.TcpExtTCPTimeouts, sent.TcpExtTCPLossProbes,
      sent.TcpExtTCPSpuriousRTOs + sent.TcpExtTCPDSACKUndo + sent.TcpExtTCPFullUndo +
          sent.TcpExtTCPPartialUndo + sent.TcpExtTCPLossUndo);
}

}  // namespace
}  // namespace ustack::test
