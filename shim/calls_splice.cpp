// Hook of splice(2): between a socket of ours and a pipe, as Go's io.Copy and HAProxy do.
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "io/syscalls.h"
#include "shim/call.h"
#include "shim/fd_table.h"
#include "shim/hooks.h"
#include "shim/scope.h"
#include "shim/socket_file.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

int fail(int code) {
  errno = code;
  return -1;
}

bool is_pipe(int fd) {
  struct stat status {};
  return sys::call(SYS_fstat, fd, sys::arg(&status)) == 0 && S_ISFIFO(status.st_mode);
}

bool waits(long mode, unsigned flags) { return (flags & SPLICE_F_NONBLOCK) == 0 && (mode & O_NONBLOCK) == 0; }

/// Waits, if that is wanted, until the pipe is ready for `event` or its other end is closed; what poll(2)
/// says of it. EAGAIN, EINTR.
Result<short> wait_for_pipe(int pipe, short event, bool waits) {
  pollfd one{.fd = pipe, .events = event, .revents = 0};
  const int ready = hook::poll(&one, 1, waits ? -1 : 0);
  if (ready < 0) return Error{errno};
  return ready > 0 ? Result<short>(one.revents) : Error{EAGAIN};
}

ssize_t from_pipe(int pipe, int socket, size_t bytes, unsigned flags) {
  const long mode = sys::fcntl(pipe, F_GETFL);
  if (mode < 0 || (mode & O_ACCMODE) == O_WRONLY) return fail(EBADF);
  for (;;) {
    const Result<short> events = wait_for_pipe(pipe, POLLIN, waits(mode, flags));
    if (!events.ok()) return fail(events.code());
    int there = 0;
    if (long result = sys::ioctl(pipe, FIONREAD, &there); sys::failed(result))
      return fail(static_cast<int>(-result));
    if (there <= 0) {
      // Closed at the other end, unless somebody else has just read what was there.
      if ((*events & POLLIN) == 0) return 0;
      continue;
    }
    const ssize_t n = on_socket(
        socket,
        [&](HostLock& lock, SocketFile& file) {
          return file.splice_from_pipe(lock, pipe, std::min(bytes, static_cast<size_t>(there)),
                                       (flags & SPLICE_F_MORE) != 0);
        },
        [&] { return real::splice(pipe, nullptr, socket, nullptr, bytes, flags); });
    if (n >= 0 || errno != SocketFile::kPipeBusy) return n;
  }
}

ssize_t to_pipe(int socket, int pipe, size_t bytes, unsigned flags) {
  const long mode = sys::fcntl(pipe, F_GETFL);
  if (mode < 0 || (mode & O_ACCMODE) == O_RDONLY) return fail(EBADF);
  for (;;) {
    const ssize_t n = on_socket(
        socket, [&](HostLock& lock, SocketFile& file) { return file.splice_to_pipe(lock, pipe, bytes); },
        [&] { return real::splice(socket, nullptr, pipe, nullptr, bytes, flags); });
    if (n >= 0 || errno != SocketFile::kPipeBusy) return n;
    if (auto events = wait_for_pipe(pipe, POLLOUT, waits(mode, flags)); !events.ok())
      return fail(events.code());
  }
}

}  // namespace

namespace hook {

ssize_t splice(int in, off64_t* from, int out, off64_t* to, size_t bytes, unsigned flags) {
  const bool reads = concerns_us(in), writes = concerns_us(out);
  if (!reads && !writes) return real::splice(in, from, out, to, bytes, flags);
  constexpr unsigned kKnown = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;
  if ((flags & ~kKnown) != 0) return fail(EINVAL);
  if (bytes == 0) return 0;
  if ((reads && writes) || !is_pipe(reads ? out : in)) return fail(EINVAL);
  if ((reads ? to : from) != nullptr) return fail(ESPIPE);
  if (from != nullptr || to != nullptr) return fail(EINVAL);
  bytes = std::min(bytes, UserBytes::kMaxBytes);
  return reads ? to_pipe(in, out, bytes, flags) : from_pipe(in, out, bytes, flags);
}

}  // namespace hook
}  // namespace ustack::shim
