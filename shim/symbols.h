// The one table of libc's entries that the library stands in front of. It makes the declarations of the hooks
// (hooks.h), the pointers to libc's own functions (real.h) and what tests/check_symbols compares with the
// library's exports and with libc's; nothing else lists a hooked name.
//
// X(result, name, (parameters), (arguments), system call for use before libc's entry is found, or kNone;
// kItself: the arguments are one)
//
// Variadic entries that take one more word (fcntl, ioctl, open) are written with that word as a parameter: on
// x86-64 and aarch64 Linux both conventions pass it in the same register, and a caller that leaves it out
// makes it the garbage that libc's own va_arg would see, which the command then ignores.
//
// To hook another entry: add a row here and its body next to its relatives in shim/calls_*.cpp (or mark it in
// shim/not_hooked.txt with the reason why it needs none).
#pragma once

// Sockets and bytes: shim/calls_*.cpp.
#define USTACK_SOCKET_SYMBOLS(X)                                                                           \
  X(int, socket, (int domain, int type, int protocol), (domain, type, protocol), SYS_socket)               \
  X(int, bind, (int fd, const sockaddr* address, socklen_t length), (fd, address, length), SYS_bind)       \
  X(int, listen, (int fd, int backlog), (fd, backlog), SYS_listen)                                         \
  X(int, accept, (int fd, sockaddr* address, socklen_t* length), (fd, address, length), SYS_accept)        \
  X(int, accept4, (int fd, sockaddr* address, socklen_t* length, int flags), (fd, address, length, flags), \
    SYS_accept4)                                                                                           \
  X(int, connect, (int fd, const sockaddr* address, socklen_t length), (fd, address, length), SYS_connect) \
  X(int, shutdown, (int fd, int how), (fd, how), SYS_shutdown)                                             \
  X(int, getsockname, (int fd, sockaddr* address, socklen_t* length), (fd, address, length),               \
    SYS_getsockname)                                                                                       \
  X(int, getpeername, (int fd, sockaddr* address, socklen_t* length), (fd, address, length),               \
    SYS_getpeername)                                                                                       \
  X(int, getsockopt, (int fd, int level, int option, void* value, socklen_t* length),                      \
    (fd, level, option, value, length), SYS_getsockopt)                                                    \
  X(int, setsockopt, (int fd, int level, int option, const void* value, socklen_t length),                 \
    (fd, level, option, value, length), SYS_setsockopt)                                                    \
  X(int, sockatmark, (int fd), (fd), kNone)                                                                \
  X(ssize_t, read, (int fd, void* to, size_t bytes), (fd, to, bytes), SYS_read)                            \
  X(ssize_t, readv, (int fd, const iovec* parts, int count), (fd, parts, count), SYS_readv)                \
  X(ssize_t, preadv2, (int fd, const iovec* parts, int count, off64_t offset, int flags),                  \
    (fd, parts, count, offset, flags), kNone)                                                              \
  X(ssize_t, preadv64v2, (int fd, const iovec* parts, int count, off64_t offset, int flags),               \
    (fd, parts, count, offset, flags), kNone)                                                              \
  X(ssize_t, write, (int fd, const void* from, size_t bytes), (fd, from, bytes), SYS_write)                \
  X(ssize_t, writev, (int fd, const iovec* parts, int count), (fd, parts, count), SYS_writev)              \
  X(ssize_t, pwritev2, (int fd, const iovec* parts, int count, off64_t offset, int flags),                 \
    (fd, parts, count, offset, flags), kNone)                                                              \
  X(ssize_t, pwritev64v2, (int fd, const iovec* parts, int count, off64_t offset, int flags),              \
    (fd, parts, count, offset, flags), kNone)                                                              \
  X(ssize_t, recv, (int fd, void* to, size_t bytes, int flags), (fd, to, bytes, flags), kNone)             \
  X(ssize_t, recvfrom, (int fd, void* to, size_t bytes, int flags, sockaddr* address, socklen_t* length),  \
    (fd, to, bytes, flags, address, length), SYS_recvfrom)                                                 \
  X(ssize_t, recvmsg, (int fd, msghdr* message, int flags), (fd, message, flags), SYS_recvmsg)             \
  X(int, recvmmsg, (int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout),              \
    (fd, messages, count, flags, timeout), SYS_recvmmsg)                                                   \
  X(ssize_t, send, (int fd, const void* from, size_t bytes, int flags), (fd, from, bytes, flags), kNone)   \
  X(ssize_t, sendto,                                                                                       \
    (int fd, const void* from, size_t bytes, int flags, const sockaddr* address, socklen_t length),        \
    (fd, from, bytes, flags, address, length), SYS_sendto)                                                 \
  X(ssize_t, sendmsg, (int fd, const msghdr* message, int flags), (fd, message, flags), SYS_sendmsg)       \
  X(int, sendmmsg, (int fd, mmsghdr* messages, unsigned count, int flags), (fd, messages, count, flags),   \
    SYS_sendmmsg)                                                                                          \
  X(ssize_t, sendfile, (int out, int in, off_t* offset, size_t bytes), (out, in, offset, bytes),           \
    SYS_sendfile)                                                                                          \
  X(ssize_t, sendfile64, (int out, int in, off64_t* offset, size_t bytes), (out, in, offset, bytes),       \
    SYS_sendfile)                                                                                          \
  X(int, fcntl, (int fd, int command, unsigned long argument), (fd, command, argument), SYS_fcntl)         \
  X(int, fcntl64, (int fd, int command, unsigned long argument), (fd, command, argument), SYS_fcntl)       \
  X(int, ioctl, (int fd, unsigned long request, void* argument), (fd, request, argument), SYS_ioctl)       \
  X(ssize_t, __read_chk, (int fd, void* to, size_t bytes, size_t room), (fd, to, bytes, room), kNone)      \
  X(ssize_t, __recv_chk, (int fd, void* to, size_t bytes, size_t room, int flags),                         \
    (fd, to, bytes, room, flags), kNone)                                                                   \
  X(ssize_t, __recvfrom_chk,                                                                               \
    (int fd, void* to, size_t bytes, size_t room, int flags, sockaddr* address, socklen_t* length),        \
    (fd, to, bytes, room, flags, address, length), kNone)

