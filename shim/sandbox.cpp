#include "shim/sandbox.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <span>

#include "io/own_descriptors.h"
#include "io/syscalls.h"
#include "shim/lending.h"
#include "shim/process.h"
#include "shim/user_copy.h"

namespace ustack::shim::sandbox {

namespace {

std::atomic<bool> put_on_here{false};

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif

constexpr uint32_t kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which older headers lack

/// Asked with whatever arguments.
constexpr uint32_t kAnyhow[] = {SYS_futex,        SYS_ppoll,           SYS_clock_gettime,
                                SYS_getpid,       SYS_gettid,          SYS_rt_sigprocmask,
                                SYS_rt_sigreturn, SYS_restart_syscall, SYS_getrandom};
/// On the library's own descriptors.
constexpr uint32_t kOnOwn[] = {SYS_read, SYS_readv, SYS_write, SYS_writev, SYS_recvmsg, SYS_sendmsg};

/// A classic BPF program (seccomp(2), "struct seccomp_data") in the making. Each allow() is a piece that
/// either ends with "allowed" or goes on behind itself, so that the program's own filter can be put behind
/// all of them.
class Prefix {
 public:
  Prefix(sock_filter* room, size_t most) : code_(room), most_(most) {}

  void allow(uint32_t call) {
    load(offsetof(seccomp_data, nr));
    unless_equal(call, 1);
    give(SECCOMP_RET_ALLOW);
  }

  /// With argument `index` (the low 32 bits, the high ones zero) one of `values`.
  void allow(uint32_t call, unsigned index, std::span<const uint32_t> values) {
    if (values.empty()) return;
    const size_t argument = offsetof(seccomp_data, args) + 8 * index;
    const auto behind = static_cast<uint8_t>(values.size() + 1);
    load(offsetof(seccomp_data, nr));
    unless_equal(call, static_cast<uint8_t>(behind + 3));
    load(static_cast<uint32_t>(argument + 4));
    unless_equal(0, static_cast<uint8_t>(behind + 1));
    load(static_cast<uint32_t>(argument));
    // Each comparison goes to "allowed" or to the next one; the last one behind it.
    for (size_t i = 0; i < values.size(); ++i) {
      const bool last = i + 1 == values.size();
      put(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, values[i], static_cast<uint8_t>(values.size() - 1 - i),
                   static_cast<uint8_t>(last ? 1 : 0)));
    }
    give(SECCOMP_RET_ALLOW);
  }

  /// Only for calls of this architecture: `pieces` is what follows, at most 255 instructions.
  size_t begin_architecture() {
    load(offsetof(seccomp_data, arch));
    put(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0));
    put(BPF_STMT(BPF_JMP | BPF_JA, 0));
    return count_;
  }
  void end_architecture(size_t begin) {
    if (!full()) code_[begin - 1].k = static_cast<uint32_t>(count_ - begin);
  }
  void append(std::span<const sock_filter> more) {
    for (const sock_filter& instruction : more) put(instruction);
  }

  bool full() const { return count_ > most_; }
  sock_fprog program() const { return {.len = static_cast<unsigned short>(count_), .filter = code_}; }

 private:
  void load(size_t offset) { put(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset))); }
  void unless_equal(uint32_t value, uint8_t skip) {
    put(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip));
  }
  void give(uint32_t result) { put(BPF_STMT(BPF_RET | BPF_K, result)); }
  void put(sock_filter instruction) {
    if (count_ < most_) code_[count_] = instruction;
    ++count_;
  }

  sock_filter* code_;
  size_t most_, count_ = 0;
};

void allow_what_we_need(Prefix& prefix) {
  // More would not fit into a jump; nothing is lost but for what the sandboxed process can't do itself.
  constexpr size_t kMostOwn = 200;
  uint32_t own[kMostOwn];
  size_t count = 0;
  for (int fd = io::next_own_descriptor(0); fd >= 0 && count < kMostOwn; fd = io::next_own_descriptor(fd + 1))
    own[count++] = static_cast<uint32_t>(fd);

  size_t begin = prefix.begin_architecture();
  for (uint32_t call : kAnyhow) prefix.allow(call);
  for (uint32_t call : kOnOwn) prefix.allow(call, 0, {own, count});
  constexpr uint32_t kAdvice[] = {kPopulateWrite, MADV_REMOVE};
  prefix.allow(SYS_madvise, 2, kAdvice);
  constexpr uint32_t kQuestion[] = {PR_GET_SECCOMP};
  prefix.allow(SYS_prctl, 0, kQuestion);
  constexpr uint32_t kPipe[] = {SIGPIPE};
  prefix.allow(SYS_tgkill, 2, kPipe);
  prefix.end_architecture(begin);
}

}  // namespace

bool active() { return put_on_here.load(std::memory_order_relaxed); }

long put_on(const sock_fprog* program, unsigned long flags,
            long (*install)(const sock_fprog* program, unsigned long flags)) {
  sock_fprog theirs{};
  sock_filter room[BPF_MAXINSNS];
  sock_filter copy[BPF_MAXINSNS];
  const sock_fprog* chosen = program;
  sock_fprog extended{};
  if (copy_from_user(&theirs, program, sizeof theirs).ok() && theirs.len > 0 && theirs.len <= BPF_MAXINSNS &&
      copy_from_user(copy, theirs.filter, theirs.len * sizeof(sock_filter)).ok()) {
    Prefix prefix(room, BPF_MAXINSNS);
    allow_what_we_need(prefix);
    prefix.append({copy, theirs.len});
    extended = prefix.program();
    if (!prefix.full()) chosen = &extended;
  }
  // Neither is anything lent from here on, nor what is lent already read by the filter's leave.
  lending::take_back();
  long result = install(chosen, flags);
  if (result != 0) return result;
  put_on_here.store(true, std::memory_order_relaxed);
  // The call that copies with a check reaches into other processes too: nothing for a sandbox.
  check_user_pointers(false);
  return 0;
}

}  // namespace ustack::shim::sandbox
