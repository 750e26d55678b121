// The seam between the shim and the transports: a socket as the socket API sees it, without descriptors,
// threads or user memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "stack/base/bytes.h"
#include "stack/base/result.h"
#include "stack/base/time.h"
#include "stack/mem/not_on_heap.h"
#include "stack/net/address.h"
#include "stack/socket/report.h"
#include "stack/socket/wait_queue.h"

namespace ustack {

class DatagramSocket;
class Host;

/// How shutdown(2) closes; values of SHUT_RD, SHUT_WR, SHUT_RDWR.
enum class ShutdownHow : uint8_t { read = 0, write = 1, both = 2 };

/// Room for (or a view of) up to kMax runs of bytes inside the socket's buffers.
struct Extents {
  static constexpr size_t kMax = 16;
  std::array<MutableBytes, kMax> runs;
  uint32_t count = 0;
  /// Sum of the runs' lengths.
  size_t bytes = 0;
  void add(MutableBytes run) {
    runs[count++] = run;
    bytes += run.size();
  }
  bool full() const { return count == kMax; }
};

/// Flags of a send, from MSG_*.
struct SendFlags {
  bool more = false;         // MSG_MORE: hold a partial segment back (TCP_CORK for this call)
  bool out_of_band = false;  // MSG_OOB: the last byte is urgent
};

/// What became of MSG_ZEROCOPY in a send.
enum class Copying : uint8_t {
  not_asked,  ///< It wasn't given.
  copied,     ///< All of its bytes were copied nevertheless.
  lent,       ///< Its last bytes are lent (lend_send), and perhaps all of them.
};

/// One socket. Every call is made under the host's lock, returns at once, and yields an errno of the man page
/// named; EAGAIN where a blocking call would wait. The shim waits through `waiters` and calls again.
///
/// Bytes are moved in two steps so that no user memory is touched under the lock: reserve_send, copy without
/// the lock, commit_send; or view_receive, copy without the lock, consume. A reservation or view is
/// exclusive: until it is ended others get EAGAIN from the same call, and waiters are told when it ends. What
/// it refers to stays valid until it is ended, whatever the peer does, also when the connection is reset
/// meanwhile.
class Socket : public NotOnHeap {
 public:
  /// For the search for sockets that nobody has (tcp::Protocol::release_lost): somebody has it.
  bool owned = false;
  /// Each send that has taken bytes is to be told of: sent_message().
  bool tells_of_sends = false;

  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  Host& host() { return host_; }
  /// IPPROTO_TCP, ...
  virtual int protocol() const = 0;
  /// What it is if it is one of datagrams, whose bytes don't go by the calls below; else nullptr.
  virtual DatagramSocket* datagrams() { return nullptr; }

  virtual Status bind(const SocketAddress& local) = 0;  ///< bind(2)
  /// connect(2). Starts the connection and returns EINPROGRESS; EALREADY while under way, EISCONN once
  /// connected (the first call after success of a blocking wait is answered by connect_result()).
  virtual Status connect(const SocketAddress& remote) = 0;
  /// Where the host has shards (stack/shards.h): the socket to connect in place of this one, which is this
  /// one or has taken over all that it had in the shard that the connection will be in: then this one is
  /// gone. nullptr: no memory, and it is as it was.
  /// `elsewhere`: connect() has said EADDRNOTAVAIL; unless it is bound there may be a port in the next shard.
  virtual Socket* to_connect(const SocketAddress& /*remote*/, bool /*elsewhere*/) { return this; }
  /// sendmsg(2) with MSG_FASTOPEN: as connect(), but success at once where data may travel in the first
  /// segment: then nothing is sent until commit_send() brings it. EOPNOTSUPP: not this protocol.
  virtual Status connect_with_data(const SocketAddress&) { return Error{EOPNOTSUPP}; }
  /// What a connect that was under way came to: EINPROGRESS while it is, success, or its error, once.
  virtual Status connect_result() = 0;
  virtual Status listen(int backlog) = 0;  ///< listen(2); again to change the backlog
  /// accept(2): a connection, whose reference passes to the caller.
  virtual Result<Socket*> accept() = 0;
  /// The same with the lock of one shard (stack/shards.h) held alone: one of its connections. EAGAIN: it has
  /// none, or another's is to be accepted first.
  virtual Result<Socket*> accept_in_shard(uint8_t /*shard*/) { return Error{EOPNOTSUPP}; }
  virtual Status shutdown(ShutdownHow how) = 0;  ///< shutdown(2)
  /// The last descriptor is gone (close(2)): orderly release, or reset as SO_LINGER and unread data demand.
  /// The socket frees itself when the protocol has ended; the caller must not use it again.
  virtual void release() = 0;
  /// A close() that must linger (SO_LINGER with time): true when there is nothing left to wait for.
  virtual bool lingering_done() const = 0;

