// Hooks of what shows a descriptor's inode. Sockets of ours are duplicates of one placeholder, which costs no
// memory of the kernel's, until somebody looks: then a socket gets an inode that no other has, as each of the
// kernel's.
#include <fcntl.h>
#include <sys/stat.h>

#include <mutex>

#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/call.h"
#include "shim/hooks.h"
#include "shim/process.h"
#include "shim/sandbox.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

/// 0: none.
ino_t inode_of(int fd) {
  struct stat status {};
  return sys::call(SYS_newfstatat, fd, sys::arg(""), sys::arg(&status), AT_EMPTY_PATH) == 0 ? status.st_ino
                                                                                            : 0;
}

/// Puts a socket of its own on all of the file's numbers in this process, unless it has one. Relatives that
/// had the file before keep what they have. Without a free descriptor, or in a sandbox, all stays as it is.
/// Lock held.
void give_own_inode(OpenFile& file, int fd) {
  if (inode_of(fd) != inode_of(Process::placeholder())) return;
  io::Descriptor made(static_cast<int>(sys::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  if (!made) return;
  std::lock_guard held(FdTable::lock());
  FdTable::current()->each([&](int number, OpenFile* other) {
    if (other == &file) FdTable::put_below(number, made.get());
  });
}

[[gnu::noinline]] void look_at_ours(int fd) {
  if (Scope::inside() || sandbox::active()) return;
  Scope scope;
  HostLock lock;
  OpenFile* file = FdTable::look(fd);
  if (file != nullptr && file->kind() == OpenFile::Kind::socket) give_own_inode(*file, fd);
}

void look_at(int fd) {
  if (FdTable::look(fd) != nullptr) [[unlikely]]
    look_at_ours(fd);
}

/// The same for calls that look at the descriptor itself if the path is empty. A bad pointer is the kernel's
/// to refuse.
void look_at(int fd, const char* path, int flags) {
  if (FdTable::look(fd) == nullptr || (flags & AT_EMPTY_PATH) == 0) [[likely]]
    return;
  char first = 0;
  if (path == nullptr || (copy_from_user(&first, path, 1).ok() && first == '\0')) look_at_ours(fd);
}

}  // namespace

namespace hook {

int fstat(int fd, struct stat* to) {
  look_at(fd);
  return real::fstat(fd, to);
}

int fstat64(int fd, struct stat64* to) {
  look_at(fd);
  return real::fstat64(fd, to);
}

int __fxstat(int version, int fd, struct stat* to) {
  look_at(fd);
  return real::__fxstat(version, fd, to);
}

int __fxstat64(int version, int fd, struct stat64* to) {
  look_at(fd);
  return real::__fxstat64(version, fd, to);
}

int fstatat(int at, const char* path, struct stat* to, int flags) {
  look_at(at, path, flags);
  return real::fstatat(at, path, to, flags);
}

int fstatat64(int at, const char* path, struct stat64* to, int flags) {
  look_at(at, path, flags);
  return real::fstatat64(at, path, to, flags);
}

int statx(int at, const char* path, int flags, unsigned mask, struct statx* to) {
  look_at(at, path, flags);
  return real::statx(at, path, flags, mask, to);
}

}  // namespace hook
}  // namespace ustack::shim
