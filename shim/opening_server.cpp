// The keeper's side of opening.h.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "io/descriptor_message.h"
#include "io/syscalls.h"
#include "shim/escape_server.h"
#include "shim/escaped_stream.h"
#include "shim/opening.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim::opening {

namespace {

namespace sys = io::sys;

int open_channels = 0;

/// A file in the state that was asked for but for connecting; its reference is the caller's.
Result<SocketFile*> open(HostLock& lock, const OpenRequest& request) {
  Result<SocketFile*> opened =
      SocketFile::open(lock.host(), request.domain == AF_INET6 ? AF_INET6 : AF_INET, IPPROTO_TCP);
  if (!opened.ok()) return opened;
  SocketFile* file = *opened;
  if (request.nonblocking != 0) file->status_flags = O_NONBLOCK;
  for (uint32_t i = 0; i < std::min<size_t>(request.option_count, request.options.size()); ++i) {
    const OpenRequest::Option& option = request.options[i];
    const Bytes value = Bytes(option.value).first(std::min<size_t>(option.length, option.value.size()));
    (void)file->socket().set_option(option.level, option.name, value);
  }
  Status s;
  if (request.local.address.family() != Family::unspecified) s = file->bind(request.local);
  // Not the file's listen(), which would open a twin on the machine's loopback too.
  if (s.ok() && request.kind == OpenRequest::Kind::listen) s = file->socket().listen(request.backlog);
  if (s.ok()) return file;
  file->release();
  return s.error();
}

void carry_out(HostLock& lock, io::Descriptor socket) {
  OpenRequest request;
  long n = sys::call(SYS_recvfrom, socket.get(), sys::arg(&request), sizeof request, MSG_DONTWAIT);
  if (n != sizeof request) return;
  Status s = escape::start();
  Result<SocketFile*> file = s.ok() ? open(lock, request) : Result<SocketFile*>(s.error());
  if (!file.ok()) {
    escape::answer(socket.get(), file.code(), -1);
    return;
  }
  if (request.kind == OpenRequest::Kind::connect) {
    s = (*file)->socket().connect(request.remote);
    if (s.ok() || s.code() == EINPROGRESS) {
      s = escape::connect_outside(**file, request.remote, request.nonblocking != 0, std::move(socket));
      if (!s.ok()) escape::answer(socket.get(), s.code(), -1);
      return;
    }
    (*file)->release();
    escape::answer(socket.get(), s.code(), -1);
    return;
  }
  escape::answer(socket.get(), escape::provide(**file, request.pid));
}

/// What a process that has left its host asks through.
class Channel final : public Served {
 public:
  explicit Channel(io::Descriptor socket) : socket_(std::move(socket)) { ++open_channels; }
  int fd() const { return socket_.get(); }
  void on_kernel(HostLock& lock) override {
    for (;;) {
      char byte;
      io::Descriptor request;
      long n = io::receive_with_descriptor(socket_.get(), &byte, sizeof byte, request, MSG_DONTWAIT);
      if (n == -EAGAIN) return;
      if (n <= 0) break;
      if (request) carry_out(lock, std::move(request));
    }
    shared_host->arena->destroy(this);
  }

 private:
  friend class ustack::Arena;
  ~Channel() { --open_channels; }
  io::Descriptor socket_;
};

}  // namespace

Result<io::Descriptor> make_channel() {
  int ends[2];
  long result = sys::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sys::arg(ends));
  if (result < 0) return Error{static_cast<int>(-result)};
  io::Descriptor inner(ends[0]), outer(ends[1]);
  auto* channel = shared_host->arena->create<Channel>(std::move(inner));
  if (channel == nullptr) return Error{ENOMEM};
  if (Status s = escape::watch(*channel, channel->fd(), EPOLLIN | EPOLLRDHUP); !s.ok()) {
    shared_host->arena->destroy(channel);
    return s.error();
  }
  return outer;
}

int channels() { return open_channels; }

}  // namespace ustack::shim::opening
