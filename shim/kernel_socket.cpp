#include "shim/kernel_socket.h"

#include <fcntl.h>
#include <netinet/in.h>

#include <mutex>

#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/async_owner.h"
#include "shim/call.h"
#include "shim/epoll_set.h"
#include "shim/fd_table.h"
#include "shim/loopback_twin.h"
#include "shim/shared_host.h"

namespace ustack::shim {

namespace {

/// A group or everybody: where the stack sends nothing.
bool is_for_many(const SocketAddress& remote) {
  return remote.address.is_multicast() || shared_host->host->network().is_broadcast(remote.address);
}

Status checked(long result) { return result < 0 ? Status(Error{static_cast<int>(-result)}) : Status(); }

Status set_up(int kernel, SocketFile& file) {
  for (SetOption& option : file.options()) {
    long result = io::sys::setsockopt(kernel, option.level, option.name, option.value, option.length);
    // What needs a right that the program hasn't (SO_MARK, SO_PRIORITY above 6) does nothing to a connection
    // of the kernel's that could not have it; its connect() is not to fail for it.
    if (Status s = checked(result); !s.ok() && s.code() != EPERM && s.code() != EACCES) return s;
  }
  Result<SocketAddress> local = file.local_name();
  if (local.ok() && local->port != 0) {
    sockaddr_storage address;
    socklen_t length = to_sockaddr(*local, &address);
    long result = io::sys::call(SYS_bind, kernel, io::sys::arg(&address), static_cast<long>(length));
    if (Status s = checked(result); !s.ok()) return s;
  }
  if (file.nonblocking()) io::sys::fcntl(kernel, F_SETFL, O_RDWR | O_NONBLOCK);
  if (AsyncOwner* owner = file.async_owner()) {
    io::sys::fcntl(kernel, F_SETOWN_EX, io::sys::arg(&owner->owner()));
    io::sys::fcntl(kernel, F_SETSIG, owner->signal());
  }
  return {};
}

/// Who waits for this number hears of it also while a relative, such as a child that is about to exec, still
/// has the file.
void put_on(SocketFile& file, int kernel, int fd) {
  {
    std::lock_guard held(FdTable::lock());
    FdTable::current()->clear(fd);
    FdTable::put_below(fd, kernel);
  }
  for (EpollMember& member : file.registrations)
    if (member.fd == fd) member.set().attach_half(member, fd);
}

/// The caller's hold is the last reference, but for relatives' and those of ends outside.
bool has_numbers(SocketFile& file) { return file.references() > 1 + file.end_count(); }

}  // namespace

Result<io::Descriptor> open_kernel_socket(SocketFile& file) {
  const int domain = file.dual_stack() != nullptr ? AF_INET6 : AF_INET;
  const int type = file.has_datagrams() ? SOCK_DGRAM : SOCK_STREAM;
  io::Descriptor kernel(static_cast<int>(io::sys::socket(domain, type | SOCK_CLOEXEC, 0)));
  if (!kernel) return Error{-kernel.release()};
  if (Status s = set_up(kernel.get(), file); !s.ok()) return s.error();
  return kernel;
}

void put_on_all_numbers(SocketFile& file, int kernel) {
  for (int fd = 0; has_numbers(file) && (fd = FdTable::current()->next(fd)) >= 0; ++fd)
    if (FdTable::look(fd) == &file) put_on(file, kernel, fd);
  // Else they go when the last relative has left it (EscapedStream).
  if (!has_numbers(file)) EpollSet::forget(file);
}

Status become_kernel_socket(SocketFile& file, int fd) {
  Result<io::Descriptor> kernel = open_kernel_socket(file);
  if (!kernel.ok()) return kernel.status();
  put_on(file, kernel->get(), fd);
  // By the number that its signals are to name.
  if ((file.status_flags & O_ASYNC) != 0) io::sys::fcntl(fd, F_SETFL, O_RDWR | file.status_flags);
  put_on_all_numbers(file, kernel->get());
  EpollSet::forget(file);
  file.mark_replaced();
  return {};
}

Status hand_over_to_kernel(SocketFile& file, int fd) {
  Status s = become_kernel_socket(file, fd);
  return s.ok() ? Error{kGoReal} : s;
}

Result<SocketAddress> choose_remote(SocketFile& file, int fd, const RawAddress& raw) {
  if (raw.length < sizeof(sa_family_t)) return Error{EINVAL};
  if (is_disconnect(raw)) return SocketAddress{};
  DualStack* dual_stack = file.dual_stack();
  Result<SocketAddress> remote =
      dual_stack != nullptr ? dual_stack->address_to_connect(raw) : address_to_connect(raw);
  if (remote.ok() && file.lacks_link(raw, *remote)) remote = Error{EINVAL};
  if (remote.ok() && file.undecided() && !file.connecting() &&
      (destination_of_kernel(*remote, file.has_ipv6()) || DualStack::is_of_other_link(dual_stack, raw) ||
       (file.has_datagrams() && is_for_many(*remote))))
    return hand_over_to_kernel(file, fd).error();
  if (file.has_datagrams()) return remote;
  // A socket that is connected or connecting says that before it looks at the address (inet_stream_connect).
  if (!remote.ok())
    if (Status state = file.connect_state(); !state.ok()) return state.error();
  if (remote.ok() && remote->address.is_v6() && !file.has_ipv6())
    return Error{EAFNOSUPPORT};  // from an IPv4 address
  return remote;
}

}  // namespace ustack::shim
