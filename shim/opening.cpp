// The process's side of opening.h.
#include "shim/opening.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <vector>

#include "io/descriptor_message.h"
#include "io/syscalls.h"
#include "shim/address.h"
#include "shim/dual_stack.h"
#include "shim/escaped_peer.h"
#include "shim/fd_table.h"
#include "shim/joining.h"
#include "shim/loopback_twin.h"
#include "shim/process.h"
#include "shim/process_lock.h"
#include "shim/process_state.h"
#include "shim/real.h"
#include "stack/base/immortal.h"

namespace ustack::shim::opening {

namespace {

namespace sys = io::sys;

constexpr int kClosed = 7;  // TCP_CLOSE, as TCP_INFO tells it

/// What a program may have set before: it is handed on if it isn't what a new socket has.
struct Named {
  int level, name;
};
constexpr Named kHandedOn[] = {
    {SOL_SOCKET, SO_REUSEADDR},
    {SOL_SOCKET, SO_REUSEPORT},
    {SOL_SOCKET, SO_KEEPALIVE},
    {SOL_SOCKET, SO_LINGER},
    {SOL_SOCKET, SO_OOBINLINE},
    {SOL_SOCKET, SO_SNDBUF},
    {SOL_SOCKET, SO_RCVBUF},
    {SOL_SOCKET, SO_RCVLOWAT},
    {SOL_SOCKET, SO_RCVTIMEO},
    {SOL_SOCKET, SO_SNDTIMEO},
    {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_MAXSEG},
    {IPPROTO_TCP, TCP_CORK},
    {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT},
    {IPPROTO_TCP, TCP_SYNCNT},
    {IPPROTO_TCP, TCP_LINGER2},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP},
    {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_TCP, TCP_CONGESTION},
    {IPPROTO_TCP, TCP_FASTOPEN},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_IP, IP_TOS},
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_RECVERR},
    {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_IP, 51},  // IP_LOCAL_PORT_RANGE, Linux 6.3
    {IPPROTO_IPV6, IPV6_V6ONLY},
    {IPPROTO_IPV6, IPV6_TCLASS},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {IPPROTO_IPV6, IPV6_RECVERR},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER},
};
static_assert(std::size(kHandedOn) <= OpenRequest::kMostOptions);

struct Registration {
  int set, fd;
  epoll_event event;
};
ProcessLock registrations_lock;
constinit Immortal<std::vector<Registration>> registrations;

int fail(int error) {
  errno = error;
  return -1;
}

bool read_option(int fd, Named option, OpenRequest::Option& to) {
  socklen_t length = sizeof to.value;
  to.level = option.level;
  to.name = option.name;
  long result =
      sys::call(SYS_getsockopt, fd, option.level, option.name, sys::arg(to.value.data()), sys::arg(&length));
  to.length = length;
  return result == 0;
}

int number_option(int fd, int name) {
  OpenRequest::Option option;
  int number = -1;
  if (read_option(fd, {SOL_SOCKET, name}, option)) std::memcpy(&number, option.value.data(), sizeof number);
  return number;
}

/// IPv6 is the host's.
bool has_ipv6() { return Process::config().has_ipv6(); }

/// A socket for what is the host's, if only among others.
bool may_be_hosts(int fd) {
  if (const int domain = number_option(fd, SO_DOMAIN); domain != AF_INET6) return domain == AF_INET;
  if (has_ipv6()) return true;
  OpenRequest::Option v6_only;
  return read_option(fd, {IPPROTO_IPV6, IPV6_V6ONLY}, v6_only) && v6_only.value[0] == std::byte{0};
}

/// A TCP socket of the kernel's that is neither connected nor listening.
bool is_unused(int fd) {
  if (!may_be_hosts(fd) || number_option(fd, SO_TYPE) != SOCK_STREAM ||
      number_option(fd, SO_PROTOCOL) != IPPROTO_TCP)
    return false;
  OpenRequest::Option info;
  return read_option(fd, {IPPROTO_TCP, TCP_INFO}, info) && std::to_integer<int>(info.value[0]) == kClosed;
}

void hand_on_options(int fd, OpenRequest& request) {
  io::Descriptor fresh(
      static_cast<int>(sys::socket(request.domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP)));
  for (Named named : kHandedOn) {
    OpenRequest::Option option, untouched;
    if (!read_option(fd, named, option) || !read_option(fresh.get(), named, untouched) ||
        (option.length == untouched.length && option.value == untouched.value))
      continue;
    if (named.level == SOL_SOCKET && (named.name == SO_SNDBUF || named.name == SO_RCVBUF)) {
      // It is told doubled (socket(7)).
      int bytes;
      std::memcpy(&bytes, option.value.data(), sizeof bytes);
      bytes /= 2;
      std::memcpy(option.value.data(), &bytes, sizeof bytes);
    }
    request.options[request.option_count++] = option;
  }
}

