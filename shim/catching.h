// Programs that make system calls by instructions of their own, going round libc's entries and so round our
// hooks: Go's runtime and network package do. Such calls are caught with Syscall User Dispatch (Linux 5.11,
// Documentation/admin-guide/syscall-user-dispatch.rst):
//
//   program's text --> kernel --> SIGSYS --> not ours (futex, madvise, ...): made where it is, in the handler
//     (everything                    |
//     outside it                     '--> ours (sockets, epoll, descriptors, fork, exec, signals): the thread
//     passes)                             goes on in ustack_caught_call, on a stack of the library's, which
//                                         calls the hook and then returns behind the instruction
//
// The hook does not run in the handler: it may block, and the alternate stack belongs to the program's next
// signal. Each level of nesting (a handler that interrupts a hook and makes a call itself) has a stack of its
// own. At start-up the few places where Go makes most of its calls are rewritten to jump there without a
// signal (catch_sites.cpp).
//
// SIGSYS is the library's then: handlers for it are noted and called for the other causes, masks leave it
// out. x86-64 only.
#pragma once

#include <csignal>
#include <cstdint>
#include <span>

namespace ustack::io {
struct Config;
}

namespace ustack::shim::catching {

/// Makes one system call by its hook and returns what the kernel would: a negative errno on failure.
using Perform = long (*)(long number, const long (&words)[6]);

/// When the library is loaded: whether the configuration (USTACK_SYSCALLS) and the program want it. Costs a
/// look at the program's notes.
bool is_wanted(const io::Config& config);
/// Once, if it is: begins to catch the calls of the given numbers. Says on stderr why it can't where `catch`
/// was asked for.
void start(const io::Config& config, std::span<const long> numbers, Perform perform);

/// Whether calls are caught in this process.
bool active();

/// The calling thread is new, or the only one of a child of fork(2): the kernel lets neither inherit.
void arm_thread();

/// sigaction(2) for SIGSYS while active(): what the program gets to see. EFAULT is the caller's business.
int program_action(const struct sigaction* action, struct sigaction* old);

/// A signal mask as the kernel may have it while active(): without SIGSYS, which, blocked, would kill.
void allow(sigset_t& mask);
/// The same in the kernel's form.
constexpr uint64_t allowed(uint64_t mask) { return mask & ~(uint64_t{1} << (SIGSYS - 1)); }

}  // namespace ustack::shim::catching
