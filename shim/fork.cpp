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
// A process that is killed has its references given back by the keeper at once (keeper.h); without a keeper,
// by whichever relative drives, when its number is free (SharedHost::reap_dead).
#include <csignal>
#include <utility>

#include "io/capture.h"
#include "io/fork_mark.h"
#include "io/own_descriptors.h"
#include "shim/catching.h"
#include "shim/events.h"
#include "shim/fd_table.h"
#include "shim/host_lock.h"
#include "shim/keeper.h"
#include "shim/lending.h"
#include "shim/process.h"
#include "shim/process_state.h"
#include "shim/real.h"
#include "shim/scope.h"
#include "shim/signals.h"
#include "shim/socket_file.h"
#include "shim/thread.h"
#include "shim/twins.h"
#include "stack/tcp/endpoint.h"
#include "stack/udp/endpoint.h"

namespace ustack::shim {

namespace {

/// Descriptors of the library's own that belong to other threads of the parent (their rings).
void close_others_descriptors(ProcessState& state) {
  for (int fd = io::next_own_descriptor(0); fd >= 0; fd = io::next_own_descriptor(fd + 1)) {
    if (std::ranges::any_of(state.link.descriptors(),
                            [fd](io::Descriptor& queue) { return queue.get() == fd; }) ||
        fd == state.link.claim().get() || fd == state.placeholder.get() || twins::has(fd) ||
        fd == state.log_sink.descriptor().get() || fd == state.counters_file.get() ||
        fd == keeper::control().to_keeper.get() || fd == keeper::control().in_keeper.get() ||
        (state.capture != nullptr && fd == state.capture->descriptor().get()) || events::is_event(fd))
      continue;
    io::remove_own_descriptor(fd);
    io::sys::close(fd);
  }
}

}  // namespace

Attachment* SharedHost::attach(FdTable* table) {
  auto* attachment = arena->create<Attachment>();
  if (attachment == nullptr) return nullptr;
  attachment->table = table;
  attachment->serial = ++last_serial;
  attachment->pid_namespace.store(this_pid_namespace(), std::memory_order_relaxed);
  attached.push_back(*attachment);
  ++keeper.processes;
  ++attachments;
  ++attached_count;
  return attachment;
}

void SharedHost::detach(Attachment& attachment) {
  attachment.unlink();
  --attachments;
  if (!attachment.ended) --attached_count;
  while (Waiter* waiter = attachment.waiters.pop_front()) destroy_waiter(waiter);
  // An event that only one is told of (blocked accepts, EPOLLEXCLUSIVE) may have been told to a thread that
  // died before it could do anything: the others are told again.
  attachment.table->each([](int, OpenFile* file) {
    if (file->references() > 1) file->waiters().notify(file->readiness());
  });
  shared_events &= ~attachment.shared_events;
  FdTable::destroy(attachment.table);
  arena->destroy(&attachment);
}

int32_t Attachment::number_in(uint64_t where) const {
  if (where == 0) return 0;
  if (int32_t number = pid.load(std::memory_order_relaxed); number != 0 && pid_namespace.load() == where)
    return number;
  return outer_namespace == where ? outer_pid : 0;
}

void SharedHost::release_lost_sockets() {
  each_shard([](Shard& shard) {
    shard.host->tcp().for_each_endpoint([](tcp::Endpoint& endpoint) { endpoint.owned = false; });
    shard.host->udp().for_each_endpoint([](udp::Endpoint& endpoint) { endpoint.owned = false; });
  });
  for (OpenFile& file : files) {
    if (file.kind() != OpenFile::Kind::socket) continue;
    if (Socket* socket = static_cast<SocketFile&>(file).socket_if_any()) socket->owned = true;
  }
  each_shard([](Shard& shard) { shard.host->release_lost(); });
}

void SharedHost::bury(Attachment& attachment) {
  if (!attachment.ended) {
    host->log()(LogLevel::info, [&](LogLine& line) {
      line << "process " << attachment.pid.load() << " has died; what it had open is closed";
    });
  }
  detach(attachment);
}

void SharedHost::reap_dead() {
  uint64_t here = this_pid_namespace();
  if (here == 0) return;
  Attachment* next;
  for (Attachment* one = attached.front(); one != nullptr; one = next) {
    next = attached.next(*one);
    int32_t pid = one->number_in(here);
    if (pid != 0 && io::sys::call(SYS_kill, pid, 0) == -ESRCH) bury(*one);
  }
}

namespace {

/// The child's side: what it has inherited becomes its own.
void begin_child(ProcessState& state, Attachment* attachment) {
  state.pid.store(0, std::memory_order_relaxed);
  state.generation = io::fork_generation();
  after_fork_in_child(this_thread());
  signals::after_fork_in_child();
  events::after_fork_in_child();
  lending::after_fork_in_child();
  FdTable::lock().reset();
  keeper::forget_child();
  close_others_descriptors(state);

  state.attachment = attachment;
  FdTable::inherit(attachment != nullptr ? attachment->table : nullptr);
  twins::keep_those_of(FdTable::current());
  if (attachment == nullptr) return;  // the arena had no room: no socket here is the host's
  // In another namespace the number that the parent has noted, or is about to, means nothing.
  uint64_t here = this_pid_namespace();
  if (attachment->pid_namespace.load() != here) attachment->pid_namespace.store(0);
  attachment->pid.store(Process::id());
  attachment->pid_namespace.store(here);
}

}  // namespace

void Process::late_child() {
  ProcessState& state = process_state();
  state.start_lock.reset();
  FdTable* table = FdTable::current() != nullptr ? FdTable::current()->copy() : nullptr;
  Attachment* attachment = table != nullptr ? shared_host->attach(table) : nullptr;
  if (attachment == nullptr) FdTable::destroy(table);
  begin_child(state, attachment);
  FdTable::set_current(FdTable::current());  // the parent has gone on since it forked
}

bool Process::is_late_child() { return process_state().generation != io::fork_generation(); }

void Process::before_fork() {
  real::resolve();  // the child of a threaded program is not to find itself in the dynamic linker
  process_state().start_lock.lock();  // a host in the making by another thread is waited for
  if (shared_host == nullptr) return;
  enter_library();
  ThreadState& thread = this_thread();
  SharedHost& shared = *shared_host;
  acquire(shared);
  if (events::make_shared_events()) keeper::share_events();
  lending::settle_all(shared);
  FdTable::lock().lock();
  FdTable* table = FdTable::current() != nullptr ? FdTable::current()->copy() : nullptr;
  thread.forked = table != nullptr ? shared.attach(table) : nullptr;
  if (thread.forked == nullptr) FdTable::destroy(table);
  thread.forked_serial = thread.forked != nullptr ? thread.forked->serial : 0;
  drop(shared);
}

void Process::after_fork_in_parent() {
  process_state().start_lock.unlock();
  if (shared_host == nullptr) return;
  FdTable::lock().unlock();
  leave_library();
}

void Process::fork_returned(pid_t pid) {
  ThreadState& thread = this_thread();
  Attachment* attachment = std::exchange(thread.forked, nullptr);
  if (shared_host == nullptr || attachment == nullptr) return;
  Scope scope;
  keeper::ensure();
  HostLock lock;
  // The child may have run, ended and been cleared away by now.
  bool there = false;
  for (Attachment& each : shared_host->attached)
    there |= &each == attachment && each.serial == thread.forked_serial;
  if (!there) return;
  if (pid < 0) {
    shared_host->detach(*attachment);
    return;
  }
  int32_t unknown = 0;
  attachment->pid.compare_exchange_strong(unknown, pid);
  attachment->outer_pid = pid;
  attachment->outer_namespace = this_pid_namespace();
  keeper::processes_changed(*shared_host);
}

void Process::after_fork_in_child() {
  catching::arm_thread();
  ProcessState& state = process_state();
  state.start_lock.reset();
  state.pid.store(0, std::memory_order_relaxed);
  if (shared_host == nullptr) return;
  ThreadState& thread = this_thread();
  Attachment* attachment = thread.forked;
  thread.forked = nullptr;
  begin_child(state, attachment);
  leave_library();
}

void Process::leave_host() {
  if (FdTable* table = FdTable::current()) table->each([&](int fd, OpenFile*) { table->clear(fd); });
  Attachment* attachment = process_state().attachment;
  if (attachment == nullptr || attachment->ended) return;
  // Calls of other threads have ended, too; they stay out from here on.
  this_thread().gate = library_gate.fetch_add(1) + 1;
  for (Waiter& waiter : attachment->waiters) {
    if (&waiter == this_thread().waiter) continue;
    if (shared_host->queue_of(waiter).driver == &waiter) rouse(*shared_host, waiter);  // to give up the role
    shared_host->forget_driver(waiter);
    static_cast<ListHook<>&>(waiter).unlink();
    end_calls(waiter);
  }
  // The table itself stays until the process is dead: its threads may still look something up.
  attachment->ended = true;
  --shared_host->attached_count;
}

}  // namespace ustack::shim
