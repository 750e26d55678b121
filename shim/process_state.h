// What a process with the library in it owns itself. Not in the arena: fork copies it. Internal to
// process.cpp, fork.cpp, linger.cpp and the keeper.
#pragma once

#include <sys/resource.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "io/config.h"
#include "io/descriptor.h"
#include "io/link.h"
#include "io/log_sink.h"
#include "io/random.h"
#include "shim/process_lock.h"

namespace ustack::io {
class Capture;
}

namespace ustack::shim {

struct Attachment;

struct ProcessState {
  io::Config config;
  io::GetrandomSource random;
  io::FdLogSink log_sink;
  io::Link link;
  io::Descriptor placeholder;
  io::Capture* capture = nullptr;
  io::Descriptor counters_file;
  Attachment* attachment = nullptr;
  std::atomic<int32_t> pid{0};
  /// io::fork_generation() of the process that this is the state of.
  uint64_t generation = 0;
  /// Held while the host is made.
  ProcessLock start_lock;
  bool failure_told = false;
  /// PR_GET_SECCOMP when the library was loaded.
  long seccomp_at_start = 0;
  /// this_pid_namespace() when it could last be asked: not after a chroot.
  uint64_t pid_namespace = 0;
  /// The process, as a fork_generation(), that asked.
  uint64_t pid_namespace_of = 0;
  std::atomic<bool> lingered{false};
  /// It is outside of the host whose keeper it asks for sockets: it has left it for good (parting.h) or came
  /// later (joining.h). Set last.
  std::atomic<bool> outside{false};
  /// RLIMIT_NOFILE's hard limit as the program has set it while it couldn't be lowered yet.
  rlim_t hard_limit_of_files = RLIM_INFINITY;
  /// What it asks the keeper through then (opening.h), and where to knock again if that is gone; empty: it
  /// has left its host for good.
  io::Descriptor channel;
  std::string joined;
};

/// Valid from Process::start() on.
ProcessState& process_state();
/// The inode of /proc/self/ns/pid: process numbers mean the same where it is the same. 0: not known.
uint64_t this_pid_namespace();

}  // namespace ustack::shim
