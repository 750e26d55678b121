#include "shim/keeper.h"

#include <linux/futex.h>
#include <linux/prctl.h>
#include <sched.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/escape.h"
#include "shim/events.h"
#include "shim/host_lock.h"
#include "shim/keeper_memory.h"
#include "shim/process.h"
#include "shim/process_state.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/thread.h"
#include "stack/base/immortal.h"
#include "stack/base/sanitizers.h"

namespace ustack::shim::keeper {

namespace {

namespace sys = io::sys;

/// How long a keeper may take to begin, on a machine that does other things.
constexpr Duration kBeginsWithin = 5s;
constexpr Duration kTryAgainAfter = 1s;

constinit Immortal<Control> own_control;
bool this_is_keeper = false;
/// This process's child, the keeper; 0: none.
std::atomic<int32_t> child{0};

class AllBlocked {
 public:
  AllBlocked() {
    uint64_t all = ~uint64_t{0};
    sys::call(SYS_rt_sigprocmask, SIG_SETMASK, sys::arg(&all), sys::arg(&before_), sys::kSignalSetBytes);
  }
  ~AllBlocked() { sys::call(SYS_rt_sigprocmask, SIG_SETMASK, sys::arg(&before_), 0, sys::kSignalSetBytes); }
  AllBlocked(const AllBlocked&) = delete;
  AllBlocked& operator=(const AllBlocked&) = delete;

 private:
  uint64_t before_ = 0;
};

uint64_t inode_of(const char* path) {
  struct stat status {};
  long result = sys::call(SYS_newfstatat, AT_FDCWD, sys::arg(path), sys::arg(&status), 0);
  return result == 0 ? status.st_ino : 0;
}

/// Whether the program has forbidden itself system calls since its start: the clone might be its end. A
/// filter that was there from the start (a container's) is made for programs that fork.
bool sandboxed() { return sys::call(SYS_prctl, PR_GET_SECCOMP) != process_state().seccomp_at_start; }

bool allowed() {
  // Their runtimes know nothing of a process cloned behind libc's back.
  if (kAddressSanitizer || kThreadSanitizer) return false;
  // The first child after unshare(CLONE_NEWPID) becomes the new namespace's init, which must be the
  // program's.
  return !sandboxed() && inode_of("/proc/self/ns/pid_for_children") == inode_of("/proc/self/ns/pid");
}

/// The right to start one, with its stack; nullptr: somebody else does, or it must wait. Takes the lock.
Start* claim(SharedHost& shared) {
  HostLock lock;
  if (alive(shared)) return nullptr;
  Record& record = shared.keeper;
  Instant now = io::now();
  record.missing = false;
  if (now < record.not_before) return nullptr;
  record.tried_at = now;
  Start* start = make_stack(shared);
  if (start != nullptr) record.state.store(Record::starting);
  return start;
}

/// The clone was refused.
void give_up(SharedHost& shared, Start* start, long error) {
  HostLock lock;
  shared.keeper.state.store(Record::none);
  shared.keeper.not_before = io::now() + kTryAgainAfter;
  shared.arena->release(start->stack, kStackBytes);
  lock.host().log()(LogLevel::info, [&](LogLine& line) {
    line << "no keeper process: clone failed with errno " << -error
         << "; what is unsent when the program ends is delivered before it does";
  });
}

void start_process(SharedHost& shared, Start* start) {
  note_objects();
  long pid;
  {
    AllBlocked blocked;
    pid = clone_process(start, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID, thread_id_address(), process_main);
  }
  if (pid < 0)
    give_up(shared, start, pid);
  else
    child.store(static_cast<int32_t>(pid));
}

/// Reaps a keeper of this process's own that has died.
void reap_child() {
  int32_t pid = child.load();
  if (pid != 0 && sys::call(SYS_wait4, pid, 0, __WCLONE | WNOHANG, 0) != 0) forget_child();
}

}  // namespace

Start* make_stack(SharedHost& shared) {
  void* stack = shared.arena->allocate(kStackBytes, 4096);
  if (stack == nullptr) return nullptr;
  constexpr size_t kRoom = (sizeof(Start) + 63) / 64 * 64;
  auto* start = new (static_cast<std::byte*>(stack) + kStackBytes - kRoom) Start;
  start->stack = stack;
  sys::call(SYS_get_robust_list, 0, sys::arg(&start->robust_list), sys::arg(&start->robust_list_bytes));
  return start;
}

long clone_process(Start* start, long more_flags, int32_t* thread_id, void (*body)(void*)) {
  // No signal at its end, so that wait() doesn't see it; no tracer of the program's follows it.
  const long flags = CLONE_UNTRACED | more_flags;
#if defined(__x86_64__)
  long result;
  register long child_id asm("r10") = sys::arg(thread_id);
  register long tls asm("r8") = 0;
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "movq %[start], %%rdi\n\t"
      "call *%[body]\n\t"
      "ud2\n"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone), "D"(flags), "S"(start), "d"(0), "r"(child_id),
        "r"(tls), [start] "r"(start), [body] "r"(body)
      : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 asm("x8") = SYS_clone;
  register long x0 asm("x0") = flags;
  register long x1 asm("x1") = sys::arg(start);
  register long x2 asm("x2") = 0;
  register long x3 asm("x3") = 0;
  register long x4 asm("x4") = sys::arg(thread_id);
  asm volatile(
      "svc 0\n\t"
      "cbnz x0, 1f\n\t"
      "mov x29, xzr\n\t"
      "mov x0, %[start]\n\t"
      "blr %[body]\n\t"
      "brk 0\n"
      "1:"
      : "+r"(x0)
      : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), [start] "r"(start), [body] "r"(body)
      : "memory", "x30");
  return x0;
