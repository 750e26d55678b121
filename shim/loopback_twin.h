// Where sockets go that the machine's own network serves: 127/8 and what USTACK_KERNEL names; and the twin by
// which a listener of ours on the wildcard address is reached over the kernel's loopback.
#pragma once

#include "stack/net/address.h"

namespace ustack::shim {

/// connect(2) to or bind(2) of this address is the kernel's business: the loopback (unless
/// USTACK_LOOPBACK=stack) and the destinations of USTACK_KERNEL. 0.0.0.0 as a destination is the loopback
/// (ip_route_output).
bool destination_of_kernel(const SocketAddress& remote);
bool local_address_of_kernel(const SocketAddress& local);

/// A kernel socket of the library's own that listens on `local` (wildcard, with its port), but only on the
/// loopback interface; O_NONBLOCK. -1 if USTACK_LOOPBACK=stack, or if the kernel has the port in use or
/// refuses otherwise: then the listener is reached through the stack alone.
int open_loopback_twin(const SocketAddress& local, int backlog);

}  // namespace ustack::shim
