#include "shim/escaped_stream.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/epoll_set.h"
#include "shim/escape_server.h"
#include "shim/escaped_name.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim {

namespace {

/// Pieces moved in one turn each way, so that one connection doesn't keep the others waiting.
constexpr int kPiecesPerTurn = 8;
/// Another thread has the turn at the socket's buffer and is about to end it.
constexpr Duration kTurnRetry = 1ms;
/// Relatives that wait for bytes get them first; if they don't come for them, the outer end does.
constexpr Duration kPatience = 100ms;
/// How often it is asked whether who has the outer end is still alive.
constexpr Duration kHolderCheck = 500ms;

/// With this reference the connection is reset, if it is the last.
void reset_if_last(SocketFile& file) {
  if (file.references() != 1) return;
  const linger now{.l_onoff = 1, .l_linger = 0};
  (void)file.socket().set_option(SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&now, 1)));
}

bool nothing_there(int error) { return error == EAGAIN || error == ENOTCONN; }

}  // namespace

EscapedStream::EscapedStream(SocketFile& file, io::Descriptor inner, io::Descriptor outer,
                             const UnixAddress& name)
    : EscapedEnd(file, std::move(outer)), inner_(std::move(inner)) {
  name_ = name;
}

Status EscapedStream::begin() {
  take_name();
  constexpr uint32_t kEvents = ready::kIn | ready::kOut | ready::kRdHup;
  Status s = escape::watch(*this, inner_.get(), kEvents);
  if (!s.ok()) {
    SocketFile& file = file_;
    shared_host->arena->destroy(this);
    file.release();
  }
  return s;
}

Status EscapedStream::begin_connecting(const SocketAddress& remote, bool at_once, io::Descriptor&& request) {
  const SocketAddress shown = file_.shown(remote);
  Result<SocketAddress> local = file_.local_name();
  name_ = escape::next_name(local.ok() ? *local : SocketAddress{shown.address, 0}, shown);
  io::sys::call(SYS_bind, inner_.get(), io::sys::arg(&name_.bytes), static_cast<long>(name_.length));
  connect_ = Connect::under_way;
  if (at_once) {
    fill();
    escape::answer(request.get(), another());
    outer_.reset();
    request.reset();
  }
  Status s = begin();
  if (s.ok()) request_ = std::move(request);
  return s;
}

/// poll(2) says that the outer side is writable when its buffer has room (unix_poll), so it has none.
void EscapedStream::fill() {
  io::sys::fcntl(outer_.get(), F_SETFL, O_RDWR | O_NONBLOCK);
  static constexpr std::byte kFilling[4096]{};
  for (;;) {
    long n = io::sys::call(SYS_sendto, outer_.get(), io::sys::arg(kFilling), sizeof kFilling,
                           MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0) return;
    filling_ += static_cast<size_t>(n);
  }
}

void EscapedStream::drain() {
  char waste[4096];
  while (filling_ > 0) {
    long n = io::sys::call(SYS_recvfrom, inner_.get(), io::sys::arg(waste),
                           static_cast<long>(std::min(sizeof waste, filling_)), MSG_DONTWAIT);
    if (n <= 0) return;
    filling_ -= static_cast<size_t>(n);
  }
}

bool EscapedStream::look_at_connect() {
  if (connect_ == Connect::done) return false;
  if (connect_ == Connect::failed) return true;
  constexpr uint32_t kDecided = ready::kOut | ready::kErr | ready::kHup;
  if ((file_.socket().readiness() & kDecided) == 0) return true;
  if (request_) {
    const Status result = file_.socket().connect_result();
    connect_ = result.ok() ? Connect::done : Connect::failed;
    escape::answer(request_.get(), result.ok() ? another() : result.error());
    request_.reset();
    outer_.reset();
    return connect_ == Connect::failed;
  }
  // The error stays for SO_ERROR.
  connect_ = file_.socket().failed() ? Connect::failed : Connect::done;
  drain();
  if (connect_ == Connect::failed) io::sys::call(SYS_shutdown, inner_.get(), SHUT_WR);
  return connect_ == Connect::failed;
}

void EscapedStream::abandon() {
  SocketFile& file = file_;
  file.end_keepers_turns();
  request_.release();
  inner_.release();
  outer_.release();
  shared_host->arena->destroy(this);
  file.lent_is_settled();
  file.release();
}

