// System calls by their number, for programs that make them without libc (catching.h).
#pragma once

#include <span>

namespace ustack::shim {

/// The calls that call_caught() is for.
std::span<const long> numbers_to_catch();
/// Makes the call `number` by its hook; a negative errno on failure, as the kernel returns it.
long call_caught(long number, const long (&words)[6]);

}  // namespace ustack::shim
