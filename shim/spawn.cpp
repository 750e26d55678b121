#include "shim/spawn.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <utility>

#include "io/descriptor.h"
#include "io/syscalls.h"
#include "shim/call.h"
#include "shim/escape.h"
#include "shim/process.h"
#include "shim/shared_host.h"

namespace ustack::shim {

namespace {

namespace sys = io::sys;

/// Numbers, one more than each; more than there is room for make every descriptor a source.
constexpr int kMostSources = 64;
std::atomic<int> sources[kMostSources];
std::atomic<bool> too_many_sources{false};

bool may_be_source(int fd) {
  if (too_many_sources.load()) return true;
  for (auto& source : sources)
    if (source.load() == fd + 1) return true;
  return false;
}

/// A number and what the child finds there. In the arena: the program's own allocator isn't ours to use.
struct Place : ListHook<> {
  Place(int number, long flags, io::Descriptor what) : fd(number), cloexec(flags), end(std::move(what)) {}
  int fd;
  long cloexec;
  io::Descriptor end;
};

class Places {
 public:
  Places(const posix_spawn_file_actions_t* actions);
  ~Places();
  Places(const Places&) = delete;
  Places& operator=(const Places&) = delete;
  IntrusiveList<Place>& list() { return list_; }

 private:
  IntrusiveList<Place> list_;
};

Places::Places(const posix_spawn_file_actions_t* actions) {
  HostLock lock;
  FdTable* table = FdTable::current();
  if (table == nullptr) return;
  for (int fd = table->next(0); fd >= 0; fd = table->next(fd + 1)) {
    OpenFile* file = FdTable::look(fd);
    long flags = sys::fcntl(fd, F_GETFD);
    bool taken_along = (flags & FD_CLOEXEC) == 0 || (actions != nullptr && may_be_source(fd));
    if (file == nullptr || file->kind() != OpenFile::Kind::socket || flags < 0 || !taken_along) continue;
    Held held(*file);
    Result<io::Descriptor> end = escape::end_of(lock, static_cast<SocketFile&>(*file));
    if (!end.ok()) continue;
    if (auto* place = shared_host->arena->create<Place>(fd, flags & FD_CLOEXEC, std::move(*end)))
      list_.push_back(*place);
  }
}

Places::~Places() {
  HostLock lock;
  while (Place* place = list_.pop_front()) shared_host->arena->destroy(place);
}

struct Job {
  SpawnFunction real;
  pid_t* pid;
  const char* program;
  const posix_spawn_file_actions_t* actions;
  const posix_spawnattr_t* attributes;
  char* const* arguments;
  char* const* environment;
  IntrusiveList<Place>* places;
  uint64_t mask;
  int result = 0;

  int run() { return real(pid, program, actions, attributes, arguments, environment); }
};

void* run_apart(void* argument) {
  Job& job = *static_cast<Job*>(argument);
  if (sys::call(SYS_unshare, CLONE_FILES) == 0)
    for (Place& place : *job.places)
      sys::call(SYS_dup3, place.end.get(), place.fd, place.cloexec != 0 ? O_CLOEXEC : 0);
  // The child's, unless its attributes say otherwise, is the caller's.
  sys::call(SYS_rt_sigprocmask, SIG_SETMASK, sys::arg(&job.mask), 0, sys::kSignalSetBytes);
  job.result = job.run();
  return nullptr;
}

}  // namespace

void expect_spawn_source(int fd) {
  if (FdTable::look(fd) == nullptr || may_be_source(fd)) return;
  for (auto& source : sources) {
    int none = 0;
    if (source.compare_exchange_strong(none, fd + 1)) return;
  }
  too_many_sources.store(true);
}

int spawn(SpawnFunction real, pid_t* pid, const char* program, const posix_spawn_file_actions_t* actions,
          const posix_spawnattr_t* attributes, char* const* arguments, char* const* environment) {
  Job job{real, pid, program, actions, attributes, arguments, environment, nullptr, 0};
  if (!Process::has_host() || Scope::inside()) return job.run();
  sys::call(SYS_rt_sigprocmask, SIG_BLOCK, 0, sys::arg(&job.mask), sys::kSignalSetBytes);
  Scope scope;
  Places places(actions);
  job.places = &places.list();
  if (places.list().empty()) return job.run();
  pthread_attr_t thread_attributes;
  pthread_attr_init(&thread_attributes);
  constexpr size_t kStackBytes = 256 * 1024;
  pthread_attr_setstacksize(&thread_attributes, kStackBytes);
  pthread_t thread;
  int error = pthread_create(&thread, &thread_attributes, run_apart, &job);
  pthread_attr_destroy(&thread_attributes);
  if (error != 0) return error;
  pthread_join(thread, nullptr);
  return job.result;
}

}  // namespace ustack::shim
