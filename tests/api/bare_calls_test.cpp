// syscall(2) in place of libc's entries.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

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