Result<SocketAddress> to_bind(int domain, const RawAddress& raw) {
  if (domain != AF_INET6) return address_to_bind(raw);
  const DualStack both = DualStack::of_both(has_ipv6());
  Result<SocketAddress> local = both.address_to_bind(raw);
  return local.ok() && both.lacks_link(raw, *local) ? Error{EINVAL} : local;
}
Result<SocketAddress> to_connect(int domain, const RawAddress& raw) {
  if (domain != AF_INET6) return address_to_connect(raw);
  const DualStack both = DualStack::of_both(has_ipv6());
  Result<SocketAddress> remote = both.address_to_connect(raw);
  return remote.ok() && both.lacks_link(raw, *remote) ? Error{EINVAL} : remote;
}

SocketAddress name_of(int domain, int fd) {
  RawAddress raw;
  raw.length = sizeof raw.bytes;
  if (sys::call(SYS_getsockname, fd, sys::arg(&raw.bytes), sys::arg(&raw.length)) != 0) return {};
  Result<SocketAddress> local = to_bind(domain, raw);
  if (!local.ok() || (local->port == 0 && local->address.is_unspecified())) return {};
  return *local;
}

/// Sends the other end of a request's socket. False: the keeper is gone, or never there.
bool send_over_channel(const io::Descriptor& end) {
  const char byte = 0;
  return io::send_with_descriptor(process_state().channel.get(), &byte, sizeof byte, end.get()) >= 0;
}

/// The host that this process has joined has another keeper: a channel to that, under the same number.
bool knock_again() {
  ProcessState& state = process_state();
  if (state.joined.empty()) return false;
  std::lock_guard held(state.start_lock);
  Result<io::Descriptor> channel = joining::join(state.joined, state.config);
  return channel.ok() && sys::call(SYS_dup3, channel->get(), state.channel.get(), O_CLOEXEC) >= 0;
}

/// Puts the request before the keeper. Our end of its socket.
Result<io::Descriptor> send_request(const OpenRequest& request, int along = -1) {
  int ends[2];
  long result = sys::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sys::arg(ends));
  if (result < 0) return Error{static_cast<int>(-result)};
  io::Descriptor ours(ends[0]), keepers(ends[1]);
  io::send_with_descriptor(ours.get(), &request, sizeof request, along);
  if (send_over_channel(keepers) || (knock_again() && send_over_channel(keepers))) return ours;
  return Error{ENETDOWN};
}

/// The keeper's answer. EINTR, EINPROGRESS (`limit` is over), an errno of the call's.
Result<io::Descriptor> wait_for_answer(const io::Descriptor& socket, const OpenRequest::Option* limit) {
  if (limit != nullptr)
    sys::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, limit->value.data(), limit->length);
  int32_t status = 0;
  io::Descriptor end;
  // libc's: restarted by the kernel after a handler, or not, and a cancellation point, as connect(2) is.
  if (real::recv(socket.get(), &status, sizeof status, MSG_PEEK) < 0)
    return Error{errno == EAGAIN ? EINPROGRESS : errno};
  long n = io::receive_with_descriptor(socket.get(), &status, sizeof status, end);
  if (n < 0) return Error{static_cast<int>(-n)};
  if (n != sizeof status) return Error{ENETDOWN};
  if (status != 0) return Error{status};
  if (!end) return Error{EMFILE};
  return end;
}

/// Which port a bind to `local` gives in the host. EADDRINUSE, ...
Result<uint16_t> ask_to_bind(OpenRequest request, const SocketAddress& local) {
  request.local = local;
  Result<io::Descriptor> socket = send_request(request);
  if (!socket.ok()) return socket.error();
  int32_t answer = 0;
  long n;
  do n = sys::call(SYS_recvfrom, socket->get(), sys::arg(&answer), sizeof answer, 0);
  while (n == -EINTR);
  if (n != sizeof answer) return Error{ENETDOWN};
  if (answer > 0) return Error{answer};
  return static_cast<uint16_t>(-answer);
}

/// The program's address with another port.
RawAddress with_port(RawAddress raw, uint16_t port) {
  // sin_port and sin6_port are at the same place.
  const uint16_t in_order = htons(port);
  std::memcpy(reinterpret_cast<char*>(&raw.bytes) + offsetof(sockaddr_in, sin_port), &in_order,
              sizeof in_order);
  return raw;
}

/// `fd` is from now on the end.
void put_on(int fd, const io::Descriptor& end) {
  FdTable::put_below(fd, end.get());
  std::lock_guard held(registrations_lock);
  std::erase_if(*registrations, [&](Registration& each) {
    if (each.fd != fd) return false;
    sys::call(SYS_epoll_ctl, each.set, EPOLL_CTL_ADD, fd, sys::arg(&each.event));
    return true;
  });
}

/// The kernel's socket itself is what listens there. False: it is bound to no port, or may not.
bool listen_on_loopback(int fd, int backlog) {
  return !Process::config().loopback_in_stack && name_of(number_option(fd, SO_DOMAIN), fd).port != 0 &&
         sys::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) == 0 &&
         sys::call(SYS_listen, fd, backlog) == 0;
}

