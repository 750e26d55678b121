#include "io/yield.h"

#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "io/clock.h"
#include "io/syscalls.h"

namespace ustack::io {

namespace {

constexpr std::string_view kYieldPrefix = "ustack-keeper/", kDoorPrefix = "ustack-door/";
constexpr int kBacklog = 16;

/// The abstract address (unix(7)) for a device; its length.
long address_of(std::string_view prefix, std::string_view device, sockaddr_un* address) {
  *address = sockaddr_un{};
  address->sun_family = AF_UNIX;
  char* name = address->sun_path + 1;
  size_t length = prefix.copy(name, sizeof address->sun_path - 1);
  length += device.copy(name + length, sizeof address->sun_path - 1 - length);
  return static_cast<long>(offsetof(sockaddr_un, sun_path) + 1 + length);
}

Descriptor open_socket(int flags) {
  return Descriptor(static_cast<int>(sys::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0)));
}

Descriptor listen_at(std::string_view prefix, std::string_view device) {
  sockaddr_un address;
  long length = address_of(prefix, device, &address);
  Descriptor listening = open_socket(SOCK_NONBLOCK);
  if (!listening || sys::call(SYS_bind, listening.get(), sys::arg(&address), length) != 0 ||
      sys::call(SYS_listen, listening.get(), kBacklog) != 0 || !move_high(listening).ok())
    return {};
  return listening;
}

/// A connected socket; empty: nobody listens there.
Descriptor connect_to(std::string_view prefix, std::string_view device) {
  sockaddr_un address;
  long length = address_of(prefix, device, &address);
  Descriptor asking = open_socket(0);
  if (!asking || sys::call(SYS_connect, asking.get(), sys::arg(&address), length) != 0) return {};
  return asking;
}

}  // namespace

bool trusts_peer(int socket) {
  ucred other{};
  socklen_t length = sizeof other;
  return sys::call(SYS_getsockopt, socket, SOL_SOCKET, SO_PEERCRED, sys::arg(&other), sys::arg(&length)) ==
             0 &&
         (other.uid == 0 || other.uid == static_cast<uid_t>(sys::call(SYS_geteuid)));
}

YieldAnswer ask_to_yield(std::string_view device, Duration patience) {
  Descriptor asking = connect_to(kYieldPrefix, device);
  if (!asking) return YieldAnswer::nobody;
  const Instant end = now() + patience;
  for (;;) {
    Duration left = std::max(Duration(0), end - now());
    __kernel_timespec time{left.count() / 1'000'000'000, left.count() % 1'000'000'000};
    pollfd fds{asking.get(), POLLIN, 0};
    long ready = sys::ppoll(&fds, 1, &time, nullptr);
    if (ready == -EINTR) continue;
    if (ready <= 0) return YieldAnswer::late;
    char answer;
    return sys::read(asking.get(), &answer, 1) == 1 ? YieldAnswer::in_use : YieldAnswer::gone;
  }
}

Descriptor open_yield_socket(std::string_view device) { return listen_at(kYieldPrefix, device); }

Descriptor accept_yield(const Descriptor& listening) {
  return Descriptor(
      static_cast<int>(sys::call(SYS_accept4, listening.get(), 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)));
}

void refuse_yield(Descriptor asking) {
  char answer = 'u';
  iovec part{&answer, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  sys::sendmsg(asking.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

Descriptor open_door(std::string_view device) { return listen_at(kDoorPrefix, device); }

Descriptor accept_guest(const Descriptor& door, int32_t refusal) {
  for (;;) {
    Descriptor guest(static_cast<int>(sys::call(SYS_accept4, door.get(), 0, 0, SOCK_CLOEXEC)));
    if (!guest || trusts_peer(guest.get())) return guest;
    sys::call(SYS_sendto, guest.get(), sys::arg(&refusal), sizeof refusal, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

Result<Descriptor> knock(std::string_view device) {
  Descriptor asking = connect_to(kDoorPrefix, device);
  if (!asking) return Error{ECONNREFUSED};
  if (!trusts_peer(asking.get())) return Error{EACCES};
  return asking;
}

}  // namespace ustack::io
