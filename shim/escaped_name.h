// The names of escaped ends: what a descriptor that has left the library tells about itself.
//
//   "\0ustack/5f0c19ab77e2/1c/192.0.2.2:80/198.51.100.7:4444"
//      |       |           |   |            '- peer, "-" for a listener
//      |       |           |   '- local address
//      |       |           '- number of the end (hexadecimal, never used twice)
//      |       '- number of the host's keeper; "\0ustack/5f0c19ab77e2" answers questions (escape_control.h)
//      '- an abstract name (unix(7))
//
// The keeper binds its side of a stream to it, so that getpeername(2) finds it, and a listener itself. ss -x
// shows them. A name is unique as long as its socket lives; but anybody may bind one like it, so what is read
// from it decides what getpeername() says and nothing else.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <optional>

#include "stack/net/address.h"

namespace ustack::shim {

struct EscapedName {
  uint64_t keeper = 0;
  uint64_t number = 0;
  SocketAddress local;
  /// Of no family for a listener.
  SocketAddress remote;
};

/// An abstract AF_UNIX address with its length.
struct UnixAddress {
  sockaddr_un bytes{};
  socklen_t length = 0;
};

/// The name as an address, without libc.
UnixAddress format_escaped_name(const EscapedName& name);
/// The address of a keeper's control socket.
UnixAddress format_keeper_name(uint64_t keeper);
/// What an address says, nothing if it isn't exactly a name.
std::optional<EscapedName> parse_escaped_name(const sockaddr* address, socklen_t length);

}  // namespace ustack::shim
