// Messages with a descriptor (SCM_RIGHTS, unix(7)) over sockets of the library's own.
#pragma once

#include <cstddef>

#include "io/descriptor.h"

namespace ustack::io {

/// sendmsg(2) of `bytes` bytes with MSG_NOSIGNAL and `flags`; `fd` goes along unless it is -1. What the
/// kernel returns.
long send_with_descriptor(int socket, const void* from, size_t bytes, int fd, int flags = 0);
/// recvmsg(2) with `flags`. The descriptor that came along, CLOEXEC, is left in `descriptor`, none if none
/// came (or there was no number for it). What the kernel returns.
long receive_with_descriptor(int socket, void* to, size_t bytes, Descriptor& descriptor, int flags = 0);

}  // namespace ustack::io