// Readiness: shim/calls_poll.cpp, calls_epoll.cpp.
#define USTACK_READINESS_SYMBOLS(X)                                                                       \
  X(int, poll, (pollfd * fds, nfds_t count, int timeout), (fds, count, timeout), SYS_poll)                \
  X(int, ppoll, (pollfd * fds, nfds_t count, const timespec* timeout, const sigset_t* mask),              \
    (fds, count, timeout, mask), kNone)                                                                   \
  X(int, __poll_chk, (pollfd * fds, nfds_t count, int timeout, size_t room), (fds, count, timeout, room), \
    kNone)                                                                                                \
  X(int, __ppoll_chk,                                                                                     \
    (pollfd * fds, nfds_t count, const timespec* timeout, const sigset_t* mask, size_t room),             \
    (fds, count, timeout, mask, room), kNone)                                                             \
  X(int, select, (int count, fd_set* in, fd_set* out, fd_set* except, timeval* timeout),                  \
    (count, in, out, except, timeout), SYS_select)                                                        \
  X(int, pselect,                                                                                         \
    (int count, fd_set* in, fd_set* out, fd_set* except, const timespec* timeout, const sigset_t* mask),  \
    (count, in, out, except, timeout, mask), kNone)                                                       \
  X(int, epoll_create, (int size), (size), SYS_epoll_create)                                              \
  X(int, epoll_create1, (int flags), (flags), SYS_epoll_create1)                                          \
  X(int, epoll_ctl, (int set, int operation, int fd, epoll_event* event), (set, operation, fd, event),    \
    SYS_epoll_ctl)                                                                                        \
  X(int, epoll_wait, (int set, epoll_event* events, int room, int timeout), (set, events, room, timeout), \
    SYS_epoll_wait)                                                                                       \
  X(int, epoll_pwait, (int set, epoll_event* events, int room, int timeout, const sigset_t* mask),        \
    (set, events, room, timeout, mask), kNone)                                                            \
  X(int, epoll_pwait2,                                                                                    \
    (int set, epoll_event* events, int room, const timespec* timeout, const sigset_t* mask),              \
    (set, events, room, timeout, mask), kNone)

