#include "stack/tcp/reports.h"

#include <gtest/gtest.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/support/tcp_peer.h"

namespace ustack::tcp {
namespace {

using test::HeapArena;
using test::TcpPeer;
using test::TestSocket;

Instant at(int ms) { return Instant(std::chrono::milliseconds(ms)); }

Report completion(uint32_t number) {
  Report report;
  report.what.ee_origin = SO_EE_ORIGIN_ZEROCOPY;
  report.what.ee_info = report.what.ee_data = number;
  return report;
}

TEST(TcpReports, EachByteHasTheTimeOfItsSegment) {
  HeapArena arena;
  Reports reports(arena);
  reports.note_arrival(SeqNum(100), at(1));
  reports.note_arrival(SeqNum(300), at(2));
  reports.note_arrival(SeqNum(200), at(3));  // the gap is filled
  reports.note_arrival(SeqNum(200), at(9));  // and once more
  EXPECT_EQ(reports.arrival_of(SeqNum(99)), at(1));
  EXPECT_EQ(reports.arrival_of(SeqNum(100)), at(3));
  EXPECT_EQ(reports.arrival_of(SeqNum(299)), at(2));
  EXPECT_EQ(reports.arrival_of(SeqNum(300)), std::nullopt);
  reports.forget_arrivals(SeqNum(200));
  EXPECT_EQ(reports.arrival_of(SeqNum(200)), at(2));
}

TEST(TcpReports, TooManyArrivalsCountAsTheirNeighbours) {
  HeapArena arena;
  Reports reports(arena);
  // Across the wrap of sequence numbers.
  const SeqNum first(0xfffffff0u);
  for (uint32_t i = 1; i <= 1000; ++i) reports.note_arrival(first + i, at(static_cast<int>(i)));
  EXPECT_EQ(reports.arrival_of(first), at(1));
  EXPECT_EQ(reports.arrival_of(first + 999), at(1000));
  reports.forget_arrivals(first + 1000);
  EXPECT_EQ(reports.arrival_of(first + 999), std::nullopt);
}

TEST(TcpReports, MessagesWaitInOrderAndTheOldestGiveWay) {
  HeapArena arena;
  Reports reports(arena);
  for (uint32_t i = 0; i < Reports::kMost + 3; ++i) reports.await({SeqNum(i), SOF_TIMESTAMPING_TX_ACK});
  ASSERT_EQ(reports.messages().size(), Reports::kMost);
  EXPECT_EQ(reports.messages()[0].last, SeqNum(3));
  reports.messages()[0].awaited = 0;
  reports.tidy();
  EXPECT_EQ(reports.messages().size(), Reports::kMost - 1);
  EXPECT_EQ(reports.messages()[0].last, SeqNum(4));
}

TEST(TcpReports, CompletionsInARowBecomeOne) {
  HeapArena arena;
  Reports reports(arena);
  for (uint32_t i : {0u, 1u, 2u, 4u}) EXPECT_TRUE(reports.push(completion(i)));
  EXPECT_EQ(reports.pop()->what.ee_data, 2u);
  EXPECT_EQ(reports.pop()->what.ee_info, 4u);
  EXPECT_FALSE(reports.pop());
  EXPECT_EQ(reports.true_size(), 0u);
}

TEST(TcpReports, CopiedAndLentSendsAreToldApart) {
  HeapArena arena;
  Reports reports(arena);
  EXPECT_TRUE(reports.push(completion(0)));
  Report copied = completion(1);
  copied.what.ee_code = SO_EE_CODE_ZEROCOPY_COPIED;
  EXPECT_TRUE(reports.push(std::move(copied)));
  EXPECT_EQ(reports.pop()->what.ee_data, 0u);
  EXPECT_EQ(reports.pop()->what.ee_code, SO_EE_CODE_ZEROCOPY_COPIED);
}

TEST(TcpReports, LentSendsComeBackInOrder) {
  HeapArena arena;
  Reports reports(arena);
  const SeqNum first(0xfffffff0u);
  for (uint32_t i = 1; i <= 100; ++i) EXPECT_TRUE(reports.await_return(first + 10 * i, i));
  EXPECT_EQ(reports.take_returned(first + 9), std::nullopt);
  EXPECT_EQ(reports.take_returned(first + 20), 1u);
  EXPECT_EQ(reports.take_returned(first + 20), 2u);
  EXPECT_EQ(reports.take_returned(first + 20), std::nullopt);
  EXPECT_EQ(reports.take_returned(), 3u);
  arena.fail_after(0);
  EXPECT_FALSE(reports.await_return(first + 2000, 101));
  arena.never_fail();
}

TEST(TcpReports, WithoutMemoryAReportIsLost) {
  HeapArena arena;
  Reports reports(arena);
  arena.fail_after(0);
  EXPECT_FALSE(reports.push(completion(0)));
  arena.never_fail();
  EXPECT_TRUE(reports.empty());
}

/// What a router says of an attempt is in the error queue, as on Linux whether IP_RECVERR is set or not.
TEST(TcpReports, AnIcmpErrorOfAnAttempt) {
  TcpPeer peer;
  TestSocket socket = peer.connect();
  peer.take();
  peer.send_icmp(3, 1, 0, peer.iss);
  EXPECT_EQ(socket->connect_result().code(), EHOSTUNREACH);
  EXPECT_FALSE(socket->failed());
  EXPECT_NE(socket->readiness() & ready::kErr, 0u) << "the report";
  std::optional<Report> report = socket->take_report();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->what.ee_errno, static_cast<uint32_t>(EHOSTUNREACH));
  EXPECT_EQ(report->what.ee_origin, SO_EE_ORIGIN_ICMP);
  EXPECT_EQ(report->what.ee_type, 3);
  EXPECT_EQ(report->what.ee_code, 1);
  EXPECT_EQ(report->offender, TcpPeer::kPeer);
  EXPECT_EQ(report->about, (SocketAddress{TcpPeer::kPeer, 80}));
  ASSERT_GE(report->payload.length, 8u) << "the TCP header of our SYN";
  EXPECT_EQ(load_be16(report->payload.data()), peer.host_port);
  EXPECT_EQ(load_be32(report->payload.data() + 4), peer.iss);
  EXPECT_EQ(socket->readiness() & ready::kErr, 0u);
  EXPECT_FALSE(socket->take_report());
}

/// sock_queue_err_skb: no more than the receive buffer holds.
TEST(TcpReports, TheQueueIsBounded) {
  TcpPeer peer;
  TestSocket socket = peer.connected();
  ASSERT_TRUE(socket.set(SOL_SOCKET, SO_RCVBUF, 4096).ok());
  ASSERT_TRUE(socket
                  .set(SOL_SOCKET, SO_TIMESTAMPING,
                       SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY)
                  .ok());
  for (int i = 0; i < 1000; ++i) socket->sent_message(std::nullopt, Copying::not_asked);
  int reports = 0;
  while (socket->take_report()) ++reports;
  EXPECT_GT(reports, 10);
  EXPECT_LT(reports, 200);
}

}  // namespace
}  // namespace ustack::tcp
