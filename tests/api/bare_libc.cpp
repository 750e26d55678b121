// Linked into api_tests_bare: libc's entries by system calls of the program's own, as Go's runtime makes
// them, so that none of the library's hooks is called by its name. What symbols.h has no system call for
// stays libc's.
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <type_traits>

#include "shim/real.h"

namespace bare {

// Two that differ in what follows the instruction: by that the library finds those that it rewrites. And the
// note by which it knows that Go has made the program.
asm(R"(
    .macro BARE_CALL name, behind
    .globl \name
    .type \name, @function
\name:
    movq %rdi, %rax
    movq %rsi, %rdi
    movq %rdx, %rsi
    movq %rcx, %rdx
    movq %r8, %r10
    movq %r9, %r8
    movq 8(%rsp), %r9
    syscall
    \behind
    ret
    .size \name, .-\name
    .endm
    .text
    BARE_CALL bare_rewritten, "cmpq $-4095, %rax"
    BARE_CALL bare_caught, "nop"

    .section .note.go.buildid, "a", @note
    .p2align 2
    .long 4, 4, 4
    .asciz "Go\0"
    .asciz "id:"
    .text
)");
extern "C" long bare_rewritten(long number, ...);
extern "C" long bare_caught(long number, ...);

template <typename Return, long kNumber, typename... Words>
Return call(Words... words) {
  [[maybe_unused]] auto word = []<typename T>(T value) {
    if constexpr (std::is_pointer_v<T>)
      return reinterpret_cast<long>(value);
    else
      return static_cast<long>(value);
  };
  constexpr auto* kCall = kNumber % 2 == 0 ? bare_rewritten : bare_caught;
  long result = kCall(kNumber, word(words)...);
  if (result < 0 && result >= -4095) {
    errno = static_cast<int>(-result);
    result = -1;
  }
  if constexpr (!std::is_void_v<Return>) return static_cast<Return>(result);
}

// What has no system call of its own in the table is not defined.
#define BARE_SECOND(first, second, ...) second
#define BARE_NOT_kNone ~, BARE_SKIP
#define BARE_NOT_kItself ~, BARE_SKIP
#define BARE_SKIP(result, name, parameters, arguments, number)
#define BARE_DEFINE(result, name, parameters, arguments, number)                \
  __attribute__((visibility("default"))) result name parameters __asm__(#name); \
  result name parameters { return call<result, number> arguments; }
#define BARE_CHOICE(...) BARE_SECOND(__VA_ARGS__, BARE_DEFINE, ~)
#define BARE_ENTRY(result, name, parameters, arguments, number) \
  BARE_CHOICE(BARE_NOT_##number)(result, name, parameters, arguments, number)

USTACK_SOCKET_SYMBOLS(BARE_ENTRY)
USTACK_READINESS_SYMBOLS(BARE_ENTRY)
USTACK_DESCRIPTOR_SYMBOLS(BARE_ENTRY)
USTACK_FRESH_SYMBOLS(BARE_ENTRY)
USTACK_FRESH_PAIR_SYMBOLS(BARE_ENTRY)
USTACK_STAT_SYMBOLS(BARE_ENTRY)
USTACK_PROCESS_SYMBOLS(BARE_ENTRY)

}  // namespace bare
