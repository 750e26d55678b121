// All engines, by the same tests: frames out and in, and everything that ends a wait.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "io/adaptive_spin.h"
#include "io/clock.h"
#include "io/config.h"
#include "io/engine.h"
#include "io/link.h"
#include "io/netlink.h"
#include "stack/base/checksum.h"
#include "stack/host.h"
#include "tests/support/heap_arena.h"
#include "tests/support/private_network.h"
#include "tests/support/seeded_random.h"

namespace ustack::io {
namespace {

std::atomic<int> signals_seen{0};

/// A host plugged into one end of a socketpair; the test holds the other.
class Plugged {
 public:
  explicit Plugged(int type = SOCK_DGRAM) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, type, 0, ends), 0);
    peer = Descriptor(ends[1]);
    Descriptor end(ends[0]);
    EXPECT_FALSE(open_fd(end.get(), true, &link));
    link.info().mtu = 60000;
    make_host({IpAddress::v4(192, 0, 2, 2), 24});
  }
  explicit Plugged(Link plug, const Prefix& address) : link(std::move(plug)) { make_host(address); }
  ~Plugged() {
    Engine::destroy(engine);
    Host::destroy(host);
  }

  void make_host(const Prefix& address) {
    HostConfig config;
    config.network.link = link.info();
    if (link.info().kind == LinkInfo::Kind::ethernet)
      config.network.link.mac = *parse_mac("02:00:00:00:00:02");
    config.network.addresses[0] = address;
    config.network.address_count = 1;
    host = Host::create(arena, random, config, now());
    ASSERT_NE(host, nullptr);
    host->run(now());
    while (TxFrame* frame = host->transmit_queue().pop_front()) host->frames().release(frame);
  }
  void use(EngineKind kind, Duration spin = Duration(0)) {
    engine = Engine::create(kind, link, *host, spin);
    ASSERT_NE(engine, nullptr);
    ASSERT_EQ(engine->kind(), kind) << "this kernel or its policy has no io_uring";
  }

  /// One turn of a driver; again when only the end of an earlier test's ring has interrupted it.
  WaitResult turn(WaitRequest request = {}) {
    for (;;) {
      int signals_before = signals_seen;
      engine->transmit();
      WaitResult result = engine->wait(request);
      engine->deliver(now());
      host->run(now());
      bool something = result.frames || result.woken || result.kernel || result.timed_out || result.link_lost;
      if (something || !result.interrupted || signals_seen != signals_before) return result;
    }
  }
  /// Queues a packet with `bytes` of payload behind 20 bytes of header, filled with `mark`.
  void queue_packet(char mark, uint32_t bytes = 8) {
    TxFrame* frame = host->frames().allocate();
    std::memset(frame->prepend(20), mark, 20);
    Slice payload{host->blocks().allocate(bytes), 0, bytes};
    std::memset(payload.data(), mark, bytes);
    frame->append(payload);
    host->transmit_queue().push_back(*frame);
  }
  /// What the test's end of the socketpair has.
  std::string received() {
    char buffer[70000];
    ssize_t got = recv(peer.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    return got < 0 ? "(nothing)" : std::string(buffer, static_cast<size_t>(got));
  }

  test::HeapArena arena;
  test::SeededRandom random{1};
  Link link;
  Descriptor peer;
  Host* host = nullptr;
  Engine* engine = nullptr;
};

/// An ICMP echo request from 192.0.2.1 to 192.0.2.2, as a bare IP packet.
std::string ping_packet(uint16_t sequence, size_t payload = 8) {
  std::string packet(28 + payload, '\0');
  auto* p = reinterpret_cast<std::byte*>(packet.data());
  p[0] = std::byte{0x45};
  store_be16(p + 2, static_cast<uint16_t>(packet.size()));
  p[8] = std::byte{64};
  p[9] = std::byte{IPPROTO_ICMP};
  store_be32(p + 12, 0xc0000201);
  store_be32(p + 16, 0xc0000202);
  store_be16(p + 10, checksum_of(Bytes(p, 20)));
  p[20] = std::byte{ICMP_ECHO};
  store_be16(p + 26, sequence);
  store_be16(p + 22, checksum_of(Bytes(p + 20, packet.size() - 20)));
  return packet;
}

