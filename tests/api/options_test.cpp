// getsockopt, setsockopt, fcntl, ioctl.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

#include <linux/sockios.h>
#include <net/if.h>

#include "tests/api/support.h"

namespace api {
namespace {

TEST(Options, SizesOfBuffersAreDoubled) {
  Fd fd = tcp();
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_SNDBUF, 50'000));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_SNDBUF), 100'000);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_RCVBUF, 50'000));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_RCVBUF), 100'000);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_SNDBUF, 1));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_SNDBUF), 4608);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_RCVBUF, 1));
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_RCVBUF), 2304);
}

TEST(Options, DefaultSizesOfBuffers) {
  Fd fd = tcp();
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_SNDBUF), 16384);
  EXPECT_EQ(get_option(fd, SOL_SOCKET, SO_RCVBUF), 131072);
}

TEST(Options, Switches) {
  Fd fd = tcp();
  struct {
    int level, name;
  } const switches[] = {{SOL_SOCKET, SO_REUSEADDR}, {SOL_SOCKET, SO_REUSEPORT}, {SOL_SOCKET, SO_KEEPALIVE},
                        {SOL_SOCKET, SO_OOBINLINE}, {SOL_SOCKET, SO_DONTROUTE}, {SOL_SOCKET, SO_BROADCAST},
                        {IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_CORK}};
  for (auto [level, name] : switches) {
    EXPECT_EQ(get_option(fd, level, name), 0) << level << "," << name;
    EXPECT_WORKS(set_option(fd, level, name, 5));
    EXPECT_EQ(get_option(fd, level, name), 1) << level << "," << name;
    EXPECT_WORKS(set_option(fd, level, name, 0));
    EXPECT_EQ(get_option(fd, level, name), 0) << level << "," << name;
  }
}

TEST(Options, Timeouts) {
  Fd fd = tcp();
  for (int name : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    auto value = get_option<timeval>(fd, SOL_SOCKET, name);
    EXPECT_EQ(value.tv_sec, 0);
    EXPECT_EQ(value.tv_usec, 0);
    ASSERT_WORKS(set_option(fd, SOL_SOCKET, name, timeval{2, 500'000}));
    value = get_option<timeval>(fd, SOL_SOCKET, name);
    EXPECT_EQ(value.tv_sec, 2);
    EXPECT_EQ(value.tv_usec, 500'000);
    EXPECT_FAILS(EDOM, set_option(fd, SOL_SOCKET, name, timeval{0, 1'000'000}));
    EXPECT_FAILS(EINVAL, set_option(fd, SOL_SOCKET, name, 1));
  }
}

// Of either width; all ones are no limit.
TEST(Options, MaxPacingRate) {
  Fd fd = tcp();
  EXPECT_EQ(get_option<uint32_t>(fd, SOL_SOCKET, SO_MAX_PACING_RATE), ~uint32_t{0});
  EXPECT_EQ(get_option<uint64_t>(fd, SOL_SOCKET, SO_MAX_PACING_RATE), ~uint64_t{0});
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_MAX_PACING_RATE, uint32_t{125'000}));
  EXPECT_EQ(get_option<uint64_t>(fd, SOL_SOCKET, SO_MAX_PACING_RATE), 125'000u);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_MAX_PACING_RATE, uint64_t{10'000'000'000}));
  EXPECT_EQ(get_option<uint64_t>(fd, SOL_SOCKET, SO_MAX_PACING_RATE), 10'000'000'000u);
  EXPECT_EQ(get_option<uint32_t>(fd, SOL_SOCKET, SO_MAX_PACING_RATE), ~uint32_t{0});
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_MAX_PACING_RATE, ~uint32_t{0}));
  EXPECT_EQ(get_option<uint64_t>(fd, SOL_SOCKET, SO_MAX_PACING_RATE), ~uint64_t{0});
  EXPECT_FAILS(EINVAL, setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, "", 1));
}

TEST(Options, Linger) {
  Fd fd = tcp();
  auto value = get_option<linger>(fd, SOL_SOCKET, SO_LINGER);
  EXPECT_EQ(value.l_onoff, 0);
  ASSERT_WORKS(set_option(fd, SOL_SOCKET, SO_LINGER, linger{1, 7}));
  value = get_option<linger>(fd, SOL_SOCKET, SO_LINGER);
  EXPECT_EQ(value.l_onoff, 1);
  EXPECT_EQ(value.l_linger, 7);
}

TEST(Options, KeepAlive) {
  Fd fd = tcp();
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 7200);
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 75);
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPCNT), 9);
  EXPECT_WORKS(set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10));
  EXPECT_WORKS(set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5));
  EXPECT_WORKS(set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3));
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 10);
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 5);
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 0));
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 128));
}

