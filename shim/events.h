// Eventfds by which a thread's sleep in poll is ended, by other threads, other processes and its own signal
// handlers. An event is a small number, the same in all processes of the host; each process knows the
// descriptor it has for it.
//
//   0 .. kKeeper      the drivers', one for each queue of the link; made with the host, and inherited
//   kKeeper           the keeper's: the same
//   .. kShared        for sleepers that the keeper and relatives can wake: all of them made before the first
//                     fork, until then those that are needed
//   from kShared on   for sleepers of one process; also good for its descendants that were forked later
#pragma once

#include <cstdint>

#include "io/descriptor.h"
#include "io/link.h"

namespace ustack::shim::events {

/// Of the driver of a queue.
constexpr int driver(uint32_t queue) { return static_cast<int>(queue); }
inline constexpr int kKeeper = io::Link::kMaxQueues;
inline constexpr int kFirstShared = kKeeper + 1;
inline constexpr int kShared = 64;
inline constexpr int kMost = 256;

/// Makes the drivers' and the keeper's. False: no descriptor is to be had.
bool make_first_events(uint32_t queues);
/// Makes the shared ones that are not there yet, before a fork of a process with a host. Fewer if descriptors
/// run out. True: some were made now.
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
/// The keeper can end the sleep of one that has it; also by the word, without an event.
constexpr bool keepers(int event) { return event < kShared; }
void set(int event);
/// Takes the value away, if there is one.
void clear(int event);

}  // namespace ustack::shim::events
