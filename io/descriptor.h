// Descriptors of the library's own.
#pragma once

#include <utility>

#include "io/own_descriptors.h"
#include "io/syscalls.h"
#include "stack/base/result.h"

namespace ustack::io {

/// Owns a descriptor of this process. After fork each process owns its copy.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = other.release();
    }
    return *this;
  }
  ~Descriptor() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ < 0) return;
    remove_own_descriptor(fd_);
    sys::close(release());
  }

 private:
  int fd_ = -1;
};

/// Moves a descriptor of the library's out of the program's way: to a high number, close-on-exec. The old
/// number is closed. As high as RLIMIT_NOFILE allows but not above about 1000: the kernel's table grows with
/// the largest number in use and fork copies it. EMFILE when there is no room (the descriptor stays as it
/// is).
Status move_high(Descriptor& descriptor);

}  // namespace ustack::io
