// shutdown, close, resets, SIGPIPE: how connections end.
#include <fcntl.h>
#include <sys/ioctl.h>

#include "tests/api/support.h"

namespace api {
namespace {

TEST(Ending, ThePeersEndIsReadAsZero) {
  Fd fd = connected("say bye");
  EXPECT_EQ(read_all(fd), "bye");
  char c;
  EXPECT_EQ(read(fd, &c, 1), 0);
  EXPECT_EQ(recv(fd, &c, 1, MSG_DONTWAIT), 0) << "as often as one asks";
  EXPECT_EQ(recv(fd, &c, 1, MSG_PEEK), 0);
}

TEST(Ending, HalfClosedByUs) {
  Fd fd = connected("drain sum");
  EXPECT_EQ(send(fd, "12345", 5, 0), 5);
  ASSERT_WORKS(shutdown(fd, SHUT_WR));
  EXPECT_FAILS(EPIPE, send(fd, "x", 1, MSG_NOSIGNAL));
  EXPECT_EQ(read_all(fd), "5\n");
}

TEST(Ending, HalfClosedByThePeer) {
  Fd fd = connected("say first fin recv 5 sleep 50");
  EXPECT_EQ(read_all(fd), "first");
  EXPECT_EQ(send(fd, "12345", 5, MSG_NOSIGNAL), 5);
}

TEST(Ending, ShutdownOfReading) {
  Fd fd = connected("echo");
  ASSERT_WORKS(shutdown(fd, SHUT_RD));
  char c;
  EXPECT_EQ(read(fd, &c, 1), 0);
  EXPECT_EQ(poll_one(fd, POLLIN | POLLRDHUP, 0), POLLIN | POLLRDHUP);
  // TCP has no word for it: what still comes is taken.
  EXPECT_EQ(send(fd, "x", 1, MSG_NOSIGNAL), 1);
  EXPECT_EQ(poll_one(fd, POLLIN), POLLIN);
}

TEST(Ending, ShutdownErrors) {
  Fd fd = tcp();
  EXPECT_FAILS(ENOTCONN, shutdown(fd, SHUT_WR));
  EXPECT_FAILS(EINVAL, shutdown(fd, 3));
  EXPECT_FAILS(EINVAL, shutdown(fd, -1));
  EXPECT_FAILS(EBADF, shutdown(-1, SHUT_WR));
  Fd both = connected("sleep 200");
  EXPECT_WORKS(shutdown(both, SHUT_RDWR));
  EXPECT_WORKS(shutdown(both, SHUT_RDWR));
}

TEST(Ending, ShutdownWakesABlockedReader) {
  Fd fd = connected("sleep 3000");
  Later later(milliseconds(100), [&] { shutdown(fd, SHUT_RD); });
  char c;
  Stopwatch watch;
  EXPECT_EQ(read(fd, &c, 1), 0);
  EXPECT_LT(watch.elapsed(), milliseconds(1500));
}

TEST(Ending, ShutdownWakesABlockedAccept) {
  Fd listener = listening();
  Later later(milliseconds(100), [&] { shutdown(listener, SHUT_RDWR); });
  EXPECT_FAILS(EINVAL, accept(listener, nullptr, nullptr));
}

TEST(Ending, ShutdownWakesABlockedWriter) {
  Fd fd = connected("sleep 3000");
  fill(fd);
  Later later(milliseconds(100), [&] { shutdown(fd, SHUT_WR); });
  std::string bytes(64 << 20, 'x');
  Stopwatch watch;
  EXPECT_LT(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  EXPECT_LT(watch.elapsed(), milliseconds(1500));
  EXPECT_FAILS(EPIPE, send(fd, "x", 1, MSG_NOSIGNAL));
}

TEST(Ending, AResetIsToldOnce) {
  Fd fd = connected("reset");
  EXPECT_EQ(poll_one(fd, POLLIN) & POLLIN, POLLIN);
  char c;
  EXPECT_FAILS(ECONNRESET, read(fd, &c, 1));
  EXPECT_EQ(read(fd, &c, 1), 0);
  EXPECT_FAILS(EPIPE, send(fd, &c, 1, MSG_NOSIGNAL));
}

TEST(Ending, AResetIsToldToTheWriter) {
  Fd fd = connected("reset");
  ASSERT_NE(poll_one(fd, POLLIN), 0);
  EXPECT_FAILS(ECONNRESET, send(fd, "x", 1, MSG_NOSIGNAL));
  EXPECT_FAILS(EPIPE, send(fd, "x", 1, MSG_NOSIGNAL));
}

TEST(Ending, AResetIsAPendingError) {
  Fd fd = connected("reset");
  ASSERT_NE(poll_one(fd, 0), 0);
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT | POLLRDHUP, 0), POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP);
  EXPECT_EQ(pending_error(fd), ECONNRESET);
  EXPECT_EQ(pending_error(fd), 0);
  char c;
  EXPECT_EQ(read(fd, &c, 1), 0);
}

TEST(Ending, AResetWakesABlockedReader) {
  Fd fd = connected("sleep 100 reset");
  char c;
  EXPECT_FAILS(ECONNRESET, read(fd, &c, 1));
}

TEST(Ending, ThePeerIsGone) {
  Fd fd = connected("say x");
  EXPECT_EQ(read_all(fd), "x");
  EXPECT_EQ(send(fd, "y", 1, MSG_NOSIGNAL), 1) << "the first is answered by a reset";
  ASSERT_EQ(poll_one(fd, 0) & POLLERR, POLLERR);
  EXPECT_FAILS(EPIPE, send(fd, "z", 1, MSG_NOSIGNAL));
}

TEST(Ending, ClosingUnreadDataResets) {
  Incoming in = incoming("send 1000 recv 1 sum");
  ASSERT_EQ(poll_one(in.fd, POLLIN), POLLIN);
  in.fd.reset();
  SUCCEED();
}

TEST(Ending, LingerWithZeroResets) {
  Fd fd = connected("sleep 1");
  linger now{1, 0};
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_LINGER, now));
  Stopwatch watch;
  fd.reset();
  EXPECT_LT(watch.elapsed(), milliseconds(500));
}

