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
#include "shim/escaped_listener.h"
#include "shim/escaped_stream.h"
#include "shim/joining.h"
#include "shim/opening.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim::opening {

namespace {

namespace sys = io::sys;

int open_channels = 0;

/// A file in the state that was asked for but for connecting; its reference is the caller's.
Result<SocketFile*> open(HostLock& lock, const OpenRequest& request) {
  Result<SocketFile*> opened = SocketFile::open(lock.host(), request.domain == AF_INET6 ? AF_INET6 : AF_INET,
                                                SOCK_STREAM, IPPROTO_TCP);
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
  if (s.code() == EADDRINUSE) {
    escape::look_after_listeners(lock);
    s = file->bind(request.local);
  }
  // Not the file's listen(), which would open a twin on the machine's loopback too.
  if (s.ok() && request.kind == OpenRequest::Kind::listen) s = file->socket().listen(request.backlog);
  if (s.ok()) return file;
  file->release();
  return s.error();
}

void carry_out(HostLock& lock, io::Descriptor socket) {
  OpenRequest request;
  io::Descriptor twin;
  long n = io::receive_with_descriptor(socket.get(), &request, sizeof request, twin, MSG_DONTWAIT);
  if (n != sizeof request) return;
  Status s = escape::start();
  Result<SocketFile*> file = s.ok() ? open(lock, request) : Result<SocketFile*>(s.error());
  if (!file.ok()) {
    escape::answer(socket.get(), file.code(), -1);
    return;
  }
  if (request.kind == OpenRequest::Kind::bind) {
    Result<SocketAddress> local = (*file)->local_name();
    escape::answer(socket.get(), local.ok() ? -local->port : local.code(), -1);
    (*file)->release();
    return;
  }
  if (request.kind == OpenRequest::Kind::connect) {
    s = (*file)->begin_connect(request.remote);
    if (s.ok() || s.code() == EINPROGRESS) {
      s = escape::connect_outside(**file, request.remote, request.nonblocking != 0, std::move(socket));
      if (!s.ok()) escape::answer(socket.get(), s.code(), -1);
      return;
    }
    (*file)->release();
    escape::answer(socket.get(), s.code(), -1);
    return;
  }
  Result<io::Descriptor> end = escape::provide(**file, request.pid);
  if (end.ok() && twin)
    for (EscapedEnd& each : (*file)->ends()) static_cast<EscapedListener&>(each).have_twin(std::move(twin));
  escape::answer(socket.get(), end);
}

/// What a process outside of the host asks through.
class Channel final : public Served {
 public:
  /// Of one that was in it.
  explicit Channel(io::Descriptor socket) : socket_(std::move(socket)) { welcome(); }
  /// Of one that has knocked: it has to introduce itself first, unless it is refused anyway.
  Channel(io::Descriptor socket, int32_t refusal) : socket_(std::move(socket)), refusal_(refusal) {}
  int fd() const { return socket_.get(); }
  void on_kernel(HostLock& lock) override {
    if (!take_in(lock)) shared_host->arena->destroy(this);
  }

 private:
  friend class ustack::Arena;
  ~Channel() { open_channels -= welcome_ ? 1 : 0; }
  void welcome() {
    welcome_ = true;
    ++open_channels;
  }
  bool take_in(HostLock& lock);
  long take_introduction();

  io::Descriptor socket_;
  int32_t refusal_ = 0;
  bool welcome_ = false;
};

/// False: it is closed, or to be.
bool Channel::take_in(HostLock& lock) {
  long n = welcome_ ? 1 : take_introduction();
  while (n > 0) {
    char byte;
    io::Descriptor request;
    n = io::receive_with_descriptor(fd(), &byte, sizeof byte, request, MSG_DONTWAIT);
    if (request) carry_out(lock, std::move(request));
  }
  return n == -EAGAIN;
}

/// -EAGAIN: it hasn't come yet; 0: the other end is closed, or it may not come in.
long Channel::take_introduction() {
  joining::Introduction introduction;
  const long n = sys::call(SYS_recvfrom, fd(), sys::arg(&introduction), sizeof introduction, MSG_DONTWAIT);
  if (n == -EAGAIN) return n;
  if (n != sizeof introduction) return 0;
  const bool otherwise = introduction.configured_as != shared_host->configured_as;
  const int32_t status = refusal_ != 0 ? refusal_ : otherwise ? joining::kOtherwise : 0;
  shared_host->host->log()(LogLevel::info, [&](LogLine& line) {
    line << "process " << introduction.pid
         << (status == 0 ? " joins, served by the keeper" : " may not join: errno ");
    if (status != 0) line << status;
  });
  escape::answer(fd(), status, -1);
  if (status != 0) return 0;
  welcome();
  return n;
}

/// ENOMEM, ENOSPC.
Status watch_channel(Channel* channel) {
  if (channel == nullptr) return Error{ENOMEM};
  Status s = escape::watch(*channel, channel->fd(), EPOLLIN | EPOLLRDHUP);
  if (!s.ok()) shared_host->arena->destroy(channel);
  return s;
}

}  // namespace

void let_in(io::Descriptor guest, int32_t refusal) {
  if (escape::start().ok())
    (void)watch_channel(shared_host->arena->create<Channel>(std::move(guest), refusal));
}

Result<io::Descriptor> make_channel() {
  int ends[2];
  long result = sys::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sys::arg(ends));
  if (result < 0) return Error{static_cast<int>(-result)};
  io::Descriptor inner(ends[0]), outer(ends[1]);
  Status s = watch_channel(shared_host->arena->create<Channel>(std::move(inner)));
  return s.ok() ? Result<io::Descriptor>(std::move(outer)) : s.error();
}

int channels() { return open_channels; }

}  // namespace ustack::shim::opening
