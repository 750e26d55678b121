// Signals and threads against blocked calls.
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>
#include <array>
#include <atomic>
#include <csetjmp>
#include <mutex>
#include <thread>

#include "tests/api/support.h"

namespace api {
namespace {

TEST(Signals, InterruptAReadWithoutRestart) {
  Handler handler(SIGUSR1, 0);
  Fd fd = connected("sleep 2000");
  pthread_t self = pthread_self();
  Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
  char c;
  EXPECT_FAILS(EINTR, read(fd, &c, 1));
  EXPECT_EQ(handler.count(), 1);
}

TEST(Signals, RestartARead) {
  Handler handler(SIGUSR1, SA_RESTART);
  Fd fd = connected("sleep 300 say x sleep 500");
  pthread_t self = pthread_self();
  Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
  char c;
  EXPECT_EQ(read(fd, &c, 1), 1);
  EXPECT_EQ(handler.count(), 1);
}

TEST(Signals, AReadWithATimeLimitIsNotRestarted) {
  Handler handler(SIGUSR1, SA_RESTART);
  Fd fd = connected("sleep 2000");
  set_timeout(fd, SO_RCVTIMEO, milliseconds(3000));
  pthread_t self = pthread_self();
  Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
  char c;
  EXPECT_FAILS(EINTR, read(fd, &c, 1));
}

TEST(Signals, AReadKeepsWhatItHas) {
  Handler handler(SIGUSR1, SA_RESTART);
  Fd fd = connected("say abc sleep 2000");
  pthread_t self = pthread_self();
  Later later(milliseconds(150), [self] { pthread_kill(self, SIGUSR1); });
  char buffer[10];
  EXPECT_EQ(recv(fd, buffer, sizeof buffer, MSG_WAITALL), 3);
  EXPECT_EQ(handler.count(), 1);
}

TEST(Signals, AWriteKeepsWhatItHas) {
  Handler handler(SIGUSR1, SA_RESTART);
  Fd fd = connected("sleep 2000");
  std::string bytes(64 << 20, 'x');
  pthread_t self = pthread_self();
  Later later(milliseconds(400), [self] { pthread_kill(self, SIGUSR1); });
  ssize_t n = send(fd, bytes.data(), bytes.size(), 0);
  EXPECT_GT(n, 0);
  EXPECT_LT(n, static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(handler.count(), 1);
}

TEST(Signals, InterruptOrRestartAccept) {
  Fd listener = listening();
  pthread_t self = pthread_self();
  {
    Handler handler(SIGUSR1, 0);
    Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
    EXPECT_FAILS(EINTR, accept(listener, nullptr, nullptr));
  }
  Handler handler(SIGUSR1, SA_RESTART);
  Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
  Fd control = connected("sleep 300 call " + std::to_string(name_of(listener).port()));
  Fd fd(accept(listener, nullptr, nullptr));
  EXPECT_GE(fd, 0);
  EXPECT_EQ(handler.count(), 1);
}

TEST(Signals, AlarmsByTheHundred) {
  Handler handler(SIGALRM, SA_RESTART);
  itimerval often{{0, 500}, {0, 500}}, never{};
  Fd fd = connected("echo");
  setitimer(ITIMER_REAL, &often, nullptr);
  std::string all;
  for (int i = 0; i < 300; ++i) {
    std::string word = pattern(1000, all.size());
    EXPECT_TRUE(send_all(fd, word));
    all += read_all(fd, word.size());
  }
  setitimer(ITIMER_REAL, &never, nullptr);
  EXPECT_TRUE(all == pattern(300'000));
  EXPECT_GT(handler.count(), 0);
}

int socket_of_handler = -1;

TEST(Signals, AHandlerMayUseTheSocket) {
  Fd fd = connected("recv 1 say x sleep 500");
  socket_of_handler = fd;
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) { (void)!write(socket_of_handler, "!", 1); };
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, &before);
  pthread_t self = pthread_self();
  Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
  char c;
  EXPECT_EQ(read(fd, &c, 1), 1) << "the peer answers what the handler wrote";
  sigaction(SIGUSR1, &before, nullptr);
}

sigjmp_buf jump;

TEST(Signals, AHandlerMayJumpOut) {
  Fd fd = connected("echo");
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) { siglongjmp(jump, 1); };
  sigaction(SIGUSR1, &action, &before);
  pthread_t self = pthread_self();
  {
    Later later(milliseconds(100), [self] { pthread_kill(self, SIGUSR1); });
    char c;
    if (sigsetjmp(jump, 1) == 0) {
      (void)!read(fd, &c, 1);
      ADD_FAILURE() << "the read returned";
    }
  }
  sigaction(SIGUSR1, &before, nullptr);
  ASSERT_TRUE(send_all(fd, "on"));
  EXPECT_EQ(read_all(fd, 2), "on");
}

TEST(Threads, ReadersAndWritersOnOneSocket) {
  constexpr size_t kBytes = 4 << 20;
  Fd fd = connected("echo");
  std::string back;
  std::thread reader([&] { back = read_all(fd, kBytes); });
  std::thread writer([&] { EXPECT_TRUE(send_all(fd, pattern(kBytes))); });
  writer.join();
  reader.join();
  EXPECT_TRUE(back == pattern(kBytes));
}

TEST(Threads, SeveralReadersShareTheBytes) {
  constexpr size_t kBytes = 3'000'000;
  Fd fd = connected("send " + std::to_string(kBytes));
  std::atomic<size_t> total{0};
  std::array<size_t, 251> counts{};
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      char buffer[1000];
      for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
        total += static_cast<size_t>(n);
        std::lock_guard held(mutex);
        for (ssize_t k = 0; k < n; ++k) ++counts[static_cast<unsigned char>(buffer[k])];
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(total, kBytes);
  for (size_t i = 0; i < 251; ++i) EXPECT_EQ(counts[i], kBytes / 251 + (i < kBytes % 251)) << i;
}

TEST(Threads, SeveralWritersKeepTheirSmallWritesWhole) {
  // Fewer bytes than the send buffer has: a write that has to wait for room may be divided.
  constexpr int kThreads = 4, kWrites = 35;
  Fd fd = connected("echo");
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&fd, t] {
      std::string word(100, static_cast<char>('a' + t));
      for (int i = 0; i < kWrites; ++i) EXPECT_EQ(write(fd, word.data(), word.size()), 100);
    });
  std::string all = read_all(fd, kThreads * kWrites * 100);
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(all.size(), static_cast<size_t>(kThreads * kWrites * 100));
  for (size_t i = 0; i < all.size(); i += 100) EXPECT_EQ(all.substr(i, 100), std::string(100, all[i]));
}

