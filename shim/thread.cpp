#include "shim/thread.h"

#include <pthread.h>

#include "io/engine.h"
#include "shim/shared_host.h"

namespace ustack::shim {

namespace {

pthread_key_t key;
bool key_made = false;

/// Runs in the ending thread, perhaps before other destructors that still use sockets: these make a new
/// waiter, which sets the key again, and libc calls us once more.
void end_thread(void*) {
  if (shared_host == nullptr) return;
  Scope scope;
  ThreadState& thread = this_thread();
  HostLock lock;
  if (io::Engine* engine = thread.engine) {
    thread.engine = nullptr;
    io::Engine::destroy(engine);
  }
  if (Waiter* waiter = thread.waiter) {
    thread.waiter = nullptr;
    destroy_waiter(waiter);
  }
}

}  // namespace

Status make_thread_key() {
  if (key_made) return {};
  if (int error = pthread_key_create(&key, end_thread); error != 0) return Error{error};
  key_made = true;
  return {};
}

bool expect_thread_end() { return pthread_setspecific(key, &key) == 0; }

void after_fork_in_child(ThreadState& thread) {
  thread.waiter = nullptr;
  if (thread.engine != nullptr) io::Engine::abandon(thread.engine);
  thread.engine = nullptr;
  thread.wake_fd.store(-1, std::memory_order_relaxed);
  thread.id = 0;
}

}  // namespace ustack::shim
