// Hooks that make and end processes.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "io/descriptor.h"
#include "io/own_descriptors.h"
#include "io/syscalls.h"
#include "shim/cancellation.h"
#include "shim/catching.h"
#include "shim/departure.h"
#include "shim/hooks.h"
#include "shim/lending.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "shim/shared_host.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

/// _Fork() and what stands in for vfork(): no fork handlers of pthread_atfork run, so ours are called here.
pid_t fork_without_handlers() {
  if (Scope::inside()) return real::_Fork();
  Process::before_fork();
  pid_t pid = real::_Fork();
  if (pid == 0) {
    Process::after_fork_in_child();
    return 0;
  }
  int error = errno;
  Process::after_fork_in_parent();
  Process::fork_returned(pid);
  errno = error;
  return pid;
}

/// What a thread whose calls are caught does.
struct Start {
  void* (*routine)(void*);
  void* argument;
};

void* start_armed(void* given) {
  auto* start = static_cast<Start*>(given);
  const Start copy = *start;
  free(start);
  catching::arm_thread();
  return copy.routine(copy.argument);
}

/// Whether exec of `path` looks as if it would succeed.
bool executable(int at, const char* path, int flags) {
  struct stat status {};
  return sys::call(SYS_newfstatat, at, sys::arg(path), sys::arg(&status), flags & AT_EMPTY_PATH) == 0 &&
         S_ISREG(status.st_mode) &&
         sys::call(SYS_faccessat2, at, sys::arg(path), X_OK, AT_EACCESS | (flags & AT_EMPTY_PATH)) == 0;
}

bool executable(const char* path) { return executable(AT_FDCWD, path, 0); }

/// The same for a name that execvp() looks for in PATH.
bool executable_in_path(const char* file) {
  if (std::strchr(file, '/') != nullptr) return executable(file);
  const char* variable = getenv("PATH");
  std::string_view rest = variable != nullptr ? variable : "/bin:/usr/bin";
  for (;;) {
    size_t end = rest.find(':');
    std::string_view directory = rest.substr(0, end);
    char path[PATH_MAX];
    if (directory.size() + std::strlen(file) + 2 <= sizeof path) {
      size_t length = directory.copy(path, directory.size());
      if (length > 0) path[length++] = '/';
      std::strcpy(path + length, file);
      if (executable(path)) return true;
    }
    if (end == std::string_view::npos) return false;
    rest.remove_prefix(end + 1);
  }
}

/// A real exec and what leaving the host takes. Where there is no keeper the process gives its sockets up
/// before it knows that the exec succeeds, if it looks as if it would.
template <typename Exec, typename Likely>
int leave_by(Exec&& exec, Likely&& likely) {
  if (!Process::has_host() || Scope::inside()) return exec();
  Departure departure;
  if (!departure.prepare() && likely()) Process::linger();
  int result = exec();
  int error = errno;
  departure.undo();
  errno = error;
  return result;
}

/// The arguments of an execl...() as an array. `list` is read up to its nullptr; an environment behind it is
/// left. False: more than a stack may hold (libc's own gives E2BIG too).
struct ArgumentArray {
  static constexpr size_t kMost = 4096;
  char* arguments[kMost + 1];

  bool read(const char* first, va_list& list) {
    size_t count = 0;
    for (const char* argument = first;; argument = va_arg(list, const char*)) {
      if (count > kMost) return false;
      arguments[count++] = const_cast<char*>(argument);
      if (argument == nullptr) return true;
    }
  }
};

int too_many() {
  errno = E2BIG;
  return -1;
}

}  // namespace

/// vfork() where there is a host: the child runs our hooks (dup2, close, exec), which must not happen in the
/// parent's memory. So it is a fork whose parent waits, as after vfork(), until the child has exec'ed or
/// ended.
extern "C" __attribute__((used, visibility("hidden"))) pid_t ustack_vfork_with_host() {
  if (Scope::inside()) return real::_Fork();
  // Closed by exec (O_CLOEXEC) and by the end of the process.
  int ends[2];
  bool piped = sys::call(SYS_pipe2, sys::arg(ends), O_CLOEXEC) == 0;
  io::Descriptor reading(piped ? ends[0] : -1), writing(piped ? ends[1] : -1);
  if (piped) {
    (void)io::move_high(reading);
    (void)io::move_high(writing);
  }
  // The child closes what it finds of its parent's, but for what it doesn't know.
  if (writing) io::remove_own_descriptor(writing.get());
  pid_t pid = fork_without_handlers();
  if (pid == 0) {
    reading.release();
    io::add_own_descriptor(writing.release());
    return 0;
  }
  int error = errno;
  writing.reset();
  char byte;
  while (pid > 0 && piped && sys::read(reading.get(), &byte, 1) == -EINTR) {
  }
  errno = error;
  return pid;
}

extern "C" __attribute__((used, visibility("hidden"))) bool ustack_has_host() {
  // vfork's child shares our memory and must not find itself in the dynamic linker.
  real::resolve();
  return Process::has_host();
}

