// Datagrams between two hosts in virtual time, over networks that lose, double, overtake and spoil frames:
// each that is delivered is whole and one that was sent.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>
#include <map>
#include <string>

#include "tests/scenario/pair.h"
#include "tests/support/datagrams.h"

namespace ustack::test {
namespace {

constexpr uint16_t kPort = 5000;

/// Number `n` of `bytes` bytes, which all depend on n.
std::string text_of(uint32_t n, size_t bytes) {
  std::string text(std::max<size_t>(bytes, sizeof n), '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(n * 31 + i * (n % 7 + 1));
  std::memcpy(text.data(), &n, sizeof n);
  return text;
}

struct Case {
  const char* name;
  Impairments network;
  double least = 1, most = 1;  ///< how many of those that were sent arrive
  size_t bytes = 1000;
  LinkInfo link{};
};

class Datagrams : public testing::TestWithParam<Case> {
 protected:
  Datagrams()
      : net_(7),
        a_(net_.add_host({.name = "a", .address = pair_address(1), .link = GetParam().link})),
        b_(net_.add_host({.name = "b", .address = pair_address(2), .link = GetParam().link})) {
    net_.connect(a_, b_, GetParam().network);
    const int domain = a_.address().is_v4() ? AF_INET : AF_INET6;
    from_ = TestSocket(*a_.host().open_socket(domain, SOCK_DGRAM, 0));
    to_ = TestSocket(*b_.host().open_socket(domain, SOCK_DGRAM, 0));
    EXPECT_TRUE(to_->bind({b_.address(), kPort}).ok());
  }

  void send(const std::string& text) {
    ASSERT_TRUE(send_text(*from_->datagrams(), text, {.to = {b_.address(), kPort}}).ok());
  }

  /// Takes all that has come; how often each number has.
  void take() {
    DatagramSocket& socket = *to_->datagrams();
    for (Result<Datagram*> got = socket.take(false); got.ok(); got = socket.take(false)) {
      const Bytes bytes = (*got)->data.bytes();
      uint32_t n = 0;
      ASSERT_GE(bytes.size(), sizeof n);
      std::memcpy(&n, bytes.data(), sizeof n);
      EXPECT_EQ(content_of(**got), text_of(n, GetParam().bytes));
      EXPECT_EQ((*got)->source.address, a_.address());
      ++arrived_[n];
      socket.done(*got);
    }
  }

  Simulator net_;
  TestHost& a_;
  TestHost& b_;
  TestSocket from_, to_;
  std::map<uint32_t, int> arrived_;
};

TEST_P(Datagrams, ArriveWholeOrNotAtAll) {
  constexpr uint32_t kCount = 1000;
  for (uint32_t n = 0; n < kCount; ++n) {
    send(text_of(n, GetParam().bytes));
    net_.run_for(2ms);
    take();
  }
  net_.run_for(2s);
  take();
  const auto count = static_cast<double>(arrived_.size());
  EXPECT_GE(count, GetParam().least * kCount);
  EXPECT_LE(count, GetParam().most * kCount);
  int twice = 0;
  for (const auto& [n, times] : arrived_) {
    EXPECT_LT(n, kCount);
    EXPECT_LE(times, 2);
    twice += times == 2;
  }
  EXPECT_EQ(twice > 0, GetParam().network.duplicate > 0);
}

INSTANTIATE_TEST_SUITE_P(
    Networks, Datagrams,
    testing::Values(Case{"clean", {.delay = 5ms}},                                             //
                    Case{"lossy", {.loss = 0.1, .delay = 5ms}, 0.85, 0.95},                    //
                    Case{"doubling", {.duplicate = 0.1, .delay = 5ms}},                        //
                    Case{"overtaking", {.reorder = 0.2, .delay = 5ms}},                        //
                    Case{"spoiling", {.corrupt = 0.1, .delay = 5ms}, 0.85, 0.97},              //
                    Case{"fragments", {.delay = 5ms}, 1, 1, 9000},                             //
                    Case{"fragments_overtaking", {.reorder = 0.2, .delay = 5ms}, 1, 1, 9000},  //
                    // Of seven fragments each must arrive.
                    Case{"fragments_lossy", {.loss = 0.02, .delay = 5ms}, 0.8, 0.93, 9000},
                    Case{"fragments_spoiling", {.corrupt = 0.02, .delay = 5ms}, 0.8, 0.95, 9000},
                    Case{"by_offload", {.delay = 5ms}, 1, 1, 1000, {.checksum_offload = true}}),
    [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace ustack::test
