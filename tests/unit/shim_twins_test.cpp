// A process's own list of its listeners' twins.
#include "shim/twins.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>

#include "tests/support/fd_table_fixture.h"

namespace ustack::shim {
namespace {

using test::FakeFile;

bool open_in_kernel(int fd) { return fcntl(fd, F_GETFD) >= 0; }

int placeholder() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

class ShimTwins : public test::FdTableFixture {
 protected:
  void TearDown() override {
    twins::keep_those_of(nullptr);
    FdTableFixture::TearDown();
  }
  /// A twin of one descriptor, which is returned.
  static int give(const OpenFile& file) {
    Twin twin;
    twin.listeners[0] = io::Descriptor(placeholder());
    const int fd = twin.watched();
    EXPECT_TRUE(twins::add(file, twin));
    EXPECT_FALSE(twin) << "it is taken over";
    return fd;
  }
};

TEST_F(ShimTwins, BelongToTheirFiles) {
  FakeFile one, other, without;
  const int first = give(one), second = give(other);
  EXPECT_EQ(twins::of(one), first);
  EXPECT_EQ(twins::of(other), second);
  EXPECT_EQ(twins::of(without), -1);
  EXPECT_TRUE(twins::has(first));
  EXPECT_FALSE(twins::has(STDOUT_FILENO));
  EXPECT_EQ(twins::accept(without, 0).code(), EAGAIN);

  twins::close(one);
  EXPECT_EQ(twins::of(one), -1);
  EXPECT_FALSE(twins::has(first));
  EXPECT_FALSE(open_in_kernel(first));
  EXPECT_EQ(twins::of(other), second);
  EXPECT_TRUE(open_in_kernel(second));
}

TEST_F(ShimTwins, OfTwoListenersAreWatchedByASet) {
  FakeFile file;
  Twin twin;
  twin.listeners = {io::Descriptor(placeholder()), io::Descriptor(placeholder())};
  twin.set = io::Descriptor(epoll_create1(EPOLL_CLOEXEC));
  const int numbers[] = {twin.set.get(), twin.listeners[0].get(), twin.listeners[1].get()};
  ASSERT_TRUE(twins::add(file, twin));
  EXPECT_EQ(twins::of(file), numbers[0]);
  for (int fd : numbers) EXPECT_TRUE(twins::has(fd));
  twins::close(file);
  for (int fd : numbers) EXPECT_FALSE(open_in_kernel(fd));
}

TEST_F(ShimTwins, CloseWithTheLastNumberOfTheProcess) {
  FakeFile file;
  const int twin = give(file);
  ASSERT_TRUE(table_->share(100, &file).ok());
  ASSERT_TRUE(table_->share(101, &file).ok());
  FdTable* relatives = table_->copy();
  ASSERT_NE(relatives, nullptr);

  table_->clear(100);
  EXPECT_TRUE(open_in_kernel(twin)) << "another number has it";
  relatives->clear(100);
  relatives->clear(101);
  EXPECT_TRUE(open_in_kernel(twin)) << "a relative's numbers are not this process's";
  FakeFile instead;
  ASSERT_TRUE(table_->share(101, &instead).ok());
  EXPECT_FALSE(open_in_kernel(twin)) << "dup2 onto the last one";
  EXPECT_EQ(twins::of(file), -1);

  table_->clear(101);
  FdTable::destroy(relatives);
}

TEST_F(ShimTwins, AChildKeepsThoseThatItsTableHas) {
  FakeFile inherited, not_inherited;
  const int kept = give(inherited), closed = give(not_inherited);
  ASSERT_TRUE(table_->share(100, &inherited).ok());
  twins::keep_those_of(table_);
  EXPECT_TRUE(open_in_kernel(kept));
  EXPECT_FALSE(open_in_kernel(closed));
  twins::keep_those_of(nullptr);
  EXPECT_FALSE(open_in_kernel(kept));
  table_->clear(100);
}

TEST_F(ShimTwins, MoreThanThereIsRoomForStayTheCallers) {
  std::deque<FakeFile> files(twins::kMost);
  for (const FakeFile& file : files) give(file);
  FakeFile one_more;
  Twin twin;
  twin.listeners[0] = io::Descriptor(placeholder());
  EXPECT_FALSE(twins::add(one_more, twin));
  EXPECT_TRUE(twin);
  twins::close(files[5]);
  EXPECT_TRUE(twins::add(one_more, twin)) << "a place is used again";
  EXPECT_EQ(twins::of(files.back()) >= 0, true);
}

TEST_F(ShimTwins, ShutDownListenForNobody) {
  FakeFile file;
  Twin twin;
  twin.listeners[0] = io::Descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  io::Descriptor relatives(dup(twin.listeners[0].get()));
  ASSERT_EQ(listen(relatives.get(), 1), 0);
  ASSERT_TRUE(twins::add(file, twin));
  twins::end(file);
  int listens = -1;
  socklen_t length = sizeof listens;
  ASSERT_EQ(getsockopt(relatives.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &length), 0);
  EXPECT_EQ(listens, 0);
}

}  // namespace
}  // namespace ustack::shim
