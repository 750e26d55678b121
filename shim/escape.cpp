// The program's side of escape.h: asks the keeper for ends and puts them on numbers.
#include "shim/escape.h"

#include <poll.h>
#include <sys/socket.h>

#include <utility>

#include "io/clock.h"
#include "io/descriptor_message.h"
#include "io/syscalls.h"
#include "shim/call.h"
#include "shim/escape_server.h"
#include "shim/keeper.h"
#include "shim/kernel_socket.h"
#include "shim/process.h"
#include "shim/shared_host.h"

namespace ustack::shim::escape {

namespace {

namespace sys = io::sys;

/// A keeper that is there answers within this time, on a machine that does other things too.
constexpr Duration kAnswerLimit = 10s;
/// Its mailbox is full: it is looked at again.
constexpr int kDeliveries = 1000;
constexpr __kernel_timespec kDeliveryPause{0, 2'000'000};

/// Puts `request` before the keeper. Our end of its socket.
Result<io::Descriptor> put_before_keeper(HostLock& lock, OpenFile& file, const Request& request) {
  lock.unlock();
  bool there = keeper::serves();
  lock.lock();
  if (!there) return Error{ESRCH};
  for (int delivery = 0;; ++delivery) {
    int ends[2];
    long result = sys::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sys::arg(ends));
    if (result < 0) return Error{static_cast<int>(-result)};
    io::Descriptor ours(ends[0]), keepers(ends[1]);
    sys::call(SYS_sendto, ours.get(), sys::arg(&request), sizeof request, MSG_NOSIGNAL);
    file.reference();
    Status s = keeper::hand_over(file, std::move(keepers));
    if (s.ok()) return ours;
    file.release();
    if (s.code() != EAGAIN || delivery == kDeliveries) return s.error();
    lock.unlock();
    sys::nanosleep(&kDeliveryPause);
    lock.lock();
  }
}

/// The keeper's answer: an errno, or what it has sent (no descriptor where it sends none). Without the lock.
Result<io::Descriptor> answer_of(const io::Descriptor& socket) {
  const Instant limit = io::now() + kAnswerLimit;
  for (;;) {
    pollfd item{socket.get(), POLLIN, 0};
    Duration left = limit - io::now();
    if (left <= Duration(0)) return Error{ETIMEDOUT};
    __kernel_timespec time{left / 1s, (left % 1s).count()};
    if (sys::ppoll(&item, 1, &time, nullptr) > 0) break;
  }
  int32_t status = 0;
  io::Descriptor end;
  // Less than a whole answer: it has died over it.
  if (io::receive_with_descriptor(socket.get(), &status, sizeof status, end, MSG_DONTWAIT) != sizeof status)
    return Error{ESRCH};
  if (status != 0) return Error{status};
  return end;
}

/// The request and its answer.
Result<io::Descriptor> ask(HostLock& lock, OpenFile& file, const Request& request) {
  Result<io::Descriptor> socket = put_before_keeper(lock, file, request);
  if (!socket.ok()) return socket;
  return unlocked(lock, [&] { return answer_of(*socket); });
}

}  // namespace

static bool is_bound_datagram_socket(SocketFile& file) {
  if (!file.has_datagrams()) return false;
  const Result<SocketAddress> local = file.local_name();
  return local.ok() && local->port != 0;
}

Result<io::Descriptor> end_of(HostLock& lock, SocketFile& file) {
  if (file.unused() && !is_bound_datagram_socket(file)) return open_kernel_socket(file);
  if (file.has_datagrams()) {
    shared_host->host->log()(LogLevel::warning, [](LogLine& line) {
      line << "a UDP socket is of no use to programs outside of the library that are given it";
    });
    return Error{EOPNOTSUPP};
  }
  Request request{.kind = Request::Kind::end, .pid = Process::id()};
  Result<io::Descriptor> end = ask(lock, file, request);
  if (end.ok() && !*end) return Error{EMFILE};  // received, but there was no number for it
  return end;
}

void in_place(int fd) {
  HostLock lock;
  OpenFile* file = FdTable::look(fd);
  if (file == nullptr || file->kind() != OpenFile::Kind::socket) return;
  Held held(*file);
  auto& socket = static_cast<SocketFile&>(*file);
  if (socket.unused() && !is_bound_datagram_socket(socket)) {
    (void)become_kernel_socket(socket, fd);
    return;
  }
  Result<io::Descriptor> end = end_of(lock, socket);
  if (end.ok()) put_on_all_numbers(socket, end->get());
}

Result<io::Descriptor> watch_departure(HostLock& lock, OpenFile& file, Attachment& attachment) {
  Request request{.kind = Request::Kind::departure,
                  .pid = Process::id(),
                  .attachment = &attachment,
                  .serial = attachment.serial,
                  .departure = ++shared_host->last_departure};
  attachment.departure = request.departure;
  Result<io::Descriptor> socket = put_before_keeper(lock, file, request);
  if (socket.ok()) {
    Result<io::Descriptor> answer = unlocked(lock, [&] { return answer_of(*socket); });
    if (!answer.ok()) socket = answer.error();
  }
  if (!socket.ok()) attachment.departure = 0;
  return socket;
}

Result<io::Descriptor> open_channel(HostLock& lock, OpenFile& file) {
  Request request{.kind = Request::Kind::channel, .pid = Process::id()};
  Result<io::Descriptor> channel = ask(lock, file, request);
  if (channel.ok() && (!*channel || !io::move_high(*channel).ok())) return Error{EMFILE};
  return channel;
}

}  // namespace ustack::shim::escape
