// Hooks that start children inside libc.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "shim/hooks.h"
#include "shim/process.h"
#include "shim/process_lock.h"
#include "shim/scope.h"
#include "shim/spawn.h"

namespace ustack::shim {

namespace {

char shell_name[] = "sh", shell_option[] = "-c";
constexpr char kShell[] = "/bin/sh";

int spawn_shell(pid_t* pid, const char* command, const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attributes) {
  char* arguments[] = {shell_name, shell_option, const_cast<char*>(command), nullptr};
  return spawn(real::posix_spawn, pid, kShell, actions, attributes, arguments, environ);
}

/// What system(3) does to signals while its child runs, and what the child gets.
class SignalsOfSystem {
 public:
  SignalsOfSystem() {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    hook::sigaction(SIGINT, &ignore, &interrupt_);
    hook::sigaction(SIGQUIT, &ignore, &quit_);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &child, &mask_);
    sigset_t defaults;
    sigemptyset(&defaults);
    if (interrupt_.sa_handler != SIG_IGN) sigaddset(&defaults, SIGINT);
    if (quit_.sa_handler != SIG_IGN) sigaddset(&defaults, SIGQUIT);
    posix_spawnattr_init(&attributes_);
    posix_spawnattr_setsigmask(&attributes_, &mask_);
    posix_spawnattr_setsigdefault(&attributes_, &defaults);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  }
  ~SignalsOfSystem() {
    posix_spawnattr_destroy(&attributes_);
    hook::sigaction(SIGINT, &interrupt_, nullptr);
    hook::sigaction(SIGQUIT, &quit_, nullptr);
    pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  }
  SignalsOfSystem(const SignalsOfSystem&) = delete;
  SignalsOfSystem& operator=(const SignalsOfSystem&) = delete;
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  struct sigaction interrupt_ {
  }, quit_{};
  sigset_t mask_{};
  posix_spawnattr_t attributes_{};
};

/// A stream of popen()'s.
struct Piped {
  FILE* stream;
  pid_t pid;
  Piped* next;
};
ProcessLock piped_lock;
Piped* piped = nullptr;

int wait_for(pid_t pid) {
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return status;
}

/// The child's side of a popen(): `theirs` on its standard input or output. Streams that are still open from
/// earlier calls are not the child's (POSIX).
int spawn_piped(pid_t* pid, const char* command, int theirs, int number) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  int error = 0;
  {
    std::lock_guard held(piped_lock);
    for (Piped* each = piped; each != nullptr && error == 0; each = each->next)
      if (int fd = fileno(each->stream); fd != number)
        error = posix_spawn_file_actions_addclose(&actions, fd);
  }
  if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, theirs, number);
  if (error == 0) error = spawn_shell(pid, command, &actions, nullptr);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

FILE* open_pipe(const char* command, const char* mode) {
  const bool reads = std::strchr(mode, 'r') != nullptr, writes = std::strchr(mode, 'w') != nullptr;
  if (reads == writes) {
    errno = EINVAL;
    return nullptr;
  }
  int ends[2];
  auto* entry = static_cast<Piped*>(malloc(sizeof(Piped)));
  if (entry == nullptr || hook::pipe2(ends, O_CLOEXEC) != 0) {
    free(entry);
    return nullptr;
  }
  const int ours = reads ? ends[0] : ends[1], theirs = reads ? ends[1] : ends[0];
  int error = spawn_piped(&entry->pid, command, theirs, reads ? STDOUT_FILENO : STDIN_FILENO);
  hook::close(theirs);
  entry->stream = error == 0 ? real::fdopen(ours, reads ? "r" : "w") : nullptr;
  if (entry->stream == nullptr) {
    hook::close(ours);
    free(entry);
    if (error != 0) errno = error;
    return nullptr;
  }
  if (std::strchr(mode, 'e') == nullptr) hook::fcntl(ours, F_SETFD, 0);
  std::lock_guard held(piped_lock);
  entry->next = piped;
  piped = entry;
  return entry->stream;
}

}  // namespace

namespace hook {

int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attributes, char* const* arguments, char* const* environment) {
  return spawn(real::posix_spawn, pid, path, actions, attributes, arguments, environment);
}

int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attributes, char* const* arguments, char* const* environment) {
  return spawn(real::posix_spawnp, pid, file, actions, attributes, arguments, environment);
}

int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t* actions, int fd, int to) {
  expect_spawn_source(fd);
  return real::posix_spawn_file_actions_adddup2(actions, fd, to);
}

int system(const char* command) {
  if (!Process::has_host() || Scope::inside() || command == nullptr) return real::system(command);
  SignalsOfSystem signals;
  pid_t pid;
  // What the shell says that can't be started (system(3)).
  constexpr int kNoShell = 127 << 8;
  return spawn_shell(&pid, command, nullptr, signals.attributes()) == 0 ? wait_for(pid) : kNoShell;
}

FILE* popen(const char* command, const char* mode) {
  if (!Process::has_host() || Scope::inside()) return real::popen(command, mode);
  return open_pipe(command, mode);
}

int pclose(FILE* stream) {
  Piped* entry = nullptr;
  {
    std::lock_guard held(piped_lock);
    for (Piped** at = &piped; *at != nullptr; at = &(*at)->next) {
      if ((*at)->stream != stream) continue;
      entry = *at;
      *at = entry->next;
      break;
    }
  }
  if (entry == nullptr) return real::pclose(stream);
  pid_t pid = entry->pid;
  free(entry);
  hook::fclose(stream);
  return wait_for(pid);
}

}  // namespace hook
}  // namespace ustack::shim