#endif
}

Status make_control() {
  int ends[2];
  long result =
      sys::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sys::arg(ends));
  if (result < 0) return Error{static_cast<int>(-result)};
  own_control->to_keeper = io::Descriptor(ends[0]);
  own_control->in_keeper = io::Descriptor(ends[1]);
  if (Status s = io::move_high(own_control->to_keeper); !s.ok()) return s;
  return io::move_high(own_control->in_keeper);
}

Control& control() { return *own_control; }

bool is_keeper() { return this_is_keeper; }

bool alive(SharedHost& shared) {
  Record& record = shared.keeper;
  switch (record.state.load(std::memory_order_acquire)) {
    case Record::starting:
      return io::now() < record.tried_at + kBeginsWithin;
    case Record::running: {
      int result = pthread_mutex_trylock(&record.life);
      if (result == EBUSY) return true;
      if (result == EOWNERDEAD) pthread_mutex_consistent(&record.life);
      // Its stand-in is about to take over (keeper_process.cpp).
      const bool replaced = record.has_stand_in.exchange(false);
      if (replaced) record.tried_at = io::now();
      record.state.store(replaced ? Record::starting : Record::none);
      if (result == 0 || result == EOWNERDEAD) pthread_mutex_unlock(&record.life);
      return replaced;
    }
    default:
      return false;
  }
}

bool ensure() {
  SharedHost& shared = *shared_host;
  if (alive(shared)) [[likely]]
    return true;
  reap_child();
  if (!allowed()) return false;
  if (Start* start = claim(shared)) start_process(shared, start);
  return alive(shared);
}

bool serves() {
  if (!ensure()) return false;
  std::atomic<uint32_t>& state = shared_host->keeper.state;
  while (state.load() == Record::starting && alive(*shared_host)) {
    __kernel_timespec time{0, 100'000'000};
    sys::call(SYS_futex, sys::arg(&state), FUTEX_WAIT, Record::starting, sys::arg(&time));
  }
  return state.load() == Record::running && alive(*shared_host);
}

bool will_take_over() { return Process::id() != 1 && serves(); }

namespace {

Status send_message(Message& message, const int* fds, int count) {
  iovec part{&message, sizeof message};
  alignas(cmsghdr) char rights[CMSG_SPACE(Message::kMostDescriptors * sizeof(int))]{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = rights;
  header.msg_controllen = CMSG_SPACE(static_cast<size_t>(count) * sizeof(int));
  cmsghdr* first = CMSG_FIRSTHDR(&header);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(static_cast<size_t>(count) * sizeof(int));
  std::memcpy(CMSG_DATA(first), fds, static_cast<size_t>(count) * sizeof(int));
  long result = sys::sendmsg(own_control->to_keeper.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (result < 0) return Error{static_cast<int>(-result)};
  return {};
}

}  // namespace

Status hand_over(OpenFile& file, io::Descriptor end) {
  if (is_keeper()) {
    escape::adopt(file, std::move(end));
    return {};
  }
  if (!alive(*shared_host)) return Error{ESRCH};
  Message message;
  message.kind = Message::descriptor;
  message.file = &file;
  int fd = end.get();
  return send_message(message, &fd, 1);
}

bool share_event(int event) {
  Message message;
  message.kind = Message::events;
  message.first = event;
  message.count = 1;
  int fd = events::descriptor(event);
  return send_message(message, &fd, 1).ok();
}

bool share_memory(uint64_t lender, int memory) {
  Message message;
  message.kind = Message::memory;
  message.lender = lender;
  return send_message(message, &memory, 1).ok();
}

void share_events() {
  Message message;
  message.kind = Message::events;
  message.first = events::kFirstShared;
  int fds[Message::kMostDescriptors];
  for (int event = message.first; event < events::kShared; ++event) {
    int fd = events::descriptor(event);
    if (fd < 0) break;
    fds[message.count++] = fd;
  }
  if (message.count > 0 && alive(*shared_host)) (void)send_message(message, fds, message.count);
}

void wake(SharedHost& shared) {
  CommonLock common;
  Record& record = shared.keeper;
  if (!alive(shared)) {
    record.resting = false;
    record.watching_until = Instant::min();
    record.missing = true;
    return;
  }
  if (record.waiter != nullptr) rouse(shared, *record.waiter);
}

void processes_changed(SharedHost& shared) {
  ++shared.keeper.processes;
  if (shared.keeper.resting) wake(shared);
}

int32_t child_to_hide() { return child.load(std::memory_order_relaxed); }
void forget_child() { child.store(0); }

void become() {
  this_is_keeper = true;
  forget_child();
}

}  // namespace ustack::shim::keeper
