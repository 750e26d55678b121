// Hooks of wait() and its kin: a program's children are those that it made. The keeper is a child too, of the
// process that started it, but one whose end has no signal, which the kernel reports only to who asks for
// such (__WCLONE,
// __WALL).
#include <sys/resource.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>

#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/hooks.h"
#include "shim/keeper.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

bool asks_for_clones(int options) {
  return (options & (__WALL | __WCLONE)) != 0 && keeper::child_to_hide() != 0;
}

/// The numbers in a file of them, but for the keeper's.
bool lists_another(const char* path) {
  io::Descriptor file(static_cast<int>(sys::openat(path, O_RDONLY | O_CLOEXEC)));
  int32_t number = 0;
  char text[512];
  for (long bytes; (bytes = sys::read(file.get(), text, sizeof text)) > 0;) {
    for (long i = 0; i < bytes; ++i) {
      if (text[i] != ' ') {
        number = number * 10 + (text[i] - '0');
        continue;
      }
      if (number != keeper::child_to_hide()) return true;
      number = 0;
    }
  }
  return false;
}

/// Some thread of this process has a child that is not the keeper (proc(5), /proc/PID/task/TID/children).
bool has_other_children() {
  io::Descriptor tasks(static_cast<int>(sys::openat("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  struct Entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[1];
  };
  alignas(Entry) char entries[1024];
  for (long bytes; (bytes = sys::call(SYS_getdents64, tasks.get(), sys::arg(entries), sizeof entries)) > 0;) {
    for (long at = 0; at < bytes;) {
      auto* entry = reinterpret_cast<Entry*>(entries + at);
      at += entry->length;
      char path[64] = "/proc/self/task/";
      if (entry->name[0] == '.' || std::strlen(entry->name) > 20) continue;
      std::strcat(std::strcat(path, entry->name), "/children");
      if (lists_another(path)) return true;
    }
  }
  return false;
}

/// `wait(options)` gives a child's number, 0 (WNOHANG) or -1 with errno. The same without the keeper.
template <typename Wait>
pid_t wait_for_others(int options, Wait wait) {
  for (;;) {
    pid_t pid = wait(options | WNOHANG);
    if (pid == 0 && !has_other_children()) {
      errno = ECHILD;
      return -1;
    }
    if (pid == 0 && (options & WNOHANG) == 0) pid = wait(options);
    if (pid != keeper::child_to_hide() || pid <= 0) return pid;
    if ((options & WNOWAIT) != 0) {
      // Seen, but not taken: it would be seen for ever.
      sys::call(SYS_wait4, pid, 0, __WCLONE, 0);
    }
    keeper::forget_child();
  }
}

}  // namespace

namespace hook {

pid_t wait4(pid_t pid, int* status, int options, rusage* usage) {
  if (!asks_for_clones(options)) return real::wait4(pid, status, options, usage);
  if (pid == keeper::child_to_hide()) {
    errno = ECHILD;
    return -1;
  }
  if (pid > 0) return real::wait4(pid, status, options, usage);
  return wait_for_others(options, [&](int with) { return real::wait4(pid, status, with, usage); });
}

pid_t waitpid(pid_t pid, int* status, int options) {
  if (!asks_for_clones(options)) return real::waitpid(pid, status, options);
  return hook::wait4(pid, status, options, nullptr);
}

pid_t wait3(int* status, int options, rusage* usage) {
  if (!asks_for_clones(options)) return real::wait3(status, options, usage);
  return hook::wait4(-1, status, options, usage);
}

int waitid(idtype_t type, id_t id, siginfo_t* info, int options) {
  if (!asks_for_clones(options) || type == P_PIDFD) return real::waitid(type, id, info, options);
  if (type == P_PID && static_cast<pid_t>(id) == keeper::child_to_hide()) {
    errno = ECHILD;
    return -1;
  }
  if (type == P_PID) return real::waitid(type, id, info, options);
  siginfo_t own{};
  siginfo_t* told = info != nullptr ? info : &own;
  pid_t pid = wait_for_others(options, [&](int with) {
    told->si_pid = 0;
    return real::waitid(type, id, told, with) == 0 ? told->si_pid : -1;
  });
  return pid < 0 ? -1 : 0;
}

}  // namespace hook
}  // namespace ustack::shim
