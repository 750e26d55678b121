// Waiting on an epoll set, and how a kernel's epoll descriptor gets an EpollSet beside it.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <csignal>

#include "shim/driver.h"
#include "shim/epoll_set.h"
#include "stack/base/result.h"
#include "stack/base/time.h"

namespace ustack::shim {

/// A descriptor that epoll_create has made: may later be found to be nested in another set.
void note_epoll(int fd);
bool may_be_epoll(int fd);

/// The EpollSet on `fd`, made where there is none yet. EBADF, EINVAL (not an epoll descriptor), ENOMEM. Lock:
/// the host's.
Result<EpollSet*> epoll_set_of(int fd);

/// epoll_ctl(2) on a member that is ours (a socket or an epoll set), and with the kernel's set on what there
/// is of it in the kernel. All of epoll_ctl's errors. Lock: the host's.
Status control_member(HostLock& lock, int set, int operation, int fd, const epoll_event& event);

/// epoll_wait(2) on `fd`, with `room` places at `events`. Deadlines as in poll.h.
/// EBADF, EINVAL, EFAULT, EINTR, ENOMEM. In a Scope, without the lock.
Result<int> wait_for_events(int fd, epoll_event* events, int room, Instant deadline, const sigset_t* mask);

/// A thread waits in the kernel's epoll_wait on `fd`, since there is no host yet. Whoever puts a member of
/// ours into that set then makes it come back, so that it waits here.
class KernelEpollWait {
 public:
  explicit KernelEpollWait(int fd);
  ~KernelEpollWait();
  KernelEpollWait(const KernelEpollWait&) = delete;
  KernelEpollWait& operator=(const KernelEpollWait&) = delete;

 private:
  std::atomic<int>* slot_ = nullptr;
};
/// Takes the event by which a wait in the kernel was ended out of what the kernel has reported; how many are
/// left.
int without_recall(epoll_event* events, int count);

}  // namespace ustack::shim
