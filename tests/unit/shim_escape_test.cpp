// Ends outside of the library: bytes between a socket pair and a socket that the test plays. The test's
// process has a host and does what the keeper does.
#include "shim/escape.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string>

#include "io/descriptor_message.h"
#include "shim/driver.h"
#include "shim/escape_server.h"
#include "shim/escaped_end.h"
#include "shim/keeper.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"

namespace ustack::shim {
namespace {

/// A connection of which the test sees everything.
class FakeSocket final : public Socket {
 public:
  explicit FakeSocket(Host& host) : Socket(host) {}

  std::string sent, unread;
  size_t room = 1 << 20;
  bool peer_ended = false, released = false, reset = false;
  int error = 0;
  int shut = -1;

  void arrive(const std::string& bytes) {
    unread += bytes;
    waiters.notify(ready::kIn);
  }

  int protocol() const override { return IPPROTO_TCP; }
  Status bind(const SocketAddress&) override { return Error{EINVAL}; }
  Status connect(const SocketAddress&) override { return Error{EISCONN}; }
  Status connect_result() override { return {}; }
  Status listen(int) override { return Error{EINVAL}; }
  Result<Socket*> accept() override { return Error{EINVAL}; }
  Status shutdown(ShutdownHow how) override {
    shut = static_cast<int>(how);
    return {};
  }
  void release() override { released = true; }
  bool failed() const override { return error != 0; }
  bool lingering_done() const override { return true; }
  Result<Extents> reserve_send(size_t want) override {
    if (error != 0) return Error{error};
    size_t free = std::min({want, room - sent.size(), sizeof reserved_});
    if (free == 0) return Error{EAGAIN};
    Extents extents;
    extents.add(MutableBytes(reserved_).first(free));
    return extents;
  }
  void commit_send(size_t n, SendFlags) override { sent.append(reinterpret_cast<char*>(reserved_), n); }
  Result<Extents> view_receive(size_t want, size_t offset) override {
    Extents extents;
    if (offset < unread.size()) {
      auto* at = reinterpret_cast<std::byte*>(unread.data());
      extents.add({at + offset, std::min(want, unread.size() - offset)});
      return extents;
    }
    if (error != 0) return Error{error};
    return peer_ended ? Result<Extents>(extents) : Error{EAGAIN};
  }
  void consume(size_t n) override { unread.erase(0, n); }
  Result<std::byte> receive_urgent(bool) override { return Error{EINVAL}; }
  uint32_t readiness() const override {
    return ready::kOut | (unread.empty() ? 0 : ready::kIn) | (error != 0 ? ready::kErr : 0);
  }
  Result<SocketAddress> local_address() const override {
    return SocketAddress{IpAddress::v4(192, 0, 2, 2), 80};
  }
  Result<SocketAddress> remote_address() const override {
    return SocketAddress{IpAddress::v4(192, 0, 2, 1), 4444};
  }
  Status set_option(int level, int name, Bytes value) override {
    linger time{};
    if (level != SOL_SOCKET || name != SO_LINGER || value.size() != sizeof time) return Error{ENOPROTOOPT};
    std::memcpy(&time, value.data(), sizeof time);
    reset = time.l_onoff == 1 && time.l_linger == 0;
    return {};
  }
  Result<size_t> get_option(int, int, MutableBytes) override { return Error{ENOPROTOOPT}; }
  Result<int> ioctl_value(unsigned long) override { return Error{EINVAL}; }
  uint32_t receive_low_water() const override { return 1; }
  Duration receive_timeout() const override { return {}; }
  Duration send_timeout() const override { return {}; }

