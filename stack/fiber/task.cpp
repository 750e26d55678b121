#include "stack/fiber/task.h"

#include <boost/context/detail/fcontext.hpp>
#include <utility>

#ifdef USTACK_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef USTACK_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace ustack {

namespace context = boost::context::detail;

/// A stack and what runs on it; sits at the stack's upper end.
///
///     memory: | guard page | stack, growing down <---- | Fiber |
struct Fiber {
  static constexpr size_t kGuardBytes = 4096;

  Fiber* next_free = nullptr;
  std::byte* memory = nullptr;
  /// Without the guard page, with the Fiber.
  size_t stack_bytes = 0;
  Task* task = nullptr;
  /// Where the fiber goes on, while it is suspended.
  context::fcontext_t resume = nullptr;
  /// Where the run() that has entered it goes on. Another one each time, in whatever thread or process it is.
  context::fcontext_t scheduler = nullptr;
  bool finished = false;
#ifdef USTACK_ASAN
  void* fake_stack = nullptr;
  const void* scheduler_bottom = nullptr;
  size_t scheduler_bytes = 0;
#endif
#ifdef USTACK_TSAN
  void* tsan = nullptr;
  void* tsan_scheduler = nullptr;
#endif

  std::byte* bottom() const { return memory + kGuardBytes; }
  std::byte* top() { return reinterpret_cast<std::byte*>(this); }
  size_t usable() { return static_cast<size_t>(top() - bottom()); }
};

/// The switches, announced to the sanitizers.
struct FiberEntry {
  static void start(Fiber& fiber) {
    fiber.finished = false;
    fiber.resume = context::make_fcontext(fiber.top(), fiber.usable(), &FiberEntry::main);
#ifdef USTACK_TSAN
    fiber.tsan = __tsan_create_fiber(0);
#endif
  }

  /// From run() to the fiber, until that suspends or finishes.
  static void to_fiber(Fiber& fiber) {
#ifdef USTACK_ASAN
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, fiber.bottom(), fiber.usable());
#endif
#ifdef USTACK_TSAN
    fiber.tsan_scheduler = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber.tsan, 0);
#endif
    context::transfer_t back = context::jump_fcontext(fiber.resume, &fiber);
#ifdef USTACK_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
    fiber.resume = back.fctx;
#ifdef USTACK_TSAN
    if (fiber.finished) __tsan_destroy_fiber(fiber.tsan);
#endif
  }

  /// From the fiber back to run().
  static void to_scheduler(Fiber& fiber) {
#ifdef USTACK_ASAN
    // A null place to save to tells ASan that this stack's frames are gone for good.
    __sanitizer_start_switch_fiber(fiber.finished ? nullptr : &fiber.fake_stack, fiber.scheduler_bottom,
                                   fiber.scheduler_bytes);
#endif
#ifdef USTACK_TSAN
    __tsan_switch_to_fiber(fiber.tsan_scheduler, 0);
#endif
    context::transfer_t from = context::jump_fcontext(fiber.scheduler, nullptr);
    arrived(fiber, from);
  }

 private:
  static void main(context::transfer_t from) {
    Fiber& fiber = *static_cast<Fiber*>(from.data);
    arrived(fiber, from);
    Scheduler::body(*fiber.task);
    fiber.finished = true;
    to_scheduler(fiber);
    __builtin_trap();  // a finished fiber is never entered again
  }

  static void arrived(Fiber& fiber, context::transfer_t from) {
    fiber.scheduler = from.fctx;
#ifdef USTACK_ASAN
    __sanitizer_finish_switch_fiber(fiber.fake_stack, &fiber.scheduler_bottom, &fiber.scheduler_bytes);
    fiber.fake_stack = nullptr;
#endif
  }
};

void Task::make_ready() {
  switch (state_) {
    case State::ready:
      return;
    case State::running:
      again_ = true;
      return;
    case State::idle:
    case State::suspended:
      state_ = State::ready;
      scheduler_.ready_.push_back(*this);
  }
}

void Task::wake_by_mark() {
  if (state_ == State::running)
    again_by_mark_ = true;
  else
    make_ready();
}

Scheduler::Scheduler(Arena& arena, size_t stack_bytes, uint32_t carve)
    : arena_(arena), stack_bytes_(stack_bytes) {
  if (!arena_.recycle()) return;
  for (uint32_t i = 0; i < carve; ++i) {
    Fiber* fiber = make_stack();
    if (fiber == nullptr) return;
    fiber->next_free = free_;
    free_ = fiber;
    ++free_count_;
  }
}

Scheduler::~Scheduler() {
  while (Fiber* fiber = free_) {
    free_ = fiber->next_free;
    free_stack(fiber);
  }
}

bool Scheduler::ready_empty() const { return ready_.empty(); }

Fiber* Scheduler::make_stack() {
  auto* memory =
      static_cast<std::byte*>(arena_.allocate(Fiber::kGuardBytes + stack_bytes_, Fiber::kGuardBytes));
  if (memory == nullptr) return nullptr;
  arena_.guard(memory, Fiber::kGuardBytes);
  constexpr size_t kRoom = (sizeof(Fiber) + 63) / 64 * 64;
  auto* fiber = new (memory + Fiber::kGuardBytes + stack_bytes_ - kRoom) Fiber;
  fiber->memory = memory;
  fiber->stack_bytes = stack_bytes_;
  return fiber;
}

void Scheduler::free_stack(Fiber* fiber) {
  std::byte* memory = fiber->memory;
  size_t bytes = Fiber::kGuardBytes + fiber->stack_bytes;
  arena_.unguard(memory, Fiber::kGuardBytes);
  arena_.release(memory, bytes);
}

