// Bytes through a socket: reserve or view under the lock, copy without it, commit or consume under it again.
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/uio.h>

#include <algorithm>
#include <climits>

#include "io/syscalls.h"
#include "shim/blocker.h"
#include "shim/extents_iovec.h"
#include "shim/lending.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim {

// After some bytes have been moved an error is left for the next call to find (tcp_sendmsg: "if (copied) goto
// out"): the socket is not asked for more, since asking takes a pending error away.

namespace {
/// Lent at a time: what a send buffer has room for, not what a program asks for.
constexpr size_t kMostLentAtOnce = size_t{1} << 20;
}  // namespace

Status SocketFile::take_turn(Blocker& blocker, Turn& turn) {
  // Whoever has the turn is copying and doesn't wait for anything: this is no reason for EAGAIN.
  while (turn.taken())
    if (Status s = blocker.wait_turn(passed_on_); !s.ok()) return s;
  turn.take(this_claims());
  return {};
}

void SocketFile::end_turn(Turn& turn) {
  turn.end();
  passed_on_.notify(ready::kIn);
}

void SocketFile::end_turns(const Claims& dead) {
  // It was copying: what it had reserved stays empty, what it was looking at is unread.
  if (sending_.of(dead)) {
    socket_->commit_send(0, {});
    end_turn(sending_);
  }
  if (receiving_.of(dead)) {
    socket_->consume(0);
    end_turn(receiving_);
  }
}

template <typename Fill>
Result<size_t> SocketFile::send_from(HostLock& lock, size_t total, int flags, std::optional<uint32_t> stamps,
                                     Fill fill) {
  Blocker blocker(lock, nonblocking() || (flags & MSG_DONTWAIT) != 0, socket_->send_timeout());
  size_t sent = 0;
  auto done = [&] {
    if (sent > 0 && (socket_->tells_of_sends || stamps)) [[unlikely]]
      socket_->sent_message(stamps, (flags & MSG_ZEROCOPY) != 0 ? Copying::copied : Copying::not_asked);
    return sent;
  };
  if (!ends_.empty()) [[unlikely]]
    flush_ends(lock, false);
  look_at_link_now_and_then(lock);
  for (;;) {
    if (Status s = take_turn(blocker, sending_); !s.ok())
      return sent > 0 ? Result<size_t>(done()) : s.error();
    Result<Extents> room = socket_->reserve_send(std::max<size_t>(total - sent, 1));
    if (!room.ok()) {
      sending_.end();  // the lock was not dropped: nobody has begun to wait for the turn
      if (room.code() == EAGAIN) {
        // Nothing to send needs no room, only a connection.
        if (total == 0 && socket_->remote_address().ok()) return size_t{0};
        Status s = blocker.wait(socket_->waiters, ready::kOut);
        if (s.ok() && (sent == 0 || !broken())) continue;
        if (sent > 0) return done();
        return s.error();
      }
      if (sent > 0) return done();
      return refuse_send(lock, room.error(), flags);
    }
    Filled filled;
    if (total > 0) {
      lock.unlock();
      filled = fill(*room);
      lock.lock();
    }
    sent += filled.bytes;
    socket_->commit_send(filled.bytes, {.more = (flags & MSG_MORE) != 0,
                                        .out_of_band = (flags & MSG_OOB) != 0 && sent == total});
    end_turn(sending_);
    if (filled.error != 0 && sent == 0) return Error{filled.error};
    if (filled.error != 0 || filled.ended || sent == total || broken()) return done();
  }
}

Result<size_t> SocketFile::refuse_send(HostLock& lock, Error error, int flags) {
  if (error.code == EPIPE && (flags & MSG_NOSIGNAL) == 0) {
    lock.unlock();
    raise_sigpipe();
    lock.lock();
  }
  return error;
}

