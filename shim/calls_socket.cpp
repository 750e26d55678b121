// Hooks that make, name, connect and end sockets.
#include <fcntl.h>
#include <netinet/in.h>

#include <mutex>

#include "io/syscalls.h"
#include "shim/call.h"
#include "shim/escaped_peer.h"
#include "shim/fd_table.h"
#include "shim/hooks.h"
#include "shim/host_lock.h"
#include "shim/kernel_socket.h"
#include "shim/loopback_twin.h"
#include "shim/opening.h"
#include "shim/process.h"

namespace ustack::shim {

namespace {

/// USTACK_UDP=stack. In a program that has joined another one's host they are the kernel's.
bool has_datagrams() { return Process::config().udp_in_stack && !opening::is_used(); }

bool stack_has(int domain, int type, int protocol) {
  auto has_family = [domain] {
    return domain == AF_INET ||
           (domain == AF_INET6 && (Process::config().has_ipv6() || DualStack::available()));
  };
  switch (type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) {
    case SOCK_STREAM:
      return (protocol == 0 || protocol == IPPROTO_TCP) && has_family();
    case SOCK_DGRAM:
      return (protocol == 0 || protocol == IPPROTO_UDP) && has_datagrams() && has_family();
    default:
      return false;
  }
}

Result<int> open_socket(HostLock& lock, int domain, int type, int protocol) {
  Result<SocketFile*> opened =
      SocketFile::open(lock.host(), domain, type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC), protocol);
  if (!opened.ok()) return opened.error();
  SocketFile* file = *opened;
  file->status_flags = type & SOCK_NONBLOCK;
  Result<int> fd = FdTable::current()->install(file, (type & SOCK_CLOEXEC) != 0);
  if (!fd.ok()) file->release();
  return fd;
}

Status bind_socket(HostLock& lock, SocketFile& file, int fd, const sockaddr* address, socklen_t length) {
  Result<RawAddress> raw = unlocked(lock, [&] { return read_address(address, length); });
  if (!raw.ok()) return raw.error();
  DualStack* dual_stack = file.dual_stack();
  Result<SocketAddress> local =
      dual_stack != nullptr ? dual_stack->address_to_bind(*raw) : address_to_bind(*raw);
  if (!local.ok()) return local.error();
  if (file.lacks_link(*raw, *local)) return Error{EINVAL};
  if (file.undecided() &&
      (local_address_of_kernel(*local, file.has_ipv6()) || DualStack::is_of_other_link(dual_stack, *raw) ||
       (file.has_datagrams() && local->address.is_multicast())))
    return hand_over_to_kernel(file, fd);
  if (local->address.is_v6() && !file.has_ipv6()) return Error{EINVAL};  // it has an address
  Status s = file.bind(*local);
  if (s.ok() && dual_stack != nullptr) dual_stack->bound_to(*raw);
  return s;
}

/// One that only an IPv6 of the kernel's reaches is the kernel's.
Status listen_on_socket(SocketFile& file, int fd, int backlog) {
  if (file.dual_stack() != nullptr && file.dual_stack()->v6_only() && !file.has_ipv6() && file.undecided() &&
      !file.connecting())
    return hand_over_to_kernel(file, fd);
  return file.listen(backlog);
}

Status connect_socket(HostLock& lock, SocketFile& file, int fd, const sockaddr* address, socklen_t length) {
  Result<RawAddress> raw = unlocked(lock, [&] { return read_address(address, length); });
  if (!raw.ok()) return raw.error();
  Result<SocketAddress> remote = choose_remote(file, fd, *raw);
  return remote.ok() ? file.connect(lock, *remote) : remote.error();
}

struct NewConnection {
  int fd = -1;
  Result<SocketAddress> peer = Error{ENOTCONN};
};

/// FdTable::lock() held.
Result<NewConnection> give_number(SocketFile& listener, SocketFile& accepted, int flags) {
  Result<int> fd = FdTable::current()->install_locked(&accepted, (flags & SOCK_CLOEXEC) != 0);
  if (fd.ok()) return NewConnection{*fd, accepted.remote_name()};
  // Linux looks for a number before it takes a connection out of the queue.
  listener.put_back(&accepted);
  return fd.error();
}

/// One of the shard that the lock covers; EAGAIN: all are to be asked.
Result<NewConnection> accept_in_shard(SocketFile& listener, int flags) {
  std::lock_guard tables(FdTable::lock());
  CommonLock common;
  Result<SocketFile*> accepted = listener.accept_in_shard(this_thread().covers, flags);
  return accepted.ok() ? give_number(listener, **accepted, flags) : accepted.error();
}

/// What accept(2) has to say of the peer.
Result<int> tell_peer(HostLock& lock, const NewConnection& made, sockaddr* address, socklen_t* length) {
  if (address == nullptr) return made.fd;
  Status s = made.peer.ok() ? unlocked(lock, [&] { return write_address(*made.peer, address, length); })
                            : Error{ECONNABORTED};
  if (s.ok()) return made.fd;
  lock.cover(kWhole);
  FdTable::current()->clear(made.fd);
  io::sys::close(made.fd);
  return s.error();
}

Result<int> accept_socket(HostLock& lock, SocketFile& file, sockaddr* address, socklen_t* length, int flags) {
  if (!covers_all()) {
    Result<NewConnection> made = accept_in_shard(file, flags);
    if (made.ok()) return tell_peer(lock, *made, address, length);
    if (made.code() != EAGAIN) return made.error();
    lock.cover(kWhole);
  }
  Result<SocketFile::Accepted> accepted = file.accept(lock, flags);
  if (!accepted.ok()) return accepted.error();
  if (accepted->file == nullptr) {
    FdTable::current()->clear(accepted->kernel);
    if (address == nullptr) return accepted->kernel;
    long result = unlocked(lock, [&] {
      return io::sys::call(SYS_getpeername, accepted->kernel, io::sys::arg(address), io::sys::arg(length));
    });
    if (result == 0) return accepted->kernel;
    io::sys::close(accepted->kernel);
    return Error{static_cast<int>(-result)};
  }
  Result<NewConnection> made = [&] {
    std::lock_guard tables(FdTable::lock());
    return give_number(file, *accepted->file, flags);
  }();
  return made.ok() ? tell_peer(lock, *made, address, length) : made.error();
}

/// A number of bytes that the program has said, for what may have to be put there in the kernel's place.
socklen_t room_for(const socklen_t* length) {
  Result<socklen_t> room = length != nullptr ? get_user(length) : socklen_t{0};
  return room.ok() ? *room : 0;
}

/// accept4(2) of the kernel's.
int accept_of_kernel(int fd, sockaddr* address, socklen_t* length, int flags) {
  socklen_t room = room_for(length);
  int made = FdTable::forget_stale(real::accept4(fd, address, length, flags));
  if (made >= 0 && opening::is_used()) {
    if (!escaped_peer::unwrap(made, flags)) {
      real::close(made);
      errno = ECONNABORTED;
      return -1;
    }
    if (address != nullptr && room >= sizeof(sa_family_t) && address->sa_family == AF_UNIX) {
      *length = room;
      real::getpeername(made, address, length);
    }
  }
  if (made >= 0 && address != nullptr) escaped_peer::fix_peer_address(made, address, room, length);
  return made;
}

int accept_with(int fd, sockaddr* address, socklen_t* length, int flags) {
  return on_socket_cancellable<HostLock::Own>(
      fd,
      [&](HostLock& lock, SocketFile& file) -> Result<int> {
        if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) return Error{EINVAL};
        return accept_socket(lock, file, address, length, flags);
      },
      [&] { return accept_of_kernel(fd, address, length, flags); });
}

}  // namespace

