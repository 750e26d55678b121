// The keeper: a helper process that shares the host's arena and goes on with it when no process of the
// program does, so that the host behaves as the kernel would.
//
//   - it drives when nobody else has for about a millisecond: a program that computes still answers its
//   peers;
//   - after exit it delivers what was sent, exchanges FINs, holds TIME-WAIT, and then ends;
//   - it watches the program's processes (pidfd) and closes what a killed one had open;
//   - it holds the kernel's end of descriptors that left for other programs (escape.h).
//
// It is made with the host by a raw clone(2): a child that wait() doesn't report, without a signal at its
// end, without the program's descriptors and memory, in a session of its own. Killing it loses nothing of the
// host, which lives in the arena: the next call that needs a keeper starts another. What lives in the keeper
// only, descriptors that serve programs outside, has a stand-in: a second process with the same memory and
// descriptors (clone(2), CLONE_VM and CLONE_FILES), which waits for the keeper's death and goes on.
//
//   program                                       keeper (keeper_process.cpp)
//   ensure() --clone--------------------------->  become a keeper, attach, loop:
//   driver leaves, exit, fork --wake()--------->    resting   somebody drives: sleeps until that changes
//   hand_over() ---SCM_RIGHTS------------------>    ticking   looks now and then whether anybody drives
//   its end --------pidfd---------------------->    watching  nobody drives: on the link, timers due
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "io/descriptor.h"
#include "shim/open_file.h"
#include "stack/base/result.h"
#include "stack/base/time.h"

namespace ustack::shim {

struct SharedHost;
struct Waiter;
class FdTable;

namespace keeper {

/// What the processes of a host know of their keeper; a part of SharedHost. Lock: the host's, but for what
/// says otherwise.
struct Record {
  enum State : uint32_t { none, starting, running };
  /// Held by the keeper as long as it lives. Robust: whoever finds it free knows that the keeper has died.
  pthread_mutex_t life;
  /// Also a futex word: `starting` ends by a wake-up.
  std::atomic<uint32_t> state{none};
  std::atomic<int32_t> pid{0};
  /// A process waits for its death to go on in its place.
  std::atomic<bool> has_stand_in{false};
  /// Programs outside count on it, as the keeper has last seen it.
  std::atomic<bool> serves_outside{false};
  /// When one was last started; when the next may be, after one that could not be.
  Instant tried_at{}, not_before{};
  /// Where it sleeps; what it refers to; what it runs on. Freed by the next one.
  Waiter* waiter = nullptr;
  FdTable* table = nullptr;
  void* stack = nullptr;
  /// It trusts the driver to wake it when it leaves.
  bool resting = false;
  /// It watches the link and will look again at that time by itself; not while it is Instant::min().
  Instant watching_until = Instant::min();
  /// The queues that it watches then, a bit each.
  uint32_t watched = 0;
  /// Changes when a process is attached or learns its number.
  uint64_t processes = 0;
  /// Somebody found that it is gone: the next thread that drops the lock starts another.
  bool missing = false;
};

/// The descriptors that every process of a host has for its keeper, for whichever is started next: two ends
/// of one SOCK_SEQPACKET pair. Process-private, inherited by fork.
struct Control {
  io::Descriptor to_keeper;
  io::Descriptor in_keeper;
};
/// Makes this process's Control. EMFILE, ENFILE.
Status make_control();
Control& control();

/// Starts a keeper if there is none or it died. False: there can't be one (the clone is refused, the process
/// is about to start a PID namespace, a sanitizer build). Refused once, it is tried again after a second at
/// the earliest. Host lock not held; not in a signal handler.
bool ensure();
/// There is one, or one is about to begin. Any thread; costs some 10 ns.
bool alive(SharedHost& shared);
/// ensure(), and it has begun: it can be asked. Waits for its beginning for a bounded time. Host lock not
/// held.
bool serves();
/// The same, and what is left to do may be left to it: not in the first process of a PID namespace, with
/// which everything else there ends.
bool will_take_over();
/// This process is the keeper.
bool is_keeper();

/// Sends the kernel's descriptor `end` to the keeper together with a reference to `file`, which the caller
/// has counted for it (file.reference()); both are the keeper's when this succeeds. On failure `end` is
/// closed and the reference stays the caller's. EAGAIN: more messages are under way than the kernel holds;
/// ESRCH: there is no keeper (call ensure() before). Lock: the host's. In the keeper itself it adopts at
/// once.
Status hand_over(OpenFile& file, io::Descriptor end);
/// Before a fork: gives the keeper the events that make_shared_events() has made.
void share_events();
/// Gives it one that was just made. False: it could not be told.
bool share_event(int event);
/// Gives it the descriptor that reads what `lender` lends (lending.h). False: it could not be told.
bool share_memory(uint64_t lender, int memory);

/// Makes the keeper look at the host when the lock is dropped. Lock held.
void wake(SharedHost& shared);
/// The driver leaves the role. Lock held.
inline void driver_leaves(SharedHost& shared, Record& record) {
  if (record.resting) [[unlikely]]
    wake(shared);
}
/// Processes have come or learned their numbers. Lock held.
void processes_changed(SharedHost& shared);

/// `child` is this process's keeper: wait() must not report it. 0: it has none.
int32_t child_to_hide();
/// It was reaped; or this is a fork, whose child it isn't.
void forget_child();
/// In the cloned process: it is the keeper from here on.
void become();

/// What is sent to the keeper, with descriptors.
struct Message {
  enum Kind : uint32_t { descriptor, events, memory };
  /// shared events: as many as there can be.
  static constexpr int kMostDescriptors = 64;
  Kind kind = descriptor;
  /// events: how many, from `first` on.
  int32_t first = 0, count = 0;
  OpenFile* file = nullptr;
  /// memory: whose.
  uint64_t lender = 0;
};

/// The keeper's life (keeper_process.cpp), on its own stack of kStackBytes.
inline constexpr size_t kStackBytes = 64 * 1024;
[[noreturn]] void process_main(void* start);
/// What process_main() is given; in the arena, at the end of the stack.
struct Start {
  void* stack;
  void* robust_list;
  size_t robust_list_bytes;
};
/// Room for the stack, with the Start at its end; nullptr: no memory. Lock held.
Start* make_stack(SharedHost& shared);
/// clone(2) of this process, with `more_flags`; the child runs body(start) on the stack that ends with
/// `start`.
long clone_process(Start* start, long more_flags, int32_t* thread_id, void (*body)(void*));

}  // namespace keeper
}  // namespace ustack::shim
