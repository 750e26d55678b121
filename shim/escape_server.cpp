// The keeper's side of escape.h: takes requests in, serves the ends. Everything here runs in the keeper's one
// thread; the lists are in the arena, what else it remembers is its own.
#include "shim/escape_server.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <utility>

#include "io/clock.h"
#include "io/descriptor_message.h"
#include "io/random.h"
#include "io/syscalls.h"
#include "shim/escape.h"
#include "shim/escape_control.h"
#include "shim/escaped_listener.h"
#include "shim/escaped_stream.h"
#include "shim/opening.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"
#include "stack/base/immortal.h"

namespace ustack::shim::escape {

namespace {

namespace sys = io::sys;

/// Accepted connections that an outer listener may have waiting.
constexpr int kBacklog = 511;
/// Turns of one run(): after that the keeper looks at everything else first.
constexpr int kTurns = 16;

/// This keeper's.
struct Server {
  /// Nothing is left of its predecessor's.
  bool cleared = false;
  /// It has a number and can be asked.
  bool started = false;
  io::Descriptor set;
  io::Descriptor timer;
  uint64_t keeper = 0;
  uint64_t last_number = 0;
  /// The end that is being served.
  EscapedEnd* serving = nullptr;
};
constinit Immortal<Server> server;

/// Waits for the end of a process's exec: the request's socket, which the process has CLOEXEC, is closed
/// then.
class Departing final : public Served {
 public:
  Departing(const Request& request, io::Descriptor socket) : request_(request), socket_(std::move(socket)) {}
  int fd() const { return socket_.get(); }
  void on_kernel(HostLock& lock) override;

