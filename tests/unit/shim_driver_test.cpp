// Threads and processes that wait on one host: whoever waits drives, nobody sleeps through what it waits for.
// The link is a socket pair, so every process of these tests has a host of its own.
#include "shim/driver.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "io/clock.h"
#include "shim/fd_table.h"
#include "shim/host_lock.h"
#include "shim/keeper.h"
#include "shim/process.h"
#include "shim/real.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/signals.h"
#include "tests/support/fork_with_host.h"

namespace ustack::shim {
namespace {

/// The other end of the link.
int peer = -1;

/// A wait queue in the arena with the number of tokens that lie at it.
struct Place {
  WaitQueue queue;
  uint64_t tokens = 0;
  uint64_t taken = 0;
};

template <typename T, typename... Args>
T* in_arena(Args&&... args) {
  HostLock lock;
  return shared_host->arena->create<T>(std::forward<Args>(args)...);
}

void put(Place& place) {
  ++place.tokens;
  place.queue.notify(ready::kIn);
}

/// Waits for a token as a blocking call would, through signals and whatever else ends a wait. `alone`: one
/// token is told to one that waits only.
bool take(Place& place, WaitRequest request = {}, std::atomic<uint64_t>* interruptions = nullptr,
          bool alone = false) {
  for (;;) {
    bool interrupted = false;
    {
      Scope scope;
      HostLock lock;
      Wait wait;
      while (place.tokens == 0 && !interrupted) {
        EXPECT_TRUE(wait.on(place.queue, ready::kIn, alone).ok());
        switch (wait.sleep(lock, request)) {
          case WaitOutcome::timed_out:
            if (place.tokens == 0) return false;
            break;
          case WaitOutcome::interrupted:
            interrupted = true;
            break;
          default:
            break;
        }
      }
      if (place.tokens > 0) {
        --place.tokens;
        ++place.taken;
        return true;
      }
    }
    if (interruptions != nullptr) ++*interruptions;
  }
}

/// What a host of these tests is made with. Several queues are one socket: whoever reads first has the frame,
/// as where the kernel has a connection's frames come by another queue than before.
struct Way {
  const char* engine;
  unsigned queues = 1;
};

/// Runs `body` in a process of its own that gets a host, and expects it to end well within `seconds`.
void in_process(const std::function<void()>& body, unsigned seconds = 60, Way way = {"plain"}) {
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(seconds);  // a lost wake-up ends here
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0) _exit(101);
    peer = ends[1];
    setenv("USTACK_LINK", test::link_over(ends[0], way.queues).c_str(), 1);
    setenv("USTACK_ADDR", "192.0.2.2/24", 1);
    setenv("USTACK_IO", way.engine, 1);
    Process::start();
    {
      Scope scope;
      if (!Process::ensure_host().ok()) _exit(102);
    }
    body();
    _exit(testing::Test::HasFailure() ? 103 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status)
                                 << (WTERMSIG(status) == SIGALRM ? ": it hung" : "");
  if (WIFEXITED(status)) {
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
}

/// How many threads drive or sleep while others do. Lock held.
int waiting() {
  int count = 0;
  for (const LinkQueue& queue : shared_host->queues) count += queue.driver != nullptr ? 1 : 0;
  for ([[maybe_unused]] Waiter& sleeper : shared_host->sleepers) ++count;
  return count;
}

/// An ARP request for the host's address, as the peer sends it.
void send_arp_request() {
  const unsigned char frame[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0,   1, 8, 6,  // Ethernet
                                   0,    1,    8,    0,    6,    4,    0, 1, 2, 0, 0,   0, 0, 1,  // request
                                   192,  0,    2,    1,    0,    0,    0, 0, 0, 0, 192, 0, 2, 2};
  // Where nobody reads them any more some are enough.
  const ssize_t sent = send(peer, frame, sizeof frame, MSG_DONTWAIT);
  ASSERT_TRUE(sent == static_cast<ssize_t>(sizeof frame) || errno == EAGAIN);
}

/// Whether an ARP reply comes out of the link within `milliseconds`; other frames are passed over.
bool arp_reply_comes(int milliseconds) {
  auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  for (;;) {
    auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd fds{peer, POLLIN, 0};
    if (left < 0 || poll(&fds, 1, static_cast<int>(left)) <= 0) return false;
    unsigned char frame[2048];
    ssize_t bytes = read(peer, frame, sizeof frame);
    if (bytes >= 42 && frame[12] == 8 && frame[13] == 6 && frame[21] == 2) return true;
  }
}

/// Until the keeper, where there can be one, has all the memory that it ever needs: it watches the link.
void wait_for_keeper() {
  for (bool watches = !keeper::will_take_over(); !watches; usleep(100)) {
    HostLock lock;
    watches = shared_host->keeper.watching_until != LinkQueue::kAwake;
  }
}

class ShimDriver : public testing::TestWithParam<Way> {};

TEST_P(ShimDriver, AWaitThatNothingEndsEndsAtItsDeadline) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        Instant before = io::now();
        EXPECT_FALSE(take(*place, {.deadline = before + 30ms}));
        EXPECT_GE(io::now() - before, 30ms);
        EXPECT_FALSE(take(*place, {.deadline = before}));
      },
      60, GetParam());
}

