// Handlers are put off while a Scope is open, and then run as the kernel would have run them.
#include "shim/signals.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <csignal>
#include <vector>

#include "io/syscalls.h"
#include "shim/driver.h"
#include "shim/real.h"
#include "shim/scope.h"
#include "stack/base/sanitizers.h"

namespace ustack::shim {
namespace {

struct Seen {
  int number;
  int value;
  bool on_alternate_stack;
  uint64_t mask;
};
std::array<Seen, 64> seen;
int count = 0;
std::byte* alternate = nullptr;
constexpr size_t kAlternateBytes = 64 * 1024;

uint64_t current_mask() {
  uint64_t mask = 0;
  io::sys::call(SYS_rt_sigprocmask, SIG_BLOCK, 0, io::sys::arg(&mask), io::sys::kSignalSetBytes);
  return mask;
}

bool blocked(uint64_t mask, int number) { return (mask >> (number - 1) & 1) != 0; }

void note(int number, siginfo_t* info, void*) {
  auto* here = reinterpret_cast<std::byte*>(&number);
  bool on_alternate = alternate != nullptr && here >= alternate && here < alternate + kAlternateBytes;
  seen[static_cast<size_t>(count++)] = {number, info->si_value.sival_int, on_alternate, current_mask()};
}
void note_plain(int number) { seen[static_cast<size_t>(count++)] = {number, 0, false, current_mask()}; }

void send(int number, int value = 0) {
  sigval with{};
  with.sival_int = value;
  ASSERT_EQ(sigqueue(getpid(), number, with), 0);
}

class ShimSignals : public testing::Test {
 protected:
  void SetUp() override {
    mask_ = current_mask();
    if (kThreadSanitizer) GTEST_SKIP() << "the sanitizer puts handlers off itself";
    signals::take_over();
    count = 0;
  }
  void TearDown() override {
    for (int number : {SIGUSR1, SIGUSR2, SIGALRM, SIGRTMIN, SIGRTMIN + 1}) signal(number, SIG_DFL);
    EXPECT_EQ(current_mask(), mask_) << "the mask is back to what it was";
    EXPECT_EQ(this_thread().depth, 0u);
    EXPECT_FALSE(this_thread().signal_deferred.load());
  }
  static void install(int number, int flags = 0, std::initializer_list<int> mask = {}) {
    struct sigaction action {};
    action.sa_sigaction = note;
    action.sa_flags = flags | SA_SIGINFO;
    for (int other : mask) sigaddset(&action.sa_mask, other);
    ASSERT_EQ(signals::action(number, &action, nullptr), 0);
  }
  uint64_t mask_ = 0;
};

TEST_F(ShimSignals, RunAtOnceOutsideTheLibrary) {
  install(SIGUSR1);
  send(SIGUSR1, 7);
  ASSERT_EQ(count, 1);
  EXPECT_EQ(seen[0].number, SIGUSR1);
  EXPECT_EQ(seen[0].value, 7);
  EXPECT_TRUE(blocked(seen[0].mask, SIGUSR1));
  EXPECT_FALSE(blocked(seen[0].mask, SIGUSR2));
}

TEST_F(ShimSignals, PutOffUntilTheScopeCloses) {
  install(SIGUSR1, 0, {SIGALRM});
  {
    Scope scope;
    send(SIGUSR1, 42);
    EXPECT_EQ(count, 0);
    EXPECT_TRUE(this_thread().signal_deferred.load());
    EXPECT_TRUE(blocked(current_mask(), SIGTERM)) << "nothing else comes between";
    EXPECT_FALSE(blocked(current_mask(), SIGSEGV)) << "a fault must never be blocked";
  }
  ASSERT_EQ(count, 1);
  EXPECT_EQ(seen[0].value, 42) << "with its siginfo";
  EXPECT_TRUE(blocked(seen[0].mask, SIGUSR1));
  EXPECT_TRUE(blocked(seen[0].mask, SIGALRM)) << "sa_mask";
  EXPECT_FALSE(blocked(seen[0].mask, SIGUSR2));
}

TEST_F(ShimSignals, ErrnoSurvives) {
  install(SIGUSR1);
  errno = ERANGE;
  {
    Scope scope;
    send(SIGUSR1);
    errno = EIO;
  }
  EXPECT_EQ(count, 1);
  EXPECT_EQ(errno, ERANGE);
  errno = 0;
  {
    Scope scope;
    EXPECT_EQ(scope.fail(ENOTCONN), -1);
    send(SIGUSR1);
  }
  EXPECT_EQ(errno, ENOTCONN);
}

TEST_F(ShimSignals, RealTimeSignalsKeepTheirOrderAndNumber) {
  install(SIGRTMIN);
  install(SIGRTMIN + 1);
  {
    Scope scope;
    send(SIGRTMIN + 1, 1);
    send(SIGRTMIN, 2);
    send(SIGRTMIN, 3);
    send(SIGRTMIN + 1, 4);
    EXPECT_EQ(count, 0);
  }
  ASSERT_EQ(count, 4);
  // Of one number in the order sent. Between numbers the kernel begins with the lowest, whose handler is the
  // last to be set up and so the first to run to its end.
  std::vector<int> low, high;
  for (int i = 0; i < count; ++i)
    (seen[static_cast<size_t>(i)].number == SIGRTMIN ? low : high)
        .push_back(seen[static_cast<size_t>(i)].value);
  EXPECT_EQ(low.size(), 2u);
  EXPECT_EQ(high.size(), 2u);
  EXPECT_TRUE(std::is_sorted(low.begin(), low.end()));
  EXPECT_TRUE(std::is_sorted(high.begin(), high.end()));
}

TEST_F(ShimSignals, OfAStandardSignalOneIsLeft) {
  install(SIGUSR1);
  {
    Scope scope;
    for (int i = 0; i < 5; ++i) kill(getpid(), SIGUSR1);
  }
  EXPECT_GE(count, 1);
  EXPECT_LE(count, 2) << "pending once, as when it is blocked";
}

TEST_F(ShimSignals, NoDeferRunsAgainInsideItself) {
  static int depth;
  depth = 0;
  struct sigaction action {};
  action.sa_flags = SA_NODEFER;
  action.sa_handler = [](int number) {
    ++count;
    if (++depth < 3) raise(number);
  };
  ASSERT_EQ(signals::action(SIGUSR1, &action, nullptr), 0);
  {
    Scope scope;
    raise(SIGUSR1);
    EXPECT_EQ(count, 0);
  }
  EXPECT_EQ(count, 3);
}

TEST_F(ShimSignals, ResetHandRunsOnceAlsoWhenPutOff) {
  install(SIGUSR1, static_cast<int>(SA_RESETHAND));
  struct sigaction now {};
  ASSERT_EQ(signals::action(SIGUSR1, nullptr, &now), 0);
  EXPECT_EQ(now.sa_sigaction, note);
  EXPECT_NE(now.sa_flags & static_cast<int>(SA_RESETHAND), 0);
  {
    Scope scope;
    raise(SIGUSR1);
    EXPECT_EQ(count, 0);
  }
  EXPECT_EQ(count, 1);
  ASSERT_EQ(signals::action(SIGUSR1, nullptr, &now), 0);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
  EXPECT_EXIT(raise(SIGUSR1), testing::KilledBySignal(SIGUSR1), "");
}

TEST_F(ShimSignals, AlternateStackIsUsed) {
  std::vector<std::byte> memory(kAlternateBytes);
  alternate = memory.data();
  stack_t stack{}, before{};
  stack.ss_sp = memory.data();
  stack.ss_size = memory.size();
  ASSERT_EQ(sigaltstack(&stack, &before), 0);
  install(SIGUSR1, SA_ONSTACK);
  {
    Scope scope;
    send(SIGUSR1);
  }
  before.ss_flags = SS_DISABLE;
  ASSERT_EQ(sigaltstack(&before, nullptr), 0);
  alternate = nullptr;
  ASSERT_EQ(count, 1);
  EXPECT_TRUE(seen[0].on_alternate_stack);
}

TEST_F(ShimSignals, TheProgramSeesItsOwnHandlers) {
  struct sigaction action {
  }, old{};
  action.sa_handler = note_plain;
  action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
  sigaddset(&action.sa_mask, SIGUSR2);
  ASSERT_EQ(signals::action(SIGUSR1, &action, &old), 0);
  EXPECT_EQ(old.sa_handler, SIG_DFL);
  ASSERT_EQ(signals::action(SIGUSR1, nullptr, &old), 0);
  EXPECT_EQ(old.sa_handler, note_plain);
  EXPECT_EQ(old.sa_flags & ~0x04000000, SA_RESTART | SA_NOCLDSTOP) << "but for SA_RESTORER, which is libc's";
  EXPECT_EQ(sigismember(&old.sa_mask, SIGUSR2), 1);
  // In and out through the same object.
  struct sigaction both = action;
  both.sa_handler = SIG_IGN;
  ASSERT_EQ(signals::action(SIGUSR1, &both, &both), 0);
  EXPECT_EQ(both.sa_handler, note_plain);
  ASSERT_EQ(signals::action(SIGUSR1, nullptr, &old), 0);
  EXPECT_EQ(old.sa_handler, SIG_IGN);
  errno = 0;
  EXPECT_EQ(signals::action(SIGKILL, &action, nullptr), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(signals::action(-1, &action, nullptr), -1);
  EXPECT_EQ(signals::action(65, nullptr, &old), -1);
}

TEST_F(ShimSignals, HandlersOfOtherWaysAreAdopted) {
  struct sigaction action {};
  action.sa_sigaction = note;
  action.sa_flags = SA_SIGINFO;
  ASSERT_EQ(::sigaction(SIGUSR1, &action, nullptr), 0);  // this executable has no hooks: straight to libc
  signals::take_over();
  {
    Scope scope;
    send(SIGUSR1, 5);
    EXPECT_EQ(count, 0);
  }
  ASSERT_EQ(count, 1);
  EXPECT_EQ(seen[0].value, 5);
}

TEST_F(ShimSignals, SignalHasBsdSemanticsUnlessSiginterruptSaysOtherwise) {
  struct sigaction now {};
  EXPECT_EQ(signals::bsd_signal(SIGUSR1, note_plain), SIG_DFL);
  ASSERT_EQ(signals::action(SIGUSR1, nullptr, &now), 0);
  EXPECT_NE(now.sa_flags & SA_RESTART, 0);
  ASSERT_EQ(signals::interrupt(SIGUSR1, true), 0);
  ASSERT_EQ(signals::action(SIGUSR1, nullptr, &now), 0);
  EXPECT_EQ(now.sa_flags & SA_RESTART, 0);
  EXPECT_EQ(signals::bsd_signal(SIGUSR1, note_plain), note_plain);
  ASSERT_EQ(signals::action(SIGUSR1, nullptr, &now), 0);
  EXPECT_EQ(now.sa_flags & SA_RESTART, 0) << "siginterrupt() is remembered";
  ASSERT_EQ(signals::interrupt(SIGUSR1, false), 0);
  EXPECT_EQ(signals::sysv_signal(SIGUSR1, note_plain), note_plain);
  ASSERT_EQ(signals::action(SIGUSR1, nullptr, &now), 0);
  EXPECT_NE(now.sa_flags & static_cast<int>(SA_RESETHAND), 0);
  EXPECT_NE(now.sa_flags & SA_NODEFER, 0);
  errno = 0;
  EXPECT_EQ(signals::bsd_signal(SIGKILL, note_plain), SIG_ERR);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(signals::interrupt(0, true), -1);
}

std::byte* page = nullptr;

TEST_F(ShimSignals, FaultsAreNeverPutOff) {
  page = static_cast<std::byte*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) {
    ++count;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
  };
  ASSERT_EQ(signals::action(SIGSEGV, &action, &before), 0);
  {
    Scope scope;
    *const_cast<volatile std::byte*>(page) = std::byte{1};
    EXPECT_EQ(count, 1);
  }
  EXPECT_EQ(count, 1);
  {
    // The same number from kill() is no fault, and can wait.
    Scope scope;
    raise(SIGSEGV);
    EXPECT_EQ(count, 1);
  }
  EXPECT_EQ(count, 2);
  ASSERT_EQ(signals::action(SIGSEGV, &before, nullptr), 0);
  munmap(page, 4096);
}

sigjmp_buf out;

TEST_F(ShimSignals, AHandlerMayLeaveByLongjmp) {
  struct sigaction action {};
  action.sa_handler = [](int) { siglongjmp(out, 1); };
  ASSERT_EQ(signals::action(SIGUSR1, &action, nullptr), 0);
  static int jumps;  // outlives the jump
  jumps = 0;
  for (static int i = 0; i < 3; ++i) {
    if (sigsetjmp(out, 1) != 0) {
      ++jumps;
      continue;
    }
    Scope scope;
    raise(SIGUSR1);
  }
  EXPECT_EQ(jumps, 3);
  EXPECT_FALSE(Scope::inside());
}

TEST_F(ShimSignals, HandlersUseTheLibraryThemselves) {
  struct sigaction action {};
  action.sa_handler = [](int number) {
    EXPECT_FALSE(Scope::inside());
    Scope scope;
    if (++count < 4) raise(number == SIGUSR1 ? SIGUSR2 : SIGUSR1);
  };
  ASSERT_EQ(signals::action(SIGUSR1, &action, nullptr), 0);
  ASSERT_EQ(signals::action(SIGUSR2, &action, nullptr), 0);
  {
    Scope scope;
    raise(SIGUSR1);
  }
  EXPECT_EQ(count, 4);
}

TEST_F(ShimSignals, SeveralNumbersInOneScope) {
  install(SIGUSR1);
  install(SIGUSR2);
  install(SIGALRM);
  {
    Scope scope;
    raise(SIGUSR2);
    raise(SIGALRM);
    raise(SIGUSR1);
    EXPECT_EQ(count, 0);
  }
  EXPECT_EQ(count, 3);
}

TEST_F(ShimSignals, AnInterruptedCallRestartsAsItsHandlerSays) {
  int runs = 0;
  auto call = [&] {
    return blocking_call([&](Scope& scope) -> int {
      if (runs++ > 0) return 77;
      raise(SIGUSR1);
      EXPECT_EQ(count, 0);
      return scope.interrupted(true);
    });
  };
  install(SIGUSR1, SA_RESTART);
  EXPECT_EQ(call(), 77);
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(count, 1) << "between the two runs";

  runs = count = 0;
  install(SIGUSR1);
  errno = 0;
  EXPECT_EQ(call(), -1);
  EXPECT_EQ(errno, EINTR);
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(count, 1);

  runs = count = 0;
  install(SIGUSR1, SA_RESTART);
  EXPECT_EQ(blocking_call([&](Scope& scope) -> int {
              ++runs;
              raise(SIGUSR1);
              return scope.interrupted(false);
            }),
            -1);
  EXPECT_EQ(errno, EINTR) << "poll and its like are never restarted";
  EXPECT_EQ(runs, 1);
}

TEST_F(ShimSignals, ASleepEnds) {
  install(SIGUSR1);
  Waiter waiter;
  int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  {
    Scope scope;
    this_thread().waiter = &waiter;
    this_thread().wake_fd.store(event);
    raise(SIGUSR1);
    EXPECT_EQ(waiter.word.load(), 1u);
    uint64_t value = 0;
    EXPECT_EQ(read(event, &value, sizeof value), static_cast<ssize_t>(sizeof value));
    this_thread().waiter = nullptr;
    this_thread().wake_fd.store(-1);
  }
  close(event);
  EXPECT_EQ(count, 1);
}

TEST_F(ShimSignals, WhatOnlyAWaitsMaskLetsInRunsUnderIt) {
  install(SIGUSR1);
  sigset_t with, before;
  sigemptyset(&with);
  sigaddset(&with, SIGUSR1);
  ASSERT_EQ(sigprocmask(SIG_BLOCK, &with, &before), 0);
  {
    Scope scope;
    ThreadState& thread = this_thread();
    thread.wait_mask = current_mask() & ~(uint64_t{1} << (SIGUSR1 - 1));
    thread.has_wait_mask = true;
    raise(SIGUSR1);
    // As ppoll() would: the mask is swapped for the sleep.
    __kernel_timespec no_time{};
    sigset_t open;
    sigfillset(&open);
    sigdelset(&open, SIGUSR1);
    EXPECT_EQ(io::sys::ppoll(nullptr, 0, &no_time, &open), -EINTR);
    thread.has_wait_mask = false;
    EXPECT_EQ(count, 0);
  }
  EXPECT_EQ(count, 1) << "although the thread's own mask blocks it";
  EXPECT_TRUE(blocked(current_mask(), SIGUSR1));
  ASSERT_EQ(sigprocmask(SIG_SETMASK, &before, nullptr), 0);
}

}  // namespace
}  // namespace ustack::shim