TEST(Threads, SeveralAcceptors) {
  Fd listener = listening(64);
  std::atomic<int> accepted{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 5; ++k) {
        Fd fd(accept(listener, nullptr, nullptr));
        if (fd >= 0) ++accepted;
      }
    });
  Fd control = connected("dial 20 " + std::to_string(name_of(listener).port()) + " sleep 300");
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(accepted, 20);
}

TEST(Threads, ManyConnectionsOfManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 10; ++i) {
        Fd fd = connected("echo");
        std::string word = pattern(5000, static_cast<size_t>(i));
        EXPECT_TRUE(send_all(fd, word));
        EXPECT_TRUE(read_all(fd, word.size()) == word);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(Threads, ClosedWhileBlocked) {
  // The blocked call keeps the connection (close(2), "multithreaded processes").
  Fd fd = connected("sleep 400 say x sleep 300");
  int number = fd;
  Later later(milliseconds(100), [&] { fd.reset(); });
  char c;
  EXPECT_EQ(read(number, &c, 1), 1);
}

TEST(Threads, OneWaitsWhileAnotherWorks) {
  Fd idle = connected("sleep 600 say x");
  std::thread waiting([&] {
    char c;
    EXPECT_EQ(read(idle, &c, 1), 1);
  });
  Fd busy = connected("echo");
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(send_all(busy, "ping"));
    ASSERT_EQ(read_all(busy, 4), "ping");
  }
  waiting.join();
}

TEST(Threads, ErrnoIsEachThreadsOwn) {
  Fd fd = connected("sleep 300", SOCK_NONBLOCK);
  errno = 77;
  char c = 0;
  EXPECT_EQ(send(fd, &c, 1, 0), 1);
  EXPECT_EQ(errno, 77) << "a call that works leaves it alone";
  std::thread other([&] { EXPECT_FAILS(EAGAIN, read(fd, &c, 1)); });
  other.join();
  EXPECT_EQ(errno, 77);
}

// pthread_cancel(3): every call that waits is a cancellation point.
struct Cancellable {
  const char* name;
  void (*call)(int fd, int listener);
};
void PrintTo(const Cancellable& c, std::ostream* out) { *out << c.name; }

