#include "shim/departure.h"

#include <fcntl.h>

#include <mutex>
#include <utility>

#include "io/capture.h"
#include "io/syscalls.h"
#include "shim/escape.h"
#include "shim/fd_table.h"
#include "shim/lending.h"
#include "shim/process.h"
#include "shim/process_state.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

bool survives_exec(int fd) {
  long flags = sys::fcntl(fd, F_GETFD);
  return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

/// What exec() takes along on `fd` from now on; the table still says what it is to us.
void put_below(int fd, OpenFile& file, int kernel) {
  std::lock_guard held(FdTable::lock());
  if (FdTable::look(fd) == &file && survives_exec(fd)) sys::call(SYS_dup3, kernel, fd, 0);
}

void take_along(HostLock& lock, FdTable& table) {
  for (int fd = table.next(0); fd >= 0; fd = table.next(fd + 1)) {
    OpenFile* file = FdTable::look(fd);
    if (file == nullptr || file->kind() != OpenFile::Kind::socket || !survives_exec(fd)) continue;
    Held held(*file);
    Result<io::Descriptor> end = escape::end_of(lock, static_cast<SocketFile&>(*file));
    if (end.ok()) put_below(fd, *file, end->get());
  }
}

}  // namespace

bool Departure::prepare() {
  Scope scope;
  ProcessState& state = process_state();
  HostLock lock;
  FdTable* table = FdTable::current();
  Attachment* attachment = state.attachment;
  if (table == nullptr || attachment == nullptr || attachment->ended) return true;
  lending::settle_all(*shared_host);
  if (state.capture != nullptr) state.capture->flush();
  int first = table->next(0);
  if (first < 0) {  // it has nothing that would have to be closed
    left_ = attachment->ended = true;
    --shared_host->attached_count;
    return true;
  }
  OpenFile& file = *FdTable::look(first);
  Held held(file);
  Result<io::Descriptor> watch = escape::watch_departure(lock, file, *attachment);
  if (!watch.ok()) return false;
  watch_ = std::move(*watch);
  take_along(lock, *table);
  return true;
}

void Departure::undo() {
  Scope scope;
  HostLock lock;
  Attachment* attachment = process_state().attachment;
  FdTable* table = FdTable::current();
  if (attachment == nullptr || table == nullptr) return;
  if (std::exchange(left_, false)) {
    attachment->ended = false;
    ++shared_host->attached_count;
  }
  if (!watch_) return;
  attachment->departure = 0;
  watch_.reset();
  table->each([](int fd, OpenFile* file) {
    if (file->kind() == OpenFile::Kind::socket) put_below(fd, *file, Process::placeholder());
  });
}

}  // namespace ustack::shim