TEST_P(ShimDriver, TheThreadThatWaitsAnswersForTheHost) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        // While nobody waits the keeper answers, where there can be one.
        bool kept = keeper::will_take_over();
        send_arp_request();
        EXPECT_EQ(arp_reply_comes(kept ? 5000 : 20), kept);
        send_arp_request();
        std::thread waiting([&] { EXPECT_TRUE(take(*place)); });
        EXPECT_TRUE(arp_reply_comes(5000));
        {
          HostLock lock;
          put(*place);
        }
        waiting.join();
        {
          HostLock lock;
          send_arp_request();
          look_at_link(lock);
        }
        // The keeper may have taken the frame off the link a moment before.
        EXPECT_TRUE(arp_reply_comes(kept ? 5000 : 0)) << "a call that doesn't wait looks too";
      },
      60, GetParam());
}

TEST_P(ShimDriver, WishesForOneQueueAddUp) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        auto* other = in_arena<Place>();
        std::vector<Place*> places;
        for (int i = 0; i < 300; ++i) places.push_back(in_arena<Place>());
        HostLock lock;
        Wait wait;
        for (int pass = 0; pass < 3; ++pass) {
          for (uint32_t event : {ready::kIn, ready::kOut}) {
            EXPECT_TRUE(wait.on(place->queue, ready::kOut).ok());
            EXPECT_TRUE(wait.on(other->queue, ready::kIn).ok());
            EXPECT_TRUE(wait.on(place->queue, ready::kIn).ok());
            place->queue.notify(event);
            EXPECT_EQ(wait.sleep(lock, {.deadline = Instant{}}), WaitOutcome::notified) << event;
            place->queue.notify(ready::kPri);
            EXPECT_EQ(wait.sleep(lock, {.deadline = Instant{}}), WaitOutcome::timed_out)
                << "nobody asked for it";
          }
        }
        // Many, as in a poll() of everything; all are told apart.
        for (Place* each : places) {
          for (Place* one : places) EXPECT_TRUE(wait.on(one->queue, ready::kIn).ok());
          each->queue.notify(ready::kIn);
          EXPECT_EQ(wait.sleep(lock, {.deadline = Instant{}}), WaitOutcome::notified);
        }
      },
      60, GetParam());
}