// Descriptors as such: shim/descriptors.cpp.
#define USTACK_DESCRIPTOR_SYMBOLS(X)                                                                     \
  X(int, close, (int fd), (fd), SYS_close)                                                               \
  X(int, close_range, (unsigned first, unsigned last, int flags), (first, last, flags), SYS_close_range) \
  X(void, closefrom, (int first), (first), kNone)                                                        \
  X(int, dup, (int fd), (fd), SYS_dup)                                                                   \
  X(int, dup2, (int fd, int to), (fd, to), SYS_dup2)                                                     \
  X(int, dup3, (int fd, int to, int flags), (fd, to, flags), SYS_dup3)                                   \
  X(int, fclose, (FILE * stream), (stream), kNone)

// I/O by libc or the kernel on a number that it is given: shim/calls_libc_io.cpp.
#define USTACK_LIBC_IO_SYMBOLS(X)                                                                 \
  X(FILE*, fdopen, (int fd, const char* mode), (fd, mode), kNone)                                 \
  X(ssize_t, splice, (int in, off64_t* from, int out, off64_t* to, size_t bytes, unsigned flags), \
    (in, from, out, to, bytes, flags), SYS_splice)

// What shows a descriptor's inode: shim/calls_stat.cpp.
#define USTACK_STAT_SYMBOLS(X)                                                                       \
  X(int, fstat, (int fd, struct stat* to), (fd, to), SYS_fstat)                                      \
  X(int, fstat64, (int fd, struct stat64* to), (fd, to), SYS_fstat)                                  \
  X(int, __fxstat, (int version, int fd, struct stat* to), (version, fd, to), kNone)                 \
  X(int, __fxstat64, (int version, int fd, struct stat64* to), (version, fd, to), kNone)             \
  X(int, fstatat, (int at, const char* path, struct stat* to, int flags), (at, path, to, flags),     \
    SYS_newfstatat)                                                                                  \
  X(int, fstatat64, (int at, const char* path, struct stat64* to, int flags), (at, path, to, flags), \
    SYS_newfstatat)                                                                                  \
  X(int, statx, (int at, const char* path, int flags, unsigned mask, struct statx* to),              \
    (at, path, flags, mask, to), SYS_statx)