/// MSG_ZEROCOPY: the bytes stay where they are until they are acknowledged. Adds to `lent`. EOPNOTSUPP: the
/// rest must be copied.
Status SocketFile::lend(HostLock& lock, UserBytes& from, int flags, size_t& lent) {
  Blocker blocker(lock, nonblocking() || (flags & MSG_DONTWAIT) != 0, socket_->send_timeout());
  if (!ends_.empty()) [[unlikely]]
    flush_ends(lock, false);
  look_at_link_now_and_then(lock);
  while (from.left() > 0) {
    Bytes run = from.run();
    run = run.first(std::min(run.size(), kMostLentAtOnce));
    lock.unlock();
    Status s = run.empty() ? Status(Error{EFAULT}) : lending::check(run);
    lock.lock();
    if (!s.ok()) return s;
    if (s = take_turn(blocker, sending_); !s.ok()) return s;
    const uint64_t lender = lending::lender(*shared_host);
    Result<size_t> n = lender != 0 ? socket_->lend_send(run, {.more = (flags & MSG_MORE) != 0}, lender)
                                   : Result<size_t>(Error{EOPNOTSUPP});
    if (n.ok()) {
      end_turn(sending_);
      from.skip(*n);
      lent += *n;
      if (broken()) return {};
      continue;
    }
    sending_.end();  // as above
    if (n.code() != EAGAIN) return n.error();
    if (s = blocker.wait(socket_->waiters, ready::kOut); !s.ok()) return s;
    if (lent > 0 && broken()) return {};
  }
  return {};
}

Result<size_t> SocketFile::send(HostLock& lock, UserBytes& from, int flags, std::optional<uint32_t> stamps) {
  size_t lent = 0;
  if ((flags & (MSG_ZEROCOPY | MSG_OOB)) == MSG_ZEROCOPY && socket_->tells_of_sends &&
      from.left() >= lending::kLeast) [[unlikely]] {
    Status s = lend(lock, from, flags, lent);
    if (s.code() != EOPNOTSUPP) {
      if (lent == 0) return refuse_send(lock, s.error(), flags);
      socket_->sent_message(stamps, Copying::lent);
      return lent;
    }
    // A send is all lent or all copied, so that its end is known.
    if (lent > 0) socket_->settle_loans();
  }
  Result<size_t> copied = send_from(lock, from.left(), flags, stamps, [&from](Extents& room) {
    Filled filled;
    for (uint32_t i = 0; i < room.count; ++i) {
      size_t n = from.read(room.runs[i]);
      filled.bytes += n;
      if (n < room.runs[i].size()) {
        filled.error = EFAULT;
        break;
      }
    }
    return filled;
  });
  if (lent == 0) return copied;
  if (!copied.ok()) socket_->sent_message(stamps, Copying::copied);
  return lent + (copied.ok() ? *copied : 0);
}

Result<size_t> SocketFile::send_fast_open(HostLock& lock, UserBytes& from, int flags,
                                          const SocketAddress& remote) {
  // With a cookie for the peer the data goes into the SYN, without one after the handshake
  // (tcp_sendmsg_fastopen). Where a non-blocking one has to wait for that, it says EINPROGRESS.
  bool wait = !nonblocking() && (flags & MSG_DONTWAIT) == 0;
  Status s = begin_connect(remote, true);
  if (s.code() == EINPROGRESS) {
    connecting_ = connected_before_ = true;
    s = wait ? wait_for_connection(lock, EINPROGRESS) : s;
  }
  if (!s.ok()) return s.error();
  return send(lock, from, flags);
}

/// What a read that has filled some of the buffer came to, as the kernel returns it.
SocketFile::Filled SocketFile::filled_by(long n) {
  if (n < 0) return {.error = static_cast<int>(-n)};
  return {.bytes = static_cast<size_t>(n), .ended = n == 0};
}

Result<size_t> SocketFile::send_file(HostLock& lock, int in, off64_t* offset, size_t bytes) {
  return send_from(lock, bytes, 0, std::nullopt, [in, offset](Extents& room) {
    iovec parts[Extents::kMax];
    const long count = to_iovec(room, room.bytes, parts);
    long n = offset != nullptr
                 ? io::sys::call(SYS_preadv, in, io::sys::arg(parts), count, static_cast<long>(*offset))
                 : io::sys::call(SYS_readv, in, io::sys::arg(parts), count);
    if (n > 0 && offset != nullptr) *offset += n;
    return filled_by(n);
  });
}

