// Bytes: read, write and their many relatives, flags, limits, bad memory.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include <linux/fs.h>
#include <linux/sockios.h>
#include <array>
#include <climits>
#include <numeric>

#include "tests/api/support.h"

namespace api {
namespace {

int waiting(int fd, unsigned long request = FIONREAD) {
  int bytes = -1;
  EXPECT_EQ(ioctl(fd, request, &bytes), 0) << strerror(errno);
  return bytes;
}

/// A connection on which `bytes` of the pattern have arrived.
Fd with_waiting(size_t bytes, const std::string& then = "drain", int flags = 0) {
  Fd fd = connected("send " + std::to_string(bytes) + " " + then, flags);
  while (waiting(fd) < static_cast<int>(bytes)) EXPECT_NE(poll_one(fd, POLLIN), 0);
  return fd;
}

TEST(Transfer, MegabytesBothWays) {
  constexpr size_t kBytes = 8 << 20;
  Fd fd = connected("echo");
  std::string bytes = pattern(kBytes), back;
  {
    Later reader(milliseconds(0), [&] { back = read_all(fd, kBytes); });
    EXPECT_TRUE(send_all(fd, bytes));
  }
  EXPECT_TRUE(back == bytes);
}

TEST(Transfer, ABigWriteIsTakenWhole) {
  constexpr size_t kBytes = 20 << 20;
  Fd fd = connected("recv " + std::to_string(kBytes) + " check sum");
  std::string bytes = pattern(kBytes);
  EXPECT_EQ(write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(read_all(fd), "good\n" + std::to_string(kBytes) + "\n");
}

TEST(Transfer, ABigReadIsFilledWithWaitAll) {
  constexpr size_t kBytes = 20 << 20;
  Fd fd = connected("send " + std::to_string(kBytes));
  std::string bytes(kBytes, 0);
  EXPECT_EQ(recv(fd, bytes.data(), bytes.size(), MSG_WAITALL), static_cast<ssize_t>(bytes.size()));
  EXPECT_TRUE(bytes == pattern(kBytes));
}

TEST(Transfer, WaitAllEndsWithTheStream) {
  Fd fd = connected("send 10");
  char buffer[100];
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, MSG_WAITALL), 10);
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, MSG_WAITALL), 0);
}

TEST(Transfer, WaitAllDoesNotWaitWithoutLeave) {
  Fd fd = with_waiting(10);
  char buffer[100];
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, MSG_WAITALL | MSG_DONTWAIT), 10);
  EXPECT_FAILS(EAGAIN, recv(fd, buffer, sizeof buffer, MSG_WAITALL | MSG_DONTWAIT));
}

TEST(Transfer, ReadsWhatIsThere) {
  Fd fd = with_waiting(10);
  char buffer[100];
  EXPECT_EQ(read(fd, buffer, 4), 4);
  EXPECT_EQ(std::string(buffer, 4), pattern(4));
  EXPECT_EQ(read(fd, buffer, sizeof buffer), 6);
  EXPECT_EQ(std::string(buffer, 6), pattern(6, 4));
  EXPECT_FAILS(EAGAIN, recv(fd, buffer, sizeof buffer, MSG_DONTWAIT));
}

TEST(Transfer, PeekLeavesTheBytes) {
  Fd fd = with_waiting(10);
  char buffer[100];
  EXPECT_EQ(recv(fd, buffer, 4, MSG_PEEK), 4);
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, MSG_PEEK), 10);
  EXPECT_EQ(std::string(buffer, 10), pattern(10));
  EXPECT_EQ(waiting(fd), 10);
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, 0), 10);
}

TEST(Transfer, PeekWithWaitAllWaits) {
  Fd fd = connected("send 5 sleep 150 send 5 drain");
  char buffer[10];
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, MSG_PEEK | MSG_WAITALL), 10);
  EXPECT_EQ(std::string(buffer, 10), pattern(10));
  EXPECT_EQ(waiting(fd), 10);
}

