// syscall(2) in place of libc's entries.
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include <csignal>

#include "tests/api/support.h"

namespace api {
namespace {

TEST(BareCalls, AConnectionWithoutLibc) {
  Fd fd(static_cast<int>(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)));
  ASSERT_GE(fd, 0);
  Address to = peer();
  ASSERT_WORKS(syscall(SYS_connect, int{fd}, to.get(), Address::size));
  ASSERT_EQ(syscall(SYS_write, int{fd}, "echo\n", 5L), 5);
  ASSERT_EQ(syscall(SYS_sendto, int{fd}, "abc", 3L, MSG_NOSIGNAL, nullptr, 0), 3);
  EXPECT_EQ(read_all(fd, 3), "abc");
  ASSERT_EQ(send(fd, "def", 3, 0), 3);
  EXPECT_EQ(poll_one(fd, POLLIN), POLLIN);
  char bytes[3];
  ASSERT_EQ(syscall(SYS_recvfrom, int{fd}, bytes, 3L, MSG_WAITALL, nullptr, nullptr), 3);
  EXPECT_EQ(std::string(bytes, 3), "def");
  Address name;
  socklen_t length = Address::size;
  ASSERT_WORKS(syscall(SYS_getsockname, int{fd}, name.get(), &length));
  EXPECT_EQ(name.ip(), local().ip());
}

TEST(BareCalls, ReadinessWithoutLibc) {
  Fd fd = connected("sleep 20 say x sleep 2000");
  Fd set(static_cast<int>(syscall(SYS_epoll_create1, EPOLL_CLOEXEC)));
  ASSERT_GE(set, 0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 7;
  ASSERT_WORKS(syscall(SYS_epoll_ctl, int{set}, EPOLL_CTL_ADD, int{fd}, &event));
  epoll_event out{};
  ASSERT_EQ(syscall(SYS_epoll_pwait, int{set}, &out, 1, 5000, nullptr, 8L), 1);
  EXPECT_EQ(out.data.u64, 7U);
  pollfd one{fd, POLLIN, 0};
  timespec limit{5, 0};
  ASSERT_EQ(syscall(SYS_ppoll, &one, 1L, &limit, nullptr, 8L), 1);
  EXPECT_EQ(one.revents, POLLIN);
}

volatile sig_atomic_t handled;

/// The waits that take a signal mask.
struct MaskedWait {
  const char* name;
  /// Of `fd` for its readability, with the kernel's mask at `mask`.
  long (*call)(int fd, int set, timespec* limit, const uint64_t* mask, long bytes);
  bool tells_the_rest;
};
void PrintTo(const MaskedWait& wait, std::ostream* out) { *out << wait.name; }

const MaskedWait kMaskedWaits[] = {
    {"ppoll",
     [](int fd, int, timespec* limit, const uint64_t* mask, long bytes) {
       pollfd one{fd, POLLIN, 0};
       return syscall(SYS_ppoll, &one, 1L, limit, mask, bytes);
     },
     true},
    {"pselect6",
     [](int fd, int, timespec* limit, const uint64_t* mask, long bytes) {
       fd_set in;
       FD_ZERO(&in);
       FD_SET(fd, &in);
       struct {
         const uint64_t* mask;
         long bytes;
       } argument{mask, bytes};
       return syscall(SYS_pselect6, fd + 1, &in, nullptr, nullptr, limit, &argument);
     },
     true},
    {"epoll_pwait",
     [](int, int set, timespec* limit, const uint64_t* mask, long bytes) {
       epoll_event out{};
       return syscall(SYS_epoll_pwait, set, &out, 1, limit->tv_sec * 1000 + limit->tv_nsec / 1'000'000, mask,
                      bytes);
     },
     false},
    {"epoll_pwait2",
     [](int, int set, timespec* limit, const uint64_t* mask, long bytes) {
       epoll_event out{};
       return syscall(SYS_epoll_pwait2, set, &out, 1, limit, mask, bytes);
     },
     false},
};

class BareWait : public testing::TestWithParam<MaskedWait> {};

TEST_P(BareWait, LetsASignalInOnlyWhileItWaits) {
  const MaskedWait& wait = GetParam();
  Fd fd = connected("sleep 300 say x sleep 500");
  Fd set(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  ASSERT_WORKS(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
  handled = 0;
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) { handled = 1; };
  ASSERT_WORKS(sigaction(SIGUSR1, &action, &before));
  sigset_t blocked, old;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &blocked, &old);
  raise(SIGUSR1);
  EXPECT_EQ(handled, 0);

  const uint64_t none = 0, usr1 = uint64_t{1} << (SIGUSR1 - 1);
  timespec limit{5, 0};
  EXPECT_FAILS(EINTR, wait.call(fd, set, &limit, &none, 8));
  EXPECT_EQ(handled, 1);
  raise(SIGUSR1);
  handled = 0;
  limit = {5, 0};
  EXPECT_EQ(wait.call(fd, set, &limit, &usr1, 8), 1) << "the socket's";
  EXPECT_EQ(handled, 0);
  if (wait.tells_the_rest) {
    EXPECT_EQ(limit.tv_sec, 4);
  } else {
    EXPECT_EQ(limit.tv_sec, 5);
  }
  EXPECT_FAILS(EINVAL, wait.call(fd, set, &limit, &none, 16));
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  EXPECT_EQ(handled, 1);
  sigaction(SIGUSR1, &before, nullptr);
}

INSTANTIATE_TEST_SUITE_P(All, BareWait, testing::ValuesIn(kMaskedWaits));

TEST(BareCalls, ErrorsAndOthersDescriptors) {
  Fd fd = tcp();
  char byte;
  EXPECT_FAILS(ENOTCONN, syscall(SYS_read, int{fd}, &byte, 1L));
  EXPECT_FAILS(EBADF, syscall(SYS_read, -1, &byte, 1L));
  Fd zero(open("/dev/zero", O_RDONLY));
  EXPECT_EQ(syscall(SYS_read, int{zero}, &byte, 1L), 1);
  EXPECT_EQ(syscall(SYS_fcntl, int{fd}, F_GETFL), O_RDWR);
  Fd copy(static_cast<int>(syscall(SYS_dup, int{fd})));
  ASSERT_WORKS(set_option(copy, IPPROTO_TCP, TCP_NODELAY, 1));
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
}

}  // namespace
}  // namespace api