namespace {

constexpr long kNoOffset = -1;

long read_from_pipe(int pipe, const iovec* parts, uint32_t count) {
  // Whoever else reads it must not make us wait.
  const long n =
      io::sys::call(SYS_preadv2, pipe, io::sys::arg(parts), count, kNoOffset, kNoOffset, RWF_NOWAIT);
  if (n != -EOPNOTSUPP) return n;
  return io::sys::call(SYS_readv, pipe, io::sys::arg(parts), count);
}

long write_to_pipe(int pipe, const iovec* parts, uint32_t count) {
  const long n =
      io::sys::call(SYS_pwritev2, pipe, io::sys::arg(parts), count, kNoOffset, kNoOffset, RWF_NOWAIT);
  if (n != -EOPNOTSUPP) return n;
  if ((io::sys::fcntl(pipe, F_GETFL) & O_NONBLOCK) != 0)
    return io::sys::call(SYS_writev, pipe, io::sys::arg(parts), count);
  // Before Linux 6.4 a pipe can't be asked not to wait, but what is writable has room for a page (pipe(7)).
  pollfd room{.fd = pipe, .events = POLLOUT, .revents = 0};
  timespec now{};
  if (io::sys::call(SYS_ppoll, io::sys::arg(&room), 1, io::sys::arg(&now), 0, 0) <= 0) return -EAGAIN;
  return io::sys::write(pipe, parts->iov_base, std::min<size_t>(parts->iov_len, PIPE_BUF));
}

}  // namespace

Result<size_t> SocketFile::splice_from_pipe(HostLock& lock, int pipe, size_t bytes, bool more) {
  return send_from(lock, bytes, more ? MSG_MORE : 0, std::nullopt, [pipe](Extents& room) {
    iovec parts[Extents::kMax];
    const long n = read_from_pipe(pipe, parts, to_iovec(room, room.bytes, parts));
    return filled_by(n == -EAGAIN ? -kPipeBusy : n);
  });
}

Result<size_t> SocketFile::splice_to_pipe(HostLock& lock, int pipe, size_t bytes) {
  Blocker blocker(lock, nonblocking(), socket_->receive_timeout());
  for (;;) {
    if (Status s = take_turn(blocker, receiving_); !s.ok()) return s.error();
    if (lends()) [[unlikely]] {
      end_turn(receiving_);
      if (Status s = wait_for_return(lock); !s.ok()) return s.error();
      continue;
    }
    Result<Extents> view = socket_->view_receive(bytes, 0);
    if (!view.ok()) {
      receiving_.end();  // as above
      if (view.code() != EAGAIN) return view.error();
      if (Status s = blocker.wait(socket_->waiters, ready::kIn); !s.ok()) return s.error();
      continue;
    }
    long n = 0;
    if (view->bytes > 0) {
      iovec parts[Extents::kMax];
      const uint32_t count = to_iovec(*view, bytes, parts);
      lock.unlock();
      n = write_to_pipe(pipe, parts, count);
      lock.lock();
    }
    socket_->consume(n > 0 ? static_cast<size_t>(n) : 0);
    end_turn(receiving_);
    if (n >= 0) return static_cast<size_t>(n);
    return Error{n == -EAGAIN ? kPipeBusy : static_cast<int>(-n)};
  }
}

Result<size_t> SocketFile::receive_urgent(HostLock& lock, UserBytes& to, int flags, int* message_flags) {
  Result<std::byte> urgent = socket_->receive_urgent((flags & MSG_PEEK) != 0);
  if (!urgent.ok()) return urgent.error();
  *message_flags |= MSG_OOB;
  if (to.left() == 0) {
    *message_flags |= MSG_TRUNC;
    return size_t{0};
  }
  if ((flags & MSG_TRUNC) == 0) {
    lock.unlock();
    size_t n = to.write({&*urgent, 1});
    lock.lock();
    if (n == 0) return Error{EFAULT};
  }
  return size_t{1};
}

SocketFile::Received::~Received() {
  if (report) this_claims()->payload = Slice();
}

