// What the stack is made of, by itself: fiber switches, timers, demultiplexing, checksums, blocks.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "stack/base/checksum.h"
#include "stack/base/siphash.h"
#include "stack/fiber/task.h"
#include "stack/mem/block.h"
#include "stack/tcp/demux.h"
#include "stack/time/timer.h"
#include "tests/support/heap_arena.h"
#include "tests/support/seeded_random.h"

namespace ustack {
namespace {

/// Waits in the middle: keeps its stack.
class Waiting final : public Task {
 public:
  using Task::Task;
  Waker waker;
  bool stop = false;

 private:
  void run() override {
    Sleeper sleeper(*this);
    sleeper.add(waker, 1);
    while (!stop) sleeper.fetch(true);
  }
};

/// Ends its run when there is nothing to do: a fresh start each time.
class Idling final : public Task {
 public:
  explicit Idling(Scheduler& scheduler) : Task(scheduler) { sleeper_.add(waker, 1); }
  Waker waker;

 private:
  void run() override {
    while (sleeper_.fetch(false) != -1) {
    }
  }
  Sleeper sleeper_{*this};
};

void BM_WakeSuspendedTask(benchmark::State& state) {
  test::HeapArena arena;
  Scheduler scheduler(arena, Scheduler::kDefaultStackBytes, 2);
  Waiting task(scheduler);
  task.make_ready();
  scheduler.run();
  for (auto _ : state) {
    task.waker.wake();
    scheduler.run();
  }
  task.stop = true;
  task.waker.wake();
  scheduler.run();
}
BENCHMARK(BM_WakeSuspendedTask);

void BM_WakeIdleTask(benchmark::State& state) {
  test::HeapArena arena;
  Scheduler scheduler(arena, Scheduler::kDefaultStackBytes, 2);
  Idling task(scheduler);
  for (auto _ : state) {
    task.waker.wake();
    scheduler.run();
  }
}
BENCHMARK(BM_WakeIdleTask);

void BM_RearmTimer(benchmark::State& state) {
  TimerWheel wheel(Instant(1s));
  std::vector<std::unique_ptr<Timer>> timers;
  for (int64_t i = 0; i < state.range(0); ++i) {
    timers.push_back(std::make_unique<Timer>([](Timer&, void*, Instant) {}, nullptr));
    wheel.arm(*timers.back(), Instant(1s) + Duration(i * 1'000'003 % 60'000'000'000));
  }
  size_t next = 0;
  for (auto _ : state) {
    wheel.arm(*timers[next], Instant(1s) + 200ms + Duration(static_cast<int64_t>(next) * 1000));
    next = next + 1 == timers.size() ? 0 : next + 1;
  }
}
BENCHMARK(BM_RearmTimer)->Arg(1)->Arg(1000)->Arg(100000)->Arg(1000000);

struct TableEntry : tcp::Connection {
  TableEntry() : Connection(Kind::endpoint) {}
};

/// The n-th connection of many peers to one port.
ConnectionId connection_id(uint32_t n) {
  const auto peer = static_cast<uint8_t>(n / 50'000 + 1);
  return {.local = {IpAddress::v4(192, 0, 2, 2), 80},
          .remote = {IpAddress::v4(198, 51, 100, peer), static_cast<uint16_t>(n % 50'000 + 1024)}};
}

/// A table of so many, asked for them in no order that a cache would know.
class FullTable {
 public:
  explicit FullTable(uint32_t count) : entries_(count) {
    for (uint32_t i = 0; i < count; ++i) (void)table.insert(entries_[i], connection_id(i));
  }
  ~FullTable() {
    for (TableEntry& entry : entries_) table.remove(entry);
  }
  uint32_t next() {
    constexpr uint32_t kPrime = 7'368'787;
    at_ = static_cast<uint32_t>((at_ + uint64_t{kPrime}) % entries_.size());
    return at_;
  }
  TableEntry& entry(uint32_t i) { return entries_[i]; }

 private:
  test::HeapArena arena_;
  test::SeededRandom random_{1};
  std::vector<TableEntry> entries_;
  uint32_t at_ = 0;

 public:
  tcp::ConnectionTable table{arena_, random_};
};

/// Whose a segment is, among so many connections.
void BM_Demux(benchmark::State& state) {
  FullTable full(static_cast<uint32_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(full.table.find(connection_id(full.next())));
}
BENCHMARK(BM_Demux)->Arg(10)->Arg(1000)->Arg(100000)->Arg(1000000);

/// One goes and comes beside so many others.
void BM_DemuxChange(benchmark::State& state) {
  FullTable full(static_cast<uint32_t>(state.range(0)));
  for (auto _ : state) {
    const uint32_t i = full.next();
    full.table.remove(full.entry(i));
    (void)full.table.insert(full.entry(i), connection_id(i));
  }
}
BENCHMARK(BM_DemuxChange)->Arg(10)->Arg(1000)->Arg(100000)->Arg(1000000);

void BM_NextDeadline(benchmark::State& state) {
  TimerWheel wheel(Instant(1s));
  Timer timer([](Timer&, void*, Instant) {}, nullptr);
  wheel.arm(timer, Instant(1s) + 200ms);
  for (auto _ : state) benchmark::DoNotOptimize(wheel.next_deadline());
}
BENCHMARK(BM_NextDeadline);

void BM_Checksum(benchmark::State& state) {
  std::vector<std::byte> data(static_cast<size_t>(state.range(0)), std::byte{0x5a});
  for (auto _ : state) benchmark::DoNotOptimize(checksum_of(data));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Checksum)->Arg(20)->Arg(64)->Arg(1460)->Arg(65536);

void BM_SipHashOfFourTuple(benchmark::State& state) {
  std::byte tuple[12] = {};
  SipKey key{1, 2};
  for (auto _ : state) benchmark::DoNotOptimize(siphash(key, tuple));
}
BENCHMARK(BM_SipHashOfFourTuple);

void BM_Block(benchmark::State& state) {
  test::HeapArena arena;
  BlockPool pool(arena);
  for (auto _ : state) {
    BlockRef block = pool.allocate(2000);
    benchmark::DoNotOptimize(block.get());
  }
}
BENCHMARK(BM_Block);

}  // namespace
}  // namespace ustack
