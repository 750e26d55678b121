#include "shim/escaped_peer.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "io/descriptor_message.h"
#include "io/syscalls.h"
#include "io/yield.h"
#include "shim/address.h"
#include "shim/escape_control.h"
#include "shim/escaped_name.h"

namespace ustack::shim::escaped_peer {

namespace {

namespace sys = io::sys;

std::optional<EscapedName> ask_name(long system_call, int fd) {
  UnixAddress name;
  name.length = sizeof name.bytes;
  if (sys::call(system_call, fd, sys::arg(&name.bytes), sys::arg(&name.length)) != 0) return std::nullopt;
  return parse_escaped_name(reinterpret_cast<const sockaddr*>(&name.bytes), name.length);
}

/// A stream's peer has the name, a listener itself.
std::optional<EscapedName> name_of(int fd) {
  std::optional<EscapedName> name = ask_name(SYS_getpeername, fd);
  return name ? name : ask_name(SYS_getsockname, fd);
}

/// What has been written there is an AF_UNIX address, or too little of one to tell.
bool may_be_unix(const sockaddr* address, socklen_t room) {
  return address != nullptr && (room < sizeof(sa_family_t) || address->sa_family == AF_UNIX);
}

void put(const SocketAddress& address, sockaddr* to, socklen_t room, socklen_t* length) {
  sockaddr_storage storage;
  socklen_t size = to_sockaddr(address, &storage);
  std::memcpy(to, &storage, std::min(room, size));
  *length = size;
}

/// One question to the keeper of `name`, with `fd` shown. False: there is no answer to be had.
bool ask(const EscapedName& name, int fd, const escape::ControlRequest& request,
         escape::ControlAnswer& answer) {
  io::Descriptor socket(static_cast<int>(sys::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)));
  if (!socket) return false;
  const timeval limit{.tv_sec = 2, .tv_usec = 0};
  sys::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sys::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // connect(2) too
  UnixAddress keeper = format_keeper_name(name.keeper);
  if (sys::call(SYS_connect, socket.get(), sys::arg(&keeper.bytes), static_cast<long>(keeper.length)) != 0)
    return false;
  if (io::send_with_descriptor(socket.get(), &request, sizeof request, fd) < 0) return false;
  return sys::call(SYS_recvfrom, socket.get(), sys::arg(&answer), sizeof answer) == sizeof answer;
}

/// The first bytes of an option of the connection, `to`. False: there is no answer to be had.
bool ask_option(const EscapedName& name, int fd, int level, int option, void* to, uint32_t bytes) {
  escape::ControlRequest request;
  request.level = level;
  request.name = option;
  request.length = bytes;
  escape::ControlAnswer answer;
  if (!ask(name, fd, request, answer) || answer.error != 0) return false;
  std::memcpy(to, answer.value.data(), bytes);
  return true;
}

int fail(int error) {
  errno = error;
  return -1;
}

/// Options of SOL_SOCKET that are the connection's: the kernel knows the descriptor only.
bool of_the_connection(int name) {
  return name == SO_KEEPALIVE || name == SO_LINGER || name == SO_OOBINLINE || name == SO_REUSEADDR ||
         name == SO_REUSEPORT || name == SO_PEERNAME;
}

/// An option of the connection's protocols, which a kernel's descriptor of AF_UNIX has not.
bool unknown_to_kernel(int level, int error) {
  return (level == IPPROTO_TCP || level == IPPROTO_IP || level == IPPROTO_IPV6) &&
         (error == EOPNOTSUPP || error == ENOPROTOOPT);
}

/// A connection that could not be made tells why (opening.h); the descriptor itself has no error then.
bool is_error_of_connection(int level, int name, const void* value, socklen_t length, int result) {
  int error = 0;
  if (level != SOL_SOCKET || name != SO_ERROR || result != 0 || length < sizeof error) return false;
  std::memcpy(&error, value, sizeof error);
  return error == 0;
}

}  // namespace

bool unwrap(int fd, int flags) {
  std::optional<EscapedName> name = ask_name(SYS_getpeername, fd);
  if (!name || name->remote.address.family() != Family::unspecified) return true;
  if (!io::trusts_peer(fd)) return false;
  // It is sent right behind the connection.
  pollfd item{fd, POLLIN, 0};
  __kernel_timespec patience{1, 0};
  sys::ppoll(&item, 1, &patience, nullptr);
  char byte;
  io::Descriptor carried;
  if (io::receive_with_descriptor(fd, &byte, sizeof byte, carried, MSG_DONTWAIT) != 1 || !carried)
    return false;
  if ((flags & SOCK_NONBLOCK) != 0) sys::fcntl(carried.get(), F_SETFL, O_RDWR | O_NONBLOCK);
  return sys::call(SYS_dup3, carried.get(), fd, (flags & SOCK_CLOEXEC) != 0 ? O_CLOEXEC : 0) == fd;
}

