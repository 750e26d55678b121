#include "stack/fiber/task.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stack/mem/shared_arena.h"
#include "tests/support/heap_arena.h"

namespace ustack {
namespace {

class Lambda : public Task {
 public:
  Lambda(Scheduler& scheduler, std::function<void(Lambda&)> body) : Task(scheduler), body_(std::move(body)) {}
  int runs = 0, ends = 0, starved = 0;
  std::function<void()> at_end;

 protected:
  void run() override {
    ++runs;
    body_(*this);
  }
  void after_run() override {
    ++ends;
    if (at_end) at_end();
  }
  void no_stack() override { ++starved; }

 private:
  std::function<void(Lambda&)> body_;
};

class TaskTest : public testing::Test {
 protected:
  test::HeapArena arena;
  Scheduler scheduler{arena, Scheduler::kDefaultStackBytes, 4};
};

TEST_F(TaskTest, ReadyTaskRunsOnceAndGivesItsStackBack) {
  Lambda task(scheduler, [&](Lambda& self) {
    EXPECT_EQ(scheduler.current(), &self);
    EXPECT_EQ(self.state(), Task::State::running);
    EXPECT_EQ(scheduler.stacks_in_use(), 1u);
  });
  EXPECT_EQ(scheduler.run(), 0u);
  task.make_ready();
  task.make_ready();
  EXPECT_EQ(scheduler.run(), 1u);
  EXPECT_EQ(task.runs, 1);
  EXPECT_EQ(task.ends, 1);
  EXPECT_EQ(task.state(), Task::State::idle);
  EXPECT_EQ(scheduler.stacks_in_use(), 0u);
  EXPECT_EQ(scheduler.current(), nullptr);
  EXPECT_TRUE(scheduler.idle());
}

TEST_F(TaskTest, BlockingFetchKeepsLocalsAndOrderOfAsserts) {
  Waker a, b;
  std::vector<int> got;
  Lambda task(scheduler, [&](Lambda& self) {
    Sleeper sleeper(self);
    sleeper.add(a, 1);
    sleeper.add(b, 2);
    int local = 40;
    for (int i = 0; i < 4; ++i) got.push_back(local + sleeper.fetch(true));
  });
  task.make_ready();
  scheduler.run();
  EXPECT_EQ(task.state(), Task::State::suspended);
  EXPECT_EQ(scheduler.stacks_in_use(), 1u);
  b.wake();
  a.wake();
  b.wake();  // one with the first
  EXPECT_EQ(scheduler.run(), 1u);
  EXPECT_EQ(got, (std::vector<int>{42, 41}));
  a.wake();
  scheduler.run();
  EXPECT_EQ(task.runs, 1);
  b.wake();
  scheduler.run();
  EXPECT_EQ(got, (std::vector<int>{42, 41, 41, 42}));
  EXPECT_EQ(task.ends, 1);
  EXPECT_EQ(scheduler.stacks_in_use(), 0u);
}

TEST_F(TaskTest, MemberSleeperStartsTheBodyAfreshAndHoldsNoStackWhileIdle) {
  Waker waker;
  std::unique_ptr<Sleeper> sleeper;
  std::vector<int> got;
  Lambda task(scheduler, [&](Lambda&) {
    for (int id; (id = sleeper->fetch(false)) != -1;) got.push_back(id);
  });
  sleeper = std::make_unique<Sleeper>(task);
  sleeper->add(waker, 7);
  EXPECT_EQ(scheduler.run(), 0u);
  for (int i = 0; i < 3; ++i) {
    waker.wake();
    EXPECT_EQ(scheduler.run(), 1u);
    EXPECT_EQ(scheduler.stacks_in_use(), 0u);
  }
  EXPECT_EQ(got, (std::vector<int>{7, 7, 7}));
  sleeper.reset();
}

TEST_F(TaskTest, MarkSetBeforeAddIsReported) {
  Waker waker;
  waker.wake();
  int got = 0;
  Lambda task(scheduler, [&](Lambda& self) {
    Sleeper sleeper(self);
    sleeper.add(waker, 3);
    got = sleeper.fetch(true);
  });
  task.make_ready();
  scheduler.run();
  EXPECT_EQ(got, 3);
  EXPECT_FALSE(waker.asserted());
}

TEST_F(TaskTest, MarkOutlivesTheSleeperAndClearTakesItAway) {
  Waker kept, cleared;
  Lambda task(scheduler, [&](Lambda& self) {
    Sleeper sleeper(self);
    sleeper.add(kept, 1);
    sleeper.add(cleared, 2);
    kept.wake();
    cleared.wake();
    cleared.clear();
  });
  task.make_ready();
  scheduler.run();
  EXPECT_TRUE(kept.asserted());
  EXPECT_FALSE(cleared.asserted());
}

TEST_F(TaskTest, FetchedAssertsWhileRunningCauseNoExtraTurn) {
  Waker waker;
  std::unique_ptr<Sleeper> sleeper;
  Lambda task(scheduler, [&](Lambda& self) {
    int seen = 0;
    while (sleeper->fetch(false) != -1) {
      if (self.runs == 1 && ++seen < 3) waker.wake();
    }
  });
  sleeper = std::make_unique<Sleeper>(task);
  sleeper->add(waker, 1);
  waker.wake();
  EXPECT_EQ(scheduler.run(), 1u);
  EXPECT_EQ(task.runs, 1);
  sleeper.reset();
}

TEST_F(TaskTest, UnfetchedAssertWhileRunningCausesAnotherTurn) {
  Waker first, second;
  std::unique_ptr<Sleeper> sleeper;
  Lambda task(scheduler, [&](Lambda& self) {
    sleeper->fetch(false);
    if (self.runs == 1) second.wake();
  });
  sleeper = std::make_unique<Sleeper>(task);
  sleeper->add(first, 1);
  sleeper->add(second, 2);
  first.wake();
  EXPECT_EQ(scheduler.run(), 2u);
  sleeper.reset();
}

TEST_F(TaskTest, MakeReadyWhileRunningYields) {
  std::string order;
  Lambda one(scheduler, [&](Lambda& self) {
    order += '1';
    if (self.runs < 3) self.make_ready();
  });
  Lambda two(scheduler, [&](Lambda& self) {
    order += '2';
    if (self.runs < 3) self.make_ready();
  });
  one.make_ready();
  two.make_ready();
  EXPECT_EQ(scheduler.run(), 6u);
  EXPECT_EQ(order, "121212");
}

TEST_F(TaskTest, SpuriousReadinessDoesNotEndABlockingFetch) {
  Waker waker;
  int got = 0;
  Lambda task(scheduler, [&](Lambda& self) {
    Sleeper sleeper(self);
    sleeper.add(waker, 5);
    got = sleeper.fetch(true);
  });
  task.make_ready();
  scheduler.run();
  task.make_ready();
  EXPECT_EQ(scheduler.run(), 1u);
  EXPECT_EQ(got, 0);
  waker.wake();
  scheduler.run();
  EXPECT_EQ(got, 5);
}

TEST_F(TaskTest, TaskMayDestroyItselfAfterItsRun) {
  auto* task = arena.create<Lambda>(scheduler, [](Lambda&) {});
  task->at_end = [&] { arena.destroy(task); };
  task->make_ready();
  scheduler.run();
  EXPECT_EQ(scheduler.stacks_in_use(), 0u);
}

TEST_F(TaskTest, ReadyTaskMayBeDestroyed) {
  auto task = std::unique_ptr<Lambda, void (*)(Lambda*)>(new Lambda(scheduler, [](Lambda&) { FAIL(); }),
                                                         [](Lambda* t) {
                                                           t->~Lambda();
                                                           ::operator delete(t);
                                                         });
  task->make_ready();
  task.reset();
  EXPECT_EQ(scheduler.run(), 0u);
}

TEST_F(TaskTest, WakerDestroyedWhileAssertedLeavesItsSleeper) {
  auto waker = std::make_unique<Waker>();
  Waker other;
  int got = 0;
  Lambda task(scheduler, [&](Lambda& self) {
    Sleeper sleeper(self);
    sleeper.add(*waker, 1);
    sleeper.add(other, 2);
    got = sleeper.fetch(true);
  });
  task.make_ready();
  scheduler.run();
  waker->wake();
  waker.reset();
  scheduler.run();
  EXPECT_EQ(got, 0);
  other.wake();
  scheduler.run();
  EXPECT_EQ(got, 2);
}

TEST_F(TaskTest, NestedCallsAndManyFibersKeepTheirStacksApart) {
  constexpr int kTasks = 200;
  std::vector<std::unique_ptr<Waker>> wakers;
  std::vector<std::unique_ptr<Lambda>> tasks;
  int finished = 0;
  std::function<int(Sleeper&, int)> descend = [&](Sleeper& sleeper, int depth) -> int {
    volatile int mark = depth;
    if (depth == 0) return sleeper.fetch(true);
    int result = descend(sleeper, depth - 1);
    EXPECT_EQ(mark, depth);
    return result;
  };
  for (int i = 0; i < kTasks; ++i) {
    wakers.push_back(std::make_unique<Waker>());
    tasks.push_back(std::make_unique<Lambda>(scheduler, [&, i](Lambda& self) {
      Sleeper sleeper(self);
      sleeper.add(*wakers[i], i);
      EXPECT_EQ(descend(sleeper, 20), i);
      ++finished;
    }));
    tasks.back()->make_ready();
  }
  scheduler.run();
  EXPECT_EQ(scheduler.stacks_in_use(), 200u);
  for (int i = kTasks - 1; i >= 0; --i) wakers[i]->wake();
  scheduler.run();
  EXPECT_EQ(finished, kTasks);
  EXPECT_EQ(scheduler.stacks_in_use(), 0u);
  for (auto& task : tasks) {
    task->~Lambda();
    ::operator delete(task.release());
  }
}

TEST(TaskStarvation, TaskWithoutStackStaysReadyAndRunsWhenMemoryIsBack) {
  test::HeapArena arena;
  Scheduler scheduler(arena, Scheduler::kDefaultStackBytes, 0);
  Lambda task(scheduler, [](Lambda&) {});
  arena.set_limit(0);
  task.make_ready();
  EXPECT_EQ(scheduler.run(), 0u);
  EXPECT_TRUE(scheduler.starved());
  EXPECT_EQ(task.starved, 1);
  EXPECT_EQ(task.state(), Task::State::ready);
  arena.never_fail();
  EXPECT_EQ(scheduler.run(), 1u);
  EXPECT_FALSE(scheduler.starved());
  EXPECT_EQ(task.runs, 1);
}

TEST(TaskStacks, CarvedAtOnceAndReusedLastInFirstOut) {
  test::HeapArena arena(/*recycle=*/true);
  Scheduler scheduler(arena, Scheduler::kDefaultStackBytes, 3);
  EXPECT_EQ(arena.objects(), 3u);
  Waker go;
  const void* first = nullptr;
  const void* second = nullptr;
  Lambda one(scheduler, [&](Lambda&) { first = __builtin_frame_address(0); });
  Lambda two(scheduler, [&](Lambda&) { second = __builtin_frame_address(0); });
  one.make_ready();
  scheduler.run();
  two.make_ready();
  scheduler.run();
  EXPECT_EQ(first, second);
  EXPECT_EQ(arena.objects(), 3u);
}

/// All in shared memory, as in use: what one process leaves suspended, another resumes.
class Counting final : public Task {
 public:
  using Task::Task;
  Waker waker;
  int steps = 0;
  pid_t last = 0;
  bool ended = false;

