// System calls without libc. Inside libustack.so the libc names (read, write, ppoll, close, ...) are our own
// hooks, so everything that io/ asks of the kernel goes straight there. No errno, no cancellation point: each
// function returns what the kernel returned, a negative errno on failure.
#pragma once

#include <fcntl.h>
#include <linux/time_types.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <csignal>
#include <cstddef>
#include <cstdint>

namespace ustack::io::sys {

#if defined(__x86_64__)
inline long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
inline long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a;
  register long x1 asm("x1") = b;
  register long x2 asm("x2") = c;
  register long x3 asm("x3") = d;
  register long x4 asm("x4") = e;
  register long x5 asm("x5") = f;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
#else
#error "io/syscalls.h knows x86-64 and aarch64"
#endif

template <typename T>
long arg(T* pointer) {
  return reinterpret_cast<long>(pointer);
}

/// Bytes of the kernel's signal set, which is shorter than libc's sigset_t.
inline constexpr long kSignalSetBytes = 8;

inline long read(int fd, void* to, size_t bytes) {
  return call(SYS_read, fd, arg(to), static_cast<long>(bytes));
}
inline long write(int fd, const void* from, size_t bytes) {
  return call(SYS_write, fd, arg(from), static_cast<long>(bytes));
}
inline long writev(int fd, const iovec* parts, size_t count) {
  return call(SYS_writev, fd, arg(parts), static_cast<long>(count));
}
inline long sendmsg(int fd, const msghdr* message, int flags) {
  return call(SYS_sendmsg, fd, arg(message), flags);
}
inline long openat(const char* path, int flags, int mode = 0) {
  return call(SYS_openat, AT_FDCWD, arg(path), flags, mode);
}
inline long close(int fd) { return call(SYS_close, fd); }
template <typename T>
long ioctl(int fd, unsigned long request, T* argument) {
  return call(SYS_ioctl, fd, static_cast<long>(request), arg(argument));
}
inline long fcntl(int fd, int command, long argument = 0) { return call(SYS_fcntl, fd, command, argument); }
inline long socket(int domain, int type, int protocol) { return call(SYS_socket, domain, type, protocol); }
inline long getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  return call(SYS_getsockopt, fd, level, name, arg(value), arg(length));
}
inline long setsockopt(int fd, int level, int name, const void* value, size_t length) {
  return call(SYS_setsockopt, fd, level, name, arg(value), static_cast<long>(length));
}
/// `timeout` nullptr: none; `mask` nullptr: the signal mask stays. The kernel writes the time left to
/// `timeout`.
inline long ppoll(pollfd* fds, size_t count, __kernel_timespec* timeout, const sigset_t* mask) {
  return call(SYS_ppoll, arg(fds), static_cast<long>(count), arg(timeout), arg(mask), kSignalSetBytes);
}
inline long eventfd(unsigned initial, int flags) {
  return call(SYS_eventfd2, static_cast<long>(initial), flags);
}
inline long getpid() { return call(SYS_getpid); }
inline long nanosleep(const __kernel_timespec* time) { return call(SYS_nanosleep, arg(time), 0); }
inline long getrandom(void* to, size_t bytes, unsigned flags) {
  return call(SYS_getrandom, arg(to), static_cast<long>(bytes), static_cast<long>(flags));
}
inline long mmap(void* at, size_t bytes, int protection, int flags, int fd = -1) {
  return call(SYS_mmap, arg(at), static_cast<long>(bytes), protection, flags, fd, 0);
}
inline long munmap(void* at, size_t bytes) { return call(SYS_munmap, arg(at), static_cast<long>(bytes)); }
inline long madvise(void* at, size_t bytes, int advice) {
  return call(SYS_madvise, arg(at), static_cast<long>(bytes), advice);
}
inline long mprotect(void* at, size_t bytes, int protection) {
  return call(SYS_mprotect, arg(at), static_cast<long>(bytes), protection);
}

/// A result of call() that is an error.
inline bool failed(long result) { return result < 0 && result >= -4095; }

}  // namespace ustack::io::sys