TEST(Options, LengthsAndPointers) {
  Fd fd = tcp();
  int value = 1;
  EXPECT_FAILS(EINVAL, setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, 3));
  EXPECT_FAILS(EINVAL, setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, 0));
  EXPECT_FAILS(EINVAL, setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, static_cast<socklen_t>(-1)));
  EXPECT_FAILS(EFAULT, setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, nullptr, sizeof value));
  EXPECT_WORKS(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value));
  socklen_t length = 2;
  value = 0x55555555;
  EXPECT_WORKS(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length));
  EXPECT_EQ(length, 2U);
  EXPECT_EQ(value, 0x55550001);
  length = static_cast<socklen_t>(-1);
  EXPECT_FAILS(EINVAL, getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length));
  EXPECT_FAILS(EFAULT, getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, nullptr));
  length = sizeof value;
  EXPECT_FAILS(EFAULT, getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, nullptr, &length));
}

TEST(Options, Unknown) {
  Fd fd = tcp();
  int value = 1;
  socklen_t length = sizeof value;
  EXPECT_FAILS(ENOPROTOOPT, setsockopt(fd, SOL_SOCKET, 9999, &value, sizeof value));
  EXPECT_FAILS(ENOPROTOOPT, getsockopt(fd, SOL_SOCKET, 9999, &value, &length));
  EXPECT_FAILS(ENOPROTOOPT, setsockopt(fd, IPPROTO_TCP, 9999, &value, sizeof value));
  EXPECT_FAILS(ENOPROTOOPT, getsockopt(fd, IPPROTO_TCP, 9999, &value, &length));
  EXPECT_FAILS(ENOPROTOOPT, setsockopt(fd, 4711, 1, &value, sizeof value));
  EXPECT_FAILS(EOPNOTSUPP, getsockopt(fd, 4711, 1, &value, &length));
}

TEST(Options, ReadOnly) {
  Fd fd = tcp();
  for (int name : {SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ERROR, SO_ACCEPTCONN})
    EXPECT_FAILS(ENOPROTOOPT, set_option(fd, SOL_SOCKET, name, 1));
}

TEST(Options, OfIp) {
  Fd fd = tcp();
  EXPECT_EQ(get_option(fd, IPPROTO_IP, IP_TTL), 64);
  EXPECT_WORKS(set_option(fd, IPPROTO_IP, IP_TTL, 10));
  EXPECT_EQ(get_option(fd, IPPROTO_IP, IP_TTL), 10);
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_IP, IP_TTL, 256));
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_IP, IP_TTL, 0));
  EXPECT_WORKS(set_option(fd, IPPROTO_IP, IP_TOS, 0x10));
  EXPECT_EQ(get_option(fd, IPPROTO_IP, IP_TOS), 0x10);
}

// States as the kernel's net/tcp_states.h numbers them.
constexpr int kEstablished = 1, kClose = 7, kListen = 10;

