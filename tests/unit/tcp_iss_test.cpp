#include "stack/tcp/iss.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/seeded_random.h"

namespace ustack::tcp {
namespace {

const ConnectionId kId{{IpAddress::v4(192, 0, 2, 2), 40000}, {IpAddress::v4(192, 0, 2, 1), 80}};

TEST(TcpIss, AdvancesByOneEachFourMicroseconds) {
  test::SeededRandom random(1);
  IssGenerator generator(random);
  Instant now{Duration(1'234'567'000'000)};
  SeqNum first = generator.iss(kId, now);
  EXPECT_EQ(generator.iss(kId, now), first);
  EXPECT_EQ(generator.iss(kId, now + 4us), first + 1);
  EXPECT_EQ(generator.iss(kId, now + 1s), first + 250000);
  // RFC 6528, 3: the space is gone through in some 4.77 hours, past the maximum segment lifetime.
  EXPECT_EQ(generator.iss(kId, now + 4us * (int64_t{1} << 32)), first);
}

TEST(TcpIss, DependsOnAllOfTheTupleAndOnTheSecret) {
  test::SeededRandom random(1);
  IssGenerator generator(random), another(random);
  std::set<uint32_t> seen{generator.iss(kId, {}).value(), another.iss(kId, {}).value()};
  ConnectionId id = kId;
  id.local.port = 40001;
  seen.insert(generator.iss(id, {}).value());
  id = kId;
  id.remote.port = 81;
  seen.insert(generator.iss(id, {}).value());
  id = kId;
  id.local.address = IpAddress::v4(192, 0, 2, 3);
  seen.insert(generator.iss(id, {}).value());
  id = kId;
  id.remote.address = IpAddress::v4(192, 0, 2, 4);
  seen.insert(generator.iss(id, {}).value());
  seen.insert(generator.iss(ConnectionId{kId.remote, kId.local}, {}).value());
  EXPECT_EQ(seen.size(), 7u);
}

TEST(TcpIss, IsTheSameForTheSameSeed) {
  test::SeededRandom a(5), b(5), c(6);
  EXPECT_EQ(IssGenerator(a).iss(kId, {}), IssGenerator(b).iss(kId, {}));
  EXPECT_NE(IssGenerator(a).iss(kId, {}), IssGenerator(c).iss(kId, {}));
}

TEST(TcpIss, ConsecutivePortsTellNothing) {
  test::SeededRandom random(2);
  IssGenerator generator(random);
  // Differences between neighbours are spread over the whole space.
  std::set<uint32_t> sixteenths;
  ConnectionId id = kId;
  SeqNum last = generator.iss(id, {});
  for (uint16_t port = 40001; port < 40400; ++port) {
    id.local.port = port;
    SeqNum iss = generator.iss(id, {});
    sixteenths.insert((iss - last) >> 28);
    last = iss;
  }
  EXPECT_EQ(sixteenths.size(), 16u);
}

TEST(TcpTimestamps, AnOffsetForEachPairOfAddresses) {
  test::SeededRandom random(3);
  IssGenerator generator(random);
  uint32_t offset = generator.timestamp_offset(kId.local.address, kId.remote.address);
  EXPECT_EQ(generator.timestamp_offset(kId.local.address, kId.remote.address), offset);
  EXPECT_NE(generator.timestamp_offset(kId.local.address, IpAddress::v4(192, 0, 2, 9)), offset);
  EXPECT_NE(IssGenerator(random).timestamp_offset(kId.local.address, kId.remote.address), offset);
  EXPECT_EQ(timestamp_clock(Instant(5s), offset) - timestamp_clock(Instant(3s), offset), 2000u);
}

}  // namespace
}  // namespace ustack::tcp
