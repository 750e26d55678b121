// Whole hosts in virtual time: hours of network in milliseconds, the same for the same seed.
//
//   Simulator net(seed);
//   TestHost& client = net.add_host({.address = "192.0.2.1"_prefix...});
//   TestHost& server = net.add_host(...);
//   net.connect(client, server, {.loss = 0.05, .delay = 10ms});
//   TestSocket listener = server.listen(80);
//   TestSocket a = client.connect(server, 80);
//   ASSERT_TRUE(net.run_until([&] { return a.connected(); }, 3s));
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stack/host.h"
#include "tests/support/emulator.h"
#include "tests/support/event_queue.h"
#include "tests/support/heap_arena.h"
#include "tests/support/pattern.h"
#include "tests/support/seeded_random.h"

namespace ustack::test {

class Simulator;
class TestHost;

/// A socket of a host in the simulator. Owns it: release()d (close(2)) when it goes out of scope.
class TestSocket {
 public:
  TestSocket() = default;
  explicit TestSocket(Socket* socket) : socket_(socket) {}
  TestSocket(TestSocket&& other) noexcept : socket_(std::exchange(other.socket_, nullptr)) {}
  TestSocket& operator=(TestSocket&& other) noexcept {
    std::swap(socket_, other.socket_);
    return *this;
  }
  ~TestSocket() { close(); }

  explicit operator bool() const { return socket_ != nullptr; }
  Socket* get() const { return socket_; }
  Socket* operator->() const { return socket_; }
  void close();

  bool readable() const { return (socket_->readiness() & ready::kIn) != 0; }
  bool writable() const { return (socket_->readiness() & ready::kOut) != 0; }
  bool connected() const { return socket_->remote_address().ok() && writable(); }
  bool acceptable() const { return readable(); }
  /// connect(2), where the connection will be.
  Status connect(const SocketAddress& remote);
  /// A connection from the listener's queue; empty if there is none.
  TestSocket accept();
  /// Sends as much as there is room for; how many bytes, or -errno.
  int64_t send(Bytes bytes);
  int64_t send(std::string_view text) { return send(std::as_bytes(std::span(text))); }
  /// Takes what is there, at most `limit` bytes. The errno in `code` (EAGAIN when nothing is there); at the
  /// end of the stream an empty string and code 0.
  std::string receive(size_t limit = 1 << 20, int* code = nullptr);
  /// setsockopt with an int.
  Status set(int level, int name, int value);
  int get_int(int level, int name);

 private:
  Socket* socket_ = nullptr;
};

/// What a host of the simulator is made of.
struct HostOptions {
  std::string name = "host";
  Prefix address;
  Prefix second{};  ///< none: of no family
  IpAddress gateway{};
  LinkInfo link{};  ///< mac is chosen if zero
  Settings settings{};
  bool loopback = false;         ///< has 127.0.0.1/8
  uint32_t shards = 0;           ///< 0: as USTACK_TEST_SHARDS says, else one
  bool acks_wait = false;        ///< as under the shim: ACKs wait for the applications' answers in each turn
  LogLevel log = LogLevel::off;  ///< to stderr, with virtual time; USTACK_TEST_LOG=debug overrides
};

class TestHost final : LogSink {
 public:
  TestHost(Simulator& net, const HostOptions& options, uint64_t seed);
  TestHost(const TestHost&) = delete;
  TestHost& operator=(const TestHost&) = delete;
  ~TestHost();

  /// Of shards the first.
  Host& host() { return *host_; }
  Shards& shards() { return shards_; }
  HeapArena& arena() { return arena_; }
  Simulator& net() { return net_; }
  const IpAddress& address() const { return options_.address.address; }
  /// Of all its shards.
  Counters& counters();
  const HostOptions& options() const { return options_; }

  TestSocket socket();
  TestSocket listen(uint16_t port, int backlog = 128);
  /// A connection under way.
  TestSocket connect(const SocketAddress& remote);
  TestSocket connect(TestHost& remote, uint16_t port) { return connect({remote.address(), port}); }

