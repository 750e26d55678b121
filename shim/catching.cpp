#include "shim/catching.h"

#include <unistd.h>

#include <string_view>

#include "io/config.h"
#include "io/syscalls.h"
#include "shim/catch_sites.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <elf.h>
#include <link.h>
#include <linux/audit.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

#include "shim/real.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif
#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH 2
#endif

// What the assembler below and the rewritten places share with this file; 0x40000 there is kStackBytes.
namespace ustack::shim::catching {

/// What ustack_caught_call has saved, from its stack's lower end on.
struct CaughtCall {
  long r9, r8, r10, rdx, rsi, rdi;
  /// The call's number, and in the end its result.
  long rax;
};

}  // namespace ustack::shim::catching

extern "C" {

/// The calling thread's: where its next stack for caught calls ends; null before the first.
__attribute__((used, visibility("hidden"))) thread_local std::byte* ustack_caught_stack = nullptr;
/// Bytes of XSAVE's area, in multiples of 64.
__attribute__((used, visibility("hidden"))) uint64_t ustack_xsave_bytes = 0;

__attribute__((used, visibility("hidden"))) void ustack_caught_call();
__attribute__((used, visibility("hidden"))) void ustack_caught_sigreturn();

__attribute__((used, visibility("hidden"))) void ustack_handle_caught(
    ustack::shim::catching::CaughtCall* call);
}

// Entered by a jump with all registers as at the `syscall` instruction, but rcx: behind it. The kernel keeps
// all registers but rax, rcx and r11, and so does this, the vector registers included (0xe7: x87, SSE, AVX,
// AVX-512). A stack is taken before anything is written to it, and given back after the last word was read,
// so that a signal handler at any point in between finds a free one.
asm(R"(
    .text
    .p2align 4
    .hidden ustack_caught_call
    .globl ustack_caught_call
    .type ustack_caught_call, @function
ustack_caught_call:
    .cfi_startproc
    .cfi_undefined rip
    movq ustack_caught_stack@gottpoff(%rip), %r11
    cmpq $0, %fs:(%r11)
    je 1f
    subq $0x40000, %fs:(%r11)
    movq %fs:(%r11), %r11
    movq %rsp, 0x3fff8(%r11)
    leaq 0x3fff8(%r11), %rsp
    pushq %rcx
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rax
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %r10
    pushq %r8
    pushq %r9
    movq %rsp, %rbx
    subq ustack_xsave_bytes(%rip), %rsp
    andq $-64, %rsp
    xorl %eax, %eax
    movq %rax, 512(%rsp)
    movq %rax, 520(%rsp)
    movq %rax, 528(%rsp)
    movq %rax, 536(%rsp)
    movq %rax, 544(%rsp)
    movq %rax, 552(%rsp)
    movq %rax, 560(%rsp)
    movq %rax, 568(%rsp)
    movl $0xe7, %eax
    xorl %edx, %edx
    xsave64 (%rsp)
    movq %rsp, %r12
    movq %rbx, %rdi
    cld
    call ustack_handle_caught
    movl $0xe7, %eax
    xorl %edx, %edx
    xrstor64 (%r12)
    movq %rbx, %rsp
    popq %r9
    popq %r8
    popq %r10
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rax
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    movq ustack_caught_stack@gottpoff(%rip), %r11
    movq (%rsp), %rsp
    addq $0x40000, %fs:(%r11)
    jmp *%rcx
1:  # A thread that we know nothing of: as if it had not been caught.
    pushq %rcx
    syscall
    popq %rcx
    jmp *%rcx
    .cfi_endproc
    .size ustack_caught_call, .-ustack_caught_call

    .p2align 4
    .hidden ustack_caught_sigreturn
    .globl ustack_caught_sigreturn
    .type ustack_caught_sigreturn, @function
ustack_caught_sigreturn:
    .cfi_startproc
    .cfi_undefined rip
    syscall
    ud2
    .cfi_endproc
    .size ustack_caught_sigreturn, .-ustack_caught_sigreturn
)");