namespace hook {

pid_t fork() {
  // Our fork handlers (start_up.cpp) do the work, also for forks inside libc.
  pid_t pid = real::fork();
  if (pid != 0) Process::fork_returned(pid);
  return pid;
}

pid_t _Fork() {
  real::resolve();
  return Process::has_host() ? fork_without_handlers() : real::_Fork();
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*routine)(void*),
                   void* argument) {
  if (!catching::active()) return real::pthread_create(thread, attributes, routine, argument);
  auto* start = static_cast<Start*>(malloc(sizeof(Start)));
  if (start == nullptr) return EAGAIN;
  *start = {routine, argument};
  const int error = real::pthread_create(thread, attributes, start_armed, start);
  if (error != 0) free(start);
  return error;
}

int pthread_cancel(pthread_t thread) {
  int result = real::pthread_cancel(thread);
  if (result == 0 && shared_host != nullptr && !Scope::inside()) cancellation::wake(thread);
  return result;
}

int daemon(int stay, int keep_open) {
  if (!Process::has_host() || Scope::inside()) return real::daemon(stay, keep_open);
  // libc's own ends the parent without our seeing it.
  pid_t pid = hook::fork();
  if (pid < 0) return -1;
  if (pid > 0) hook::_exit(0);
  if (setsid() == -1) return -1;
  if (stay == 0 && chdir("/") == -1) return -1;
  if (keep_open != 0) return 0;
  int null = hook::open("/dev/null", O_RDWR, 0);
  if (null < 0) return -1;
  for (int fd = 0; fd < 3; ++fd)
    if (hook::dup2(null, fd) < 0) return -1;
  if (null > 2) hook::close(null);
  return 0;
}

int execve(const char* path, char* const* arguments, char* const* environment) {
  return leave_by([&] { return real::execve(path, arguments, environment); },
                  [&] { return executable(path); });
}

int execv(const char* path, char* const* arguments) {
  return leave_by([&] { return real::execv(path, arguments); }, [&] { return executable(path); });
}

int execvp(const char* file, char* const* arguments) {
  return leave_by([&] { return real::execvp(file, arguments); }, [&] { return executable_in_path(file); });
}

int execvpe(const char* file, char* const* arguments, char* const* environment) {
  return leave_by([&] { return real::execvpe(file, arguments, environment); },
                  [&] { return executable_in_path(file); });
}

int fexecve(int fd, char* const* arguments, char* const* environment) {
  return leave_by([&] { return real::fexecve(fd, arguments, environment); },
                  [&] { return executable(fd, "", AT_EMPTY_PATH); });
}

int execveat(int at, const char* path, char* const* arguments, char* const* environment, int flags) {
  return leave_by([&] { return real::execveat(at, path, arguments, environment, flags); },
                  [&] { return executable(at, path, flags); });
}

int execl(const char* path, const char* argument, ...) {
  ArgumentArray array;
  va_list list;
  va_start(list, argument);
  bool fits = array.read(argument, list);
  va_end(list);
  return fits ? hook::execve(path, array.arguments, environ) : too_many();
}

int execle(const char* path, const char* argument, ...) {
  ArgumentArray array;
  va_list list;
  va_start(list, argument);
  bool fits = array.read(argument, list);
  char* const* environment = fits ? va_arg(list, char* const*) : nullptr;
  va_end(list);
  return fits ? hook::execve(path, array.arguments, environment) : too_many();
}

int execlp(const char* file, const char* argument, ...) {
  ArgumentArray array;
  va_list list;
  va_start(list, argument);
  bool fits = array.read(argument, list);
  va_end(list);
  return fits ? hook::execvp(file, array.arguments) : too_many();
}

void _exit(int status) {
  Process::linger();
  real::_exit(status);
  __builtin_unreachable();
}

void _Exit(int status) { hook::_exit(status); }

int mlockall(int flags) {
  // The arena is a large sparse mapping: locked at once it would be populated, and that is more memory than
  // there is. With MCL_ONFAULT its pages are locked as they come into use, like everybody else's.
  if (Process::has_host()) flags |= MCL_ONFAULT;
  return real::mlockall(flags);
}

int munmap(void* start, size_t bytes) {
  lending::take_back();
  return real::munmap(start, bytes);
}

}  // namespace hook
}  // namespace ustack::shim

// vfork() returns twice into its caller's frame, so without a host libc's own must be entered by a jump, not
// a call.
#if defined(__x86_64__)
asm(R"(
    .text
    .globl vfork
    .type vfork, @function
vfork:
    .cfi_startproc
    endbr64
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    call ustack_has_host
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    testb %al, %al
    jne ustack_vfork_with_host
    movq ustack_real_vfork(%rip), %rax
    jmp *(%rax)
    .cfi_endproc
    .size vfork, .-vfork
    .globl __vfork
    .set __vfork, vfork
)");
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl vfork
    .type vfork, @function
vfork:
    .cfi_startproc
    stp x29, x30, [sp, #-16]!
    bl ustack_has_host
    ldp x29, x30, [sp], #16
    cbnz w0, ustack_vfork_with_host
    adrp x16, ustack_real_vfork
    ldr x16, [x16, #:lo12:ustack_real_vfork]
    ldr x16, [x16]
    br x16
    .cfi_endproc
    .size vfork, .-vfork
    .globl __vfork
    .set __vfork, vfork
)");
#endif

using RealVfork = pid_t (*)();
/// Where real::vfork is, under a name that the assembler knows.
extern "C" {
__attribute__((used, visibility("hidden"))) RealVfork* ustack_real_vfork = &ustack::shim::real::vfork;
}
