// The places in a program's text from which caught calls come often (catching.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ustack::shim::catching {

/// Numbers of system calls that there may be.
inline constexpr size_t kCalls = 512;
/// By a call's number: 1 if it is one for a hook. Written before anything is caught.
extern uint8_t is_hooked[kCalls];

}  // namespace ustack::shim::catching
