// Who is told of a socket's events by signals: SIGIO, or what F_SETSIG has chosen, and SIGURG (fcntl(2),
// "Managing signals").
#pragma once

#include <fcntl.h>

#include <csignal>
#include <cstdint>

#include "stack/base/result.h"
#include "stack/socket/wait_queue.h"

namespace ustack::shim {

/// Of an open file description that has been given an owner, a signal or O_ASYNC; in the arena. Whoever
/// drives sends the signals, so it is a process that may. What si_fd and si_band say is lost where that is
/// not the owner itself (rt_sigqueueinfo(2) doesn't let one process speak for the kernel to another). Lock:
/// the host's.
class AsyncOwner {
 public:
  explicit AsyncOwner(WaitQueue& waiters);
  AsyncOwner(const AsyncOwner&) = delete;
  AsyncOwner& operator=(const AsyncOwner&) = delete;

  /// F_SETOWN: a process, or with a minus a process group; 0: nobody. EINVAL, ESRCH.
  Status set_owner(int who);
  /// F_SETOWN_EX. EINVAL, ESRCH.
  Status set_owner(const f_owner_ex& owner);
  const f_owner_ex& owner() const { return owner_; }
  /// F_GETOWN.
  int who() const { return owner_.type == F_OWNER_PGRP ? -owner_.pid : owner_.pid; }
  /// F_SETSIG; 0: SIGIO, without more. EINVAL.
  Status set_signal(int number);
  int signal() const { return signal_; }
  /// O_ASYNC, set by the descriptor that siginfo is to name.
  void set_async(bool on, int fd);
  bool async() const { return async_; }

  /// What a relative or the keeper has sent for us, as the kernel sends it: only the latter may give si_code
  /// a positive value for another process. All other siginfos stay as they are.
  static void reveal(siginfo_t& info);

 private:
  static bool tell(WaitEntry& entry, uint32_t events);
  void send(int number, int code, int32_t band) const;

  WaitEntry entry_;
  f_owner_ex owner_{F_OWNER_TID, 0};
  /// The process of a thread that was named (F_OWNER_TID) by itself or by another of its process; 0: unknown.
  int32_t owners_process_ = 0;
  int signal_ = 0;
  int fd_ = -1;
  bool async_ = false;
};

}  // namespace ustack::shim
