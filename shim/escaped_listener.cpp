#include "shim/escaped_listener.h"

#include <poll.h>
#include <sys/socket.h>

#include <utility>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/escape_server.h"
#include "shim/escaped_stream.h"
#include "shim/escaped_twin.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim {

namespace {

/// A relative that waits for connections gets them first; with nobody waiting it may be about to.
constexpr Duration kPatience = 100ms, kPause = 20ms;
/// How often it is asked whether an offer was accepted, whether the outer listener is still open (the kernel
/// tells neither), and whether its full queue has room.
constexpr Duration kAcceptCheck = 1ms, kOpenCheck = 200ms, kFullRetry = 5ms;
/// Passed on in one turn.
constexpr int kPerTurn = 16;

}  // namespace

EscapedListener::EscapedListener(SocketFile& file, io::Descriptor outer, const UnixAddress& name)
    : EscapedEnd(file, std::move(outer)) {
  name_ = name;
}

void EscapedListener::have_twin(io::Descriptor listener) {
  const Result<SocketAddress> local = file_.local_name();
  if (local.ok() && twin_ == nullptr) twin_ = EscapedTwin::make(std::move(listener), name_, *local);
}

/// A name is free again when its socket is gone.
bool EscapedListener::outer_listens() const {
  io::Descriptor probe(static_cast<int>(io::sys::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  return !probe || io::sys::call(SYS_bind, probe.get(), io::sys::arg(&name_.bytes),
                                 static_cast<long>(name_.length)) == -EADDRINUSE;
}

bool EscapedListener::offer_waits() const {
  pollfd item{outer_.get(), POLLIN, 0};
  __kernel_timespec now{};
  return io::sys::ppoll(&item, 1, &now, nullptr) > 0 && (item.revents & POLLIN) != 0;
}

Result<EscapedListener::Connected> EscapedListener::connect(SocketFile& connection) {
  long fd = io::sys::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Error{static_cast<int>(-fd)};
  Connected made;
  made.inner = io::Descriptor(static_cast<int>(fd));
  Result<SocketAddress> local = connection.local_name(), remote = connection.remote_name();
  if (local.ok() && remote.ok()) {
    made.name = escape::next_name(*local, *remote);
    io::sys::call(SYS_bind, made.inner.get(), io::sys::arg(&made.name.bytes),
                  static_cast<long>(made.name.length));
  }
  long result = io::sys::call(SYS_connect, made.inner.get(), io::sys::arg(&name_.bytes),
                              static_cast<long>(name_.length));
  if (result < 0) return Error{static_cast<int>(-result)};
  return made;
}

void EscapedListener::start_moving(SocketFile& connection, Connected&& connected) {
  auto* stream = shared_host->arena->create<EscapedStream>(connection, std::move(connected.inner),
                                                           io::Descriptor(), connected.name);
  if (stream == nullptr)
    connection.release();
  else
    (void)stream->begin();
}

bool EscapedListener::work(HostLock& lock) {
  flushing_ = false;  // nothing is written to a listener
  if (!alone() && outer_) {
    offer(lock);
    return true;
  }
  if (offered_ != nullptr) {
    start_moving(*std::exchange(offered_, nullptr), std::move(offered_to_));
    lent_ = 0;
  }
  outer_.reset();
  if (!alone() || !first()) {  // relatives serve it, or another end
    retry_in(kOpenCheck);
    if (outer_listens()) return true;
    end(lock, false);
    return false;
  }
  return pass_on_all(lock);
}

bool EscapedListener::take_one() {
  Result<SocketFile*> connection = file_.accept_now();
  if (connection.ok()) taken_ = *connection;
  return connection.ok();
}

bool EscapedListener::pass_on_all(HostLock& lock) {
  retry_in(kOpenCheck);
  if (!outer_listens()) {
    end(lock, false);
    return false;
  }
  for (int passed = 0; passed < kPerTurn; ++passed) {
    if (!take_one()) return true;
    Result<Connected> connected = connect(*taken_);
    if (connected.ok()) {
      start_moving(*std::exchange(taken_, nullptr), std::move(*connected));
      continue;
    }
    file_.put_back(std::exchange(taken_, nullptr));
    ignore_own_events();
    retry_in(kFullRetry);
    return true;
  }
  touch();
  return true;
}

void EscapedListener::look_after_offer() {
  if (offered_ == nullptr) return;
  if (!offer_waits()) {
    lent_ = 0;
    back_off_ = kFirstBackOff;
    start_moving(*std::exchange(offered_, nullptr), std::move(offered_to_));
  } else if (recalled_ || holder_is_dead()) {
    take_back();
    lend_from_ = io::now() + back_off_;
    back_off_ = std::min(back_off_ * 4, kLongestBackOff * 10);
  }
}

void EscapedListener::take_back() {
  long fd = io::sys::call(SYS_accept4, outer_.get(), 0, 0, SOCK_CLOEXEC);
  lent_ = 0;
  SocketFile& connection = *std::exchange(offered_, nullptr);
  if (fd < 0) {  // accepted outside in this very moment
    start_moving(connection, std::move(offered_to_));
    return;
  }
  io::sys::close(static_cast<int>(fd));
  offered_to_.inner.reset();
  file_.put_back(&connection);
}

void EscapedListener::offer(HostLock&) {
  look_after_offer();
  recalled_ = false;
  file_.lent_is_settled();
  if (offered_ != nullptr) {
    retry_in(kAcceptCheck);
    return;
  }
  if (holder_is_dead()) {
    outer_.reset();
    touch();
    return;
  }
  retry_in(kOpenCheck);
  if ((file_.readiness() & ready::kIn) == 0) {
    waiting_since_ = kNever;
    return;
  }
  Instant now = io::now();
  if (waiting_since_ == kNever) waiting_since_ = now;
  Instant due = std::max(lend_from_, waiting_since_ + (relatives_wait(ready::kIn) ? kPatience : kPause));
  if (now < due) {
    retry_in(due - now);
    return;
  }
  if (!take_one()) return;
  Result<Connected> connected = connect(*taken_);
  if (!connected.ok()) {
    file_.put_back(std::exchange(taken_, nullptr));
    ignore_own_events();
    return;
  }
  offered_ = std::exchange(taken_, nullptr);
  offered_to_ = std::move(*connected);
  lent_ = 1;
  // Nobody else came for this one; the next need not wait as long.
  waiting_since_ = now - kPause;
  retry_in(kAcceptCheck);
}

void EscapedListener::abandon() {
  SocketFile& file = file_;
  outer_.release();
  offered_to_.inner.release();
  EscapedTwin::abandon(twin_);
  if (offered_ != nullptr) file.put_back(std::exchange(offered_, nullptr));
  shared_host->arena->destroy(this);
  file.lent_is_settled();
  file.release();
}

void EscapedListener::give_up() {
  // Inside the lock it may have died at any instruction: it is believed only what still holds.
  SocketFile* taken = std::exchange(taken_, nullptr);
  for (OpenFile& file : shared_host->files) {
    if (&file != taken) continue;
    if (file.references() == 1 && taken->socket_if_any() != nullptr) file_.put_back(taken);
    break;
  }
  touch();
}

void EscapedListener::end(HostLock&, bool) {
  SocketFile& file = file_;
  EscapedTwin::destroy(twin_);
  shared_host->arena->destroy(this);
  file.release();
}

}  // namespace ustack::shim