namespace ustack::shim::catching {

namespace {

namespace sys = io::sys;

constexpr size_t kStackBytes = 0x40000;
/// A hook that a handler interrupts, whose call a handler interrupts, ...
constexpr size_t kLevels = 4;
constexpr size_t kGuardBytes = 4096;
constexpr size_t kStacksBytes = kGuardBytes + kLevels * kStackBytes;

bool on = false;
Perform perform_call = nullptr;
Passing passing;
pthread_key_t stacks_key;

/// What the program has set for SIGSYS.
struct {
  std::atomic<uintptr_t> handler{0};
  std::atomic<int> flags{0};
  std::atomic<uint64_t> mask{0};
} program;

void free_stacks(void* begin) {
  ustack_caught_stack = nullptr;
  sys::call(SYS_munmap, sys::arg(begin), kStacksBytes);
}

/// For the calling thread; without memory its calls go to the kernel.
void make_stacks() {
  long begin = sys::call(SYS_mmap, 0, kStacksBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (sys::failed(begin)) return;
  sys::call(SYS_mprotect, begin, kGuardBytes, PROT_NONE);
  auto* memory = reinterpret_cast<std::byte*>(begin);  // NOLINT(performance-no-int-to-ptr)
  ustack_caught_stack = memory + kStacksBytes;
  pthread_setspecific(stacks_key, memory);
}

/// From here on the calling thread's calls are caught; false where the kernel can't.
bool arm() {
  const uint64_t sigsys = ~allowed(~uint64_t{0});
  sys::call(SYS_rt_sigprocmask, SIG_UNBLOCK, sys::arg(&sigsys), 0, sys::kSignalSetBytes);
  if (ustack_caught_stack == nullptr) make_stacks();
  return !sys::failed(sys::call(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON,
                                static_cast<long>(passing.begin), static_cast<long>(passing.bytes), 0));
}

/// SIGSYS for another reason, a seccomp filter's or kill(2)'s.
void call_program(int number, siginfo_t* info, void* context) {
  const uintptr_t handler = program.handler.load();
  const int flags = program.flags.load();
  if (handler == reinterpret_cast<uintptr_t>(SIG_IGN) && info->si_code <= 0) return;
  if (handler == reinterpret_cast<uintptr_t>(SIG_IGN) || handler == reinterpret_cast<uintptr_t>(SIG_DFL)) {
    struct sigaction fallback {};
    fallback.sa_handler = SIG_DFL;
    real::sigaction(SIGSYS, &fallback, nullptr);
    sys::call(SYS_tgkill, sys::getpid(), sys::call(SYS_gettid), SIGSYS);
    return;
  }
  const uint64_t mask = allowed(program.mask.load());
  sys::call(SYS_rt_sigprocmask, SIG_BLOCK, sys::arg(&mask), 0, sys::kSignalSetBytes);
  if ((flags & SA_RESETHAND) != 0) program.handler.store(reinterpret_cast<uintptr_t>(SIG_DFL));
  reinterpret_cast<void (*)(int, siginfo_t*, void*)>(handler)(number, info, context);
}

/// The kernel's handler while active().
void caught(int number, siginfo_t* info, void* context_pointer) {
  if (info->si_code != SYS_USER_DISPATCH) {
    const int error = errno;
    call_program(number, info, context_pointer);
    errno = error;
    return;
  }
  auto& registers = static_cast<ucontext_t*>(context_pointer)->uc_mcontext.gregs;
  const auto call = static_cast<uint64_t>(registers[REG_RAX]);
  if (info->si_arch != AUDIT_ARCH_X86_64) {  // int $0x80 has other numbers
    registers[REG_RAX] = -ENOSYS;
    return;
  }
  if (call == SYS_rt_sigreturn) {
    // It needs no more than the stack pointer, and never returns.
    registers[REG_RIP] = reinterpret_cast<greg_t>(&ustack_caught_sigreturn);
    return;
  }
  if (call < kCalls && is_hooked[call] != 0) {
    if (ustack_caught_stack == nullptr) make_stacks();
    registers[REG_RCX] = registers[REG_RIP];
    registers[REG_RIP] = reinterpret_cast<greg_t>(&ustack_caught_call);
    return;
  }
  registers[REG_RAX] =
      sys::call(static_cast<long>(call), registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                registers[REG_R10], registers[REG_R8], registers[REG_R9]);
}

/// The program itself: its text and what it needs.
struct Program {
  uintptr_t text_begin = UINTPTR_MAX;
  uintptr_t text_end = 0;
  /// Its parts; what doesn't fit is not rewritten.
  std::array<std::span<std::byte>, 4> texts;
  size_t text_count = 0;
  bool with_libc = false;
};

bool is_go_note(const std::byte* at, size_t bytes) {
  // Name and description of each are padded to four bytes.
  auto padded = [](size_t size) { return (size + 3) & ~size_t{3}; };
  constexpr uint32_t kBuildId = 4;
  while (bytes >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) note;
    std::memcpy(&note, at, sizeof note);
    const size_t whole = sizeof note + padded(note.n_namesz) + padded(note.n_descsz);
    if (whole > bytes) return false;
    if (note.n_type == kBuildId && note.n_namesz == 4 && std::memcmp(at + sizeof note, "Go\0", 4) == 0)
      return true;
    at += whole;
    bytes -= whole;
  }
  return false;
}

bool needs_libc(uintptr_t base, const ElfW(Dyn) * entries) {
  // The dynamic linker has made the table's address absolute where the program can be anywhere.
  const char* names = nullptr;
  for (const ElfW(Dyn)* entry = entries; entry->d_tag != DT_NULL; ++entry)
    if (entry->d_tag == DT_STRTAB)
      // NOLINTNEXTLINE(performance-no-int-to-ptr)
      names = reinterpret_cast<const char*>(entry->d_un.d_ptr < base ? entry->d_un.d_ptr + base
                                                                     : entry->d_un.d_ptr);
  if (names == nullptr) return false;
  for (const ElfW(Dyn)* entry = entries; entry->d_tag != DT_NULL; ++entry)
    if (entry->d_tag == DT_NEEDED && std::string_view(names + entry->d_un.d_val).starts_with("libc.so"))
      return true;
  return false;
}

int look_at(dl_phdr_info* info, size_t, void* result) {
  auto& found = *static_cast<Program*>(result);
  for (const ElfW(Phdr) & header : std::span(info->dlpi_phdr, info->dlpi_phnum)) {
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD && (header.p_flags & PF_X) != 0) {
      found.text_begin = std::min(found.text_begin, begin);
      found.text_end = std::max(found.text_end, begin + header.p_memsz);
      if (found.text_count < found.texts.size())
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        found.texts[found.text_count++] = {reinterpret_cast<std::byte*>(begin), header.p_filesz};
    }
    // NOLINTBEGIN(performance-no-int-to-ptr)
    if (header.p_type == PT_DYNAMIC)
      found.with_libc |= needs_libc(info->dlpi_addr, reinterpret_cast<const ElfW(Dyn)*>(begin));
    // NOLINTEND(performance-no-int-to-ptr)
  }
  return 1;  // the program comes first
}

/// All but the program's text, as far as one range can have it: what libraries and the kernel have mapped
/// lies above it, or (with an unlimited stack) below.
std::optional<Passing> find_passing(const Program& found) {
  constexpr uintptr_t kPage = 4096, kEnd = uintptr_t{1} << 47;
  const auto ours = reinterpret_cast<uintptr_t>(&ustack_caught_call);
  const auto libc = reinterpret_cast<uintptr_t>(real::find_dlopen());
  const uintptr_t end = (found.text_end + kPage - 1) & ~(kPage - 1);
  if (ours >= end && libc >= end) return Passing{end, kEnd - end};
  if (ours < found.text_begin && libc < found.text_begin) return Passing{0, found.text_begin & ~(kPage - 1)};
  return std::nullopt;
}

std::optional<std::string> begin(const Program& found, std::span<const long> numbers, Perform perform) {
  if (found.text_end == 0) return "the program has no text";
  if (!found.with_libc) return "the program does without libc, and makes its threads without it";
  const std::optional<Passing> range = find_passing(found);
  if (!range) return "the program lies in the midst of its libraries";
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsXsave = 1u << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsXsave) == 0 ||
      __get_cpuid_count(0xd, 0, &a, &b, &c, &d) == 0)
    return "the processor has no XSAVE";
  ustack_xsave_bytes = (b + 63) / 64 * 64;
  if (pthread_key_create(&stacks_key, free_stacks) != 0) return "no memory";

  real::resolve();
  passing = *range;
  perform_call = perform;
  for (long number : numbers) is_hooked[number] = 1;
  struct sigaction before {
  }, handler{};
  handler.sa_sigaction = caught;
  handler.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART;
  if (real::sigaction(SIGSYS, &handler, &before) != 0) return "SIGSYS can't be handled";
  program.handler.store(reinterpret_cast<uintptr_t>(before.sa_handler));
  if (!arm()) {
    real::sigaction(SIGSYS, &before, nullptr);
    return "the kernel has no Syscall User Dispatch (Linux 5.11)";
  }
  on = true;
  for (std::span<std::byte> text : std::span(found.texts).first(found.text_count))
    rewrite_sites(text, passing);
  return std::nullopt;
}

}  // namespace

