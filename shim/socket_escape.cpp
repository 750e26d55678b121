// A socket's side of its ends outside of the library (escape.h).
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <algorithm>
#include <utility>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/escaped_end.h"
#include "shim/extents_iovec.h"
#include "shim/socket_file.h"

namespace ustack::shim {

namespace {

/// Moved in one step.
constexpr size_t kPiece = 64 * 1024;
/// A keeper that doesn't give back what is lent within this time isn't there any more.
constexpr Duration kReturnLimit = 2s;

}  // namespace

SocketFile::Moved SocketFile::send_from_kernel(HostLock& lock, int from) {
  if (sending_.taken()) return {.error = EBUSY};
  int waiting = 0;
  (void)io::sys::ioctl(from, FIONREAD, &waiting);
  // With nothing there the read below says whether more will come.
  const size_t want = std::clamp<size_t>(static_cast<size_t>(std::max(waiting, 1)), 1, kPiece);
  Result<Extents> room = socket_->reserve_send(want);
  if (!room.ok()) {
    if (waiting > 0) return {.error = room.code()};
    // No room is needed to see the end.
    char none;
    long n = io::sys::call(SYS_recvfrom, from, io::sys::arg(&none), 1, MSG_PEEK | MSG_DONTWAIT);
    // What the connection has ended by is told once only: here.
    const bool no_more_to_tell = n == 0 || room.code() == EAGAIN || room.code() == EPIPE;
    return {.error = no_more_to_tell ? 0 : room.code(),
            .kernel_error = n < 0 && n != -EAGAIN ? static_cast<int>(-n) : 0,
            .ended = n == 0};
  }
  iovec parts[Extents::kMax];
  uint32_t count = to_iovec(*room, want, parts);
  sending_.take_for_keeper();
  lock.unlock();
  long n = io::sys::call(SYS_readv, from, io::sys::arg(parts), static_cast<long>(count));
  lock.lock();
  socket_->commit_send(n > 0 ? static_cast<size_t>(n) : 0, {});
  end_turn(sending_);
  if (n > 0) return {.bytes = static_cast<size_t>(n)};
  return {.kernel_error = n < 0 && n != -EAGAIN && n != -EINTR ? static_cast<int>(-n) : 0, .ended = n == 0};
}

SocketFile::Moved SocketFile::receive_to_kernel(HostLock& lock, int to, size_t offset, bool take) {
  if (receiving_.taken()) return {.error = EBUSY};
  Result<Extents> view = socket_->view_receive(kPiece, offset);
  if (!view.ok()) return {.error = view.code()};
  if (view->bytes == 0) {
    socket_->consume(0);
    return {.ended = true};
  }
  iovec parts[Extents::kMax];
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = to_iovec(*view, kPiece, parts);
  receiving_.take_for_keeper();
  lock.unlock();
  long n = io::sys::sendmsg(to, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  lock.lock();
  socket_->consume(take && n > 0 ? static_cast<size_t>(n) : 0);
  end_turn(receiving_);
  if (n > 0) return {.bytes = static_cast<size_t>(n)};
  return {.kernel_error = n < 0 && n != -EAGAIN ? static_cast<int>(-n) : 0};
}

void SocketFile::end_keepers_turns() {
  if (sending_.keepers()) {
    socket_->commit_send(0, {});
    end_turn(sending_);
  }
  if (receiving_.keepers()) {
    socket_->consume(0);
    end_turn(receiving_);
  }
}

void SocketFile::take(size_t bytes) { socket_->consume(bytes); }

Result<SocketFile*> SocketFile::accept_now() {
  Result<Accepted> accepted = accept_from_stack(0);
  return accepted.ok() ? Result<SocketFile*>(accepted->file) : accepted.error();
}

void SocketFile::add_end(EscapedEnd& end) {
  ends_.push_back(end);
  ++end_count_;
}

void SocketFile::remove_end(EscapedEnd& end) {
  ends_.remove(end);
  --end_count_;
}

void SocketFile::left_to_ends() {
  for (EscapedEnd& end : ends_) end.touch();
}

bool SocketFile::lends() {
  for (EscapedEnd& end : ends_)
    if (end.lends()) return true;
  return false;
}

void SocketFile::flush_ends(HostLock& lock, bool always) {
  constexpr uint32_t kIdleFlushes = 100, kEvery = 256;
  if (ends_.empty() || (++idle_flushes_ > kIdleFlushes && idle_flushes_ % kEvery != 0 && !always)) return;
  for (EscapedEnd& end : ends_) end.flush();
  Wait wait;
  const Instant limit = io::now() + kReturnLimit;
  auto flushing = [this] {
    for (EscapedEnd& end : ends_)
      if (end.flushing()) return true;
    return false;
  };
  while (flushing() && io::now() < limit) {
    if (!wait.on(passed_on_, ready::kIn).ok()) return;
    (void)wait.sleep(lock, {.deadline = limit});
  }
}

Status SocketFile::wait_for_return(HostLock& lock) {
  Wait wait;
  const Instant limit = io::now() + kReturnLimit;
  while (lends()) {
    if (io::now() >= limit) return Error{EIO};
    for (EscapedEnd& end : ends_)
      if (end.lends()) end.recall();
    if (Status s = wait.on(passed_on_, ready::kIn); !s.ok()) return s;
    (void)wait.sleep(lock, {.deadline = limit});
  }
  return {};
}

}  // namespace ustack::shim
