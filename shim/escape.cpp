#include "shim/escape.h"

namespace ustack::shim::escape {

// Nothing is served yet: the other program finds its end closed, and the connection ends as by close(2).
void adopt(OpenFile& file, io::Descriptor) { file.release(); }

int kernel_fd() { return -1; }

void run(HostLock&) {}

bool idle() { return true; }

}  // namespace ustack::shim::escape
