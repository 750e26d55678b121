// Processes that are killed in the middle of a change of the host: the others go on, and only what was being
// changed ends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <random>
#include <string>

#include "io/clock.h"
#include "io/syscalls.h"
#include "shim/fd_table.h"
#include "shim/hooks.h"
#include "shim/host_lock.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/protocol.h"
#include "tests/support/fork_with_host.h"

namespace ustack::shim {
namespace {

const SocketAddress kAddress{IpAddress::v4(192, 0, 2, 2), 7000};

/// A socket under a descriptor's number; the lock is held.
int install(Socket& socket) {
  SocketFile* file = SocketFile::create(socket);
  if (file == nullptr) return -1;
  Result<int> fd = FdTable::current()->install(file, true);
  if (fd.ok()) return *fd;
  file->release();
  return -1;
}

int open_socket(HostLock& lock) {
  Result<Socket*> socket = lock.host().open_socket(AF_INET, SOCK_STREAM, 0);
  return socket.ok() ? install(**socket) : -1;
}

Socket& socket_of(int fd) { return static_cast<SocketFile*>(FdTable::look(fd))->socket(); }

void close_socket(int fd) {
  FdTable::current()->clear(fd);
  io::sys::close(fd);
}

size_t send_some(Socket& socket, std::string_view text) {
  Result<Extents> room = socket.reserve_send(text.size());
  if (!room.ok()) return 0;
  size_t n = std::min(text.size(), room->runs[0].size());
  std::memcpy(room->runs[0].data(), text.data(), n);
  socket.commit_send(n, {});
  return n;
}

std::string receive_some(Socket& socket) {
  Result<Extents> view = socket.view_receive(1 << 16, 0);
  if (!view.ok()) return {};
  std::string text;
  for (uint32_t i = 0; i < view->count; ++i)
    text.append(reinterpret_cast<const char*>(view->runs[i].data()), view->runs[i].size());
  socket.consume(text.size());
  return text;
}

/// Runs what the lock covers; what has come to one shard and is another's is handed over where it covers all.
void run_covered() {
  do each_covered(*shared_host, [](Host& host) { host.run(io::now()); });
  while (this_thread().covers == kWhole && Host::hand_over(shared_host->hosts));
}

/// Takes what waits at the listener, as a server does: into a set, and away.
template <typename Turn>
void serve(int listener, int set, Turn turn) {
  std::array<int, 2> taken;
  for (int& fd : taken) {
    turn();
    fd = hook::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) continue;
    epoll_event event{};
    event.events = EPOLLIN;
    turn();
    hook::epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
  }
  for (int fd : taken) {
    turn();
    if (fd >= 0) hook::close(fd);
  }
}

/// What is killed: opens, connects, sends, receives, accepts, closes, nearly always inside the lock. `turn`:
/// called before each step.
template <typename Turn>
[[noreturn]] void work_until_killed(std::minstd_rand& random, int listener, Turn turn) {
  const std::string bytes(20000, 'w');
  const int set = hook::epoll_create1(EPOLL_CLOEXEC);
  for (;;) {
    if (random() % 2 == 0) serve(listener, set, turn);
    Scope scope;
    int fd = -1;
    {
      HostLock lock;
      turn();
      fd = open_socket(lock);
      if (fd < 0) continue;
      turn();
      (void)socket_of(fd).connect(kAddress);
      turn();
      run_covered();
    }
    for (unsigned i = random() % 4; i > 0; --i) {
      // It has a port that leads to this thread's own shard.
      HostLock lock{HostLock::Own{}};
      turn();
      send_some(socket_of(fd), bytes);
      turn();
      run_covered();
      turn();
      receive_some(socket_of(fd));
    }
    HostLock lock;
    turn();
    close_socket(fd);
  }
}

/// Where a process was killed: its instruction, and what on its stack may be return addresses.
struct Place {
  unsigned long steps = 0;
  unsigned long instruction = 0;
  std::array<unsigned long, 48> stack{};
};

/// The last places at which processes were killed, for the test to tell when the survivor doesn't live on.
/// Shared by all of them.
struct Log {
  std::array<Place, 4> places{};
  unsigned count = 0;
};

Place* place_of_death;
unsigned long steps_left;

/// After each instruction, with the trap flag: the last one kills.
void on_step(int, siginfo_t*, void* context) {
  if (--steps_left > 0) return;
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  place_of_death->instruction = static_cast<unsigned long>(registers[REG_RIP]);
  // The stack of a fiber may end earlier.
  const iovec to{place_of_death->stack.data(), sizeof(place_of_death->stack)};
  const iovec from{reinterpret_cast<void*>(registers[REG_RSP]), sizeof(place_of_death->stack)};
  process_vm_readv(getpid(), &to, 1, &from, 1, 0);
  kill(getpid(), SIGKILL);
}

/// Works, and kills itself after a random number of instructions from a random step on.
[[noreturn]] void work_to_an_instruction(std::minstd_rand& random, int listener, Place& where) {
  static std::array<char, 64 * 1024> memory;
  const stack_t stack{.ss_sp = memory.data(), .ss_flags = 0, .ss_size = memory.size()};
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_step;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGTRAP, &action, nullptr);
  auto before = static_cast<unsigned>(random() % 12);
  // Short runs and long ones: each doubling is as likely.
  const unsigned long most = 1ul << (3 + random() % 11);
  steps_left = most + random() % most;
  place_of_death = &where;
  where = Place{.steps = steps_left};
  work_until_killed(random, listener, [&] {
    if (before-- != 0) return;
    asm volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
  });
}

