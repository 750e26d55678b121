// The hook of dlopen(3). It goes by the RUNPATH of its caller, which it knows by its return address: libc's
// own must be entered by a jump, not a call.
#include <dlfcn.h>

#include <cstring>

#include "shim/deep_binding.h"
#include "shim/hooks.h"

/// What is to be jumped to. A library that is named without its path is looked for by RUNPATH, and so can't
/// be bound.
extern "C" __attribute__((used, visibility("hidden"))) ustack::shim::real::Dlopen ustack_dlopen(
    const char* file, int flags) {
  const bool binds = (flags & RTLD_DEEPBIND) != 0 && file != nullptr && std::strchr(file, '/') != nullptr;
  return binds ? &ustack::shim::deep_binding::open : ustack::shim::real::find_dlopen();
}

#if defined(__x86_64__)
asm(R"(
    .text
    .globl dlopen
    .type dlopen, @function
dlopen:
    .cfi_startproc
    endbr64
    pushq %rdi
    .cfi_adjust_cfa_offset 8
    pushq %rsi
    .cfi_adjust_cfa_offset 8
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    call ustack_dlopen
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %rsi
    .cfi_adjust_cfa_offset -8
    popq %rdi
    .cfi_adjust_cfa_offset -8
    jmp *%rax
    .cfi_endproc
    .size dlopen, .-dlopen
)");
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl dlopen
    .type dlopen, @function
dlopen:
    .cfi_startproc
    stp x29, x30, [sp, #-32]!
    stp x0, x1, [sp, #16]
    bl ustack_dlopen
    mov x16, x0
    ldp x0, x1, [sp, #16]
    ldp x29, x30, [sp], #32
    br x16
    .cfi_endproc
    .size dlopen, .-dlopen
)");
#endif