namespace hook {

int socket(int domain, int type, int protocol) {
  if (!stack_has(domain, type, protocol) || Scope::inside()) {
    return FdTable::forget_stale(real::socket(domain, type, protocol));
  }
  if (opening::is_used()) return opening::socket(domain, type, protocol);
  Scope scope;
  if (Status s = Process::ensure_host(); !s.ok()) return scope.fail(s.code());
  if (opening::is_used()) {
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) == SOCK_DGRAM) return real::socket(domain, type, protocol);
    return opening::socket(domain, type, protocol);
  }
  HostLock lock;
  Result<int> fd = open_socket(lock, domain, type, protocol);
  return fd.ok() ? *fd : scope.fail(fd.code());
}

int bind(int fd, const sockaddr* address, socklen_t length) {
  auto go_real = [&] {
    return opening::is_used() ? opening::bind(fd, address, length) : real::bind(fd, address, length);
  };
  if (!concerns_us(fd)) return go_real();
  return on_socket(
      fd, [&](HostLock& lock, SocketFile& file) { return bind_socket(lock, file, fd, address, length); },
      go_real);
}

int listen(int fd, int backlog) {
  auto go_real = [&] {
    return opening::is_used() ? opening::listen(fd, backlog) : real::listen(fd, backlog);
  };
  if (!concerns_us(fd)) return go_real();
  return on_socket(
      fd, [&](HostLock&, SocketFile& file) { return listen_on_socket(file, fd, backlog); }, go_real);
}