TEST_P(ShimDriver, AKernelDescriptorEndsTheWaitOfDriverAndSleeper) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        for (bool sleeper : {false, true}) {
          auto* other = in_arena<Place>();
          std::thread driver;
          if (sleeper) {
            driver = std::thread([&] { EXPECT_TRUE(take(*other)); });
            while (true) {
              HostLock lock;
              if (waiting() > 0) break;
            }
          }
          int ends[2];
          ASSERT_EQ(pipe(ends), 0);
          std::thread writing([&] {
            usleep(10000);
            EXPECT_EQ(write(ends[1], "x", 1), 1);
          });
          {
            Scope scope;
            HostLock lock;
            Wait wait;
            EXPECT_TRUE(wait.on(place->queue, ready::kIn).ok());
            EXPECT_EQ(wait.sleep(lock, {.kernel_fd = ends[0]}), WaitOutcome::kernel);
            EXPECT_EQ(wait.sleep(lock, {.deadline = Instant::min(), .kernel_fd = ends[0]}),
                      WaitOutcome::kernel);
            char byte;
            EXPECT_EQ(read(ends[0], &byte, 1), 1);
            EXPECT_EQ(wait.sleep(lock, {.deadline = Instant::min(), .kernel_fd = ends[0]}),
                      WaitOutcome::timed_out);
          }
          writing.join();
          if (sleeper) {
            {
              HostLock lock;
              put(*other);
            }
            driver.join();
          }
          kernel_fd_closes();
          close(ends[0]);
          close(ends[1]);
        }
      },
      60, GetParam());
}

TEST_P(ShimDriver, AnEarlierTimerReachesTheSleepingDriver) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        auto* never = in_arena<Place>();
        std::thread driver([&] { EXPECT_TRUE(take(*never)); });
        auto fire = [](Timer&, void* context, Instant) { put(*static_cast<Place*>(context)); };
        auto* timer = in_arena<Timer>(fire, place);
        std::thread sleeper([&] {
          for (int i = 0; i < 20; ++i) EXPECT_TRUE(take(*place, {.deadline = io::now() + 20s}));
        });
        for (uint64_t i = 0; i < 20; ++i) {
          {
            HostLock lock;
            lock.host().timers().arm(*timer, lock.host().now() + 2ms);
          }
          for (;;) {
            HostLock lock;
            if (place->taken == i + 1) break;
            lock.unlock();
            usleep(200);
            lock.lock();
          }
        }
        sleeper.join();
        HostLock lock;
        put(*never);
        lock.unlock();
        driver.join();
        lock.lock();
      },
      60, GetParam());
}

/// Tokens go round a ring of threads. Each kind of waiting is there: plain, with a deadline, with a kernel's
/// descriptor, with a signal mask; signals hit all of them; frames come in between.
void ring(int threads, uint64_t rounds, int tokens, bool with_signals) {
  std::vector<Place*> places;
  for (int i = 0; i < threads; ++i) places.push_back(in_arena<Place>());
  std::atomic<uint64_t> interruptions{0}, handled{0};
  static std::atomic<uint64_t>* handler_count;
  handler_count = &handled;
  struct sigaction action {};
  action.sa_handler = [](int) { ++*handler_count; };
  ASSERT_EQ(signals::action(SIGUSR1, &action, nullptr), 0);

  int silent[2];
  ASSERT_EQ(pipe(silent), 0);
  std::vector<std::thread> workers;
  std::atomic<int> running{threads};
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&, i] {
      sigset_t mask;
      sigemptyset(&mask);
      for (uint64_t round = 0; round < rounds; ++round) {
        WaitRequest request;
        switch ((static_cast<uint64_t>(i) + round) % 4) {
          case 1:
            request.deadline = io::now() + 50s;
            break;
          case 2:
            request.kernel_fd = silent[0];
            break;
          case 3:
            request.signal_mask = &mask;
            break;
        }
        ASSERT_TRUE(take(*places[static_cast<size_t>(i)], request, &interruptions));
        Scope scope;
        HostLock lock;
        put(*places[static_cast<size_t>((i + 1) % threads)]);
      }
      --running;
    });
  }
  {
    HostLock lock;
    for (int i = 0; i < tokens; ++i) put(*places[static_cast<size_t>(i % threads)]);
  }
  uint64_t turn = 0;
  while (running.load() > 0) {
    if (with_signals && running.load() == threads)
      pthread_kill(workers[turn++ % static_cast<size_t>(threads)].native_handle(), SIGUSR1);
    send_arp_request();
    unsigned char frame[2048];
    while (recv(peer, frame, sizeof frame, MSG_DONTWAIT) > 0) {
    }
    usleep(50);
  }
  for (auto& worker : workers) worker.join();
  if (with_signals) {
    EXPECT_GT(interruptions.load(), 0u);
    EXPECT_GT(handled.load(), 0u);
  }
  HostLock lock;
  EXPECT_EQ(waiting(), 0);
  EXPECT_TRUE(shared_host->wakes.empty());
}

