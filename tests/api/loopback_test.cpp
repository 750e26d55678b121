// Connections inside the host: 127.0.0.0/8 and its own addresses. They are the machine's or the stack's
// (USTACK_LOOPBACK); a program sees no difference.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include <cstdlib>
#include <thread>

#include "tests/api/support.h"

namespace api {
namespace {

/// A listener on `ip` with a port of its own.
Fd listening_on(const char* ip, int flags = 0) {
  Fd listener = tcp(flags);
  Address address(ip, 0);
  EXPECT_EQ(bind(listener, address.get(), Address::size), 0) << ip << ": " << strerror(errno);
  EXPECT_EQ(listen(listener, 64), 0);
  return listener;
}

struct Both {
  Fd near, far;
};

Both pair_over(int listener, const char* ip) {
  Both both{tcp(), {}};
  Address to(ip, name_of(listener).port());
  EXPECT_EQ(connect(both.near, to.get(), Address::size), 0) << ip << ": " << strerror(errno);
  both.far = accept(listener, nullptr, nullptr);
  EXPECT_GE(both.far, 0) << strerror(errno);
  return both;
}

Both pair_over_loopback() { return pair_over(listening_on("127.0.0.1"), "127.0.0.1"); }

std::string own_address() { return local().ip(); }

struct Way {
  std::string listen, to, far_end, near_end;
};

class LoopbackNames : public testing::TestWithParam<int> {
 protected:
  Way way() const {
    const std::string own = own_address();
    const Way ways[] = {{"127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
                        {"127.3.2.1", "127.3.2.1", "127.3.2.1", "127.0.0.1"},
                        {"127.0.0.1", "0.0.0.0", "127.0.0.1", "127.0.0.1"},
                        {own, own, own, own}};
    return ways[GetParam()];
  }
};

TEST_P(LoopbackNames, AreTheSameFromBothEnds) {
  Fd listener = listening_on(way().listen.c_str());
  EXPECT_EQ(name_of(listener).ip(), way().listen);
  Both both = pair_over(listener, way().to.c_str());
  EXPECT_EQ(peer_of(both.near).ip(), way().far_end);
  EXPECT_EQ(name_of(both.near).ip(), way().near_end);
  EXPECT_EQ(name_of(both.far).ip(), way().far_end);
  EXPECT_EQ(peer_of(both.far).ip(), way().near_end);
  EXPECT_EQ(peer_of(both.near).port(), name_of(listener).port());
  EXPECT_EQ(peer_of(both.far).port(), name_of(both.near).port());
}

TEST_P(LoopbackNames, BytesGoBothWays) {
  Both both = pair_over(listening_on(way().listen.c_str()), way().to.c_str());
  ASSERT_TRUE(send_all(both.near, "there"));
  EXPECT_EQ(read_all(both.far, 5), "there");
  ASSERT_TRUE(send_all(both.far, "and back"));
  EXPECT_EQ(read_all(both.near, 8), "and back");
}

INSTANTIATE_TEST_SUITE_P(Ways, LoopbackNames, testing::Range(0, 4));

TEST(LoopbackConnect, IsRefusedWhereNobodyListens) {
  uint16_t port = name_of(listening_on("127.0.0.1")).port();
  Fd fd = tcp();
  Address to("127.0.0.1", port);
  EXPECT_FAILS(ECONNREFUSED, connect(fd, to.get(), Address::size));
}

TEST(LoopbackConnect, ItsBroadcastAddressIsUnreachable) {
  Fd fd = tcp();
  Address to("127.255.255.255", 80);
  EXPECT_FAILS(ENETUNREACH, connect(fd, to.get(), Address::size));
}

TEST(LoopbackConnect, OfANonBlockingSocketEndsByItself) {
  Fd listener = listening_on("127.0.0.1");
  Fd fd = tcp(SOCK_NONBLOCK);
  Address to = name_of(listener);
  EXPECT_FAILS(EINPROGRESS, connect(fd, to.get(), Address::size));
  EXPECT_EQ(poll_one(fd, POLLOUT), POLLOUT);
  EXPECT_EQ(pending_error(fd), 0);
  EXPECT_EQ(poll_one(listener, POLLIN), POLLIN);
}

TEST(LoopbackConnect, ToItself) {
  Fd fd = tcp();
  Address own("127.0.0.1", 0);
  ASSERT_WORKS(bind(fd, own.get(), Address::size));
  own = name_of(fd);
  ASSERT_WORKS(connect(fd, own.get(), Address::size));
  EXPECT_EQ(peer_of(fd).port(), own.port());
  ASSERT_TRUE(send_all(fd, "echo"));
  EXPECT_EQ(read_all(fd, 4), "echo");
  ASSERT_WORKS(shutdown(fd, SHUT_WR));
  EXPECT_EQ(read_all(fd), "");
}

TEST(LoopbackConnect, FromTheOwnAddressToTheLoopback) {
  const char* whose = std::getenv("USTACK_LOOPBACK");
  if (under_library() && (whose == nullptr || std::strcmp(whose, "stack") != 0))
    GTEST_SKIP() << "the address is the stack's, the loopback the machine's";
  Fd listener = listening_on("0.0.0.0"), fd = tcp();
  Address own = local();
  ASSERT_WORKS(bind(fd, own.get(), Address::size));
  Address to("127.0.0.1", name_of(listener).port());
  ASSERT_WORKS(connect(fd, to.get(), Address::size));
  Fd far(accept(listener, nullptr, nullptr));
  EXPECT_EQ(peer_of(far).ip(), own_address());
  EXPECT_EQ(name_of(far).ip(), Address("127.0.0.1", 0).ip());
}

TEST(LoopbackListener, OnTheWildcardIsReachedUnderEveryAddress) {
  Fd listener = listening_on("0.0.0.0");
  for (const std::string& ip : {std::string("127.0.0.1"), std::string("127.0.0.9"), own_address()}) {
    Both both = pair_over(listener, ip.c_str());
    EXPECT_EQ(name_of(both.far).ip(), ip);
    ASSERT_TRUE(send_all(both.near, ip));
    EXPECT_EQ(read_all(both.far, ip.size()), ip);
  }
}

/// A child that does `work` on a listener of its parent's and ends with 0 if that is true.
class Child {
 public:
  template <typename Work>
  explicit Child(Work&& work) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    Fd reading(ends[0]);
    go_on_ = ends[1];
    pid_ = fork();
    if (pid_ != 0) return;
    go_on_.reset();
    alarm(20);
    char byte;
    _exit(work([&] { return read(reading, &byte, 1) == 1; }) ? 0 : 1);
  }
  /// What work's argument waits for.
  void go_on() { EXPECT_EQ(write(go_on_, "!", 1), 1); }
  int status() const {
    int status = -1;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    return status;
  }

