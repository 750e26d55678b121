// Which descriptors of this process are the library's own, so that a program that closes everything it
// doesn't know, or duplicates over any number, leaves them alone.
#pragma once

namespace ustack::io {

/// move_high() adds, Descriptor::reset() removes; who lets a descriptor out of a Descriptor and closes it by
/// other means removes it before. Free of locks, so that signal handlers and children after fork (which
/// inherit the list with the descriptors) may ask. More than kMostOwn are not remembered, which costs only
/// their protection.
inline constexpr int kMostOwn = 256;
void add_own_descriptor(int fd);
void remove_own_descriptor(int fd);
/// A load and a compare where `fd` is below all of them.
bool is_own_descriptor(int fd);
/// The smallest of the library's own that is >= `fd`; -1: none.
int next_own_descriptor(int fd);

}  // namespace ustack::io