TEST(Transfer, TruncDiscards) {
  Fd fd = with_waiting(10);
  char buffer[10];
  EXPECT_EQ(recv(fd, nullptr, 4, MSG_TRUNC), 4);
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, 0), 6);
  EXPECT_EQ(std::string(buffer, 6), pattern(6, 4));
}

TEST(Transfer, ZeroBytes) {
  Fd fd = with_waiting(10, "drain", SOCK_NONBLOCK);
  char buffer[10];
  EXPECT_EQ(read(fd, buffer, 0), 0);
  EXPECT_EQ(recv(fd, buffer, 0, 0), 0);
  EXPECT_EQ(recv(fd, nullptr, 0, 0), 0);
  EXPECT_EQ(write(fd, nullptr, 0), 0);
  EXPECT_EQ(send(fd, nullptr, 0, 0), 0);
  EXPECT_EQ(waiting(fd), 10);
  EXPECT_EQ(read(fd, buffer, 10), 10);
  EXPECT_EQ(read(fd, buffer, 0), 0);
  EXPECT_FAILS(EAGAIN, recv(fd, buffer, 0, 0));
}

TEST(Transfer, BadMemory) {
  Fd fd = with_waiting(10, "drain", SOCK_NONBLOCK);
  EXPECT_FAILS(EFAULT, read(fd, nowhere(), 1));
  EXPECT_FAILS(EFAULT, recv(fd, reinterpret_cast<void*>(-4096L), 1, 0));
  EXPECT_FAILS(EFAULT, write(fd, nowhere(), 1));
  EXPECT_FAILS(EFAULT, send(fd, reinterpret_cast<void*>(0xffff800000000000), 1, 0));
  EXPECT_EQ(waiting(fd), 10) << "nothing is lost";
  iovec part{nullptr, 1};
  EXPECT_FAILS(EFAULT, readv(fd, &part, 1));
  EXPECT_FAILS(EFAULT, readv(fd, static_cast<iovec*>(nowhere()), 1));
  EXPECT_FAILS(EFAULT, writev(fd, static_cast<iovec*>(nowhere()), 1));
  EXPECT_FAILS(EFAULT, recvmsg(fd, nullptr, 0));
  EXPECT_FAILS(EFAULT, sendmsg(fd, nullptr, 0));
  char first[4];
  iovec parts[2] = {{first, 4}, {nullptr, 4}};
  EXPECT_FAILS(EFAULT, readv(fd, parts, 2));
  EXPECT_EQ(waiting(fd), 10) << "a segment is taken whole or not at all";
}

TEST(Transfer, VectorsAndTheirLimits) {
  Fd fd = connected("recv 7 check send 10 drain");
  std::string bytes = pattern(7);
  iovec out[3] = {{bytes.data(), 2}, {nullptr, 0}, {bytes.data() + 2, 5}};
  EXPECT_EQ(writev(fd, out, 3), 7);
  EXPECT_EQ(read_all(fd, 5), "good\n");
  char a[4], b[6];
  iovec in[2] = {{a, 4}, {b, 6}};
  while (waiting(fd) < 10) poll_one(fd, POLLIN);
  EXPECT_EQ(readv(fd, in, 2), 10);
  EXPECT_EQ(std::string(a, 4) + std::string(b, 6), pattern(10));

  std::vector<iovec> many(IOV_MAX + 1, iovec{a, 0});
  EXPECT_EQ(writev(fd, many.data(), IOV_MAX), 0);
  EXPECT_FAILS(EINVAL, writev(fd, many.data(), IOV_MAX + 1));
  EXPECT_FAILS(EINVAL, readv(fd, many.data(), IOV_MAX + 1));
  EXPECT_FAILS(EINVAL, writev(fd, many.data(), minus_one()));
  EXPECT_EQ(readv(fd, many.data(), 0), 0);
  iovec negative{a, static_cast<size_t>(-1)};
  EXPECT_FAILS(EINVAL, writev(fd, &negative, 1));
  EXPECT_FAILS(EINVAL, readv(fd, &negative, 1));
}

