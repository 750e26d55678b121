// Hooks that give up, duplicate and make descriptors as such.
#include <fcntl.h>
#include <sys/resource.h>

#include <mutex>
#include <optional>

#include "io/own_descriptors.h"
#include "io/syscalls.h"
#include "shim/driver.h"
#include "shim/escape.h"
#include "shim/fd_table.h"
#include "shim/hooks.h"
#include "shim/opening.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "shim/socket_file.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

/// An entry goes while the host's lock and the table's are held; the kernel's descriptor after it, under the
/// table's alone, for that may take long.
class TablesHeld {
 public:
  explicit TablesHeld(HostLock& host) : host_(host), table_(std::in_place, FdTable::lock()) {}
  ~TablesHeld() {
    table_.reset();
    if (unsent_) host_.lock();
  }
  TablesHeld(const TablesHeld&) = delete;
  TablesHeld& operator=(const TablesHeld&) = delete;
  /// Drops the host's lock, which runs what the change has caused.
  void drop_host() { unsent_ = !host_.unlock_unsent(); }

 private:
  HostLock& host_;
  std::optional<std::lock_guard<ProcessLock>> table_;
  bool unsent_ = false;
};

/// Takes an entry away; whoever still waits for what the number stood for keeps a reference of its own.
void clear(int fd) {
  OpenFile* file = FdTable::look(fd);
  if (file == nullptr) return;
  if (file->kernel_half() >= 0) kernel_fd_closes();
  FdTable::current()->clear(fd);
}

/// libc reads and writes these numbers by itself (stdin, stdout, stderr), which it can only if what they
/// stand for is the kernel's.
int used_by_libc(int fd) {
  if (fd >= 0 && fd <= STDERR_FILENO && FdTable::look(fd) != nullptr) [[unlikely]]
    escape::in_place(fd);
  return fd;
}

bool number_allowed(int fd) {
  rlimit limit{};
  return fd >= 0 && sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, sys::arg(&limit)) == 0 &&
         static_cast<rlim_t>(fd) < limit.rlim_cur;
}

/// dup2 and dup3 with one of ours on either side; the numbers differ.
int duplicate_onto(Scope& scope, int fd, int to, int flags) {
  if (!number_allowed(to)) return scope.fail(EBADF);
  if (sys::fcntl(fd, F_GETFD) < 0) return scope.fail(EBADF);
  long result;
  {
    HostLock lock;
    TablesHeld held(lock);
    OpenFile* file = FdTable::look(fd);
    if (file == nullptr) {
      clear(to);
    } else {
      // The entry first: from here on the number is `file`'s for all threads, and the kernel follows.
      if (OpenFile* before = FdTable::look(to); before != nullptr && before->kernel_half() >= 0)
        kernel_fd_closes();
      if (Status status = FdTable::current()->share(to, file); !status.ok()) return scope.fail(status.code());
    }
    held.drop_host();
    do result = sys::call(SYS_dup3, fd, to, flags);
    while (result == -EBUSY || result == -EINTR);
  }
  if (result >= 0) return used_by_libc(to);
  HostLock lock;
  FdTable::current()->clear(to);
  return scope.fail(static_cast<int>(-result));
}

int close_numbers(unsigned first, unsigned last, int flags) {
  // Our descriptors in between stay: each gap is closed on its own.
  for (unsigned from = first;;) {
    int own = from > static_cast<unsigned>(INT_MAX) ? -1 : io::next_own_descriptor(static_cast<int>(from));
    bool more = own >= 0 && static_cast<unsigned>(own) <= last;
    if (!more || static_cast<unsigned>(own) > from) {
      unsigned end = more ? static_cast<unsigned>(own) - 1 : last;
      long result = sys::call(SYS_close_range, static_cast<long>(from), static_cast<long>(end), flags);
      if (result < 0) return static_cast<int>(-result);
    }
    if (!more || static_cast<unsigned>(own) == last) return 0;
    from = static_cast<unsigned>(own) + 1;
  }
}

}  // namespace

