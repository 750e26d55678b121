// epoll, over sockets and the kernel's descriptors mixed.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

#include "tests/api/support.h"

namespace api {
namespace {

class Epoll {
 public:
  Epoll() : set(epoll_create1(EPOLL_CLOEXEC)) { EXPECT_GE(set, 0); }
  int control(int operation, int fd, uint32_t events, uint64_t data) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = data;
    return epoll_ctl(set, operation, fd, &event);
  }
  void add(int fd, uint32_t events, uint64_t data) { EXPECT_WORKS(control(EPOLL_CTL_ADD, fd, events, data)); }
  void modify(int fd, uint32_t events, uint64_t data) {
    EXPECT_WORKS(control(EPOLL_CTL_MOD, fd, events, data));
  }
  void remove(int fd) { EXPECT_WORKS(epoll_ctl(set, EPOLL_CTL_DEL, fd, nullptr)); }

  /// "1:i 2:io", sorted; "" at the end of the time.
  std::string wait(int ms = 5000, int room = 16) {
    std::array<epoll_event, 16> events;
    int n = epoll_wait(set, events.data(), room, ms);
    if (n < 0) return strerror(errno);
    std::vector<std::string> words;
    for (int i = 0; i < n; ++i) {
      const epoll_event& e = events[static_cast<size_t>(i)];
      std::string word = std::to_string(uint64_t{e.data.u64}) + ":";
      for (auto [bit, letter] : {std::pair{EPOLLIN, 'i'},
                                 {EPOLLOUT, 'o'},
                                 {EPOLLPRI, 'p'},
                                 {EPOLLERR, 'e'},
                                 {EPOLLHUP, 'h'},
                                 {EPOLLRDHUP, 'r'}})
        if ((e.events & static_cast<uint32_t>(bit)) != 0) word += letter;
      words.push_back(word);
    }
    std::sort(words.begin(), words.end());
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
    return text;
  }

