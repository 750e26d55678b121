// poll, ppoll, select and pselect, over sockets and the kernel's descriptors mixed.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "tests/api/support.h"

namespace api {
namespace {

struct Pipe {
  Pipe() {
    int fds[2] = {-1, -1};
    EXPECT_EQ(pipe(fds), 0);
    out = Fd(fds[0]);
    in = Fd(fds[1]);
  }
  Fd in, out;
};

TEST(Readiness, OfAFreshSocket) {
  Fd fd = tcp();
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0), POLLOUT | POLLHUP);
}

TEST(Readiness, OfABoundSocket) {
  Fd fd = tcp();
  ASSERT_WORKS(bind(fd, local().get(), Address::size));
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT, 0), POLLOUT | POLLHUP);
}

TEST(Readiness, OfAListener) {
  Fd fd = listening();
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT | POLLRDHUP, 0), 0);
  Fd control = connected("call " + std::to_string(name_of(fd).port()) + " drain");
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT), POLLIN);
}

TEST(Readiness, OfAConnection) {
  Fd fd = connected("sleep 50 say x sleep 100 recv 1");
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT, 0), POLLOUT);
  EXPECT_EQ(poll_one(fd, POLLIN), POLLIN);
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM),
            POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
  EXPECT_EQ(poll_one(fd, 0, 0), 0);
}

TEST(Readiness, WhenThePeerHasEnded) {
  Fd fd = connected("fin sleep 200");
  EXPECT_EQ(poll_one(fd, POLLRDHUP), POLLRDHUP);
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP);
  shutdown(fd, SHUT_WR);
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT | POLLRDHUP), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}

TEST(Readiness, WhenWeHaveEnded) {
  Fd fd = connected("sleep 500");
  shutdown(fd, SHUT_WR);
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT | POLLRDHUP, 0), POLLOUT);
  shutdown(fd, SHUT_RD);
  EXPECT_EQ(poll_one(fd, POLLIN | POLLOUT | POLLRDHUP, 0), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
}