 private:
  void run() override {
    Sleeper sleeper(*this);
    sleeper.add(waker, 1);
    int local = 0;
    while (local < 4) {
      sleeper.fetch(true);
      ++local;
      steps = local;
      last = getpid();
    }
    ended = true;
  }
};

class MappedPages final : public MemorySource {
 public:
  bool commit(void*, size_t) override { return true; }
  void release(void*, size_t) override {}
  void guard(void* memory, size_t bytes) override { EXPECT_EQ(mprotect(memory, bytes, PROT_NONE), 0); }
  void unguard(void* memory, size_t bytes) override {
    EXPECT_EQ(mprotect(memory, bytes, PROT_READ | PROT_WRITE), 0);
  }
};

TEST(TaskAcrossProcesses, FiberSuspendedByOneIsResumedByTheOther) {
  constexpr size_t kBytes = 8 << 20;
  void* region =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(region, MAP_FAILED);
  MappedPages pages;
  SharedArena* arena = SharedArena::create(region, kBytes, pages);
  ASSERT_NE(arena, nullptr);
  auto* scheduler = arena->create<Scheduler>(*arena, Scheduler::kDefaultStackBytes, 2u);
  auto* task = arena->create<Counting>(*scheduler);
  task->make_ready();
  scheduler->run();
  auto step = [&] {
    task->waker.wake();
    scheduler->run();
  };
  auto step_in_child = [&] {
    pid_t child = fork();
    if (child == 0) {
      step();
      _exit(task->last == getpid() ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  };
  step();
  EXPECT_EQ(task->steps, 1);
  step_in_child();
  EXPECT_EQ(task->steps, 2);
  step();
  EXPECT_EQ(task->steps, 3);
  EXPECT_EQ(task->last, getpid());
  step_in_child();
  EXPECT_TRUE(task->ended);
  EXPECT_EQ(task->state(), Task::State::idle);
  EXPECT_EQ(scheduler->stacks_in_use(), 0u);
  arena->destroy(task);
  arena->destroy(scheduler);
  EXPECT_EQ(arena->in_use(), 0u);
  munmap(region, kBytes);
}

using TaskDeathTest = TaskTest;

TEST_F(TaskDeathTest, DestroyingATaskThatHoldsAStackTraps) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        Waker waker;
        Lambda task(scheduler, [&](Lambda& self) {
          Sleeper sleeper(self);
          sleeper.add(waker, 1);
          sleeper.fetch(true);
        });
        task.make_ready();
        scheduler.run();
      },
      "");
}

TEST_F(TaskDeathTest, OverflowOfAStackHitsItsGuardPage) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  std::function<int(int)> endless = [&](int depth) -> int {
    volatile char room[512];
    room[0] = static_cast<char>(depth);
    return endless(depth + 1) + room[0];
  };
  EXPECT_DEATH(
      {
        Lambda task(scheduler, [&](Lambda&) { endless(0); });
        task.make_ready();
        scheduler.run();
      },
      "");
}

}  // namespace
}  // namespace ustack
