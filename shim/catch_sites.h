// The places in a program's text from which caught calls come often (catching.h), rewritten so that they need
// no signal: a jump to a stub, which makes calls that are not ours where it is and leads the others to
// ustack_caught_call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ustack::shim::catching {

/// Numbers of system calls that there may be.
inline constexpr size_t kCalls = 512;
/// By a call's number: 1 if it is one for a hook. Written before anything is caught.
extern uint8_t is_hooked[kCalls];

/// Addresses from which calls pass.
struct Passing {
  uintptr_t begin = 0;
  uintptr_t bytes = 0;

  bool has(uintptr_t at, size_t size) const {
    return at >= begin && at - begin <= bytes && bytes - (at - begin) >= size;
  }
};

/// Rewrites what is known of Go's runtime in `text`, which is mapped to be executed: `syscall` instructions
/// whose surroundings leave no doubt that they are instructions, and that nothing jumps behind them. The
/// stubs come within 2 GB, in `passing`. Returns how many; none where the kernel doesn't let text change.
/// Before a second thread runs.
size_t rewrite_sites(std::span<std::byte> text, const Passing& passing);

}  // namespace ustack::shim::catching
