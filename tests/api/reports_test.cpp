// What a socket tells beside its stream: SO_TIMESTAMP*, the error queue, MSG_ZEROCOPY (socket(7); Linux,
// Documentation/networking/timestamping.rst and msg_zerocopy.rst).
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <array>
#include <ctime>
#include <map>
#include <optional>
#include <thread>

#include "tests/api/support.h"

namespace api {
namespace {

using std::chrono::nanoseconds;

nanoseconds since_epoch(timespec time) {
  return std::chrono::seconds(time.tv_sec) + nanoseconds(time.tv_nsec);
}
nanoseconds now() {
  timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return since_epoch(time);
}

/// A message as recvmsg(2) gives it.
struct Message {
  ssize_t length = -1;
  int error = 0;
  int flags = 0;
  std::string data;
  /// By level and type.
  std::map<std::pair<int, int>, std::string> control;

  bool has(int level, int type) const { return control.contains({level, type}); }
  template <typename T>
  T get(int level, int type) const {
    T value{};
    auto found = control.find({level, type});
    if (found == control.end() || found->second.size() < sizeof value) {
      ADD_FAILURE() << "no control message " << level << ' ' << type;
      return value;
    }
    std::memcpy(&value, found->second.data(), sizeof value);
    return value;
  }
};

Message receive(int fd, int flags = 0, size_t room = 4096, size_t control_room = 1024) {
  Message result;
  result.data.resize(room);
  std::array<char, 1024> control{};
  iovec part{result.data.data(), room};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control_room;
  result.length = recvmsg(fd, &header, flags);
  result.error = result.length < 0 ? errno : 0;
  result.data.resize(result.length < 0 ? 0 : static_cast<size_t>(result.length));
  result.flags = header.msg_flags;
  if (result.length < 0) return result;
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr; each = CMSG_NXTHDR(&header, each))
    result.control[{each->cmsg_level, each->cmsg_type}] =
        std::string(reinterpret_cast<const char*>(CMSG_DATA(each)), each->cmsg_len - CMSG_LEN(0));
  return result;
}

/// The next report, for which it waits up to five seconds.
Message next_report(int fd) {
  EXPECT_NE(poll_one(fd, 0) & POLLERR, 0);
  return receive(fd, MSG_ERRQUEUE);
}
sock_extended_err report_of(const Message& message) {
  return message.get<sock_extended_err>(IPPROTO_IP, IP_RECVERR);
}

/// What was sent has arrived, so that what follows is numbered from there.
void wait_acknowledged(int fd) {
  int left = 1;
  for (int i = 0; i < 500 && left > 0; ++i) {
    ASSERT_WORKS(ioctl(fd, SIOCOUTQ, &left));
    if (left > 0) std::this_thread::sleep_for(milliseconds(10));
  }
  ASSERT_EQ(left, 0);
}

/// Linux begins to stamp what comes in a moment after somebody first wants it.
void turn_on(int fd, int name) {
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, name, 1));
  std::this_thread::sleep_for(milliseconds(50));
}

// --- arrival ---

TEST(Stamps, ReadsTellWhenTheLastByteCame) {
  Fd fd = connected("recv 1 say first sleep 300 say second drain");
  turn_on(fd, SO_TIMESTAMPNS);
  const nanoseconds before = now();
  ASSERT_TRUE(send_all(fd, "x"));
  std::this_thread::sleep_for(milliseconds(150));
  ASSERT_NE(poll_one(fd, POLLIN), 0);
  Message first = receive(fd);
  EXPECT_EQ(first.data, "first");
  const nanoseconds at = since_epoch(first.get<timespec>(SOL_SOCKET, SO_TIMESTAMPNS));
  EXPECT_GE(at, before);
  EXPECT_LT(at, before + milliseconds(100)) << "when it came, not when it was read";
  Message second = receive(fd);
  EXPECT_EQ(second.data, "second");
  const nanoseconds later = since_epoch(second.get<timespec>(SOL_SOCKET, SO_TIMESTAMPNS));
  EXPECT_GE(later - at, milliseconds(250));
  EXPECT_LE(later, now());
}

