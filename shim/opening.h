// New sockets of a process that is outside of its host: that has left it (parting.h), or whose host another
// program had made before it came (joining.h). Until it connects or listens such a socket is one of the
// kernel's, with whatever is set on it; then the process asks the keeper for an end that does:
//
//   process                                  keeper
//   kernel's socket: options
//   bind()                --- OpenRequest -> would a socket of the host's be bound so? which port is free?
//   connect() or listen() --- OpenRequest -> a socket of the host's: options, bind, connect or listen
//   end on the number     <-- descriptor --- EscapedStream (once connected, or full until then),
//   EscapedListener
//
// The request goes over a channel that the process got when it left, or for which it has knocked: nobody else
// may open sockets here.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "io/descriptor.h"
#include "stack/base/result.h"
#include "stack/net/address.h"

namespace ustack::shim {

class HostLock;

namespace opening {

/// What the keeper gets: written to a socket pair of its own, whose other end is sent over the channel with a
/// byte; of a listener on the wildcard address with one of the kernel's on the loopback (escaped_twin.h).
/// Answered by an int32_t, 0 with a descriptor or an errno: of a blocking connect when it is decided; of a
/// bind the port, negated, or an errno.
struct OpenRequest {
  enum class Kind : uint32_t { connect, listen, bind };
  struct Option {
    int32_t level = 0, name = 0;
    uint32_t length = 0;
    std::array<std::byte, 16> value{};
  };
  static constexpr size_t kMostOptions = 40;

  Kind kind = Kind::connect;
  int32_t domain = AF_INET;
  int32_t pid = 0;
  uint32_t nonblocking = 0;
  int32_t backlog = 0;
  /// Of no family: not bound.
  SocketAddress local;
  SocketAddress remote;
  uint32_t option_count = 0;
  std::array<Option, kMostOptions> options{};
};

// The process's side. Without a lock; errno is left as the call says it.

/// This process is outside of its host, and has a channel.
bool is_used();
/// A socket of the kernel's, for the time being; its number means nothing that was known before.
int socket(int domain, int type, int protocol);
/// The calls on a descriptor of the kernel's: of an unconnected TCP socket whose address is not the machine's
/// they are the keeper's business, all else goes to the kernel.
/// What is bound is bound in both: the kernel keeps other processes outside of the host from the same port.
int bind(int fd, const sockaddr* address, socklen_t length);
int listen(int fd, int backlog);
int connect(int fd, const sockaddr* address, socklen_t length);
/// A send that would connect by the kernel: MSG_FASTOPEN is not to be had in such a process (EOPNOTSUPP).
bool refuses_to_send(int flags);
/// setsockopt(2) of what would be told by the error queue, which an end has not (EOPNOTSUPP).
bool refuses_option(int fd, int level, int name);
/// Notes what has to be registered again when a number gets its end.
int epoll_ctl(int set, int operation, int fd, epoll_event* event);

// The keeper's side. Lock: the host's.

/// Answers a request for a channel: requests are taken in from then on until the other end is closed.
Result<io::Descriptor> make_channel();
/// A channel to who has knocked (joining.h): its first message must tell that it is configured as the host
/// is. `refusal`: what it is told in any case; 0: it is welcome. Lock: the host's.
void let_in(io::Descriptor guest, int32_t refusal);
/// Channels that are open.
int channels();

}  // namespace opening
}  // namespace ustack::shim
