// What a thread waits for: its waiter and its entries in wait queues. How it waits is in driver.cpp.
#include <new>

#include "shim/claims.h"
#include "shim/driver.h"
#include "shim/host_lock.h"
#include "shim/process_state.h"
#include "shim/shared_host.h"
#include "shim/thread.h"

namespace ustack::shim {

/// One entry, in the arena: a driver in another process follows it.
struct Wait::Registration : WaitEntry {
  Registration(Waiter& waiter, WaitQueue& to) : WaitEntry(tell, &waiter), queue(&to) {}
  static bool tell(WaitEntry& entry, uint32_t) { return wake(*static_cast<Waiter*>(entry.context())); }

  WaitQueue* queue;
  /// The sleep that it was last asked for.
  uint32_t turn = 0;
};

namespace {

constexpr uint32_t kFirst = 4;
constexpr uint32_t kPerChunk = 60;
constexpr size_t kRegistrationBytes = 80;

struct Chunk {
  Chunk* next = nullptr;
  alignas(16) std::byte room[kPerChunk][kRegistrationBytes]{};
};

/// A thread's waiter with room for the few entries that nearly every call needs.
struct ThreadWaiter : Waiter {
  alignas(16) std::byte first[kFirst][kRegistrationBytes]{};
  Chunk* chunks = nullptr;
  Claims claims;
};

/// The place for registration `index`, in a chunk that is made where it doesn't exist; nullptr: no memory.
void* place(ThreadWaiter& waiter, uint32_t index) {
  if (index < kFirst) return waiter.first[index];
  index -= kFirst;
  Chunk** chunk = &waiter.chunks;
  for (;;) {
    if (*chunk == nullptr) *chunk = shared_host->arena->create<Chunk>();
    if (*chunk == nullptr) return nullptr;
    if (index < kPerChunk) return (*chunk)->room[index];
    index -= kPerChunk;
    chunk = &(*chunk)->next;
  }
}

void release_chunks(ThreadWaiter& waiter) {
  while (Chunk* chunk = waiter.chunks) {
    waiter.chunks = chunk->next;
    shared_host->arena->destroy(chunk);
  }
}

}  // namespace

bool wake(Waiter& waiter) {
  CommonLock common;
  if (waiter.notified) return false;
  waiter.notified = true;
  rouse(*shared_host, waiter);
  return true;
}

Waiter* make_waiter() {
  Waiter* waiter = shared_host->arena->create<ThreadWaiter>();
  if (waiter != nullptr && shared_host->queue_count > 1) waiter->queue = shared_host->queue_for_new_thread();
  return waiter;
}

Waiter* this_waiter() {
  ThreadState& thread = this_thread();
  if (thread.waiter == nullptr && expect_thread_end()) {
    thread.waiter = make_waiter();
    if (thread.waiter != nullptr && process_state().attachment != nullptr) {
      process_state().attachment->waiters.push_back(*thread.waiter);
      shared_host->threads_changed();
    }
  }
  return thread.waiter;
}

Claims* this_claims() {
  Waiter* waiter = this_waiter();
  return waiter != nullptr ? &static_cast<ThreadWaiter*>(waiter)->claims : nullptr;
}

void show(const Waiter& waiter, Census& census) {
  waiter.holdings.show(census);
  waiter.outbox.show(census);
  static_cast<const ThreadWaiter&>(waiter).claims.show(census);
}

void withdraw(Waiter& waiter) {
  CommonLock common;
  while (waiter.registrations > 0) Wait::at(waiter, --waiter.registrations)->~Registration();
  release_chunks(static_cast<ThreadWaiter&>(waiter));
  waiter.notified = false;
}

/// It was told of something that one thread alone is told of (a blocked accept, epoll_wait), and takes it no
/// more: the next one is told.
void pass_on(Waiter& waiter) {
  for (uint32_t i = 0; i < waiter.registrations; ++i) {
    Wait::Registration& entry = *Wait::at(waiter, i);
    if (!entry.exclusive || !entry.linked()) continue;
    entry.unlink();
    entry.queue->notify(entry.interest);
  }
}

void end_calls(Waiter& waiter) {
  // Killed while it registered: in the queue, but not counted yet. What is free is zeros or unlinked.
  if (waiter.registrations < kFirst)
    std::launder(
        reinterpret_cast<Wait::Registration*>(static_cast<ThreadWaiter&>(waiter).first[waiter.registrations]))
        ->unlink();
  if (waiter.notified) pass_on(waiter);
  withdraw(waiter);
  static_cast<ThreadWaiter&>(waiter).claims.give_back(*shared_host->arena);
}

void destroy_waiter(Waiter* waiter) {
  shared_host->forget_driver(*waiter);  // its thread was killed
  shared_host->forget_writer(*waiter);
  end_calls(*waiter);
  waiter->holdings.give_back(shared_host->host_of(*waiter));
  shared_host->arena->destroy(static_cast<ThreadWaiter*>(waiter));
  shared_host->threads_changed();
}

Wait::Wait() = default;

Wait::~Wait() {
  if (waiter_ != nullptr) withdraw(*waiter_);
}

Wait::Registration* Wait::at(Waiter& waiter, uint32_t index) {
  // Made before, so that its place is there.
  return std::launder(static_cast<Registration*>(place(static_cast<ThreadWaiter&>(waiter), index)));
}

Status Wait::on(WaitQueue& queue, uint32_t events, bool exclusive) {
  CommonLock common;
  static_assert(sizeof(Registration) <= kRegistrationBytes);
  if (waiter_ == nullptr) {
    waiter_ = this_waiter();
    if (waiter_ == nullptr) return Error{ENOMEM};
  }
  uint32_t& count = waiter_->registrations;
  Registration* found = cursor_ < count ? at(*waiter_, cursor_) : nullptr;
  if (found == nullptr || found->queue != &queue)
    found = static_cast<Registration*>(queue.find(Registration::tell, waiter_));
  if (found != nullptr) {
    // Twice for one sleep, as when poll() has a descriptor twice: both wishes count.
    found->interest = found->turn == turn_ ? found->interest | events : events;
    found->turn = turn_;
    if (!found->linked()) queue.add(*found);  // another queue at the place of one that is gone
    ++cursor_;
    return {};
  }
  void* room = place(*static_cast<ThreadWaiter*>(waiter_), count);
  if (room == nullptr) return Error{ENOMEM};
  auto* made = new (room) Registration(*waiter_, queue);
  made->interest = events;
  made->exclusive = exclusive;
  made->turn = turn_;
  queue.add(*made);
  cursor_ = ++count;
  return {};
}

}  // namespace ustack::shim
