// What a thread leaves behind when it ends.
#pragma once

#include "shim/driver.h"
#include "shim/scope.h"

namespace ustack::shim {

/// Sees to it that the calling thread's waiter and engine are freed when it ends. False: no memory (ENOMEM).
bool expect_thread_end();
/// Once, when the process gets a host: the key whose destructor runs at a thread's end.
Status make_thread_key();
/// In the child of a fork, in its only thread: the waiter and the engine are the parent's.
void after_fork_in_child(ThreadState& thread);

/// A waiter that belongs to no thread; nullptr: no memory. Lock: the host's.
Waiter* make_waiter();
/// Where libc keeps this thread's number, on which its mutexes rely; who clones without libc has to see to
/// it. nullptr: not found.
int32_t* thread_id_address();

/// Takes a waiter's entries out of all queues. Lock: the host's.
void withdraw(Waiter& waiter);
/// The same, and gives back what the thread's calls had: it was killed in one, or never goes on with it.
void end_calls(Waiter& waiter);
/// The same, and frees it.
void destroy_waiter(Waiter* waiter);

}  // namespace ustack::shim