TEST(Stamps, InMicrosecondsAndByTheNewNames) {
  Fd fd = connected("recv 1 say a recv 1 say b recv 1 say c drain");
  auto next = [&](const char* expected) {
    EXPECT_TRUE(send_all(fd, "x"));
    Message message = receive(fd);
    EXPECT_EQ(message.data, expected);
    return message;
  };
  turn_on(fd, SO_TIMESTAMP);
  const auto coarse = next("a").get<timeval>(SOL_SOCKET, SO_TIMESTAMP);
  EXPECT_LT(now() - (std::chrono::seconds(coarse.tv_sec) + std::chrono::microseconds(coarse.tv_usec)),
            std::chrono::seconds(5));
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_TIMESTAMPNS_NEW, 1));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_TIMESTAMPNS_NEW), 1);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_TIMESTAMPNS), 0);
  Message by_new_name = next("b");
  EXPECT_LT(now() - since_epoch(by_new_name.get<timespec>(SOL_SOCKET, SO_TIMESTAMPNS_NEW)),
            std::chrono::seconds(5));
  EXPECT_FALSE(by_new_name.has(SOL_SOCKET, SO_TIMESTAMPNS));
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_TIMESTAMPNS_NEW, 0));
  EXPECT_TRUE(next("c").control.empty());
}

TEST(Stamps, APeekTellsToo) {
  Fd fd = connected("recv 1 say abcdef drain");
  turn_on(fd, SO_TIMESTAMPNS);
  ASSERT_TRUE(send_all(fd, "x"));
  ASSERT_NE(poll_one(fd, POLLIN), 0);
  Message peeked = receive(fd, MSG_PEEK, 3);
  EXPECT_EQ(peeked.data, "abc");
  Message read = receive(fd);
  EXPECT_EQ(read.data, "abcdef");
  EXPECT_EQ(since_epoch(peeked.get<timespec>(SOL_SOCKET, SO_TIMESTAMPNS)) / std::chrono::microseconds(100),
            since_epoch(read.get<timespec>(SOL_SOCKET, SO_TIMESTAMPNS)) / std::chrono::microseconds(100));
}

TEST(Stamps, TheControlBufferMayBeTooSmall) {
  Fd fd = connected("recv 1 say abc drain");
  turn_on(fd, SO_TIMESTAMPNS);
  ASSERT_TRUE(send_all(fd, "x"));
  ASSERT_NE(poll_one(fd, POLLIN), 0);
  Message none = receive(fd, MSG_PEEK, 16, 0);
  EXPECT_EQ(none.data, "abc");
  EXPECT_NE(none.flags & MSG_CTRUNC, 0);
  Message cut = receive(fd, 0, 16, CMSG_LEN(4));
  EXPECT_NE(cut.flags & MSG_CTRUNC, 0);
}

TEST(Stamps, AcceptedSocketsInheritIt) {
  Fd listener = listening();
  turn_on(listener, SO_TIMESTAMPNS);
  ASSERT_WORKS(set_option(listener, SOL_SOCKET, SO_ZEROCOPY, 1));
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " say hello drain");
  Fd fd = accept(listener, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_ZEROCOPY), 1);
  EXPECT_TRUE(receive(fd).has(SOL_SOCKET, SO_TIMESTAMPNS));
}

TEST(Stamps, SoftwareTimesOfArrival) {
  Fd fd = connected("recv 1 say abc drain");
  ASSERT_WORKS(
      set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE));
  ASSERT_TRUE(send_all(fd, "x"));
  Message message = receive(fd);
  const auto times = message.get<scm_timestamping>(SOL_SOCKET, SO_TIMESTAMPING);
  EXPECT_LT(now() - since_epoch(timespec{times.ts[0].tv_sec, times.ts[0].tv_nsec}), std::chrono::seconds(5));
  EXPECT_EQ(times.ts[2].tv_sec, 0);
}

// --- departure ---

constexpr int kAllTimes = SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID |
                          SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_TX_ACK;

TEST(Stamps, AMessageTellsWhenItLeftAndWhenItArrived) {
  Fd fd = connected("drain");
  wait_acknowledged(fd);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, kAllTimes));
  const nanoseconds before = now();
  ASSERT_TRUE(send_all(fd, "hello"));
  std::map<uint32_t, nanoseconds> times;
  for (int i = 0; i < 3; ++i) {
    Message message = next_report(fd);
    ASSERT_EQ(message.length, 0) << strerror(message.error);
    EXPECT_NE(message.flags & MSG_ERRQUEUE, 0);
    const sock_extended_err report = report_of(message);
    EXPECT_EQ(report.ee_errno, static_cast<uint32_t>(ENOMSG));
    EXPECT_EQ(report.ee_origin, SO_EE_ORIGIN_TIMESTAMPING);
    EXPECT_EQ(report.ee_data, 4u) << "the number of its last byte";
    const auto at = message.get<scm_timestamping>(SOL_SOCKET, SO_TIMESTAMPING);
    times[report.ee_info] = since_epoch(timespec{at.ts[0].tv_sec, at.ts[0].tv_nsec});
  }
  ASSERT_EQ(times.size(), 3u);
  // Scheduled, sent, acknowledged; by clocks that are not read at the same moment.
  const nanoseconds skew = milliseconds(2);
  EXPECT_LE(before, times[SCM_TSTAMP_SCHED] + skew);
  EXPECT_LE(times[SCM_TSTAMP_SCHED], times[SCM_TSTAMP_SND] + skew);
  EXPECT_LE(times[SCM_TSTAMP_SND], times[SCM_TSTAMP_ACK] + skew);
  EXPECT_LE(times[SCM_TSTAMP_ACK], now());
  EXPECT_EQ(poll_one(fd, 0, 0), 0) << "none is left";
  EXPECT_FAILS(EAGAIN, recv(fd, nullptr, 0, MSG_ERRQUEUE));
}

