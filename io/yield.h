// How a program asks for a device that only the keeper of an earlier one still uses.
//
// A TAP, and an address on an AF_PACKET link, has one host at a time. A keeper (shim/keeper.h) that outlives
// its program delivers what is unsent and holds TIME-WAIT on the device; the next program that wants it
// connects to the keeper's socket in the abstract namespace (which is that of the network namespace, as the
// device is) and waits for its end. Where the keeper's programs still run it can ask at another such socket,
// the door, to open sockets of its own on their host (shim/joining.h).
#pragma once

#include <algorithm>
#include <string_view>

#include "io/clock.h"
#include "io/descriptor.h"
#include "stack/base/result.h"
#include "stack/base/time.h"

namespace ustack::io {

enum class YieldAnswer : uint8_t {
  nobody,  ///< no keeper has this device
  in_use,  ///< its programs still run
  gone,    ///< it has delivered what it had to, and ended
  late,    ///< it was not done in time
};

/// Asks the keeper of `device` to deliver what is left, to skip TIME-WAIT and to end; waits for that, at most
/// `patience`.
YieldAnswer ask_to_yield(std::string_view device, Duration patience);

/// How long a device may stay busy after its last user's io_uring was torn down, which the kernel does beside
/// other work: 10 to 31 ms were measured on an idle machine, some hundred on one that compiles.
inline constexpr Duration kBusyPatience = 1s;
/// How long the keeper of an earlier program may take to deliver what that has sent: a little more than it
/// takes at most (shim/keeper_process.cpp).
inline constexpr Duration kKeeperPatience = 65s;

/// For so long a keeper is asked again whose programs still run, in case the last one was just killed.
inline constexpr Duration kKilledPatience = 20ms;

/// `attempt()` again as long as it gives `busy` and that may be due to what an earlier program has left. Who
/// doesn't insist takes the word of a keeper that its programs still run, and doesn't wait for it to deliver
/// much.
template <typename Attempt>
long retry_while_busy(std::string_view device, long busy, bool insists, Attempt attempt) {
  Instant in_use_since = kNever;
  for (Instant give_up = now() + kBusyPatience;;) {
    long result = attempt();
    if (result != busy || now() >= give_up) return result;
    const YieldAnswer answer = ask_to_yield(device, insists ? kKeeperPatience : kBusyPatience);
    if (answer == YieldAnswer::gone) {
      give_up = now() + kBusyPatience;
      continue;
    }
    if (answer == YieldAnswer::in_use) in_use_since = std::min(in_use_since, now());
    if (!insists && in_use_since != kNever && now() - in_use_since >= kKilledPatience) return result;
    __kernel_timespec pause{0, 2'000'000};
    sys::nanosleep(&pause);
  }
}

/// The keeper's side: a listening SOCK_SEQPACKET socket, O_NONBLOCK; empty: it can't be had, nobody can ask.
/// Who connects either gets a message (in_use) or waits for the end of the connection.
Descriptor open_yield_socket(std::string_view device);
/// Accepts who asks; empty: nobody does (any more).
Descriptor accept_yield(const Descriptor& listening);
/// Tells it that the device is in use.
void refuse_yield(Descriptor asking);

/// The user at the other end of a connected AF_UNIX socket is this process's, or root.
bool trusts_peer(int socket);
/// The keeper's door, as open_yield_socket().
Descriptor open_door(std::string_view device);
/// Accepts who stands before it, blocking sockets; empty: nobody does. Another user than this process's
/// (but root) is turned away with `refusal`, an int32_t.
Descriptor accept_guest(const Descriptor& door, int32_t refusal);
/// The socket of a keeper that opens the door. ECONNREFUSED: nobody does; EACCES: another user's, neither
/// ours nor root's.
Result<Descriptor> knock(std::string_view device);

}  // namespace ustack::io