bool is_wanted(const io::Config& config) {
  if (config.syscalls != io::OwnSyscalls::automatic) return config.syscalls == io::OwnSyscalls::catch_them;
  // NOLINTBEGIN(performance-no-int-to-ptr)
  const auto* headers = reinterpret_cast<const ElfW(Phdr)*>(getauxval(AT_PHDR));
  const size_t count = getauxval(AT_PHNUM);
  if (headers == nullptr) return false;
  // Where the program was put: PT_PHDR is these headers themselves.
  uintptr_t base = 0;
  for (const ElfW(Phdr) & header : std::span(headers, count))
    if (header.p_type == PT_PHDR) base = reinterpret_cast<uintptr_t>(headers) - header.p_vaddr;
  for (const ElfW(Phdr) & header : std::span(headers, count))
    if (header.p_type == PT_NOTE &&
        is_go_note(reinterpret_cast<const std::byte*>(base + header.p_vaddr), header.p_memsz))
      return true;
  // NOLINTEND(performance-no-int-to-ptr)
  return false;
}

[[gnu::noinline, gnu::cold]] void start(const io::Config& config, std::span<const long> numbers,
                                        Perform perform) {
  Program found;
  dl_iterate_phdr(look_at, &found);
  const std::optional<std::string> problem = begin(found, numbers, perform);
  if (!problem) return;
  if (config.syscalls == io::OwnSyscalls::catch_them) {
    const std::string line = "ustack: USTACK_SYSCALLS=catch: " + *problem + "\n";
    sys::write(STDERR_FILENO, line.data(), line.size());
  }
}