TEST(Transfer, PositionsAreNotForStreams) {
  Fd fd = connected("drain");
  char c = 0;
  iovec part{&c, 1};
  EXPECT_FAILS(ESPIPE, pread(fd, &c, 1, 0));
  EXPECT_FAILS(ESPIPE, pwrite(fd, &c, 1, 0));
  EXPECT_FAILS(ESPIPE, preadv(fd, &part, 1, 0));
  EXPECT_FAILS(ESPIPE, pwritev(fd, &part, 1, 0));
  EXPECT_FAILS(ESPIPE, preadv2(fd, &part, 1, 0, 0));
  EXPECT_FAILS(ESPIPE, lseek(fd, 0, SEEK_CUR));
  EXPECT_EQ(pwritev2(fd, &part, 1, -1, 0), 1);
  EXPECT_FAILS(EAGAIN, preadv2(fd, &part, 1, -1, RWF_NOWAIT));
  EXPECT_FAILS(EOPNOTSUPP, preadv2(fd, &part, 1, -1, 0x40000000));
}

TEST(Transfer, Messages) {
  Fd fd = connected("echo");
  std::string hello = "hello, ", world = "world";
  iovec out[2] = {{hello.data(), hello.size()}, {world.data(), world.size()}};
  msghdr message{};
  message.msg_iov = out;
  message.msg_iovlen = 2;
  EXPECT_EQ(sendmsg(fd, &message, 0), 12);

  char a[7], b[100];
  iovec in[2] = {{a, sizeof a}, {b, sizeof b}};
  char control[100];
  Address name;
  message = {};
  message.msg_iov = in;
  message.msg_iovlen = 2;
  message.msg_name = name.get();
  message.msg_namelen = Address::size;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  message.msg_flags = 0x1234;
  EXPECT_EQ(recvmsg(fd, &message, MSG_CMSG_CLOEXEC), 12);
  EXPECT_EQ(std::string(a, 7) + std::string(b, 5), "hello, world");
  EXPECT_EQ(message.msg_namelen, 0U) << "a stream has no address";
  EXPECT_EQ(message.msg_controllen, 0U);
  EXPECT_EQ(message.msg_flags, MSG_CMSG_CLOEXEC);
}

TEST(Transfer, MessageErrors) {
  Fd fd = with_waiting(10);
  char c;
  std::vector<iovec> many(IOV_MAX + 1, iovec{&c, 0});
  msghdr message{};
  message.msg_iov = many.data();
  message.msg_iovlen = many.size();
  EXPECT_FAILS(EMSGSIZE, sendmsg(fd, &message, 0));
  EXPECT_FAILS(EMSGSIZE, recvmsg(fd, &message, 0));
  message.msg_iovlen = 1;
  message.msg_name = &c;
  message.msg_namelen = static_cast<socklen_t>(-1);
  EXPECT_FAILS(EINVAL, recvmsg(fd, &message, 0));
  EXPECT_FAILS(EINVAL, sendmsg(fd, &message, 0));
}

