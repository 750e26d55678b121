#include "shim/async_owner.h"

#include <poll.h>
#include <sys/syscall.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <utility>

#include "io/syscalls.h"
#include "shim/process.h"

namespace ustack::shim {

namespace sys = io::sys;

namespace {

constexpr int kSignals = 64;

bool exists(const f_owner_ex& owner) {
  const long result = owner.type == F_OWNER_TID
                          ? sys::call(SYS_tkill, owner.pid, 0)
                          : sys::call(SYS_kill, owner.type == F_OWNER_PGRP ? -owner.pid : owner.pid, 0);
  return result != -ESRCH;
}

}  // namespace

AsyncOwner::AsyncOwner(WaitQueue& waiters) : entry_(&tell, this) {
  entry_.interest = ready::kPri;
  waiters.add(entry_);
}

Status AsyncOwner::set_owner(int who) {
  if (who == INT_MIN) return Error{EINVAL};
  return set_owner(f_owner_ex{who < 0 ? F_OWNER_PGRP : F_OWNER_PID, who < 0 ? -who : who});
}

Status AsyncOwner::set_owner(const f_owner_ex& owner) {
  if (owner.type != F_OWNER_TID && owner.type != F_OWNER_PID && owner.type != F_OWNER_PGRP)
    return Error{EINVAL};
  if (owner.pid < 0 || (owner.pid != 0 && !exists(owner))) return Error{ESRCH};
  owner_ = owner;
  owners_process_ = Process::id();
  if (owner.type != F_OWNER_TID || sys::call(SYS_tgkill, owners_process_, owner.pid, 0) < 0)
    owners_process_ = 0;
  return {};
}

Status AsyncOwner::set_signal(int number) {
  if (number < 0 || number > kSignals) return Error{EINVAL};
  signal_ = number;
  return {};
}

void AsyncOwner::set_async(bool on, int fd) {
  async_ = on;
  fd_ = fd;
  entry_.interest = on ? ready::kIn | ready::kOut | ready::kPri : ready::kPri;
}

bool AsyncOwner::tell(WaitEntry& entry, uint32_t events) {
  const AsyncOwner& self = *static_cast<AsyncOwner*>(entry.context());
  if (self.owner_.pid == 0) return false;
  // Linux's sk_send_sigurg, which needs no O_ASYNC.
  if ((events & ready::kPri) != 0) self.send(SIGURG, SI_KERNEL, 0);
  if (!self.async_) return false;
  // As band_table of Linux's fs/fcntl.c.
  int code = POLL_OUT;
  int32_t band = POLLOUT | POLLWRNORM | POLLWRBAND;
  if ((events & ready::kErr) != 0) {
    code = POLL_ERR, band = POLLERR;
  } else if ((events & ready::kHup) != 0) {
    code = POLL_HUP, band = POLLHUP | POLLERR;
  } else if ((events & ready::kPri) != 0) {
    code = POLL_PRI, band = POLLPRI | POLLRDBAND;
  } else if ((events & ready::kIn) != 0) {
    code = POLL_IN, band = POLLIN | POLLRDNORM;
  }
  if (self.signal_ == 0)
    self.send(SIGIO, SI_KERNEL, 0);
  else
    self.send(self.signal_, code, band);
  return false;
}

void AsyncOwner::send(int number, int code, int32_t band) const {
  siginfo_t info{};
  info.si_signo = number;
  info.si_code = code;
  info.si_band = band;
  info.si_fd = fd_;
  if (owner_.type == F_OWNER_PGRP) {
    sys::call(SYS_kill, -owner_.pid, number);
    return;
  }
  const bool thread = owner_.type == F_OWNER_TID;
  const int32_t process = thread ? owners_process_ : owner_.pid;
  if (process != Process::id()) {
    info.si_code = SI_SIGIO;
    info.si_errno = code;
  }
  const long result = thread ? sys::call(SYS_rt_tgsigqueueinfo, process, owner_.pid, number, sys::arg(&info))
                             : sys::call(SYS_rt_sigqueueinfo, process, number, sys::arg(&info));
  // Its process isn't known, or its queue of signals is full.
  if (result < 0) sys::call(thread ? SYS_tkill : SYS_kill, owner_.pid, number);
}

void AsyncOwner::reveal(siginfo_t& info) {
  const bool ours = info.si_errno == SI_KERNEL || (info.si_errno >= POLL_IN && info.si_errno <= POLL_HUP);
  if (info.si_code != SI_SIGIO || !ours) return;
  info.si_code = std::exchange(info.si_errno, 0);
}

}  // namespace ustack::shim
