#include <gtest/gtest.h>

#include <deque>

#include "stack/tcp/demux.h"
#include "tests/support/heap_arena.h"

namespace ustack::test {
namespace {

using tcp::PortHolder;
using tcp::PortTable;

class PortTableTest : public ::testing::Test {
 protected:
  ~PortTableTest() override {
    arena.never_fail();
    for (PortHolder& holder : holders) ports.release(holder);
  }
  PortHolder& hold(uint16_t port, bool by_connect = false) {
    PortHolder& holder = holders.emplace_back();
    holder.by_connect = by_connect;
    EXPECT_TRUE(ports.claim(holder, address, port).ok());
    return holder;
  }

  const IpAddress address = IpAddress::v4(192, 0, 2, 1);
  HeapArena arena;
  PortTable ports{arena};
  std::deque<PortHolder> holders;
};

TEST_F(PortTableTest, EveryPortCanBeHeldAndGivenUp) {
  for (uint32_t port = 1; port <= 65535; ++port) hold(static_cast<uint16_t>(port));
  for (uint32_t port = 1; port <= 65535; ++port)
    ASSERT_FALSE(ports.free_for_bind(static_cast<uint16_t>(port))) << port;
  EXPECT_TRUE(ports.free_for_bind(0));
  for (PortHolder& holder : holders) ports.release(holder);
  for (uint32_t port = 1; port <= 65535; ++port)
    ASSERT_TRUE(ports.free_for_bind(static_cast<uint16_t>(port))) << port;
}

TEST_F(PortTableTest, OnlyConnectionsThatChoseItShareAPort) {
  hold(4000, true);
  PortHolder& second = hold(4000, true);
  EXPECT_TRUE(ports.free_for_connect(4000));
  EXPECT_FALSE(ports.free_for_bind(4000));
  PortHolder& bound = hold(4000);
  EXPECT_FALSE(ports.free_for_connect(4000));
  ports.release(bound);
  ports.release(second);
  EXPECT_TRUE(ports.free_for_connect(4000));
  EXPECT_FALSE(ports.free_for_bind(4000)) << "the first is still there";
}

TEST_F(PortTableTest, WithoutMemoryNothingIsHeld) {
  for (uint64_t allocations : {0, 1}) {
    PortHolder& holder = holders.emplace_back();
    arena.fail_after(allocations);
    EXPECT_EQ(ports.claim(holder, address, 5000), Error{ENOBUFS}) << allocations;
    arena.never_fail();
    EXPECT_FALSE(holder.bound());
    EXPECT_TRUE(ports.free_for_bind(5000));
  }
  hold(5000);
  EXPECT_FALSE(ports.free_for_bind(5000));
}

TEST_F(PortTableTest, WhoWasKilledHoldsWhatItsListSays) {
  hold(6000);
  hold(6001, true);
  // Killed before it had got into the list, or after it had left it.
  PortHolder& half = hold(6002);
  half.unlink();
  PortHolder& of_two = hold(6003);
  hold(6003, true);
  of_two.unlink();
  ports.mend();
  for (PortHolder& holder : holders) PortTable::mend(holder);
  EXPECT_FALSE(ports.free_for_connect(6000));
  EXPECT_FALSE(ports.free_for_bind(6001));
  EXPECT_TRUE(ports.free_for_connect(6001));
  EXPECT_TRUE(ports.free_for_bind(6002));
  EXPECT_FALSE(half.bound());
  EXPECT_TRUE(ports.free_for_connect(6003)) << "counted anew";
  EXPECT_FALSE(ports.free_for_bind(6003));
  hold(6002);
  EXPECT_FALSE(ports.free_for_bind(6002));
}

}  // namespace
}  // namespace ustack::test
