// Hooks of setrlimit() and prlimit(): a limit of the address space (RLIMIT_AS, vsftpd sets one) is about the
// program's memory. The host's mapping, large and mostly empty, comes on top of it; else not one page more
// could be mapped. A hard limit of descriptors is put off where the process may have to take some when it
// gives up root (parting.h).
#include <sys/resource.h>

#include <algorithm>

#include "io/syscalls.h"
#include "shim/hooks.h"
#include "shim/process.h"
#include "shim/process_state.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

rlim_t raised(rlim_t limit, rlim_t most) {
  if (limit == RLIM_INFINITY) return limit;
  const rlim_t more = limit + shared_host->region->size();
  return more < limit ? RLIM_INFINITY : std::min(more, most);
}

/// The limit to set in place of `*limit`; nullptr if it stays.
const rlimit* in_place_of(int resource, const rlimit* limit, rlimit& room) {
  if ((resource != RLIMIT_AS && resource != RLIMIT_NOFILE) || limit == nullptr || !Process::has_host() ||
      Scope::inside())
    return nullptr;
  if (!copy_from_user(&room, limit, sizeof room).ok()) return nullptr;
  rlimit now{};
  if (resource == RLIMIT_NOFILE) {
    if (!Process::config().parts_by_credentials || room.rlim_cur > room.rlim_max) return nullptr;
    io::sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, io::sys::arg(&now));
    process_state().hard_limit_of_files = room.rlim_max;
    room.rlim_max = std::max(room.rlim_max, now.rlim_max);
    return &room;
  }
  io::sys::call(SYS_prlimit64, 0, RLIMIT_AS, 0, io::sys::arg(&now));
  // Not above what only the superuser may go beyond, unless the program asks for that itself.
  room.rlim_max = raised(room.rlim_max, std::max(room.rlim_max, now.rlim_max));
  room.rlim_cur = raised(room.rlim_cur, std::max(room.rlim_cur, room.rlim_max));
  return &room;
}

}  // namespace

namespace hook {

int setrlimit(int resource, const rlimit* limit) {
  rlimit room;
  const rlimit* ours = in_place_of(resource, limit, room);
  return real::setrlimit(resource, ours != nullptr ? ours : limit);
}

int prlimit(pid_t pid, int resource, const rlimit* limit, rlimit* old) {
  rlimit room;
  const rlimit* ours = pid == 0 || pid == Process::id() ? in_place_of(resource, limit, room) : nullptr;
  return real::prlimit(pid, resource, ours != nullptr ? ours : limit, old);
}

}  // namespace hook
}  // namespace ustack::shim
