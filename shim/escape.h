// Descriptors that left for another program: the keeper holds one end of a kernel socket pair for each and
// pumps between it and our endpoint. All of this runs in the keeper (keeper_process.cpp), which calls it in
// its turns.
#pragma once

#include "io/descriptor.h"
#include "shim/driver.h"
#include "shim/open_file.h"

namespace ustack::shim::escape {

/// keeper::hand_over() has sent `end`; takes over it and a reference to `file`. Lock: the host's.
void adopt(OpenFile& file, io::Descriptor end);
/// An epoll descriptor that becomes readable when a kernel end needs service; -1: there is none.
int kernel_fd();
/// Serves what is ready. Called once in each of the keeper's turns. Lock: the host's, as `lock`.
void run(HostLock& lock);
/// Nothing escaped is left: the keeper may leave.
bool idle();

}  // namespace ustack::shim::escape