/// ip_recv_error.
Result<size_t> SocketFile::receive_report(HostLock& lock, UserBytes& to, Received& received) {
  Claims* claims = this_claims();
  if (claims == nullptr) return Error{ENOMEM};
  received.report = socket_->take_report();
  if (!received.report) return Error{EAGAIN};  // it never waits
  received.message_flags |= MSG_ERRQUEUE;
  claims->payload = std::move(received.report->payload);
  Bytes payload = received.payload = claims->payload.bytes();
  if (payload.size() > to.left()) {
    received.message_flags |= MSG_TRUNC;
    payload = payload.first(to.left());
  }
  lock.unlock();
  const size_t n = to.write(payload);
  lock.lock();
  return n == payload.size() ? Result<size_t>(n) : Error{EFAULT};
}

Result<size_t> SocketFile::receive(HostLock& lock, UserBytes& to, int flags, Received& received) {
  if ((flags & MSG_ERRQUEUE) != 0) return receive_report(lock, to, received);
  if ((flags & MSG_OOB) != 0) return receive_urgent(lock, to, flags, &received.message_flags);
  const bool peek = (flags & MSG_PEEK) != 0;
  const bool wants_arrivals = socket_->time_stamping().wants_arrivals();
  const size_t want = to.left();
  // sock_rcvlowat
  const size_t low_water = std::min<size_t>(socket_->receive_low_water(), want);
  const size_t target = std::max<size_t>((flags & MSG_WAITALL) != 0 ? want : low_water, 1);
  Blocker blocker(lock, nonblocking() || (flags & MSG_DONTWAIT) != 0, socket_->receive_timeout());
  size_t copied = 0;
  const size_t start = peek ? static_cast<size_t>(std::max(socket_->peek_offset(), 0)) : 0;
  // SO_PEEK_OFF (socket(7)): a peek goes on where the last one ended; what is read moves that back.
  auto move_peek_offset = [&](size_t n) {
    const int offset = socket_->peek_offset();
    if (offset < 0) [[likely]]
      return;
    const int moved = static_cast<int>(std::min<size_t>(n, INT_MAX / 2));
    socket_->set_peek_offset(peek ? std::min(offset, INT_MAX / 2) + moved : std::max(offset - moved, 0));
  };
  for (;;) {
    if (Status s = take_turn(blocker, receiving_); !s.ok())
      return copied > 0 ? Result<size_t>(copied) : s.error();
    if (lends()) [[unlikely]] {
      end_turn(receiving_);
      if (Status s = wait_for_return(lock); !s.ok()) return copied > 0 ? Result<size_t>(copied) : s.error();
      continue;
    }
    const size_t asked = std::max<size_t>(want - copied, 1);
    Result<Extents> view = socket_->view_receive(asked, peek ? start + copied : 0);
    if (!view.ok()) {
      receiving_.end();  // as above; telling the others of it would have all of them go round for ever
      if (view.code() == EAGAIN && copied < target) {
        Status s = blocker.wait(socket_->waiters, ready::kIn);
        if (s.ok() && (copied == 0 || !socket_->failed())) continue;
        if (copied == 0) return s.error();
      }
      if (copied > 0) return copied;
      return view.error();
    }
    const size_t there = std::min(view->bytes, want - copied);
    size_t n = 0;
    if (there > 0 && (flags & MSG_TRUNC) != 0) {
      to.skip(there);
      n = there;
    } else if (there > 0) {
      lock.unlock();
      for (uint32_t i = 0; i < view->count && n < there; ++i) {
        Bytes run = Bytes(view->runs[i]).first(std::min(view->runs[i].size(), there - n));
        // As Linux counts: what came in one piece is taken whole or not at all.
        if (to.write(run) < run.size()) break;
        n += run.size();
      }
      lock.lock();
    }
    if (n > 0 && wants_arrivals) [[unlikely]]
      received.arrived = socket_->arrived_at((peek ? start + copied : 0) + n - 1);
    socket_->consume(peek ? 0 : n);
    move_peek_offset(n);
    end_turn(receiving_);
    copied += n;
    if (n < there) return copied > 0 ? Result<size_t>(copied) : Error{EFAULT};
    const bool more_there = view->full() && view->bytes < asked;
    if (view->bytes == 0 || copied >= want || (copied >= target && !more_there)) return copied;
    if (socket_->failed()) return copied;
    // A read stops at the urgent mark (tcp(7)).
    if (Result<int> mark = socket_->ioctl_value(SIOCATMARK); mark.ok() && *mark != 0) return copied;
  }
}

}  // namespace ustack::shim
