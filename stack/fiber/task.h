// Fibers, and what they run. A Task is protocol code that reads from top to bottom: it waits in a Sleeper on
// Wakers, as in the seed. It holds a stack only while it runs or waits in the middle of something.
//
//      idle --Waker::wake()--> ready --Scheduler::run()--> running --body returns--> idle   (stack given
//      back)
//                                  ^                            |
//                                  '---- Waker::wake() ---- suspended  (Sleeper::fetch(block), stack kept)
//
// Rules for code on a fiber: no exceptions, no thread_local and no errno across fetch(); no user memory.
// Everything here is protected by the host's lock. A fiber suspended by one process may be resumed by another
// that shares the arena: stacks live in the arena, and code is at the same address after fork.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/base/intrusive_list.h"
#include "stack/base/sanitizers.h"
#include "stack/mem/arena.h"
#include "stack/mem/not_on_heap.h"

namespace ustack {

class Scheduler;
class Sleeper;
struct Fiber;
struct SleeperMember;     // tag: all wakers of a sleeper, asserted or not
struct ResolutionWaiter;  // tag: the wakers that wait for a neighbour's link address (net/neighbour.h)

/// Something that runs on a fiber. Derive and implement run().
class Task : public ListHook<Task>, public NotOnHeap {
 public:
  enum class State : uint8_t { idle, ready, running, suspended };

  explicit Task(Scheduler& scheduler) : scheduler_(scheduler) {}
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  /// A task may be destroyed when it is idle or ready, never while it holds a stack (state running or
  /// suspended): end its run first, by waking it with a notification that makes run() return.
  virtual ~Task() {
    if (fiber_ != nullptr) __builtin_trap();
  }

  State state() const { return state_; }
  /// It runs, or will go on in the middle of something.
  bool holds_stack() const { return fiber_ != nullptr; }
  Scheduler& scheduler() { return scheduler_; }
  /// Puts the task in the run queue unless it is there or running already.
  void make_ready();

 protected:
  /// The body; called on a fiber each time that the idle task was made ready. Returning ends the fiber and
  /// gives its stack back; what must last lives in the object.
  virtual void run() = 0;
  /// Called on the scheduler's stack right after run() has returned; the only place where a task may destroy
  /// itself. The task is idle, or ready when something was asserted meanwhile.
  virtual void after_run() {}
  /// No stack could be had (arena exhausted). The task stays ready and is tried again in the next run();
  /// override to shed the work instead.
  virtual void no_stack() {}

 private:
  friend class Scheduler;
  friend class Sleeper;
  friend class Waker;
  void wake_by_mark();

 protected:
  /// Who mends knows how many of the wakers of an idle task's sleepers are asserted.
  void mend_marks(uint32_t marks) { marks_ = marks; }

 private:
  Scheduler& scheduler_;
  Fiber* fiber_ = nullptr;
  uint32_t marks_ = 0;  // asserted wakers in its sleepers
  State state_ = State::idle;
  bool again_ = false;          // made ready while running
  bool again_by_mark_ = false;  // a waker was asserted while running; moot if all marks are fetched
};

/// The run queue and the pool of stacks.
class Scheduler {
 public:
  /// Stacks of `stack_bytes` (a multiple of 4096), each with a guard page below it. `carve` stacks are made
  /// at once, so that their guard pages exist in all later children (each is two mappings more for fork to
  /// copy); others when they are needed, guarded in the process that makes them and its children. Stacks stay
  /// in the pool until the end: their guard pages are per process, so the arena could not use that memory for
  /// anything else.
  Scheduler(Arena& arena, size_t stack_bytes, uint32_t carve);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;
  ~Scheduler();

  /// 16 KiB; more where frames are fatter, unoptimised or under sanitizers.
#ifdef NDEBUG
  static constexpr size_t kDefaultStackBytes = (kAddressSanitizer || kThreadSanitizer ? 128 : 16) * 1024;
#else
  static constexpr size_t kDefaultStackBytes = (kAddressSanitizer || kThreadSanitizer ? 128 : 64) * 1024;
#endif

  /// Runs ready tasks until none is left. Returns how many turns were taken. Must not be called on a fiber.
  uint32_t run();
  bool idle() const { return ready_empty(); }
  /// The task whose code runs now, nullptr outside of run().
  Task* current() { return current_; }
  /// Tasks wait for a stack that could not be had; the next run() tries again.
  bool starved() const { return starved_; }
  /// Stacks held by tasks that run or wait in the middle of something.
  uint32_t stacks_in_use() const { return stacks_in_use_; }

  /// After a process was killed while it changed the host (its lists are whole, see ListJournal): no task
  /// runs, and those that had no stack are ready again. Then mend(task) for each.
  void mend();
  /// Puts a task where its state says. True: it was running, in the middle of something; its stack is given
  /// back. Nothing may refer to what lay on it.
  bool mend(Task& task);

 private:
  friend class Task;
  friend class Sleeper;
  bool ready_empty() const;
  Fiber* make_stack();
  Fiber* take_stack();
  void give_stack(Fiber* fiber);
  void free_stack(Fiber* fiber);
  void enter(Task& task);
  static void body(Task& task);
  friend struct FiberEntry;
  void suspend(Task& task);  // on the task's fiber: back to run()

  Arena& arena_;
  size_t stack_bytes_;
  IntrusiveList<Task, Task> ready_;
  /// Found no stack in the run() that is under way.
  IntrusiveList<Task, Task> without_stack_;
  Task* current_ = nullptr;
  Fiber* free_ = nullptr;
  uint32_t free_count_ = 0;
  uint32_t stacks_in_use_ = 0;
  bool starved_ = false;
};

/// A source of notifications. wake() (the seed's Assert, a name that <cassert> takes) is remembered until it
/// is fetched or cleared: none is lost, and repeated ones are one. Belongs to at most one Sleeper at a time.
class Waker : public ListHook<Waker>, public ListHook<SleeperMember>, public ListHook<ResolutionWaiter> {
 public:
  Waker() = default;
  ~Waker();
  /// Wakes the sleeper's task, or leaves the mark for the next sleeper.
  void wake();
  void clear();
  bool asserted() const { return asserted_; }
  /// After a process was killed while it changed the host: the sleeper is told again. True: it is asserted.
  bool mend();
  /// Belongs to no sleeper from here on and is not asserted; whose lists are lost need not be told.
  void forsake();

 private:
  friend class Sleeper;
  Sleeper* sleeper_ = nullptr;
  int id_ = 0;
  bool asserted_ = false;
};

/// Where a task waits for any of several wakers. Either a local of run() (waits in the middle: fetch(true)
/// keeps the stack), or a member of the task (idle waits: fetch(false), and run() returns when it is -1; the
/// next assert starts run() afresh).
class Sleeper {
 public:
  explicit Sleeper(Task& owner) : owner_(owner) {}
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  /// Takes all wakers out; their marks stay.
  ~Sleeper() { done(); }

  /// From now on fetch() reports `id` when `waker` is asserted (also if it is already).
  void add(Waker& waker, int id);
  void remove(Waker& waker);
  /// The id of an asserted waker, which it clears, in the order in which they were asserted. With none:
  /// blocks the owner's fiber, or returns -1 if !block. Blocking is allowed only on the owner's own fiber.
  int fetch(bool block);
  void done();

 private:
  friend class Waker;
  Task& owner_;
  IntrusiveList<Waker, Waker> asserted_;
  IntrusiveList<Waker, SleeperMember> members_;
};

}  // namespace ustack
