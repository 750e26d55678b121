// splice(2) between a socket and a pipe.
#include <fcntl.h>
#include <sys/ioctl.h>

#include "tests/api/support.h"

namespace api {
namespace {

struct Pipe {
  Fd out, in;
  explicit Pipe(int flags = 0) {
    int both[2];
    if (pipe2(both, flags | O_CLOEXEC) == 0) out = Fd(both[0]), in = Fd(both[1]);
  }
};

ssize_t splice(int from, int to, size_t bytes, unsigned flags = 0) {
  return ::splice(from, nullptr, to, nullptr, bytes, flags);
}

bool fill(int pipe, const std::string& text) {
  return write(pipe, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

TEST(Splice, BringsTheStreamIntoAPipe) {
  Fd fd = connected("say abcdef sleep 50 say ghi");
  Pipe pipe;
  EXPECT_EQ(splice(fd, pipe.in, 4), 4);
  EXPECT_EQ(splice(fd, pipe.in, 1000), 2);
  EXPECT_EQ(splice(fd, pipe.in, 1000), 3) << "waits for more";
  EXPECT_EQ(splice(fd, pipe.in, 1000), 0) << "the end";
  EXPECT_EQ(read_all(pipe.out, 9), "abcdefghi");
}

TEST(Splice, SendsWhatIsInAPipe) {
  Fd fd = connected("echo");
  Pipe pipe;
  ASSERT_TRUE(fill(pipe.in, "abcdef"));
  EXPECT_EQ(splice(pipe.out, fd, 4, SPLICE_F_MORE), 4);
  EXPECT_EQ(splice(pipe.out, fd, 1000), 2);
  EXPECT_EQ(read_all(fd, 6), "abcdef");
  pipe.in.reset();
  EXPECT_EQ(splice(pipe.out, fd, 1000), 0) << "the pipe's end";
}

TEST(Splice, WaitsOrDoesNot) {
  Fd fd = connected("echo");
  Pipe pipe(O_NONBLOCK);
  EXPECT_FAILS(EAGAIN, splice(pipe.out, fd, 1000));
  fcntl(fd, F_SETFL, O_NONBLOCK);
  EXPECT_FAILS(EAGAIN, splice(fd, pipe.in, 1000));
  Pipe waiting;
  EXPECT_FAILS(EAGAIN, splice(waiting.out, fd, 1000, SPLICE_F_NONBLOCK));
}

TEST(Splice, AFullPipeKeepsTheRestInTheStream) {
  Fd fd = connected("echo");
  Pipe pipe(O_NONBLOCK);
  const int room = fcntl(pipe.in, F_SETPIPE_SZ, 65536);
  const std::string text(static_cast<size_t>(room) + 50'000, 'x');
  ASSERT_TRUE(send_all(fd, text));
  size_t moved = 0;
  while (moved < text.size()) {
    poll_one(fd, POLLIN);
    const ssize_t n = splice(fd, pipe.in, text.size());
    if (n < 0 && errno == EAGAIN) {
      int there = 0;
      ioctl(pipe.out, FIONREAD, &there);
      if (there == 0) continue;
      const std::string got = read_all(pipe.out, static_cast<size_t>(there));
      ASSERT_EQ(got, std::string(got.size(), 'x'));
      continue;
    }
    ASSERT_GT(n, 0) << strerror(errno);
    moved += static_cast<size_t>(n);
  }
  EXPECT_EQ(moved, text.size());
}

TEST(Splice, WaitsForRoomInThePipe) {
  Fd fd = connected("echo");
  Pipe pipe;
  const int room = fcntl(pipe.in, F_SETPIPE_SZ, 4096);
  const std::string full(static_cast<size_t>(room), 'f');
  ASSERT_TRUE(fill(pipe.in, full));
  ASSERT_TRUE(send_all(fd, "abc"));
  poll_one(fd, POLLIN);
  EXPECT_FAILS(EAGAIN, splice(fd, pipe.in, 100, SPLICE_F_NONBLOCK));
  pid_t child = fork();
  if (child == 0) {
    usleep(50'000);
    std::string taken(full.size(), ' ');
    _exit(read(pipe.out, taken.data(), taken.size()) == static_cast<ssize_t>(full.size()) ? 0 : 1);
  }
  EXPECT_EQ(splice(fd, pipe.in, 100), 3);
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read_all(pipe.out, 3), "abc");
}

TEST(Splice, RefusesWhatIsNoPipeAndOffsets) {
  Fd fd = connected("echo");
  Fd other = connected("echo");
  Pipe pipe;
  off64_t offset = 0;
  EXPECT_FAILS(EINVAL, splice(fd, other, 10));
  EXPECT_FAILS(EINVAL, splice(fd, pipe.in, 10, 0x100));
  EXPECT_FAILS(EINVAL, ::splice(fd, &offset, pipe.in, nullptr, 10, 0));
  EXPECT_FAILS(ESPIPE, ::splice(fd, nullptr, pipe.in, &offset, 10, 0));
  EXPECT_FAILS(ESPIPE, ::splice(pipe.out, &offset, fd, nullptr, 10, 0));
  EXPECT_FAILS(EINVAL, ::splice(pipe.out, nullptr, fd, &offset, 10, 0));
  EXPECT_EQ(splice(fd, pipe.in, 0), 0);
  EXPECT_FAILS(EBADF, splice(fd, pipe.out, 10));
  EXPECT_FAILS(EBADF, splice(pipe.in, fd, 10));
}

TEST(Splice, TellsTheErrorsOfTheSocket) {
  Fd fd(socket(AF_INET, SOCK_STREAM, 0));
  Pipe pipe;
  EXPECT_FAILS(ENOTCONN, splice(fd, pipe.in, 10));
  ASSERT_TRUE(fill(pipe.in, "abc"));
  signal(SIGPIPE, SIG_IGN);
  Fd shut = connected("echo");
  ASSERT_WORKS(shutdown(shut, SHUT_WR));
  EXPECT_FAILS(EPIPE, splice(pipe.out, shut, 10));
  EXPECT_EQ(read_all(pipe.out, 3), "abc") << "what was not sent is still there";
  signal(SIGPIPE, SIG_DFL);
}

}  // namespace
}  // namespace api
