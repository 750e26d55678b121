#include "shim/escaped_end.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/keeper.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim {

EscapedEnd::EscapedEnd(SocketFile& file, io::Descriptor outer)
    : file_(file), outer_(std::move(outer)), entry_(on_event, this) {
  entry_.interest = ~uint32_t{0};
  file_.waiters().add(entry_);
  file_.add_end(*this);
  shared_host->escaped.push_back(*this);
}

EscapedEnd::~EscapedEnd() { file_.remove_end(*this); }

bool EscapedEnd::on_event(WaitEntry& entry, uint32_t) {
  static_cast<EscapedEnd*>(entry.context())->touch();
  return false;  // what an exclusive waiter is to be woken for is not taken away from it
}

void EscapedEnd::touch() {
  if (std::exchange(due_, true)) return;
  keeper::wake(*shared_host);
}

void EscapedEnd::recall() {
  recalled_ = due_ = true;
  keeper::wake(*shared_host);  // which also finds that there is none any more
}

void EscapedEnd::set_holder(int32_t pid) {
  holder_ = pid;
  file_.expect_from_outside();
}

bool EscapedEnd::serve(HostLock& lock) {
  due_ = false;
  retry_at_ = kNever;
  return work(lock);
}

Result<io::Descriptor> EscapedEnd::another() const {
  if (!outer_) return Error{EBADF};
  long fd = io::sys::fcntl(outer_.get(), F_DUPFD_CLOEXEC, 3);
  if (fd < 0) return Error{static_cast<int>(-fd)};
  return io::Descriptor(static_cast<int>(fd));
}

bool EscapedEnd::alone() const { return file_.references() == file_.end_count(); }

bool EscapedEnd::first() const { return file_.ends().front() == this; }

bool EscapedEnd::holder_is_dead() const {
  return holder_ != 0 && io::sys::call(SYS_kill, holder_, 0) == -ESRCH;
}

bool EscapedEnd::relatives_wait(uint32_t events) const { return file_.others_wait(entry_, events); }

void EscapedEnd::retry_in(Duration time) { retry_at_ = std::min(retry_at_, io::now() + time); }

}  // namespace ustack::shim