  /// Room for up to `want` bytes in the send buffer (at least 1 byte, else EAGAIN); EPIPE, ENOTCONN, or a
  /// pending error. MSG_OOB and others in `flags` are handed to commit_send.
  virtual Result<Extents> reserve_send(size_t want) = 0;
  /// The first n bytes of the room are filled; n may be 0 (nothing was copied). Queues them and lets the
  /// protocol send.
  virtual void commit_send(size_t n, SendFlags flags) = 0;
  /// MSG_ZEROCOPY: queues bytes of the program's without copying them and lets the protocol send; they are in
  /// the memory of `lender` (stack/mem/loan.h), which must keep them as they are until sent_message()'s
  /// report says that they are its own again. Returns how many. Errors of reserve_send, and EOPNOTSUPP where
  /// they must be copied: this protocol, state or link needs to read them itself.
  virtual Result<size_t> lend_send(Bytes, SendFlags, uint64_t /*lender*/) { return Error{EOPNOTSUPP}; }
  /// Copies what was lent and is queued still (before the lender ends or shares its host).
  virtual void settle_loans() {}
  /// The next bytes of the stream, at most `want`, skipping `offset` of them (MSG_PEEK over several calls).
  /// bytes == 0 is the end of the stream. EAGAIN, ENOTCONN, ECONNRESET, ...
  virtual Result<Extents> view_receive(size_t want, size_t offset) = 0;
  /// Takes n bytes off the stream (0 for a peek) and ends the view.
  virtual void consume(size_t n) = 0;
  /// recv(MSG_OOB): the urgent byte. EINVAL if there is none or SO_OOBINLINE is set; EAGAIN if not yet there.
  virtual Result<std::byte> receive_urgent(bool peek) = 0;

  /// Bits of ready:: that are true now, as Linux's tcp_poll computes them.
  virtual uint32_t readiness() const = 0;
  virtual Result<SocketAddress> local_address()
      const = 0;  ///< getsockname(2); unspecified address before bind
  virtual Result<SocketAddress> remote_address() const = 0;  ///< getpeername(2); ENOTCONN
  /// setsockopt(2) for levels SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP with the values and errnos of Linux.
  virtual Status set_option(int level, int name, Bytes value) = 0;
  /// getsockopt(2): writes at most out.size() bytes and returns how many.
  virtual Result<size_t> get_option(int level, int name, MutableBytes out) = 0;
  /// ioctl(2) requests FIONREAD (SIOCINQ), SIOCOUTQ (TIOCOUTQ), SIOCOUTQNSD, SIOCATMARK: the int they report.
  virtual Result<int> ioctl_value(unsigned long request) = 0;
  /// Smallest number of bytes a blocking recv waits for (SO_RCVLOWAT) and time limits of blocking calls
  /// (SO_RCVTIMEO, SO_SNDTIMEO; zero: none). The stack stores them, the shim honours them.
  virtual uint32_t receive_low_water() const = 0;
  virtual Duration receive_timeout() const = 0;
  virtual Duration send_timeout() const = 0;
  /// TCP_INQ: recvmsg(2) tells how many bytes are left, as ancillary data.
  virtual bool tells_unread() const { return false; }
  /// SO_PEEK_OFF: where the next MSG_PEEK starts, which goes on from where the last one ended; negative: off.
  virtual int peek_offset() const { return -1; }
  virtual void set_peek_offset(int) {}

  /// An error is pending (SO_ERROR). Not the same as ready::kErr, which reports raise as well.
  virtual bool failed() const = 0;
  /// The oldest report of the error queue, which is taken off (recvmsg(2), MSG_ERRQUEUE).
  virtual std::optional<Report> take_report() { return std::nullopt; }
  virtual TimeStamping time_stamping() const { return {}; }
  /// When the byte came that is `offset` bytes from the next to be read; nothing: nobody has asked for it.
  virtual std::optional<Instant> arrived_at(size_t) const { return std::nullopt; }
  /// The program's send has ended and its last byte is queued. `stamps`: what it wants to know of it in place
  /// of what the socket's option says (SOF_TIMESTAMPING_TX_*). Called before the lock is dropped again.
  virtual void sent_message(std::optional<uint32_t> /*stamps*/, Copying /*how*/) {}

  WaitQueue waiters;

 protected:
  explicit Socket(Host& host) : host_(host) {}
  virtual ~Socket() = default;

 private:
  Host& host_;
};

}  // namespace ustack
