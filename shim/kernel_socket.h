// A socket that turns out not to be ours becomes a kernel socket on the same number.
#pragma once

#include "io/descriptor.h"
#include "shim/socket_file.h"

namespace ustack::shim {

/// A kernel socket, CLOEXEC, on which is set what was set on `file`. Errors as below.
Result<io::Descriptor> open_kernel_socket(SocketFile& file);

/// Puts a descriptor of the kernel's on every number of this process that refers to `file`, FD_CLOEXEC as it
/// was. The file's registrations with epoll move to the kernel's sets unless relatives have the file too. The
/// caller holds a reference. Lock: the host's.
void put_on_all_numbers(SocketFile& file, int kernel);

/// Opens a kernel socket, sets on it what was set on `file` (options in their order, O_NONBLOCK, the port it
/// was bound to), puts it on `fd` and every other number of this process that refers to `file`, and moves the
/// file's registrations with epoll to the kernel's sets. Threads that wait on the file are told to look
/// again. `file` must be undecided(); it stays valid for its holders. An error of socket(2), setsockopt(2) or
/// bind(2): nothing has changed. Lock: the host's.
Status become_kernel_socket(SocketFile& file, int fd);

/// The same for a call that is the kernel's then: kGoReal, or why it couldn't be had.
Status hand_over_to_kernel(SocketFile& file, int fd);

/// The address that connect(2) on `file` gets, after deciding whose it is: kGoReal when the socket on `fd`
/// has just become the kernel's. EINVAL, EAFNOSUPPORT (after EISCONN, EALREADY as Linux orders them), or what
/// become_kernel_socket says. An unspecified family: dissolve the connection.
Result<SocketAddress> choose_remote(SocketFile& file, int fd, const RawAddress& raw);

}  // namespace ustack::shim