/// The parent's side: a listener that echoes, and a connection of its own through which it sends to itself.
class Survivor {
 public:
  Survivor() {
    Scope scope;
    HostLock lock;
    listener_ = open_socket(lock);
    EXPECT_TRUE(socket_of(listener_).bind(kAddress).ok());
    EXPECT_TRUE(socket_of(listener_).listen(256).ok());
    FdTable::look(listener_)->status_flags |= O_NONBLOCK;
    connect(lock);
  }

  int listener() const { return listener_; }

  /// Accepts and ends what the dead have begun.
  void clean_up() {
    Scope scope;
    HostLock lock;
    shared_host->reap_dead();
    while (true) {
      Result<Socket*> socket = socket_of(listener_).accept();
      if (!socket.ok()) break;
      receive_some(**socket);
      (*socket)->release();
    }
  }

  /// Sends a text through its connection and expects it at the other end. False: the connection was reset.
  bool own_connection_works() {
    std::string sent(3000, static_cast<char>('a' + turn_++ % 26)), got;
    {
      Scope scope;
      HostLock lock;
      if (send_some(socket_of(client_), sent) != sent.size()) return replace(lock);
    }
    for (Instant end = io::now() + 20s; got.size() < sent.size() && io::now() < end;) {
      Scope scope;
      HostLock lock;
      lock.host().run(io::now());
      std::string more = receive_some(socket_of(server_));
      if (more.empty() && (socket_of(server_).readiness() & ready::kHup) != 0) return replace(lock);
      got += more;
    }
    EXPECT_EQ(got, sent);
    // As a thread does that begins to wait; else one of those that are killed has to.
    Scope scope;
    HostLock lock;
    lock.host().send_owed_acks();
    return true;
  }

 private:
  void connect(HostLock& lock) {
    client_ = open_socket(lock);
    EXPECT_EQ(socket_of(client_).connect(kAddress).code(), EINPROGRESS);
    for (Instant end = io::now() + 20s; io::now() < end;) {
      run_covered();
      Result<Socket*> accepted = socket_of(listener_).accept();
      if (!accepted.ok()) continue;
      server_ = install(**accepted);
      if (socket_of(server_).remote_address()->port == socket_of(client_).local_address()->port) return;
      close_socket(server_);
    }
    ADD_FAILURE() << "no connection";
  }
  bool replace(HostLock& lock) {
    close_socket(client_);
    close_socket(server_);
    connect(lock);
    return false;
  }

  int listener_ = -1, client_ = -1, server_ = -1;
  unsigned turn_ = 0;
};

extern "C" const char __executable_start, etext;

void tell(const Log& log) {
  const auto begin = reinterpret_cast<unsigned long>(&__executable_start);
  const auto end = reinterpret_cast<unsigned long>(&etext);
  const auto kept = static_cast<unsigned>(log.places.size());
  for (unsigned i = log.count > kept ? log.count - kept : 0; i < log.count; ++i) {
    const Place& place = log.places[i % kept];
    std::printf("kill %u after %lu instructions; addr2line:", i, place.steps);
    if (place.instruction >= begin && place.instruction < end)
      std::printf(" %#lx", place.instruction - begin);
    for (unsigned long word : place.stack)
      if (word >= begin && word < end) std::printf(" %#lx", word - begin - 1);
    std::printf("\n");
  }
}

/// What the host is made of.
struct Parts {
  unsigned queues, shards;
};

uint64_t endpoints() {
  uint64_t count = 0;
  shared_host->each_shard([&](Shard& shard) { count += shard.host->tcp().endpoint_count(); });
  return count;
}