Fiber* Scheduler::take_stack() {
  Fiber* fiber = free_;
  if (fiber != nullptr) {
    free_ = fiber->next_free;
    --free_count_;
  } else {
    fiber = make_stack();
    if (fiber == nullptr) return nullptr;
  }
  ++stacks_in_use_;
  FiberEntry::start(*fiber);
  return fiber;
}

void Scheduler::give_stack(Fiber* fiber) {
  --stacks_in_use_;
#ifdef USTACK_ASAN
  // The last frames never return, so what ASan poisoned around their locals is still poisoned.
  __asan_unpoison_memory_region(fiber->bottom(), fiber->usable());
#endif
  if (!arena_.recycle()) {
    free_stack(fiber);
    return;
  }
  fiber->next_free = free_;
  free_ = fiber;
  ++free_count_;
}

void Scheduler::body(Task& task) { task.run(); }

uint32_t Scheduler::run() {
  if (current_ != nullptr) __builtin_trap();
  uint32_t turns = 0;
  while (Task* task = ready_.pop_front()) {
    if (task->fiber_ == nullptr) {
      Fiber* fiber = take_stack();
      if (fiber == nullptr) {
        without_stack_.push_back(*task);
        task->no_stack();  // may have destroyed the task
        continue;
      }
      fiber->task = task;
      task->fiber_ = fiber;
    }
    enter(*task);
    ++turns;
  }
  starved_ = !without_stack_.empty();
  while (Task* task = without_stack_.pop_front()) ready_.push_back(*task);
  return turns;
}

void Scheduler::enter(Task& task) {
  Fiber* fiber = task.fiber_;
  task.state_ = Task::State::running;
  current_ = &task;
  FiberEntry::to_fiber(*fiber);
  current_ = nullptr;

  bool again = std::exchange(task.again_, false);
  again |= std::exchange(task.again_by_mark_, false) && task.marks_ > 0;
  if (fiber->finished) {
    task.fiber_ = nullptr;
    give_stack(fiber);
    task.state_ = Task::State::idle;
    if (again) task.make_ready();
    task.after_run();  // may have destroyed the task
  } else {
    task.state_ = Task::State::suspended;
    if (again) task.make_ready();
  }
}

void Scheduler::mend() {
  current_ = nullptr;
  while (Task* task = without_stack_.pop_front()) ready_.push_back(*task);
}

bool Scheduler::mend(Task& task) {
  ListHook<Task>& place = task;
  switch (task.state_) {
    case Task::State::ready:
      if (!place.linked()) ready_.push_back(task);
      return false;
    case Task::State::suspended:
      place.unlink();
      return false;
    case Task::State::running:
    case Task::State::idle:
      break;
  }
  place.unlink();
  if (Fiber* fiber = std::exchange(task.fiber_, nullptr); fiber != nullptr) give_stack(fiber);
  task.again_ = task.again_by_mark_ = false;
  return std::exchange(task.state_, Task::State::idle) == Task::State::running;
}

void Scheduler::suspend(Task& task) {
  if (current_ != &task) __builtin_trap();
  FiberEntry::to_scheduler(*task.fiber_);
}

Waker::~Waker() {
  if (sleeper_ != nullptr) sleeper_->remove(*this);
}

void Waker::wake() {
  if (sleeper_ == nullptr) {
    asserted_ = true;
    return;
  }
  if (!asserted_) {
    asserted_ = true;
    sleeper_->asserted_.push_back(*this);
    ++sleeper_->owner_.marks_;
  }
  // Also when the mark was there before: its owner may have gone idle without fetching it.
  sleeper_->owner_.wake_by_mark();
}

void Waker::clear() {
  if (!asserted_) return;
  asserted_ = false;
  if (sleeper_ == nullptr) return;
  sleeper_->asserted_.remove(*this);
  --sleeper_->owner_.marks_;
}

bool Waker::mend() {
  ListHook<Waker>& place = *this;
  if (sleeper_ == nullptr || !asserted_)
    place.unlink();
  else if (!place.linked())
    sleeper_->asserted_.push_back(*this);
  return sleeper_ != nullptr && asserted_;
}

void Waker::forsake() {
  static_cast<ListHook<Waker>&>(*this).unlink();
  static_cast<ListHook<SleeperMember>&>(*this).unlink();
  static_cast<ListHook<ResolutionWaiter>&>(*this).unlink();
  sleeper_ = nullptr;
  asserted_ = false;
}

void Sleeper::add(Waker& waker, int id) {
  if (waker.sleeper_ != nullptr) waker.sleeper_->remove(waker);
  waker.sleeper_ = this;
  waker.id_ = id;
  members_.push_back(waker);
  if (waker.asserted_) {
    asserted_.push_back(waker);
    ++owner_.marks_;
    owner_.wake_by_mark();
  }
}

void Sleeper::remove(Waker& waker) {
  if (waker.sleeper_ != this) return;
  waker.sleeper_ = nullptr;
  members_.remove(waker);
  if (waker.asserted_) {
    asserted_.remove(waker);
    --owner_.marks_;
  }
}

int Sleeper::fetch(bool block) {
  for (;;) {
    if (Waker* waker = asserted_.pop_front()) {
      waker->asserted_ = false;
      --owner_.marks_;
      return waker->id_;
    }
    if (!block) return -1;
    owner_.scheduler_.suspend(owner_);
  }
}

void Sleeper::done() {
  while (Waker* waker = members_.front()) remove(*waker);
}

}  // namespace ustack