  Fd set;
};

TEST(Epoll, ReportsWhatIsReady) {
  Epoll epoll;
  Fd fd = connected("sleep 100 say x sleep 500");
  epoll.add(fd, EPOLLIN, 1);
  EXPECT_EQ(epoll.wait(0), "");
  EXPECT_EQ(epoll.wait(), "1:i");
  EXPECT_EQ(epoll.wait(), "1:i") << "level-triggered";
  char c;
  EXPECT_EQ(read(fd, &c, 1), 1);
  EXPECT_EQ(epoll.wait(0), "");
  epoll.modify(fd, EPOLLIN | EPOLLOUT, 2);
  EXPECT_EQ(epoll.wait(), "2:o");
  epoll.remove(fd);
  EXPECT_EQ(epoll.wait(0), "");
}

TEST(Epoll, ErrorsOfControl) {
  Epoll epoll;
  Fd fd = tcp();
  epoll_event event{};
  EXPECT_FAILS(ENOENT, epoll.control(EPOLL_CTL_MOD, fd, EPOLLIN, 1));
  EXPECT_FAILS(ENOENT, epoll_ctl(epoll.set, EPOLL_CTL_DEL, fd, nullptr));
  epoll.add(fd, EPOLLIN, 1);
  EXPECT_FAILS(EEXIST, epoll.control(EPOLL_CTL_ADD, fd, EPOLLIN, 1));
  EXPECT_FAILS(EINVAL, epoll.control(4711, fd, EPOLLIN, 1));
  EXPECT_FAILS(EFAULT, epoll_ctl(epoll.set, EPOLL_CTL_ADD, fd, nullptr));
  EXPECT_FAILS(EFAULT, epoll_ctl(epoll.set, EPOLL_CTL_MOD, fd, nullptr));
  EXPECT_FAILS(EINVAL, epoll_ctl(fd, EPOLL_CTL_ADD, epoll.set, &event));
  EXPECT_FAILS(EINVAL, epoll_ctl(fd, EPOLL_CTL_ADD, fd, &event));
  EXPECT_FAILS(EINVAL, epoll_ctl(epoll.set, EPOLL_CTL_ADD, epoll.set, &event));
  EXPECT_FAILS(EBADF, epoll_ctl(-1, EPOLL_CTL_ADD, fd, &event));
  EXPECT_FAILS(EBADF, epoll_ctl(epoll.set, EPOLL_CTL_ADD, -1, &event));
  Fd file(open("/proc/self/exe", O_RDONLY));
  EXPECT_FAILS(EPERM, epoll_ctl(epoll.set, EPOLL_CTL_ADD, file, &event));
  EXPECT_FAILS(EINVAL, epoll.control(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLEXCLUSIVE, 1));
  Fd other = tcp();
  EXPECT_FAILS(EINVAL, epoll.control(EPOLL_CTL_ADD, other, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1));
}

TEST(Epoll, ErrorsOfWait) {
  Epoll epoll;
  Fd fd = tcp();
  epoll.add(fd, EPOLLIN, 1);
  epoll_event event;
  EXPECT_FAILS(EINVAL, epoll_wait(epoll.set, &event, 0, 0));
  EXPECT_FAILS(EINVAL, epoll_wait(epoll.set, &event, minus_one(), 0));
  EXPECT_FAILS(EFAULT, epoll_wait(epoll.set, reinterpret_cast<epoll_event*>(-4096L), 1, 0));
  EXPECT_FAILS(EFAULT, epoll_wait(epoll.set, static_cast<epoll_event*>(nowhere()), 1, 0));
  EXPECT_FAILS(EINVAL, epoll_wait(fd, &event, 1, 0));
  EXPECT_FAILS(EBADF, epoll_wait(-1, &event, 1, 0));
  EXPECT_FAILS(EINVAL, epoll_create1(0x55));
  EXPECT_FAILS(EINVAL, epoll_create(0));
}

TEST(Epoll, AFreshSocketHangsUp) {
  Epoll epoll;
  Fd fd = tcp();
  epoll.add(fd, EPOLLIN | EPOLLOUT, 1);
  EXPECT_EQ(epoll.wait(), "1:oh");
}

TEST(Epoll, EdgeTriggered) {
  Epoll epoll;
  Fd fd = connected("say x recv 1 say y recv 1 say z sleep 500");
  epoll.add(fd, EPOLLIN | EPOLLOUT | EPOLLET, 1);
  std::string first = epoll.wait();
  if (first == "1:o") first = epoll.wait();
  EXPECT_EQ(first, "1:io");
  EXPECT_EQ(epoll.wait(20), "") << "nothing new";
  EXPECT_EQ(write(fd, "1", 1), 1);
  EXPECT_EQ(epoll.wait(), "1:io") << "more has come, though the first is not read";
  epoll.modify(fd, EPOLLIN | EPOLLET, 2);
  EXPECT_EQ(epoll.wait(), "2:i") << "armed again";
  EXPECT_EQ(epoll.wait(20), "");
}

TEST(Epoll, EdgeTriggeredWritability) {
  Epoll epoll;
  Fd fd = connected("sleep 1500 drain", SOCK_NONBLOCK);
  epoll.add(fd, EPOLLOUT | EPOLLET, 1);
  EXPECT_EQ(epoll.wait(), "1:o");
  fill(fd);
  EXPECT_EQ(epoll.wait(20), "");
  EXPECT_EQ(epoll.wait(), "1:o") << "the peer reads at last";
}

TEST(Epoll, OneShot) {
  Epoll epoll;
  Fd fd = connected("say x sleep 500");
  epoll.add(fd, EPOLLIN | EPOLLONESHOT, 1);
  EXPECT_EQ(epoll.wait(), "1:i");
  EXPECT_EQ(epoll.wait(20), "");
  epoll.modify(fd, EPOLLIN | EPOLLONESHOT, 2);
  EXPECT_EQ(epoll.wait(), "2:i");
}

TEST(Epoll, TheEndsOfAConnection) {
  Epoll epoll;
  Fd half = connected("fin sleep 300");
  epoll.add(half, EPOLLIN | EPOLLRDHUP, 1);
  EXPECT_EQ(epoll.wait(), "1:ir");
  epoll.remove(half);
  Fd reset = connected("reset");
  epoll.add(reset, 0, 2);
  EXPECT_EQ(epoll.wait(), "2:eh");
  epoll.modify(reset, EPOLLIN | EPOLLOUT | EPOLLRDHUP, 2);
  EXPECT_EQ(epoll.wait(), "2:ioehr");
}

TEST(Epoll, MixedWithTheKernels) {
  Epoll epoll;
  Fd event(eventfd(0, EFD_NONBLOCK));
  Fd fd = connected("sleep 100 say x sleep 2000");
  epoll.add(event, EPOLLIN, 1);
  epoll.add(fd, EPOLLIN, 2);
  EXPECT_EQ(epoll.wait(), "2:i");
  {
    Later later(milliseconds(50), [&] { eventfd_write(event, 1); });
    char c;
    EXPECT_EQ(read(fd, &c, 1), 1);
    EXPECT_EQ(epoll.wait(), "1:i");
  }
  EXPECT_EQ(epoll.wait(), "1:i");
  eventfd_t value;
  eventfd_read(event, &value);
  EXPECT_EQ(epoll.wait(20), "");
  epoll.modify(fd, EPOLLOUT, 3);
  eventfd_write(event, 1);
  EXPECT_EQ(epoll.wait(), "1:i 3:o") << "both in one wait, each once";
}

TEST(Epoll, WhoPollsAfterManyWaitsGetsWhatComes) {
  std::string script;
  for (int i = 0; i < 20; ++i) script += "say x sleep 5 ";
  Fd fd = connected(script + "sleep 100 say y sleep 1000");
  Epoll epoll;
  epoll.add(fd, EPOLLIN, 1);
  char c = 0;
  for (int said = 0; said < 20;) {
    ASSERT_EQ(epoll.wait(), "1:i");
    // A slow machine may have several ready.
    const int before = said;
    while (said < 20 && recv(fd, &c, 1, MSG_DONTWAIT) == 1) ++said;
    ASSERT_GT(said, before);
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (recv(fd, &c, 1, MSG_DONTWAIT) != 1)
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "without a wait";
  EXPECT_EQ(c, 'y');
}

TEST(Epoll, ASmallArrayIsFair) {
  Epoll epoll;
  Fd event(eventfd(1, 0));
  Fd a = connected("sleep 1000"), b = connected("sleep 1000");
  epoll.add(event, EPOLLIN, 1);
  epoll.add(a, EPOLLOUT, 2);
  epoll.add(b, EPOLLOUT, 3);
  std::array<int, 4> seen{};
  for (int i = 0; i < 12; ++i) {
    std::string one = epoll.wait(1000, 1);
    ASSERT_FALSE(one.empty());
    ++seen[static_cast<size_t>(one[0] - '0')];
  }
  EXPECT_GE(seen[1], 2);
  EXPECT_GE(seen[2], 2);
  EXPECT_GE(seen[3], 2);
}

TEST(Epoll, MembersThatComeWhileOneWaits) {
  Epoll epoll;
  Fd fd = connected("say x sleep 2000");
  ASSERT_EQ(poll_one(fd, POLLIN), POLLIN);
  {
    Later later(milliseconds(100), [&] { epoll.add(fd, EPOLLIN, 1); });
    EXPECT_EQ(epoll.wait(), "1:i") << "ours into an empty set";
  }
  epoll.modify(fd, 0, 1);
  Fd event(eventfd(1, 0));
  {
    Later later(milliseconds(100), [&] { epoll.add(event, EPOLLIN, 2); });
    EXPECT_EQ(epoll.wait(), "2:i") << "the kernel's into a set of ours";
  }
  epoll.modify(event, 0, 2);
  {
    Later later(milliseconds(100), [&] { epoll.modify(fd, EPOLLOUT, 3); });
    EXPECT_EQ(epoll.wait(), "3:o") << "one that was silent before";
  }
}

TEST(Epoll, AClosedMemberGoes) {
  Epoll epoll;
  Fd fd = connected("say x sleep 500");
  epoll.add(fd, EPOLLIN, 1);
  EXPECT_EQ(epoll.wait(), "1:i");
  Fd duplicate(dup(fd));
  int number = fd;
  fd.reset();
  EXPECT_EQ(epoll.wait(), "1:i") << "the description is still open (epoll(7), Q6)";
  EXPECT_FAILS(EBADF, epoll.control(EPOLL_CTL_MOD, number, EPOLLIN, 1));
  duplicate.reset();
  EXPECT_EQ(epoll.wait(20), "");
  Fd next = connected("say y sleep 500");
  EXPECT_EQ(next, number);
  epoll.add(next, EPOLLIN, 2);
  EXPECT_EQ(epoll.wait(), "2:i");
}

TEST(Epoll, DuplicatesAreMembersOfTheirOwn) {
  Epoll epoll;
  Fd fd = connected("sleep 500");
  Fd duplicate(dup(fd));
  epoll.add(fd, EPOLLOUT, 1);
  epoll.add(duplicate, EPOLLOUT, 2);
  EXPECT_EQ(epoll.wait(), "1:o 2:o");
  epoll.remove(fd);
  EXPECT_EQ(epoll.wait(), "2:o");
}

TEST(Epoll, OneSocketInSeveralSets) {
  Epoll a, b;
  Fd fd = connected("sleep 100 say x sleep 500");
  a.add(fd, EPOLLIN, 1);
  b.add(fd, EPOLLIN | EPOLLET, 2);
  EXPECT_EQ(a.wait(), "1:i");
  EXPECT_EQ(b.wait(), "2:i");
  EXPECT_EQ(b.wait(20), "");
  EXPECT_EQ(a.wait(), "1:i");
}

TEST(Epoll, Nested) {
  Epoll inner, outer;
  Fd fd = connected("sleep 100 say x sleep 500");
  Fd event(eventfd(0, 0));
  inner.add(fd, EPOLLIN, 1);
  inner.add(event, EPOLLIN, 2);
  outer.add(inner.set, EPOLLIN, 3);
  EXPECT_EQ(outer.wait(0), "");
  EXPECT_EQ(outer.wait(), "3:i") << "the socket";
  EXPECT_EQ(outer.wait(), "3:i");
  char c;
  EXPECT_EQ(read(fd, &c, 1), 1);
  EXPECT_EQ(outer.wait(20), "");
  eventfd_write(event, 1);
  EXPECT_EQ(outer.wait(), "3:i") << "the kernel's";
  epoll_event loop{};
  EXPECT_FAILS(ELOOP, epoll_ctl(inner.set, EPOLL_CTL_ADD, outer.set, &loop));
}

TEST(Epoll, NestedBeforeThereWasASocket) {
  Epoll inner, outer;
  outer.add(inner.set, EPOLLIN, 3);
  Fd event(eventfd(0, 0));
  inner.add(event, EPOLLIN, 2);
  EXPECT_EQ(outer.wait(0), "");
  Fd fd = connected("sleep 100 say x sleep 500");
  inner.add(fd, EPOLLIN, 1);
  EXPECT_EQ(outer.wait(), "3:i");
}

TEST(Epoll, ASetCanBePolled) {
  Epoll epoll;
  Fd fd = connected("sleep 100 say x sleep 500");
  epoll.add(fd, EPOLLIN, 1);
  EXPECT_EQ(poll_one(epoll.set, POLLIN, 0), 0);
  EXPECT_EQ(poll_one(epoll.set, POLLIN), POLLIN);
  fd_set in;
  FD_ZERO(&in);
  FD_SET(epoll.set, &in);
  timeval time{.tv_sec = 1, .tv_usec = 0};
  EXPECT_EQ(select(epoll.set + 1, &in, nullptr, nullptr, &time), 1);
}

TEST(Epoll, ASetHasDuplicates) {
  Epoll epoll;
  Fd fd = connected("say x sleep 500");
  epoll.add(fd, EPOLLIN, 1);
  Fd duplicate(dup(epoll.set));
  epoll_event event;
  EXPECT_EQ(epoll_wait(duplicate, &event, 1, 5000), 1);
  epoll.set.reset();
  EXPECT_EQ(epoll_wait(duplicate, &event, 1, 5000), 1);
  EXPECT_WORKS(epoll_ctl(duplicate, EPOLL_CTL_DEL, fd, nullptr));
  EXPECT_EQ(epoll_wait(duplicate, &event, 1, 20), 0);
}

TEST(Epoll, ExclusiveWakesOneOfTwo) {
  Fd listener = listening(16, SOCK_NONBLOCK);
  Epoll a, b;
  a.add(listener, EPOLLIN | EPOLLEXCLUSIVE, 1);
  b.add(listener, EPOLLIN | EPOLLEXCLUSIVE, 2);
  std::string got_a, got_b;
  {
    std::thread other([&] {
      got_b = b.wait(800);
      if (!got_b.empty()) Fd taken(accept(listener, nullptr, nullptr));
    });
    Later later(milliseconds(150), [&] {
      Fd control = connected("call " + std::to_string(name_of(listener).port()));
      read_all(control);
    });
    got_a = a.wait(800);
    if (!got_a.empty()) Fd taken(accept(listener, nullptr, nullptr));
    other.join();
  }
  EXPECT_NE(got_a + got_b, "");
}

TEST(Epoll, TimeOutsToTheNanosecond) {
  Epoll epoll;
  Fd fd = connected("sleep 1000");
  epoll.add(fd, EPOLLIN, 1);
  epoll_event event;
  timespec brief{.tv_sec = 0, .tv_nsec = 300'000};
  auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(epoll_pwait2(epoll.set, &event, 1, &brief, nullptr), 0);
  auto elapsed = std::chrono::steady_clock::now() - start;
  EXPECT_GE(elapsed, std::chrono::microseconds(300));
  EXPECT_LT(elapsed, milliseconds(100));
  timespec wrong{.tv_sec = -1, .tv_nsec = 0};
  EXPECT_FAILS(EINVAL, epoll_pwait2(epoll.set, &event, 1, &wrong, nullptr));
  Stopwatch watch;
  EXPECT_EQ(epoll.wait(100), "");
  EXPECT_GE(watch.elapsed(), milliseconds(99));
}

TEST(Epoll, Signals) {
  Handler handler(SIGUSR1, SA_RESTART);
  Epoll epoll;
  Fd fd = connected("sleep 3000");
  epoll.add(fd, EPOLLIN, 1);
  pthread_t self = pthread_self();
  epoll_event event;
  {
    Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
    EXPECT_FAILS(EINTR, epoll_wait(epoll.set, &event, 1, 5000));
  }
  sigset_t block, before;
  sigemptyset(&block);
  sigaddset(&block, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &block, &before);
  {
    Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
    EXPECT_FAILS(EINTR, epoll_pwait(epoll.set, &event, 1, 5000, &before));
  }
  EXPECT_EQ(handler.count(), 2);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST(Epoll, ThreadsShareASet) {
  Epoll epoll;
  Fd listener = listening(64, SOCK_NONBLOCK);
  epoll.add(listener, EPOLLIN | EPOLLET, 1);
  std::atomic<int> accepted{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      while (!stop) {
        epoll_event event;
        if (epoll_wait(epoll.set, &event, 1, 50) <= 0) continue;
        for (int fd; (fd = accept(listener, nullptr, nullptr)) >= 0; close(fd)) ++accepted;
      }
    });
  Fd control = connected("dial 40 " + std::to_string(name_of(listener).port()));
  read_all(control);
  for (int i = 0; i < 200 && accepted < 40; ++i) std::this_thread::sleep_for(milliseconds(10));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(accepted, 40);
}

TEST(Epoll, ALoopbackConnectionOfAMember) {
  // A member that turns out to be the kernel's stays a member.
  Fd server(socket(AF_INET, SOCK_STREAM, 0));
  Address address("127.0.0.1", 0);
  ASSERT_WORKS(bind(server, address.get(), Address::size));
  ASSERT_WORKS(listen(server, 4));
  address = name_of(server);
  Epoll epoll;
  Fd fd = tcp(SOCK_NONBLOCK);
  epoll.add(fd, EPOLLIN | EPOLLOUT | EPOLLET, 7);
  epoll.wait(0);
  connect(fd, address.get(), Address::size);
  EXPECT_EQ(epoll.wait(), "7:o");
  epoll.modify(fd, EPOLLIN, 8);
  Fd accepted(accept(server, nullptr, nullptr));
  ASSERT_EQ(write(accepted, "x", 1), 1);
  EXPECT_EQ(epoll.wait(), "8:i");
}

TEST(Epoll, AWildcardListenerIsReadyFromBothSides) {
  Fd listener = tcp(SOCK_NONBLOCK);
  Address any("0.0.0.0", 0);
  Epoll before, after;
  ASSERT_WORKS(bind(listener, any.get(), Address::size));
  before.add(listener, EPOLLIN, 1);
  before.wait(0);
  ASSERT_WORKS(listen(listener, 4));
  after.add(listener, EPOLLIN, 2);
  uint16_t port = name_of(listener).port();
  Fd near = tcp();
  Address loopback("127.0.0.1", port);
  ASSERT_WORKS(connect(near, loopback.get(), Address::size));
  EXPECT_EQ(before.wait(), "1:i");
  EXPECT_EQ(after.wait(), "2:i");
  Fd control = connected("call " + std::to_string(port) + " sleep 500");
  Fd first(accept(listener, nullptr, nullptr));
  ASSERT_GE(first, 0);
  EXPECT_EQ(before.wait(), "1:i");
  ASSERT_EQ(poll_one(listener, POLLIN), POLLIN);
  Fd second(accept(listener, nullptr, nullptr));
  ASSERT_GE(second, 0);
  EXPECT_EQ(before.wait(20), "");
}

/// What libc's stdio uses becomes a descriptor of the kernel's (shim/escape.h), here while a child has the
/// socket as well.
TEST(Epoll, TellsOfWhatStdioUsesWhileAChildHasIt) {
  Fd fd = connected("sleep 100 say abc sleep 1500 say def sleep 1000");
  Fd set(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = 7;
  ASSERT_WORKS(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(1);
  }
  FILE* stream = fdopen(dup(fd), "r");
  ASSERT_NE(stream, nullptr);
  auto hear = [&](const std::string& word) {
    std::string got;
    epoll_event out{};
    while (got.size() < word.size() && epoll_wait(set, &out, 1, 1300) == 1) {
      EXPECT_EQ(out.data.u64, 7U);
      char bytes[16];
      for (ssize_t size; (size = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0;)
        got.append(bytes, static_cast<size_t>(size));
    }
    EXPECT_EQ(got, word);
  };
  hear("abc");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  usleep(300'000);
  hear("def");
  fclose(stream);
}

}  // namespace
}  // namespace api
