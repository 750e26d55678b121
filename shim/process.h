// A process with a host: start-up, the first socket, fork, exit.
#pragma once

#include "io/config.h"
#include "stack/base/result.h"
#include "stack/host.h"

namespace ustack::shim {

/// The process's side of its host. Configuration is read when the library is loaded (a malformed variable
/// ends the program with a message there); the host itself is made at the first internet socket, so that a
/// program without one pays nothing: no thread, process, link or mapping.
class Process {
 public:
  /// Makes the host if there is none yet. EPERM, ENODEV, EBUSY, ... after a message on stderr that says what
  /// is missing, once per process.
  static Status ensure_host();
  static bool has_host();
  /// What the user has chosen. Valid from start-up on.
  static const io::Config& config();
  /// Delivers what was sent and closes connections in order, for a bounded time. Called on every way out of
  /// the program (exit, _exit, quick_exit, return from main).
  static void linger();
};

}  // namespace ustack::shim