bool active() { return on; }

void arm_thread() {
  if (on) arm();
}

int program_action(const struct sigaction* action, struct sigaction* old) {
  struct sigaction before {};
  before.sa_sigaction = reinterpret_cast<void (*)(int, siginfo_t*, void*)>(program.handler.load());  // NOLINT
  before.sa_flags = program.flags.load();
  const uint64_t mask = program.mask.load();
  std::memcpy(&before.sa_mask, &mask, sizeof mask);
  if (action != nullptr) {
    uint64_t wanted;
    std::memcpy(&wanted, &action->sa_mask, sizeof wanted);
    program.mask.store(wanted);
    program.flags.store(action->sa_flags);
    program.handler.store(reinterpret_cast<uintptr_t>(action->sa_sigaction));
  }
  if (old != nullptr) *old = before;
  return 0;
}

void allow(sigset_t& mask) { sigdelset(&mask, SIGSYS); }

}  // namespace ustack::shim::catching

void ustack_handle_caught(ustack::shim::catching::CaughtCall* call) {
  using namespace ustack::shim::catching;
  const int error = errno;
  call->rax = perform_call(call->rax, {call->rdi, call->rsi, call->rdx, call->r10, call->r8, call->r9});
  errno = error;
}

#else  // no other machine of ours has Syscall User Dispatch

namespace ustack::shim::catching {

bool is_wanted(const io::Config& config) { return config.syscalls == io::OwnSyscalls::catch_them; }
void start(const io::Config& config, std::span<const long>, Perform) {
  if (config.syscalls != io::OwnSyscalls::catch_them) return;
  constexpr std::string_view kText = "ustack: USTACK_SYSCALLS=catch: only on x86-64\n";
  io::sys::write(STDERR_FILENO, kText.data(), kText.size());
}
bool active() { return false; }
void arm_thread() {}
int program_action(const struct sigaction*, struct sigaction*) { return -1; }
void allow(sigset_t&) {}

}  // namespace ustack::shim::catching

#endif
