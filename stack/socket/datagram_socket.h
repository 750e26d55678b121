// A socket of datagrams (SOCK_DGRAM) as the socket API sees it: what Socket has for streams is replaced by
// whole datagrams, in and out.
#pragma once

#include <cstdint>
#include <optional>

#include "stack/base/intrusive_list.h"
#include "stack/net/frame.h"
#include "stack/socket/socket.h"

namespace ustack {

/// One that has come. Its bytes stay as they are until DatagramSocket::done().
struct Datagram : ListHook<> {
  Slice data;
  SocketAddress source;
  SocketAddress destination;
  uint8_t ttl = 0;
  uint8_t tos = 0;
  Instant arrived{};
  /// Calls that look at it, by DatagramSocket::take().
  uint32_t readers = 0;
  /// It waits to be received.
  bool queued = true;

  /// For its slab.
  void retire() { unlink(); }
};

/// How one is to be sent.
struct DatagramOut {
  /// Unspecified: to the peer that it is connected with.
  SocketAddress to{};
  /// IP_PKTINFO, IPV6_PKTINFO: from this address of the host's; unspecified: as bound.
  IpAddress from{};
  /// IP_TTL and IP_TOS as ancillary data, or IPV6_HOPLIMIT and IPV6_TCLASS.
  std::optional<uint8_t> ttl{}, tos{};
  /// IPV6_DONTFRAG.
  std::optional<bool> dont_fragment{};
};

/// What recvmsg(2) is to tell of each datagram (ip(7)).
struct DatagramWishes {
  bool packet_info = false, ttl = false, tos = false, original_destination = false;
};

/// Under the host's lock as Socket; no call waits. Bytes are copied without the lock: between reserve() and
/// send(), and between take() and done().
class DatagramSocket : public Socket {
 public:
  DatagramSocket* datagrams() final { return this; }

  /// A frame whose payload is room for a datagram of `bytes`, for send() or abandon(). EMSGSIZE; EPIPE,
  /// ENOBUFS, or a pending error.
  virtual Result<TxFrame*> reserve(size_t bytes) = 0;
  /// Sends it; takes the frame over whatever it returns. EDESTADDRREQ, EINVAL (port 0; `from` isn't the
  /// host's), EADDRNOTAVAIL (what it is bound to isn't), EAFNOSUPPORT (bound to IPv4, sent to IPv6),
  /// ENETUNREACH, EACCES (to a broadcast address), EMSGSIZE (larger than the path's MTU where fragments are
  /// forbidden: IP_MTU_DISCOVER, IPV6_DONTFRAG), ENOBUFS.
  virtual Status send(TxFrame* frame, const DatagramOut& how) = 0;
  virtual void abandon(TxFrame* frame) = 0;

  /// The next datagram, which stays in the queue if `peek`. EAGAIN, or a pending error.
  virtual Result<Datagram*> take(bool peek) = 0;
  /// Ends a take().
  virtual void done(Datagram* datagram) = 0;
  virtual DatagramWishes wishes() const = 0;

  // What only streams have.
  Status listen(int) final { return Error{EOPNOTSUPP}; }
  Result<Socket*> accept() final { return Error{EOPNOTSUPP}; }
  Status connect_result() final { return {}; }
  bool lingering_done() const final { return true; }
  Result<Extents> reserve_send(size_t) final { return Error{EOPNOTSUPP}; }
  void commit_send(size_t, SendFlags) final {}
  Result<Extents> view_receive(size_t, size_t) final { return Error{EOPNOTSUPP}; }
  void consume(size_t) final {}
  Result<std::byte> receive_urgent(bool) final { return Error{EOPNOTSUPP}; }
  uint32_t receive_low_water() const final { return 1; }

 protected:
  using Socket::Socket;
};

}  // namespace ustack