TEST(Transfer, ControlMessagesOfASend) {
  Fd fd = connected("recv 1 say ok");
  char c = 'x';
  iovec part{&c, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_len = 3;
  EXPECT_FAILS(EINVAL, sendmsg(fd, &message, 0));
  header->cmsg_len = CMSG_LEN(sizeof(int));
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = 0x7777;
  EXPECT_FAILS(EINVAL, sendmsg(fd, &message, 0));
  header->cmsg_level = IPPROTO_IP;
  EXPECT_EQ(sendmsg(fd, &message, 0), 1) << "other levels are none of a stream's business";
  EXPECT_EQ(read_all(fd), "ok");
}

TEST(Transfer, ReceiveFromSaysNobody) {
  Fd fd = with_waiting(10);
  char buffer[4];
  Address from;
  socklen_t length = Address::size;
  EXPECT_EQ(recvfrom(fd, buffer, 4, 0, from.get(), &length), 4);
  EXPECT_EQ(length, 0U);
  EXPECT_FAILS(EFAULT, recvfrom(fd, buffer, 4, 0, from.get(), nullptr));
  EXPECT_EQ(waiting(fd), 2) << "the bytes are gone all the same";
  length = static_cast<socklen_t>(-1);
  EXPECT_FAILS(EINVAL, recvfrom(fd, buffer, 1, 0, from.get(), &length));
}

TEST(Transfer, SendToTakesNoNoticeOfAnAddress) {
  Fd fd = connected("recv 1 say ok");
  Address to = nobody();
  EXPECT_FAILS(EINVAL, sendto(fd, "x", 1, 0, to.get(), sizeof(sockaddr_storage) + 1));
  EXPECT_FAILS(EFAULT, sendto(fd, "x", 1, 0, reinterpret_cast<sockaddr*>(-4096L), Address::size));
  EXPECT_EQ(sendto(fd, "x", 1, 0, to.get(), Address::size), 1);
  EXPECT_EQ(read_all(fd), "ok");
}

TEST(Transfer, SeveralMessagesAtOnce) {
  Fd fd = connected("echo");
  std::string words[3] = {"one", "two", "three"};
  std::array<iovec, 3> parts;
  std::array<mmsghdr, 3> messages{};
  for (size_t i = 0; i < 3; ++i) {
    parts[i] = {words[i].data(), words[i].size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  EXPECT_EQ(sendmmsg(fd, messages.data(), 3, 0), 3);
  EXPECT_EQ(messages[2].msg_len, 5U);

  while (waiting(fd) < 11) poll_one(fd, POLLIN);
  char buffers[3][4];
  for (size_t i = 0; i < 3; ++i) parts[i] = {buffers[i], sizeof buffers[i]};
  EXPECT_EQ(recvmmsg(fd, messages.data(), 3, MSG_WAITFORONE, nullptr), 3);
  EXPECT_EQ(messages[0].msg_len, 4U);
  EXPECT_EQ(messages[2].msg_len, 3U);
  EXPECT_EQ(std::string(buffers[0], 4) + std::string(buffers[1], 4) + std::string(buffers[2], 3),
            "onetwothree");
  timespec wrong{.tv_sec = -1, .tv_nsec = 0};
  EXPECT_FAILS(EINVAL, recvmmsg(fd, messages.data(), 3, 0, &wrong));
}

TEST(Transfer, WaitForOneWaitsForNoMore) {
  Fd fd = connected("sleep 100 say x drain");
  char buffers[2][8];
  std::array<iovec, 2> parts{{{buffers[0], 8}, {buffers[1], 8}}};
  std::array<mmsghdr, 2> messages{};
  for (size_t i = 0; i < 2; ++i) {
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  EXPECT_EQ(recvmmsg(fd, messages.data(), 2, MSG_WAITFORONE, nullptr), 1);
  EXPECT_EQ(messages[0].msg_len, 1U);
}

TEST(Transfer, NonBlockingSendsFillAndBlock) {
  Fd fd = connected("sleep 1500 drain check sum", SOCK_NONBLOCK);
  size_t sent = fill(fd);
  EXPECT_GT(sent, 10'000U);
  EXPECT_EQ(poll_one(fd, POLLOUT, 0), 0);
  EXPECT_FAILS(EAGAIN, send(fd, "x", 1, 0));
  EXPECT_EQ(poll_one(fd, POLLOUT), POLLOUT) << "the peer reads at last";
  EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
  EXPECT_EQ(read_all(fd), "good\n" + std::to_string(sent) + "\n");
}

TEST(Transfer, ASendTimesOutWithWhatItHasDone) {
  Fd fd = connected("sleep 3000");
  set_timeout(fd, SO_SNDTIMEO, milliseconds(100));
  std::string bytes(64 << 20, 'x');
  Stopwatch watch;
  ssize_t n = send(fd, bytes.data(), bytes.size(), 0);
  EXPECT_GT(n, 0);
  EXPECT_LT(n, static_cast<ssize_t>(bytes.size()));
  EXPECT_GE(watch.elapsed(), milliseconds(90));
  EXPECT_LT(watch.elapsed(), milliseconds(1000));
  // What the peer's buffer still takes apart, the next finds nothing to do.
  for (int i = 0; i < 5 && n > 0; ++i) n = send(fd, bytes.data(), bytes.size(), 0);
  EXPECT_EQ(n, -1);
  EXPECT_EQ(errno, EAGAIN);
}

TEST(Transfer, AReceiveTimesOut) {
  Fd fd = connected("sleep 1500");
  set_timeout(fd, SO_RCVTIMEO, milliseconds(100));
  Stopwatch watch;
  char c;
  EXPECT_FAILS(EAGAIN, read(fd, &c, 1));
  EXPECT_GE(watch.elapsed(), milliseconds(90));
  EXPECT_LT(watch.elapsed(), milliseconds(1000));
}

TEST(Transfer, WaitAllTimesOutWithWhatItHas) {
  Fd fd = with_waiting(10, "sleep 1500");
  set_timeout(fd, SO_RCVTIMEO, milliseconds(100));
  char buffer[100];
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, MSG_WAITALL), 10);
}

TEST(Transfer, LowWaterMark) {
  Fd fd = connected("send 5 sleep 150 send 5 sleep 1000");
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_RCVLOWAT, 8));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_RCVLOWAT), 8);
  char buffer[100];
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, 0), 10);
}

