// A program's end. What it has sent is delivered and its connections are closed in order, as the kernel would
// do after the program is gone; until there is a keeper to do so, the program's last thread does it here, for
// a bounded time.
#include <csignal>

#include "io/capture.h"
#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/host_lock.h"
#include "shim/process.h"
#include "shim/process_state.h"
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
    if (host.drained()) return;
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

/// One "name value" line for each counter, named as nstat(8) does.
void write_counters(const std::string& path, const Counters& counters) {
  std::string text;
  for (const CounterDescription& row : kCounterTable) {
    text.append(row.group).append(row.name).append(" ");
    text.append(std::to_string(counters.*row.field)).append("\n");
  }
  long fd = io::sys::openat(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return;
  io::sys::write(static_cast<int>(fd), text.data(), text.size());
  io::sys::close(static_cast<int>(fd));
}

}  // namespace

void Process::linger() {
  if (shared_host == nullptr || Scope::inside()) return;
  ProcessState& state = process_state();
  if (state.lingered.exchange(true)) return;
  SharedHost& shared = *shared_host;
  OthersBlocked blocked;
  Scope scope;
  HostLock lock;
  leave_host();
  if (shared.attached_count > 0) shared.reap_dead();
  // Relatives have the host too: whichever waits next drives what is left.
  if (shared.attached_count == 0) {
    deliver(lock);
    if (!state.config.counters_file.empty())
      write_counters(state.config.counters_file, lock.host().counters());
  }
  if (state.capture != nullptr) state.capture->flush();
}

}  // namespace ustack::shim
