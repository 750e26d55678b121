// How a driving thread moves frames and waits: transmit (lock held), wait (not held), deliver (lock held).
//
//      HostLock                                   no lock                              HostLock
//   host.run(now)                        frames out, then sleep until a frame,     engine->deliver(now)
//   engine->transmit()  ------------->   a wake-up, a kernel descriptor, the  --->  host.run(now)
//                                        deadline or a signal; frames in            ...
//                                        (WaitResult = engine->wait(request))
//
// Two implementations of one interface: `plain` (ppoll, read, writev) runs everywhere; `uring` sends, arms
// its reads and sleeps in one io_uring_enter.
#pragma once

#include <csignal>
#include <cstdint>

#include "io/holdings.h"
#include "io/link.h"
#include "stack/base/time.h"
#include "stack/host.h"

namespace ustack::io {

/// automatic: the ring for batches and plain calls for lone frames, whichever is quicker.
enum class EngineKind : uint8_t { automatic, plain, uring };

struct WaitRequest {
  /// The link's queues that are looked at, a bit each; the engine's own among them.
  uint32_t queues = 1;
  /// kNever: none. In the past: look, don't sleep.
  Instant deadline = kNever;
  /// An EFD_NONBLOCK eventfd whose value ends the wait; wait() takes the value away. -1: none.
  int wake_fd = -1;
  /// A descriptor (an epoll set of the library's own) whose readability ends the wait too. -1: none. The ring
  /// may keep a reference to it until the next wait() with another one, or forget().
  int kernel_fd = -1;
  /// A link's queue that has room for frames again ends the wait too.
  bool room = false;
  /// In force while sleeping, swapped atomically (ppoll(2)); nullptr: the thread's mask stays.
  const sigset_t* signal_mask = nullptr;
};

/// What ended a wait; several may be true, none is possible too, and a wake-up or readiness that was reported
/// once may be reported again: look at your own conditions.
struct WaitResult {
  bool frames = false;     ///< deliver() has something
  bool woken = false;      ///< wake_fd was written
  bool kernel = false;     ///< kernel_fd is readable
  bool timed_out = false;  ///< the deadline has passed
  /// EINTR: a signal handler ran. Seldom for nothing: a stop and SIGCONT or the end of a ring of the
  /// program's end a wait, too (signal(7)).
  bool interrupted = false;
  bool link_lost =
      false;  ///< the device or the other end is gone; reported once, waits then go on without it
};

/// One per driving thread, in memory of the process's own. Never shared between threads; never used after
/// fork by the child (stale()).
class Engine {
 public:
  /// Frames taken from the link in one turn at most: 64 KB each, what stays in the cache.
  static constexpr uint32_t kReadSlots = 8;

  /// `automatic` and `uring` fall back to `plain` where the kernel refuses a ring (EPERM, ENOSYS, ENOMEM);
  /// kind() says what it became. `spin`: how long wait() may look for frames without sleeping. `link` and
  /// `host` outlive it, as does `holdings`, where the engine notes what it has of the host's (nullptr:
  /// nowhere). `queue`: the link's that it reads by a ring. nullptr: no memory.
  static Engine* create(EngineKind kind, Link& link, Host& host, Duration spin = Duration(0),
                        Holdings* holdings = nullptr, uint32_t queue = 0);
  /// Lock held: frames and blocks go back to the host. Only in the process that has made it.
  static void destroy(Engine* engine);
  /// In a child after fork: closes what was inherited and frees the memory; blocks and frames belong to the
  /// parent's engine and are left alone. No lock needed.
  static void abandon(Engine* engine);

  /// This process is a fork of the one that has made the engine: abandon() it and make another. Costs a load.
  bool stale() const;

  virtual EngineKind kind() const = 0;
  /// Lock held. Takes the host's queued frames: writes them, or stages them for the wait() that must follow
  /// (who isn't about to wait calls io::transmit). Also readies memory for what will be read. What the link
  /// has no room for stays queued, and wait() then also ends when it has (call transmit() again).
  virtual void transmit() = 0;
  /// No lock held. Follows transmit().
  virtual WaitResult wait(const WaitRequest& request) = 0;
  /// Lock held. Follows every wait(): feeds what was read into host.receive(), each stamped with its arrival,
  /// and gives finished frames and unused memory back. Small frames are copied into blocks of their size, so
  /// that none pins 68 KB.
  virtual void deliver(Instant now) = 0;
  /// Lets go of a kernel_fd before it is closed; -1: of whichever it still watches. No lock.
  virtual void forget(int kernel_fd) = 0;

 protected:
  Engine();
  ~Engine() = default;
  /// For as long as it lives, what it has changes.
  class Changing {
   public:
    explicit Changing(Engine& engine) : engine_(engine) {
      if (engine_.holdings_ != nullptr) engine_.holdings_->clear();
    }
    ~Changing() {
      std::atomic_signal_fence(std::memory_order_seq_cst);
      if (engine_.holdings_ != nullptr) engine_.note(*engine_.holdings_);
    }
    Changing(const Changing&) = delete;
    Changing& operator=(const Changing&) = delete;

   private:
    Engine& engine_;
  };

 private:
  virtual void tear_down(bool owner) = 0;
  /// Notes all that it has.
  virtual void note(Holdings& holdings) const = 0;
  uint64_t generation_;
  Holdings* holdings_ = nullptr;
};

/// "uring", "plain" or "automatic".
const char* engine_kind_name(EngineKind kind);

}  // namespace ustack::io