TEST(Transfer, LowWaterMarkAndPoll) {
  Fd fd = tcp();
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_RCVLOWAT, 8));
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  ASSERT_TRUE(send_all(fd, "send 5 sleep 300 send 5 sleep 1000\n"));
  Stopwatch watch;
  EXPECT_EQ(poll_one(fd, POLLIN), POLLIN);
  EXPECT_GE(watch.elapsed(), milliseconds(250));
  char buffer[100];
  EXPECT_EQ(recv(fd, buffer, 4, 0), 4);
  EXPECT_EQ(poll_one(fd, POLLIN, 0), 0) << "6 are not enough";
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, MSG_DONTWAIT), 6);
}

TEST(Transfer, MoreHoldsBack) {
  Fd fd = connected("recv 2 say both");
  EXPECT_EQ(send(fd, "a", 1, MSG_MORE), 1);
  EXPECT_EQ(poll_one(fd, POLLIN, 100), 0);
  EXPECT_EQ(send(fd, "b", 1, 0), 1);
  EXPECT_EQ(read_all(fd), "both");
}

TEST(Transfer, UnknownFlagsAreIgnored) {
  Fd fd = connected("recv 1 say ok");
  EXPECT_EQ(send(fd, "x", 1, MSG_DONTROUTE | MSG_CONFIRM | MSG_EOR | 0x10000), 1);
  EXPECT_EQ(read_all(fd, 2), "ok");
}

TEST(Transfer, ErrorQueueIsEmpty) {
  Fd fd = with_waiting(10);
  char c;
  EXPECT_FAILS(EAGAIN, recv(fd, &c, 1, MSG_ERRQUEUE));
}

TEST(Transfer, HowMuchIsOnItsWay) {
  Fd fd = connected("recv 5 say ok drain");
  EXPECT_EQ(waiting(fd, SIOCOUTQ) >= 0, true);
  EXPECT_EQ(send(fd, "12345", 5, 0), 5);
  EXPECT_EQ(read_all(fd, 2), "ok");
  for (int i = 0; i < 100 && waiting(fd, SIOCOUTQ) != 0; ++i) poll_one(fd, POLLIN, 10);
  EXPECT_EQ(waiting(fd, SIOCOUTQ), 0);
  EXPECT_EQ(waiting(fd, SIOCOUTQNSD), 0);
  EXPECT_FAILS(EFAULT, ioctl(fd, FIONREAD, nullptr));
}

