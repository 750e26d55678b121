// The keeper's side of escape.h: what its parts share.
#pragma once

#include <cstdint>

#include "shim/escaped_end.h"
#include "shim/escaped_name.h"
#include "stack/base/result.h"

namespace ustack::shim {

struct Attachment;
class SocketFile;

namespace escape {

/// What a process asks of the keeper through the socket that hand_over() brings; answered by an int32_t, 0
/// with a descriptor or an errno.
struct Request {
  enum class Kind : uint32_t { end, departure, channel };
  Kind kind = Kind::end;
  /// Who asks.
  int32_t pid = 0;
  /// departure: the process that may leave, and which of its attempts.
  Attachment* attachment = nullptr;
  uint64_t serial = 0, departure = 0;
};

/// The keeper can be asked from now on. EMFILE.
Status start();
/// `served` hears of `fd`, once for each change (epoll(7), EPOLLET), until it is closed. ENOMEM, ENOSPC.
Status watch(Served& served, int fd, uint32_t events);
/// Listeners that were closed outside end now; else they are looked at now and then only.
void look_after_listeners(HostLock& lock);
/// A name for an end, never given before.
UnixAddress next_name(const SocketAddress& local, const SocketAddress& remote);
/// Sends an int32_t and, unless -1, a descriptor over a request's socket.
void answer(int socket, int32_t status, int fd);
/// The same with what came of it.
inline void answer(int socket, const Result<io::Descriptor>& result) {
  answer(socket, result.code(), result.ok() ? result->get() : -1);
}
/// Another descriptor of the end that the file has already, or of a new one. Takes over the reference.
Result<io::Descriptor> provide(SocketFile& file, int32_t pid);
/// An end for a socket that connects to `remote`, given out over `request` (as answer() does): at once if the
/// program doesn't wait, and full until the connection is there or has failed; else when it is there. Takes
/// over the reference; `request` only if it succeeds.
Status connect_outside(SocketFile& file, const SocketAddress& remote, bool at_once, io::Descriptor&& request);

}  // namespace escape
}  // namespace ustack::shim