// Entries that make a descriptor which is not ours. Their hooks only make sure that nothing is left of
// whatever had the number before and was closed where the library could not see it: shim/descriptors.cpp,
// generated.
#define USTACK_FRESH_SYMBOLS(X)                                                                             \
  X(int, open, (const char* path, int flags, mode_t mode), (path, flags, mode), SYS_open)                   \
  X(int, open64, (const char* path, int flags, mode_t mode), (path, flags, mode), SYS_open)                 \
  X(int, __open_2, (const char* path, int flags), (path, flags), SYS_open)                                  \
  X(int, __open64_2, (const char* path, int flags), (path, flags), SYS_open)                                \
  X(int, openat, (int at, const char* path, int flags, mode_t mode), (at, path, flags, mode), SYS_openat)   \
  X(int, openat64, (int at, const char* path, int flags, mode_t mode), (at, path, flags, mode), SYS_openat) \
  X(int, __openat_2, (int at, const char* path, int flags), (at, path, flags), SYS_openat)                  \
  X(int, __openat64_2, (int at, const char* path, int flags), (at, path, flags), SYS_openat)                \
  X(int, creat, (const char* path, mode_t mode), (path, mode), SYS_creat)                                   \
  X(int, creat64, (const char* path, mode_t mode), (path, mode), SYS_creat)                                 \
  X(int, eventfd, (unsigned value, int flags), (value, flags), SYS_eventfd2)                                \
  X(int, timerfd_create, (int clock, int flags), (clock, flags), SYS_timerfd_create)                        \
  X(int, signalfd, (int fd, const sigset_t* mask, int flags), (fd, mask, flags), kNone)                     \
  X(int, memfd_create, (const char* name, unsigned flags), (name, flags), SYS_memfd_create)                 \
  X(int, inotify_init, (), (), SYS_inotify_init)                                                            \
  X(int, inotify_init1, (int flags), (flags), SYS_inotify_init1)                                            \
  X(int, mkstemp, (char* path), (path), kNone)                                                              \
  X(int, mkstemp64, (char* path), (path), kNone)                                                            \
  X(int, mkostemp, (char* path, int flags), (path, flags), kNone)                                           \
  X(int, mkostemp64, (char* path, int flags), (path, flags), kNone)                                         \
  X(int, pidfd_open, (pid_t pid, unsigned flags), (pid, flags), kNone)

// What the machine's interfaces are: shim/calls_interfaces.cpp.
#define USTACK_INTERFACE_SYMBOLS(X)                    \
  X(int, getifaddrs, (ifaddrs * *list), (list), kNone) \
  X(void, freeifaddrs, (ifaddrs * list), (list), kNone)

// The same for entries that make two.
#define USTACK_FRESH_PAIR_SYMBOLS(X)                                                                \
  X(int, pipe, (int* fds), (fds), SYS_pipe)                                                         \
  X(int, pipe2, (int* fds, int flags), (fds, flags), SYS_pipe2)                                     \
  X(int, socketpair, (int domain, int type, int protocol, int* fds), (domain, type, protocol, fds), \
    SYS_socketpair)

// Processes: shim/calls_process.cpp, shim/calls_wait.cpp, shim/calls_bare.cpp.
#define USTACK_PROCESS_SYMBOLS(X)                                                                           \
  X(pid_t, fork, (), (), kNone)                                                                             \
  X(pid_t, _Fork, (), (), kNone)                                                                            \
  X(pid_t, vfork, (), (), kNone)                                                                            \
  X(void*, dlopen, (const char* file, int flags), (file, flags), kNone)                                     \
  X(int, execve, (const char* path, char* const* arguments, char* const* environment),                      \
    (path, arguments, environment), SYS_execve)                                                             \
  X(int, execv, (const char* path, char* const* arguments), (path, arguments), kNone)                       \
  X(int, execvp, (const char* file, char* const* arguments), (file, arguments), kNone)                      \
  X(int, execvpe, (const char* file, char* const* arguments, char* const* environment),                     \
    (file, arguments, environment), kNone)                                                                  \
  X(int, fexecve, (int fd, char* const* arguments, char* const* environment), (fd, arguments, environment), \
    kNone)                                                                                                  \
  X(int, execveat, (int at, const char* path, char* const* arguments, char* const* environment, int flags), \
    (at, path, arguments, environment, flags), SYS_execveat)                                                \
  X(int, pthread_cancel, (pthread_t thread), (thread), kNone)                                               \
  X(int, pthread_create,                                                                                    \
    (pthread_t * thread, const pthread_attr_t* attributes, void* (*routine)(void*), void* argument),        \
    (thread, attributes, routine, argument), kNone)                                                         \
  X(int, daemon, (int stay, int keep_open), (stay, keep_open), kNone)                                       \
  X(void, _exit, (int status), (status), SYS_exit_group)                                                    \
  X(void, _Exit, (int status), (status), SYS_exit_group)                                                    \
  X(int, mlockall, (int flags), (flags), SYS_mlockall)                                                      \
  X(int, munmap, (void* start, size_t bytes), (start, bytes), SYS_munmap)                                   \
  X(int, prctl, (int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d),           \
    (option, a, b, c, d), SYS_prctl)                                                                        \
  X(long, syscall, (long number, long a, long b, long c, long d, long e, long f),                           \
    (number, a, b, c, d, e, f), kItself)                                                                    \
  X(int, setuid, (uid_t user), (user), SYS_setuid)                                                          \
  X(int, setreuid, (uid_t user, uid_t effective), (user, effective), SYS_setreuid)                          \
  X(int, setresuid, (uid_t user, uid_t effective, uid_t saved), (user, effective, saved), SYS_setresuid)    \
  X(int, setrlimit, (int resource, const rlimit* limit), (resource, limit), kNone)                          \
  X(int, prlimit, (pid_t pid, int resource, const rlimit* limit, rlimit* old), (pid, resource, limit, old), \
    SYS_prlimit64)                                                                                          \
  X(pid_t, waitpid, (pid_t pid, int* status, int options), (pid, status, options), kNone)                   \
  X(pid_t, wait3, (int* status, int options, rusage* usage), (status, options, usage), kNone)               \
  X(pid_t, wait4, (pid_t pid, int* status, int options, rusage* usage), (pid, status, options, usage),      \
    SYS_wait4)                                                                                              \
  X(int, waitid, (idtype_t type, id_t id, siginfo_t * info, int options), (type, id, info, options), kNone)