TEST(Poll, TimeOuts) {
  Fd fd = connected("sleep 1000");
  Stopwatch watch;
  EXPECT_EQ(poll_one(fd, POLLIN, 0), 0);
  EXPECT_LT(watch.elapsed(), milliseconds(50));
  EXPECT_EQ(poll_one(fd, POLLIN, 100), 0);
  EXPECT_GE(watch.elapsed(), milliseconds(99));
  EXPECT_LT(watch.elapsed(), milliseconds(800));
  pollfd one{fd, POLLIN, 0x55};
  timespec brief{.tv_sec = 0, .tv_nsec = 2'000'000};
  EXPECT_EQ(ppoll(&one, 1, &brief, nullptr), 0);
  EXPECT_EQ(one.revents, 0);
  EXPECT_EQ(brief.tv_nsec, 2'000'000) << "the caller's time stays as it is";
  timespec wrong{.tv_sec = 0, .tv_nsec = 1'000'000'000};
  EXPECT_FAILS(EINVAL, ppoll(&one, 1, &wrong, nullptr));
}

TEST(Poll, IgnoredAndUnknownDescriptors) {
  Fd fd = connected("drain");
  int closed = dup(fd);
  close(closed);
  pollfd fds[3] = {{-1, POLLIN, 0x55}, {fd, POLLOUT, 0}, {closed, POLLIN, 0}};
  EXPECT_EQ(poll(fds, 3, 1000), 2);
  EXPECT_EQ(fds[0].revents, 0);
  EXPECT_EQ(fds[1].revents, POLLOUT);
  EXPECT_EQ(fds[2].revents, POLLNVAL);
}

TEST(Poll, ManyOfTheSame) {
  Fd fd = connected("sleep 1000");
  pollfd fds[2] = {{fd, POLLIN, 0}, {fd, POLLOUT, 0}};
  EXPECT_EQ(poll(fds, 2, 1000), 1);
  EXPECT_EQ(fds[0].revents, 0);
  EXPECT_EQ(fds[1].revents, POLLOUT);
}

TEST(Poll, KernelsAndOursInOneWait) {
  Pipe pipe;
  Fd fd = connected("sleep 100 say x sleep 1000");
  pollfd fds[2] = {{pipe.out, POLLIN, 0}, {fd, POLLIN, 0}};
  EXPECT_EQ(poll(fds, 2, 5000), 1) << "the socket";
  EXPECT_EQ(fds[1].revents, POLLIN);
  char c;
  EXPECT_EQ(read(fd, &c, 1), 1);
  {
    Later later(milliseconds(100), [&] { (void)!write(pipe.in, "x", 1); });
    EXPECT_EQ(poll(fds, 2, 5000), 1) << "the pipe";
  }
  EXPECT_EQ(fds[0].revents, POLLIN);
  EXPECT_EQ(fds[1].revents, 0);
}

TEST(Poll, SeveralOfTheKernelsWithSeveralEvents) {
  Pipe a, b;
  Fd full = Fd(eventfd(0, 0));
  Fd fd = connected("sleep 2000");
  pollfd fds[5] = {{a.out, POLLIN, 0},
                   {b.out, POLLIN | POLLPRI, 0},
                   {full, POLLIN, 0},
                   {fd, POLLIN, 0},
                   {a.out, POLLPRI, 0}};
  {
    Later later(milliseconds(100), [&] { (void)!write(b.in, "x", 1); });
    EXPECT_EQ(poll(fds, 5, 5000), 1);
    EXPECT_EQ(fds[1].revents, POLLIN);
  }
  char c;
  EXPECT_EQ(read(b.out, &c, 1), 1);
  {
    Later later(milliseconds(100), [&] { a.in.reset(); });
    EXPECT_EQ(poll(fds, 5, 5000), 2);
    EXPECT_EQ(fds[0].revents, POLLHUP);
    EXPECT_EQ(fds[4].revents, POLLHUP);
  }
}

TEST(Poll, ADescriptorsNumberIsUsedAgain) {
  // What was watched under a number before must not be taken for what has it now.
  Fd fd = connected("sleep 3000");
  for (int round = 0; round < 5; ++round) {
    Pipe pipe, other;
    pollfd fds[3] = {{pipe.out, POLLIN, 0}, {other.out, POLLIN, 0}, {fd, POLLIN, 0}};
    EXPECT_EQ(poll(fds, 3, 5), 0);
    Later later(milliseconds(30), [&] { (void)!write(round % 2 == 0 ? pipe.in : other.in, "x", 1); });
    EXPECT_EQ(poll(fds, 3, 5000), 1);
  }
}

TEST(Poll, AlwaysReadyFilesOfTheKernel) {
  Fd null(open("/dev/null", O_RDWR)), file(open("/proc/self/exe", O_RDONLY));
  Fd fd = connected("sleep 1000");
  pollfd fds[3] = {{null, POLLIN, 0}, {file, POLLIN | POLLOUT, 0}, {fd, POLLIN, 0}};
  EXPECT_EQ(poll(fds, 3, 5000), 2);
  pollfd idle[2] = {{file, 0, 0}, {fd, POLLIN, 0}};
  EXPECT_EQ(poll(idle, 2, 50), 0);
}

TEST(Poll, HundredsOfDescriptors) {
  std::vector<Fd> sockets;
  std::vector<pollfd> fds;
  Fd listener = listening(200);
  Fd control = connected("dial 100 " + std::to_string(name_of(listener).port()) + " sleep 3000");
  for (int i = 0; i < 100; ++i) {
    sockets.emplace_back(accept(listener, nullptr, nullptr));
    ASSERT_GE(sockets.back(), 0);
    fds.push_back({sockets.back(), POLLIN, 0});
  }
  Pipe pipe;
  fds.push_back({pipe.out, POLLIN, 0});
  EXPECT_EQ(poll(fds.data(), fds.size(), 20), 0);
  Later later(milliseconds(50), [&] { shutdown(sockets[70], SHUT_RD); });
  EXPECT_EQ(poll(fds.data(), fds.size(), 5000), 1);
  EXPECT_EQ(fds[70].revents, POLLIN);
}

TEST(Poll, BadArguments) {
  Fd fd = tcp();
  EXPECT_FAILS(EFAULT, poll(reinterpret_cast<pollfd*>(-4096L), 1, 0));
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  rlimit low{.rlim_cur = 64, .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  std::vector<pollfd> many(65, pollfd{fd, POLLOUT, 0});
  EXPECT_FAILS(EINVAL, poll(many.data(), many.size(), 0));
  EXPECT_EQ(poll(many.data(), 64, 0), 64);
  setrlimit(RLIMIT_NOFILE, &limit);
}

TEST(Poll, ASignalEndsIt) {
  Handler handler(SIGUSR1, SA_RESTART);
  Fd fd = connected("sleep 2000");
  pthread_t self = pthread_self();
  Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
  pollfd one{fd, POLLIN, 0};
  EXPECT_FAILS(EINTR, poll(&one, 1, 5000));
  EXPECT_EQ(handler.count(), 1);
}

class Blocked {
 public:
  explicit Blocked(int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  ~Blocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  const sigset_t* before() const { return &before_; }

 private:
  sigset_t before_;
};

TEST(Poll, SignalsAreUnblockedForTheWaitOnly) {
  Handler handler(SIGUSR1, 0);
  Blocked blocked(SIGUSR1);
  Fd fd = connected("sleep 3000");
  pthread_kill(pthread_self(), SIGUSR1);
  pollfd one{fd, POLLIN, 0};
  EXPECT_EQ(poll(&one, 1, 20), 0);
  EXPECT_EQ(handler.count(), 0) << "blocked";
  timespec time{.tv_sec = 5, .tv_nsec = 0};
  EXPECT_FAILS(EINTR, ppoll(&one, 1, &time, blocked.before()));
  EXPECT_EQ(handler.count(), 1);
  pthread_t self = pthread_self();
  Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
  EXPECT_FAILS(EINTR, ppoll(&one, 1, &time, blocked.before()));
  EXPECT_EQ(handler.count(), 2);
  pthread_kill(self, SIGUSR1);
  one.events = POLLOUT;
  EXPECT_EQ(ppoll(&one, 1, &time, blocked.before()), 1) << "what is ready goes first";
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGUSR1), 1);
}

// What comes at just the wrong moment, while a call looks at one descriptor after the other or is about to
// sleep.

constexpr int kRaceWaitMs = 1000;

int wait_by_poll(Fd&, int one, int other) {
  pollfd fds[2] = {{one, POLLIN, 0}, {other, POLLIN, 0}};
  return poll(fds, 2, kRaceWaitMs);
}

int wait_by_select(Fd&, int one, int other) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(one, &set);
  FD_SET(other, &set);
  timeval limit{kRaceWaitMs / 1000, 0};
  return select(std::max(one, other) + 1, &set, nullptr, nullptr, &limit);
}