 private:
  friend class ustack::Arena;
  ~Departing() = default;
  Request request_;
  io::Descriptor socket_;
};

void Departing::on_kernel(HostLock&) {
  char byte;
  if (sys::call(SYS_recvfrom, socket_.get(), sys::arg(&byte), 1, MSG_DONTWAIT) == -EAGAIN) return;
  SharedHost& shared = *shared_host;
  for (Attachment& each : shared.attached) {
    if (&each != request_.attachment || each.serial != request_.serial) continue;
    if (each.departure == request_.departure) shared.detach(each);
    break;
  }
  shared.arena->destroy(this);
}

/// What an earlier keeper has served is lost with its descriptors.
void forget_orphans() {
  if (std::exchange(server->cleared, true)) return;
  while (EscapedEnd* end = shared_host->escaped.front()) end->abandon();
}

Result<io::Descriptor> open_listener(SocketFile& file, UnixAddress& name) {
  Result<SocketAddress> local = file.local_name();
  if (!local.ok()) return local.error();
  name = next_name(*local, SocketAddress{});
  long fd = sys::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (file.nonblocking() ? SOCK_NONBLOCK : 0), 0);
  if (fd < 0) return Error{static_cast<int>(-fd)};
  io::Descriptor outer(static_cast<int>(fd));
  long result = sys::call(SYS_bind, outer.get(), sys::arg(&name.bytes), static_cast<long>(name.length));
  if (result == 0) result = sys::call(SYS_listen, outer.get(), kBacklog);
  if (result < 0) return Error{static_cast<int>(-result)};
  return outer;
}

/// Those of the socket's settings that the kernel's own socket obeys.
void copy_settings(SocketFile& file, int outer) {
  if (file.nonblocking()) sys::fcntl(outer, F_SETFL, O_RDWR | O_NONBLOCK);
  for (int name : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    std::byte value[16];
    Result<size_t> n = file.socket().get_option(SOL_SOCKET, name, value);
    if (n.ok()) sys::setsockopt(outer, SOL_SOCKET, name, value, *n);
  }
}

/// Takes over the reference, as the next.
Result<EscapedEnd*> make_listener(SocketFile& file) {
  UnixAddress name;
  Result<io::Descriptor> outer = open_listener(file, name);
  EscapedEnd* end = nullptr;
  if (outer.ok()) end = shared_host->arena->create<EscapedListener>(file, std::move(*outer), name);
  if (end != nullptr) return end;
  file.release();
  return outer.ok() ? Error{ENOMEM} : outer.error();
}

Result<EscapedStream*> new_stream(SocketFile& file) {
  int ends[2];
  long result = sys::call(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sys::arg(ends));
  EscapedStream* end = nullptr;
  if (result == 0) {
    io::Descriptor inner(ends[0]), outer(ends[1]);
    sys::fcntl(inner.get(), F_SETFL, O_RDWR | O_NONBLOCK);
    copy_settings(file, outer.get());
    end = shared_host->arena->create<EscapedStream>(file, std::move(inner), std::move(outer));
  }
  if (end == nullptr) {
    file.release();
    return result < 0 ? Error{static_cast<int>(-result)} : Error{ENOMEM};
  }
  return end;
}

Result<EscapedEnd*> make_stream(SocketFile& file) {
  Result<EscapedStream*> end = new_stream(file);
  if (!end.ok()) return end.error();
  Status s = (*end)->begin();
  return s.ok() ? Result<EscapedEnd*>(*end) : s.error();
}

bool listens(SocketFile& file) {
  int listening = 0;
  Result<size_t> n =
      file.socket().get_option(SOL_SOCKET, SO_ACCEPTCONN, std::as_writable_bytes(std::span(&listening, 1)));
  return n.ok() && listening != 0;
}

void wait_for_departure(const Request& request, io::Descriptor socket) {
  Arena& arena = *shared_host->arena;
  auto* departing = arena.create<Departing>(request, std::move(socket));
  if (departing == nullptr) return;
  if (watch(*departing, departing->fd(), EPOLLIN | EPOLLRDHUP).ok())
    answer(departing->fd(), 0, -1);
  else
    arena.destroy(departing);
}

Instant next_retry() {
  Instant next = kNever;
  for (EscapedEnd& end : shared_host->escaped) next = std::min(next, end.retry_at());
  return next;
}

void set_timer(Instant at) {
  // A time of 0 stops it; one in the past ends it at once.
  Duration since_boot = at == kNever ? Duration(0) : std::max(at.time_since_epoch(), Duration(1));
  const __kernel_timespec times[2] = {{}, {since_boot / 1s, (since_boot % 1s).count()}};
  sys::call(SYS_timerfd_settime, server->timer.get(), TFD_TIMER_ABSTIME, sys::arg(times), 0);
}

void take_events(HostLock& lock) {
  // One at a time: an object may free others.
  epoll_event event;
  while (sys::call(SYS_epoll_pwait, server->set.get(), sys::arg(&event), 1, 0, 0, sys::kSignalSetBytes) ==
         1) {
    if (event.data.ptr != nullptr) {
      static_cast<Served*>(event.data.ptr)->on_kernel(lock);
      continue;
    }
    uint64_t expirations;
    sys::read(server->timer.get(), &expirations, sizeof expirations);
  }
}

/// False: nothing was due.
bool serve_due(HostLock& lock) {
  SharedHost& shared = *shared_host;
  Instant now = io::now();
  bool served = false;
  EscapedEnd* next;
  for (EscapedEnd* end = shared.escaped.front(); end != nullptr; end = next) {
    if (!end->due(now)) {
      next = shared.escaped.next(*end);
      continue;
    }
    served = true;
    // Ends are made and freed by this thread only, an end that is served frees none but itself, and new ones
    // go to the list's back.
    EscapedEnd* before = shared.escaped.previous(*end);
    server->serving = end;
    bool there = end->serve(lock);
    server->serving = nullptr;
    next = there               ? shared.escaped.next(*end)
           : before != nullptr ? shared.escaped.next(*before)
                               : shared.escaped.front();
  }
  return served;
}

}  // namespace

Status start() {
  if (server->started) return {};
  forget_orphans();
  if (!server->timer) return Error{EMFILE};
  sys::getrandom(&server->keeper, sizeof server->keeper, 0);
  server->keeper &= 0xffff'ffff'ffff;
  server->started = true;
  start_control(format_keeper_name(server->keeper));
  return {};
}

