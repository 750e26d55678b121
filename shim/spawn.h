// posix_spawn(3) from a process with a host.
#pragma once

#include <spawn.h>

namespace ustack::shim {

using SpawnFunction = int (*)(pid_t*, const char*, const posix_spawn_file_actions_t*,
                              const posix_spawnattr_t*, char* const*, char* const*);

/// Calls `real`, libc's own, so that the child finds ends outside (escape.h) on the numbers that it inherits.
/// libc works off the file actions in a child that shares this process's memory, by system calls that nobody
/// sees; so it is called by a thread with a descriptor table of its own, in which the ends have taken their
/// places.
int spawn(SpawnFunction real, pid_t* pid, const char* program, const posix_spawn_file_actions_t* actions,
          const posix_spawnattr_t* attributes, char* const* arguments, char* const* environment);

/// posix_spawn_file_actions_adddup2() has named this number: some spawn may take it along although it is
/// CLOEXEC.
void expect_spawn_source(int fd);

}  // namespace ustack::shim