  /// Called after each turn of the host, to let applications do what they can now.
  void on_turn(std::function<void()> application) { applications_.push_back(std::move(application)); }
  /// Before the applications go away while the simulation goes on.
  void clear_applications() { applications_.clear(); }
  /// Where this host's frames go; set by Simulator::connect.
  void set_wire(Stage::Output output) { wire_ = std::move(output); }
  void deliver(WireFrame frame);
  /// Runs the host and its applications and sends what came out; a test that has called a socket directly
  /// lets the next run_until do this.
  void turn();
  /// With acks_wait: the applications compute and don't wait for anything.
  void set_busy(bool busy) { busy_ = busy; }
  /// The host falls silent: neither sends nor receives any more (a machine that lost its power).
  void vanish() { vanished_ = true; }
  /// When it next has something to do by itself.
  Instant next_deadline() const;

 private:
  void write(LogLevel level, std::string_view line) override;
  /// Aborts when the host has lost track of some of its memory: what mending relies on (Host::unaccounted).
  void account();
  Simulator& net_;
  HostOptions options_;
  HeapArena arena_;
  SeededRandom random_;
  /// Runs all shards until nothing is left for any.
  void run_hosts();
  void transmit(Host& host);

  Shards shards_;
  std::vector<Host*> hosts_;
  Host* host_ = nullptr;
  Counters sum_{};
  uint64_t delivered_ = 0;
  Stage::Output wire_;
  std::vector<std::function<void()>> applications_;
  bool vanished_ = false;
  bool busy_ = false;
  uint64_t turns_ = 0;
};

/// Both directions between two hosts.
struct Cable {
  std::unique_ptr<Emulator> forward, backward;
};

class Simulator {
 public:
  explicit Simulator(uint64_t seed);
  Simulator(const Simulator&) = delete;
  Simulator& operator=(const Simulator&) = delete;
  ~Simulator();

  Instant now() const { return events_.now(); }
  EventQueue& events() { return events_; }
  TestHost& add_host(HostOptions options);
  /// A cable between two hosts, the same both ways or not.
  Cable& connect(TestHost& a, TestHost& b, const Impairments& both = {}) { return connect(a, b, both, both); }
  Cable& connect(TestHost& a, TestHost& b, const Impairments& forward, const Impairments& backward);
  /// A hub: every frame of one reaches all others, through `each` impairments.
  void connect_all(const std::vector<TestHost*>& hosts, const Impairments& each = {});

  /// Lets time pass until `done` or until `limit` has passed; whether it came true. Checked after every
  /// event.
  bool run_until(const std::function<bool()>& done, Duration limit);
  void run_for(Duration time) {
    run_until([] { return false; }, time);
  }
  /// A hash over every frame put on any wire, with its time: two runs were the same if and only if it is.
  uint64_t trace_hash() const { return trace_hash_; }
  uint64_t frames() const { return frames_; }
  /// Writes every frame put on a wire to a pcap file from now on.
  void capture(const std::string& path);
  void note_frame(const WireFrame& frame);

 private:
  struct PcapFile;
  uint64_t seed_;
  EventQueue events_;
  std::vector<std::unique_ptr<TestHost>> hosts_;
  std::vector<std::unique_ptr<Cable>> cables_;
  std::vector<std::unique_ptr<Emulator>> hub_ports_;
  uint64_t trace_hash_ = 0xcbf29ce484222325;
  uint64_t frames_ = 0;
  std::unique_ptr<PcapFile> pcap_;
};

/// An application that sends `total` bytes of a pattern, then closes its sending side if told to.
class PatternSender {
 public:
  PatternSender(TestHost& host, Socket& socket, const Pattern& pattern, uint64_t total,
                bool close_after = true);
  bool done() const { return sent_ == total_; }
  uint64_t sent() const { return sent_; }
  int error() const { return error_; }

 private:
  void pump();
  Socket& socket_;
  Pattern pattern_;
  uint64_t total_, sent_ = 0;
  bool close_after_;
  int error_ = 0;
};

/// An application that reads a stream and checks it against a pattern.
class PatternReceiver {
 public:
  PatternReceiver(TestHost& host, Socket& socket, const Pattern& pattern);
  uint64_t received() const { return received_; }
  bool intact() const { return intact_; }
  bool at_end() const { return at_end_; }
  int error() const { return error_; }
  /// While true nothing is read, so that the window closes.
  bool paused = false;

 private:
  void pump();
  Socket& socket_;
  Pattern pattern_;
  uint64_t received_ = 0;
  bool intact_ = true, at_end_ = false;
  int error_ = 0;
};

}  // namespace ustack::test
