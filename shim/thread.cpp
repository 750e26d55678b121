#include "shim/thread.h"

#include <linux/prctl.h>
#include <pthread.h>

#include "io/engine.h"
#include "io/syscalls.h"
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

int32_t* thread_id_address() {
  int32_t* address = nullptr;
  if (io::sys::call(SYS_prctl, PR_GET_TID_ADDRESS, io::sys::arg(&address)) == 0 && address != nullptr)
    return address;
  // A kernel without CONFIG_CHECKPOINT_RESTORE: it is near the beginning of the thread's descriptor.
  constexpr size_t kWithin = 1024;
  auto* words = reinterpret_cast<int32_t*>(pthread_self());
  auto id = static_cast<int32_t>(io::sys::call(SYS_gettid));
  for (size_t i = 0; i < kWithin / sizeof *words; ++i)
    if (words[i] == id) return words + i;
  return nullptr;
}

void after_fork_in_child(ThreadState& thread) {
  thread.waiter = nullptr;
  if (thread.engine != nullptr) io::Engine::abandon(thread.engine);
  thread.engine = nullptr;
  thread.wake_fd.store(-1, std::memory_order_relaxed);
  thread.covers = kWhole;
  thread.common_depth = 0;
  thread.id = 0;
}

}  // namespace ustack::shim
