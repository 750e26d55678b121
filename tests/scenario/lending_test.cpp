// MSG_ZEROCOPY: streams whose bytes stay in the program's memory until they are acknowledged, with the memory
// reused the moment the report says that it may be.
#include <gtest/gtest.h>
#include <linux/errqueue.h>

#include <array>
#include <string>

#include "tests/scenario/pair.h"
#include "tests/support/lender.h"

namespace ustack::test {
namespace {

const LinkInfo kOffloads{.checksum_offload = true, .tcp_segmentation_v4 = true, .tcp_segmentation_v6 = true};

/// An application that lends its buffers in turn, and scribbles over each as soon as it has it back.
class LendingSender {
 public:
  LendingSender(TestHost& host, Socket& socket, uint64_t total) : socket_(socket), total_(total) {
    host.on_turn([this] { pump(); });
  }
  uint64_t sent() const { return sent_; }
  bool all_back() const { return returned_ == sends_; }
  bool done() const { return sent_ == total_ && all_back(); }
  int error() const { return error_; }
  uint32_t copied() const { return copied_; }

 private:
  static constexpr size_t kBytes = 40000;

  void take_back() {
    while (std::optional<Report> report = socket_.take_report()) {
      const sock_extended_err& what = report->what;
      ASSERT_EQ(what.ee_origin, SO_EE_ORIGIN_ZEROCOPY);
      ASSERT_EQ(what.ee_info, returned_) << "in order";
      for (; returned_ <= what.ee_data; ++returned_)
        buffers_[returned_ % buffers_.size()].assign(kBytes, '#');
      if (what.ee_code == SO_EE_CODE_ZEROCOPY_COPIED) ++copied_;
    }
  }
  void pump() {
    take_back();
    while (error_ == 0 && sent_ < total_ && sends_ - returned_ < buffers_.size()) {
      std::string& buffer = buffers_[sends_ % buffers_.size()];
      buffer.resize(std::min<uint64_t>(kBytes, total_ - sent_));
      pattern_.fill(sent_, std::as_writable_bytes(std::span(buffer)));
      Result<size_t> n = socket_.lend_send(bytes_of(buffer), {}, TestLender::kProgram);
      if (n.code() == EAGAIN) return;
      if (!n.ok()) {
        error_ = n.code();
        return;
      }
      socket_.sent_message(std::nullopt, Copying::lent);
      sent_ += *n;
      ++sends_;
    }
  }

  Socket& socket_;
  Pattern pattern_{9};
  uint64_t total_, sent_ = 0;
  uint32_t sends_ = 0, returned_ = 0, copied_ = 0;
  int error_ = 0;
  std::array<std::string, 64> buffers_;
};

struct Lending : ::testing::Test {
  void begin(const Impairments& path = {}, LinkInfo link = kOffloads) {
    pair.emplace(PairOptions{.seed = 3, .forward = path, .backward = path, .client_link = link});
    pair->client.host().blocks().set_loan_reader(lender);
    ASSERT_TRUE(pair->establish(80, 30s));
    ASSERT_TRUE(pair->near.set(SOL_SOCKET, SO_ZEROCOPY, 1).ok());
    ASSERT_TRUE(pair->near.set(SOL_SOCKET, SO_SNDBUFFORCE, 2 << 20).ok());
    receiver.emplace(pair->server, *pair->far.get(), Pattern(9));
  }
  void send(uint64_t bytes) { sender.emplace(pair->client, *pair->near.get(), bytes); }
  /// More than `lent` of `bytes` is lent to a peer that doesn't read yet.
  void lend_to_idle_peer(uint64_t bytes, uint64_t lent, const Impairments& path) {
    begin(path);
    receiver->paused = true;
    send(bytes);
    ASSERT_TRUE(pair->net.run_until([&] { return sender->sent() > lent; }, 60s));
  }
  void close_sender() {
    pair->client.clear_applications();
    pair->near.close();
  }
  bool stream_ends() {
    return pair->net.run_until([&] { return receiver->error() != 0 || receiver->at_end(); }, 60s);
  }
  bool all_arrives_and_comes_back() {
    return pair->net.run_until([&] { return sender->done() && receiver->received() == sender->sent(); },
                               300s);
  }