void EscapedStream::give_up() {
  SocketFile& file = file_;
  file.end_keepers_turns();
  inner_.reset();
  outer_.reset();
  request_.reset();
  shared_host->arena->destroy(this);
  file.lent_is_settled();
  reset_if_last(file);
  file.release();
}

bool EscapedStream::hung_up() const {
  pollfd item{inner_.get(), POLLIN, 0};
  __kernel_timespec now{};
  return io::sys::ppoll(&item, 1, &now, nullptr) > 0 && (item.revents & POLLHUP) != 0;
}

/// As soon as both addresses are known: getpeername() at the outer end finds them in it.
void EscapedStream::take_name() {
  if (name_.length > 0) return;
  Result<SocketAddress> local = file_.local_name(), remote = file_.remote_name();
  if (!local.ok() || !remote.ok()) return;
  name_ = escape::next_name(*local, *remote);
  io::sys::call(SYS_bind, inner_.get(), io::sys::arg(&name_.bytes), static_cast<long>(name_.length));
}

bool EscapedStream::work(HostLock& lock) {
  if (broken_) {
    if (!is_over()) return true;
    end(lock, false);
    return false;
  }
  if (look_at_connect()) {
    if (!hung_up()) return true;
    end(lock, false);
    return false;
  }
  take_name();
  After out = to_network(lock);
  if (out == After::gone) return false;
  if (broken_) return true;
  if (out == After::nothing && std::exchange(flushing_, false)) file_.lent_is_settled();
  After in = from_network(lock);
  if (in == After::gone) return false;
  if (out == After::more || in == After::more) touch();
  return true;
}

EscapedStream::After EscapedStream::to_network(HostLock& lock) {
  if (writing_ended_) {
    if (!hung_up()) return After::nothing;
    end(lock, false);
    return After::gone;
  }
  for (int pieces = 0; pieces < kPiecesPerTurn; ++pieces) {
    SocketFile::Moved moved = file_.send_from_kernel(lock, inner_.get());
    if (moved.bytes > 0) {
      file_.expect_from_outside();
      continue;
    }
    if (moved.ended && hung_up()) {
      end(lock, false);
      return After::gone;
    }
    if (moved.ended) {  // shutdown(SHUT_WR) by somebody outside
      writing_ended_ = true;
      (void)file_.shutdown(ShutdownHow::write);
      return After::nothing;
    }
    if (moved.kernel_error == ECONNRESET) {
      // Closed with bytes unread. tcp_close(): the peer is told by a reset.
      end(lock, true);
      return After::gone;
    }
    if (moved.error == EBUSY) {
      retry_in(kTurnRetry);
      return After::waits;
    }
    if (moved.error == 0 || nothing_there(moved.error)) return After::nothing;
    // EPIPE or the connection's end: nobody takes what comes from outside.
    return break_off(lock, moved.error);
  }
  return After::more;
}

EscapedStream::After EscapedStream::from_network(HostLock& lock) {
  if (!alone()) return outer_ ? lend(lock) : After::nothing;
  if (outer_) {
    // What is lent belongs to the outer side for good.
    file_.take(std::exchange(lent_, 0));
    outer_.reset();
    EpollSet::forget(file_);
    file_.lent_is_settled();
    return After::more;  // it may have been the last descriptor of the outer end
  }
  return first() ? move(lock) : After::nothing;
}

EscapedStream::After EscapedStream::move(HostLock& lock) {
  if (reading_ended_) return After::nothing;
  for (int pieces = 0; pieces < kPiecesPerTurn; ++pieces) {
    SocketFile::Moved moved = file_.receive_to_kernel(lock, inner_.get(), 0, true);
    if (moved.bytes > 0) continue;
    if (moved.ended) {
      reading_ended_ = true;
      io::sys::call(SYS_shutdown, inner_.get(), SHUT_WR);
      return After::nothing;
    }
    if (moved.kernel_error == EPIPE) {  // shutdown(SHUT_RD), or closed
      reading_ended_ = true;
      if (!hung_up()) (void)file_.shutdown(ShutdownHow::read);
      return After::nothing;
    }
    if (moved.error == EBUSY) retry_in(kTurnRetry);
    if (moved.error == 0 || moved.error == EBUSY || nothing_there(moved.error)) return After::nothing;
    return break_off(lock, moved.error);
  }
  return After::more;
}

