// pthread_cancel(3) of a thread that waits in a call of ours. libc's own blocking calls end by a signal in
// the middle of a system call; ours hold references and sleep in a list, so a cancelled thread is woken, its
// call returns EINTR to the hook's outermost frame, where nothing of the library's is held, and there libc
// ends the thread.
#pragma once

#include <pthread.h>

#include <cerrno>

#include "shim/scope.h"

namespace ustack::shim::cancellation {

/// The calling thread is to end, and may be ended now (pthread_setcancelstate(3)): its wait is over.
bool requested(const ThreadState& thread);
/// libc has noted the request: the thread's wait ends. Takes the host's lock.
void wake(pthread_t target);

/// Runs `call`, a function that POSIX names as a cancellation point, outside of any Scope. It acts on a
/// request before the call, and when that has ended a wait: a call that has moved something returns it.
template <typename Call>
auto point(Call&& call) {
  pthread_testcancel();
  auto result = call();
  if (result < 0 && errno == EINTR) pthread_testcancel();
  return result;
}

}  // namespace ustack::shim::cancellation