 private:
  Fd go_on_;
  pid_t pid_ = -1;
};

bool serve(int listener, int times, int set = -1) {
  for (int i = 0; i < times; ++i) {
    epoll_event event;
    if (set >= 0 && epoll_wait(set, &event, 1, 5000) != 1) return false;
    Fd fd(accept(listener, nullptr, nullptr));
    if (fd < 0 || !send_all(fd, "served")) return false;
  }
  return true;
}

void expect_served(const Address& to) {
  Fd fd = tcp();
  set_timeout(fd, SO_RCVTIMEO, std::chrono::seconds(5));
  ASSERT_WORKS(connect(fd, to.get(), Address::size));
  EXPECT_EQ(read_all(fd), "served");
}

/// Within some seconds: the processes that have the listener close it when they come to it.
void expect_refused(const Address& to) {
  for (int i = 0; i < 500; ++i) {
    Fd fd = tcp();
    if (connect(fd, to.get(), Address::size) != 0) break;
    usleep(10'000);
  }
  Fd fd = tcp();
  EXPECT_FAILS(ECONNREFUSED, connect(fd, to.get(), Address::size));
}

TEST(ForkedListener, OnTheWildcardIsServedByAChildUnderEveryAddress) {
  Fd listener = listening_on("0.0.0.0");
  const uint16_t port = name_of(listener).port();
  for (bool with_epoll : {false, true}) {
    Child child([&](auto&&) {
      Fd set(epoll_create1(0));
      epoll_event event{.events = EPOLLIN, .data = {.u32 = 1}};
      if (epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) != 0) return false;
      return serve(listener, 6, with_epoll ? int{set} : -1);
    });
    for (int i = 0; i < 3; ++i) {
      expect_served(Address("127.0.0.1", port));
      expect_served(local(port));
    }
    EXPECT_EQ(child.status(), 0);
  }
}

TEST(ForkedListener, OnTheWildcardEndsWithTheLastProcessThatHasIt) {
  Fd listener = listening_on("0.0.0.0");
  const Address loopback("127.0.0.1", name_of(listener).port());
  Child closes([&](auto&& wait) {
    listener.reset();
    return wait();
  });
  Child serves([&](auto&&) { return serve(listener, 2); });
  listener.reset();
  expect_served(loopback);
  expect_served(local(loopback.port()));
  EXPECT_EQ(serves.status(), 0);
  expect_refused(loopback);
  expect_refused(local(loopback.port()));
  closes.go_on();
  EXPECT_EQ(closes.status(), 0);
}

TEST(ForkedListener, OnTheWildcardOfAProcessClosesWithItsLastDescriptor) {
  Fd listener = listening_on("0.0.0.0");
  const Address loopback("127.0.0.1", name_of(listener).port());
  Child serves([&](auto&& wait) {
    if (!wait() || !serve(listener, 1)) return false;
    Fd second(dup(listener));
    listener.reset();
    if (!serve(second, 1)) return false;
    return dup2(STDERR_FILENO, second) == second && wait();
  });
  listener.reset();
  serves.go_on();
  expect_served(loopback);
  expect_served(loopback);
  expect_refused(loopback);
  expect_refused(local(loopback.port()));
  serves.go_on();
  EXPECT_EQ(serves.status(), 0);
}

TEST(ForkedListener, ThatARelativeHadBeforeItListened) {
  Fd listener = tcp();
  Address any("0.0.0.0", 0);
  ASSERT_WORKS(bind(listener, any.get(), Address::size));
  Child child([&](auto&& wait) {
    std::vector<Fd> others;  // so that what the parent's numbers are is something else here
    for (int i = 0; i < 100; ++i) others.emplace_back(open("/dev/null", O_RDONLY));
    return wait() && serve(listener, 4);
  });
  ASSERT_WORKS(listen(listener, 16));
  child.go_on();
  for (int i = 0; i < 4; ++i) expect_served(local(name_of(listener).port()));
  EXPECT_EQ(child.status(), 0);
}

TEST(LoopbackListener, OnTheLoopbackIsNotReachedFromOutside) {
  Fd listener = listening_on("127.0.0.1");
  Fd outside = tcp();
  Address own = local(name_of(listener).port());
  EXPECT_FAILS(ECONNREFUSED, connect(outside, own.get(), Address::size));
}

TEST(LoopbackListener, ItsPortIsTakenForOthers) {
  Fd listener = listening_on("127.0.0.1");
  Fd other = tcp();
  Address same = name_of(listener);
  EXPECT_FAILS(EADDRINUSE, bind(other, same.get(), Address::size));
}

TEST(LoopbackListener, CanTakeItsPortAgainAtOnceWithReuseAddr) {
  Fd listener = tcp();
  ASSERT_EQ(set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  Address address("127.0.0.1", 0);
  ASSERT_WORKS(bind(listener, address.get(), Address::size));
  ASSERT_WORKS(listen(listener, 4));
  address = name_of(listener);
  {
    // The server closes first: its side is in TIME-WAIT.
    Both both = pair_over(listener, "127.0.0.1");
    both.far.reset();
    EXPECT_EQ(read_all(both.near), "");
  }
  listener.reset();
  Fd again = tcp();
  ASSERT_EQ(set_option(again, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  ASSERT_WORKS(bind(again, address.get(), Address::size));
  ASSERT_WORKS(listen(again, 4));
  pair_over(again, "127.0.0.1");
}

TEST(LoopbackListener, AFullQueueLetsGoOnAfterAnAccept) {
  Fd listener = listening_on("127.0.0.1");
  ASSERT_WORKS(listen(listener, 1));
  std::vector<Fd> clients;
  Address to = name_of(listener);
  for (int i = 0; i < 4; ++i) {
    clients.push_back(tcp(SOCK_NONBLOCK));
    connect(clients.back(), to.get(), Address::size);
  }
  for (int i = 0; i < 4; ++i) {
    Fd accepted(accept(listener, nullptr, nullptr));
    EXPECT_GE(accepted, 0);
  }
}

TEST(LoopbackTransfer, OneThreadFillsAndDrains) {
  Both both = pair_over_loopback();
  size_t sent = fill(both.near);
  EXPECT_GT(sent, 100'000u);
  set_nonblocking(both.near, false);
  EXPECT_EQ(read_all(both.far, sent), pattern(sent));
  EXPECT_EQ(poll_one(both.near, POLLOUT), POLLOUT);
}

TEST(LoopbackTransfer, TwoThreadsMoveABulkBothWays) {
  Both both = pair_over_loopback();
  constexpr size_t kTotal = 8'000'000;
  const std::string bytes = pattern(kTotal);
  auto send_to = [&](int fd) {
    EXPECT_TRUE(send_all(fd, bytes));
    shutdown(fd, SHUT_WR);
  };
  std::string near, far;
  std::thread a([&] { send_to(both.near); }), b([&] { send_to(both.far); });
  std::thread c([&] { near = read_all(both.near); }), d([&] { far = read_all(both.far); });
  for (std::thread* thread : {&a, &b, &c, &d}) thread->join();
  EXPECT_EQ(near.size(), kTotal);
  EXPECT_TRUE(near == bytes);
  EXPECT_TRUE(far == bytes);
}

TEST(LoopbackTransfer, ManySmallWrites) {
  Both both = pair_over_loopback();
  std::string sent;
  std::thread writer([&] {
    for (int i = 0; i < 3000; ++i) {
      std::string piece = std::to_string(i) + ",";
      sent += piece;
      EXPECT_EQ(write(both.near, piece.data(), piece.size()), static_cast<ssize_t>(piece.size()));
    }
    both.near.reset();
  });
  std::string got = read_all(both.far);
  writer.join();
  EXPECT_TRUE(got == sent);
}

TEST(LoopbackTransfer, AChildAndItsParent) {
  Fd listener = listening_on("127.0.0.1");
  Address to = name_of(listener);
  pid_t child = fork();
  if (child == 0) {
    Fd fd = tcp();
    if (connect(fd, to.get(), Address::size) != 0) _exit(1);
    if (!send_all(fd, pattern(300'000))) _exit(2);
    shutdown(fd, SHUT_WR);
    _exit(read_all(fd) == "thanks" ? 0 : 3);
  }
  Fd far(accept(listener, nullptr, nullptr));
  EXPECT_TRUE(read_all(far) == pattern(300'000));
  EXPECT_TRUE(send_all(far, "thanks"));
  far.reset();
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(LoopbackTransfer, AChildThatIsTheServer) {
  Fd listener = listening_on("127.0.0.1");
  Address to = name_of(listener);
  pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 3; ++i) {
      Fd fd(accept(listener, nullptr, nullptr));
      if (!send_all(fd, "served " + std::to_string(i))) _exit(1);
    }
    _exit(0);
  }
  listener.reset();
  for (int i = 0; i < 3; ++i) {
    Fd fd = tcp();
    ASSERT_WORKS(connect(fd, to.get(), Address::size));
    EXPECT_EQ(read_all(fd), "served " + std::to_string(i));
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(LoopbackReadiness, EpollOverManyPairs) {
  constexpr int kPairs = 100;
  Fd listener = listening_on("127.0.0.1"), set(epoll_create1(0));
  std::vector<Both> pairs;
  for (int i = 0; i < kPairs; ++i) {
    pairs.push_back(pair_over(listener, "127.0.0.1"));
    epoll_event event{.events = EPOLLIN, .data = {.u32 = static_cast<uint32_t>(i)}};
    ASSERT_WORKS(epoll_ctl(set, EPOLL_CTL_ADD, pairs.back().far, &event));
  }
  for (int i = 0; i < kPairs; i += 2) ASSERT_TRUE(send_all(pairs[static_cast<size_t>(i)].near, "x"));
  epoll_event events[kPairs];
  int count = epoll_wait(set, events, kPairs, 5000);
  EXPECT_EQ(count, kPairs / 2);
  for (int i = 0; i < count; ++i) EXPECT_EQ(events[i].data.u32 % 2, 0u);
}

TEST(LoopbackReadiness, AnEndIsSeenAtOnce) {
  Both both = pair_over_loopback();
  both.near.reset();
  EXPECT_EQ(poll_one(both.far, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP);
  EXPECT_EQ(read_all(both.far), "");
}

TEST(LoopbackReadiness, AResetIsSeenAtOnce) {
  Both both = pair_over_loopback();
  linger now{1, 0};
  ASSERT_EQ(set_option(both.near, SOL_SOCKET, SO_LINGER, now), 0);
  both.near.reset();
  EXPECT_EQ(poll_one(both.far, POLLIN), POLLIN | POLLERR | POLLHUP);
  char c;
  EXPECT_FAILS(ECONNRESET, read(both.far, &c, 1));
}

TEST(LoopbackReadiness, UrgentData) {
  Both both = pair_over_loopback();
  ASSERT_EQ(send(both.near, "!", 1, MSG_OOB), 1);
  EXPECT_EQ(poll_one(both.far, POLLPRI), POLLPRI);
  char c = 0;
  EXPECT_EQ(recv(both.far, &c, 1, MSG_OOB), 1);
  EXPECT_EQ(c, '!');
}

TEST(LoopbackSegments, AreLarge) {
  Both both = pair_over_loopback();
  EXPECT_GT(get_option(both.near, IPPROTO_TCP, TCP_MAXSEG), 32000);
  Both own = pair_over(listening_on(own_address().c_str()), own_address().c_str());
  EXPECT_GT(get_option(own.near, IPPROTO_TCP, TCP_MAXSEG), 32000);
}

}  // namespace
}  // namespace api
