// A program that forbids itself system calls (seccomp(2)), as the unprivileged processes of sshd and vsftpd
// do. Its filter knows what the program does with the kernel's sockets, not what the library does in their
// place. So the few calls that a process needs which shares a host and leaves driving to others are put in
// front of the filter: sleeping on a word, growing the arena, reading and writing the library's own
// descriptors. None of them gives a sandboxed process what it has not got by sharing the host's memory
// (README, Trust).
//
// From then on it doesn't drive as long as anybody else can: no ring, no epoll set, no timer, no signal to
// others.
#pragma once

#include <linux/filter.h>

namespace ustack::shim::sandbox {

/// This process has put on a filter that the library has seen, or is the child of one that has. Costs a load.
bool active();

/// Where a process with a host puts on the filter `program`: `install(program, flags)` is called with one
/// that allows what the library needs and else is `program` (or with that itself, if it is too long or can't
/// be read), and yields 0 if it was put on.
long put_on(const sock_fprog* program, unsigned long flags,
            long (*install)(const sock_fprog* program, unsigned long flags));

}  // namespace ustack::shim::sandbox