TEST_P(ShimDriver, NoWakeUpIsLostBetweenThreads) {
  in_process([] { ring(8, 2000, 3, false); }, 120, GetParam());
}

TEST_P(ShimDriver, NoWakeUpIsLostToSignals) {
  in_process([] { ring(6, 2000, 2, true); }, 120, GetParam());
}

TEST_P(ShimDriver, NoWakeUpIsLostWithOneToken) {
  in_process([] { ring(3, 3000, 1, true); }, 120, GetParam());
}

TEST_P(ShimDriver, FramesAreWrittenUnderTheLockWhileOneThreadUsesTheHost) {
  const bool always = GetParam().queues > 1;
  in_process(
      [always] {
        auto* place = in_arena<Place>();
        auto parallel = []() -> bool {
          HostLock lock;
          return shared_host->parallel;
        };
        EXPECT_FALSE(take(*place, {.deadline = io::now()}));
        EXPECT_EQ(parallel(), always);
        for (int i = 0; i < 3; ++i) {
          std::thread other([&] { EXPECT_TRUE(take(*place)); });
          while (!parallel()) usleep(100);
          {
            HostLock lock;
            put(*place);
          }
          other.join();
          EXPECT_EQ(parallel(), always) << "its waiter went with it";
        }
        send_arp_request();
        EXPECT_FALSE(take(*place, {.deadline = io::now() + 1ms}));
        EXPECT_TRUE(arp_reply_comes(5000)) << "and frames leave as before";
      },
      60, GetParam());
}

TEST_P(ShimDriver, ThreadsComeAndGo) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        wait_for_keeper();
        size_t before = 0;
        for (int i = 0; i < 200; ++i) {
          std::thread one([&] { EXPECT_TRUE(take(*place)); });
          std::thread two([&] { EXPECT_TRUE(take(*place)); });
          // Both wait at once in every round, so that every round needs as much memory as the first.
          for (bool both = false; !both; usleep(20)) {
            HostLock lock;
            both = waiting() == 2;
            if (!both) continue;
            put(*place);
            put(*place);
          }
          one.join();
          two.join();
          HostLock lock;
          if (i == 20) before = shared_host->arena->in_use();
        }
        HostLock lock;
        EXPECT_EQ(shared_host->arena->in_use(), before) << "waiters and engines go with their threads";
      },
      60, GetParam());
}

