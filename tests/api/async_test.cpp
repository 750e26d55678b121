// Signals of a socket: F_SETOWN, F_SETSIG, O_ASYNC, SIGIO and SIGURG (fcntl(2), socket(7)).
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "tests/api/support.h"

namespace api {
namespace {

std::atomic<int> came, its_fd, its_code;

/// Counts a signal while it lives.
class Counted {
 public:
  explicit Counted(int number) : number_(number) {
    came = 0;
    its_fd = its_code = -1;
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
      ++came;
      its_code = info->si_code;
      its_fd = info->si_fd;
    };
    sigaction(number, &action, &before_);
  }
  ~Counted() { sigaction(number_, &before_, nullptr); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  /// Up to five seconds, in which `by` (a socket on which nothing comes) is waited for.
  static bool wait(int by) {
    for (int i = 0; i < 500 && came == 0; ++i) {
      pollfd one{by, POLLIN, 0};
      poll(&one, 1, 10);
    }
    return came != 0;
  }
  /// The same asleep.
  static bool sleep() {
    for (int i = 0; i < 500 && came == 0; ++i) usleep(10000);
    return came != 0;
  }

 private:
  int number_;
  struct sigaction before_ {};
};

TEST(Async, TheOwnerIsRemembered) {
  Fd fd = tcp();
  EXPECT_EQ(fcntl(fd, F_GETOWN), 0);
  EXPECT_EQ(fcntl(fd, F_GETSIG), 0);
  f_owner_ex owner{};
  ASSERT_WORKS(fcntl(fd, F_GETOWN_EX, &owner));
  EXPECT_EQ(owner.type, F_OWNER_TID);
  EXPECT_EQ(owner.pid, 0);
  EXPECT_WORKS(fcntl(fd, F_SETOWN, getpid()));
  EXPECT_EQ(fcntl(fd, F_GETOWN), getpid());
  int who = 0;
  EXPECT_WORKS(ioctl(fd, FIOGETOWN, &who));
  EXPECT_EQ(who, getpid());
  who = -getpgrp();
  EXPECT_WORKS(ioctl(fd, SIOCSPGRP, &who));
  ASSERT_WORKS(fcntl(fd, F_GETOWN_EX, &owner));
  EXPECT_EQ(owner.type, F_OWNER_PGRP);
  EXPECT_EQ(owner.pid, getpgrp());
  owner = {F_OWNER_TID, static_cast<pid_t>(syscall(SYS_gettid))};
  EXPECT_WORKS(fcntl(fd, F_SETOWN_EX, &owner));
  EXPECT_EQ(fcntl(fd, F_GETOWN), owner.pid);
  EXPECT_WORKS(fcntl(fd, F_SETSIG, SIGUSR2));
  EXPECT_EQ(fcntl(fd, F_GETSIG), SIGUSR2);
  Fd other = tcp();
  EXPECT_EQ(fcntl(other, F_GETOWN), 0) << "each has its own";
  Fd copy(dup(fd));
  EXPECT_EQ(fcntl(copy, F_GETSIG), SIGUSR2) << "it is the description's";
}

TEST(Async, WrongOwners) {
  Fd fd = tcp();
  EXPECT_FAILS(ESRCH, fcntl(fd, F_SETOWN, 0x3ffffffe));
  EXPECT_FAILS(EINVAL, fcntl(fd, F_SETSIG, 65));
  const int unknown[2] = {7, getpid()};
  EXPECT_FAILS(EINVAL, fcntl(fd, F_SETOWN_EX, unknown));
  f_owner_ex owner{F_OWNER_PID, 0x3ffffffe};
  EXPECT_FAILS(ESRCH, fcntl(fd, F_SETOWN_EX, &owner));
  EXPECT_EQ(fcntl(fd, F_GETOWN), 0);
  EXPECT_WORKS(fcntl(fd, F_SETOWN, getpid()));
  EXPECT_WORKS(fcntl(fd, F_SETOWN, 0));
  EXPECT_EQ(fcntl(fd, F_GETOWN), 0);
}

TEST(Async, TheFlagIsShown) {
  Fd fd = tcp();
  EXPECT_WORKS(fcntl(fd, F_SETFL, O_ASYNC | O_NONBLOCK));
  EXPECT_EQ(fcntl(fd, F_GETFL) & (O_ASYNC | O_NONBLOCK), O_ASYNC | O_NONBLOCK);
  int off = 0;
  EXPECT_WORKS(ioctl(fd, FIOASYNC, &off));
  EXPECT_EQ(fcntl(fd, F_GETFL) & (O_ASYNC | O_NONBLOCK), O_NONBLOCK);
}

TEST(Async, DataRaisesSigio) {
  Counted signal(SIGIO);
  Fd quiet = connected("sleep 9000");
  Fd fd = connected("sleep 100 say x sleep 3000");
  ASSERT_WORKS(fcntl(fd, F_SETOWN, getpid()));
  ASSERT_WORKS(fcntl(fd, F_SETFL, O_ASYNC));
  EXPECT_TRUE(Counted::wait(quiet));
  EXPECT_EQ(read_all(fd, 1), "x");
}

TEST(Async, AListenerRaisesItForAConnection) {
  Counted signal(SIGIO);
  Fd quiet = connected("sleep 9000");
  Fd listener = listening();
  int on = 1, who = getpid();
  ASSERT_WORKS(ioctl(listener, FIOSETOWN, &who));
  ASSERT_WORKS(ioctl(listener, FIOASYNC, &on));
  Fd control = connected("sleep 100 call " + std::to_string(name_of(listener).port()) + " sleep 3000");
  EXPECT_TRUE(Counted::wait(quiet));
  Fd accepted(accept(listener, nullptr, nullptr));
  EXPECT_GE(accepted, 0);
}

TEST(Async, AChosenSignalTellsTheDescriptor) {
  Counted signal(SIGRTMIN + 1);
  Fd quiet = connected("sleep 9000");
  Fd fd = connected("sleep 200 say x sleep 3000");
  ASSERT_WORKS(fcntl(fd, F_SETOWN, getpid()));
  ASSERT_WORKS(fcntl(fd, F_SETSIG, SIGRTMIN + 1));
  ASSERT_WORKS(fcntl(fd, F_SETFL, O_ASYNC));
  EXPECT_TRUE(Counted::wait(quiet));
  EXPECT_EQ(its_fd, fd);
  EXPECT_EQ(its_code, POLL_IN);
}

TEST(Async, NobodyAsksForNothing) {
  Counted signal(SIGIO);
  Fd fd = connected("sleep 50 say x sleep 3000");
  ASSERT_WORKS(fcntl(fd, F_SETFL, O_ASYNC));
  EXPECT_EQ(read_all(fd, 1), "x");
  EXPECT_EQ(came, 0) << "without an owner";
}

TEST(Async, UrgentDataRaisesSigurgWithoutTheFlag) {
  Counted signal(SIGURG);
  Fd quiet = connected("sleep 9000");
  Fd fd = connected("sleep 100 oob ! sleep 3000");
  ASSERT_WORKS(fcntl(fd, F_SETOWN, getpid()));
  EXPECT_TRUE(Counted::wait(quiet));
  EXPECT_EQ(came, 1);
  char byte = 0;
  EXPECT_EQ(recv(fd, &byte, 1, MSG_OOB), 1);
  EXPECT_EQ(byte, '!');
}

TEST(Async, TheKernelsLoopbackKnowsTheOwner) {
  Counted signal(SIGRTMIN + 1);
  Fd quiet = connected("sleep 9000");
  Fd server = tcp();
  Address address("127.0.0.1", 0);
  ASSERT_WORKS(bind(server, address.get(), Address::size));
  ASSERT_WORKS(listen(server, 1));
  address = name_of(server);
  Fd fd = tcp();
  ASSERT_WORKS(fcntl(fd, F_SETOWN, getpid()));
  ASSERT_WORKS(fcntl(fd, F_SETSIG, SIGRTMIN + 1));
  ASSERT_WORKS(fcntl(fd, F_SETFL, O_ASYNC));
  ASSERT_WORKS(connect(fd, address.get(), Address::size));
  Fd accepted(accept(server, nullptr, nullptr));
  EXPECT_EQ(fcntl(fd, F_GETOWN), getpid());
  came = 0;
  ASSERT_EQ(write(accepted, "x", 1), 1);
  EXPECT_TRUE(Counted::wait(quiet));
  EXPECT_EQ(its_fd, fd);
}

TEST(Async, AChildMayBeTheOwner) {
  Counted signal(SIGIO);
  Fd quiet = connected("sleep 9000");
  Fd fd = connected("sleep 300 say x sleep 3000");
  pid_t child = fork();
  if (child == 0) _exit(Counted::sleep() ? 0 : 1);
  ASSERT_WORKS(fcntl(fd, F_SETOWN, child));
  ASSERT_WORKS(fcntl(fd, F_SETFL, O_ASYNC));
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(came, 0);
}

/// While nobody is in a call of a socket's.
void expect_told_asleep(const f_owner_ex& owner) {
  Counted signal(SIGRTMIN + 1);
  Fd fd = connected("sleep 200 say x sleep 3000");
  ASSERT_WORKS(fcntl(fd, F_SETOWN_EX, &owner));
  ASSERT_WORKS(fcntl(fd, F_SETSIG, SIGRTMIN + 1));
  ASSERT_WORKS(fcntl(fd, F_SETFL, O_ASYNC));
  EXPECT_TRUE(Counted::sleep());
  EXPECT_EQ(its_fd, fd);
  EXPECT_EQ(its_code, POLL_IN);
}

TEST(Async, AProgramThatSleepsIsToldTheDescriptor) { expect_told_asleep({F_OWNER_PID, getpid()}); }

TEST(Async, AThreadMayBeTheOwner) {
  expect_told_asleep({F_OWNER_TID, static_cast<pid_t>(syscall(SYS_gettid))});
}

TEST(Async, AChildIsToldTheDescriptor) {
  Counted signal(SIGRTMIN + 1);
  Fd quiet = connected("sleep 9000");
  Fd fd = connected("sleep 300 say x sleep 3000");
  pid_t child = fork();
  if (child == 0) _exit(Counted::sleep() && its_fd == fd && its_code == POLL_IN ? 0 : 1);
  ASSERT_WORKS(fcntl(fd, F_SETOWN, child));
  ASSERT_WORKS(fcntl(fd, F_SETSIG, SIGRTMIN + 1));
  ASSERT_WORKS(fcntl(fd, F_SETFL, O_ASYNC));
  pollfd one{quiet, POLLIN, 0};
  poll(&one, 1, 600);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(came, 0);
}

}  // namespace
}  // namespace api
