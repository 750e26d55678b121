#include "io/yield.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <string>

namespace ustack::io {
namespace {

std::string device(const char* name) { return std::string(name) + "-" + std::to_string(getpid()); }

TEST(Yield, NobodyIsAskedWhereNobodyListens) {
  EXPECT_EQ(ask_to_yield(device("none"), 1s), YieldAnswer::nobody);
  EXPECT_EQ(knock(device("none")).code(), ECONNREFUSED);
}

TEST(Yield, WhoDoesNotInsistTakesTheWordOfAKeeperAfterAMoment) {
  const std::string name = device("busy");
  Descriptor listening = open_yield_socket(name);
  ASSERT_TRUE(listening);
  int asked = 0;
  auto busy = [&] {
    ++asked;
    return -EBUSY;
  };
  const pid_t keeper = fork();
  if (keeper == 0) {
    for (;;) {
      pollfd item{listening.get(), POLLIN, 0};
      poll(&item, 1, -1);
      while (Descriptor asking = accept_yield(listening)) refuse_yield(std::move(asking));
    }
  }
  const Instant start = now();
  EXPECT_EQ(retry_while_busy(name, -EBUSY, false, busy), -EBUSY);
  EXPECT_GE(now() - start, kKilledPatience);
  EXPECT_GE(asked, 2);
  kill(keeper, SIGKILL);
  waitpid(keeper, nullptr, 0);
}

TEST(Door, IsOpenedToTheSameUser) {
  const std::string name = device("door");
  Descriptor door = open_door(name);
  ASSERT_TRUE(door);
  EXPECT_FALSE(accept_guest(door, EACCES));
  Result<Descriptor> guest = knock(name);
  ASSERT_TRUE(guest.ok());
  Descriptor let_in = accept_guest(door, EACCES);
  ASSERT_TRUE(let_in);
  EXPECT_EQ(send(guest->get(), "x", 1, 0), 1);
  char byte = 0;
  EXPECT_EQ(recv(let_in.get(), &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'x');
}

TEST(Door, AnotherUserNeitherComesInNorTrustsIt) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  const std::string name = device("strangers");
  // Root's door: nobody may knock, and is told why.
  Descriptor door = open_door(name);
  ASSERT_TRUE(door);
  const pid_t stranger = fork();
  if (stranger == 0) {
    if (setresuid(65534, 65534, 65534) != 0) _exit(99);
    Result<Descriptor> guest = knock(name);
    int32_t refusal = 0;
    if (!guest.ok() || recv(guest->get(), &refusal, sizeof refusal, 0) != sizeof refusal) _exit(98);
    _exit(refusal == EACCES ? 0 : 1);
  }
  int status = 0;
  while (waitpid(stranger, &status, WNOHANG) == 0) EXPECT_FALSE(accept_guest(door, EACCES));
  if (WEXITSTATUS(status) == 99) GTEST_SKIP() << "no other user in this user namespace";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  // Nobody's door: root doesn't go in.
  int ready[2], done[2];
  ASSERT_EQ(pipe(ready) + pipe(done), 0);
  const std::string other = device("nobodys");
  const pid_t keeper = fork();
  if (keeper == 0) {
    if (setresuid(65534, 65534, 65534) != 0) _exit(99);
    Descriptor nobodys = open_door(other);
    char byte = nobodys ? 'y' : 'n';
    if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1) _exit(98);
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  EXPECT_EQ(knock(other).code(), EACCES);
  ASSERT_EQ(write(done[1], "x", 1), 1);
  waitpid(keeper, nullptr, 0);
  for (int fd : {ready[0], ready[1], done[0], done[1]}) close(fd);
}

}  // namespace
}  // namespace ustack::io
