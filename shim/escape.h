// Descriptors that leave what the library can see: exec of another program, SCM_RIGHTS, I/O inside libc.
//
//   process of the host                 keeper                            program outside
//   FdTable -> SocketFile <--reference-- EscapedStream <==socket pair==> a number, stdin, ...
//                  |                       escaped_stream.h
//               endpoint                 EscapedListener --connects--> a listening AF_UNIX socket
//                                          escaped_listener.h
//
// The descriptor's number gets one end of a kernel's socket pair (for a listener: a listening AF_UNIX socket)
// in the place of the placeholder; the keeper, which holds a reference to the file, moves bytes (connections)
// between its other end and the socket. All that leaves of one file while relatives have it is the same end,
// so that programs outside share it as they would a socket. Receiving through it takes nothing from
// relatives: see EscapedStream.
//
// A program outside that has the library in it recognises such descriptors by their names (escaped_peer.h).
//
// What can't be kept: MSG_OOB and SIOCATMARK; a connection that breaks when only programs outside have it is
// seen there as the end of the stream and EPIPE. A socket that is neither connected nor listening leaves as a
// kernel socket.
#pragma once

#include "io/descriptor.h"
#include "stack/base/result.h"

namespace ustack::shim {

class HostLock;
class OpenFile;
class SocketFile;
struct Attachment;

namespace escape {

/// A descriptor of the kernel's, CLOEXEC, that stands for `file` outside of the library. ESRCH: there is no
/// keeper; EMFILE, ENFILE, ENOBUFS, ENOMEM. The caller holds a reference; the lock is dropped meanwhile.
Result<io::Descriptor> end_of(HostLock& lock, SocketFile& file);
/// `fd` and every other number of this process for the same socket become an end outside: for I/O inside
/// libc. A number that is no socket of ours is left as it is, as is one for which there is no end to be had.
/// In a Scope, without the lock.
void in_place(int fd);
/// Leaves it to the keeper to notice that this process's exec has succeeded: it is told when the descriptor
/// that is returned, CLOEXEC, is closed while attachment.departure is not 0. ESRCH, ... as above. `file`:
/// any.
Result<io::Descriptor> watch_departure(HostLock& lock, OpenFile& file, Attachment& attachment);

/// What a process that is about to leave its host will open sockets through (opening.h). ESRCH, ... as above.
Result<io::Descriptor> open_channel(HostLock& lock, OpenFile& file);

// The keeper's side (escape_server.cpp). Lock: the host's.

/// What keeper::hand_over() has brought: a reference to `file` and the other end of a request's socket.
void adopt(OpenFile& file, io::Descriptor request);
/// A descriptor that is readable when run() has something to do; made by the first call, in the keeper. -1:
/// it can't be had. Without the lock too.
int kernel_fd();
/// Does what there is to do. The lock is dropped meanwhile.
void run(HostLock& lock);
/// Nothing of this host's is outside.
bool idle();
/// In the stand-in of a keeper that was killed, perhaps `inside_the_lock`: what that served goes on, but for
/// the one connection of which it was just moving bytes, since nobody knows how many.
void go_on_after_death(bool inside_the_lock);

}  // namespace escape
}  // namespace ustack::shim
