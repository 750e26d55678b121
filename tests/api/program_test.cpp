// What programs do to themselves: they close all descriptors, lower their limits, load libraries.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <climits>

#include "tests/api/support.h"

namespace api {
namespace {

int in_child(const std::function<int()>& body) { return Child(body).wait(); }

/// A connection that answers, made without checks: 0, or at which step it failed.
int talks() {
  Fd fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return 1;
  Address to = peer();
  if (connect(fd, to.get(), Address::size) != 0) return 2;
  if (write(fd, "echo\n", 5) != 5 || write(fd, "hello", 5) != 5) return 3;
  char back[5];
  if (recv(fd, back, sizeof back, MSG_WAITALL) != 5) return 4;
  return std::memcmp(back, "hello", 5) == 0 ? 0 : 5;
}

/// Every way of closing all that is open, as daemons do; `kept` stays.
const struct {
  const char* name;
  void (*close_all)(int kept);
} kWays[] = {
    {"close one by one",
     [](int kept) {
       for (int fd = 3; fd < 2000; ++fd)
         if (fd != kept) close(fd);
     }},
    {"close_range",
     [](int kept) {
       close_range(3, static_cast<unsigned>(kept) - 1, 0);
       close_range(static_cast<unsigned>(kept) + 1, ~0u, 0);
     }},
    {"closefrom",
     [](int kept) {
       dup2(kept, 3);
       closefrom(4);
     }},
    {"close_range by syscall()",
     [](int kept) {
       syscall(SYS_close_range, 3, kept - 1, 0);
       syscall(SYS_close_range, kept + 1, ~0u, 0);
     }},
    {"from /proc/self/fd",
     [](int kept) {
       for (int fd = 3; fd < 2000; ++fd) {
         char name[40], target[PATH_MAX];
         std::snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
         if (fd != kept && readlink(name, target, sizeof target) > 0) close(fd);
       }
     }},
};

TEST(Program, ClosesAllItsDescriptors) {
  for (const auto& way : kWays) {
    const int status = in_child([&] {
      Fd several[3] = {connected("drain"), connected("echo"), connected("drain")};
      const int kept = several[1];
      way.close_all(kept);
      const int at = fcntl(kept, F_GETFD) >= 0 ? kept : 3;
      if (!echoes(at, "x")) return 10;
      return talks();
    });
    EXPECT_EQ(status, 0) << way.name;
  }
}

/// A daemon's: sockets get the numbers of the standard streams.
TEST(Program, SocketsAsStandardStreams) {
  EXPECT_EQ(in_child([] {
              close(0);
              close(1);
              close(2);
              Fd first = connected("echo"), second = connected("echo"), third = connected("echo");
              if (first != 0 || second != 1 || third != 2) return 10;
              for (int fd : {0, 1, 2})
                if (!echoes(fd, "x")) return 11 + fd;
              return talks();
            }),
            0);
}

TEST(Program, ALowLimitOfDescriptors) {
  EXPECT_EQ(in_child([] {
              const rlimit low{16, 16};
              if (setrlimit(RLIMIT_NOFILE, &low) != 0) return 10;
              int fds[32], count = 0;
              while (count < 32 && (fds[count] = socket(AF_INET, SOCK_STREAM, 0)) >= 0) {
                if (fds[count] >= 16) return 11;
                ++count;
              }
              if (errno != EMFILE || count == 0 || count > 13) return 12;
              close(fds[--count]);
              if (int step = talks(); step != 0) return 20 + step;
              while (count > 0) close(fds[--count]);
              return talks();
            }),
            0);
}

/// plugin.cpp, beside this program.
std::string plugin() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  std::string self(path, n > 0 ? static_cast<size_t>(n) : 0);
  return self.substr(0, self.rfind('/')) + "/libapi_plugin.so";
}

TEST(Program, LoadsALibraryWithSockets) {
  void* library = dlopen(plugin().c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  auto* open_at_load = reinterpret_cast<int (*)()>(dlsym(library, "plugin_socket"));
  auto* connect_to = reinterpret_cast<int (*)(const sockaddr_in*)>(dlsym(library, "plugin_connect"));
  ASSERT_TRUE(open_at_load != nullptr && connect_to != nullptr);
  Fd early = open_at_load();
  Address to = peer();
  ASSERT_WORKS(connect(early, to.get(), Address::size));
  EXPECT_EQ(name_of(early).ip(), local().ip());
  Fd fd = connect_to(&to.in);
  ASSERT_GE(fd, 0) << strerror(errno);
  EXPECT_EQ(name_of(fd).ip(), local().ip());
  ASSERT_TRUE(send_all(fd, "say hello\n"));
  EXPECT_EQ(read_all(fd), "hello");
  EXPECT_EQ(dlclose(library), 0);
  // What it opened stays open.
  ASSERT_TRUE(send_all(early, "say hello\n"));
  EXPECT_EQ(read_all(early), "hello");
}

}  // namespace
}  // namespace api
