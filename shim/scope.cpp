#include "shim/scope.h"

#include "io/syscalls.h"
#include "shim/cancellation.h"
#include "shim/signals.h"

namespace ustack::shim {

constinit std::atomic<uint32_t> library_gate{0};

namespace {
constinit thread_local ThreadState thread_state;
}  // namespace

ThreadState& this_thread() { return thread_state; }

int32_t this_thread_id() {
  if (thread_state.id == 0) thread_state.id = static_cast<int32_t>(io::sys::call(SYS_gettid));
  return thread_state.id;
}

bool Scope::inside() { return thread_state.depth != 0; }

void enter_library() {
  if (thread_state.depth++ == 0) thread_state.gate = library_gate.load(std::memory_order_relaxed);
  // A signal handler of this thread must see the depth before anything that it protects.
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

void leave_library() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  ThreadState& thread = thread_state;
  // From here on handlers run at once; those that were put off run in run_deferred(), and may never come
  // back.
  if (--thread.depth == 0 && thread.signal_deferred.load(std::memory_order_relaxed)) [[unlikely]]
    signals::run_deferred(thread);
}

Scope::Scope() : errno_(errno) { enter_library(); }

Scope::~Scope() {
  leave_library();
  errno = errno_;
}

int Scope::interrupted(bool restartable) {
  if (restartable && thread_state.deferred_restarts && !cancellation::requested(thread_state)) {
    restart_ = true;
    return -1;
  }
  return fail(EINTR);
}

}  // namespace ustack::shim
