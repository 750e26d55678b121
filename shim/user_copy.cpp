#include "shim/user_copy.h"

#include <algorithm>
#include <cstring>

#include "io/syscalls.h"

namespace ustack::shim {

namespace {

bool check_pointers = false;

// Where a program's addresses end. 57-bit addresses exist (LA57), so this is only a coarse sieve: what lies
// between here and what the machine really has is a fault of the program's own.
constexpr uintptr_t kEndOfUser = uintptr_t{1} << 56;
constexpr uintptr_t kEndOfNullPage = 4096;

bool touchable(const void* memory, size_t bytes) {
  return user_range(memory, bytes) && reinterpret_cast<uintptr_t>(memory) >= kEndOfNullPage;
}

bool transfer(bool writing, void* ours, const void* theirs, size_t bytes) {
  iovec local{ours, bytes};
  iovec remote{const_cast<void*>(theirs), bytes};
  long n = io::sys::call(writing ? SYS_process_vm_writev : SYS_process_vm_readv, io::sys::getpid(),
                         io::sys::arg(&local), 1, io::sys::arg(&remote), 1, 0);
  return n == static_cast<long>(bytes);
}

}  // namespace

void check_user_pointers(bool check) { check_pointers = check; }
bool user_pointers_checked() { return check_pointers; }

bool user_range(const void* memory, size_t bytes) {
  auto address = reinterpret_cast<uintptr_t>(memory);
  return address <= kEndOfUser && bytes <= kEndOfUser - address;
}

Status copy_from_user(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return {};
  if (!touchable(from, bytes)) return Error{EFAULT};
  if (check_pointers) return transfer(false, to, from, bytes) ? Status() : Error{EFAULT};
  std::memcpy(to, from, bytes);
  return {};
}

Status copy_to_user(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return {};
  if (!touchable(to, bytes)) return Error{EFAULT};
  if (check_pointers) return transfer(true, const_cast<void*>(from), to, bytes) ? Status() : Error{EFAULT};
  std::memcpy(to, from, bytes);
  return {};
}

Result<UserBytes> UserBytes::buffer(const void* memory, size_t bytes) {
  bytes = std::min(bytes, kMaxBytes);
  if (!user_range(memory, bytes)) return Error{EFAULT};
  UserBytes result;
  result.at_ = static_cast<std::byte*>(const_cast<void*>(memory));
  result.at_bytes_ = result.left_ = bytes;
  return result;
}

Result<UserBytes> UserBytes::parts(const iovec* parts, size_t count, int too_many) {
  if (count > kMaxParts) return Error{too_many};
  UserBytes result;
  // Linux judges the whole array before it moves a byte (import_iovec).
  for (size_t i = 0; i < count; ++i) {
    Result<iovec> part = get_user(parts + i);
    if (!part.ok()) return part.error();
    if (static_cast<ssize_t>(part->iov_len) < 0) return Error{EINVAL};
    size_t bytes = std::min(part->iov_len, kMaxBytes - result.left_);
    if (!user_range(part->iov_base, bytes)) return Error{EFAULT};
    result.left_ += bytes;
  }
  result.parts_ = parts;
  result.parts_left_ = count;
  return result;
}

bool UserBytes::next_part() {
  while (at_bytes_ == 0) {
    if (parts_left_ == 0) return false;
    // Another thread may have changed the array since it was judged: the range is judged again where it is
    // used.
    Result<iovec> part = get_user(parts_);
    if (!part.ok()) return false;
    ++parts_;
    --parts_left_;
    at_ = static_cast<std::byte*>(part->iov_base);
    at_bytes_ = part->iov_len;
  }
  return true;
}

template <typename Copy>
size_t UserBytes::walk(size_t bytes, Copy copy) {
  size_t done = 0;
  bytes = std::min(bytes, left_);
  while (done < bytes && next_part()) {
    size_t n = std::min(bytes - done, at_bytes_);
    if (!copy(at_, done, n)) break;
    at_ += n;
    at_bytes_ -= n;
    left_ -= n;
    done += n;
  }
  return done;
}

size_t UserBytes::read(MutableBytes to) {
  return walk(to.size(), [&](const std::byte* from, size_t offset, size_t n) {
    return copy_from_user(to.data() + offset, from, n).ok();
  });
}

size_t UserBytes::write(Bytes from) {
  return walk(from.size(), [&](std::byte* to, size_t offset, size_t n) {
    return copy_to_user(to, from.data() + offset, n).ok();
  });
}

Bytes UserBytes::run() { return next_part() ? Bytes(at_, std::min(at_bytes_, left_)) : Bytes(); }

void UserBytes::skip(size_t bytes) {
  walk(bytes, [](std::byte*, size_t, size_t) { return true; });
}

}  // namespace ustack::shim
