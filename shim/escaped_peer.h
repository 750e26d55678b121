// Descriptors from outside: a program with the library in it has inherited or received an end of a socket of
// another host's program (escape.h). To the kernel it is an AF_UNIX socket, and that is how its bytes go; but
// the program means an internet socket, so what it asks about addresses and options is answered as for one.
//
// Each function is called after the kernel has answered, with what the hook is about to return. Nothing is
// remembered: the descriptor's name says what it is. A program without such descriptors pays nothing.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <optional>

namespace ustack::shim::escaped_peer {

/// After getsockname(2), getpeername(2) or accept(2) has written an address where the program has `*length`
/// bytes (before: `room`): if `fd` is an end from outside, the internet address in its place.
void fix_local_address(int fd, sockaddr* address, socklen_t room, socklen_t* length);
void fix_peer_address(int fd, sockaddr* address, socklen_t room, socklen_t* length);

/// What accept4(2) has brought: if it is a carrier (escaped_twin.h), the socket that it carries comes in its
/// place. False: there was none in it.
bool unwrap(int fd, int flags);

/// connect(2) of an end from outside, which has a name from the first one on: what that says when it is
/// called again. Nothing: `fd` is no such end.
std::optional<int> connect_again(int fd);
/// After getpeername(2) has found a peer: `fd` is an end from outside that isn't connected yet, or could not
/// be.
bool is_unconnected(int fd);
/// After a read of `fd` has found the end: that, or -1 with the error that the connection has ended by.
ssize_t explain_end(int fd);
/// `fd` is an end from outside: it has no error queue, and a stream, so that it takes and tells no addresses
/// with its bytes.
bool is_end(int fd);

/// After getsockopt(2): what TCP says instead, if `fd` is an end from outside and the option one of the
/// connection's and not of the descriptor. `result` otherwise; errno is set for -1.
int get_option(int fd, int level, int name, void* value, socklen_t room, socklen_t* length, int result);
/// After setsockopt(2).
int set_option(int fd, int level, int name, const void* value, socklen_t length, int result);

}  // namespace ustack::shim::escaped_peer
