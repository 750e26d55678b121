// Sockets that several processes have: fork, the end of a process, killed ones, sandboxed ones.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>
#include <memory>
#include <thread>

#include "tests/api/support.h"

namespace api {
namespace {

/// One side waits until another process says so.
class Signpost {
 public:
  Signpost() { EXPECT_EQ(pipe(ends_), 0); }
  ~Signpost() {
    close(ends_[0]);
    close(ends_[1]);
  }
  Signpost(const Signpost&) = delete;
  Signpost& operator=(const Signpost&) = delete;
  void say() { EXPECT_EQ(write(ends_[1], "!", 1), 1); }
  bool heard() {
    char c;
    return poll_one(ends_[0], POLLIN, 10000) == POLLIN && read(ends_[0], &c, 1) == 1;
  }

 private:
  int ends_[2];
};

TEST(Process, BothWriteInTurn) {
  Fd fd = connected("echo");
  Signpost mine, theirs;
  Child child([&] {
    for (int i = 0; i < 50; ++i) {
      if (!theirs.heard() || !send_all(fd, "child ")) return 1;
      mine.say();
    }
    return 0;
  });
  std::string expected;
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(send_all(fd, "parent "));
    theirs.say();
    ASSERT_TRUE(mine.heard());
    expected += "parent child ";
  }
  EXPECT_EQ(read_all(fd, expected.size()), expected);
  EXPECT_EQ(child.wait(), 0);
}

TEST(Process, BothReadWhatIsThereOnce) {
  Fd fd = connected("recv 1 send 200000");
  Signpost ready;
  int result[2];
  ASSERT_WORKS(pipe(result));
  Child child([&] {
    ready.say();
    size_t count = read_all(fd).size();
    return write(result[1], &count, sizeof count) == sizeof count ? 0 : 1;
  });
  ASSERT_TRUE(ready.heard());
  ASSERT_TRUE(send_all(fd, "x"));
  size_t mine = read_all(fd).size(), theirs = 0;
  ASSERT_EQ(read(result[0], &theirs, sizeof theirs), static_cast<ssize_t>(sizeof theirs));
  EXPECT_EQ(mine + theirs, 200000U);
  EXPECT_EQ(child.wait(), 0);
  close(result[0]);
  close(result[1]);
}

TEST(Process, OpenAsLongAsAnyHasIt) {
  Incoming in = incoming("drain");
  Signpost closed, go;
  Child child([&] {
    in.control.reset();
    in.listener.reset();
    closed.say();
    return go.heard() && send_all(in.fd, "still here") ? 0 : 1;
  });
  ASSERT_TRUE(closed.heard());
  in.fd.reset();
  EXPECT_EQ(poll_one(in.control, POLLIN, 100), 0) << "the peer has seen the end while the child had it";
  go.say();
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(read_all(in.control), "") << "and sees it with the child's end";
}

TEST(Process, HandedToAChild) {
  Fd fd = connected("echo");
  Child child([&] { return echoes(fd, pattern(100000)) ? 0 : 1; });
  fd.reset();
  EXPECT_EQ(child.wait(), 0);
}

TEST(Process, AKilledChildEndsItsConnection) {
  for (bool blocked : {true, false}) {
    Incoming in = incoming("drain");
    Signpost ready;
    Child child([&] {
      in.control.reset();
      ready.say();
      char c;
      if (blocked) (void)!read(in.fd, &c, 1);
      pause();
      return 0;
    });
    in.fd.reset();
    ASSERT_TRUE(ready.heard());
    EXPECT_EQ(poll_one(in.control, POLLIN, 100), 0);
    EXPECT_EQ(child.kill(SIGKILL), -SIGKILL);
    EXPECT_EQ(poll_one(in.control, POLLIN, 5000) & POLLIN, POLLIN) << (blocked ? "in read()" : "outside");
  }
}

TEST(Process, AKilledChildLeavesSharedOnesAlone) {
  Fd fd = connected("echo");
  for (int i = 0; i < 20; ++i) {
    Signpost ready;
    Child child([&] {
      ready.say();
      char c;
      (void)!recv(fd, &c, 1, 0);
      return 0;
    });
    ASSERT_TRUE(ready.heard());
    EXPECT_EQ(child.kill(SIGKILL), -SIGKILL);
    ASSERT_TRUE(echoes(fd, "after kill")) << i;
  }
}

TEST(Process, AllAcceptFromOneListener) {
  Fd listener = listening(128);
  constexpr int kChildren = 4, kConnections = 64;
  int result[2];
  ASSERT_WORKS(pipe(result));
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < kChildren; ++i)
    children.push_back(std::make_unique<Child>([&, i] {
      for (;;) {
        Fd fd = accept(listener, nullptr, nullptr);
        if (fd < 0 || write(result[1], &i, sizeof i) != sizeof i) return 1;
      }
    }));
  Fd control = connected("dial " + std::to_string(kConnections) + " " +
                         std::to_string(name_of(listener).port()) + " recv 1");
  std::vector<int> accepted(kChildren);
  for (int i = 0; i < kConnections; ++i) {
    int who = -1;
    ASSERT_EQ(poll_one(result[0], POLLIN, 10000), POLLIN) << "after " << i << " connections";
    ASSERT_EQ(read(result[0], &who, sizeof who), static_cast<ssize_t>(sizeof who));
    ++accepted.at(static_cast<size_t>(who));
  }
  close(result[0]);
  close(result[1]);
}