std::optional<int> connect_again(int fd) {
  std::optional<EscapedName> name = ask_name(SYS_getpeername, fd);
  if (!name || name->remote.address.family() == Family::unspecified) return std::nullopt;
  escape::ControlRequest request;
  request.operation = escape::ControlRequest::connect;
  escape::ControlAnswer answer;
  if (!ask(*name, fd, request, answer)) return fail(EISCONN);
  return answer.error == 0 ? 0 : fail(answer.error);
}

bool is_unconnected(int fd) {
  // One that is being connected has no room (EscapedStream::fill); one that could not be has ended.
  pollfd item{fd, POLLOUT | POLLRDHUP, 0};
  __kernel_timespec now{};
  if (sys::ppoll(&item, 1, &now, nullptr) > 0 && (item.revents & POLLRDHUP) == 0) return false;
  std::optional<EscapedName> name = ask_name(SYS_getpeername, fd);
  if (!name) return false;
  uint8_t state = 0;
  if (!ask_option(*name, fd, IPPROTO_TCP, TCP_INFO, &state, sizeof state)) return false;
  return state == TCP_SYN_SENT || state == TCP_CLOSE;
}

ssize_t explain_end(int fd) {
  const int error = errno;
  std::optional<EscapedName> name = ask_name(SYS_getpeername, fd);
  int reason = 0;
  if (name && ask_option(*name, fd, SOL_SOCKET, SO_ERROR, &reason, sizeof reason) && reason != 0)
    return fail(reason);
  errno = error;
  return 0;
}

bool is_end(int fd) { return name_of(fd).has_value(); }

void fix_local_address(int fd, sockaddr* address, socklen_t room, socklen_t* length) {
  if (!may_be_unix(address, room)) return;
  if (std::optional<EscapedName> name = name_of(fd)) put(name->local, address, room, length);
}

void fix_peer_address(int fd, sockaddr* address, socklen_t room, socklen_t* length) {
  if (!may_be_unix(address, room)) return;
  if (std::optional<EscapedName> name = ask_name(SYS_getpeername, fd))
    if (name->remote.address.family() != Family::unspecified) put(name->remote, address, room, length);
}

int get_option(int fd, int level, int name, void* value, socklen_t room, socklen_t* length, int result) {
  const int error = errno;
  const bool domain = level == SOL_SOCKET && (name == SO_DOMAIN || name == SO_PROTOCOL) && result == 0;
  const bool connection = level == SOL_SOCKET && of_the_connection(name) && result == 0;
  const bool tcp = result != 0 && unknown_to_kernel(level, error);
  const bool failure = is_error_of_connection(level, name, value, room, result);
  if (!domain && !connection && !tcp && !failure) return result;
  std::optional<EscapedName> end = name_of(fd);
  errno = error;
  if (!end) return result;
  if (domain) {
    int number = name == SO_PROTOCOL ? IPPROTO_TCP : end->local.address.is_v6() ? AF_INET6 : AF_INET;
    std::memcpy(value, &number, std::min<size_t>(room, sizeof number));
    return 0;
  }
  escape::ControlRequest request;
  request.operation = escape::ControlRequest::get_option;
  request.level = level;
  request.name = name;
  request.length = std::min<socklen_t>(room, escape::ControlRequest::kMostBytes);
  escape::ControlAnswer answer;
  const bool asked = ask(*end, fd, request, answer);
  errno = error;
  if ((!asked && connection) || ((!asked || answer.error != 0) && failure)) return result;
  if (!asked) return fail(ENOPROTOOPT);
  if (answer.error != 0) return fail(answer.error);
  *length = std::min<socklen_t>({answer.length, room, escape::ControlRequest::kMostBytes});
  std::memcpy(value, answer.value.data(), *length);
  errno = error;
  return 0;
}

int set_option(int fd, int level, int name, const void* value, socklen_t length, int result) {
  const int error = errno;
  const bool connection = level == SOL_SOCKET && of_the_connection(name) && result == 0;
  const bool tcp = result != 0 && unknown_to_kernel(level, error);
  if ((!connection && !tcp) || length > escape::ControlRequest::kMostBytes) return result;
  std::optional<EscapedName> end = name_of(fd);
  errno = error;
  if (!end) return result;
  escape::ControlRequest request;
  request.operation = escape::ControlRequest::set_option;
  request.level = level;
  request.name = name;
  request.length = length;
  std::memcpy(request.value.data(), value, length);
  escape::ControlAnswer answer;
  if (!ask(*end, fd, request, answer)) return connection ? result : fail(ENOPROTOOPT);
  if (answer.error != 0) return fail(answer.error);
  errno = error;
  return 0;
}

}  // namespace ustack::shim::escaped_peer
