// The hook of the call by which a process restricts itself.
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "shim/hooks.h"
#include "shim/process.h"
#include "shim/sandbox.h"
#include "shim/scope.h"

namespace ustack::shim::hook {

int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
  if (option != PR_SET_SECCOMP || a != SECCOMP_MODE_FILTER || !Process::has_host() || Scope::inside())
    return real::prctl(option, a, b, c, d);
  auto install = [](const sock_fprog* program) {
    return real::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, reinterpret_cast<unsigned long>(program), 0, 0);
  };
  return sandbox::put_on(reinterpret_cast<const sock_fprog*>(b), install);
}

}  // namespace ustack::shim::hook
