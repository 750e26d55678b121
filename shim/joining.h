// Joining the host of another program. A device has one host; a program that finds its own taken asks the
// keeper of the one that has it to open sockets there, as on a machine where every program uses the one host:
// a shell script's curls side by side, mpirun and its ranks, a server's helper that it execs.
//
//   program                              keeper of the host that has the device
//   knock() at its door                  same user, or root?
//   Introduction --------------------->  configured as the host is, and it is not about to end?
//   status       <---------------------  0: the socket is from now on the program's channel (opening.h)
//
// The host goes on as long as one of its programs or channels does.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string_view>

#include "io/config.h"
#include "io/descriptor.h"
#include "stack/base/result.h"

namespace ustack::shim::joining {

/// The configurations differ: what was asked for would not be what is had.
inline constexpr int kOtherwise = EPROTO;

struct Introduction {
  uint64_t configured_as = 0;
  int32_t pid = 0;
  int32_t unused = 0;
};

/// The program's side, without a lock: the channel to the host that uses `device` (io::OpenError::user).
/// ECONNREFUSED: it has no keeper; EACCES: it is another user's; kOtherwise; ESHUTDOWN: it is about to end;
/// ETIMEDOUT: its keeper doesn't answer.
Result<io::Descriptor> join(std::string_view device, const io::Config& config);

}  // namespace ustack::shim::joining