TEST_P(ShimDriver, RelativesTakeTurns) {
  in_process(
      [] {
        constexpr int kProcesses = 4;
        constexpr uint64_t kRounds = 2000;
        std::vector<Place*> places;
        for (int i = 0; i < kProcesses; ++i) places.push_back(in_arena<Place>());
        int silent[2];
        ASSERT_EQ(pipe(silent), 0);
        // One has an engine already when it forks.
        EXPECT_FALSE(take(*places[0], {.deadline = io::now() + 1ms}));
        std::vector<pid_t> children;
        auto work = [&](int i) {
          for (uint64_t round = 0; round < kRounds; ++round) {
            WaitRequest request;
            if ((static_cast<uint64_t>(i) + round) % 2 == 1) request.kernel_fd = silent[0];
            EXPECT_TRUE(take(*places[static_cast<size_t>(i)], request));
            HostLock lock;
            put(*places[static_cast<size_t>((i + 1) % kProcesses)]);
          }
        };
        for (int i = 1; i < kProcesses; ++i) {
          pid_t child = test::fork_with_host();
          ASSERT_GE(child, 0);
          if (child == 0) {
            alarm(100);
            work(i);
            Process::linger();  // closes what it has, and nothing else, for the others are there
            _exit(testing::Test::HasFailure() ? 1 : 0);
          }
          children.push_back(child);
        }
        {
          HostLock lock;
          EXPECT_EQ(shared_host->attached_count, static_cast<uint32_t>(kProcesses));
          put(*places[0]);
        }
        work(0);
        for (pid_t child : children) {
          int status = 0;
          EXPECT_EQ(waitpid(child, &status, 0), child);
          EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
        }
        HostLock lock;
        EXPECT_EQ(shared_host->attached_count, 1u);
        shared_host->reap_dead();
        EXPECT_EQ(shared_host->attachments, 1u) << "nothing is left of them";
      },
      120, GetParam());
}

TEST_P(ShimDriver, AKilledDriverIsSucceeded) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        auto* never = in_arena<Place>();
        pid_t child = test::fork_with_host();
        if (child == 0) {
          take(*never);
          _exit(0);
        }
        for (bool driving = false; !driving;) {
          HostLock lock;
          for (const LinkQueue& queue : shared_host->queues)
            driving |= queue.driver != nullptr && queue.driver_pid == child;
        }
        std::thread sleeper([&] { EXPECT_TRUE(take(*place)); });
        for (bool sleeping = false; !sleeping;) {
          HostLock lock;
          sleeping = waiting() == 2;
        }
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
        send_arp_request();
        EXPECT_TRUE(arp_reply_comes(10000)) << "the sleeper drives now";
        {
          HostLock lock;
          put(*place);
        }
        sleeper.join();
        HostLock lock;
        shared_host->reap_dead();
        EXPECT_EQ(shared_host->attached_count, 1u);
        EXPECT_EQ(shared_host->repairs, 0u);
      },
      60, GetParam());
}

TEST_P(ShimDriver, WhatAKilledOneWasToldAloneIsToldTheNext) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        auto wait_for = [](int count) {
          for (bool there = false; !there;) {
            HostLock lock;
            there = waiting() == count;
          }
        };
        pid_t first = test::fork_with_host();
        if (first == 0) {
          take(*place, {}, nullptr, true);
          _exit(0);
        }
        wait_for(1);
        std::thread next([&] { EXPECT_TRUE(take(*place, {}, nullptr, true)); });
        wait_for(2);
        kill(first, SIGSTOP);
        waitpid(first, nullptr, WUNTRACED);
        {
          HostLock lock;
          put(*place);
        }
        // Time for another one to take it, had that been told.
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        {
          HostLock lock;
          EXPECT_EQ(place->tokens, 1u) << "the one that can't take it was told";
        }
        kill(first, SIGKILL);
        waitpid(first, nullptr, 0);
        next.join();
        HostLock lock;
        EXPECT_EQ(place->taken, 1u);
      },
      60, GetParam());
}

TEST_P(ShimDriver, ALostWakeUpOfTheLockIsNotWaitedFor) {
  in_process(
      [] {
        std::thread sleeper;
        {
          HostLock lock;
          sleeper = std::thread([] { HostLock inner; });
          auto& word = reinterpret_cast<std::atomic<int>&>(shared_host->shards[0].lock.__data.__lock);
          while ((word & FUTEX_WAITERS) == 0) std::this_thread::yield();
          // Time to fall asleep. Then as if another one had taken the lock who knows nothing of it.
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          word &= ~FUTEX_WAITERS;
        }
        sleeper.join();
      },
      10, GetParam());
}

