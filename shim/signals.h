// Signal handlers of the program. While a thread is inside the library its handlers are put off, since they
// may call write, send or close on what is locked.
//
//   kernel --> trampoline --> not inside: the program's handler, at once, with the mask, stack and flags that
//   the
//                |            kernel has set up for it
//                '--> inside: the signal is queued again for this thread and everything is blocked, so that
//                the
//                             kernel keeps it with all the others; the thread's sleep is ended. When the
//                             Scope closes the mask goes back and the kernel delivers.
//
// So order, siginfo, sa_mask, SA_NODEFER, SA_ONSTACK and nesting are the kernel's own. Only handlers go
// through the trampoline; SIG_DFL and SIG_IGN are the kernel's business.
#pragma once

#include <csignal>
#include <cstdint>

#include "shim/scope.h"

namespace ustack::shim::signals {

/// From now on handlers go through the trampoline: called when the process gets a host. Before that
/// sigaction() and its like go straight to libc, so that a program without an internet socket pays nothing;
/// what they have installed is taken over here. Again: takes over what was installed past the library.
void take_over();
bool taken_over();

/// sigaction(2) for the program: reports and takes the program's handlers where the kernel has the
/// trampoline.
int action(int number, const struct sigaction* action, struct sigaction* old);
/// signal(3) with BSD (SA_RESTART unless siginterrupt) or System V (SA_RESETHAND | SA_NODEFER) semantics.
sighandler_t bsd_signal(int number, sighandler_t handler);
sighandler_t sysv_signal(int number, sighandler_t handler);
/// siginterrupt(3).
int interrupt(int number, bool interrupts);

/// A thread that was changing handlers doesn't exist in the child.
void after_fork_in_child();

/// Puts the mask back that was in force when a handler was put off; the kernel then delivers. Depth is zero.
void run_deferred(ThreadState& thread);

}  // namespace ustack::shim::signals
