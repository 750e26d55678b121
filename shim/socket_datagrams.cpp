// Datagrams in and out of a socket file.
#include <sys/socket.h>

#include <algorithm>

#include "shim/blocker.h"
#include "shim/call.h"
#include "shim/socket_file.h"
#include "stack/socket/datagram_socket.h"

namespace ustack::shim {

namespace {

/// EFAULT.
Status fill(TxFrame& frame, UserBytes& from) {
  for (const Slice& slice : frame.payload())
    if (from.read({slice.data(), slice.length}) != slice.length) return Error{EFAULT};
  return {};
}

}  // namespace

Result<size_t> SocketFile::send_datagram(HostLock& lock, UserBytes& from, int flags, const DatagramOut& how) {
  // Parts that are to be put together (MSG_MORE), and what streams have.
  if ((flags & (MSG_OOB | MSG_MORE | MSG_FASTOPEN | MSG_ZEROCOPY)) != 0) return Error{EOPNOTSUPP};
  DatagramSocket& socket = *socket_->datagrams();
  const size_t bytes = from.left();
  Result<TxFrame*> frame = socket.reserve(bytes);
  if (!frame.ok()) return frame.error();
  if (Status s = unlocked(lock, [&] { return fill(**frame, from); }); !s.ok()) {
    socket.abandon(*frame);
    return s.error();
  }
  if (Status s = socket.send(*frame, how); !s.ok()) return s.error();
  decide();
  return bytes;
}

Result<size_t> SocketFile::receive_datagram(HostLock& lock, UserBytes& to, int flags, Received& received) {
  DatagramSocket& socket = *socket_->datagrams();
  if ((flags & MSG_ERRQUEUE) != 0) return receive_report(lock, to, received);
  const bool waits = !nonblocking() && (flags & MSG_DONTWAIT) == 0;
  Blocker blocker(lock, !waits, socket.receive_timeout());
  Result<Datagram*> taken = Error{EAGAIN};
  while ((taken = socket.take((flags & MSG_PEEK) != 0)).code() == EAGAIN) {
    if (replaced_) return Error{kGoReal};
    if (waits && (socket.readiness() & ready::kRdHup) != 0) return size_t{0};
    if (Status s = blocker.wait(socket.waiters, ready::kIn, true); !s.ok()) return s.error();
  }
  if (!taken.ok()) return taken.error();
  decide();
  Datagram& datagram = **taken;
  const Bytes bytes = datagram.data.bytes();
  const size_t room = std::min<size_t>(to.left(), bytes.size());
  const size_t copied = unlocked(lock, [&] { return to.write(bytes.first(room)); });
  received.datagram =
      DatagramArrival{.source = shown(datagram.source),
                      .destination = datagram.destination,
                      .ttl = datagram.ttl,
                      .tos = datagram.tos,
                      .wishes = socket.wishes(),
                      .wishes6 = dual_stack_ != nullptr ? dual_stack_->wishes() : DatagramWishes{}};
  if (socket.time_stamping().wants_arrivals()) received.arrived = datagram.arrived;
  if (bytes.size() > room) received.message_flags |= MSG_TRUNC;
  const size_t size = bytes.size();
  socket.done(&datagram);
  if (copied < room) return Error{EFAULT};
  return (flags & MSG_TRUNC) != 0 ? size : room;
}

}  // namespace ustack::shim