  TestLender lender;
  std::optional<Pair> pair;
  std::optional<LendingSender> sender;
  std::optional<PatternReceiver> receiver;
};

TEST_F(Lending, WholeUnderLossAndReordering) {
  begin({.loss = 0.02, .duplicate = 0.01, .reorder = 0.02, .reorder_by = 2ms, .delay = 1ms});
  send(20 << 20);
  ASSERT_TRUE(all_arrives_and_comes_back());
  EXPECT_TRUE(receiver->intact());
  EXPECT_EQ(sender->error(), 0);
  EXPECT_EQ(sender->copied(), 0u);
  EXPECT_EQ(lender.fetched, 0u) << "no copy of ours";
  EXPECT_GT(pair->client.counters().TcpRetransSegs, 0u);
}

TEST_F(Lending, AnotherProcessGoesOn) {
  begin({.loss = 0.02, .delay = 1ms});
  send(8 << 20);
  ASSERT_TRUE(pair->net.run_until([&] { return sender->sent() > (2 << 20); }, 60s));
  lender.keeper = true;
  ASSERT_TRUE(all_arrives_and_comes_back());
  EXPECT_TRUE(receiver->intact());
  EXPECT_GT(lender.fetched, 0u);
  EXPECT_GT(sender->copied(), 0u);
}

TEST_F(Lending, WhatTheOtherProcessCantReadYetWaits) {
  ASSERT_NO_FATAL_FAILURE(lend_to_idle_peer(8 << 20, 2 << 20, {.delay = 1ms}));
  lender.keeper = true;
  lender.other = Settlement::later;
  receiver->paused = false;
  pair->net.run_for(20s);
  const uint64_t received = receiver->received();
  EXPECT_LT(received, sender->sent());
  EXPECT_EQ(receiver->error(), 0);
  lender.other = Settlement::done;
  ASSERT_TRUE(all_arrives_and_comes_back());
  EXPECT_TRUE(receiver->intact());
}

TEST_F(Lending, TheDeadLendersConnectionIsReset) {
  ASSERT_NO_FATAL_FAILURE(lend_to_idle_peer(8 << 20, 2 << 20, {.delay = 1ms}));
  lender.keeper = true;
  lender.other = Settlement::gone;
  close_sender();
  receiver->paused = false;
  ASSERT_TRUE(stream_ends());
  EXPECT_EQ(receiver->error(), ECONNRESET) << "never an end that looks orderly";
  EXPECT_TRUE(receiver->intact());
}

TEST_F(Lending, WhatThePeerHasAlreadyIsNotMissed) {
  begin({.delay = 20ms});
  send(10000);
  pair->net.run_for(1ms);
  ASSERT_EQ(sender->sent(), 10000u);
  lender.keeper = true;
  lender.other = Settlement::gone;
  close_sender();
  ASSERT_TRUE(stream_ends());
  EXPECT_EQ(receiver->error(), 0);
  EXPECT_EQ(receiver->received(), 10000u);
}

TEST_F(Lending, AClosedSocketNeedsTheMemoryNoMore) {
  ASSERT_NO_FATAL_FAILURE(lend_to_idle_peer(1 << 20, 200000, {.loss = 0.02, .delay = 1ms}));
  const uint64_t sent = sender->sent();
  close_sender();
  sender.reset();  // the buffers are gone
  receiver->paused = false;
  ASSERT_TRUE(stream_ends());
  EXPECT_EQ(receiver->received(), sent);
  EXPECT_TRUE(receiver->intact());
}

TEST_F(Lending, AResetGivesAllBack) {
  ASSERT_NO_FATAL_FAILURE(lend_to_idle_peer(8 << 20, 1 << 20, {.delay = 1ms}));
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ASSERT_TRUE(pair->far->set_option(SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&at_once, 1))).ok());
  pair->server.clear_applications();
  pair->far.close();
  ASSERT_TRUE(pair->net.run_until([&] { return sender->error() != 0; }, 60s));
  EXPECT_EQ(sender->error(), ECONNRESET);
  pair->net.run_for(1s);
  EXPECT_TRUE(sender->all_back());
}

TEST_F(Lending, RefusedWhereTheBytesMustBeRead) {
  begin({}, LinkInfo{});
  const std::string text(20000, 'x');
  EXPECT_EQ(pair->near->lend_send(bytes_of(text), {}, TestLender::kProgram).code(), EOPNOTSUPP)
      << "the link leaves checksums to us";
  begin();
  ASSERT_TRUE(pair->near.set(SOL_SOCKET, SO_ZEROCOPY, 0).ok());
  EXPECT_EQ(pair->near->lend_send(bytes_of(text), {}, TestLender::kProgram).code(), EOPNOTSUPP)
      << "nobody has asked for it";
}

}  // namespace
}  // namespace ustack::test
