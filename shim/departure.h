// A process that execs leaves its host, and what it takes along are ends outside (escape.h).
#pragma once

#include "io/descriptor.h"

namespace ustack::shim {

/// Around a real exec:
///
///   Departure departure;
///   if (!departure.prepare()) ...       // no keeper: Process::linger() instead
///   real::execve(...);                  // if it succeeds, the keeper notices and closes what the process
///   had departure.undo();                   // it has failed: all is as before
///
/// Between the two the process's own calls still work; only in the kernel's table the descriptors that
/// survive exec are already ends outside.
class Departure {
 public:
  /// False: the keeper can't be had, nothing has changed.
  bool prepare();
  void undo();

 private:
  io::Descriptor watch_;
  bool left_ = false;
};

}  // namespace ustack::shim
