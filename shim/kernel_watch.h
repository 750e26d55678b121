// The kernel's descriptors of one poll or select as one descriptor that becomes readable when any of them is
// ready: a kernel epoll set of the library's own.
#pragma once

#include <poll.h>

#include <span>

namespace ustack::shim {

/// Holds one of a small pool of epoll sets for the length of a wait. Registrations are made anew each time:
/// the program may have closed a descriptor and got its number again meanwhile.
class KernelWatch {
 public:
  KernelWatch() = default;
  ~KernelWatch();
  KernelWatch(const KernelWatch&) = delete;
  KernelWatch& operator=(const KernelWatch&) = delete;

  /// Watches `fds` (those with a negative number left out). The descriptor to wait for; -1 if that can't be
  /// had, or not for all of them (complete() is false then): the caller looks now and then.
  int start(std::span<const pollfd> fds);
  bool complete() const { return complete_; }

 private:
  bool add(std::span<const pollfd> fds, size_t index);

  std::span<const pollfd> fds_;
  int set_ = -1;
  bool complete_ = true;
};

}  // namespace ustack::shim