char received_byte;
const Cancellable kCancellable[] = {
    {"Read", [](int fd, int) { (void)!read(fd, &received_byte, 1); }},
    {"Recv", [](int fd, int) { recv(fd, &received_byte, 1, 0); }},
    {"Recvmsg",
     [](int fd, int) {
       iovec part{&received_byte, 1};
       msghdr message{};
       message.msg_iov = &part;
       message.msg_iovlen = 1;
       recvmsg(fd, &message, 0);
     }},
    {"Send",
     [](int fd, int) {
       static const std::string bytes(1 << 20, 'x');
       for (;;) send(fd, bytes.data(), bytes.size(), 0);
     }},
    {"Accept", [](int, int listener) { accept(listener, nullptr, nullptr); }},
    {"Connect", [](int, int) { connect(tcp(), silent().get(), Address::size); }},
    {"Poll",
     [](int fd, int) {
       pollfd item{fd, POLLIN, 0};
       poll(&item, 1, -1);
     }},
    {"Select",
     [](int fd, int) {
       fd_set set;
       FD_ZERO(&set);
       FD_SET(fd, &set);
       select(fd + 1, &set, nullptr, nullptr, nullptr);
     }},
    {"EpollWait",
     [](int fd, int) {
       static int waiting = epoll_create1(EPOLL_CLOEXEC);
       epoll_event event{};
       event.events = EPOLLIN;
       epoll_ctl(waiting, EPOLL_CTL_ADD, fd, &event);
       epoll_wait(waiting, &event, 1, -1);
     }},
};

class Cancel : public testing::TestWithParam<Cancellable> {
 protected:
  struct Job {
    void (*call)(int, int);
    int fd, listener;
    int state = PTHREAD_CANCEL_ENABLE;
    std::atomic<bool> returned = false, cleaned = false;
  };
  static void* run(void* argument) {
    auto& job = *static_cast<Job*>(argument);
    int before;
    pthread_setcancelstate(job.state, &before);
    pthread_cleanup_push([](void* at) { static_cast<Job*>(at)->cleaned = true; }, &job);
    job.call(job.fd, job.listener);
    job.returned = true;
    pthread_cleanup_pop(0);
    return nullptr;
  }
};

TEST_P(Cancel, EndsAThreadThatWaits) {
  Fd fd = connected("sleep 60000"), listener = listening();
  Job job{.call = GetParam().call, .fd = fd, .listener = listener};
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, nullptr, &run, &job), 0);
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(pthread_cancel(thread), 0);
  void* result = nullptr;
  ASSERT_EQ(pthread_join(thread, &result), 0);
  EXPECT_EQ(result, PTHREAD_CANCELED);
  EXPECT_TRUE(job.cleaned);
  EXPECT_FALSE(job.returned);
}

TEST_P(Cancel, EndsAThreadThatIsAboutToWait) {
  Fd fd = connected("sleep 60000"), listener = listening();
  Job job{.call = GetParam().call, .fd = fd, .listener = listener};
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, nullptr, &run, &job), 0);
  EXPECT_EQ(pthread_cancel(thread), 0);
  void* result = nullptr;
  ASSERT_EQ(pthread_join(thread, &result), 0);
  EXPECT_EQ(result, PTHREAD_CANCELED);
}

INSTANTIATE_TEST_SUITE_P(All, Cancel, testing::ValuesIn(kCancellable),
                         [](const auto& tested) { return std::string(tested.param.name); });

// While it is disabled the thread goes on waiting; and what it was reading from stays usable.
TEST(Cancellation, WaitsUntilItIsEnabled) {
  Fd fd = connected("sleep 300 say ab sleep 2000");
  static std::atomic<ssize_t> got;
  got = -2;
  pthread_t thread;
  ASSERT_EQ(pthread_create(
                &thread, nullptr,
                [](void* argument) -> void* {
                  int before;
                  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
                  char c;
                  got = read(*static_cast<Fd*>(argument), &c, 1);
                  pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
                  read(*static_cast<Fd*>(argument), &c, 1);
                  return nullptr;
                },
                &fd),
            0);
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(pthread_cancel(thread), 0);
  void* result = nullptr;
  ASSERT_EQ(pthread_join(thread, &result), 0);
  EXPECT_EQ(result, PTHREAD_CANCELED);
  EXPECT_EQ(got, 1);
  char c;
  EXPECT_EQ(read(fd, &c, 1), 1) << "the second byte was not taken";
  EXPECT_EQ(c, 'b');
}

}  // namespace
}  // namespace api
