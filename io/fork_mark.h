// Noticing that this process is a fork of the one that made something, at the cost of a load.
#pragma once

#include <cstdint>

namespace ustack::io {

/// A number that differs between a process and its forks (clone without CLONE_VM included: the word lives in
/// MADV_WIPEONFORK memory). Never 0. The first call in a process takes some microseconds.
uint64_t fork_generation();
/// Where the word lives, for who unmaps what it doesn't need; nullptr before the first call.
const void* fork_mark_page();

}  // namespace ustack::io