size_t memory_in_use() {
  size_t bytes = shared_host->sharded() ? shared_host->arena->in_use() : 0;
  shared_host->each_shard([&](Shard& shard) { bytes += shard.arena->in_use(); });
  return bytes;
}

/// `log`: processes are killed at a random instruction; nullptr: at a random time.
int run_kills(std::chrono::milliseconds time, const Parts& parts, Log* log) {
  alarm(static_cast<unsigned>(time.count() / 1000 + 120));
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0) return 101;
  setenv("USTACK_LINK", test::link_over(ends[0], parts.queues).c_str(), 1);
  setenv("USTACK_SHARDS", std::to_string(parts.shards).c_str(), 1);
  setenv("USTACK_ADDR", "192.0.2.2/24", 1);
  Process::start();
  {
    Scope scope;
    if (!Process::ensure_host().ok()) return 102;
  }
  Survivor survivor;
  const size_t before = memory_in_use();
  std::minstd_rand random(static_cast<unsigned>(io::now().time_since_epoch().count()));
  unsigned kills = 0, resets = 0;
  const Instant end = io::now() + time;
  while (io::now() < end && !testing::Test::HasFailure()) {
    const unsigned seed = static_cast<unsigned>(random());
    pid_t child = test::fork_with_host();
    if (child == 0) {
      random.seed(seed);
      if (log == nullptr) work_until_killed(random, survivor.listener(), [] {});
      work_to_an_instruction(random, survivor.listener(), log->places[log->count % log->places.size()]);
    }
    if (log == nullptr) {
      usleep(static_cast<unsigned>(random() % 3000));
      kill(child, SIGKILL);
    }
    waitpid(child, nullptr, 0);
    if (log != nullptr) ++log->count;
    ++kills;
    survivor.clean_up();
    resets += survivor.own_connection_works() ? 0 : 1;
  }
  Scope scope;
  HostLock lock;
  std::printf(
      "%u kills, %lu inside the lock, %u resets of the parent's connection, %lu endpoints left, %zu kB\n",
      kills, shared_host->repairs, resets, endpoints(), memory_in_use() / 1024);
  std::fflush(stdout);
  EXPECT_GT(shared_host->repairs, 0u);
  EXPECT_LE(resets, kills / 4 + 2);
  // What is left are the listener, in each shard, and the parent's own connection.
  const uint64_t left = 2 + shared_host->shard_count;
  for (Instant limit = io::now() + 10s; endpoints() != left && io::now() < limit;) {
    lock.unlock();
    survivor.clean_up();
    lock.lock();
  }
  EXPECT_EQ(endpoints(), left);
  // Nothing of the dead is left but their connections' TIME-WAITs, and free blocks that are kept.
  size_t time_waits = 0;
  shared_host->each_shard([&](Shard& shard) {
    EXPECT_EQ(shard.host->unaccounted(&show_threads), 0u);
    time_waits += shard.host->tcp().time_wait_count() * 400;
  });
  EXPECT_LE(memory_in_use(), before + time_waits + (8u << 20) + 64 * shared_host->repairs);
  return testing::Test::HasFailure() ? 103 : 0;
}

/// Runs for two seconds, or KILL_TEST_SECONDS.
void survives_kills(const Parts& parts, Log* log) {
  pid_t child = fork();
  ASSERT_GE(child, 0);
  const char* seconds = std::getenv("KILL_TEST_SECONDS");
  if (child == 0)
    _exit(run_kills(std::chrono::milliseconds(seconds != nullptr ? std::atoi(seconds) * 1000 : 2000), parts,
                    log));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  if (testing::Test::HasFailure() && log != nullptr) tell(*log);
}

class ShimKill : public testing::TestWithParam<Parts> {};

TEST_P(ShimKill, WhoIsKilledInsideTheLockTakesNobodyAlong) { survives_kills(GetParam(), nullptr); }

TEST_P(ShimKill, WhoIsKilledAtAnyInstructionTakesNobodyAlong) {
  void* memory = mmap(nullptr, sizeof(Log), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  survives_kills(GetParam(), new (memory) Log);
  munmap(memory, sizeof(Log));
}

INSTANTIATE_TEST_SUITE_P(Queues, ShimKill, testing::Values(Parts{1, 1}, Parts{2, 1}, Parts{2, 2}),
                         [](const auto& of) {
                           return std::to_string(of.param.queues) + "Queues" +
                                  std::to_string(of.param.shards) + "Shards";
                         });

}  // namespace
}  // namespace ustack::shim
