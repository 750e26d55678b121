// Eventfds by which a thread's sleep in poll is ended, by other threads, other processes and its own signal
// handlers. An event is a small number, the same in all processes of the host; each process knows the
// descriptor it has for it.
//
//   0                 the driver's: made with the host, so that every relative has inherited it
//   1                 the keeper's: the same
//   2 .. kShared      for sleepers of related processes: made before the first fork
//   from kShared on   for sleepers of one process; also good for its descendants that were forked later
#pragma once

#include <cstdint>

#include "io/descriptor.h"

namespace ustack::shim::events {

inline constexpr int kDriver = 0;
inline constexpr int kKeeper = 1;
inline constexpr int kFirstShared = 2;
inline constexpr int kShared = 64;
inline constexpr int kMost = 256;

/// Makes the driver's and the keeper's. False: no descriptor is to be had.
bool make_first_events();
/// Makes the shared ones, before the first fork of a process with a host. Fewer if descriptors run out. True:
/// some were made now.
bool make_shared_events();
/// An event that is not in use, for a sleeper that others can wake; -1: none. Lock: the host's.
int take();
void give_back(int event);
/// The events of the parent's own are the parent's sleepers': here they may be set, never taken.
void after_fork_in_child();
/// In the keeper: the events from kShared on are the program's, and closed.
void forget_own();
/// All of them are closed: the process has left its host.
void close_all();
/// In the keeper: a shared event that was made after it was started. Takes over the descriptor.
void adopt(int event, io::Descriptor fd);
/// This process's descriptor for it; -1: it has none.
int descriptor(int event);
bool is_event(int fd);
/// The event's descriptor has got another number. False: `fd` is none's.
bool move(int fd, int to);
void set(int event);
/// Takes the value away, if there is one.
void clear(int event);

}  // namespace ustack::shim::events
