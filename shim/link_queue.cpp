#include "shim/link_queue.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "io/capture.h"
#include "io/clock.h"
#include "io/link.h"
#include "shim/events.h"
#include "shim/host_lock.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "shim/shared_host.h"

namespace ustack::shim {

namespace {

/// So long others' frames are written besides one's own; then it is their turn.
constexpr int kTurns = 8;

/// What this thread can write now; nullptr: nothing.
LinkQueue* writable(SharedHost& shared, uint32_t found_full) {
  for (uint32_t i = 0; i < shared.queue_count; ++i) {
    LinkQueue& queue = shared.queues[i];
    if (!is_covered(shared, i)) continue;
    if (!queue.pending.empty() && queue.writer == nullptr && (found_full & 1u << i) == 0) return &queue;
  }
  return nullptr;
}

/// Its driver looks at it again; the keeper, where it has none.
void tell_driver(SharedHost& shared, LinkQueue& queue) {
  if (queue.driver != nullptr)
    wake_driver(shared, queue);
  else
    keeper::wake(shared);
}

}  // namespace

void Outbox::fill(FrameQueue& queue) {
  while (count_ < kMost) {
    TxFrame* frame = queue.pop_front();
    if (frame == nullptr) return;
    results_[count_] = -ECANCELED;
    frames_[count_] = frame;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    ++count_;
  }
}

void Outbox::write(uint32_t queue) {
  for (uint32_t i = 0; i < count_; ++i) {
    results_[i] = io::write_frame(Process::link(), queue, *frames_[i]);
    if (results_[i] == -EAGAIN || results_[i] == -EWOULDBLOCK) return;
  }
}

bool Outbox::empty(Host& host, FrameQueue& queue) {
  const uint32_t count = std::exchange(count_, 0);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  io::Capture* capture = Process::link().capture;
  uint32_t done = 0;
  for (; done < count; ++done) {
    if (capture != nullptr && results_[done] >= 0) capture->sent(*frames_[done], io::now());
    if (!io::transmitted(host, frames_[done], results_[done])) break;
  }
  for (uint32_t i = count; i-- > done;) queue.push_front(*frames_[i]);
  return done == count;
}

void Outbox::show(Census& census) const {
  for (uint32_t i = 0; i < count_; ++i) census.see(*frames_[i]);
}

void Outbox::give_back(Host& host) {
  for (uint32_t i = std::exchange(count_, 0); i-- > 0;) host.frames().release(frames_[i]);
}

void distribute(SharedHost& shared) {
  const Waiter* waiter = this_thread().waiter;
  const uint8_t own = waiter != nullptr ? waiter->queue : 0;
  each_covered(shared, [&](Host& host) {
    const uint8_t otherwise = shared.sharded() ? host.shard() : own;
    FrameQueue& all = host.transmit_queue();
    while (TxFrame* frame = all.pop_front())
      shared.queues[frame->queue < shared.queue_count ? frame->queue : otherwise].pending.push_back(*frame);
  });
}

void write_out(SharedHost& shared) {
  Waiter* waiter = this_thread().waiter;
  uint32_t found_full = 0;
  for (int turn = 0;; ++turn) {
    distribute(shared);
    LinkQueue* queue = waiter != nullptr ? writable(shared, found_full) : nullptr;
    if (queue == nullptr) break;
    if (turn >= kTurns) {
      tell_driver(shared, *queue);
      break;
    }
    const auto index = static_cast<uint32_t>(queue - shared.queues.data());
    Host& host = shared.host_of_queue(index);
    queue->writer = waiter;
    waiter->outbox.destination = index;
    waiter->outbox.fill(queue->pending);
    drop(shared);
    waiter->outbox.write(index);
    acquire(shared);
    queue->writer = nullptr;
    ++queue->written;
    queue->full = !waiter->outbox.empty(host, queue->pending);
    if (queue->full) {
      found_full |= 1u << index;
      if (queue->driver != waiter) tell_driver(shared, *queue);
    }
  }
}

bool SharedHost::unattended() const {
  return std::any_of(queues.begin(), queues.begin() + queue_count,
                     [](const LinkQueue& queue) { return !queue.attended(); });
}

void SharedHost::threads_changed() {
  if (queue_count > 1) return;
  uint32_t threads = 0;
  for (Attachment& process : attached) {
    threads += process.waiters.front() != nullptr ? 1 : 0;
    threads += process.waiters.front() != process.waiters.back() ? 1 : 0;
  }
  LinkQueue& queue = queues[0];
  if (threads > 1) {
    parallel = true;
  } else if (parallel && queue.pending.empty() && queue.writer == nullptr) {
    parallel = false;
    queue.full = false;
  }
}

uint8_t SharedHost::queue_for_new_thread() {
  std::array<uint32_t, io::Link::kMaxQueues> threads{};
  for (Attachment& process : attached)
    for (Waiter& waiter : process.waiters) ++threads[waiter.queue];
  return static_cast<uint8_t>(std::min_element(threads.begin(), threads.begin() + queue_count) -
                              threads.begin());
}

Waiter* SharedHost::next_sleeper(const LinkQueue& queue, bool for_keeper) {
  for (Waiter& waiter : sleepers)
    if (&queue_of(waiter) == &queue && (!for_keeper || events::keepers(waiter.event))) return &waiter;
  return nullptr;
}

void SharedHost::forget_guest(const Waiter& waiter) {
  for (LinkQueue& queue : queues)
    if (queue.guest == &waiter) queue.guest = nullptr;
}

void SharedHost::forget_driver(const Waiter& waiter) {
  forget_guest(waiter);
  LinkQueue& queue = queue_of(waiter);
  if (queue.driver != &waiter) return;
  queue.driver = nullptr;
  queue.asleep_until = LinkQueue::kAwake;
}

void SharedHost::forget_writer(Waiter& waiter) {
  waiter.outbox.give_back(host_of_queue(waiter.outbox.destination));
  for (LinkQueue& queue : queues)
    if (queue.writer == &waiter) queue.writer = nullptr;
}

bool SharedHost::drained() {
  bool all = true;
  each_shard([&](Shard& shard) { all &= shard.host->drained() && !shard.host->has_strays(); });
  return all && std::none_of(queues.begin(), queues.end(), [](const LinkQueue& queue) {
           return queue.writer != nullptr || !queue.pending.empty();
         });
}

}  // namespace ustack::shim