Fd set_of(int one, int other, uint32_t events) {
  Fd set = Fd(epoll_create1(0));
  for (int fd : {one, other}) {
    epoll_event event{events, {.fd = fd}};
    EXPECT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  }
  return set;
}

/// `set` is made once: what is asked is about sets that live on.
template <uint32_t kFlags>
int wait_by_epoll(Fd& set, int one, int other) {
  if (set < 0) set = set_of(one, other, EPOLLIN | kFlags);
  epoll_event events[2];
  return epoll_wait(set, events, 2, kRaceWaitMs);
}

int wait_by_poll_of_a_set(Fd&, int one, int other) {
  Fd inner = set_of(one, other, EPOLLIN);
  pollfd set{inner, POLLIN, 0};
  return poll(&set, 1, kRaceWaitMs);
}

struct RacingWait {
  const char* name;
  int (*wait)(Fd& set, int one, int other);
};

/// A connection inside the host, and both its ends.
struct Connection {
  Connection() {
    Fd listener = listening();
    reader = tcp();
    const Address address = name_of(listener);
    EXPECT_EQ(connect(reader, address.get(), Address::size), 0);
    writer = accept(listener, nullptr, nullptr);
    EXPECT_GE(writer, 0);
  }
  Fd reader, writer;
};

class Race : public testing::TestWithParam<RacingWait> {
 protected:
  /// Another thread writes to one of the two in turns, at a moment that moves.
  void run(std::array<int, 2> readers, std::array<int, 2> writers) {
    constexpr int kRounds = 2000;
    std::atomic<int> round{0};
    std::thread writing([&] {
      for (int i = 1; i <= kRounds; ++i) {
        while (round.load() < i) std::this_thread::yield();
        for (int pause = i % 256; pause > 0; --pause) (void)round.load();
        EXPECT_EQ(write(writers[static_cast<size_t>(i % 2)], "x", 1), 1);
      }
    });
    Fd set;
    int late = 0;
    for (int i = 1; i <= kRounds && late == 0 && !HasFailure(); ++i) {
      round.store(i);
      const auto begin = std::chrono::steady_clock::now();
      EXPECT_EQ(GetParam().wait(set, readers[0], readers[1]), 1);
      late += std::chrono::steady_clock::now() - begin >= milliseconds(kRaceWaitMs);
      char c;
      EXPECT_EQ(read(readers[static_cast<size_t>(i % 2)], &c, 1), 1);
    }
    EXPECT_EQ(late, 0) << "it was there, and the wait went on";
    round.store(kRounds);
    writing.join();
  }
  Connection connection;
};

INSTANTIATE_TEST_SUITE_P(Waits, Race,
                         testing::Values(RacingWait{"poll", wait_by_poll},
                                         RacingWait{"select", wait_by_select},
                                         RacingWait{"epoll", wait_by_epoll<0>},
                                         RacingWait{"edge_triggered", wait_by_epoll<EPOLLET>},
                                         RacingWait{"poll_of_a_set", wait_by_poll_of_a_set}),
                         [](const auto& each) { return std::string(each.param.name); });