TEST(Ending, LingerWaitsForDelivery) {
  Fd fd = connected("sleep 1500 drain");
  linger some{1, 5};
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_LINGER, some));
  fill(fd);
  Stopwatch watch;
  fd.reset();
  EXPECT_GE(watch.elapsed(), milliseconds(1));
  EXPECT_LT(watch.elapsed(), milliseconds(4000));
}

TEST(Ending, LingerGivesUp) {
  Fd fd = connected("sleep 3000");
  linger some{1, 1};
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_LINGER, some));
  fill(fd);
  Stopwatch watch;
  EXPECT_EQ(close(std::exchange(fd, Fd()).operator int()), 0);
  EXPECT_GE(watch.elapsed(), milliseconds(900));
  EXPECT_LT(watch.elapsed(), milliseconds(2500));
}

TEST(SigPipe, IsRaisedInTheThread) {
  Handler handler(SIGPIPE, 0);
  Fd fd = connected("sleep 100");
  shutdown(fd, SHUT_WR);
  EXPECT_FAILS(EPIPE, send(fd, "x", 1, MSG_NOSIGNAL));
  EXPECT_EQ(handler.count(), 0);
  EXPECT_FAILS(EPIPE, send(fd, "x", 1, 0));
  EXPECT_EQ(handler.count(), 1);
  EXPECT_EQ(handler.last_thread(), pthread_self());
  EXPECT_FAILS(EPIPE, write(fd, "x", 1));
  EXPECT_EQ(handler.count(), 2);
  pthread_t other{};
  {
    Later later(milliseconds(0), [&] {
      other = pthread_self();
      EXPECT_FAILS(EPIPE, write(fd, "x", 1));
    });
  }
  EXPECT_EQ(handler.count(), 3);
  EXPECT_EQ(handler.last_thread(), other);
}

TEST(SigPipe, OnAnUnconnectedSocketToo) {
  Handler handler(SIGPIPE, 0);
  Fd fd = tcp();
  EXPECT_FAILS(EPIPE, write(fd, "x", 1));
  EXPECT_EQ(handler.count(), 1);
}

TEST(SigPipe, BlockedStaysPending) {
  Handler handler(SIGPIPE, 0);
  sigset_t pipe, before, pending;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  Fd fd = tcp();
  EXPECT_FAILS(EPIPE, write(fd, "x", 1));
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 1);
  EXPECT_EQ(handler.count(), 0);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(handler.count(), 1);
}

TEST(SigPipe, EndsAProgramThatDoesNotCare) {
  EXPECT_EXIT(
      {
        signal(SIGPIPE, SIG_DFL);
        Fd fd = tcp();
        (void)!write(fd, "x", 1);
        _exit(0);
      },
      ::testing::KilledBySignal(SIGPIPE), "");
}

}  // namespace
}  // namespace api