Instant in(Duration d) { return now() + d; }

class EngineTest : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    if (GetParam() == EngineKind::plain) return;
    Plugged probe;
    probe.engine = Engine::create(EngineKind::uring, probe.link, *probe.host);
    if (probe.engine->kind() != EngineKind::uring) GTEST_SKIP() << "no io_uring with DEFER_TASKRUN here";
  }
};

INSTANTIATE_TEST_SUITE_P(All, EngineTest,
                         testing::Values(EngineKind::plain, EngineKind::uring, EngineKind::automatic),
                         [](const auto& param) { return std::string(engine_kind_name(param.param)); });

TEST_P(EngineTest, SendsWhatIsQueuedInOrder) {
  for (int count : {1, 3, 7, 9}) {
    Plugged plugged;
    plugged.use(GetParam());
    for (int i = 0; i < count; ++i) plugged.queue_packet(static_cast<char>('a' + i));
    plugged.turn({.deadline = now()});
    for (int i = 0; i < count; ++i)
      EXPECT_EQ(plugged.received(), std::string(28, static_cast<char>('a' + i)));
    EXPECT_EQ(plugged.received(), "(nothing)");
    EXPECT_TRUE(plugged.host->transmit_queue().empty());
    EXPECT_EQ(plugged.host->frames().live(), 0u);
  }
}

TEST_P(EngineTest, DeliversWhatComesIn) {
  Plugged plugged;
  plugged.use(GetParam());
  std::string ping = ping_packet(7);
  ASSERT_EQ(send(plugged.peer.get(), ping.data(), ping.size(), 0), static_cast<ssize_t>(ping.size()));
  WaitResult result = plugged.turn();
  EXPECT_TRUE(result.frames);
  EXPECT_FALSE(result.timed_out || result.interrupted || result.woken || result.kernel);
  EXPECT_EQ(plugged.host->counters().UstackRxFrames, 1u);
  EXPECT_EQ(plugged.host->counters().IcmpInEchos, 1u);
  result = plugged.turn({.deadline = now()});
  EXPECT_FALSE(result.frames);
  std::string reply = plugged.received();
  ASSERT_EQ(reply.size(), ping.size());
  EXPECT_EQ(reply[20], ICMP_ECHOREPLY);
  EXPECT_EQ(reply.substr(24), ping.substr(24));
}

