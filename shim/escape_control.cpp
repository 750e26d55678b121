#include "shim/escape_control.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "io/descriptor_message.h"
#include "io/syscalls.h"
#include "shim/escape_server.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"
#include "stack/base/immortal.h"

namespace ustack::shim::escape {

namespace {

namespace sys = io::sys;

constexpr int kMostClients = 64;
int clients = 0;

/// Receives a question with a descriptor. False: it isn't one.
bool receive(int socket, ControlRequest& request, io::Descriptor& shown) {
  long n = io::receive_with_descriptor(socket, &request, sizeof request, shown, MSG_DONTWAIT);
  return n == sizeof request && shown && request.length <= ControlRequest::kMostBytes;
}

/// The end whose outer side `fd` is: no two sockets of a network namespace have one name.
EscapedEnd* end_of_descriptor(int fd) {
  for (long number : {SYS_getpeername, SYS_getsockname}) {
    UnixAddress name;
    name.length = sizeof name.bytes;
    if (sys::call(number, fd, sys::arg(&name.bytes), sys::arg(&name.length)) != 0) continue;
    for (EscapedEnd& end : shared_host->escaped)
      if (name.length == end.name().length && name.length > sizeof(sa_family_t) &&
          std::memcmp(&name.bytes, &end.name().bytes, name.length) == 0)
        return &end;
  }
  return nullptr;
}

ControlAnswer carry_out(ControlRequest& request, int shown) {
  ControlAnswer answer;
  EscapedEnd* end = end_of_descriptor(shown);
  if (end == nullptr) {
    answer.error = ENOTCONN;
    return answer;
  }
  if (request.operation == ControlRequest::connect) {
    answer.error = end->connect_again().code();
    return answer;
  }
  auto value = std::span(request.value).first(request.length);
  if (request.operation == ControlRequest::set_option) {
    answer.error = end->file().set_option(request.level, request.name, value).code();
    return answer;
  }
  if (request.level == SOL_SOCKET && request.name == SO_ERROR && request.length == sizeof(int)) {
    if (const int error = end->take_error(); error != 0) {
      std::memcpy(answer.value.data(), &error, sizeof error);
      answer.length = sizeof error;
      return answer;
    }
  }
  Result<size_t> n =
      end->file().get_option(request.level, request.name, std::span(answer.value).first(request.length));
  answer.error = n.code();
  answer.length = n.ok() ? static_cast<uint32_t>(*n) : 0;
  return answer;
}

class Client final : public Served {
 public:
  explicit Client(io::Descriptor socket) : socket_(std::move(socket)) { ++clients; }
  int fd() const { return socket_.get(); }
  void on_kernel(HostLock& lock) override;

 private:
  friend class ustack::Arena;
  ~Client() { --clients; }
  io::Descriptor socket_;
};

class ControlListener final : public Served {
 public:
  constexpr ControlListener() = default;
  io::Descriptor socket;
  void on_kernel(HostLock&) override {
    // Those beyond wait for their turn: Client::on_kernel.
    while (clients < kMostClients) {
      long fd = sys::call(SYS_accept4, socket.get(), 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      io::Descriptor connection(static_cast<int>(fd));
      auto* client = shared_host->arena->create<Client>(std::move(connection));
      if (client != nullptr && !watch(*client, client->fd(), EPOLLIN | EPOLLRDHUP).ok())
        shared_host->arena->destroy(client);
    }
  }
};

constinit Immortal<ControlListener> listener;

void Client::on_kernel(HostLock& lock) {
  ControlRequest request;
  io::Descriptor shown;
  if (receive(socket_.get(), request, shown)) {
    ControlAnswer answer = carry_out(request, shown.get());
    sys::call(SYS_sendto, socket_.get(), sys::arg(&answer), sizeof answer, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  const bool others_wait = clients == kMostClients;
  shared_host->arena->destroy(this);
  if (others_wait) listener->on_kernel(lock);
}

}  // namespace

void start_control(const UnixAddress& address) {
  long fd = sys::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  listener->socket = io::Descriptor(static_cast<int>(fd));
  constexpr int kBacklog = 64;
  if (sys::call(SYS_bind, listener->socket.get(), sys::arg(&address.bytes),
                static_cast<long>(address.length)) != 0 ||
      sys::call(SYS_listen, listener->socket.get(), kBacklog) != 0 ||
      !watch(*listener, listener->socket.get(), EPOLLIN).ok())
    listener->socket.reset();
}

}  // namespace ustack::shim::escape