TEST(Stamps, MessagesAreNumberedByTheirBytes) {
  Fd fd = connected("drain");
  ASSERT_TRUE(send_all(fd, std::string(100, 'x')));
  wait_acknowledged(fd);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING,
                          SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID |
                              SOF_TIMESTAMPING_TX_ACK));
  ASSERT_WORKS(set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1));
  uint32_t bytes = 0;
  for (uint32_t length : {10u, 1u, 1000u}) {
    ASSERT_TRUE(send_all(fd, std::string(length, 'x')));
    bytes += length;
    Message message = next_report(fd);
    EXPECT_EQ(report_of(message).ee_info, static_cast<uint32_t>(SCM_TSTAMP_ACK));
    EXPECT_EQ(report_of(message).ee_data, bytes - 1);
  }
}

TEST(Stamps, AskedForOneMessage) {
  Fd fd = connected("drain");
  wait_acknowledged(fd);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING,
                          SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID));
  auto send_with = [&](uint32_t flags) {
    char byte = 'x';
    iovec part{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(uint32_t))> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* message = CMSG_FIRSTHDR(&header);
    message->cmsg_level = SOL_SOCKET;
    message->cmsg_type = SO_TIMESTAMPING;
    message->cmsg_len = CMSG_LEN(sizeof flags);
    std::memcpy(CMSG_DATA(message), &flags, sizeof flags);
    return sendmsg(fd, &header, 0);
  };
  ASSERT_TRUE(send_all(fd, "not of this one"));
  EXPECT_EQ(send_with(SOF_TIMESTAMPING_TX_ACK), 1);
  Message message = next_report(fd);
  EXPECT_EQ(report_of(message).ee_info, static_cast<uint32_t>(SCM_TSTAMP_ACK));
  EXPECT_EQ(report_of(message).ee_data, 15u);
  EXPECT_FAILS(EINVAL, send_with(SOF_TIMESTAMPING_RX_SOFTWARE));
}

TEST(Stamps, WithTheConnectionsStatistics) {
  Fd fd = connected("recv 7 drain");
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_TIMESTAMPING,
                          SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_TSONLY | SOF_TIMESTAMPING_OPT_ID |
                              SOF_TIMESTAMPING_OPT_STATS | SOF_TIMESTAMPING_TX_ACK));
  ASSERT_TRUE(send_all(fd, "1234567"));
  Message message = next_report(fd);
  const std::string statistics = message.control[{SOL_SOCKET, SCM_TIMESTAMPING_OPT_STATS}];
  EXPECT_EQ(message.data, statistics);
  std::map<uint16_t, uint64_t> values;
  for (size_t at = 0; at + NLA_HDRLEN <= statistics.size();) {
    nlattr head;
    std::memcpy(&head, statistics.data() + at, sizeof head);
    ASSERT_GE(head.nla_len, NLA_HDRLEN);
    uint64_t value = 0;
    std::memcpy(&value, statistics.data() + at + NLA_HDRLEN,
                std::min<size_t>(head.nla_len - NLA_HDRLEN, sizeof value));
    values[head.nla_type] = value;
    at += NLA_ALIGN(head.nla_len);
  }
  EXPECT_EQ(values[TCP_NLA_BYTES_SENT], 7u + strlen("recv 7 drain\n"));
  EXPECT_EQ(values[TCP_NLA_BYTES_RETRANS], 0u);
  EXPECT_GE(values[TCP_NLA_SND_CWND], 10u);
  EXPECT_GT(values[TCP_NLA_SRTT], 0u);
  EXPECT_TRUE(values.contains(TCP_NLA_PACING_RATE));
  EXPECT_EQ(values[TCP_NLA_CA_STATE], 0u);
}