TEST_P(ShimDriver, AForkThatFailedLeavesNothing) {
  in_process(
      [] {
        // The first time, and the keeper's beginning, take memory that stays.
        size_t before = 0, after = 1;
        for (int i = 0; i < 50 && after != before; ++i) {
          {
            HostLock lock;
            before = shared_host->arena->in_use();
          }
          Process::before_fork();
          Process::after_fork_in_parent();
          Process::fork_returned(-1);
          HostLock lock;
          EXPECT_EQ(shared_host->attached_count, 1u);
          EXPECT_EQ(shared_host->attachments, 1u);
          after = shared_host->arena->in_use();
        }
        EXPECT_EQ(after, before);
      },
      60, GetParam());
}

TEST_P(ShimDriver, AChildKilledAtBirthIsCleared) {
  in_process(
      [] {
        for (int i = 0; i < 20; ++i) {
          pid_t child = test::fork_with_host();
          if (child == 0) pause();
          kill(child, SIGKILL);
          waitpid(child, nullptr, 0);
          HostLock lock;
          shared_host->reap_dead();
          EXPECT_EQ(shared_host->attachments, 1u);
        }
      },
      60, GetParam());
}

TEST_P(ShimDriver, AnOwnerThatDiesInsideTheLockIsNoticed) {
  in_process(
      [] {
        pid_t child = test::fork_with_host();
        if (child == 0) {
          acquire(*shared_host);
          kill(getpid(), SIGKILL);
        }
        waitpid(child, nullptr, 0);
        HostLock lock;
        EXPECT_EQ(shared_host->repairs, 1u);
      },
      60, GetParam());
}

TEST_P(ShimDriver, AKilledSleeperLeavesNothing) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        auto* never = in_arena<Place>();
        wait_for_keeper();
        std::thread driver([&] { EXPECT_TRUE(take(*never)); });
        for (bool driving = false; !driving;) {
          HostLock lock;
          driving = waiting() == 1;
        }
        size_t before = 0;
        for (int i = 0; i < 3; ++i) {
          pid_t child = test::fork_with_host();
          if (child == 0) {
            int silent[2];
            if (pipe(silent) != 0) _exit(1);
            take(*place, {.kernel_fd = silent[0]});  // on one of the shared events
            _exit(0);
          }
          for (bool sleeping = false; !sleeping;) {
            HostLock lock;
            sleeping = waiting() == 2;
          }
          kill(child, SIGKILL);
          waitpid(child, nullptr, 0);
          HostLock lock;
          shared_host->reap_dead();
          EXPECT_EQ(shared_host->attachments, 1u);
          EXPECT_EQ(waiting(), 1);
          EXPECT_TRUE(place->queue.empty());
          EXPECT_EQ(shared_host->shared_events, 0u);
          if (i == 0) before = shared_host->arena->in_use();
          EXPECT_EQ(shared_host->arena->in_use(), before);
        }
        {
          HostLock lock;
          put(*never);
        }
        driver.join();
      },
      60, GetParam());
}

TEST_P(ShimDriver, AnUnannouncedChildIsNoticed) {
  in_process(
      [] {
        auto* place = in_arena<Place>();
        EXPECT_FALSE(take(*place, {.deadline = io::now() + 1ms}));  // an engine and a waiter to inherit
        pid_t child = fork();                                       // no handler runs
        if (child == 0) {
          alarm(20);
          bool in_time = take(*place, {.deadline = io::now() + 10s});
          _exit(in_time && shared_host->attached_count == 2 ? 0 : 1);
        }
        for (bool there = false; !there;) {
          HostLock lock;
          there = shared_host->attached_count == 2;
          if (there) put(*place);
        }
        int status = 0;
        EXPECT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
        EXPECT_FALSE(take(*place, {.deadline = io::now() + 1ms}));
      },
      60, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Engines, ShimDriver,
                         testing::Values(Way{"plain"}, Way{"uring"}, Way{"plain", 2}, Way{"uring", 3}),
                         [](const auto& way) {
                           return way.param.engine + (way.param.queues > 1
                                                          ? std::to_string(way.param.queues) + "queues"
                                                          : std::string());
                         });

}  // namespace
}  // namespace ustack::shim