TEST(Process, AListenerOutlivesItsMaker) {
  Fd listener = listening();
  uint16_t port = name_of(listener).port();
  Child child([&] {
    Fd fd = accept(listener, nullptr, nullptr);
    return fd >= 0 && read_all(fd, 3) == "abc" ? 0 : 1;
  });
  listener.reset();
  Fd control = connected("call " + std::to_string(port) + " say abc");
  EXPECT_EQ(child.wait(), 0);
}

TEST(Process, ForksWhileThreadsAreInside) {
  std::atomic<bool> stop{false};
  std::atomic<int> turns{0}, failures{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      Fd fd = connected("echo");
      while (!stop) {
        failures += !echoes(fd, pattern(3000));
        ++turns;
      }
    });
  Fd shared = connected("drain");
  constexpr int kForks = 300;
  int wrong = 0;
  for (int i = 0; i < kForks; ++i) {
    pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) _exit(send_all(shared, "x") ? 0 : 1);
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    wrong += status != 0;
  }
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0) << "children that could not send";
  EXPECT_EQ(failures, 0) << "of " << turns << " echoes of the threads";
  EXPECT_GT(turns, 0);
}

/// connected() without a check: its caller may outlive what checks report to.
int connected_or_not(const char* script) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  Address to = peer();
  if (fd < 0 || connect(fd, to.get(), Address::size) != 0) return -1;
  (void)!write(fd, script, strlen(script));
  return fd;
}

/// Threads that are in every kind of call and go on until the process ends.
void start_threads_that_never_end() {
  static char bytes[100000];
  for (int i = 0; i < 3; ++i)
    std::thread([] {
      char back[3000];
      for (int fd = connected_or_not("echo\n");;)
        if (write(fd, bytes, sizeof back) > 0) (void)!read(fd, back, sizeof back);
    }).detach();
  std::thread([] {
    for (;;) close(connected_or_not("fin\n"));
  }).detach();
  std::thread([] {
    char byte;
    for (int fd = connected_or_not("drain\n");;) (void)!recv(fd, &byte, 1, 0);
  }).detach();
  std::thread([] {
    int set = epoll_create1(0), fd = connected_or_not("drain\n");
    epoll_event event{};
    event.events = EPOLLIN;
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    for (;;) epoll_wait(set, &event, 1, -1);
  }).detach();
  std::thread([] {
    for (int fd = connected_or_not("drain\n");;) (void)!send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
  }).detach();
}

/// Every way out of a program whose other threads are inside the library: none hangs, and the status is
/// right.
TEST(Process, EndsWhileThreadsAreInside) {
  struct {
    const char* name;
    void (*end)();
    int status;
  } const ways[] = {
      {"exit", [] { exit(7); }, 7},
      {"_exit", [] { _exit(7); }, 7},
      {"quick_exit", [] { quick_exit(7); }, 7},
      {"exec", [] { execl("/bin/sh", "sh", "-c", "exit 7", nullptr); }, 7},
      {"exec in a thread",
       [] { std::thread([] { execl("/bin/sh", "sh", "-c", "exit 7", nullptr); }).join(); }, 7},
      {"exit in a thread", [] { std::thread([] { exit(7); }).join(); }, 7},
      {"abort",
       [] {
         signal(SIGABRT, SIG_DFL);
         abort();
       },
       -SIGABRT},
      {"SIGTERM", [] { raise(SIGTERM); }, -SIGTERM},
      {"kill -9", [] { raise(SIGKILL); }, -SIGKILL},
  };
  constexpr int kRounds = 6;
  for (int round = 0; round < kRounds; ++round) {
    for (const auto& way : ways) {
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        const rlimit none{0, 0};
        setrlimit(RLIMIT_CORE, &none);
        start_threads_that_never_end();
        usleep(static_cast<useconds_t>(round * 3000));
        way.end();
        _exit(99);
      }
      int status = 0;
      pid_t ended = 0;
      for (int i = 0; i < 2000 && ended == 0; ++i) {
        usleep(10000);
        ended = waitpid(child, &status, WNOHANG);
      }
      if (ended == 0) {
        ::kill(child, SIGKILL);
        waitpid(child, &status, 0);
        FAIL() << way.name << " hangs";
      }
      EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), way.status) << way.name;
    }
  }
}