// Children that libc starts: shim/calls_spawn.cpp.
#define USTACK_SPAWN_SYMBOLS(X)                                                                    \
  X(int, posix_spawn,                                                                              \
    (pid_t * pid, const char* path, const posix_spawn_file_actions_t* actions,                     \
     const posix_spawnattr_t* attributes, char* const* arguments, char* const* environment),       \
    (pid, path, actions, attributes, arguments, environment), kNone)                               \
  X(int, posix_spawnp,                                                                             \
    (pid_t * pid, const char* file, const posix_spawn_file_actions_t* actions,                     \
     const posix_spawnattr_t* attributes, char* const* arguments, char* const* environment),       \
    (pid, file, actions, attributes, arguments, environment), kNone)                               \
  X(int, posix_spawn_file_actions_adddup2, (posix_spawn_file_actions_t * actions, int fd, int to), \
    (actions, fd, to), kNone)                                                                      \
  X(int, system, (const char* command), (command), kNone)                                          \
  X(FILE*, popen, (const char* command, const char* mode), (command, mode), kNone)                 \
  X(int, pclose, (FILE * stream), (stream), kNone)

// The same, but with a list of arguments, which the hook turns into an array (or text) for a relative: libc's
// own is not needed. Y(result, name, (parameters))
#define USTACK_LIST_SYMBOLS(Y)                                                      \
  Y(int, dprintf, (int fd, const char* format, ...))                                \
  Y(int, vdprintf, (int fd, const char* format, va_list arguments))                 \
  Y(int, __dprintf_chk, (int fd, int flag, const char* format, ...))                \
  Y(int, __vdprintf_chk, (int fd, int flag, const char* format, va_list arguments)) \
  Y(int, execl, (const char* path, const char* argument, ...))                      \
  Y(int, execle, (const char* path, const char* argument, ...))                     \
  Y(int, execlp, (const char* file, const char* argument, ...))

// Signal handlers: shim/signals.cpp.
#define USTACK_SIGNAL_SYMBOLS(X)                                                             \
  X(int, sigaction, (int number, const struct sigaction* action, struct sigaction* old),     \
    (number, action, old), kNone)                                                            \
  X(sighandler_t, signal, (int number, sighandler_t handler), (number, handler), kNone)      \
  X(sighandler_t, sysv_signal, (int number, sighandler_t handler), (number, handler), kNone) \
  X(sighandler_t, sigset, (int number, sighandler_t handler), (number, handler), kNone)      \
  X(int, siginterrupt, (int number, int interrupt), (number, interrupt), kNone)              \
  X(int, sigprocmask, (int how, const sigset_t* set, sigset_t* old), (how, set, old), kNone) \
  X(int, pthread_sigmask, (int how, const sigset_t* set, sigset_t* old), (how, set, old), kNone)

