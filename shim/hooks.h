// Declarations of all hooks. A hook is an ordinary function of this namespace whose symbol is the libc name
// itself, so that libc's headers (their noexcept, fortified inlines, macros and builtins) can't disagree with
// it. Its body: ours? then the object's method; else real::NAME.
#pragma once

#include "shim/real.h"

#define USTACK_EXPORT __attribute__((visibility("default")))

namespace ustack::shim::hook {

#define USTACK_HOOK(result, name, parameters, arguments, number) \
  USTACK_EXPORT result name parameters __asm__(#name);
USTACK_SYMBOLS(USTACK_HOOK)
#undef USTACK_HOOK

#define USTACK_HOOK(result, other, name, parameters, arguments) \
  USTACK_EXPORT result other parameters __asm__(#other);
USTACK_ALIASES(USTACK_HOOK)
USTACK_ASSEMBLED_ALIASES(USTACK_HOOK)
#undef USTACK_HOOK

#define USTACK_HOOK(result, name, parameters) USTACK_EXPORT result name parameters __asm__(#name);
USTACK_LIST_SYMBOLS(USTACK_HOOK)
#undef USTACK_HOOK

}  // namespace ustack::shim::hook