TEST(Process, ManyChildrenOfManyThreads) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 40; ++k) {
        Fd fd = connected("echo");
        pid_t child = fork();
        if (child == 0) _exit(echoes(fd, "from the child") ? 0 : 1);
        int status = -1;
        wrong += waitpid(child, &status, 0) != child || status != 0;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Process, AnotherUserGoesOn) {
  if (geteuid() != 0) GTEST_SKIP() << "needs the superuser";
  Fd fd = connected("echo"), listener = listening();
  Child child([&] {
    if (chroot("/proc/self/fdinfo") != 0 || chdir("/") != 0) return 2;
    if (setgid(65534) != 0 || setuid(65534) != 0) return 77;
    if (!echoes(fd, pattern(200000))) return 1;
    Fd accepted = accept(listener, nullptr, nullptr);
    return accepted >= 0 && read_all(accepted, 3) == "abc" ? 0 : 3;
  });
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " say abc");
  int status = child.wait();
  if (status == 77) GTEST_SKIP() << "there is no other user here";
  EXPECT_EQ(status, 0);
}

/// As strict as seccomp's mode 1: read, write, and the end. Everything else kills.
bool only_read_and_write() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{.len = sizeof code / sizeof *code, .filter = code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/// Without any memory of its own: malloc might need a forbidden call.
bool plain_echo(int fd, std::string_view text) {
  if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) return false;
  char buffer[4096];
  while (!text.empty()) {
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0 || text.substr(0, static_cast<size_t>(n)) != std::string_view(buffer, static_cast<size_t>(n)))
      return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

TEST(Process, ASandboxedChildReadsAndWrites) {
  Fd fd = connected("echo");
  const std::string text = pattern(20000);
  Child child([&] {
    rlimit none{}, one{.rlim_cur = 1, .rlim_max = 1};
    if (setrlimit(RLIMIT_FSIZE, &none) != 0 || setrlimit(RLIMIT_NOFILE, &one) != 0) return 2;
    if (!only_read_and_write()) return 3;
    for (int i = 0; i < 20; ++i)
      if (!plain_echo(fd, text)) return 1;
    return 0;
  });
  EXPECT_EQ(child.wait(), 0);
}

/// Drops all capabilities.
bool ordinary() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[2]{};
  return syscall(SYS_capset, &header, none) == 0;
}

// capabilities(7), CAP_NET_ADMIN and CAP_NET_RAW.
TEST(Process, OptionsThatTakeARight) {
  Fd fd = connected("echo");
  Child child([&] {
    if (!ordinary()) return 2;
    EXPECT_FAILS(EPERM, set_option(fd, SOL_SOCKET, SO_MARK, 1));
    EXPECT_FAILS(EPERM, set_option(fd, SOL_SOCKET, SO_PRIORITY, 7));
    EXPECT_FAILS(EPERM, set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, 100000));
    EXPECT_FAILS(EPERM, set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, 100000));
    EXPECT_FAILS(EPERM, set_option(fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, 1));
    EXPECT_FAILS(EACCES, set_option(fd, SOL_SOCKET, SO_DEBUG, 1));
    EXPECT_WORKS(set_option(fd, SOL_SOCKET, SO_PRIORITY, 6));
    EXPECT_WORKS(set_option(fd, SOL_SOCKET, SO_DEBUG, 0));
    EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_PRIORITY), 6);
    EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_MARK), 0);
    return testing::Test::HasFailure() ? 1 : 0;
  });
  EXPECT_EQ(child.wait(), 0);
}

TEST(Process, WhatTheSandboxForbidsStaysForbidden) {
  Fd fd = connected("echo");
  Child child([&] {
    if (!only_read_and_write()) return 3;
    syscall(SYS_getppid);
    return 0;
  });
  EXPECT_EQ(child.wait(), -SIGSYS);
}

TEST(Process, ALimitOfTheAddressSpaceIsTheProgramsOwn) {
  Fd fd = connected("echo");
  Child child([&] {
    // Much less than the library maps, more than this process has by now (64 MB for each thread that
    // allocated).
    constexpr rlim_t kBytes = rlim_t{4} << 30;
    rlimit limit{.rlim_cur = kBytes, .rlim_max = kBytes};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 2;
    std::string bytes(8 << 20, 'x');
    return echoes(fd, "there is room") && bytes.back() == 'x' ? 0 : 1;
  });
  EXPECT_EQ(child.wait(), 0);
}

TEST(Process, AForkWithoutLibc) {
  Fd fd = connected("echo");
  long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  ASSERT_GE(pid, 0);
  if (pid == 0) _exit(echoes(fd, "from the child") ? 0 : 1);
  fd.reset();
  int status = -1;
  ASSERT_EQ(waitpid(static_cast<pid_t>(pid), &status, 0), pid);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace api