// All that libc has under the name itself.
#define USTACK_SYMBOLS(X)      \
  USTACK_SOCKET_SYMBOLS(X)     \
  USTACK_READINESS_SYMBOLS(X)  \
  USTACK_DESCRIPTOR_SYMBOLS(X) \
  USTACK_FRESH_SYMBOLS(X)      \
  USTACK_FRESH_PAIR_SYMBOLS(X) \
  USTACK_LIBC_IO_SYMBOLS(X)    \
  USTACK_STAT_SYMBOLS(X)       \
  USTACK_INTERFACE_SYMBOLS(X)  \
  USTACK_PROCESS_SYMBOLS(X)    \
  USTACK_SPAWN_SYMBOLS(X)      \
  USTACK_SIGNAL_SYMBOLS(X)

// Further names that libc gives to the same things. A(result, other name, name, (parameters), (arguments))
#define USTACK_ALIASES(A)                                                                                 \
  A(int, __socket, socket, (int domain, int type, int protocol), (domain, type, protocol))                \
  A(int, __connect, connect, (int fd, const sockaddr* address, socklen_t length), (fd, address, length))  \
  A(ssize_t, __read, read, (int fd, void* to, size_t bytes), (fd, to, bytes))                             \
  A(ssize_t, __write, write, (int fd, const void* from, size_t bytes), (fd, from, bytes))                 \
  A(ssize_t, __recv, recv, (int fd, void* to, size_t bytes, int flags), (fd, to, bytes, flags))           \
  A(ssize_t, __send, send, (int fd, const void* from, size_t bytes, int flags), (fd, from, bytes, flags)) \
  A(int, __fcntl, fcntl, (int fd, int command, unsigned long argument), (fd, command, argument))          \
  A(int, __close, close, (int fd), (fd))                                                                  \
  A(int, __dup2, dup2, (int fd, int to), (fd, to))                                                        \
  A(int, __open, open, (const char* path, int flags, mode_t mode), (path, flags, mode))                   \
  A(int, __open64, open64, (const char* path, int flags, mode_t mode), (path, flags, mode))               \
  A(int, __pipe, pipe, (int* fds), (fds))                                                                 \
  A(int, __poll, poll, (pollfd * fds, nfds_t count, int timeout), (fds, count, timeout))                  \
  A(int, __select, select, (int count, fd_set* in, fd_set* out, fd_set* except, timeval* timeout),        \
    (count, in, out, except, timeout))                                                                    \
  A(int, setrlimit64, setrlimit, (int resource, const rlimit* limit), (resource, limit))                  \
  A(int, prlimit64, prlimit, (pid_t pid, int resource, const rlimit* limit, rlimit* old),                 \
    (pid, resource, limit, old))                                                                          \
  A(pid_t, __waitpid, waitpid, (pid_t pid, int* status, int options), (pid, status, options))             \
  A(pid_t, __fork, fork, (), ())                                                                          \
  A(int, __sigaction, sigaction, (int number, const struct sigaction* action, struct sigaction* old),     \
    (number, action, old))                                                                                \
  A(sighandler_t, bsd_signal, signal, (int number, sighandler_t handler), (number, handler))              \
  A(sighandler_t, ssignal, signal, (int number, sighandler_t handler), (number, handler))                 \
  A(sighandler_t, __sysv_signal, sysv_signal, (int number, sighandler_t handler), (number, handler))

// Aliases whose bodies are in assembler beside the hook itself: vfork returns twice into its caller's frame.
#define USTACK_ASSEMBLED_ALIASES(A) A(pid_t, __vfork, vfork, (), ())