 private:
  std::byte reserved_[4096];
};

/// A connection with an end outside, of which `outer` is the program's descriptor.
struct Connection {
  Connection() : socket(host()) {
    file = SocketFile::create(socket);
    (void)file->connect(lock, SocketAddress{IpAddress::v4(192, 0, 2, 1), 4444});
    outer = leave();
  }
  /// As hand_over() and the keeper do.
  int leave() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    escape::Request request{.kind = escape::Request::Kind::end, .pid = getpid()};
    EXPECT_EQ(send(ends[0], &request, sizeof request, 0), static_cast<ssize_t>(sizeof request));
    file->reference();
    escape::adopt(*file, io::Descriptor(ends[1]));
    int32_t status = -1;
    io::Descriptor end;
    EXPECT_EQ(io::receive_with_descriptor(ends[0], &status, sizeof status, end),
              static_cast<long>(sizeof status));
    EXPECT_EQ(status, 0);
    close(ends[0]);
    return end.release();
  }
  Host& host() { return lock.host(); }
  void serve() { escape::run(lock); }
  /// The program's own descriptor is closed: only the end outside has the connection.
  void close_inside() {
    file->release();
    inside = false;
  }
  std::string read_outside(size_t most = 4096) const {
    std::string bytes(most, 0);
    ssize_t n = recv(outer, bytes.data(), most, MSG_DONTWAIT);
    return n < 0 ? strerrorname_np(errno) : bytes.substr(0, static_cast<size_t>(n));
  }
  void write_outside(const std::string& bytes) const {
    EXPECT_EQ(send(outer, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }

  Scope scope;
  HostLock lock;
  FakeSocket socket;
  SocketFile* file;
  int outer = -1;
  bool inside = true;
};

/// Runs `body` in a process of its own that has a host.
void with_connection(const std::function<void(Connection&)>& body) {
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0) _exit(101);
    setenv("USTACK_LINK", ("fd:" + std::to_string(ends[0])).c_str(), 1);
    setenv("USTACK_ADDR", "192.0.2.2/24", 1);
    Process::start();
    {
      Scope scope;
      if (!Process::ensure_host().ok() || escape::kernel_fd() < 0) _exit(102);
      // Its true keeper clears away what an earlier one has left; it is waited for, lest it be ours.
      (void)keeper::will_take_over();
    }
    {
      Connection connection;
      body(connection);
      _exit(testing::Test::HasFailure() ? 103 : 0);
    }
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

TEST(Escape, WhatIsWrittenOutsideIsSentAtOnce) {
  with_connection([](Connection& c) {
    c.write_outside("hello");
    c.serve();
    EXPECT_EQ(c.socket.sent, "hello");
  });
}

TEST(Escape, WithoutRoomInTheSendBufferTheWriterWaits) {
  with_connection([](Connection& c) {
    c.socket.room = 3;
    c.write_outside("hello");
    c.serve();
    EXPECT_EQ(c.socket.sent, "hel");
    c.socket.room = 100;
    c.socket.waiters.notify(ready::kOut);
    c.serve();
    EXPECT_EQ(c.socket.sent, "hello");
  });
}

TEST(Escape, WhatIsLentLeavesTheSocketWhenItIsRead) {
  with_connection([](Connection& c) {
    c.socket.arrive("abcdef");
    c.serve();
    EXPECT_EQ(c.socket.unread, "abcdef");
    EXPECT_EQ(c.read_outside(4), "abcd");
    c.socket.arrive("gh");
    c.serve();
    EXPECT_EQ(c.socket.unread, "efgh");
    EXPECT_EQ(c.read_outside(), "efgh");
  });
}

TEST(Escape, WhatIsLentCanBeTakenBack) {
  with_connection([](Connection& c) {
    c.socket.arrive("abcdef");
    c.serve();
    EXPECT_EQ(c.read_outside(2), "ab");
    EscapedEnd& end = *c.file->ends().front();
    EXPECT_TRUE(end.lends());
    end.recall();
    c.serve();
    EXPECT_FALSE(end.lends());
    EXPECT_EQ(c.socket.unread, "cdef");
    EXPECT_EQ(c.read_outside(), "EAGAIN");
  });
}

TEST(Escape, LeftAloneTheEndHasEverything) {
  with_connection([](Connection& c) {
    c.socket.arrive("abc");
    c.serve();
    c.close_inside();
    c.serve();
    EXPECT_EQ(c.socket.unread, "");
    c.socket.arrive("def");
    c.serve();
    EXPECT_EQ(c.socket.unread, "");
    EXPECT_EQ(c.read_outside(), "abcdef");
    EXPECT_FALSE(c.socket.released);
  });
}

TEST(Escape, AllWhoLeaveShareOneEnd) {
  with_connection([](Connection& c) {
    int again = c.leave();
    c.socket.arrive("abc");
    c.serve();
    EXPECT_EQ(c.read_outside(1), "a");
    char bytes[8];
    EXPECT_EQ(recv(again, bytes, sizeof bytes, MSG_DONTWAIT), 2);
    c.close_inside();
    close(c.outer);
    c.serve();
    EXPECT_FALSE(c.socket.released) << "there is another descriptor of it";
    close(again);
    c.serve();
    EXPECT_TRUE(c.socket.released);
  });
}

TEST(Escape, ClosedOutsideItIsClosedInOrder) {
  with_connection([](Connection& c) {
    c.close_inside();
    c.serve();
    c.write_outside("last");
    close(c.outer);
    c.serve();
    EXPECT_EQ(c.socket.sent, "last");
    EXPECT_TRUE(c.socket.released);
    EXPECT_FALSE(c.socket.reset);
  });
}

TEST(Escape, ClosedWithBytesUnreadItIsReset) {
  with_connection([](Connection& c) {
    c.close_inside();
    c.socket.arrive("unread");
    c.serve();
    close(c.outer);
    c.serve();
    EXPECT_TRUE(c.socket.released);
    EXPECT_TRUE(c.socket.reset);
  });
}

TEST(Escape, ClosedOutsideItStaysOpenInside) {
  with_connection([](Connection& c) {
    c.socket.arrive("inside");
    c.serve();
    close(c.outer);
    c.serve();
    EXPECT_FALSE(c.socket.released);
    c.file->ends().front()->recall();
    c.serve();
    EXPECT_EQ(c.socket.unread, "inside");
  });
}

TEST(Escape, EachDirectionEndsByItself) {
  with_connection([](Connection& c) {
    c.close_inside();
    shutdown(c.outer, SHUT_WR);
    c.serve();
    EXPECT_EQ(c.socket.shut, SHUT_WR);
    EXPECT_FALSE(c.socket.released);
    c.socket.arrive("more");
    c.socket.peer_ended = true;
    c.serve();
    EXPECT_EQ(c.read_outside(), "more");
    EXPECT_EQ(c.read_outside(), "");
  });
}

TEST(Escape, ABrokenConnectionIsSeenOutside) {
  with_connection([](Connection& c) {
    c.serve();
    c.socket.error = ECONNRESET;
    c.socket.waiters.notify(ready::kErr | ready::kHup);
    c.serve();
    EXPECT_EQ(c.read_outside(), "ECONNRESET");
    EXPECT_EQ(c.socket.error, ECONNRESET) << "it is the relatives' to find";
    EXPECT_TRUE(c.file->ends().empty());
  });
}

}  // namespace
}  // namespace ustack::shim