Result<io::Descriptor> provide(SocketFile& file, int32_t pid) {
  for (EscapedEnd& end : file.ends()) {
    Result<io::Descriptor> another = end.another();
    if (!another.ok()) continue;
    end.set_holder(pid);
    file.release();
    return another;
  }
  Result<EscapedEnd*> end = listens(file) ? make_listener(file) : make_stream(file);
  if (!end.ok()) return end.error();
  (*end)->set_holder(pid);
  return (*end)->another();
}

Status connect_outside(SocketFile& file, const SocketAddress& remote, bool at_once,
                       io::Descriptor&& request) {
  Result<EscapedStream*> end = new_stream(file);
  if (!end.ok()) return end.status();
  return (*end)->begin_connecting(remote, at_once, std::move(request));
}

void look_after_listeners(HostLock& lock) {
  for (EscapedEnd& end : shared_host->escaped)
    if (end.is_listener()) end.on_kernel(lock);
  serve_due(lock);
}

UnixAddress next_name(const SocketAddress& local, const SocketAddress& remote) {
  return format_escaped_name({server->keeper, ++server->last_number, local, remote});
}

Status watch(Served& served, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events | EPOLLET;
  event.data.ptr = &served;
  long result = sys::call(SYS_epoll_ctl, server->set.get(), EPOLL_CTL_ADD, fd, sys::arg(&event));
  return result < 0 ? Status(Error{static_cast<int>(-result)}) : Status();
}

void answer(int socket, int32_t status, int fd) {
  io::send_with_descriptor(socket, &status, sizeof status, fd, MSG_DONTWAIT);
}

void adopt(OpenFile& file, io::Descriptor socket) {
  Request request;
  bool understood = sys::call(SYS_recvfrom, socket.get(), sys::arg(&request), sizeof request, MSG_DONTWAIT) ==
                        sizeof request &&
                    (request.kind != Request::Kind::end || file.kind() == OpenFile::Kind::socket);
  Status s = understood ? start() : Status(Error{EINVAL});
  if (s.ok() && request.kind == Request::Kind::channel) {
    file.release();
    answer(socket.get(), opening::make_channel());
    return;
  }
  if (!s.ok() || request.kind != Request::Kind::end) {
    file.release();
    if (s.ok())
      wait_for_departure(request, std::move(socket));
    else
      answer(socket.get(), s.code(), -1);
    return;
  }
  answer(socket.get(), provide(static_cast<SocketFile&>(file), request.pid));
}

int kernel_fd() {
  if (server->set) return server->set.get();
  server->set = io::Descriptor(static_cast<int>(sys::call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  io::Descriptor timer(
      static_cast<int>(sys::call(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)));
  (void)io::move_high(server->set);
  (void)io::move_high(timer);
  epoll_event event{};
  event.events = EPOLLIN;
  if (sys::call(SYS_epoll_ctl, server->set.get(), EPOLL_CTL_ADD, timer.get(), sys::arg(&event)) == 0)
    server->timer = std::move(timer);
  return server->set.get();
}

void run(HostLock& lock) {
  forget_orphans();
  if (!server->started) return;
  bool left_over = true;
  for (int turn = 0; turn < kTurns && left_over; ++turn) {
    take_events(lock);
    left_over = serve_due(lock);
  }
  set_timer(left_over ? io::now() : next_retry());
}

void go_on_after_death(bool inside_the_lock) {
  EscapedEnd* half_done = std::exchange(server->serving, nullptr);
  EscapedEnd* next;
  for (EscapedEnd* end = shared_host->escaped.front(); end != nullptr; end = next) {
    next = shared_host->escaped.next(*end);
    if (end == half_done && (inside_the_lock || end->file().keeper_moves()))
      end->give_up();
    else
      end->touch();
  }
}

bool idle() { return shared_host->escaped.empty() && opening::channels() == 0; }

}  // namespace ustack::shim::escape