TEST(Transfer, SendFileFromAFile) {
  char path[] = "/tmp/api_test_XXXXXX";
  Fd file(mkstemp(path));
  ASSERT_GE(file, 0);
  unlink(path);
  std::string bytes = pattern(300'000);
  ASSERT_EQ(write(file, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  Fd fd = connected("recv 300000 check drain");
  off_t offset = 0;
  EXPECT_EQ(sendfile(fd, file, &offset, 100'000), 100'000);
  EXPECT_EQ(offset, 100'000);
  EXPECT_EQ(lseek(file, 0, SEEK_CUR), 300'000) << "with an offset the file's own position stays";
  lseek(file, 100'000, SEEK_SET);
  size_t sent = 100'000;
  for (ssize_t n; sent < 300'000 && (n = sendfile(fd, file, nullptr, 1'000'000)) > 0;)
    sent += static_cast<size_t>(n);
  EXPECT_EQ(sent, 300'000U);
  EXPECT_EQ(lseek(file, 0, SEEK_CUR), 300'000);
  EXPECT_EQ(sendfile(fd, file, nullptr, 1), 0) << "the file's end";
  EXPECT_EQ(read_all(fd, 5), "good\n");
  offset = -1;
  EXPECT_FAILS(EINVAL, sendfile(fd, file, &offset, 1));
  EXPECT_FAILS(EBADF, sendfile(fd, -1, nullptr, 1));
  EXPECT_FAILS(EINVAL, sendfile(fd, fd, nullptr, 1));
}

TEST(Urgent, AByteOutOfBand) {
  Fd fd = connected("say ab oob ! say cd sleep 1000");
  ASSERT_EQ(poll_one(fd, POLLPRI), POLLPRI);
  while (waiting(fd) < 2) poll_one(fd, POLLIN);
  char c = 0, buffer[10];
  EXPECT_EQ(recv(fd, &c, 1, MSG_OOB | MSG_PEEK), 1);
  EXPECT_EQ(recv(fd, &c, 1, MSG_OOB), 1);
  EXPECT_EQ(c, '!');
  EXPECT_FAILS(EINVAL, recv(fd, &c, 1, MSG_OOB));
  EXPECT_EQ(sockatmark(fd), 0);
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, 0), 2) << "a read stops at the mark";
  EXPECT_EQ(sockatmark(fd), 1);
  EXPECT_EQ(read_all(fd, 2), "cd");
  EXPECT_EQ(sockatmark(fd), 0);
}

TEST(Urgent, InLine) {
  Fd fd = tcp();
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1));
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  ASSERT_TRUE(send_all(fd, "say ab oob ! say cd sleep 1000\n"));
  ASSERT_EQ(poll_one(fd, POLLPRI), POLLPRI);
  while (waiting(fd) < 2) poll_one(fd, POLLIN);
  char c = 0;
  EXPECT_FAILS(EINVAL, recv(fd, &c, 1, MSG_OOB));
  EXPECT_EQ(read_all(fd, 5), "ab!cd");
}

TEST(Urgent, NoneThere) {
  Fd fd = with_waiting(10);
  char c;
  EXPECT_FAILS(EINVAL, recv(fd, &c, 1, MSG_OOB));
  EXPECT_EQ(sockatmark(fd), 0);
}

TEST(Urgent, IsSent) {
  Fd fd = connected("recv 2 sum drain");
  EXPECT_EQ(send(fd, "a", 1, 0), 1);
  EXPECT_EQ(send(fd, "bc", 2, MSG_OOB), 2);
  EXPECT_EQ(read_all(fd, 2), "2\n") << "the last byte is not in the stream";
}

TEST(Unconnected, EveryCallSaysSo) {
  Fd fd = tcp();
  char c = 0;
  EXPECT_FAILS(ENOTCONN, recv(fd, &c, 1, 0));
  EXPECT_FAILS(ENOTCONN, read(fd, &c, 1));
  EXPECT_FAILS(EPIPE, send(fd, &c, 1, MSG_NOSIGNAL));
  EXPECT_FAILS(EPIPE, sendto(fd, &c, 1, MSG_NOSIGNAL, peer().get(), Address::size));
  EXPECT_FAILS(ENOTCONN, shutdown(fd, SHUT_RDWR));
}

TEST(FastOpen, ConnectsAndSends) {
  Fd fd = tcp();
  std::string script = "say opened\n";
  ASSERT_EQ(sendto(fd, script.data(), script.size(), MSG_FASTOPEN, peer().get(), Address::size),
            static_cast<ssize_t>(script.size()))
      << strerror(errno);
  EXPECT_EQ(read_all(fd), "opened");
  EXPECT_FAILS(EISCONN,
               sendto(connected("drain"), "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, peer().get(), Address::size));
}

}  // namespace
}  // namespace api