namespace hook {

int close(int fd) {
  if (FdTable::look(fd) == nullptr || Scope::inside()) {
    if (io::is_own_descriptor(fd) && !Scope::inside()) [[unlikely]] {
      errno = EBADF;
      return -1;
    }
    return real::close(fd);
  }
  pthread_testcancel();
  Scope scope;
  HostLock lock(HostLock::Transfer{fd});
  // SO_LINGER: the caller waits while the connection ends; the number is taken until then.
  if (OpenFile* file = FdTable::look(fd); file != nullptr && file->references() == 1 && file->lingers()) {
    Held held(*file);
    file->linger(lock);
  }
  TablesHeld held(lock);
  clear(fd);
  held.drop_host();
  long result = sys::close(fd);
  return result < 0 ? scope.fail(static_cast<int>(-result)) : 0;
}

int close_range(unsigned first, unsigned last, int flags) {
  bool mark_only = (flags & CLOSE_RANGE_CLOEXEC) != 0;
  const bool outside = opening::is_used();
  if ((!Process::has_host() && !outside) || Scope::inside() || mark_only || first > last)
    return real::close_range(first, last, flags);
  Scope scope;
  // Unknown flags, an old kernel: nothing is touched.
  if (long tried = sys::call(SYS_close_range, static_cast<long>(~0U), static_cast<long>(~0U), flags);
      tried < 0)
    return scope.fail(static_cast<int>(-tried));
  if (outside) {  // the channel stays
    const int error = close_numbers(first, last, flags);
    return error != 0 ? scope.fail(error) : 0;
  }
  HostLock lock;
  TablesHeld held(lock);
  FdTable* table = FdTable::current();
  if (table != nullptr && first < static_cast<unsigned>(FdTable::kLimit)) {
    for (int fd = table->next(static_cast<int>(first)); fd >= 0 && static_cast<unsigned>(fd) <= last;
         fd = table->next(fd + 1))
      clear(fd);
  }
  held.drop_host();
  int error = close_numbers(first, last, flags);
  return error != 0 ? scope.fail(error) : 0;
}

void closefrom(int first) {
  if ((!Process::has_host() && !opening::is_used()) || Scope::inside()) return real::closefrom(first);
  hook::close_range(first < 0 ? 0 : static_cast<unsigned>(first), ~0U, 0);
}

int dup(int fd) {
  if (FdTable::look(fd) == nullptr || Scope::inside()) {
    int made = real::dup(fd);
    return made < 0 ? made : FdTable::forget_stale(made);
  }
  Scope scope;
  Result<int> made = -1;
  {
    HostLock lock;
    made = FdTable::current()->duplicate(fd, false);
  }
  return made.ok() ? used_by_libc(*made) : scope.fail(made.code());
}

int dup2(int fd, int to) {
  if (Scope::inside()) return real::dup2(fd, to);
  if (io::is_own_descriptor(to) && !Process::move_own(to)) [[unlikely]] {
    errno = EBADF;
    return -1;
  }
  if ((FdTable::look(fd) == nullptr && FdTable::look(to) == nullptr) || fd == to) return real::dup2(fd, to);
  Scope scope;
  return duplicate_onto(scope, fd, to, 0);
}

int dup3(int fd, int to, int flags) {
  if (Scope::inside()) return real::dup3(fd, to, flags);
  if (io::is_own_descriptor(to) && !Process::move_own(to)) [[unlikely]] {
    errno = EBADF;
    return -1;
  }
  bool ours = FdTable::look(fd) != nullptr || FdTable::look(to) != nullptr;
  if (!ours || fd == to || (flags & ~O_CLOEXEC) != 0) return real::dup3(fd, to, flags);
  Scope scope;
  return duplicate_onto(scope, fd, to, flags);
}

int fclose(FILE* stream) {
  // libc closes the number by itself.
  if (Process::has_host() && !Scope::inside()) {
    int saved = errno;
    int fd = fileno(stream);
    errno = saved;
    if (fd >= 0) FdTable::forget_stale(fd);
  }
  return real::fclose(stream);
}

#define USTACK_FRESH(result, name, parameters, arguments, number) \
  result name parameters {                                        \
    result made = real::name arguments;                           \
    return made < 0 ? made : FdTable::forget_stale(made);         \
  }
USTACK_FRESH_SYMBOLS(USTACK_FRESH)
#undef USTACK_FRESH

#define USTACK_FRESH(result, name, parameters, arguments, number) \
  result name parameters {                                        \
    result status = real::name arguments;                         \
    if (status == 0) {                                            \
      FdTable::forget_stale(fds[0]);                              \
      FdTable::forget_stale(fds[1]);                              \
    }                                                             \
    return status;                                                \
  }
USTACK_FRESH_PAIR_SYMBOLS(USTACK_FRESH)
#undef USTACK_FRESH

}  // namespace hook
}  // namespace ustack::shim
