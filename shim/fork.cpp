// Two processes with one host. The arena is shared memory: endpoints, buffers, the lock and the role of the
// driver simply go on, and whichever process waits drives. What each process has for itself:
//
//   its FdTable (in the arena)     made by the parent before the fork, every file's count raised, so that
//   nothing
//                                  that the parent closes meanwhile is lost to the child
//   its descriptors                inherited: link, placeholder, events have the same numbers
//   engines, waiters               of the parent's threads: the child's only thread makes its own
//
// The tables' lock is held across the fork itself, so that the kernel's table and ours agree in the child.
//
// What comes with the keeper (a helper process that shares the arena): a process that is killed while others
// live has its references given back at once and not when its number is free (SharedHost::reap_dead), data is
// delivered after the last process's end (linger.cpp) and timers run while all processes compute.
#include <csignal>

#include "io/capture.h"
#include "io/own_descriptors.h"
#include "shim/events.h"
#include "shim/fd_table.h"
#include "shim/host_lock.h"
#include "shim/process.h"
#include "shim/process_state.h"
#include "shim/scope.h"
#include "shim/signals.h"
#include "shim/thread.h"

namespace ustack::shim {

namespace {

void detach_from(SharedHost& shared, Attachment& attachment) {
  attachment.unlink();
  --shared.attached_count;
  FdTable::destroy(attachment.table);
  shared.arena->destroy(&attachment);
}

/// Descriptors of the library's own that belong to other threads of the parent (their rings).
void close_others_descriptors(ProcessState& state) {
  for (int fd = io::next_own_descriptor(0); fd >= 0; fd = io::next_own_descriptor(fd + 1)) {
    if (fd == state.link.fd() || fd == state.placeholder.get() || fd == state.log_sink.descriptor().get() ||
        (state.capture != nullptr && fd == state.capture->descriptor().get()) || events::is_event(fd))
      continue;
    io::remove_own_descriptor(fd);
    io::sys::close(fd);
  }
}

}  // namespace

void SharedHost::reap_dead() {
  uint64_t here = this_pid_namespace();
  if (here == 0) return;
  Attachment* next;
  for (Attachment* one = attached.front(); one != nullptr; one = next) {
    next = attached.next(*one);
    int32_t pid = one->pid.load(std::memory_order_relaxed);
    if (pid == 0 || one->pid_namespace.load(std::memory_order_relaxed) != here) continue;
    if (io::sys::call(SYS_kill, pid, 0) != -ESRCH) continue;
    host->log()(LogLevel::info,
                [&](LogLine& line) { line << "process " << pid << " has died; what it had open is closed"; });
    detach_from(*this, *one);
  }
}

void Process::before_fork() {
  process_state().start_lock.lock();  // a host in the making by another thread is waited for
  if (shared_host == nullptr) return;
  enter_library();
  ThreadState& thread = this_thread();
  SharedHost& shared = *shared_host;
  acquire(shared);
  events::make_shared_events();
  FdTable::lock().lock();
  FdTable* table = FdTable::current() != nullptr ? FdTable::current()->copy() : nullptr;
  Attachment* attachment = table != nullptr ? shared.arena->create<Attachment>() : nullptr;
  if (attachment != nullptr) {
    attachment->table = table;
    shared.attached.push_back(*attachment);
    ++shared.attached_count;
  } else {
    FdTable::destroy(table);
  }
  thread.forked = attachment;
  drop(shared);
}

void Process::after_fork_in_parent() {
  process_state().start_lock.unlock();
  if (shared_host == nullptr) return;
  FdTable::lock().unlock();
  leave_library();
}

void Process::fork_failed() {
  Attachment* attachment = this_thread().forked;
  this_thread().forked = nullptr;
  if (shared_host == nullptr || attachment == nullptr) return;
  Scope scope;
  HostLock lock;
  detach_from(*shared_host, *attachment);
}

void Process::after_fork_in_child() {
  ProcessState& state = process_state();
  state.start_lock.reset();
  state.pid.store(0, std::memory_order_relaxed);
  if (shared_host == nullptr) return;
  ThreadState& thread = this_thread();
  ustack::shim::after_fork_in_child(thread);
  signals::after_fork_in_child();
  events::after_fork_in_child();
  FdTable::lock().reset();
  close_others_descriptors(state);

  state.attachment = thread.forked;
  thread.forked = nullptr;
  if (state.attachment != nullptr) {
    FdTable::set_current(state.attachment->table);
    state.attachment->pid_namespace.store(this_pid_namespace(), std::memory_order_relaxed);
    state.attachment->pid.store(id(), std::memory_order_release);
  } else {
    // The arena had no room for a table: no socket here is the host's.
    FdTable::set_current(nullptr);
    shared_host = nullptr;
  }
  leave_library();
}

void Process::detach(SharedHost& shared) {
  ProcessState& state = process_state();
  FdTable* table = FdTable::current();
  if (table != nullptr) table->each([&](int fd, OpenFile*) { table->clear(fd); });
  if (state.attachment == nullptr) return;
  // The table itself stays for what the ending program still does.
  state.attachment->unlink();
  state.attachment = nullptr;
  --shared.attached_count;
}

}  // namespace ustack::shim
