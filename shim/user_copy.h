// Bytes of the program: copied in the caller's own context, never under the host's lock.
//
// A pointer into the null page, into the kernel's half or one that runs over the end of memory gives EFAULT
// for nothing. Any other is simply used, so that a bad one is the program's own SIGSEGV at its own
// instruction; with USTACK_EFAULT=check it is copied by process_vm_readv/writev(2), which says EFAULT as the
// kernel does.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "stack/base/bytes.h"
#include "stack/base/result.h"

namespace ustack::shim {

/// USTACK_EFAULT=check is in force. Set once, before there are threads.
void check_user_pointers(bool check);
bool user_pointers_checked();

/// The range lies in the half of the address space that a program can have (the kernel's access_ok). The null
/// page does.
bool user_range(const void* memory, size_t bytes);

/// Reads `bytes` of the program's memory. EFAULT.
Status copy_from_user(void* to, const void* from, size_t bytes);
/// Writes the program's memory. EFAULT; what comes before the bad page may have been written.
Status copy_to_user(void* to, const void* from, size_t bytes);

template <typename T>
Result<T> get_user(const T* from) {
  T value{};
  if (Status s = copy_from_user(&value, from, sizeof value); !s.ok()) return s.error();
  return value;
}
template <typename T>
Status put_user(T* to, const T& value) {
  return copy_to_user(to, &value, sizeof value);
}

/// Where a call's bytes come from or go to: one buffer or an array of iovecs, walked once from front to back.
/// Nothing is allocated; the array is read where it is, an element when its turn comes.
class UserBytes {
 public:
  /// UIO_MAXIOV and MAX_RW_COUNT of Linux.
  static constexpr size_t kMaxParts = 1024;
  static constexpr size_t kMaxBytes = 0x7ffff000;

  UserBytes() = default;
  /// EFAULT: outside of the program's half of the address space.
  static Result<UserBytes> buffer(const void* memory, size_t bytes);
  /// readv(2), writev(2): EINVAL for more than kMaxParts or a negative length, EFAULT. Too many parts is
  /// `too_many` instead where given (EMSGSIZE in sendmsg(2)).
  static Result<UserBytes> parts(const iovec* parts, size_t count, int too_many = EINVAL);

  /// Bytes not walked yet.
  size_t left() const { return left_; }
  /// Copies up to to.size() bytes out of the program's memory and goes on behind them. Less than there were:
  /// the rest is EFAULT.
  size_t read(MutableBytes to);
  /// Copies into the program's memory.
  size_t write(Bytes from);
  /// The next of them that lie in one piece, at least one if left() isn't 0; none: EFAULT.
  Bytes run();
  /// Passes over bytes without touching them (MSG_TRUNC).
  void skip(size_t bytes);

 private:
  template <typename Copy>
  size_t walk(size_t bytes, Copy copy);
  bool next_part();

  const iovec* parts_ = nullptr;  // those after the current one
  size_t parts_left_ = 0;
  std::byte* at_ = nullptr;
  size_t at_bytes_ = 0;  // of the current part
  size_t left_ = 0;
};

}  // namespace ustack::shim
