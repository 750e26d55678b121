#include "shim/escaped_twin.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <utility>

#include "io/descriptor_message.h"
#include "io/syscalls.h"
#include "shim/escape_server.h"
#include "shim/shared_host.h"

namespace ustack::shim {

namespace sys = io::sys;

EscapedTwin* EscapedTwin::make(io::Descriptor listener, const UnixAddress& outer,
                               const SocketAddress& local) {
  sys::fcntl(listener.get(), F_SETFL, O_RDWR | O_NONBLOCK);
  Arena& arena = *shared_host->arena;
  auto* twin = arena.create<EscapedTwin>(std::move(listener), outer, local);
  if (twin == nullptr || escape::watch(*twin, twin->listener_.get(), EPOLLIN).ok()) return twin;
  arena.destroy(twin);
  return nullptr;
}

void EscapedTwin::destroy(EscapedTwin* twin) {
  if (twin != nullptr) shared_host->arena->destroy(twin);
}

void EscapedTwin::abandon(EscapedTwin* twin) {
  if (twin == nullptr) return;
  twin->listener_.release();
  destroy(twin);
}

void EscapedTwin::on_kernel(HostLock&) {
  for (;;) {
    io::Descriptor connection(static_cast<int>(sys::call(SYS_accept4, listener_.get(), 0, 0, SOCK_CLOEXEC)));
    if (!connection) return;
    carry(std::move(connection));
  }
}

/// A carrier has a name without a peer. Where there is no room for one, the connection ends.
void EscapedTwin::carry(io::Descriptor connection) {
  io::Descriptor carrier(
      static_cast<int>(sys::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  const UnixAddress name = escape::next_name(local_, SocketAddress{});
  if (!carrier ||
      sys::call(SYS_bind, carrier.get(), sys::arg(&name.bytes), static_cast<long>(name.length)) != 0 ||
      sys::call(SYS_connect, carrier.get(), sys::arg(&outer_.bytes), static_cast<long>(outer_.length)) != 0)
    return;
  const char byte = 0;
  io::send_with_descriptor(carrier.get(), &byte, sizeof byte, connection.get(), MSG_DONTWAIT);
}

}  // namespace ustack::shim
