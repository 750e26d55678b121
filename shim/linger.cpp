// A program's end. What it has sent is delivered and its connections are closed in order after the program is
// gone, by the keeper (keeper.h). Where there can't be one the program's last thread does it here, for a
// bounded time.
#include <csignal>

#include "io/capture.h"
#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/counters_file.h"
#include "shim/host_lock.h"
#include "shim/keeper.h"
#include "shim/lending.h"
#include "shim/process.h"
#include "shim/process_state.h"
#include "shim/sandbox.h"
#include "shim/scope.h"

namespace ustack::shim {

namespace {

/// As long as the peers answer, at most this long;
constexpr Duration kLongest = 60s;
/// and without any segment from a peer, this long: some retransmissions.
constexpr Duration kWithoutProgress = 5s;

/// Signals whose handlers end the lingering; without a handler they end the program as ever. All others have
/// nothing to interrupt any more, as in a program that has ended.
constexpr int kEnding[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGSEGV,
                           SIGBUS, SIGFPE,  SIGILL, SIGTRAP, SIGSYS};

class OthersBlocked {
 public:
  OthersBlocked() {
    uint64_t mask = ~uint64_t{0};
    for (int number : kEnding) mask &= ~(uint64_t{1} << (number - 1));
    io::sys::call(SYS_rt_sigprocmask, SIG_BLOCK, io::sys::arg(&mask), io::sys::arg(&before_),
                  io::sys::kSignalSetBytes);
  }
  ~OthersBlocked() {
    io::sys::call(SYS_rt_sigprocmask, SIG_SETMASK, io::sys::arg(&before_), 0, io::sys::kSignalSetBytes);
  }
  OthersBlocked(const OthersBlocked&) = delete;
  OthersBlocked& operator=(const OthersBlocked&) = delete;

 private:
  uint64_t before_ = 0;
};

void deliver(HostLock& lock) {
  Host& host = lock.host();
  Instant start = io::now(), progress = start;
  uint64_t segments = host.counters().TcpInSegs;
  Wait wait;
  for (;;) {
    settle(*shared_host);
    if (shared_host->drained()) return;
    Instant now = io::now();
    if (host.counters().TcpInSegs != segments) {
      segments = host.counters().TcpInSegs;
      progress = now;
    }
    Instant end = std::min(start + kLongest, progress + kWithoutProgress);
    if (now >= end || wait.sleep(lock, {.deadline = end, .any_frame = true}) == WaitOutcome::interrupted) {
      host.log()(LogLevel::warning, [](LogLine& line) {
        line << "the program has ended before all it had sent was acknowledged";
      });
      return;
    }
  }
}

}  // namespace

void Process::linger() {
  if (shared_host == nullptr || Scope::inside()) return;
  ProcessState& state = process_state();
  if (state.lingered.exchange(true)) return;
  SharedHost& shared = *shared_host;
  OthersBlocked blocked;
  Scope scope;
  bool kept = keeper::will_take_over();
  HostLock lock;
  lending::settle_all(shared);
  leave_host();
  if (shared.attached_count > 0 && !sandbox::active()) shared.reap_dead();
  // Relatives have the host too: whichever waits next drives what is left, or the keeper.
  if (kept)
    keeper::wake(shared);
  else if (shared.attached_count == 0)
    deliver(lock);
  if (shared.attached_count == 0) write_counters(state.counters_file, shared.counters());
  if (state.capture != nullptr) state.capture->flush();
}

}  // namespace ustack::shim
