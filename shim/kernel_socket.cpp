#include "shim/kernel_socket.h"

#include <fcntl.h>
#include <netinet/in.h>

#include <mutex>

#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/call.h"
#include "shim/epoll_set.h"
#include "shim/fd_table.h"
#include "shim/loopback_twin.h"

namespace ustack::shim {

namespace {

Status checked(long result) { return result < 0 ? Status(Error{static_cast<int>(-result)}) : Status(); }

Status set_up(int kernel, SocketFile& file) {
  for (SetOption& option : file.options()) {
    long result = io::sys::call(SYS_setsockopt, kernel, option.level, option.name, io::sys::arg(option.value),
                                static_cast<long>(option.length));
    if (Status s = checked(result); !s.ok()) return s;
  }
  Result<SocketAddress> local = file.socket().local_address();
  if (local.ok() && local->port != 0) {
    sockaddr_storage address;
    socklen_t length = to_sockaddr(*local, &address);
    long result = io::sys::call(SYS_bind, kernel, io::sys::arg(&address), static_cast<long>(length));
    if (Status s = checked(result); !s.ok()) return s;
  }
  if (file.nonblocking()) io::sys::fcntl(kernel, F_SETFL, O_RDWR | O_NONBLOCK);
  return {};
}

void put_on(int kernel, int fd) {
  std::lock_guard held(FdTable::lock());
  long flags = io::sys::fcntl(fd, F_GETFD);
  FdTable::current()->clear(fd);
  // One step: the number is never free in between.
  io::sys::call(SYS_dup3, kernel, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
}

}  // namespace

Status become_kernel_socket(SocketFile& file, int fd) {
  io::Descriptor kernel(static_cast<int>(io::sys::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP)));
  if (!kernel) return checked(kernel.get());  // a negative errno
  if (Status s = set_up(kernel.get(), file); !s.ok()) return s;

  put_on(kernel.get(), fd);
  // The caller's hold is the last reference, unless there are duplicates or relatives.
  for (int other = 0; file.references() > 1 && (other = FdTable::current()->next(other)) >= 0; ++other)
    if (FdTable::look(other) == &file) put_on(kernel.get(), other);
  for (EpollMember& member : file.registrations) {
    epoll_event event{};
    event.events = member.events;
    event.data.u64 = member.data;
    if (io::sys::call(SYS_epoll_ctl, member.set.kernel_half(), EPOLL_CTL_ADD, member.fd,
                      io::sys::arg(&event)) == 0)
      member.set.expect_kernel_members();
  }
  EpollSet::forget(file);
  file.mark_replaced();
  return {};
}

Result<SocketAddress> choose_remote(SocketFile& file, int fd, const RawAddress& raw) {
  if (raw.length < sizeof(sa_family_t)) return Error{EINVAL};
  if (is_disconnect(raw)) return SocketAddress{};
  Result<SocketAddress> remote = address_to_connect(raw);
  if (remote.ok() && file.undecided() && !file.connecting() && destination_of_kernel(*remote)) {
    Status s = become_kernel_socket(file, fd);
    return s.ok() ? Error{kGoReal} : s.error();
  }
  // A socket that is connected or connecting says that before it looks at the address (inet_stream_connect).
  if (!remote.ok())
    if (Status state = file.connect_state(); !state.ok()) return state.error();
  return remote;
}

}  // namespace ustack::shim