TEST_P(EngineTest, EveryFrameOfABurstArrivesOnceAndInOrder) {
  Plugged plugged;
  plugged.use(GetParam());
  constexpr int kCount = 500;
  std::thread sender([&] {
    for (int i = 0; i < kCount; ++i) {
      std::string ping = ping_packet(static_cast<uint16_t>(i), i % 50 == 0 ? 30000 : 8);
      ASSERT_EQ(send(plugged.peer.get(), ping.data(), ping.size(), 0), static_cast<ssize_t>(ping.size()));
    }
  });
  std::vector<int> order;
  std::thread receiver([&] {
    timeval patience{5, 0};
    setsockopt(plugged.peer.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char reply[40000];
    while (order.size() < kCount && recv(plugged.peer.get(), reply, sizeof reply, 0) >= 28)
      order.push_back(load_be16(reinterpret_cast<std::byte*>(reply) + 26));
  });
  Instant give_up = in(20s);
  while (plugged.host->counters().IcmpOutEchoReps < kCount && now() < give_up)
    plugged.turn({.deadline = in(100ms)});
  sender.join();
  while (!plugged.host->transmit_queue().empty() && now() < give_up) plugged.turn({.deadline = in(10ms)});
  plugged.turn({.deadline = now()});
  receiver.join();
  std::vector<int> expected(kCount);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
  EXPECT_EQ(plugged.host->counters().UstackRxFrames, static_cast<uint64_t>(kCount));
  EXPECT_EQ(plugged.host->counters().UstackTxLinkErrors, 0u);
}

TEST_P(EngineTest, EndsAtTheDeadline) {
  Plugged plugged;
  plugged.use(GetParam());
  Instant begin = now();
  WaitResult result = plugged.turn({.deadline = begin + 30ms});
  Duration took = now() - begin;
  EXPECT_TRUE(result.timed_out);
  EXPECT_FALSE(result.frames || result.interrupted);
  EXPECT_GE(took, 30ms);
  EXPECT_LT(took, 2s);
  result = plugged.turn({.deadline = begin});
  EXPECT_TRUE(result.timed_out) << "a deadline in the past: look, don't sleep";
}

TEST_P(EngineTest, DeadlinesMoveEitherWay) {
  Plugged plugged;
  plugged.use(GetParam());
  Descriptor wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  uint64_t one = 1;
  for (Duration far : {Duration(1h), Duration(20s)}) {
    ASSERT_EQ(write(wake.get(), &one, 8), 8);
    EXPECT_TRUE(plugged.turn({.deadline = in(far), .wake_fd = wake.get()}).woken);
    Instant near = in(10ms);
    WaitResult result;
    do result = plugged.turn({.deadline = near, .wake_fd = wake.get()});
    while (!result.timed_out);
    EXPECT_GE(now(), near);
    EXPECT_LT(now(), near + 10s) << "an earlier deadline than the last one";
    // A wait may end for nothing when a deadline has moved away, but not again and again.
    Instant later = in(60ms);
    int turns = 0;
    do {
      result = plugged.turn({.deadline = later, .wake_fd = wake.get()});
      ++turns;
    } while (!result.timed_out);
    EXPECT_GE(now(), later);
    EXPECT_LE(turns, 3);
  }
}

TEST_P(EngineTest, WaitsWithoutDescriptorsToSpare) {
  Plugged plugged;
  plugged.use(GetParam());
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  rlimit none{1, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  EXPECT_TRUE(plugged.turn({.deadline = in(5ms)}).timed_out);
  std::string ping = ping_packet(1);
  EXPECT_GT(send(plugged.peer.get(), ping.data(), ping.size(), 0), 0);
  EXPECT_TRUE(plugged.turn({.deadline = in(10s)}).frames);
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_P(EngineTest, IsWokenByTheEventFd) {
  Plugged plugged;
  plugged.use(GetParam());
  Descriptor wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  for (int time = 0; time < 3; ++time) {
    std::thread waker([&] {
      usleep(10'000);
      uint64_t one = 1;
      ASSERT_EQ(write(wake.get(), &one, 8), 8);
    });
    WaitResult result = plugged.turn({.deadline = in(10s), .wake_fd = wake.get()});
    waker.join();
    EXPECT_TRUE(result.woken);
    EXPECT_FALSE(result.timed_out || result.interrupted);
    uint64_t value;
    EXPECT_EQ(read(wake.get(), &value, 8), -1) << "the value is taken away";
  }
  // A wake-up that came before the wait counts too.
  uint64_t one = 1;
  ASSERT_EQ(write(wake.get(), &one, 8), 8);
  EXPECT_TRUE(plugged.turn({.deadline = in(10s), .wake_fd = wake.get()}).woken);
  EXPECT_FALSE(plugged.turn({.deadline = in(5ms), .wake_fd = wake.get()}).woken);
}

TEST_P(EngineTest, AnotherEventFdMayBeNamedEachTime) {
  Plugged plugged;
  plugged.use(GetParam());
  Descriptor first(eventfd(0, EFD_NONBLOCK)), second(eventfd(0, EFD_NONBLOCK));
  uint64_t one = 1;
  plugged.turn({.deadline = now(), .wake_fd = first.get()});
  ASSERT_EQ(write(second.get(), &one, 8), 8);
  WaitResult result;
  Instant give_up = in(5s);
  do result = plugged.turn({.deadline = give_up, .wake_fd = second.get()});
  while (!result.woken && now() < give_up);
  EXPECT_TRUE(result.woken);
  // What the first one gets no longer concerns this wait.
  ASSERT_EQ(write(first.get(), &one, 8), 8);
  EXPECT_FALSE(plugged.turn({.deadline = in(5ms), .wake_fd = second.get()}).woken);
  do result = plugged.turn({.deadline = give_up, .wake_fd = first.get()});
  while (!result.woken && now() < give_up);
  EXPECT_TRUE(result.woken) << "but is not lost";
}

TEST_P(EngineTest, ReportsTheKernelsReadinessEachTime) {
  Plugged plugged;
  plugged.use(GetParam());
  Descriptor event(eventfd(0, EFD_NONBLOCK)), epoll(epoll_create1(0));
  epoll_event interest{EPOLLIN, {}};
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, event.get(), &interest), 0);
  EXPECT_FALSE(plugged.turn({.deadline = in(5ms), .kernel_fd = epoll.get()}).kernel);
  uint64_t one = 1;
  ASSERT_EQ(write(event.get(), &one, 8), 8);
  for (int time = 0; time < 3; ++time)
    EXPECT_TRUE(plugged.turn({.deadline = in(10s), .kernel_fd = epoll.get()}).kernel) << "level, not edge";
  uint64_t value;
  ASSERT_EQ(read(event.get(), &value, 8), 8);
  EXPECT_FALSE(plugged.turn({.deadline = in(5ms), .kernel_fd = epoll.get()}).kernel);
  plugged.engine->forget(epoll.get());
  EXPECT_FALSE(plugged.turn({.deadline = now()}).kernel);
}

TEST_P(EngineTest, AKernelDescriptorThatLivesOnUnderAnotherNumberIsForgotten) {
  Plugged plugged;
  plugged.use(GetParam());
  Descriptor event(eventfd(1, EFD_NONBLOCK));
  for (int time = 0; time < 3; ++time)
    EXPECT_TRUE(plugged.turn({.deadline = in(10s), .kernel_fd = event.get()}).kernel);
  Descriptor other(dup(event.get()));
  event.reset();
  plugged.engine->forget(-1);
  int turns = 0;
  for (Instant deadline = in(30ms); now() < deadline; ++turns) {
    WaitResult result = plugged.turn({.deadline = deadline});
    EXPECT_FALSE(result.kernel);
  }
  EXPECT_LE(turns, 4) << "it is still readable, and must not keep the engine busy";
}

void install_handler(int number) {
  struct sigaction action {};
  action.sa_handler = [](int) { ++signals_seen; };
  sigaction(number, &action, nullptr);
}

TEST_P(EngineTest, ASignalEndsTheWait) {
  for (bool with_frames : {false, true}) {
    Plugged plugged;
    plugged.use(GetParam());
    install_handler(SIGUSR1);
    signals_seen = 0;
    // With several frames the ring's call submits, too, and neither kernel nor liburing says EINTR.
    if (with_frames)
      for (char c = 'a'; c < 'g'; ++c) plugged.queue_packet(c);
    pid_t self = static_cast<pid_t>(syscall(SYS_gettid));
    std::thread killer([&] {
      usleep(30'000);
      syscall(SYS_tgkill, getpid(), self, SIGUSR1);
    });
    WaitResult result = plugged.turn({.deadline = in(10s)});
    killer.join();
    EXPECT_EQ(signals_seen, 1);
    EXPECT_TRUE(result.interrupted);
    EXPECT_FALSE(result.timed_out || result.frames);
  }
}

TEST_P(EngineTest, TheMaskIsInForceWhileSleepingOnly) {
  Plugged plugged;
  plugged.use(GetParam());
  install_handler(SIGUSR2);
  signals_seen = 0;
  sigset_t blocked, before, open_mask;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  open_mask = before;
  sigdelset(&open_mask, SIGUSR2);
  raise(SIGUSR2);
  EXPECT_EQ(signals_seen, 0);
  EXPECT_TRUE(plugged.turn({.deadline = in(20ms)}).timed_out) << "blocked: it doesn't end the wait";
  WaitResult result = plugged.turn({.deadline = in(10s), .signal_mask = &open_mask});
  EXPECT_EQ(signals_seen, 1);
  EXPECT_TRUE(result.interrupted);
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, &before, &after);
  EXPECT_TRUE(sigismember(&after, SIGUSR2)) << "put back afterwards";
}

TEST_P(EngineTest, AFullLinkKeepsFramesInOrderAndSaysWhenThereIsRoom) {
  Plugged plugged;
  plugged.use(GetParam());
  constexpr int kCount = 3000;
  for (int i = 0; i < kCount; ++i) plugged.queue_packet(static_cast<char>('0' + i % 64), 64);
  plugged.turn({.deadline = now()});
  EXPECT_FALSE(plugged.host->transmit_queue().empty());
  int seen = 0;
  Instant give_up = in(10s);
  while (seen < kCount && now() < give_up) {
    std::string frame = plugged.received();
    if (frame == "(nothing)") {
      plugged.turn({.deadline = now()});
      continue;
    }
    ASSERT_EQ(frame, std::string(84, static_cast<char>('0' + seen % 64))) << seen;
    ++seen;
  }
  EXPECT_EQ(seen, kCount);
  EXPECT_EQ(plugged.host->counters().UstackTxLinkErrors, 0u);
  plugged.turn({.deadline = now()});
  EXPECT_EQ(plugged.host->frames().live(), 0u);
}

TEST_P(EngineTest, FramesThatTheLinkRefusesAreCountedAndDropped) {
  Plugged plugged;
  plugged.use(GetParam());
  plugged.peer.reset();
  for (int i = 0; i < 6; ++i) plugged.queue_packet('x');
  plugged.turn({.deadline = now()});
  plugged.turn({.deadline = now()});
  EXPECT_EQ(plugged.host->counters().UstackTxLinkErrors, 6u);
  EXPECT_TRUE(plugged.host->transmit_queue().empty());
  EXPECT_EQ(plugged.host->frames().live(), 0u);
}

TEST_P(EngineTest, ALostLinkIsReportedOnceAndWaitsGoOn) {
  Plugged plugged(SOCK_SEQPACKET);
  plugged.use(GetParam());
  std::string ping = ping_packet(1);
  ASSERT_GT(send(plugged.peer.get(), ping.data(), ping.size(), 0), 0);
  plugged.peer.reset();
  int lost = 0;
  for (int i = 0; i < 5; ++i) lost += plugged.turn({.deadline = in(5ms)}).link_lost;
  EXPECT_EQ(lost, 1);
  EXPECT_EQ(plugged.host->counters().UstackRxFrames, 1u) << "what had come before is delivered";
  Instant begin = now();
  EXPECT_TRUE(plugged.turn({.deadline = begin + 30ms}).timed_out);
  EXPECT_GE(now() - begin, 30ms) << "a lost link must not keep the engine busy";
}

TEST_P(EngineTest, EmptyMessagesAreMalformedNotTheEnd) {
  Plugged plugged;
  plugged.use(GetParam());
  ASSERT_EQ(send(plugged.peer.get(), "", 0, 0), 0);
  EXPECT_FALSE(plugged.turn({.deadline = in(1s)}).link_lost);
  EXPECT_EQ(plugged.host->counters().UstackRxMalformed, 1u);
  std::string ping = ping_packet(1);
  ASSERT_GT(send(plugged.peer.get(), ping.data(), ping.size(), 0), 0);
  EXPECT_TRUE(plugged.turn({.deadline = in(1s)}).frames);
}

TEST_P(EngineTest, WithoutMemoryFramesAreDroppedAndCountedNotSpunUpon) {
  Plugged plugged;
  plugged.use(GetParam());
  plugged.arena.fail_after(0);
  std::string ping = ping_packet(1);
  for (int i = 0; i < 3; ++i) ASSERT_GT(send(plugged.peer.get(), ping.data(), ping.size(), 0), 0);
  int turns = 0;
  while (!plugged.turn({.deadline = in(20ms)}).timed_out && turns < 50) ++turns;
  EXPECT_LT(turns, 10);
  EXPECT_EQ(plugged.host->counters().UstackRxNoMemory, 3u);
  plugged.arena.never_fail();
  plugged.turn({.deadline = now()});
  ASSERT_GT(send(plugged.peer.get(), ping.data(), ping.size(), 0), 0);
  EXPECT_TRUE(plugged.turn({.deadline = in(5s)}).frames);
  EXPECT_EQ(plugged.host->counters().IcmpInEchos, 1u);
}

TEST_P(EngineTest, SmallFramesDoNotPinLargeBlocks) {
  Plugged plugged;
  plugged.use(GetParam());
  // The first fragment of a datagram stays with the host until the rest comes.
  std::string fragment = ping_packet(1, 64);
  auto* p = reinterpret_cast<std::byte*>(fragment.data());
  store_be16(p + 6, 0x2000);
  store_be16(p + 10, 0);
  store_be16(p + 10, checksum_of(Bytes(p, 20)));
  plugged.turn({.deadline = now()});
  uint64_t before = plugged.host->blocks().live_bytes();
  ASSERT_GT(send(plugged.peer.get(), fragment.data(), fragment.size(), 0), 0);
  plugged.turn({.deadline = in(1s)});
  ASSERT_EQ(plugged.host->counters().IpReasmReqds, 1u);
  EXPECT_LE(plugged.host->blocks().live_bytes(), before + 4096);
}

TEST_P(EngineTest, EverythingIsGivenBackAtTheEnd) {
  Plugged plugged;
  plugged.use(GetParam());
  std::string ping = ping_packet(1);
  ASSERT_GT(send(plugged.peer.get(), ping.data(), ping.size(), 0), 0);
  plugged.turn();
  plugged.turn({.deadline = now()});
  for (int i = 0; i < 6; ++i) plugged.queue_packet('z');
  plugged.engine->transmit();  // staged, and never waited for
  Engine::destroy(plugged.engine);
  plugged.engine = nullptr;
  EXPECT_EQ(plugged.host->frames().live(), 0u);
  EXPECT_EQ(plugged.host->blocks().live(), 0u);
  int frames = 0;
  while (plugged.received() != "(nothing)") ++frames;
  EXPECT_EQ(frames, 7) << "staged frames went out";
}

TEST_P(EngineTest, AChildLeavesItsParentsEngineAlone) {
  Plugged plugged;
  plugged.use(GetParam());
  EXPECT_FALSE(plugged.engine->stale());
  plugged.turn({.deadline = now()});
  pid_t child = fork();
  if (child == 0) {
    bool stale = plugged.engine->stale();
    Engine::abandon(plugged.engine);
    plugged.engine = Engine::create(GetParam(), plugged.link, *plugged.host);
    std::string ping = ping_packet(1);
    send(plugged.peer.get(), ping.data(), ping.size(), 0);
    bool works = plugged.turn({.deadline = in(5s)}).frames;
    _exit(stale && works && !plugged.engine->stale() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(plugged.engine->stale());
  std::string ping = ping_packet(2);
  ASSERT_GT(send(plugged.peer.get(), ping.data(), ping.size(), 0), 0);
  EXPECT_TRUE(plugged.turn({.deadline = in(5s)}).frames);
}

TEST_P(EngineTest, SpinsBeforeItSleeps) {
  Plugged plugged;
  plugged.use(GetParam(), 50ms);
  plugged.turn({.deadline = now()});  // makes what it waits with, which may sleep
  rusage before{}, after{};
  getrusage(RUSAGE_THREAD, &before);
  WaitResult result = plugged.turn({.deadline = in(20ms)});
  getrusage(RUSAGE_THREAD, &after);
  EXPECT_TRUE(result.timed_out);
  EXPECT_EQ(after.ru_nvcsw, before.ru_nvcsw) << "it looked, instead of sleeping";
  getrusage(RUSAGE_THREAD, &before);
  // On a busy machine the time may be up before it comes to that.
  for (Instant give_up = in(20s); after.ru_nvcsw == before.ru_nvcsw && now() < give_up;) {
    EXPECT_TRUE(plugged.turn({.deadline = in(70ms)}).timed_out);
    getrusage(RUSAGE_THREAD, &after);
  }
  EXPECT_GT(after.ru_nvcsw, before.ru_nvcsw) << "but not for longer than it was told";
  std::string ping = ping_packet(1);
  ASSERT_GT(send(plugged.peer.get(), ping.data(), ping.size(), 0), 0);
  EXPECT_TRUE(plugged.turn({.deadline = in(5s)}).frames);
}

/// Processor time of the calling thread.
Duration thread_time() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

TEST_P(EngineTest, SpinsNoMoreWhereItIsInVain) {
  constexpr Duration kSpin = 20ms;
  Plugged plugged;
  plugged.use(GetParam(), kSpin);
  plugged.turn({.deadline = now()});
  for (uint32_t i = 0; i < AdaptiveSpin::kBelieved; ++i) plugged.turn({.deadline = in(kSpin + 200ms)});
  // Less than until the next try: a wait that the ring interrupts (EINTR) is two.
  for (uint32_t i = 0; i < AdaptiveSpin::kTry / 2; ++i) {
    const Duration before = thread_time();
    plugged.turn({.deadline = in(kSpin + 5ms)});
    EXPECT_LT(thread_time() - before, kSpin / 2) << i;
  }
}

TEST(AdaptiveSpin, LooksAgainOnceThatHasCaughtSomething) {
  AdaptiveSpin spin;
  auto wait = [&](SpinOutcome outcome) {
    const bool looks = spin.next(1ms) == 1ms;
    if (looks) spin.note(outcome);
    return looks;
  };
  for (uint32_t i = 0; i < AdaptiveSpin::kBelieved; ++i) EXPECT_TRUE(wait(SpinOutcome::vain));
  for (uint32_t pause = AdaptiveSpin::kTry; pause <= 2 * AdaptiveSpin::kSeldom; pause *= 2) {
    uint32_t until_try = 1;
    while (!wait(SpinOutcome::vain)) ++until_try;
    EXPECT_EQ(until_try, std::min(pause, AdaptiveSpin::kSeldom)) << "more and more seldom";
  }
  while (!wait(SpinOutcome::caught)) continue;
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(wait(SpinOutcome::caught));
  // Not each one in vain is a reason to stop.
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(wait(i % 2 == 0 ? SpinOutcome::vain : SpinOutcome::caught));
  EXPECT_EQ(spin.next(0ms), 0ms) << "unless it isn't to";
}

TEST(AdaptiveSpin, AWaitThatIsOverBeforeItCouldSleepTellsNothing) {
  const Instant begin{1s};
  EXPECT_EQ(spin_outcome(begin, begin, kNever, false), SpinOutcome::none);
  EXPECT_EQ(spin_outcome(begin, begin + 1ms, kNever, true), SpinOutcome::caught);
  EXPECT_EQ(spin_outcome(begin, begin + 1ms, kNever, false), SpinOutcome::vain);
  EXPECT_EQ(spin_outcome(begin, begin + 1ms, begin + 1ms, false), SpinOutcome::none);
}

TEST_P(EngineTest, PingsFromTheKernelAreAnsweredOverATap) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link link;
    auto problem = open_tun_device("tap0", true, &link);
    ASSERT_FALSE(problem) << problem->message;
    std::unique_ptr<Netlink> netlink;
    ASSERT_FALSE(Netlink::open(&netlink));
    ASSERT_FALSE(netlink->add_address("tap0", {IpAddress::v4(192, 0, 2, 1), 24}));
    ASSERT_FALSE(netlink->set_up("tap0"));
    ASSERT_FALSE(netlink->wait_until_up("tap0", 5000));
    Plugged plugged(std::move(link), {IpAddress::v4(192, 0, 2, 2), 24});
    plugged.use(GetParam());

    Descriptor icmp(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    ASSERT_TRUE(icmp) << strerror(errno);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(0xc0000202);
    constexpr int kCount = 40;
    int answers = 0;
    Instant give_up = in(20s);
    for (int i = 0; i < kCount; ++i) {
      std::string ping = ping_packet(static_cast<uint16_t>(i), i == 7 ? 4000 : 1000).substr(20);
      ASSERT_GT(sendto(icmp.get(), ping.data(), ping.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
                0);
    }
    while (answers < kCount && now() < give_up) {
      plugged.turn({.deadline = in(20ms)});
      char packet[8000];
      for (ssize_t got; (got = recv(icmp.get(), packet, sizeof packet, MSG_DONTWAIT)) > 0;)
        answers += packet[20] == ICMP_ECHOREPLY && packet[15] == 2;
    }
    EXPECT_EQ(answers, kCount);
    EXPECT_EQ(plugged.host->counters().UstackTxLinkErrors, 0u);
    EXPECT_EQ(plugged.host->counters().UstackRxMalformed, 0u);

    // A device that is down refuses frames; they are counted.
    ASSERT_FALSE(netlink->set_up("tap0", false));
    uint64_t refused = plugged.host->counters().UstackTxLinkErrors;
    for (int i = 0; i < 5; ++i) plugged.queue_packet('x');
    plugged.turn({.deadline = now()});
    plugged.turn({.deadline = now()});
    EXPECT_EQ(plugged.host->counters().UstackTxLinkErrors, refused + 5);
  });
}

TEST(EngineFallback, AForbiddenRingBecomesThePlainEngine) {
  // RLIMIT_NOFILE leaves no descriptor for a ring: the cheapest way to have the kernel refuse one.
  pid_t child = fork();
  if (child == 0) {
    Plugged plugged;
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    int next = dup(0);
    close(next);
    limit.rlim_cur = static_cast<rlim_t>(next);
    setrlimit(RLIMIT_NOFILE, &limit);
    Engine* engine = Engine::create(EngineKind::uring, plugged.link, *plugged.host);
    bool plain = engine != nullptr && engine->kind() == EngineKind::plain;
    plugged.engine = engine;
    std::string ping = ping_packet(1);
    send(plugged.peer.get(), ping.data(), ping.size(), 0);
    _exit(plain && plugged.turn({.deadline = in(5s)}).frames ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(EngineFallback, ABatchGoesOutWhereARingIsRefused) {
  test::in_private_network([] {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP();
    Link tap;
    ASSERT_FALSE(open_tun_device("tap0", true, &tap));
    std::unique_ptr<Netlink> netlink;
    ASSERT_FALSE(Netlink::open(&netlink));
    ASSERT_FALSE(netlink->set_up("tap0"));
    ASSERT_FALSE(netlink->wait_until_up("tap0", 5000));
    Plugged plugged(std::move(tap), {IpAddress::v4(192, 0, 2, 2), 24});
    plugged.use(EngineKind::automatic);
    rlimit none{};
    getrlimit(RLIMIT_NOFILE, &none);
    none.rlim_cur = 1;
    setrlimit(RLIMIT_NOFILE, &none);
    for (int i = 0; i < 20; ++i) plugged.queue_packet('x', 64);
    plugged.turn({.deadline = now()});
    EXPECT_EQ(plugged.engine->kind(), EngineKind::plain);
    EXPECT_TRUE(plugged.host->transmit_queue().empty());
    EXPECT_EQ(plugged.host->counters().UstackTxLinkErrors, 0u);
  });
}

TEST(Transmit, ForAnyThreadStopsWhenTheLinkIsFull) {
  Plugged plugged;
  for (int i = 0; i < 3000; ++i) plugged.queue_packet('q');
  EXPECT_FALSE(transmit(*plugged.host, plugged.link));
  EXPECT_FALSE(plugged.host->transmit_queue().empty());
  while (plugged.received() != "(nothing)") {
  }
  EXPECT_TRUE(transmit(*plugged.host, plugged.link, 2));
  EXPECT_EQ(plugged.received().size(), 28u);
  EXPECT_EQ(plugged.received().size(), 28u);
  EXPECT_EQ(plugged.received(), "(nothing)");
}

}  // namespace
}  // namespace ustack::io