/// It is bound as before.
void listen_no_more(int fd) {
  sys::call(SYS_shutdown, fd, SHUT_RDWR);
  sys::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "", 1);
}

OpenRequest request_for(int fd, OpenRequest::Kind kind) {
  OpenRequest request;
  request.kind = kind;
  request.pid = Process::id();
  request.nonblocking = (sys::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 ? 1 : 0;
  request.domain = number_option(fd, SO_DOMAIN);
  request.local = name_of(request.domain, fd);
  hand_on_options(fd, request);
  return request;
}

}  // namespace

bool is_used() { return process_state().outside.load(std::memory_order_acquire); }

int socket(int domain, int type, int protocol) {
  int fd = real::socket(domain, type, protocol);
  if (fd < 0) return fd;
  std::lock_guard held(registrations_lock);
  std::erase_if(*registrations, [&](const Registration& each) { return each.fd == fd; });
  return fd;
}

int bind(int fd, const sockaddr* address, socklen_t length) {
  constexpr int kTries = 16;  // for a port that is free in both
  Result<RawAddress> raw = read_address(address, length);
  Result<SocketAddress> local = raw.ok() ? to_bind(number_option(fd, SO_DOMAIN), *raw) : raw.error();
  if (!local.ok() || local_address_of_kernel(*local, has_ipv6()) || !is_unused(fd) ||
      name_of(AF_INET, fd).port != 0)
    return real::bind(fd, address, length);
  if (!local->address.is_unspecified()) {
    // The host's addresses are not the machine's; the keeper judges them.
    const int on = 1;
    sys::setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
  }
  const OpenRequest request = request_for(fd, OpenRequest::Kind::bind);
  for (int left = local->port == 0 ? kTries : 1;; --left) {
    Result<uint16_t> port = ask_to_bind(request, *local);
    if (!port.ok()) return fail(port.code());
    const RawAddress both = with_port(*raw, *port);
    if (real::bind(fd, both.pointer(), both.length) == 0) return 0;
    if (errno != EADDRINUSE || left == 1) return -1;
  }
}

int listen(int fd, int backlog) {
  if (!is_unused(fd) || local_address_of_kernel(name_of(number_option(fd, SO_DOMAIN), fd), has_ipv6()))
    return real::listen(fd, backlog);
  OpenRequest request = request_for(fd, OpenRequest::Kind::listen);
  request.backlog = backlog;
  const bool both = request.local.address.is_unspecified() && listen_on_loopback(fd, backlog);
  Result<io::Descriptor> socket = send_request(request, both ? fd : -1);
  Result<io::Descriptor> end = socket.ok() ? wait_for_answer(*socket, nullptr) : socket.error();
  if (!end.ok()) {
    if (both) listen_no_more(fd);
    return fail(end.code());
  }
  put_on(fd, *end);
  return 0;
}

int connect(int fd, const sockaddr* address, socklen_t length) {
  Result<RawAddress> raw = read_address(address, length);
  Result<SocketAddress> remote =
      raw.ok() && !is_disconnect(*raw) ? to_connect(number_option(fd, SO_DOMAIN), *raw) : Error{EINVAL};
  const bool unused = remote.ok() && is_unused(fd);
  if (remote.ok() && !unused)
    if (std::optional<int> again = escaped_peer::connect_again(fd)) return *again;
  if (!unused || destination_of_kernel(*remote, has_ipv6())) return real::connect(fd, address, length);
  OpenRequest request = request_for(fd, OpenRequest::Kind::connect);
  request.remote = *remote;
  Result<io::Descriptor> socket = send_request(request);
  if (!socket.ok()) return fail(socket.code());
  OpenRequest::Option limit;
  const bool limited = request.nonblocking == 0 && read_option(fd, {SOL_SOCKET, SO_SNDTIMEO}, limit) &&
                       std::ranges::any_of(limit.value, [](std::byte byte) { return byte != std::byte{0}; });
  Result<io::Descriptor> end = wait_for_answer(*socket, limited ? &limit : nullptr);
  if (!end.ok()) return fail(end.code());
  put_on(fd, *end);
  return request.nonblocking != 0 ? fail(EINPROGRESS) : 0;
}

bool refuses_option(int fd, int level, int name) {
  return level == SOL_SOCKET && (name == SO_ZEROCOPY || name == SO_TIMESTAMPING) && is_used() &&
         (is_unused(fd) || escaped_peer::is_end(fd));
}

bool refuses_to_send(int flags) { return (flags & MSG_FASTOPEN) != 0 && is_used(); }

int epoll_ctl(int set, int operation, int fd, epoll_event* event) {
  int result = real::epoll_ctl(set, operation, fd, event);
  if (result != 0) return result;
  const bool waits = operation != EPOLL_CTL_DEL && is_unused(fd);
  std::lock_guard held(registrations_lock);
  std::erase_if(*registrations, [&](const Registration& each) { return each.set == set && each.fd == fd; });
  if (waits) registrations->push_back({set, fd, *event});
  return result;
}

}  // namespace ustack::shim::opening