TEST_P(Race, BetweenASocketAndThePipe) {
  Pipe pipe;
  run({connection.reader, pipe.out}, {connection.writer, pipe.in});
}

TEST_P(Race, BetweenTwoSockets) {
  Connection second;
  run({connection.reader, second.reader}, {connection.writer, second.writer});
}

TEST_P(Race, BetweenASocketAndAPipeWhileAnotherThreadDrives) {
  Fd idle = connected("sleep 5000");
  std::thread driving([&] {
    char c;
    EXPECT_EQ(read(idle, &c, 1), 0);
  });
  Pipe pipe;
  run({connection.reader, pipe.out}, {connection.writer, pipe.in});
  shutdown(idle, SHUT_RD);
  driving.join();
}

TEST(Select, ReadAndWriteSets) {
  Fd fd = connected("sleep 100 say x sleep 1000");
  fd_set in, out, except;
  auto prepare = [&] {
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_ZERO(&except);
    FD_SET(fd, &in);
    FD_SET(fd, &except);
  };
  prepare();
  timeval time{.tv_sec = 5, .tv_usec = 0};
  EXPECT_EQ(select(fd + 1, &in, &out, &except, &time), 1);
  EXPECT_TRUE(FD_ISSET(fd, &in));
  EXPECT_FALSE(FD_ISSET(fd, &except));
  EXPECT_LT(time.tv_sec, 5) << "the time left";
  EXPECT_GT(time.tv_sec, 2);
  prepare();
  FD_SET(fd, &out);
  EXPECT_EQ(select(fd + 1, &in, &out, &except, &time), 2) << "each bit counts";
  prepare();
  EXPECT_EQ(select(fd, &in, &out, nullptr, &(time = {0, 20'000})), 0) << "beyond the count";
  EXPECT_FALSE(FD_ISSET(fd, &out));
}

TEST(Select, MixedWithTheKernels) {
  Pipe pipe;
  Fd fd = connected("sleep 2000");
  fd_set in;
  FD_ZERO(&in);
  FD_SET(fd, &in);
  FD_SET(pipe.out, &in);
  int highest = std::max<int>(fd, pipe.out);
  timeval time{.tv_sec = 5, .tv_usec = 0};
  Later later(milliseconds(100), [&] { (void)!write(pipe.in, "x", 1); });
  EXPECT_EQ(select(highest + 1, &in, nullptr, nullptr, &time), 1);
  EXPECT_TRUE(FD_ISSET(pipe.out, &in));
  EXPECT_FALSE(FD_ISSET(fd, &in));
}

TEST(Select, Errors) {
  Fd fd = connected("sleep 500");
  int closed = dup(fd);
  close(closed);
  fd_set in;
  FD_ZERO(&in);
  FD_SET(fd, &in);
  FD_SET(closed, &in);
  timeval time{.tv_sec = 1, .tv_usec = 0};
  EXPECT_FAILS(EBADF, select(closed + 1, &in, nullptr, nullptr, &time));
  FD_CLR(closed, &in);
  EXPECT_FAILS(EINVAL, select(-1, &in, nullptr, nullptr, &time));
  time = {.tv_sec = -1, .tv_usec = 0};
  EXPECT_FAILS(EINVAL, select(fd + 1, &in, nullptr, nullptr, &time));
  timespec wrong{.tv_sec = 0, .tv_nsec = -1};
  EXPECT_FAILS(EINVAL, pselect(fd + 1, &in, nullptr, nullptr, &wrong, nullptr));
}

TEST(Select, WithSignals) {
  Handler handler(SIGUSR1, SA_RESTART);
  Blocked blocked(SIGUSR1);
  Fd fd = connected("sleep 3000");
  fd_set in;
  FD_ZERO(&in);
  FD_SET(fd, &in);
  timespec time{.tv_sec = 5, .tv_nsec = 0};
  pthread_t self = pthread_self();
  Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
  EXPECT_FAILS(EINTR, pselect(fd + 1, &in, nullptr, nullptr, &time, blocked.before()));
  EXPECT_EQ(handler.count(), 1);
}

TEST(Select, AConnectUnderWay) {
  Fd fd = tcp(SOCK_NONBLOCK);
  EXPECT_FAILS(EINPROGRESS, connect(fd, nobody().get(), Address::size));
  fd_set out;
  FD_ZERO(&out);
  FD_SET(fd, &out);
  timeval time{.tv_sec = 5, .tv_usec = 0};
  EXPECT_EQ(select(fd + 1, nullptr, &out, nullptr, &time), 1);
  EXPECT_EQ(pending_error(fd), ECONNREFUSED);
}

}  // namespace
}  // namespace api
