#include "shim/process.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "io/bring_up.h"
#include "io/capture.h"
#include "io/clock.h"
#include "io/engine.h"
#include "io/fork_mark.h"
#include "io/log_sink.h"
#include "io/own_descriptors.h"
#include "io/random.h"
#include "io/steering_program.h"
#include "shim/counters_file.h"
#include "shim/events.h"
#include "shim/fd_table.h"
#include "shim/host_lock.h"
#include "shim/joining.h"
#include "shim/keeper.h"
#include "shim/lending.h"
#include "shim/process_state.h"
#include "shim/real.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/signals.h"
#include "shim/thread.h"
#include "shim/user_copy.h"

namespace ustack::shim {

namespace {

/// Never destroyed: other threads and other libraries' destructors still use sockets while the program ends.
alignas(ProcessState) std::byte storage[sizeof(ProcessState)];
std::atomic<bool> started{false};

void print(std::string_view text) {
  std::string line = "ustack: " + std::string(text) + "\n";
  io::sys::write(STDERR_FILENO, line.data(), line.size());
}

/// What a host that could not be made leaves behind.
struct Unfinished {
  io::SharedRegion* region = nullptr;
  ~Unfinished() {
    if (region == nullptr) return;
    ProcessState& state = process_state();
    list_journals = nullptr;
    has_shards = false;
    file_step = nullptr;
    io::SharedRegion::unmap(region);
    state.link = io::Link();
    state.placeholder.reset();
    if (state.capture != nullptr) io::Capture::close(state.capture);
    state.capture = nullptr;
  }
};

std::optional<io::OpenError> make_descriptors(ProcessState& state) {
  state.placeholder =
      io::Descriptor(static_cast<int>(io::sys::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  if (!state.placeholder || !io::move_high(state.placeholder).ok() ||
      !std::ranges::all_of(state.link.descriptors(),
                           [](io::Descriptor& queue) { return io::move_high(queue).ok(); }) ||
      (state.link.claim() && !io::move_high(state.link.claim()).ok()) ||
      !events::make_first_events(state.link.queues()) || !keeper::make_control().ok())
    return io::OpenError{EMFILE,
                         "no descriptors left for the host's own use: raise RLIMIT_NOFILE (ulimit -n)"};
  if (!state.config.log_file.empty())
    if (auto error = io::FdLogSink::open(state.config.log_file, &state.log_sink)) return error;
  if (!state.config.capture_file.empty()) {
    if (auto error = io::Capture::open(state.config.capture_file, state.link.info(), &state.capture))
      return error;
    state.link.capture = state.capture;
  }
  if (!state.config.counters_file.empty())
    if (auto error = open_counters_file(state.config.counters_file, &state.counters_file)) return error;
  return std::nullopt;
}

io::OpenError no_memory() { return {ENOMEM, "no memory for the host"}; }

/// A part of the region for each shard, and one for what is no shard's. `begin`: of the region. False: no
/// memory.
bool make_arenas(SharedHost& shared, std::byte* begin) {
  io::SharedRegion& region = *shared.region;
  std::byte* const end = region.base() + region.size();
  const uint32_t parts = shared.sharded() ? shared.shard_count + 1 : 1;
  const auto bytes = static_cast<uint64_t>(end - begin);
  uint32_t shift = 63;
  while (parts > 1 && (uint64_t{1} << shift) > bytes / parts) --shift;
  shared.journals = ListJournals(begin, end, shift);
  for (uint32_t part = 0; part < parts; ++part) {
    std::byte* from = part == 0 ? region.base() : begin + (uint64_t{part} << shift);
    std::byte* to = parts == 1 ? end : begin + (uint64_t{part + 1} << shift);
    Arena* arena = SharedArena::create(from, static_cast<size_t>(to - from), region);
    if (arena == nullptr) return false;
    if (part < shared.shard_count) shared.shards[part].arena = arena;
    shared.arena = arena;
  }
  return true;
}

/// What comes to another shard's queue is handed over there; seldom, where the link can be told.
void steer_link(SharedHost& shared, ProcessState& state) {
  using Scheme = io::LinkSpec::Scheme;
  if (state.config.link.scheme == Scheme::fd) return;
  const Status steered = io::steer(state.link, shared.hosts.steering);
  if (steered.ok()) return;
  shared.host->log()(LogLevel::info, [&](LogLine& line) {
    line << "the link can't be told which shard a packet is for: errno " << steered.code();
  });
}

bool make_hosts(SharedHost& shared, ProcessState& state, HostConfig& config) {
  if (shared.sharded()) {
    shared.hosts.steering = Steering(shared.shard_count, state.random);
    shared.hosts.enter = &CommonLock::enter;
    shared.hosts.leave = &CommonLock::leave;
    config.shards = &shared.hosts;
  }
  for (uint32_t i = 0; i < shared.shard_count; ++i) {
    config.shard = static_cast<uint8_t>(i);
    Host* host = Host::create(*shared.shards[i].arena, state.random, config, io::now());
    if (host == nullptr) return false;
    host->blocks().set_loan_reader(lending::reader());
    shared.shards[i].host = host;
  }
  shared.host = shared.shards[0].host;
  return true;
}

std::optional<io::OpenError> make_host(ProcessState& state, bool insists) {
  real::resolve();
  io::BroughtUp up;
  if (auto error = io::bring_up(state.config, state.random, &up, insists)) return error;
  state.link = std::move(up.link);

  Unfinished unfinished;
  io::SharedRegion* region;
  if (auto error = io::SharedRegion::reserve(&region)) return error;
  unfinished.region = region;
  if (auto error = make_descriptors(state)) return error;
  if (!make_thread_key().ok()) return no_memory();

  void* head = region->take_head(sizeof(SharedHost));
  if (head == nullptr) return no_memory();
  auto* shared = new (head) SharedHost;
  shared->initialise_locks();
  shared->region = region;
  shared->configured_as = state.config.identity();
  shared->queue_count = state.link.queues();
  shared->shard_count = state.config.shards;
  shared->parallel = shared->queue_count > 1;
  has_shards = shared->sharded();
  if (!make_arenas(*shared, static_cast<std::byte*>(head))) return no_memory();
  list_journals = &shared->journals;
  file_step = &shared->file_step;

  HostConfig config;
  config.network = up.network;
  config.settings = state.config.settings;
  if (config.settings.tcp_mem == Settings{}.tcp_mem) config.settings.tcp_mem = io::tcp_memory_limits();
  config.log = Log(state.config.log_level, &state.log_sink);
  config.acks_wait = true;
  if (!make_hosts(*shared, state, config)) return no_memory();
  FdTable* table = FdTable::create(*shared->arena);
  Attachment* attachment = table != nullptr ? shared->attach(table) : nullptr;
  if (attachment == nullptr) return no_memory();
  attachment->pid.store(Process::id());
  state.attachment = attachment;
  state.generation = io::fork_generation();

  unfinished.region = nullptr;
  shared_host = shared;
  signals::take_over();
  {
    HostLock lock;
    lock.host().log()(LogLevel::info, [&](LogLine& line) { line << std::string_view(up.summary); });
    if (shared->sharded()) steer_link(*shared, state);
    lock.host().network().start();
  }
  FdTable::set_current(table);
  keeper::ensure();
  return std::nullopt;
}

Status join_host(ProcessState& state, std::string_view user) {
  Result<io::Descriptor> channel = joining::join(user, state.config);
  if (!channel.ok()) return channel.status();
  state.channel = std::move(*channel);
  state.joined = user;
  state.outside.store(true, std::memory_order_release);
  return {};
}

/// Makes a host, or joins the one that has the device already. `insists`: as of io::bring_up().
std::optional<io::OpenError> make_or_join_host(ProcessState& state, bool insists) {
  std::optional<io::OpenError> error = make_host(state, false);
  if (!error || error->user.empty()) return error;
  const Status joined = join_host(state, error->user);
  if (joined.ok()) return std::nullopt;
  if (insists) error = make_host(state, true);
  if (error && joined.code() == joining::kOtherwise)
    error->message += "; it is configured otherwise, or this program could join its host";
  else if (error && joined.code() == EACCES)
    error->message += "; it is another user's, or this program could join its host";
  return error;
}

/// False: in a child of vfork(2) or clone(CLONE_VM), which lives in its parent's memory. libc goes on taking
/// it for the thread that made it, whose number it tells us in the thread's clock (~number << 3, and the
/// kind).
bool in_own_memory() {
  clockid_t clock{};
  return pthread_getcpuclockid(pthread_self(), &clock) == 0 && ~(clock >> 3) == io::sys::call(SYS_gettid);
}

}  // namespace

ProcessState& process_state() { return *std::launder(reinterpret_cast<ProcessState*>(storage)); }

uint64_t this_pid_namespace() {
  ProcessState& state = process_state();
  // A process stays in its namespace; only its children may come into another one.
  const uint64_t generation = io::fork_generation();
  if (state.pid_namespace != 0 && state.pid_namespace_of == generation) return state.pid_namespace;
  struct stat status {};
  long result =
      io::sys::call(SYS_newfstatat, AT_FDCWD, io::sys::arg("/proc/self/ns/pid"), io::sys::arg(&status), 0);
  if (result == 0) {
    state.pid_namespace = status.st_ino;
    state.pid_namespace_of = generation;
  }
  return state.pid_namespace;
}

void Process::start() {
  if (started.exchange(true)) return;
  auto* state = new (storage) ProcessState;
  if (auto error = io::Config::parse(environ, &state->config)) {
    // Half-configured would be worse than not at all.
    std::string_view text = *error;
    while (!text.empty()) {
      size_t end = text.find('\n');
      print(text.substr(0, end));
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    io::sys::call(SYS_exit_group, kConfigurationError);
  }
  check_user_pointers(state->config.check_pointers);
  state->seccomp_at_start = io::sys::call(SYS_prctl, PR_GET_SECCOMP);
}

namespace {

/// Root for as long as a host is made, in a thread whose effective user is another one for a while
/// (seteuid(2): danted, proftpd) and which may go back: on the kernel its sockets need no rights. Other
/// threads stay as they are, whatever libc promises, and no handler of the program's runs here meanwhile.
class RootAgain {
 public:
  RootAgain() {
    uid_t real = 0, saved = 0;
    io::sys::call(SYS_getresuid, io::sys::arg(&real), io::sys::arg(&effective_), io::sys::arg(&saved));
    if (effective_ == 0 || (real != 0 && saved != 0)) return;
    for_files_ = io::sys::call(SYS_setfsuid, -1);
    raised_ = io::sys::call(SYS_setresuid, -1, 0, -1) == 0;
  }
  ~RootAgain() {
    if (!raised_) return;
    io::sys::call(SYS_setresuid, -1, static_cast<long>(effective_), -1);
    io::sys::call(SYS_setfsuid, for_files_);
  }
  RootAgain(const RootAgain&) = delete;
  RootAgain& operator=(const RootAgain&) = delete;

 private:
  uid_t effective_ = 0;
  long for_files_ = 0;
  bool raised_ = false;
};

}  // namespace

Status Process::ensure_host() {
  if (shared_host != nullptr && FdTable::current() != nullptr) [[likely]]
    return {};
  start();
  ProcessState& state = process_state();
  // Another thread may be about to make it, its table last.
  std::lock_guard held(state.start_lock);
  // A process that has no table has said goodbye to its host (it ends), or could not be given one (fork).
  if (shared_host != nullptr) return FdTable::current() != nullptr ? Status() : Error{ENETDOWN};
  if (state.outside.load()) return {};
  std::optional<RootAgain> root;
  if (io::needs_rights(state.config.link)) root.emplace();
  std::optional<io::OpenError> error = make_or_join_host(state, true);
  root.reset();
  if (!error) return {};
  if (!state.failure_told) print(error->message);
  state.failure_told = true;
  return Error{error->code};
}

void Process::make_host_while_root() {
  if (shared_host != nullptr || !in_own_memory()) return;
  Scope scope;
  start();
  ProcessState& state = process_state();
  std::lock_guard held(state.start_lock);
  // Who has left its host, or failed to make it, stays without.
  if (shared_host != nullptr || state.outside.load() || state.failure_told) return;
  // It may well need none: nobody has to wait for that.
  if (io::needs_rights(state.config.link)) make_or_join_host(state, false);
}

bool Process::has_host() { return shared_host != nullptr; }
const io::Config& Process::config() { return process_state().config; }
io::Link& Process::link() { return process_state().link; }
int Process::placeholder() { return process_state().placeholder.get(); }

int32_t Process::id() {
  std::atomic<int32_t>& pid = process_state().pid;
  int32_t known = pid.load(std::memory_order_relaxed);
  if (known == 0) {
    known = static_cast<int32_t>(io::sys::getpid());
    pid.store(known, std::memory_order_relaxed);
  }
  return known;
}

bool Process::move_own(int fd) {
  ProcessState& state = process_state();
  io::Descriptor* const holders[] = {
      &state.link.claim(),          &state.placeholder,
      &state.log_sink.descriptor(), state.capture != nullptr ? &state.capture->descriptor() : nullptr,
      &state.counters_file,         &state.channel,
      &keeper::control().to_keeper, &keeper::control().in_keeper};
  // The calling thread's engine makes its descriptors anew when it next drives.
  if (ThreadState& thread = this_thread(); thread.engine != nullptr) {
    Scope scope;
    HostLock lock;
    io::Engine::destroy(std::exchange(thread.engine, nullptr));
  }
  if (!io::is_own_descriptor(fd)) return true;
  // Upwards if there is room, else anywhere.
  long moved = io::sys::fcntl(fd, F_DUPFD_CLOEXEC, fd + 1);
  if (moved < 0) moved = io::sys::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (moved < 0) return false;
  auto moves = [&](io::Descriptor& holder) {
    if (holder.get() != fd) return false;
    holder.release();
    holder = io::Descriptor(static_cast<int>(moved));
    io::add_own_descriptor(holder.get());
    io::remove_own_descriptor(fd);
    return true;
  };
  for (io::Descriptor& queue : state.link.descriptors())
    if (moves(queue)) return true;
  for (io::Descriptor* holder : holders)
    if (holder != nullptr && moves(*holder)) return true;
  if (events::move(fd, static_cast<int>(moved))) return true;
  io::sys::close(static_cast<int>(moved));
  return false;
}

}  // namespace ustack::shim
