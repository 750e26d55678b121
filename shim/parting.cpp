#include "shim/parting.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "io/capture.h"
#include "io/engine.h"
#include "io/own_descriptors.h"
#include "io/syscalls.h"
#include "shim/call.h"
#include "shim/epoll_set.h"
#include "shim/escape.h"
#include "shim/events.h"
#include "shim/keeper.h"
#include "shim/kernel_socket.h"
#include "shim/lending.h"
#include "shim/process.h"
#include "shim/process_state.h"
#include "shim/shared_host.h"
#include "shim/thread.h"

namespace ustack::shim::parting {

namespace {

namespace sys = io::sys;

/// pthread_join(3) comes back a little before the kernel has counted the thread out.
constexpr int kLooks = 100;
constexpr __kernel_timespec kLookPause{0, 1'000'000};

/// -1: /proc isn't there (after chroot).
int count_threads() {
  struct stat status {};
  if (sys::call(SYS_newfstatat, AT_FDCWD, sys::arg("/proc/self/task"), sys::arg(&status), 0) != 0) return -1;
  return static_cast<int>(status.st_nlink) - 2;  // proc(5): beside "." and "..", one for each
}

/// No other might be inside the library, or come in. Without the lock.
bool only_thread() {
  int count = count_threads();
  for (int look = 1; look < kLooks && count > 1; ++look) {
    sys::nanosleep(&kLookPause);
    count = count_threads();
  }
  if (count >= 0) return count == 1;
  // Those that have ever waited in the library are known.
  HostLock lock;
  if (Attachment* attachment = process_state().attachment)
    for (Waiter& waiter : attachment->waiters)
      if (&waiter != this_thread().waiter) return false;
  return true;
}

/// Room for ends in a process that has forbidden itself more descriptors (vsftpd: RLIMIT_NOFILE of 0), whose
/// hard limit calls_limits.cpp has put off. At its end the limits are what the program wants.
class RoomForDescriptors {
 public:
  RoomForDescriptors() {
    sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, sys::arg(&limits_));
    const rlimit roomy{std::min(std::max<rlim_t>(limits_.rlim_cur, kRoom), limits_.rlim_max),
                       limits_.rlim_max};
    sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, sys::arg(&roomy), 0);
  }
  ~RoomForDescriptors() { sys::call(SYS_prlimit64, 0, RLIMIT_NOFILE, sys::arg(&limits_), 0); }
  RoomForDescriptors(const RoomForDescriptors&) = delete;
  RoomForDescriptors& operator=(const RoomForDescriptors&) = delete;
  void set_hard_limit(rlim_t limit) { limits_.rlim_max = std::min(limits_.rlim_max, limit); }

 private:
  static constexpr rlim_t kRoom = 4096;
  rlimit limits_{};
};

/// How many of this process's numbers mean `file`.
uint32_t numbers_of(FdTable& table, const OpenFile& file) {
  uint32_t count = 0;
  table.each([&](int, OpenFile* each) { count += each == &file ? 1 : 0; });
  return count;
}

/// What is registered with sets that are this process's alone is from now on the kernel's to watch.
void move_own_registrations(FdTable& table, OpenFile& file) {
  EpollMember* next;
  for (EpollMember* member = file.registrations.front(); member != nullptr; member = next) {
    next = file.registrations.next(*member);
    EpollSet& set = member->set();
    if (set.references() != numbers_of(table, set) || FdTable::look(member->fd) == &file) continue;
    set.attach_half(*member, member->fd);
    (void)set.remove(file, member->fd);
  }
}

/// EAGAIN: some socket has no end.
Status leave_sockets_to_keeper(HostLock& lock, FdTable& table) {
  for (int fd = table.next(0); fd >= 0; fd = table.next(fd + 1)) {
    OpenFile* file = FdTable::look(fd);
    if (file->kind() != OpenFile::Kind::socket) continue;
    Held held(*file);
    auto& socket = static_cast<SocketFile&>(*file);
    Result<io::Descriptor> end = escape::end_of(lock, socket);
    if (!end.ok()) return Error{EAGAIN};
    put_on_all_numbers(socket, end->get());
    move_own_registrations(table, socket);
  }
  return {};
}

/// EAGAIN.
Status open_channel(HostLock& lock, io::Descriptor& channel) {
  // Any file will do to ask with; it may have none.
  Result<SocketFile*> file = SocketFile::open(lock.host(), AF_INET, SOCK_STREAM, IPPROTO_TCP);
  if (!file.ok()) return Error{EAGAIN};
  Result<io::Descriptor> made = escape::open_channel(lock, **file);
  (*file)->release();
  if (!made.ok()) return Error{EAGAIN};
  channel = std::move(*made);
  return {};
}

/// Lock held.
void detach(ProcessState& state) {
  FdTable::set_current(nullptr);
  ThreadState& thread = this_thread();
  if (thread.engine != nullptr) io::Engine::destroy(std::exchange(thread.engine, nullptr));
  if (thread.waiter != nullptr) destroy_waiter(std::exchange(thread.waiter, nullptr));
  shared_host->detach(*std::exchange(state.attachment, nullptr));
  keeper::processes_changed(*shared_host);
  keeper::wake(*shared_host);
}

/// The host is no more this process's.
void forget_host(ProcessState& state) {
  if (state.capture != nullptr) {
    state.capture->flush();
    io::Capture::close(std::exchange(state.capture, nullptr));
  }
  list_journals = nullptr;
  file_step = nullptr;
  io::SharedRegion::unmap(std::exchange(shared_host, nullptr)->region);
  state.link = io::Link();
  state.placeholder.reset();
  state.counters_file.reset();
  state.log_sink.descriptor().reset();
  keeper::control() = keeper::Control();
  events::close_all();
  lending::close();
  state.outside.store(true);
}

/// EAGAIN, with what stands in the way in the log.
Status refuse(HostLock& lock, std::string_view why) {
  lock.host().log()(LogLevel::error, [&](LogLine& line) {
    line << "process " << Process::id() << " can't give up root under USTACK_TRUST=credentials: " << why;
  });
  return Error{EAGAIN};
}

}  // namespace

Status before_root_is_given_up() {
  ProcessState& state = process_state();
  if (shared_host == nullptr || Scope::inside() || !state.config.parts_by_credentials) return {};
  Scope scope;
  RoomForDescriptors room;
  const bool alone = only_thread();
  {
    HostLock lock;
    FdTable* table = FdTable::current();
    if (table == nullptr || state.attachment == nullptr) return refuse(lock, "it has left the host already");
    if (!alone) return refuse(lock, "it has several threads");
    lending::settle_all(*shared_host);
    if (!open_channel(lock, state.channel).ok()) return refuse(lock, "the keeper doesn't answer");
    if (!leave_sockets_to_keeper(lock, *table).ok()) return refuse(lock, "the keeper can't serve a socket");
    lock.host().log()(LogLevel::info, [](LogLine& line) {
      line << "process " << Process::id() << " gives up root; what it has open is served by the keeper";
    });
    detach(state);
  }
  forget_host(state);
  room.set_hard_limit(state.hard_limit_of_files);
  return {};
}

}  // namespace ustack::shim::parting
