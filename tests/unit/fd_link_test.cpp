// Links over a socket of the caller's: fd:N and fd:N:ip.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/link.h"

namespace ustack::io {
namespace {

using testing::HasSubstr;

struct Pair {
  Descriptor a, b;
};

Pair make_pair_of(int type) {
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, type, 0, ends), 0);
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

TEST(FdLink, TakesMessageSockets) {
  for (int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    Pair pair = make_pair_of(type);
    Link link;
    auto problem =
        open_link({.scheme = LinkSpec::Scheme::fd, .name = "", .fd = pair.a.get(), .more_fds = {}}, &link);
    ASSERT_FALSE(problem) << problem->message;
    EXPECT_EQ(link.name(), "fd:" + std::to_string(pair.a.get()));
    EXPECT_NE(link.fd(), pair.a.get()) << "the caller's descriptor stays the caller's";
    EXPECT_TRUE(link.is_socket());
    EXPECT_EQ(link.prefix_length(), 0u);
    EXPECT_EQ(link.info().kind, LinkInfo::Kind::ethernet);
    EXPECT_EQ(link.info().mtu, 1500);
    EXPECT_FALSE(link.info().checksum_offload);
    EXPECT_FALSE(link.info().tcp_segmentation_v4);
    EXPECT_EQ(link.max_frame(), 1518u);
    EXPECT_TRUE(fcntl(link.fd(), F_GETFL) & O_NONBLOCK);
    EXPECT_TRUE(fcntl(link.fd(), F_GETFD) & FD_CLOEXEC);
    pair.a.reset();
    EXPECT_EQ(write(pair.b.get(), "frame", 5), 5);
    char buffer[16];
    EXPECT_EQ(read(link.fd(), buffer, sizeof buffer), 5);
  }
}

TEST(FdLink, BareIpIsAKindOfItsOwn) {
  Pair pair = make_pair_of(SOCK_DGRAM);
  Link link;
  ASSERT_FALSE(open_fd(pair.a.get(), true, &link));
  EXPECT_EQ(link.info().kind, LinkInfo::Kind::ip);
  EXPECT_EQ(link.max_frame(), 1500u);
}

struct Refused {
  const char* name;
  int (*make)();
  int code;
  const char* says;
};

class FdLinkErrors : public testing::TestWithParam<Refused> {};

TEST_P(FdLinkErrors, AreClear) {
  Descriptor fd(GetParam().make());
  Link link;
  auto problem = open_fd(fd ? fd.get() : 999'999, false, &link);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->code, GetParam().code);
  EXPECT_THAT(problem->message, HasSubstr(GetParam().says));
  EXPECT_EQ(link.fd(), -1);
}

INSTANTIATE_TEST_SUITE_P(
    All, FdLinkErrors,
    testing::Values(Refused{"Closed", [] { return -1; }, EBADF, "descriptor 999999 is not open"},
                    Refused{"File", [] { return open("/dev/null", O_RDWR); }, ENOTSOCK, "is not a socket"},
                    Refused{"Stream", [] { return socket(AF_UNIX, SOCK_STREAM, 0); }, EPROTOTYPE,
                            "SOCK_DGRAM or SOCK_SEQPACKET"}),
    [](const auto& param) { return param.param.name; });

TEST(OwnDescriptors, MoveOutOfTheProgramsWay) {
  Pair pair = make_pair_of(SOCK_DGRAM);
  int before = pair.a.get();
  ASSERT_TRUE(move_high(pair.a).ok());
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= 1024) {
    EXPECT_GE(pair.a.get(), 976);
  }
  EXPECT_LE(pair.a.get(), 2000) << "the kernel's table grows with the largest number";
  EXPECT_TRUE(fcntl(pair.a.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_EQ(fcntl(before, F_GETFD), -1);
  EXPECT_EQ(write(pair.a.get(), "x", 1), 1);
}

TEST(OwnDescriptors, MoveAsHighAsASmallLimitAllows) {
  pid_t child = fork();
  if (child == 0) {
    Pair pair = make_pair_of(SOCK_DGRAM);
    rlimit limit{32, 32};
    setrlimit(RLIMIT_NOFILE, &limit);
    bool moved = move_high(pair.a).ok() && pair.a.get() >= 16 && pair.a.get() < 32;
    // No number is left at all: it stays where it is.
    int filler;
    do filler = dup(0);
    while (filler >= 0);
    int stays = pair.b.get();
    Status status = move_high(pair.b);
    bool stayed = status.code() == EMFILE && pair.b.get() == stays && fcntl(stays, F_GETFD) >= 0;
    _exit(moved && stayed ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ustack::io
