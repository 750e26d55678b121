// A process with a host: start-up, the first socket, fork, exit.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "io/config.h"
#include "io/link.h"
#include "stack/base/result.h"
#include "stack/host.h"

namespace ustack::shim {

class FdTable;

/// The process's side of its host. Configuration is read when the library is loaded (a malformed variable
/// ends the program with a message there); the host itself is made at the first internet socket (or
/// when root is given up before it), so that a program without one pays nothing: no thread, process, link or
/// mapping.
class Process {
 public:
  /// The exit status of a program that was not started because a USTACK_ variable is wrong; the value that
  /// env(1), timeout(1) and chroot(1) use for errors of their own.
  static constexpr int kConfigurationError = 125;

  /// The library was loaded: reads the configuration. Does not return if it is wrong.
  static void start();
  /// Makes the host if there is none yet, or joins another program's (joining.h): opening::is_used() then.
  /// EPERM, ENODEV, EBUSY, ... after a message on stderr that says what is missing, once per process.
  static Status ensure_host();
  static bool has_host();
  /// The process is about to give up root: makes the host now, or joins one, if it could not later
  /// (io::needs_rights), without a word if that fails. Not in a Scope.
  static void make_host_while_root();
  /// What the user has chosen. Valid from start-up on.
  static const io::Config& config();
  /// The process's own descriptor of the link. Only with a host.
  static io::Link& link();
  /// The socket whose duplicates stand for our descriptors in the kernel's table. Only with a host.
  static int placeholder();
  /// getpid(2), remembered.
  static int32_t id();

  /// Delivers what was sent and closes connections in order, for a bounded time. Called on every way out of
  /// the program (exit, _exit, quick_exit, return from main, exec). Idempotent; not where a Scope is open.
  static void linger();

  /// What a fork needs (fork.cpp). Before it, in the process that forks: the child's table is made and this
  /// one's is locked; the thread is inside the library from here on.
  static void before_fork();
  /// After it in the parent, whether or not it succeeded,
  static void after_fork_in_parent();
  /// and in the child.
  static void after_fork_in_child();
  /// What fork() has returned in the parent, where it is known: the child's number, or that there is no child
  /// after all and its table is given back. Keeps errno.
  static void fork_returned(pid_t pid);

  /// Moves a descriptor of the library's own to another number, for a program that wants this one. False: it
  /// can't be moved.
  static bool move_own(int fd);

  /// This process was cloned without our seeing it (clone(2), syscall()): it still takes its parent's state
  /// for its own. Costs a load. Lock held.
  static bool is_late_child();
  /// What before_fork() and after_fork_in_child() should have done. Lock held.
  static void late_child();

 private:
  /// Closes all of this process's descriptors as the kernel would, and counts it out. Lock held.
  static void leave_host();
};

}  // namespace ustack::shim