TEST(Options, InfoTellsTheState) {
  Fd fd = tcp();
  EXPECT_EQ(get_option<tcp_info>(fd, IPPROTO_TCP, TCP_INFO).tcpi_state, kClose);
  Fd connection = connected("sleep 200");
  auto info = get_option<tcp_info>(connection, IPPROTO_TCP, TCP_INFO);
  EXPECT_EQ(info.tcpi_state, kEstablished);
  EXPECT_GT(info.tcpi_snd_mss, 500U);
  Fd listener = listening();
  EXPECT_EQ(get_option<tcp_info>(listener, IPPROTO_TCP, TCP_INFO).tcpi_state, kListen);
}

TEST(Options, InfoCountsSegments) {
  char buffer[8];
  Fd fd = connected("echo");
  ASSERT_EQ(send(fd, "hello", 5, 0), 5);
  ASSERT_EQ(recv(fd, buffer, 5, MSG_WAITALL), 5);
  auto info = get_option<tcp_info>(fd, IPPROTO_TCP, TCP_INFO);
  // Out: SYN, ACK, the peer's instructions, "hello", the ACK of the answer; but the library's ACKs ride on
  // what comes next.
  EXPECT_EQ(info.tcpi_segs_out, under_library() ? 3U : 5U);
  EXPECT_EQ(info.tcpi_segs_in, 4U);
  EXPECT_EQ(info.tcpi_data_segs_out, 2U);
  EXPECT_EQ(info.tcpi_data_segs_in, 1U);
  EXPECT_GT(info.tcpi_snd_wnd, 30000U);

  Fd listener = listening();
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " echo");
  Fd accepted(accept(listener, nullptr, nullptr));
  ASSERT_EQ(send(accepted, "hello", 5, 0), 5);
  ASSERT_EQ(recv(accepted, buffer, 5, MSG_WAITALL), 5);
  info = get_option<tcp_info>(accepted, IPPROTO_TCP, TCP_INFO);
  // The SYN-ACK doesn't count. And the ACK of the answer, likewise.
  EXPECT_EQ(info.tcpi_segs_out, under_library() ? 1U : 2U);
  EXPECT_EQ(info.tcpi_segs_in, 4U);
  EXPECT_EQ(info.tcpi_data_segs_out, 1U);
  EXPECT_EQ(info.tcpi_data_segs_in, 1U);
}

