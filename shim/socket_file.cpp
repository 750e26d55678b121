#include "shim/socket_file.h"

#include <fcntl.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <utility>

#include "io/clock.h"
#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/async_owner.h"
#include "shim/blocker.h"
#include "shim/epoll_set.h"
#include "shim/escaped_end.h"
#include "shim/file_step.h"
#include "shim/host_lock.h"
#include "shim/loopback_twin.h"
#include "shim/shared_host.h"
#include "stack/host.h"

namespace ustack::shim {

namespace {

Arena& arena() { return *shared_host->arena; }

}  // namespace

SocketFile::SocketFile(Socket& socket) : OpenFile(Kind::socket), socket_(&socket) {
  if (has_shards) asked_under_ = socket.host().shard();
  enlist();
}

SocketFile* SocketFile::create(Socket& socket, const DualStack* dual_stack) {
  auto* file = arena().create<SocketFile>(socket);
  if (file == nullptr) {
    socket.release();
    return nullptr;
  }
  if (dual_stack == nullptr) return file;
  file->dual_stack_ = arena().create<DualStack>(*dual_stack);
  if (file->dual_stack_ != nullptr) return file;
  file->release();
  return nullptr;
}

AsyncOwner* SocketFile::make_async_owner() {
  if (async_owner_ == nullptr) async_owner_ = arena().create<AsyncOwner>(socket_->waiters);
  return async_owner_;
}

void SocketFile::close() {
  {
    CommonLock common;
    if (async_owner_ != nullptr) arena().destroy(std::exchange(async_owner_, nullptr));
    if (dual_stack_ != nullptr) arena().destroy(std::exchange(dual_stack_, nullptr));
    if (put_back_ != nullptr) std::exchange(put_back_, nullptr)->release();
    close_twin();
    decide();
  }
  if (socket_ != nullptr) {
    // Calls hold references, so that none is under way, but for those of threads that were killed.
    socket_->commit_send(0, {});
    socket_->consume(0);
    std::exchange(socket_, nullptr)->release();
  }
  CommonLock common;
  FileStep::end();
  leave_list();
  arena().destroy(this);
}

uint8_t SocketFile::transfers_under() const {
  const bool plain = !replaced_ && socket_ != nullptr && (!undecided_ || connected_before_) &&
                     ends_.empty() && async_owner_ == nullptr && socket_->datagrams() == nullptr;
  return plain ? asked_under_ : kWhole;
}

/// Listeners have connections in all shards, and can be asked under any one's lock. The lock covers all.
void SocketFile::find_ready_list() {
  if (!has_shards) return;
  int listening = 0;
  Result<size_t> n =
      socket_->get_option(SOL_SOCKET, SO_ACCEPTCONN, std::as_writable_bytes(std::span(&listening, 1)));
  asked_under_ = n.ok() && listening != 0 ? kWhole : socket_->host().shard();
  EpollSet::sort_anew(*this);
}

bool SocketFile::nonblocking() const { return (status_flags & O_NONBLOCK) != 0; }

void SocketFile::decide() {
  undecided_ = false;
  while (SetOption* option = options_.pop_front()) arena().destroy(option);
}

void SocketFile::mark_replaced() {
  replaced_ = true;
  socket_->waiters.notify_all(~uint32_t{0});
}

uint32_t SocketFile::readiness() {
  uint32_t events = socket_->readiness();
  if (put_back_ != nullptr) events |= ready::kIn | ready::kRdNorm;
  return events;
}

Result<SocketFile*> SocketFile::open(Host& host, int domain, int type, int protocol) {
  const bool ipv6 = domain == AF_INET6 && host.network().has_ipv6();
  // Datagrams are the first shard's.
  Host& owner = type == SOCK_DGRAM ? *shared_host->host : host;
  Result<Socket*> socket = owner.open_socket(ipv6 ? AF_INET6 : AF_INET, type, protocol);
  if (!socket.ok()) return socket.error();
  const std::optional<DualStack> dual_stack =
      domain == AF_INET ? std::nullopt : std::optional(DualStack(ipv6));
  SocketFile* file = create(**socket, dual_stack ? &*dual_stack : nullptr);
  if (file == nullptr) return Error{ENOBUFS};
  if (ipv6 && dual_stack->v6_only()) {
    const int on = 1;
    (void)file->socket_->set_option(IPPROTO_IPV6, IPV6_V6ONLY, std::as_bytes(std::span(&on, 1)));
  }
  return file;
}

bool SocketFile::lacks_link(const RawAddress& raw, const SocketAddress& address) const {
  if (dual_stack_ == nullptr || !dual_stack_->lacks_link(raw, address)) return false;
  std::array<std::byte, IFNAMSIZ> device;
  Result<size_t> bytes = socket_->get_option(SOL_SOCKET, SO_BINDTODEVICE, device);
  return !bytes.ok() || *bytes == 0;
}

SocketAddress SocketFile::shown(const SocketAddress& address) const {
  return dual_stack_ != nullptr ? dual_stack_->shown(address) : address;
}

Result<SocketAddress> SocketFile::local_name() {
  Result<SocketAddress> name = socket_->local_address();
  return name.ok() ? shown(*name) : name;
}

Result<SocketAddress> SocketFile::remote_name() {
  Result<SocketAddress> name = socket_->remote_address();
  return name.ok() ? shown(*name) : name;
}

Status SocketFile::bind(const SocketAddress& local) {
  Status s = socket_->bind(local);
  // With an address of ours the loopback is out of its reach.
  if (s.ok() && !local.address.is_unspecified()) decide();
  return s;
}

Status SocketFile::listen(int backlog) {
  Status s = socket_->listen(backlog);
  if (!s.ok()) return s;
  find_ready_list();
  if (undecided_) {
    decide();
    open_twin(backlog);
  } else if (has_twin_) {
    twins::set_backlog(*this, backlog);
  }
  return s;
}

void SocketFile::open_twin(int backlog) {
  Result<SocketAddress> local = socket_->local_address();
  if (!local.ok() || !local->address.is_unspecified()) return;
  // Bound to the host's device it is out of the loopback's reach.
  std::array<std::byte, 16> device;
  if (Result<size_t> n = socket_->get_option(SOL_SOCKET, SO_BINDTODEVICE, device); n.ok() && *n > 0) return;
  const TwinFor what = dual_stack_ == nullptr          ? TwinFor::ipv4
                       : !dual_stack_->bound_to_both() ? TwinFor::mapped_ipv4
                       : !has_ipv6()                   ? TwinFor::both
                       : dual_stack_->v6_only()        ? TwinFor::ipv6_loopback
                                                       : TwinFor::loopbacks;
  Twin twin = shim::open_twin(*local, backlog, what);
  if (!twin || !twins::add(*this, twin)) return;
  has_twin_ = true;
  for (EpollMember& member : registrations) member.set().attach_half(member, kernel_half());
}

void SocketFile::close_twin() {
  // Relatives have theirs until they close the file, but it doesn't listen any more.
  if (std::exchange(has_twin_, false)) twins::end(*this);
}

Status SocketFile::begin_connect(const SocketAddress& remote, bool with_data) {
  const Status s = connect_in_shard(socket_, remote, with_data);
  find_ready_list();
  return s;
}

Status SocketFile::connect(HostLock& lock, const SocketAddress& remote) {
  Status s = begin_connect(remote);
  if (s.ok()) {
    connecting_ = false;
    connected_before_ = !remote.address.is_unspecified();
  }
  if (s.code() != EINPROGRESS && s.code() != EALREADY) return s;
  connecting_ = connected_before_ = true;
  // Blocking, it waits for a connection that an earlier call has started just as for its own
  // (inet_stream_connect).
  return nonblocking() ? s : wait_for_connection(lock, s.code());
}

Status SocketFile::wait_for_connection(HostLock& lock, int when_not_yet) {
  Blocker blocker(lock, false, socket_->send_timeout());
  for (;;) {
    Status result = socket_->connect_result();
    if (result.code() != EINPROGRESS) {
      connecting_ = false;
      return result;
    }
    if (Status s = blocker.wait(socket_->waiters, ready::kOut); !s.ok())
      return s.code() == EAGAIN ? Error{when_not_yet} : s;
  }
}

Status SocketFile::connect_state() {
  if (socket_->remote_address().ok()) return Error{EISCONN};
  int listening = 0;
  Result<size_t> n =
      socket_->get_option(SOL_SOCKET, SO_ACCEPTCONN, std::as_writable_bytes(std::span(&listening, 1)));
  if (n.ok() && listening != 0) return Error{EISCONN};
  return connecting_ ? Status(Error{EALREADY}) : Status();
}

Result<SocketFile::Accepted> SocketFile::accept_from_stack(int flags) {
  if (put_back_ != nullptr) {
    SocketFile* file = std::exchange(put_back_, nullptr);
    file->status_flags = flags & O_NONBLOCK;
    return Accepted{.file = file};
  }
  Result<Socket*> socket = socket_->accept();
  if (!socket.ok()) return socket.error();
  Result<SocketFile*> file = file_for_accepted(**socket, flags);
  return file.ok() ? Result<Accepted>(Accepted{.file = *file}) : file.error();
}

Result<SocketFile*> SocketFile::file_for_accepted(Socket& socket, int flags) {
  SocketFile* file = create(socket, dual_stack_);
  if (file == nullptr) return Error{ENOBUFS};
  file->decide();
  file->status_flags = flags & O_NONBLOCK;
  return file;
}

Result<SocketFile*> SocketFile::accept_in_shard(uint8_t shard, int flags) {
  constexpr uint8_t kInTurn = 16;
  const bool twins_turn = has_twin_ && ++accepts_ % kInTurn == 0;
  if (asked_under_ != kWhole || put_back_ != nullptr || twins_turn) return Error{EAGAIN};
  Result<Socket*> socket = socket_->accept_in_shard(shard);
  if (!socket.ok()) return socket.error();
  return file_for_accepted(**socket, flags);
}

Result<SocketFile::Accepted> SocketFile::accept_from_kernel(int flags) {
  Result<int> fd = has_twin_ ? twins::accept(*this, flags) : Error{EAGAIN};
  return fd.ok() ? Result<Accepted>(Accepted{.kernel = *fd}) : fd.error();
}

Result<SocketFile::Accepted> SocketFile::accept(HostLock& lock, int flags) {
  Blocker blocker(lock, nonblocking(), socket_->receive_timeout());
  for (;;) {
    const bool twin_first = ++accepts_ % 2 != 0;
    Result<Accepted> result = twin_first ? accept_from_kernel(flags) : accept_from_stack(flags);
    if (result.code() == EAGAIN) result = twin_first ? accept_from_stack(flags) : accept_from_kernel(flags);
    if (result.code() != EAGAIN) return result;
    if (lends()) {
      if (Status s = wait_for_return(lock); !s.ok()) return s.error();
      continue;
    }
    if (Status s = blocker.wait(socket_->waiters, ready::kIn, true, kernel_half()); !s.ok()) return s.error();
  }
}

void SocketFile::put_back(SocketFile* accepted) {
  if (put_back_ != nullptr) {  // two threads at once: one connection is lost
    accepted->release();
    return;
  }
  put_back_ = accepted;
  FileStep::end();
  socket_->waiters.notify(ready::kIn | ready::kRdNorm);
}

Status SocketFile::shutdown(ShutdownHow how) {
  Status s = socket_->shutdown(how);
  // A listener whose reading side is shut down listens no more (inet_shutdown).
  if (s.ok() && how != ShutdownHow::write) close_twin();
  if (asked_under_ == kWhole) find_ready_list();
  return s;
}

bool SocketFile::lingers() const { return !socket_->lingering_done(); }

void SocketFile::linger(HostLock& lock) {
  ::linger time{};
  Result<size_t> n = socket_->get_option(SOL_SOCKET, SO_LINGER, std::as_writable_bytes(std::span(&time, 1)));
  if (!n.ok()) return;
  // The FIN goes behind what is still to be sent; the wait is for its acknowledgement (inet_release). Not
  // every step on the way there is told to waiters, so it is looked at now and then as well.
  constexpr Duration kTick = 10ms;
  (void)socket_->shutdown(ShutdownHow::write);
  const Instant end = io::now() + std::chrono::seconds(time.l_linger);
  Wait wait;
  while (!socket_->lingering_done() && io::now() < end) {
    if (!wait.on(socket_->waiters, ready::kOut).ok()) return;
    if (wait.sleep(lock, {.deadline = std::min(end, io::now() + kTick)}) == WaitOutcome::interrupted) return;
  }
}

Status SocketFile::set_ipv6_option(int name, Bytes value) {
  if (name == IPV6_MTU && has_ipv6()) return socket_->set_option(IPPROTO_IPV6, name, value);
  Result<SocketAddress> local = socket_->local_address();
  const DualStack before = *dual_stack_;
  Status s = dual_stack_->set_option(name, value, local.ok() && local->port != 0, !has_datagrams());
  if (!s.ok() || !has_ipv6()) return s;
  int number = 0;
  (void)dual_stack_->get_option(name, std::as_writable_bytes(std::span(&number, 1)));
  const Bytes judged = std::as_bytes(std::span(&number, 1));
  // The socket has those that make a difference to it. Linux has one switch for both families' FREEBIND.
  if (name == IPV6_FREEBIND) return socket_->set_option(IPPROTO_IP, IP_FREEBIND, judged);
  s = socket_->set_option(IPPROTO_IPV6, name, judged);
  if (s.code() == ENOPROTOOPT) return {};
  if (!s.ok()) *dual_stack_ = before;
  return s;
}

Status SocketFile::set_option(int level, int name, Bytes value) {
  Status s;
  if (dual_stack_ != nullptr && level == IPPROTO_IPV6) {
    s = set_ipv6_option(name, value);
  } else {
    s = socket_->set_option(level, name, value);
  }
  if (!s.ok() || !undecided_) return s;
  CommonLock common;
  SetOption* option = nullptr;
  for (SetOption& set : options_)
    if (set.level == level && set.name == name) option = &set;
  if (option == nullptr) {
    option = arena().create<SetOption>();
    if (option == nullptr) return Error{ENOBUFS};
    options_.push_back(*option);
  }
  option->level = level;
  option->name = name;
  option->length = std::min(value.size(), SetOption::kMaxBytes);
  std::memcpy(option->value, value.data(), option->length);
  return s;
}

Result<size_t> SocketFile::get_option(int level, int name, MutableBytes out) {
  if (dual_stack_ == nullptr) return socket_->get_option(level, name, out);
  if (level == IPPROTO_IPV6) {
    if (has_ipv6() && (name == IPV6_MTU || name == IPV6_UNICAST_HOPS))
      return socket_->get_option(level, name, out);
    if (name == IPV6_MTU) return Error{ENOTCONN};  // not over IPv6
    return dual_stack_->get_option(name, out);
  }
  if (level == SOL_SOCKET && name == SO_DOMAIN) {
    const int domain = AF_INET6;
    return copy_out(&domain, sizeof domain, out);
  }
  if (level == SOL_SOCKET && name == SO_PEERNAME) {
    Result<SocketAddress> peer = remote_name();
    if (!peer.ok()) return peer.error();
    sockaddr_storage storage;
    const socklen_t size = to_sockaddr(*peer, &storage);
    if (out.size() > size) return Error{EINVAL};
    return copy_out(&storage, size, out);
  }
  return socket_->get_option(level, name, out);
}

void raise_sigpipe() { io::sys::call(SYS_tgkill, io::sys::getpid(), io::sys::call(SYS_gettid), SIGPIPE); }

}  // namespace ustack::shim