void EscapedStream::count_lent() {
  if (lent_ == 0) return;
  int unread = 0;
  if (io::sys::ioctl(outer_.get(), SIOCINQ, &unread) < 0 || unread < 0) return;
  uint32_t taken = lent_ - std::min(lent_, static_cast<uint32_t>(unread));
  if (taken == 0) return;
  file_.take(taken);
  lent_ -= taken;
  back_off_ = kFirstBackOff;
}

void EscapedStream::take_back() {
  char waste[4096];
  uint32_t back = 0;
  while (back < lent_) {
    long n = io::sys::call(SYS_recvfrom, outer_.get(), io::sys::arg(waste),
                           static_cast<long>(std::min<size_t>(sizeof waste, lent_ - back)), MSG_DONTWAIT);
    if (n <= 0) break;
    back += static_cast<uint32_t>(n);
  }
  if (uint32_t taken = lent_ - back; taken > 0) {
    file_.take(taken);
    back_off_ = kFirstBackOff;
  }
  lent_ = 0;
}

EscapedStream::After EscapedStream::lend(HostLock& lock) {
  if (file_.receiving()) {  // a relative copies out of the buffer just now
    retry_in(kTurnRetry);
    return After::nothing;
  }
  count_lent();
  if (std::exchange(recalled_, false)) {
    take_back();
    lend_from_ = io::now() + back_off_;
    back_off_ = std::min(back_off_ * 2, kLongestBackOff);
    file_.lent_is_settled();
  }
  if (holder_is_dead()) {
    leave_to_others();
    return After::nothing;
  }
  retry_in(kHolderCheck);
  if (reading_ended_) return After::nothing;
  if (file_.socket().failed()) return break_off(lock, 0);
  Instant now = io::now();
  if (lent_ == 0 && relatives_wait(ready::kIn)) {
    if (lend_from_ < now - kPatience) lend_from_ = now + kPatience;
  }
  if (now < lend_from_) {
    retry_in(lend_from_ - now);
    return After::nothing;
  }
  for (int pieces = 0; pieces < kPiecesPerTurn; ++pieces) {
    SocketFile::Moved moved = file_.receive_to_kernel(lock, inner_.get(), lent_, false);
    lent_ += static_cast<uint32_t>(moved.bytes);
    if (moved.bytes > 0) {
      count_lent();
      continue;
    }
    if (moved.ended && lent_ == 0) {
      reading_ended_ = true;
      io::sys::call(SYS_shutdown, inner_.get(), SHUT_WR);
    } else if (moved.kernel_error == EPIPE) {
      reading_ended_ = true;
    } else if (moved.error == EBUSY) {
      retry_in(kTurnRetry);
    }
    return After::nothing;
  }
  return After::more;
}

/// Who had the outer end is dead: if nobody else has it, it is seen to be closed now; else it is served again
/// when the relatives have closed theirs.
void EscapedStream::leave_to_others() {
  take_back();
  outer_.reset();
  file_.lent_is_settled();
  touch();
}

/// The connection is gone. A socket pair ends for its other side by ECONNRESET if bytes lie unread in it;
/// with a descriptor of the outer side that can be had. Without, what is read there is the end, until
/// something is written there; a program with the library asks for the error.
EscapedStream::After EscapedStream::break_off(HostLock& lock, int error) {
  if (!outer_) {
    broken_ = true;
    error_ = error == EPIPE ? 0 : error;
    io::sys::call(SYS_shutdown, inner_.get(), SHUT_WR);
    return After::nothing;
  }
  char byte = 0;
  io::sys::call(SYS_sendto, outer_.get(), io::sys::arg(&byte), 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  end(lock, false);
  return After::gone;
}

/// Of one that is broken: there is nothing left to wait for.
bool EscapedStream::is_over() const {
  pollfd item{inner_.get(), POLLIN, 0};
  __kernel_timespec now{};
  return io::sys::ppoll(&item, 1, &now, nullptr) > 0;
}

Status EscapedStream::connect_again() {
  if (connect_ == Connect::under_way) return Error{EALREADY};
  if (connect_ == Connect::failed) {
    const Status result = file_.socket().connect_result();
    return result.ok() ? Error{ECONNABORTED} : result;
  }
  const Result<SocketAddress> remote = file_.remote_name();
  return remote.ok() ? file_.socket().connect(*remote) : remote.status();
}

void EscapedStream::end(HostLock&, bool reset) {
  SocketFile& file = file_;
  if (outer_) take_back();
  inner_.reset();
  shared_host->arena->destroy(this);
  file.lent_is_settled();
  if (reset) reset_if_last(file);
  file.release();
}

}  // namespace ustack::shim