int accept(int fd, sockaddr* address, socklen_t* length) {
  if (!concerns_us(fd)) return accept_of_kernel(fd, address, length, 0);
  return accept_with(fd, address, length, 0);
}

int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  if (!concerns_us(fd)) return accept_of_kernel(fd, address, length, flags);
  return accept_with(fd, address, length, flags);
}

int connect(int fd, const sockaddr* address, socklen_t length) {
  auto go_real = [&] {
    if (!opening::is_used()) return real::connect(fd, address, length);
    return cancellation::point([&] { return opening::connect(fd, address, length); });
  };
  if (!concerns_us(fd)) return go_real();
  return on_socket_cancellable(
      fd, [&](HostLock& lock, SocketFile& file) { return connect_socket(lock, file, fd, address, length); },
      go_real);
}

int shutdown(int fd, int how) {
  auto go_real = [&] { return real::shutdown(fd, how); };
  if (!concerns_us(fd)) return go_real();
  return on_socket<HostLock::Transfer>(
      fd,
      [&](HostLock& lock, SocketFile& file) -> Status {
        if (how < SHUT_RD || how > SHUT_RDWR) return Error{EINVAL};
        if (how != SHUT_RD) file.flush_ends(lock, true);
        return file.shutdown(static_cast<ShutdownHow>(how));
      },
      go_real);
}

int getsockname(int fd, sockaddr* address, socklen_t* length) {
  auto go_real = [&] {
    socklen_t room = room_for(length);
    int result = real::getsockname(fd, address, length);
    if (result == 0) escaped_peer::fix_local_address(fd, address, room, length);
    return result;
  };
  if (!concerns_us(fd)) return go_real();
  return on_socket<HostLock::Transfer>(
      fd,
      [&](HostLock& lock, SocketFile& file) -> Status {
        Result<SocketAddress> local = file.local_name();
        if (!local.ok()) return local.error();
        return unlocked(lock, [&] { return write_address(*local, address, length); });
      },
      go_real);
}

int getpeername(int fd, sockaddr* address, socklen_t* length) {
  auto go_real = [&] {
    socklen_t room = room_for(length);
    int result = real::getpeername(fd, address, length);
    if (result != 0) return result;
    if (opening::is_used() && escaped_peer::is_unconnected(fd)) {
      errno = ENOTCONN;
      return -1;
    }
    escaped_peer::fix_peer_address(fd, address, room, length);
    return 0;
  };
  if (!concerns_us(fd)) return go_real();
  return on_socket<HostLock::Transfer>(
      fd,
      [&](HostLock& lock, SocketFile& file) -> Status {
        Result<SocketAddress> remote = file.remote_name();
        if (!remote.ok()) return remote.error();
        return unlocked(lock, [&] { return write_address(*remote, address, length); });
      },
      go_real);
}

}  // namespace hook

}  // namespace ustack::shim
