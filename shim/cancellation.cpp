#include "shim/cancellation.h"

#include "shim/host_lock.h"
#include "shim/shared_host.h"

namespace ustack::shim::cancellation {

namespace {

/// A thread's state is in its static TLS, which lies at the same distance from its descriptor, which
/// pthread_t is the address of, in all threads.
ThreadState& state_of(pthread_t target) {
  auto distance = reinterpret_cast<char*>(&this_thread()) - reinterpret_cast<char*>(pthread_self());
  return *reinterpret_cast<ThreadState*>(reinterpret_cast<char*>(target) + distance);
}

}  // namespace

bool requested(const ThreadState& thread) {
  if (!thread.cancelled.load(std::memory_order_relaxed)) [[likely]]
    return false;
  int before;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
  if (before == PTHREAD_CANCEL_DISABLE) return false;
  pthread_setcancelstate(before, &before);
  return true;
}

void wake(pthread_t target) {
  Scope scope;
  HostLock lock;
  ThreadState& thread = state_of(target);
  thread.cancelled.store(true, std::memory_order_relaxed);
  if (thread.waiter != nullptr) rouse(*shared_host, *thread.waiter);
}

}  // namespace ustack::shim::cancellation
