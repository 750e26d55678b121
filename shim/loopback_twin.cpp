#include "shim/loopback_twin.h"

#include <netinet/in.h>

#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/address.h"
#include "shim/process.h"

namespace ustack::shim {

bool destination_of_kernel(const SocketAddress& remote) {
  const io::Config& config = Process::config();
  if (!config.loopback_in_stack && (remote.address.is_loopback() || remote.address.is_unspecified()))
    return true;
  return config.stays_with_kernel(remote);
}

bool local_address_of_kernel(const SocketAddress& local) {
  return !Process::config().loopback_in_stack && local.address.is_loopback();
}

int open_loopback_twin(const SocketAddress& local, int backlog) {
  if (Process::config().loopback_in_stack || !local.address.is_v4()) return -1;
  io::Descriptor twin(
      static_cast<int>(io::sys::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP)));
  if (!twin || !io::move_high(twin).ok()) return -1;
  const int on = 1;
  auto set = [&](int level, int name, const void* value, socklen_t length) {
    return io::sys::setsockopt(twin.get(), level, name, value, length);
  };
  // A server that starts again must not be kept out by its own connections of before.
  set(SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Where the kernel doesn't let us name the interface, 127.0.0.1 alone is offered.
  SocketAddress address = local;
  if (set(SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) != 0) address.address = IpAddress::v4(INADDR_LOOPBACK);
  sockaddr_storage storage;
  socklen_t length = to_sockaddr(address, &storage);
  if (io::sys::call(SYS_bind, twin.get(), io::sys::arg(&storage), static_cast<long>(length)) != 0) return -1;
  if (io::sys::call(SYS_listen, twin.get(), backlog) != 0) return -1;
  return twin.release();
}

}  // namespace ustack::shim
