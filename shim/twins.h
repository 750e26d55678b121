// Which listeners' twins (loopback_twin.h) this process has. A file is shared with relatives, a descriptor is
// not: one that was forked before the file listened has no twin, one forked since then has inherited it, and
// each closes its own with the last descriptor it has of the file, so that the kernel's port is free when the
// last of them has. The list is of the process's own memory; fork copies it with the descriptors. All under
// the host's lock, but a child may have been forked by another thread at any moment: one that it doesn't find
// in the list it closes like any descriptor of others (fork.cpp).
#pragma once

#include "shim/loopback_twin.h"
#include "stack/base/result.h"

namespace ustack::shim {

class FdTable;
class OpenFile;

namespace twins {

/// More listeners than that of one process are reached through the stack alone.
inline constexpr int kMost = 128;

/// Takes over what this process has just made. False: there are too many, it is still the caller's.
bool add(const OpenFile& file, Twin& twin);
/// What is readable when the file's twin in this process has a connection; -1: it has none.
int of(const OpenFile& file);
/// accept4(2) of it; EAGAIN also where there is none. Each of its listeners has its turn.
Result<int> accept(const OpenFile& file, int flags);
void set_backlog(const OpenFile& file, int backlog);
/// Shuts it down, for relatives too, and closes it.
void end(const OpenFile& file);
/// Closes it.
void close(const OpenFile& file);
/// `fd` belongs to one.
bool has(int fd);
/// In a child of fork: closes those of files that `table` does not refer to; nullptr: all.
void keep_those_of(FdTable* table);
/// In the keeper, which has closed what it has inherited.
void forget_all();

}  // namespace twins

}  // namespace ustack::shim
