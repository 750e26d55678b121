// Noticing that this process is a fork of the one that made something, at the cost of a load.
#pragma once

#include <cstdint>

namespace ustack::io {

/// A number that differs between a process and its forks (clone without CLONE_VM included: the word lives in
/// MADV_WIPEONFORK memory). Never 0. The first call in a process takes some microseconds.
uint64_t fork_generation();

}  // namespace ustack::io