// A peer that doesn't read: the sender is busy all the time, and for most of it the peer's window is why. A
// buffer that is too small for the window is the other reason.
TEST(Options, InfoTellsWhatHoldsTheSenderUp) {
  std::string data(8 << 20, 'x');
  Fd fd = connected("sleep 300 drain");
  set_option(fd, SOL_SOCKET, SO_SNDBUF, 1 << 20);
  ASSERT_EQ(send(fd, data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  auto info = get_option<tcp_info>(fd, IPPROTO_TCP, TCP_INFO);
  EXPECT_GE(info.tcpi_busy_time, 200000U);
  EXPECT_GE(info.tcpi_rwnd_limited, 200000U);
  EXPECT_LE(info.tcpi_rwnd_limited + info.tcpi_sndbuf_limited, info.tcpi_busy_time);
}

// TCP_RTO_MAX_MS, TCP_RTO_MIN_US and TCP_DELACK_MAX_US, which not every header has.
TEST(Options, BoundsOfTimers) {
  constexpr int kRtoMax = 44, kRtoMin = 45, kAckDelayMax = 46;
  Fd listener = listening();
  EXPECT_WORKS(set_option(listener, IPPROTO_TCP, kRtoMax, 5000));
  EXPECT_EQ(get_option(listener, IPPROTO_TCP, kRtoMax), 5000);
  EXPECT_FAILS(EINVAL, set_option(listener, IPPROTO_TCP, kRtoMax, 999));
  EXPECT_FAILS(EINVAL, set_option(listener, IPPROTO_TCP, kRtoMax, 120001));
  for (int option : {kRtoMin, kAckDelayMax}) {
    EXPECT_WORKS(set_option(listener, IPPROTO_TCP, option, 100000));
    EXPECT_EQ(get_option(listener, IPPROTO_TCP, option), 100000);
    EXPECT_FAILS(EINVAL, set_option(listener, IPPROTO_TCP, option, 1000));
    EXPECT_FAILS(EINVAL, set_option(listener, IPPROTO_TCP, option, 250000));
  }
  Fd control = connected("call " + std::to_string(name_of(listener).port()) + " sleep 100");
  Fd accepted(accept(listener, nullptr, nullptr));
  EXPECT_EQ(get_option(accepted, IPPROTO_TCP, kRtoMax), 5000);
  EXPECT_EQ(get_option(accepted, IPPROTO_TCP, kRtoMin), 100000);
}

TEST(Options, MaximumSegment) {
  Fd fd = tcp();
  EXPECT_EQ(get_option(fd, IPPROTO_TCP, TCP_MAXSEG), 536);
  EXPECT_FAILS(EINVAL, set_option(fd, IPPROTO_TCP, TCP_MAXSEG, 87));
  EXPECT_WORKS(set_option(fd, IPPROTO_TCP, TCP_MAXSEG, 1000));
  ASSERT_WORKS(connect(fd, peer().get(), Address::size));
  EXPECT_LE(get_option(fd, IPPROTO_TCP, TCP_MAXSEG), 1000);
}

TEST(Options, Congestion) {
  Fd fd = tcp();
  char name[16] = {};
  socklen_t length = sizeof name;
  ASSERT_WORKS(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length));
  EXPECT_GT(strlen(name), 0U);
  EXPECT_WORKS(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
  ASSERT_WORKS(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length));
  EXPECT_STREQ(name, "reno");
  EXPECT_FAILS(ENOENT, setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nonesuch", 8));
}

TEST(Control, NonBlockingByFcntlAndIoctl) {
  Fd fd = connected("sleep 500");
  char c;
  ASSERT_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  EXPECT_EQ(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
  EXPECT_FAILS(EAGAIN, read(fd, &c, 1));
  int off = 0, on = 1;
  ASSERT_WORKS(ioctl(fd, FIONBIO, &off));
  EXPECT_EQ(fcntl(fd, F_GETFL), O_RDWR);
  ASSERT_WORKS(ioctl(fd, FIONBIO, &on));
  EXPECT_EQ(fcntl(fd, F_GETFL), O_RDWR | O_NONBLOCK);
  EXPECT_FAILS(EFAULT, ioctl(fd, FIONBIO, nullptr));
}

TEST(Control, NonBlockingBelongsToTheDescription) {
  Fd fd = tcp();
  Fd duplicate(dup(fd));
  set_nonblocking(fd);
  EXPECT_EQ(fcntl(duplicate, F_GETFL), O_RDWR | O_NONBLOCK);
  EXPECT_EQ(fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
  EXPECT_EQ(fcntl(duplicate, F_GETFD), 0) << "close-on-exec to the descriptor";
}

TEST(Control, CloseOnExecByIoctl) {
  Fd fd = tcp();
  ASSERT_WORKS(ioctl(fd, FIOCLEX));
  EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  ASSERT_WORKS(ioctl(fd, FIONCLEX));
  EXPECT_EQ(fcntl(fd, F_GETFD), 0);
}

TEST(Control, ItIsASocketAndNoTerminal) {
  Fd fd = tcp();
  struct stat status;
  ASSERT_WORKS(fstat(fd, &status));
  EXPECT_TRUE(S_ISSOCK(status.st_mode));
  EXPECT_EQ(isatty(fd), 0);
  EXPECT_EQ(errno, ENOTTY);
}

TEST(Control, TypeOfADescriptor) {
  Fd fd = tcp();
  EXPECT_EQ(isfdtype(fd, S_IFSOCK), 1);
  EXPECT_EQ(isfdtype(fd, S_IFREG), 0);
  char target[64] = {};
  ASSERT_GT(readlink(("/proc/self/fd/" + std::to_string(int{fd})).c_str(), target, sizeof target - 1), 0);
  EXPECT_EQ(std::string(target).substr(0, 8), "socket:[");
}

// By which programs tell whether two descriptors are the same.
TEST(Control, EachHasAnInode) {
  Fd fd = tcp(), other = tcp();
  Fd copy(dup(fd));
  ASSERT_WORKS(fcntl(copy, F_SETFD, FD_CLOEXEC));
  struct stat its {
  }, others{}, copys{}, again{};
  ASSERT_WORKS(fstat(fd, &its));
  ASSERT_WORKS(fstatat(other, "", &others, AT_EMPTY_PATH));
  struct statx extended {};
  ASSERT_WORKS(statx(copy, "", AT_EMPTY_PATH, STATX_INO, &extended));
  ASSERT_WORKS(fstat(copy, &copys));
  ASSERT_WORKS(fstat(fd, &again));
  EXPECT_TRUE(S_ISSOCK(its.st_mode));
  EXPECT_NE(its.st_ino, others.st_ino);
  EXPECT_EQ(its.st_ino, copys.st_ino);
  EXPECT_EQ(its.st_ino, extended.stx_ino);
  EXPECT_EQ(its.st_ino, again.st_ino);
  EXPECT_EQ(fcntl(copy, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(fcntl(fd, F_GETFD), 0);
  char target[64] = {};
  ASSERT_GT(readlink(("/proc/self/fd/" + std::to_string(int{copy})).c_str(), target, sizeof target - 1), 0);
  EXPECT_EQ(std::string(target), "socket:[" + std::to_string(its.st_ino) + "]");
  pid_t child = fork();
  if (child == 0) _exit(fstat(fd, &again) == 0 && again.st_ino == its.st_ino ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Control, UnknownRequests) {
  Fd fd = tcp();
  EXPECT_FAILS(ENOTTY, ioctl(fd, TCGETS, nullptr));
  EXPECT_FAILS(EINVAL, fcntl(fd, 4711, 0));
}

TEST(Control, InterfacesCanBeAskedFor) {
  Fd fd = tcp();
  ifreq request{};
  strncpy(request.ifr_name, "lo", sizeof request.ifr_name);
  ASSERT_WORKS(ioctl(fd, SIOCGIFFLAGS, &request));
  EXPECT_NE(request.ifr_flags & IFF_LOOPBACK, 0);
  ASSERT_WORKS(ioctl(fd, SIOCGIFADDR, &request));
  strncpy(request.ifr_name, "none0", sizeof request.ifr_name);
  EXPECT_FAILS(ENODEV, ioctl(fd, SIOCGIFFLAGS, &request));
}

TEST(Control, Duplicates) {
  Fd fd = connected("echo");
  Fd a(dup(fd)), b(fcntl(fd, F_DUPFD, 100)), c(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  ASSERT_GE(a, 0);
  EXPECT_GE(b, 100);
  EXPECT_EQ(fcntl(c, F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(peer_of(b).port(), peer_of(fd).port());
  fd.reset();
  ASSERT_EQ(write(a, "x", 1), 1) << "the connection lives on in its duplicates";
  EXPECT_EQ(read_all(b, 1), "x");
  EXPECT_FAILS(EINVAL, fcntl(a, F_DUPFD, -1));
  Fd null(open("/dev/null", O_RDWR));
  ASSERT_EQ(dup2(a, null), null);
  ASSERT_EQ(write(null, "y", 1), 1);
  EXPECT_EQ(read_all(c, 1), "y");
  Fd zero(open("/dev/zero", O_RDWR));
  ASSERT_EQ(dup2(zero, null), null) << "and over it again";
  char byte = 1;
  EXPECT_EQ(read(null, &byte, 1), 1);
  EXPECT_EQ(byte, 0);
}

}  // namespace
}  // namespace api