TEST(Stamps, FlagsThatDontGoTogether) {
  Fd fresh = tcp();
  auto set = [](int fd, unsigned flags) { return set_option(fd, SOL_SOCKET, SO_TIMESTAMPING, flags); };
  EXPECT_FAILS(EINVAL, set(fresh, SOF_TIMESTAMPING_OPT_ID));  // only of a connection
  EXPECT_FAILS(EINVAL, set(fresh, 1u << 30));
  EXPECT_FAILS(EINVAL, set(fresh, SOF_TIMESTAMPING_OPT_STATS));
  EXPECT_WORKS(set(fresh, SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE));
  struct {
    unsigned flags;
    int clock;
  } told{};
  socklen_t length = sizeof told;
  ASSERT_WORKS(getsockopt(fresh, SOL_SOCKET, SO_TIMESTAMPING, &told, &length));
  EXPECT_EQ(length, 8u);
  EXPECT_EQ(told.flags, static_cast<unsigned>(SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE));
}

// --- zero-copy ---

TEST(ZeroCopy, TellsWhenABufferIsFree) {
  Fd fd = connected("recv 300000 check drain");
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_ZEROCOPY, 1));
  const std::string bytes = pattern(300000);
  size_t sent = 0;
  uint32_t calls = 0;
  while (sent < bytes.size()) {
    ssize_t n = send(fd, bytes.data() + sent, std::min<size_t>(bytes.size() - sent, 100000), MSG_ZEROCOPY);
    ASSERT_GT(n, 0) << strerror(errno);
    sent += static_cast<size_t>(n);
    ++calls;
  }
  uint32_t next = 0;
  while (next < calls) {
    Message message = next_report(fd);
    ASSERT_EQ(message.length, 0) << strerror(message.error);
    const sock_extended_err report = report_of(message);
    EXPECT_EQ(report.ee_errno, 0u);
    ASSERT_EQ(report.ee_origin, SO_EE_ORIGIN_ZEROCOPY);
    EXPECT_EQ(report.ee_info, next) << "first of a range";
    EXPECT_GE(report.ee_data, report.ee_info);
    next = report.ee_data + 1;
  }
  EXPECT_EQ(next, calls);
  EXPECT_EQ(read_all(fd, 5), "good\n");
  EXPECT_EQ(pending_error(fd), 0);
}

TEST(ZeroCopy, WithoutTheOptionTheFlagMeansNothing) {
  Fd fd = connected("echo");
  EXPECT_EQ(send(fd, "abc", 3, MSG_ZEROCOPY), 3);
  EXPECT_EQ(read_all(fd, 3), "abc");
  EXPECT_FAILS(EAGAIN, recv(fd, nullptr, 0, MSG_ERRQUEUE));
}

TEST(ZeroCopy, AReportDoesntEndAReadOrASend) {
  Fd fd = connected("recv 1 sleep 200 say abc sleep 200 say def drain");
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_ZEROCOPY, 1));
  ASSERT_EQ(send(fd, "x", 1, MSG_ZEROCOPY), 1);
  char bytes[6];
  EXPECT_EQ(recv(fd, bytes, sizeof bytes, MSG_WAITALL), 6);
  EXPECT_NE(poll_one(fd, POLLOUT) & POLLERR, 0);
  const std::string more = pattern(500000);
  EXPECT_EQ(send(fd, more.data(), more.size(), MSG_ZEROCOPY), static_cast<ssize_t>(more.size()));
  EXPECT_EQ(pending_error(fd), 0) << "a report is no error";
}

// --- recv(2), recvfrom(2) ---

TEST(ErrorQueue, ByEveryCallThatHasFlags) {
  Fd fd = connected("drain");
  EXPECT_FAILS(EAGAIN, receive(fd, MSG_ERRQUEUE).length);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_ZEROCOPY, 1));
  char byte;
  ASSERT_EQ(send(fd, "x", 1, MSG_ZEROCOPY), 1);
  ASSERT_NE(poll_one(fd, 0) & POLLERR, 0);
  EXPECT_EQ(recv(fd, &byte, 1, MSG_ERRQUEUE), 0);
  ASSERT_EQ(send(fd, "x", 1, MSG_ZEROCOPY), 1);
  ASSERT_NE(poll_one(fd, 0) & POLLERR, 0);
  EXPECT_EQ(recvfrom(fd, &byte, 1, MSG_ERRQUEUE, nullptr, nullptr), 0);
  EXPECT_EQ(poll_one(fd, 0, 0), 0);
}

}  // namespace
}  // namespace api
